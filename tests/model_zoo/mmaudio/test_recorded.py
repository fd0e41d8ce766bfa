"""One graph per step: what a recording is given, when it is made again, and what happens where none can be made.

A recorder without a GPU stands for CUDA's: its replay computes the recorded call once more, from the recorded memory.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model_zoo.mmaudio.flow.products import How
from model_zoo.mmaudio.sampling.recorded import Recorded
from model_zoo.mmaudio.sampling.settings import Settings
from tests.model_zoo.mmaudio.test_flow import TINY, inputs, random_network

CUDA = torch.device("cuda")


class Recorder:
    """Counts recordings and replays."""

    def __init__(self) -> None:
        self.recordings = self.replays = 0

    def __call__(self, run: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, Callable[[], object]]:
        assert device.type == "cpu"
        self.recordings += 1
        result = run()

        def replay() -> None:
            self.replays += 1
            result.copy_(run())

        return result, replay


@pytest.mark.parametrize("arranged", [False, True])
@torch.no_grad()
def test_a_replay_reads_what_the_call_was_given(arranged: bool) -> None:
    network, recorder = random_network(), Recorder()
    if arranged:
        network.arrange(How())
    flow = Recorded(network.flow, recorder)
    conditions = [network.ready(network.preprocess(*inputs(TINY, 1, seed)[1:])) for seed in range(2)]
    latents, found, wanted = torch.randn(3, 1, 31, 5), [], []
    for given in conditions:
        for k, latent in enumerate(latents):
            t = torch.tensor([k / 3])
            found.append(flow(latent, t, given))
            wanted.append(network.flow(latent, t, given))
    for one, other in zip(found, wanted, strict=True):  # all at the end: no later call may change an earlier result
        assert torch.equal(one, other)
    assert (recorder.recordings, recorder.replays) == (1, 6)
    two = network.ready(network.preprocess(*inputs(TINY, 2)[1:]))
    before = recorder.recordings
    assert flow(torch.randn(2, 31, 5), torch.rand(2), two).shape == (2, 31, 5)
    assert recorder.recordings == before + 1
    flow.forget()
    flow(torch.randn(2, 31, 5), torch.rand(2), two)
    assert recorder.recordings == before + 2


@torch.no_grad()
def test_where_recording_fails_steps_are_launched_one_by_one() -> None:
    def refuse(_run: Callable[[], Tensor], _device: torch.device) -> tuple[Tensor, Callable[[], object]]:
        raise RuntimeError("operation not permitted when stream is capturing")

    network = random_network()
    latent, *raw = inputs(TINY, 1)
    flow, given, t = Recorded(network.flow, refuse), network.preprocess(*raw), torch.tensor([0.4])
    with pytest.warns(UserWarning, match="launched one by one: operation not permitted"):
        found = flow(latent, t, given)
    assert torch.equal(found, network.flow(latent, t, given))
    assert torch.equal(flow(latent, t, given), found)  # and no second warning: warnings are errors in these tests


def test_a_step_is_recorded_where_one_sample_is_made_at_a_time() -> None:
    assert Settings(batch=1).records(CUDA)
    others = [Settings(), Settings(batch=1, compile="no"), Settings(batch=1, compile="graphs")]
    assert not any(settings.records(CUDA) for settings in [*others, Settings(batch=1, offload="yes")])
    assert not Settings(batch=1).records(torch.device("cpu"))
