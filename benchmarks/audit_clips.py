"""Clips and sounds that the benchmark of the audit makes with ffmpeg, beside the copies themselves (``reuploads``)."""

from __future__ import annotations

import shutil
import subprocess
import wave
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

_FIT = "scale=426:240:force_original_aspect_ratio=decrease:force_divisible_by=2"


def ffmpeg() -> str:
    """The ffmpeg on the path, or that of the package imageio-ffmpeg."""
    if found := shutil.which("ffmpeg"):
        return found
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())


def run(command: Sequence[str]) -> None:
    """FFmpeg with these arguments, quietly; the error says what it printed."""
    done = subprocess.run([ffmpeg(), "-v", "error", "-y", "-threads", "1", *command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ffmpeg {' '.join(command)}: {done.stderr.strip()}")


# --------------------------------------------------------------------------- added sound


def added_sound(first: Path, folder: Path, name: str, level: float, speech: Path, number: int) -> Path:
    """Noise, music or speech ``level`` dB above the sound of a clip, as a file; seeded by ``number``."""
    target = folder / f"{first.stem}@{name}{level:g}.wav"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        clip = samples(first)
        rng = np.random.default_rng(100 + number)
        if name == "noise":
            other = rng.normal(size=len(clip))
        else:
            other = music(rng, len(clip)) if name == "music" else np.resize(samples(speech), len(clip))
        gain = 10 ** (level / 20) * np.sqrt(np.mean(clip**2)) / max(1e-9, np.sqrt(np.mean(other**2)))
        _write(target, np.clip(other * gain, -1, 1))
    return target


def samples(path: Path) -> np.ndarray:  # type: ignore[type-arg]
    """Mono float sound at 44.1 kHz."""
    command = [ffmpeg(), "-v", "error", "-i", str(path), "-vn", "-ac", "1", "-ar", "44100", "-f", "s16le", "pipe:1"]
    done = subprocess.run(command, capture_output=True, check=True)
    return np.frombuffer(done.stdout, "<i2").astype(np.float64) / 32768


def music(rng: np.random.Generator, length: int, rate: int = 44100) -> np.ndarray:  # type: ignore[type-arg]
    """A song of its own: chords, a melody and a drum, in a random key and tempo."""
    beat = 60 / rng.uniform(80, 150)
    root = 110 * 2 ** (rng.integers(0, 12) / 12)
    scale = np.array([0, 2, 4, 5, 7, 9, 11, 12, 14, 16])
    out = np.zeros(length + rate)

    def note(at: float, tone: float, seconds: float, gain: float, overtones: int) -> None:
        t = np.arange(int(seconds * rate)) / rate
        sound = sum(np.sin(2 * np.pi * tone * k * t) / k ** rng.uniform(0.8, 1.6) for k in range(1, overtones + 1))
        sound = sound * np.exp(-2.5 * t / seconds) * np.minimum(1, t / 0.01) * gain
        first = int(at * rate)
        out[first : first + len(sound)] += sound[: max(0, len(out) - first)]

    for number in range(int(length / rate / beat) + 1):
        at = number * beat
        if number % 4 == 0:
            degree = int(rng.choice([0, 3, 4, 5]))
            for step in (0, 2, 4):
                note(at, root * 2 ** (scale[(degree + step) % 10] / 12), 4 * beat, 0.25, 6)
        for half in (0.0, beat / 2):
            if rng.random() < 0.7:
                note(at + half, 2 * root * 2 ** (int(rng.choice(scale)) / 12), beat * 0.9, 0.3, 8)
        first = int(at * rate)
        hit = rng.normal(size=rate // 8) * np.exp(-np.arange(rate // 8) / (rate * 0.02)) * 0.6
        out[first : first + len(hit)] += hit[: max(0, len(out) - first)]
    return out[:length]


def _write(path: Path, sound: np.ndarray) -> None:  # type: ignore[type-arg]
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(44100)
        out.writeframes((sound * 32767).astype("<i2").tobytes())


# --------------------------------------------------------------------------- clips that are not copies


def scenes(folder: Path, first: int, count: int) -> Path:
    """Clips ``first ...`` of the set impacts (split train), rendered small; kept between runs."""
    from protocols.impacts.encode import write_mp4
    from protocols.impacts.picture import render_frames
    from protocols.impacts.scene import sample_scene
    from protocols.impacts.sound import render_audio

    folder.mkdir(parents=True, exist_ok=True)
    for index in range(first, first + count):
        scene = sample_scene("train", index)
        path = folder / f"{scene.id}.mp4"
        if not path.exists():
            write_mp4(path, render_frames(scene, 128, 25), render_audio(scene, 22_050), 22_050, 25, preset="ultrafast")
    return folder


def pieces(sources: Sequence[Path], folder: Path, seconds: float, most: int) -> Path:
    """Pieces of recordings that follow one another, ``seconds`` long each, at most ``most`` of one recording; kept
    between runs. A recording that gives fewer than two is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = ["-vf", _FIT, "-c:v", "libx264", "-preset", "ultrafast", "-crf", "26", "-pix_fmt", "yuv420p"]
    for source in sources:
        with av.open(str(source)) as container:
            length, seen = (container.duration or 0) / av.time_base, bool(container.streams.video)
        count = min(most, int((length + 0.1) / seconds))
        for number in range(count if count > 1 else 0):
            target = folder / f"{source.stem}+{number}.{'mp4' if seen else 'm4a'}"
            if not target.exists():
                cut = ["-ss", f"{number * seconds:g}", "-t", f"{seconds:g}", "-i", str(source)]
                run([*cut, *(picture if seen else ["-vn"]), "-c:a", "aac", "-ar", "44100", "-ac", "1", str(target)])
    return folder
