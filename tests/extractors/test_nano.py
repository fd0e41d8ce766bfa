"""The embedded networks through the public door, and their own maths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from av_bench import extractors
from av_bench.contracts import UsageError
from av_bench.networks import nano
from av_bench.weights import BadWeights
from model_zoo.scorers.train import crop_starts
from tests.media_files import tone, write_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("videos")
    for i in range(3):
        write_video(folder / f"v{i}.mp4", seconds=8, audio=tone(8.0, hertz=300 * (i + 1)))
    return sorted(folder.iterdir())


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("nano-tagger", {"embedding": (64,), "logits": (24,)}),
        ("nano-bind-audio", {"embedding": (64,)}),
        ("nano-bind-video", {"embedding": (64,)}),
        ("nano-sync-audio", {"tokens": (200, 64)}),
        ("nano-sync-video", {"tokens": (200, 64)}),
    ],
)
def test_features_have_one_row_per_file_in_order(
    videos: list[Path], name: str, shapes: dict[str, tuple[int, ...]]
) -> None:
    extractor = extractors.load(name)
    found = extractor.features(videos, 8.0)
    assert {k: v.shape for k, v in found.items()} == {k: (3, *shape) for k, shape in shapes.items()}
    backwards = extractor.features(videos[::-1], 8.0)
    for key, rows in found.items():
        np.testing.assert_array_equal(rows, backwards[key][::-1])  # company and order change nothing, bit for bit


def test_weights_may_be_a_mapping_and_change_the_fingerprint() -> None:
    torch.manual_seed(0)
    state = nano.Tagger().state_dict()
    given, own = extractors.load("nano-tagger", state), extractors.load("nano-tagger")
    assert given.fingerprint != own.fingerprint
    assert extractors.load("nano-tagger", state).fingerprint == given.fingerprint
    del state["classify.1.bias"]
    with pytest.raises(BadWeights, match=r"not the layout of Tagger: 1 missing keys \(classify.1.bias\)"):
        extractors.load("nano-tagger", state)


def test_short_windows_are_refused(videos: list[Path]) -> None:
    with pytest.raises(UsageError, match="windows of 8 s"):
        extractors.load("nano-tagger").features(videos, 5.0)


def test_the_head_finds_a_delay_in_matching_tokens() -> None:
    torch.manual_seed(1)
    head = nano.SyncHead()
    with torch.no_grad():  # an identity head: the logit is the correlation itself
        for conv in (head.mix[0], head.mix[2]):
            conv.weight.zero_()
            conv.bias.zero_()
        head.mix[0].weight[0, :, 2] = 1.0
        head.mix[2].weight[0, 0, 2] = 1.0
    stream = torch.randn(1, 200, 64)
    for target in range(nano.CLASSES):
        offset = (target - 10) * nano.LAG_STEP
        start = 40
        video = stream[:, start : start + 120]
        audio = torch.zeros_like(video)
        low, high = max(0, start - offset), min(200, start - offset + 120)
        audio[:, low - (start - offset) : high - (start - offset)] = stream[:, low:high]
        assert int(head(video, audio).argmax()) == target


def test_crops_carry_the_offset_they_are_drawn_for() -> None:
    rng = np.random.default_rng(0)
    for offset in range(-52, 53):
        video, audio = crop_starts(offset, 200, rng)
        assert 0 <= video <= 80
        assert 0 <= audio <= 80
        assert video - audio == offset


def test_words_are_hashed_the_same_everywhere() -> None:
    first, second = nano.hashed_words("A wooden bar, struck!"), nano.hashed_words("a WOODEN bar struck")
    assert torch.equal(first, second)
    assert int((first != 0).sum()) == 4
