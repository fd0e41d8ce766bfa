"""The index against a plain search, and the two alignments on made signals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from av_bench.audit.alignment import SOUND_RATE, Alignment, align_picture, align_sound, spectrogram
from av_bench.audit.fingerprints import THUMB, VIDEO_FPS, picture_codes
from av_bench.audit.index import CodeIndex, longest_run, picture_index, sound_index

INDEXES: list[tuple[Callable[[], CodeIndex], int, int]] = [(sound_index, 32, 59), (picture_index, 64, 65)]


def _walk(rng: np.random.Generator, length: int, bits: int) -> NDArray[np.uint64]:
    flips = rng.random((length, bits)) < 0.15
    flips[0] = rng.random(bits) < 0.5
    return ((np.cumsum(flips, axis=0) % 2).astype(np.uint64) << np.arange(bits, dtype=np.uint64)).sum(
        1, dtype=np.uint64
    )


def _noisy(rng: np.random.Generator, codes: NDArray[np.uint64], bits: int, share: float) -> NDArray[np.uint64]:
    mask = (rng.random((len(codes), bits)) < share).astype(np.uint64)
    noisy: NDArray[np.uint64] = codes ^ (mask << np.arange(bits, dtype=np.uint64)).sum(1, dtype=np.uint64)
    return noisy


@pytest.mark.parametrize(("make", "bits", "length"), INDEXES)
@pytest.mark.parametrize("share", [0.0, 0.05, 0.1])
def test_noisy_parts_are_found_at_their_offset(
    make: Callable[[], CodeIndex], bits: int, length: int, share: float
) -> None:
    rng = np.random.default_rng(0)
    index, dtype = make(), np.uint32 if bits == 32 else np.uint64
    library = [_walk(rng, length, bits) for _ in range(200)]
    for codes in library:
        index.add(codes.astype(dtype), np.ones(length, bool))
    for number in range(0, 200, 10):
        start = int(rng.integers(0, length - 24))
        query = _noisy(rng, library[number][start : start + 24], bits, share).astype(dtype)
        hits = index.query(query, np.ones(24, bool))
        assert [h.sequence for h in hits] == [number]
        assert abs(hits[0].offset - start) <= index.slack
        assert hits[0].length >= 0.7 * 24
        assert hits[0].distance == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize(("make", "bits", "length"), INDEXES)
def test_unrelated_codes_give_no_hit(make: Callable[[], CodeIndex], bits: int, length: int) -> None:
    rng = np.random.default_rng(1)
    index, dtype = make(), np.uint32 if bits == 32 else np.uint64
    for _ in range(300):
        index.add(_walk(rng, length, bits).astype(dtype), np.ones(length, bool))
    hits = [h for _ in range(100) for h in index.query(_walk(rng, length, bits).astype(dtype), np.ones(length, bool))]
    assert len(hits) <= 2  # candidates only: every one is verified on the media


@pytest.mark.parametrize(("make", "bits", "length"), INDEXES)
def test_every_copy_is_found_and_a_loop_does_not_hide_the_others(
    make: Callable[[], CodeIndex], bits: int, length: int
) -> None:
    """80 noisy copies, one of them of a sequence that repeats the same stretch 40 times, among 200 others."""
    rng = np.random.default_rng(2)
    index, dtype = make(), np.uint32 if bits == 32 else np.uint64
    whole = _walk(rng, length, bits)
    copies = [_noisy(rng, whole, bits, 0.04) for _ in range(79)] + [np.tile(whole, 40)]
    for codes in [*copies, *(_walk(rng, length, bits) for _ in range(200))]:
        index.add(codes.astype(dtype), np.ones(len(codes), bool))
    found = {hit.sequence for hit in index.query(whole.astype(dtype), np.ones(length, bool))}
    assert set(range(80)) <= found


def test_masked_codes_do_not_match() -> None:
    index = sound_index()
    codes = np.full(59, 627964279, np.uint32)  # what Chromaprint says of silence
    index.add(codes, np.zeros(59, bool))
    assert index.query(codes, np.ones(59, bool)) == []
    assert sound_index().query(codes, np.ones(59, bool)) == []


@pytest.mark.parametrize(
    ("mask", "run"),
    [([], (0, 0)), ([0, 0], (0, 0)), ([1, 1, 0, 1], (0, 2)), ([0, 1, 1, 1], (1, 3)), ([1], (0, 1))],
)
def test_longest_run(mask: list[int], run: tuple[int, int]) -> None:
    assert longest_run(np.array(mask, bool)) == run


def _bursts(seed: int, seconds: float) -> NDArray[np.float32]:
    """Noise whose level and colour change every 0.2 s."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(round(seconds / 0.2)):
        noise = rng.normal(size=round(0.2 * SOUND_RATE))
        smooth = np.convolve(noise, np.ones(k := int(rng.integers(1, 12))) / k, "same")
        parts.append(smooth * rng.uniform(0.01, 0.3))
    return np.concatenate(parts).astype(np.float32)


