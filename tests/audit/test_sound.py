"""Peaks of sound, their landmarks, and what is made of a candidate."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import resample_poly

from av_bench.audit import sound
from av_bench.audit.align_sound import CLEAR_UNCHANGED, align_sound
from av_bench.audit.landmarks import LandmarkIndex, landmarks
from av_bench.audit.sound import RATE, Peaks
from av_bench.audit.turns import NONE, Change, sound_changes
from tests import media_made


def _wave(seed: int, seconds: float) -> NDArray[np.float32]:
    half: NDArray[np.float32] = resample_poly(media_made.sound(seed, seconds)[0], 1, 2).astype(np.float32)
    return half


def _peaks(wave: NDArray[np.float32]) -> Peaks:
    collector = sound.Collector()
    collector.push(wave)
    return collector.result()


def test_silence_has_no_peaks_and_loudness_does_not_matter() -> None:
    wave = _wave(0, 6)
    loud, quiet = _peaks(wave), _peaks(wave * np.float32(0.03))
    assert len(loud) > 60
    same = set(zip(loud.times.tolist(), loud.bins.tolist(), strict=True))
    assert len(same & set(zip(quiet.times.tolist(), quiet.bins.tolist(), strict=True))) > 0.5 * len(same)
    assert len(_peaks(np.zeros(5 * RATE, np.float32))) == 0
    assert len(_peaks(np.zeros(0, np.float32))) == 0


def test_pieces_give_the_peaks_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    wave = _wave(1, 20)
    whole = _peaks(wave)
    monkeypatch.setattr(sound, "_SEGMENT", 200)  # about 5 s
    collector = sound.Collector()
    for start in range(0, len(wave), 3333):
        collector.push(wave[start : start + 3333])
    pieces = collector.result()
    ours, theirs = (set(zip(p.times.tolist(), p.bins.tolist(), strict=True)) for p in (whole, pieces))
    assert len(ours & theirs) > 0.85 * max(len(ours), len(theirs))  # the peaks a second keeps depend on where it begins
    assert np.all(np.diff(pieces.times.astype(int)) >= 0)


@pytest.fixture(scope="module")
def index() -> LandmarkIndex:
    made = LandmarkIndex()
    for seed in range(8):
        made.add(_peaks(_wave(seed, 10)))
    made.build()
    return made


@pytest.mark.parametrize("number", [0, 5])
def test_a_part_is_found_at_its_offset(index: LandmarkIndex, number: int) -> None:
    cut = _peaks(_wave(number, 10)[round(3.21 * RATE) : round(8.5 * RATE)])
    (heard, *others) = index.query(cut, [NONE])
    assert (heard.sequence, others) == (number, [])
    found = align_sound(cut, index.peaks(number), heard, 3.0)
    assert found is not None
    aligned, clear = found
    assert clear > 5 * CLEAR_UNCHANGED
    assert (aligned.offset, aligned.change) == (pytest.approx(3.21, abs=0.02), NONE)
    assert aligned.length == pytest.approx(5.2, abs=0.7)
    assert align_sound(cut, index.peaks(number), heard, 6.5) is None


def test_many_files_on_one_clock_are_counted_as_each_alone() -> None:
    """Against a count of landmarks that agree, file by file: silent, short and long ones, also before their start."""
    rng = np.random.default_rng(0)
    files = [_made_peaks(rng, n) for n in (300, 0, 1, 40, 0, 900, 300)]
    late = files[5].times[500:800] - files[5].times[500]
    query = Peaks((np.append(files[3].times + 700, late + 4000)).astype(np.uint32), np.append(files[3].bins, files[5].bins[500:800]))  # fmt: skip  # noqa: E501
    index = LandmarkIndex()
    for peaks in files[:4]:
        index.add(peaks)
    index.build()
    for peaks in files[4:]:
        index.add(peaks)
    wanted = {n: _best(query, peaks) for n, peaks in enumerate(files)}
    heard = {found.sequence: (found.votes, found.offset) for found in index.query(query, [NONE])}
    assert heard == {n: found for n, found in wanted.items() if found[0] >= 8}
    assert heard[3][1] == -700
    assert heard[5][1] == int(files[5].times[500]) - 4000


def _made_peaks(rng: np.random.Generator, count: int) -> Peaks:
    times = np.cumsum(rng.integers(1, 4, count)).astype(np.uint32)
    return Peaks(times, rng.integers(0, sound.BINS, count).astype(np.uint8))


def _best(query: Peaks, peaks: Peaks) -> tuple[int, int]:
    """Most landmarks that agree at one offset or the next, and that offset."""
    sides = []
    for side, fan in ((query, 6), (peaks, 3)):
        times, bins = side.times.astype(np.int64), side.bins.astype(np.int64)
        keys, first = landmarks(times, bins, fan)
        sides.append(list(zip(keys.tolist(), times[first].tolist(), strict=True)))
    votes = Counter(there - here for key, here in sides[0] for other, there in sides[1] if key == other)
    both = {offset: (votes[offset] + votes[offset + 1], offset + (2 * votes[offset + 1] > votes[offset] + votes[offset + 1])) for offset in votes}  # fmt: skip  # noqa: E501
    return max(both.values(), key=lambda found: found[0], default=(0, 0))


def test_only_the_common_stretch_counts(index: LandmarkIndex) -> None:
    mixed = np.concatenate([_wave(41, 3), _wave(2, 10)[4 * RATE : 9 * RATE], _wave(42, 3)])
    peaks = _peaks(mixed)
    heard = index.query(peaks, [NONE])[0]
    found = align_sound(peaks, index.peaks(heard.sequence), heard, 3.0)
    assert heard.sequence == 2
    assert found is not None
    assert (found[0].offset, found[0].start, found[0].length) == pytest.approx((1.0, 3.0, 5.0), abs=0.7)


def test_other_sound_gives_no_match(index: LandmarkIndex) -> None:
    for seed in range(50, 58):
        peaks = _peaks(_wave(seed, 10))
        for heard in index.query(peaks, sound_changes()):
            found = align_sound(peaks, index.peaks(heard.sequence), heard, 2.75)
            assert found is None or found[1] < CLEAR_UNCHANGED


def test_speed_between_those_asked_for_is_measured(index: LandmarkIndex) -> None:
    peaks = _peaks(media_made.faster(_wave(3, 10)[None], 1.035)[0])
    heard = index.query(peaks, sound_changes())[0]
    found = align_sound(peaks, index.peaks(heard.sequence), heard, 3.0)
    assert heard.sequence == 3
    assert found is not None
    assert found[0].change.speed == pytest.approx(1.035, abs=0.003)


def test_changes_are_said_in_words() -> None:
    assert NONE.words() == ""
    assert Change(1.002).words() == ""
    assert Change(25 / 24, 0.7, "mirrored", True).words() == "mirrored, negative, speed 1.04 x, pitch +0.7 semitones"
