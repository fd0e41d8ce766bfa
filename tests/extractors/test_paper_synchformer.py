"""Synchformer end to end: real audio and video -> tokens -> logits. Needs no extra package, but minutes for video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from av_bench import extractors
from av_bench.media.decode import decode
from av_bench.metrics import desync
from tests.extractors import golden_pipeline as gold

pytestmark = gold.needs_golden
PARITY = pytest.mark.parity
ROWS = [0, pytest.param(1, marks=PARITY), pytest.param(2, marks=PARITY)]  # one clip is enough for every day


def load(name: str, only: str, folder: Path) -> Iterator[Any]:
    """A file with one part of the network and some of the others' keys, as the official file has them."""
    path = folder / "official.pth"
    torch.save(gold.rebuild("synchformer", only), path)
    yield extractors.load(name, path)
    path.unlink()


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    only = r"^([va]proj|transformer)\.|^[va]feat_extractor\.\w+\.cls_token$"
    yield from load("synchformer", only, tmp_path_factory.mktemp("head"))


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from load("synchformer-audio", r"^afeat_extractor\.|^vproj\.", tmp_path_factory.mktemp("audio"))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from load("synchformer-video", r"^vfeat_extractor\.|^aproj\.", tmp_path_factory.mktemp("video"))


def reference_logits() -> np.ndarray[Any, Any]:
    """``(clips, 2 crops, 21)``."""
    with np.load(gold.PIPELINE / "desync.npz") as stored:
        assert [str(stem) for stem in stored["stems"]] == gold.stems()
        return np.asarray(stored["logits"]).transpose(1, 0, 2)


def check_logits(what: str, ours: np.ndarray[Any, Any], rows: slice) -> None:
    reference = reference_logits()[rows]
    gold.note(f"DeSync logits, {what}", "golden run", ours, reference, 1e-3, absolute=True)
    assert (ours.argmax(axis=-1) == reference.argmax(axis=-1)).all()
    crops = np.stack([gold.per_clip("desync_cropA"), gold.per_clip("desync_cropB")], axis=1)[rows]
    np.testing.assert_allclose(desync(ours), crops.mean(axis=1), atol=1e-6)


def test_head_on_the_originals_tokens(head: Any) -> None:
    rows = head.run(list(gold.golden("video", "synchformer_video")), list(gold.golden("pred", "synchformer_audio")))
    ours = np.stack([row["logits"] for row in rows])
    check_logits("original tokens of 3 clips", ours, slice(None))
    assert np.abs(ours[:, 0] - ours[:, 1]).max() > 1e-2  # the two crops are not the same


@pytest.mark.parametrize("row", ROWS)
def test_audio_tokens_and_logits_of_a_real_file(audio: Any, head: Any, row: int) -> None:
    ours = audio.features([gold.media("pred")[row]], gold.SECONDS)["tokens"]
    reference = gold.golden("pred", "synchformer_audio")
    clip = gold.stems()[row]
    gold.note(f"synchformer-audio, {clip}", "golden run", ours, reference[row : row + 1], 1e-4)
    assert gold.relative(ours, reference[row - 1 : row or None]) > 1e-2  # another clip's tokens are far away
    logits = head.run(list(gold.golden("video", "synchformer_video")[row : row + 1]), list(ours))
    check_logits(clip, np.stack([logits[0]["logits"]]), slice(row, row + 1))


@pytest.mark.parity
def test_audio_tokens_of_the_reference_side(audio: Any) -> None:
    ours = audio.features(gold.media("gt"), gold.SECONDS)["tokens"]
    gold.note("synchformer-audio, gt of 3 clips", "golden run", ours, gold.golden("gt", "synchformer_audio"), 1e-4)


ENDS = {"first": (slice(0, 24), slice(0, 2)), "last": (slice(176, 200), slice(22, 24))}  # frames, segments of them


@pytest.mark.paper
@pytest.mark.parametrize("end", ENDS)
def test_video_tokens_of_a_real_file(video: Any, end: str) -> None:
    """Two segments at each end of a clip: each segment is encoded alone, so all 24 would add minutes and no news."""
    frames, segments = ENDS[end]
    path = gold.media("video")[0]
    ready = video.prepare(decode(path, [video.video_request], gold.SECONDS, audio=False), gold.SECONDS)
    ours = video.run([ready[frames]])[0]["tokens"]
    reference = gold.golden("video", "synchformer_video")[0]
    gold.note(f"synchformer-video, {end} segments of {gold.stems()[0]}", "golden run", ours, reference[segments], 1e-4)
    assert gold.relative(ours, reference[10:12]) > 1e-2  # other segments are far away


@pytest.mark.paper
@pytest.mark.parity
@pytest.mark.parametrize("row", range(3))
def test_video_tokens_and_logits_of_a_real_file(video: Any, audio: Any, head: Any, row: int) -> None:
    ours = video.features([gold.media("video")[row]], gold.SECONDS)["tokens"]
    clip = gold.stems()[row]
    reference = gold.golden("video", "synchformer_video")[row : row + 1]
    gold.note(f"synchformer-video, {clip}", "golden run", ours, reference, 1e-4)
    sounds = audio.features([gold.media("pred")[row]], gold.SECONDS)["tokens"]
    logits = head.run(list(ours), list(sounds))
    check_logits(clip, np.stack([logits[0]["logits"]]), slice(row, row + 1))
