"""The index of picture codes against made codes, and the alignment of made pictures."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from av_bench.audit import picture
from av_bench.audit.align_picture import Side, align_picture
from av_bench.audit.index import CodeIndex, longest_run, ones
from av_bench.audit.shapes import FPS, SIZE
from av_bench.audit.turns import NONE
from av_bench.audit.views import Box

LENGTH = 65
Codes = NDArray[np.uint64]


def _walk(rng: np.random.Generator, length: int = LENGTH) -> Codes:
    flips = rng.random((length, 64)) < 0.15
    flips[0] = rng.random(64) < 0.5
    return ((np.cumsum(flips, axis=0) % 2).astype(np.uint64) << np.arange(64, dtype=np.uint64)).sum(1, dtype=np.uint64)


def _noisy(rng: np.random.Generator, codes: Codes, share: float) -> Codes:
    mask = (rng.random((len(codes), 64)) < share).astype(np.uint64)
    noisy: Codes = codes ^ (mask << np.arange(64, dtype=np.uint64)).sum(1, dtype=np.uint64)
    return noisy


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1])
def test_noisy_parts_are_found_at_their_offset(share: float) -> None:
    rng = np.random.default_rng(0)
    index = CodeIndex()
    library = [_walk(rng) for _ in range(200)]
    for codes in library:
        index.add(codes, np.ones(LENGTH, bool))
    for number in range(0, 200, 10):
        start = int(rng.integers(0, LENGTH - 24))
        query = _noisy(rng, library[number][start : start + 24], share)
        hits = index.query(query, np.ones(24, bool))
        assert [h.sequence for h in hits] == [number]
        assert abs(hits[0].offset - start) <= 1
        assert hits[0].length >= 0.7 * 24
        assert hits[0].distance == pytest.approx(share, abs=0.05)


def test_a_query_shorter_than_a_run_has_to_be_nearer() -> None:
    rng = np.random.default_rng(3)
    index, whole = CodeIndex(), _walk(rng)
    index.add(whole, np.ones(LENGTH, bool))
    assert [h.offset for h in index.query(whole[20:23], np.ones(3, bool))] == [20]
    far = _noisy(rng, whole[20:23], 0.27)
    assert index.query(far, np.ones(3, bool)) == []


def test_unrelated_codes_give_no_hit() -> None:
    rng = np.random.default_rng(1)
    index = CodeIndex()
    for _ in range(300):
        index.add(_walk(rng), np.ones(LENGTH, bool))
    hits = [h for _ in range(100) for h in index.query(_walk(rng), np.ones(LENGTH, bool))]
    assert len(hits) <= 2  # candidates only: every one is verified on the media


def test_every_copy_is_found_and_a_loop_does_not_hide_the_others() -> None:
    """80 noisy copies, one of them of a sequence that repeats the same stretch 40 times, among 200 others."""
    rng = np.random.default_rng(2)
    index, whole = CodeIndex(), _walk(rng)
    copies = [_noisy(rng, whole, 0.04) for _ in range(79)] + [np.tile(whole, 40)]
    for codes in [*copies, *(_walk(rng) for _ in range(200))]:
        index.add(codes, np.ones(len(codes), bool))
    found = {hit.sequence for hit in index.query(whole, np.ones(LENGTH, bool))}
    assert set(range(80)) <= found


def test_masked_codes_do_not_match() -> None:
    codes = _walk(np.random.default_rng(4))
    index = CodeIndex()
    index.add(codes, np.zeros(LENGTH, bool))
    assert index.query(codes, np.ones(LENGTH, bool)) == []
    assert CodeIndex().query(codes, np.ones(LENGTH, bool)) == []


@pytest.mark.parametrize(
    ("mask", "run"),
    [([], (0, 0)), ([0, 0], (0, 0)), ([1, 1, 0, 1], (0, 2)), ([0, 1, 1, 1], (1, 3)), ([1], (0, 1))],
)
def test_longest_run(mask: list[int], run: tuple[int, int]) -> None:
    assert longest_run(np.array(mask, bool)) == run


# --------------------------------------------------------------------------- pictures


def _scene(seed: int, seconds: float, moving: bool = True) -> NDArray[np.float32]:
    """Six blobs that wander over a textured ground, ``(frames, SIZE, SIZE)`` grey levels 0-255."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * FPS)) / FPS
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    frames = np.repeat((60 + 25 * np.sin(x * rng.uniform(3, 9)) * np.cos(y * rng.uniform(3, 9)))[None], len(t), axis=0)
    for _ in range(6):
        speed, phase, width = rng.uniform(0.4, 3, 2), rng.uniform(0, 6.3, 2), rng.uniform(0.05, 0.12)
        clock = t * moving
        cx = 0.5 + 0.35 * np.sin(speed[0] * clock + phase[0])[:, None, None]
        cy = 0.5 + 0.35 * np.sin(speed[1] * clock + phase[1])[:, None, None]
        frames += rng.uniform(50, 140) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * width**2))
    return np.clip(frames, 0, 255).astype(np.float32)


