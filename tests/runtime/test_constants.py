"""Kept constants serve every caller, whatever mode the first one was in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from av_bench.extractors import frontends
from av_bench.media.decode import DecodedMedia
from av_bench.media.resample import resample
from av_bench.runtime.constants import constant
from model_zoo.mmaudio.codec.mel import MELS, log_mel
from model_zoo.mmaudio.config import NetworkConfig
from model_zoo.mmaudio.flow.network import FlowNetwork

MODES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "inference": torch.inference_mode,
    "meta": lambda: torch.device("meta"),
    "fake": lambda: FakeTensorMode(allow_non_fake_inputs=True),
}
USERS: dict[str, Callable[[Tensor], Tensor]] = {
    "panns": lambda wave: frontends.decibel_mel(wave, 16_000, 512, 160, 50.0, 8000.0),
    "vggish": frontends.vggish_examples,
    "passt": frontends.passt_mel,
    "synchformer": frontends.synchformer_mel,
    "fbank": frontends.kaldi_fbank,
    "resample": lambda wave: resample(wave, 44_100, 16_000),
    "mmaudio-16k": lambda wave: log_mel(wave, MELS["16k"]),
}


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test is the first caller: the caches of the constants start empty."""
    from av_bench.media import resample as media
    from model_zoo.mmaudio.codec import mel

    for module, names in ((frontends, ("mel_bank", "hann")), (media, ("_kernel",)), (mel, ("mel_bank",))):
        for name in names:
            monkeypatch.setattr(module, name, constant(getattr(module, name).__wrapped__))


def wave() -> Tensor:
    return 0.1 * torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("user", USERS)
def test_a_gradient_passes_after_a_first_use_in_another_mode(user: str, mode: str) -> None:
    signal = wave()
    with MODES[mode]():
        USERS[user](signal)
    leaf = signal.clone().requires_grad_(True)
    USERS[user](leaf).sum().backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    assert float(leaf.grad.abs().sum()) > 0


def test_values_are_computed_once_and_kept_outside_of_torch() -> None:
    calls = []

    @constant
    def ramp(length: int) -> NDArray[np.float32]:
        calls.append(length)
        return np.arange(length, dtype=np.float32)

    with torch.inference_mode():
        assert ramp(3).is_inference()
    assert not ramp(3).is_inference()
    assert ramp(3).tolist() == [0, 1, 2]
    assert calls == [3]


def test_a_waveform_first_asked_for_in_inference_mode_serves_training() -> None:
    item = DecodedMedia(Path("clip.wav"), "0" * 64, wave(), 16_000, {}, None)
    with torch.inference_mode():
        item.waveform(32_000, None)
    weight = torch.ones(1, requires_grad=True)
    (item.waveform(32_000, None) * weight).square().sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None


def test_lengths_set_in_inference_mode_serve_training() -> None:
    network = FlowNetwork(NetworkConfig(5, 64, 5, 3, 2, 31, 8, 24))
    with torch.inference_mode():
        network.set_lengths(10, 4, 8)
    assert not network.latent_rot.is_inference()
    assert not network.clip_rot.is_inference()
