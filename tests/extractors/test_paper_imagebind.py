"""ImageBind end to end. Files of one tower (a whole one has 4.8 GB) beside a bit of another, which must be ignored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from av_bench import extractors
from av_bench.metrics import cosine_similarity
from tests.extractors import golden_pipeline as gold

pytestmark = [pytest.mark.paper, gold.needs_golden, gold.needs_package("imagebind", "timm", "einops", "iopath")]


def tower(modality: str, folder: Path) -> Iterator[Any]:
    path = folder / "official.pth"
    torch.save(gold.rebuild("imagebind", rf"\.{modality}\.|\.imu\."), path)
    extractor = extractors.load(f"imagebind-{'video' if modality == 'vision' else modality}", path)
    names = {name.split(".")[1] for name, _ in extractor.module.named_parameters()}
    assert names == {modality}  # nothing else is in memory
    yield extractor
    path.unlink()


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from tower("audio", tmp_path_factory.mktemp("imagebind-audio"))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from tower("vision", tmp_path_factory.mktemp("imagebind-video"))


@pytest.fixture(scope="module")
def sounds(audio: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {side: audio.features(gold.media(side), gold.SECONDS)["embedding"] for side in ("gt", "pred")}


@pytest.mark.parametrize("side", ["gt", "pred"])
def test_audio_features_are_the_originals(sounds: dict[str, np.ndarray[Any, Any]], side: str) -> None:
    reference = gold.golden(side, "imagebind_audio")
    gold.note(f"imagebind-audio, {side} audio of 3 clips", "golden run", sounds[side], reference, 1e-4)
    assert gold.relative(np.roll(sounds[side], 1, axis=0), reference) > 1e-2
    assert (np.linalg.norm(sounds[side], axis=1) < 20).all()  # a mean of views of length 20, not normalised again


@pytest.mark.parametrize(("side", "metric"), [("pred", "ib"), ("gt", "extra_ib_gt_audio")])
def test_ib_score_with_the_originals_video_features(
    sounds: dict[str, np.ndarray[Any, Any]], side: str, metric: str
) -> None:
    ours = cosine_similarity(gold.golden("video", "imagebind_video"), sounds[side])
    gold.note(f"IB-score of 3 clips, {side} audio", "golden run", ours, gold.per_clip(metric), 1e-4, absolute=True)


@pytest.mark.parametrize(
    "row", [0, pytest.param(1, marks=pytest.mark.parity), pytest.param(2, marks=pytest.mark.parity)]
)
def test_video_features_and_ib_score_from_the_real_video(
    video: Any, sounds: dict[str, np.ndarray[Any, Any]], row: int
) -> None:
    ours = video.features([gold.media("video")[row]], gold.SECONDS)["embedding"]
    clip = gold.stems()[row]
    gold.note(
        f"imagebind-video, {clip}", "golden run", ours, gold.golden("video", "imagebind_video")[row : row + 1], 1e-4
    )
    score = cosine_similarity(ours, sounds["pred"][row : row + 1])
    gold.note(f"IB-score, {clip}", "golden run", score, gold.per_clip("ib")[row : row + 1], 1e-4, absolute=True)


def test_strict_flavour_hears_other_audio(audio: Any) -> None:
    """Strict is another front end on the same network: other clips of the mono mix, and another fingerprint."""
    strict = type(audio)(audio.module, audio.weights_hash, "cpu", "strict")
    assert strict.fingerprint != audio.fingerprint
    ours = strict.features(gold.media("gt")[:1], gold.SECONDS)["embedding"]
    assert gold.relative(ours, gold.golden("gt", "imagebind_audio")[:1]) > 1e-2