def _side(frames: NDArray[np.float32], box: Box | None = None) -> Side:
    return Side(frames.astype(np.uint8), box or Box())


@pytest.mark.parametrize("margin", [0, 6, 12])
@pytest.mark.parametrize("swap", [False, True])
def test_picture_is_aligned_through_a_crop(margin: int, swap: bool) -> None:
    whole = _scene(0, 9)
    cut = Side(whole[16:56].astype(np.uint8), Box(margin, SIZE - margin, margin, SIZE - margin))
    sides, offset = ((_side(whole), cut), -2.0) if swap else ((cut, _side(whole)), 2.0)
    found = align_picture(*sides, NONE, offset + 0.125, (2.1 if swap else 0.0, 4.5), 2.75)
    assert found is not None
    assert found.offset == pytest.approx(offset, abs=0.09)
    assert found.length == pytest.approx(5, abs=0.4)
    assert found.confidence > 0.8


def test_other_motion_over_the_same_ground_is_not_aligned() -> None:
    ground = _scene(3, 6, moving=False)
    a, b = ground * 0.8 + _scene(4, 6) * 0.2, ground * 0.8 + _scene(5, 6) * 0.2
    assert align_picture(_side(a), _side(b), NONE, 0.0, (0.0, 6.0), 2.75) is None
    assert align_picture(_side(a), _side(a), NONE, 0.0, (0.0, 6.0), 2.75) is not None


def _coefficients(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    return picture.lowest(frames.astype(np.uint8), Box())


def test_still_pictures_have_no_codes() -> None:
    assert not picture.codes(_coefficients(_scene(0, 5, moving=False)))[1].any()
    codes, valid, weak = picture.codes(_coefficients(_scene(0, 5)))
    assert valid.all()
    assert (len(codes), weak.shape) == (25, (25, 3))
    assert picture.codes(_coefficients(_scene(0, 1)))[0].shape == (0,)


def test_a_long_picture_is_worked_on_in_pieces_without_a_seam() -> None:
    frames = _scene(6, 34).astype(np.uint8)
    collector = picture.Collector()
    for frame in frames:
        collector.push(frame)
        assert len(collector._waiting) < picture.SEGMENT + 17
    result = collector.result()
    assert (result.frames, len(result.where)) == (272, 2)
    assert np.abs(result.coefficients(0) - picture.lowest(frames, Box())).max() <= 1 / 64


def test_bits_are_counted() -> None:
    codes = np.array([0, 1, 2**64 - 1, 2**63 + 2**32 + 2**16 + 1, 0xF0F0], np.uint64)
    assert ones(codes).tolist() == [0, 1, 64, 4, 8]
    assert ones(codes[::2]).tolist() == [0, 64, 8]
