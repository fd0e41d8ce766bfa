"""aiSFX: front end and network against numbers of the authors' package (Essentia 2.1b6, aisfx 0.1.2, torch 2.2)."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from av_bench import extractors
from av_bench.extractors.sfx import LARGEST, sfx_mel, windows_of
from av_bench.networks.sfx import SfxNet
from av_bench.weights import BadWeights

CLASSES = (78, 79, 69, 81, 10, 27, 3, 23, 8)


def _signal() -> NDArray[np.float32]:
    """3 s at 44.1 kHz: a sweep, a tone from 1 s on, and clicks beyond full scale."""
    t = np.arange(132_300) / 44_100
    sweep = 0.4 * np.sin(2 * np.pi * (200 * t + 400 * t * t))
    tone = 0.3 * np.sin(2 * np.pi * 9000 * t) * (t > 1)
    return (sweep + tone + np.where((t % 0.5) < 0.002, 1.0, 0.0)).astype(np.float32)


def _derived(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Weights that follow from the name alone; the package was given the same."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    values: NDArray[np.float64] = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)
    if key.endswith("running_var"):
        values = np.abs(values) + 0.5
    elif ".bn" in key:
        values = 1 + 0.1 * values if key.endswith("weight") else 0.1 * values
    else:
        values = values * (2.0 / int(np.prod(shape[1:]))) ** 0.5 if len(shape) > 1 else 0.1 * values
    return torch.from_numpy(np.asarray(values, np.float32))


def derived_state() -> dict[str, torch.Tensor]:
    """A checkpoint in the released layout: the embedding network and nine heads."""
    shapes = {k: tuple(v.shape) for k, v in SfxNet().state_dict().items() if not k.startswith("fc.")}
    for number, classes in enumerate(CLASSES):
        for layer, (rows, columns) in zip((0, 2, 4), ((256, 512), (128, 256), (classes, 128)), strict=True):
            shapes |= {f"fc.{number}.{layer}.weight": (rows, columns), f"fc.{number}.{layer}.bias": (rows,)}
    counts = {k for k in shapes if k.endswith("num_batches_tracked")}
    return {k: torch.tensor(1) if k in counts else _derived(k, s) for k, s in shapes.items()}


def test_the_front_end_gives_essentias_numbers() -> None:
    mel = sfx_mel(torch.from_numpy(_signal())[None])[0] * LARGEST
    assert mel.shape == (131, 96)
    essentia = {
        (0, 3): 7.756675720214844,
        (10, 4): 0.5765008926391602,
        (30, 20): 8.052104949951172,
        (60, 10): 2.1743668185081333e-05,
        (129, 10): 4.132659912109375,
        (130, 2): 2.1640005111694336,
    }
    for (frame, band), value in essentia.items():
        assert float(mel[frame, band]) == pytest.approx(value, abs=1e-4)
    assert float(mel.max()) == pytest.approx(8.431255, abs=1e-5)


def test_the_network_gives_the_packages_numbers() -> None:
    extractor = extractors.load("sfx", weights=derived_state())
    (found,) = extractor.run([torch.from_numpy(_signal())])
    assert found["embedding"].shape == (1, 512)
    first = [0.01717414, 0.01003719, 1.0237812, 1.0656606, 0.8279011, 0.51194274]
    np.testing.assert_allclose(found["embedding"][0, :6], first, atol=2e-5)
    assert float(np.square(found["embedding"], dtype=np.float64).sum()) == pytest.approx(112.74842574, rel=1e-4)
    probability = np.exp(found["logits"] - np.logaddexp.reduce(found["logits"]))
    np.testing.assert_allclose(probability[:3], [0.02821673, 0.00498452, 0.02279902], rtol=1e-3)
    assert int(probability.argmax()) == 14


def test_several_windows_become_one_class_distribution() -> None:
    extractor = extractors.load("sfx", weights=derived_state())
    wave = torch.from_numpy(np.concatenate([_signal(), _signal()[::-1]]).copy())
    (both,) = extractor.run([wave])
    windows = windows_of(sfx_mel(wave[None]))[0]
    assert both["embedding"].shape == (4, 512)
    assert windows.shape == (4, 100, 96)
    with torch.inference_mode():
        mean = torch.softmax(extractor.module(windows)[1], dim=-1).mean(dim=0)
    np.testing.assert_allclose(np.exp(both["logits"]) / np.exp(both["logits"]).sum(), mean, rtol=1e-4)


def test_less_than_one_window_is_filled_up_with_silence() -> None:
    assert windows_of(torch.ones(1, 40, 96)).shape == (1, 1, 100, 96)
    assert float(windows_of(torch.ones(1, 40, 96))[0, 0, 40:].abs().max()) == 0.0


def test_a_checkpoint_of_another_layout_is_refused() -> None:
    state = derived_state()
    del state["embedding_net.conv_block4.bn2.running_var"]
    with pytest.raises(BadWeights, match="running_var"):
        extractors.load("sfx", weights=state)
