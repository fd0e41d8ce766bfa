"""Flow matching in closed form: noise at t = 0, data at t = 1, the velocity that leads from one to the other."""

from __future__ import annotations

import pytest
import torch

from av_bench.contracts import UsageError
from model_zoo.mmaudio.flow import matching, solvers
from model_zoo.mmaudio.sampling import windows

NOISE, DATA = torch.zeros(2, 3, 1), torch.tensor([1.0, 2.0, 4.0]).reshape(1, 3, 1).repeat(2, 1, 1)


def test_noise_sits_at_0_and_data_at_1() -> None:
    at = torch.tensor([0.0, 1.0])
    assert torch.equal(matching.interpolate(NOISE, DATA, at), torch.stack([NOISE[0], DATA[0]]))
    quarter = matching.interpolate(NOISE, DATA, torch.tensor([0.25, 0.25]))
    torch.testing.assert_close(quarter, DATA / 4)
    torch.testing.assert_close(quarter + 0.75 * matching.target(NOISE, DATA), DATA)


def test_the_loss_is_a_mean_over_frames_and_channels_of_each_sample() -> None:
    wanted = torch.zeros(2, 2, 2)
    velocity = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[2.0, 2.0], [2.0, 2.0]]])
    assert matching.loss_per_sample(velocity, wanted).tolist() == [0.25, 4.0]


def test_euler_takes_each_velocity_at_the_start_of_its_step() -> None:
    """dx/dt = 2t from 0: four steps of the left rule give 0 + 2 * (0 + 1 + 2 + 3) / 16."""
    times: list[float] = []

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        times.append(float(t[0]))
        return 2 * t.view(-1, 1, 1).expand_as(x)

    found = solvers.euler(velocity, torch.zeros(1, 2, 2), 4)
    assert times == [0.0, 0.25, 0.5, 0.75]
    torch.testing.assert_close(found, torch.full((1, 2, 2), 0.75))
    with pytest.raises(UsageError, match="steps must be at least 1"):
        solvers.euler(velocity, torch.zeros(1, 2, 2), 0)


def test_windows_cross_fade_linearly_and_add_up_to_one() -> None:
    """12 s in windows of 8 s, one frame a second: they share frames 4 to 7, where one fades out and the other in."""
    cut = windows.plan(12.0, 8.0, 2.0, 8, 12)
    assert cut.starts == (0.0, 4.0)
    weights = cut.weights()
    total = torch.zeros(12)
    for start, row in zip(cut.first, weights, strict=True):
        total[start : start + 8] += row
    torch.testing.assert_close(total, torch.ones(12))
    torch.testing.assert_close(weights[0, 4:], torch.tensor([0.8, 0.6, 0.4, 0.2]))
    x = torch.arange(12.0).reshape(1, 12, 1)
    torch.testing.assert_close(cut.merge(cut.split(x), weights), x)
