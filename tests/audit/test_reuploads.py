"""A test per kind of re-upload: made recordings, changed as uploaders do, found again with what was changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import rotate, uniform_filter, zoom

from av_bench.audit.fingerprints import fingerprint
from av_bench.audit.library import Library, Match
from protocols.impacts.encode import write_mp4
from tests.media_made import FPS, HEIGHT, RATE, Frames, Sound, faster, frames, sound

SECONDS = 7.0
BLACK = np.zeros((round(SECONDS * FPS), 32, 32, 3), np.uint8)
SILENCE = np.zeros((1, round(SECONDS * RATE)), np.float32)


def write(path: Path, picture: Frames, wave: Sound) -> Path:
    """A small file; the rate of frames is that of the made ones."""
    return write_mp4(path, np.ascontiguousarray(picture), wave, RATE, FPS, preset="ultrafast", crf=28)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Three originals, numbered 0 to 2."""
    folder, made = tmp_path_factory.mktemp("originals"), Library()
    for seed in range(3):
        path = write(folder / f"original{seed}.mp4", frames(seed, SECONDS), sound(seed, SECONDS))
        made.add(path, fingerprint(path))
    made.build()
    return made


def found(library: Library, path: Path) -> list[Match]:
    return list(library.matches(path, fingerprint(path)))


# --------------------------------------------------------------------------- pictures, without sound


def _bordered(picture: Frames, back: Frames, height: int, width: int, top: int, left: int) -> Frames:
    """The picture made smaller, in front of another."""
    out = back[: len(picture)].copy()
    small = zoom(picture, (1, height / picture.shape[1], width / picture.shape[2], 1), order=1)
    out[:, top : top + height, left : left + width] = small
    return out


def _blurred(picture: Frames) -> Frames:
    """9:16, the picture in the middle of a blurred, larger copy of itself."""
    tall = zoom(picture[:, :, 37:91], (1, 192 / HEIGHT, 108 / 54, 1), order=1)
    back = uniform_filter(tall, (0, 21, 21, 0))
    return _bordered(picture, back, 80, 108, 56, 0)


def _turned(picture: Frames) -> Frames:
    return np.stack([rotate(f, -5, reshape=False, order=1) for f in picture])


def _over(picture: Frames) -> Frames:
    """Another video over a ninth of the picture."""
    return _bordered(frames(21, SECONDS), picture, 32, 42, 60, 82)


def _in_picture(picture: Frames) -> Frames:
    return _bordered(picture, frames(22, SECONDS), 48, 64, 40, 58)


def _on_colour(picture: Frames) -> Frames:
    return _bordered(picture, np.full_like(picture, (30, 80, 160)), 58, 76, 18, 26)


def _quicker(picture: Frames) -> Frames:
    return picture[np.floor(np.arange(int(len(picture) / 1.25)) * 1.25).astype(int)]


PICTURES: dict[str, tuple[Callable[[Frames], Frames], str]] = {
    "mirrored": (lambda x: x[:, :, ::-1], "mirrored"),
    "upside down": (lambda x: x[:, ::-1, ::-1], "upside down"),
    "rotated by 90 degrees": (lambda x: np.rot90(x, -1, (1, 2)), "rotated by 90 degrees"),
    "rotated by 270 degrees": (lambda x: np.rot90(x, 1, (1, 2)), "rotated by 270 degrees"),
    "mirrored and cropped": (lambda x: x[:, 8:-8, 8:-8][:, :, ::-1], "mirrored"),
    "negative": (lambda x: 255 - x, "negative"),
    "rotated by 5 degrees": (_turned, ""),
    "blurred borders": (_blurred, ""),
    "a still coloured border": (_on_colour, ""),
    "picture-in-picture": (_in_picture, ""),
    "another video over it": (_over, ""),
    "1.25 times as fast": (_quicker, "speed 1.25 x"),
    "2.2 seconds": (lambda x: x[24 : 24 + round(2.2 * FPS)], ""),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_a_changed_picture_is_found(kind: str, library: Library, tmp_path: Path) -> None:
    change, words = PICTURES[kind]
    picture = change(frames(1, SECONDS))
    wave = SILENCE[:, : round(len(picture) / FPS * RATE)]
    (match,) = found(library, write(tmp_path / "copy.mp4", picture, wave))
    assert (match.train.stem, match.kind, match.change) == ("original1", "video only", words)
    assert match.picture is not None
    assert match.picture.offset == pytest.approx(2.0 if kind == "2.2 seconds" else 0.0, abs=0.15)
    assert match.picture.confidence >= 0.88


# --------------------------------------------------------------------------- sound, under a black picture


def _louder(wave: Sound, other: Sound, decibels: float) -> Sound:
    """Another sound added, so many dB above the first."""
    gain = np.sqrt(np.mean(wave**2) / np.mean(other**2)) * 10 ** (decibels / 20)
    mixed = wave + gain * other[:, : wave.shape[1]]
    return (mixed / np.abs(mixed).max() * 0.9).astype(np.float32)


SOUNDS: dict[str, tuple[Callable[[Sound], Sound], str]] = {
    "quiet": (lambda x: x * np.float32(0.05), ""),
    "other sound at -6 dB": (lambda x: _louder(x, sound(31, SECONDS), -6), ""),
    "other sound at 0 dB": (lambda x: _louder(x, sound(32, SECONDS), 0), ""),
    "speed 1.05": (lambda x: faster(x, 1.05), "speed 1.05 x, pitch +0.8 semitones"),
    "PAL": (lambda x: faster(x, 25 / 24), "speed 1.04 x, pitch +0.7 semitones"),
    "speed 1.25": (lambda x: faster(x, 1.25), "speed 1.25 x, pitch +3.9 semitones"),
    "2.2 seconds": (lambda x: x[:, 2 * RATE : round(4.2 * RATE)], ""),
}


@pytest.mark.parametrize("kind", SOUNDS)
def test_a_changed_sound_is_found(kind: str, library: Library, tmp_path: Path) -> None:
    change, words = SOUNDS[kind]
    (match,) = found(library, write(tmp_path / "copy.mp4", BLACK, change(sound(2, SECONDS))))
    assert (match.train.stem, match.kind, match.change) == ("original2", "audio only", words)
    assert match.sound is not None
    assert match.sound.offset == pytest.approx(2.0 if kind == "2.2 seconds" else 0.0, abs=0.03)


def test_another_recording_is_not_found(library: Library, tmp_path: Path) -> None:
    assert found(library, write(tmp_path / "other.mp4", frames(7, SECONDS), sound(7, SECONDS))) == []


def test_a_short_picture_at_another_speed_is_no_evidence_alone(library: Library, tmp_path: Path) -> None:
    """Three seconds of one way of moving are like three others, slower: with real clips that gave wrong matches."""
    short = _quicker(frames(1, SECONDS))[: round(3.2 * FPS)]
    assert found(library, write(tmp_path / "copy.mp4", short, SILENCE[:, : round(3.2 * RATE)])) == []