@pytest.mark.parametrize(("gain", "noise"), [(1.0, 0.0), (0.1, 0.0), (0.5, 0.002)])
def test_sound_is_aligned_to_the_hop(gain: float, noise: float) -> None:
    whole = _bursts(0, 12)
    rng = np.random.default_rng(5)
    cut = whole[round(3.21 * SOUND_RATE) :][: 7 * SOUND_RATE] * gain
    cut = cut + rng.normal(scale=noise, size=len(cut)).astype(np.float32)
    found = align_sound(spectrogram(cut), spectrogram(whole), 3.0, 4.75)
    assert isinstance(found, Alignment)
    assert found.offset == pytest.approx(3.21, abs=0.011)
    assert found.length == pytest.approx(7, abs=0.1)
    assert found.confidence > 0.9


def test_only_the_common_stretch_of_sound_counts() -> None:
    whole = _bursts(0, 12)
    part = np.concatenate([_bursts(1, 3), whole[4 * SOUND_RATE : 10 * SOUND_RATE], _bursts(2, 2)])
    found = align_sound(spectrogram(part), spectrogram(whole), 1.0, 4.75)
    assert found is not None
    assert (found.offset, found.start, found.length) == pytest.approx((1.0, 3.0, 6.0), abs=0.6)
    assert align_sound(spectrogram(part), spectrogram(whole), 1.0, 7.5) is None


def test_other_sound_is_not_aligned() -> None:
    for seed in range(4):
        assert align_sound(spectrogram(_bursts(seed, 10)), spectrogram(_bursts(seed + 50, 10)), 0.0, 2.0) is None
    silence = np.zeros(10 * SOUND_RATE, np.float32)
    assert align_sound(spectrogram(silence), spectrogram(silence), 0.0, 2.0) is None


def _scene(seed: int, seconds: float, size: int = THUMB, moving: bool = True) -> NDArray[np.float32]:
    """Six blobs that wander over a textured ground; grey levels 0-255."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * VIDEO_FPS)) / VIDEO_FPS
    y, x = np.mgrid[0:size, 0:size] / size
    frames = np.repeat((60 + 25 * np.sin(x * rng.uniform(3, 9)) * np.cos(y * rng.uniform(3, 9)))[None], len(t), axis=0)
    for _ in range(6):
        speed, phase, width = rng.uniform(0.4, 3, 2), rng.uniform(0, 6.3, 2), rng.uniform(0.05, 0.12)
        clock = t * moving
        cx = 0.5 + 0.35 * np.sin(speed[0] * clock + phase[0])[:, None, None]
        cy = 0.5 + 0.35 * np.sin(speed[1] * clock + phase[1])[:, None, None]
        frames += rng.uniform(50, 140) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * width**2))
    return np.clip(frames, 0, 255).astype(np.float32)


def _cropped(frames: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    from av_bench.audit.fingerprints import central, resized

    return resized(central(frames, share), THUMB)


@pytest.mark.parametrize("share", [1.0, 0.9, 0.8])
@pytest.mark.parametrize("swap", [False, True])
def test_picture_is_aligned_through_a_crop(share: float, swap: bool) -> None:
    whole = _scene(0, 9)
    cut = _cropped(whole[16:56], share)
    test, train, offset = (whole, cut, -2.0) if swap else (cut, whole, 2.0)
    found = align_picture(test, train, offset + 0.125, 2.1 if swap else 0.0, 4.5, 2.75)
    assert found is not None
    assert found.offset == pytest.approx(offset, abs=0.09)
    assert found.length == pytest.approx(5, abs=0.4)
    assert found.confidence > 0.8


def test_other_motion_over_the_same_ground_is_not_aligned() -> None:
    ground = _scene(3, 6, moving=False)
    a, b = ground + _scene(4, 6) * 0.2, ground + _scene(5, 6) * 0.2
    assert align_picture(a, b, 0.0, 0.0, 6.0, 2.75) is None
    assert align_picture(a, a, 0.0, 0.0, 6.0, 2.75) is not None


def test_still_pictures_have_no_codes() -> None:
    assert not picture_codes(_scene(0, 5, moving=False))[1].any()
    codes, valid, weak = picture_codes(_scene(0, 5))
    assert valid.all()
    assert (len(codes), weak.shape) == (25, (25, 3))
    assert picture_codes(_scene(0, 1))[0].shape == (0,)
