"""The log-mel front ends against the published ones and against a plain Fourier sum."""

from __future__ import annotations

import math

import pytest
import torch

from av_bench.contracts import MetricError, UsageError
from model_zoo.mmaudio.codec.mel import FLOOR, MELS, MelConfig, log_mel, mel_bank
from tests.model_zoo.mmaudio.goldens import close, golden, needs_golden

SMALL = MelConfig(8_000, n_fft=64, hop=16, n_mels=6, high=4_000.0)


@needs_golden
@pytest.mark.parametrize("rate", MELS)
def test_published_vectors(rate: str) -> None:
    found = golden("mmaudio_tiny/mel.pt")[rate]
    close(log_mel(found["wav"], MELS[rate]), found["mel"], 1e-5)
    bank = mel_bank(MELS[rate]).double()
    assert float(bank.sum()) == pytest.approx(found["mel_basis_sum"], rel=1e-6)
    close(bank.sum(1), found["mel_basis_rowsums"], 1e-6)
    silence = log_mel(torch.zeros(1, 3 * MELS[rate].hop), MELS[rate])
    close(silence, found["silence"], 1e-6)


def test_is_the_sum_it_claims_to_be() -> None:
    wave = torch.randn(1, 160, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    frame = 4  # far from the edges: samples 16 * 4 - 24 to 16 * 4 + 40 of the wave
    piece = wave[0, 16 * frame - 24 : 16 * frame + 40].double()
    n = torch.arange(64, dtype=torch.float64)
    window = 0.5 - 0.5 * torch.cos(2 * math.pi * n / 64)
    spectrum = torch.stack([(piece * window * torch.exp(-2j * math.pi * k * n / 64)).sum() for k in range(33)])
    wanted = torch.log10((mel_bank(SMALL).double() @ spectrum.abs()).clamp(min=FLOOR))
    torch.testing.assert_close(log_mel(wave, SMALL)[0, :, frame].double(), wanted, rtol=0, atol=1e-4)


def test_shape_ceiling_and_logarithms() -> None:
    wave = torch.linspace(-3, 3, 16 * 7 + 5)[None]
    mel = log_mel(wave, SMALL)
    assert mel.shape == (1, 6, 7)
    assert torch.equal(mel, log_mel(wave.clamp(-1, 1), SMALL))
    natural = log_mel(wave, MelConfig(8_000, 64, 16, 6, high=4_000.0, log="e"))
    close(natural, mel * math.log(10), 1e-5)


def test_same_numbers_under_autocast_and_finite_gradients_at_silence() -> None:
    wave = torch.zeros(1, 160, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        mel = log_mel(torch.sin(torch.arange(160.0))[None], SMALL)
    assert mel.dtype == torch.float32
    assert torch.equal(mel, log_mel(torch.sin(torch.arange(160.0))[None], SMALL))
    log_mel(wave, SMALL).sum().backward()  # type: ignore[no-untyped-call]
    assert wave.grad is not None
    assert bool(wave.grad.isfinite().all())


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"hop": 0}, "hop 0"), ({"hop": 15}, "even"), ({"high": 5_000.0}, "0-4000.0 Hz"), ({"log": "2"}, "'2'")],
)
def test_refuses_impossible_parameters(changes: dict[str, object], words: str) -> None:
    given = {"sample_rate": 8_000, "n_fft": 64, "hop": 16, "n_mels": 6, "high": 4_000.0, **changes}
    with pytest.raises(UsageError, match=words):
        MelConfig(**given)  # type: ignore[arg-type]


def test_refuses_short_and_flat_waves() -> None:
    with pytest.raises(MetricError, match="20 samples are too few, at least 25"):
        log_mel(torch.zeros(1, 20), SMALL)
    with pytest.raises(UsageError, match=r"\(160,\)"):
        log_mel(torch.zeros(160), SMALL)
