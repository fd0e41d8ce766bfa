"""A recording whose pitch was shifted is told from its tune in another key by the levels around the peaks."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from av_bench.audit.fingerprints import fingerprint
from av_bench.audit.levels import ALIKE, level_difference, other_key
from av_bench.audit.library import Library, Match
from av_bench.audit.turns import Change
from tests.media_made import RATE

SEMITONES = 2
RESONANCES = ((420.0, 90.0), (1150.0, 160.0), (2500.0, 260.0))  # Hz and width of an instrument's body


def _body(frequency: float) -> float:
    """How much of a frequency the instrument lets out."""
    return 0.03 + sum(np.exp(-(((frequency - at) / width) ** 2)) for at, width in RESONANCES)


def tune(path: Path, seed: int, higher: float = 0.0, key: float = 0.0) -> Path:
    """Eight seconds of plucked notes. ``key`` semitones are played by the instrument, whose body stays what it is;
    ``higher`` semitones are added to what it sounded like."""
    rng = np.random.default_rng(seed)
    played, shift = 2 ** (key / 12), 2 ** (higher / 12)
    out = np.zeros(8 * RATE)
    for start in np.arange(0, 7.2, 0.16):
        pitch = 220 * 2 ** (rng.integers(0, 24) / 12) * played
        time = np.arange(round(0.7 * RATE)) / RATE
        first = round((start + rng.uniform(0, 0.05)) * RATE)
        for number in range(1, 13):
            partial = pitch * number
            level = _body(partial) / number**0.5 * np.exp(-time * (3 + number)) * np.minimum(1, time / 0.004)
            note = level * np.sin(2 * np.pi * partial * shift * time + number)
            out[first : first + len(note)] += note[: len(out) - first]
    samples = (out / np.abs(out).max() * 30000).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    return path


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    path, made = tune(tmp_path_factory.mktemp("tunes") / "original.wav", 1), Library()
    made.add(path, fingerprint(path))
    made.build()
    return made


def _found(library: Library, path: Path) -> list[Match]:
    return list(library.matches(path, fingerprint(path)))


def test_a_shifted_recording_is_found(library: Library, tmp_path: Path) -> None:
    copy = tune(tmp_path / "copy.wav", 1, higher=SEMITONES)
    (match,) = _found(library, copy)
    assert match.change == "pitch +2.0 semitones"
    assert match.sound is not None
    assert level_difference(copy, library.files[0].path, match.sound) < ALIKE - 1


def test_the_tune_in_another_key_is_not(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its peaks alone would make a match; its levels do not."""
    other = tune(tmp_path / "other.wav", 1, key=SEMITONES)
    assert _found(library, other) == []
    monkeypatch.setattr("av_bench.audit.library.ALIKE", np.inf)
    (match,) = _found(library, other)
    assert match.sound is not None
    assert level_difference(other, library.files[0].path, match.sound) > ALIKE + 0.5


@pytest.mark.parametrize(
    ("change", "other"),
    [
        (Change(pitch=2.0), True),
        (Change(pitch=-1.0), True),
        (Change(speed=1.25, pitch=3.86), False),
        (Change(speed=1.25), False),
        (Change(speed=1.01, pitch=0.3), False),
    ],
)
def test_pitch_that_goes_with_the_speed_is_no_other_key(change: Change, other: bool) -> None:
    assert other_key(change) == other
