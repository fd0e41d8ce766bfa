"""The error budget of docs/precision.md: stages in float32 against float64, and what is left of that in a metric."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from av_bench import metrics
from av_bench.extractors import frontends
from av_bench.media.decode import decode
from av_bench.media.resample import resample
from tests.extractors import golden_pipeline as gold
from tests.golden import pack

OURS = [pytest.param(path, id=name) for name, path in pack.SOUNDS.items()]
REAL = [
    pytest.param(gold.SHARED / f"clips/{name}.mp4", id=name, marks=gold.needs_golden)
    for name in ("scene_a", "scene_b", "hitting_bag")
]


@pytest.fixture(scope="module", params=[*OURS, *REAL])
def item(request: pytest.FixtureRequest) -> Any:
    return decode(request.param)


def decibels(wave: Tensor) -> Tensor:
    return frontends.decibel_mel(wave, 16_000, 512, 160, 50.0, 8000.0)


@pytest.mark.parametrize("rate", [16_000, 32_000, 48_000])
def test_resampling_in_single_precision(item: Any, rate: int) -> None:
    single, double = (resample(item.audio.to(kind), item.sample_rate, rate) for kind in (torch.float32, torch.float64))
    gold.note(f"resample {item.path.stem} to {rate} Hz", "float64", single, double, 2e-5)


@pytest.mark.parametrize(
    ("front_end", "rate", "limit"),
    [
        (frontends.vggish_examples, 16_000, 1e-4),
        (decibels, 16_000, 1e-3),
        (frontends.passt_mel, 32_000, 3e-4),
        (frontends.synchformer_mel, 16_000, 1e-4),
        (frontends.kaldi_fbank, 16_000, 5e-3),
    ],
    ids=["vggish", "panns-dB", "passt", "synchformer", "fbank"],
)
def test_front_end_in_single_precision(
    item: Any, front_end: Any, rate: int, limit: float, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    wave = item.waveform(rate, gold.SECONDS)[None]
    single = front_end(wave)
    bank, hann = frontends.mel_bank, frontends.hann
    monkeypatch.setattr(frontends, "mel_bank", lambda *a, **k: bank(*a, **k).double())
    monkeypatch.setattr(frontends, "hann", lambda *a, **k: hann(*a, **k).double())
    double = front_end(wave.double())
    assert double.dtype == torch.float64
    name = request.node.callspec.id.split("-", 1)[1]
    gold.note(f"log-mel {name}, {item.path.stem}", "float64", single, double, limit, absolute=True)
    assert (single - double).abs().mean() < 5e-5


# What a feature error of 1e-4 of the rms, the tolerance of the whole chain, does to the numbers of the table.


def noisy(rows: np.ndarray[Any, Any], seed: int) -> np.ndarray[Any, Any]:
    rows = np.asarray(rows, dtype=np.float64)
    noise = np.random.default_rng(seed).uniform(-1, 1, rows.shape)
    return rows + 1e-4 * np.sqrt(np.square(rows).mean()) * noise


@gold.needs_golden
@pytest.mark.parametrize("key", ["panns_logits", "passt_logits"])
def test_tolerated_feature_error_moves_kl_by_less_than_its_tolerance(key: str) -> None:
    reference, generated = gold.golden("gt", key), gold.golden("pred", key)
    exact = metrics.kl_divergence(reference, generated)
    moved = metrics.kl_divergence(noisy(reference, 0), noisy(generated, 1))
    gold.note(f"KL from {key}", "features off by 1e-4", moved, exact, 1e-4, absolute=True)


@gold.needs_golden
def test_tolerated_feature_error_moves_ib_by_less_than_its_tolerance() -> None:
    video, audio = gold.golden("video", "imagebind_video"), gold.golden("pred", "imagebind_audio")
    exact, moved = metrics.cosine_similarity(video, audio), metrics.cosine_similarity(noisy(video, 0), noisy(audio, 1))
    gold.note("IB-score", "features off by 1e-4", moved, exact, 1e-4, absolute=True)


@pytest.mark.parametrize(("rows", "width"), [(4000, 128), (2000, 768)])
def test_tolerated_feature_error_hardly_moves_fd(rows: int, width: int) -> None:
    rng = np.random.default_rng(1)
    mixing = rng.standard_normal((width, width)) / np.sqrt(width)
    first = rng.standard_normal((rows, width)) @ mixing
    second = 1.1 * rng.standard_normal((rows, width)) @ mixing + 0.1
    exact, moved = metrics.frechet_distance(first, second), metrics.frechet_distance(noisy(first, 0), noisy(second, 1))
    gold.note(f"FD, {rows} x {width}", "features off by 1e-4", [moved / exact], [1.0], 1e-4, absolute=True)
