"""Measures the overlap audit: python benchmarks/audit.py lists|content|scale [options]. Seeds are fixed.

lists    Table A4 with the whole of AudioSet in this process: seconds and peak memory.
content  Recall per perturbation and false matches. Queries: perturbed copies of real clips (--clips) and re-uploads
         planted among rendered clips; library: the originals among 1,000 other rendered clips (128 px, 8 s, each from
         its own scene). The 1,000 are also matched against each other: every pair reported there is false.
scale    Index and query time and memory on generated fingerprints (--indexed, --queries). The codes are random
         walks: a bit keeps its value from one code to the next with the mean probability of the real clips.
"""

from __future__ import annotations

import json
import resource
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

if TYPE_CHECKING:
    from av_bench.audit.fingerprints import Fingerprint

app = typer.Typer(add_completion=False, help=__doc__)
Folder = Annotated[Path, typer.Option()]


@app.command("lists")
def measure_lists(lists: Folder = Path("../shared/lists")) -> None:
    """Table A4, wall and processor seconds, peak memory."""
    wall, cpu = time.perf_counter(), time.process_time()
    from av_bench.audit.sources import Lists
    from av_bench.audit.tables import table_a4

    table = table_a4(Lists(lists))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    done = sum(bool(cell.ours) for cell in table.cells)
    print(f"{done} pairs x 3 rules: {wall:.2f} s wall, {cpu:.2f} s processor, peak {_peak_mb():.0f} MB")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --------------------------------------------------------------------------- content

# name -> (video filter, audio filter, input options, output options, expects sound, expects picture)
_SMALL = "scale=320:-2"
PERTURBATIONS: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...], bool, bool]] = {
    "re-encode": (_SMALL, "anull", (), ("-crf", "37", "-b:a", "48k"), True, True),
    "resize": ("scale=176:144", "anull", (), (), True, True),
    "crop centre 20 %": (f"crop=iw*0.8:ih*0.8,{_SMALL}", "anull", (), (), True, True),
    "crop corner 15 %": (f"crop=iw*0.85:ih*0.85:0:0,{_SMALL}", "anull", (), (), True, True),
    "letterbox": ("scale=320:180,pad=320:240:0:30", "anull", (), (), True, True),
    "logo": (f"drawbox=x=iw*0.75:y=ih*0.05:w=iw*0.2:h=ih*0.15:c=yellow:t=fill,{_SMALL}", "anull", (), (), True, True),
    "quieter 14 dB": (_SMALL, "volume=-14dB", (), (), True, True),
    "compressed +6 dB": (_SMALL, "acompressor=threshold=0.05:ratio=6,volume=6dB", (), (), True, True),
    "25 frames/s": (f"fps=25,{_SMALL}", "anull", (), (), True, True),
    "30 frames/s": (f"fps=30,{_SMALL}", "anull", (), (), True, True),
    "start + 2.37 s": (_SMALL, "anull", ("-ss", "2.37"), (), True, True),
    "only 5.2 s": (_SMALL, "anull", ("-ss", "1.7", "-t", "5.2"), (), True, True),
    "only 3.2 s": (_SMALL, "anull", ("-ss", "0.8", "-t", "3.2"), (), False, True),
    "sound replaced": (_SMALL, "volume=0,aeval='0.1*random(0)':c=same", (), (), False, True),
    "picture replaced": (f"geq=lum='128+90*sin(X/9+T*7)':cb=128:cr=128,{_SMALL}", "anull", (), (), True, False),
}  # fmt: skip


def _perturb(source: Path, target: Path, name: str) -> None:
    from av_bench.audit.fingerprints import ffmpeg

    video, audio, before, after, _, _ = PERTURBATIONS[name]
    command = [ffmpeg(), "-v", "error", "-y", *before, "-i", str(source), "-map", "0:v", "-map", "0:a?"]
    command += ["-vf", video, "-af", audio, "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
    subprocess.run([*command, "-c:a", "aac", "-b:a", "96k", *after, str(target)], check=True)


def _rendered(folder: Path, first: int, count: int, size: int) -> list[Path]:
    """Clips ``first ...`` of the set impacts (split train), rendered small; kept between runs."""
    from protocols.impacts.encode import write_mp4
    from protocols.impacts.picture import render_frames
    from protocols.impacts.scene import sample_scene
    from protocols.impacts.sound import render_audio

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index in range(first, first + count):
        scene = sample_scene("train", index)
        path = folder / f"{scene.id}.mp4"
        if not path.exists():
            write_mp4(path, render_frames(scene, size, 25), render_audio(scene, 22_050), 22_050, 25, preset="ultrafast")
        files.append(path)
    return files


def _copies(clips: Path, work: Path) -> list[tuple[str, Path, Path, bool, bool]]:
    """(perturbation, copy, original, expects sound, expects picture) of the real clips; a stretch too short for the
    promise (5 s of sound, 3 s of picture) is not expected, and a copy without any expected stretch is left out."""
    from av_bench.media.decode import decode

    work.mkdir(parents=True, exist_ok=True)
    rows = []
    for source in sorted(clips.glob("*.mp4")):
        heard = decode(source).audio_seconds
        for name, (_, _, before, _, sound, picture) in PERTURBATIONS.items():
            skipped = float(dict(zip(before[::2], before[1::2], strict=True)).get("-ss", 0))
            asked = float(dict(zip(before[::2], before[1::2], strict=True)).get("-t", 99))
            length = min(max(heard, 0) - skipped, asked)
            sound_here = sound and length >= 5
            picture_here = picture and (length >= 3 or heard == 0)
            if not (sound_here or picture_here):
                continue
            target = work / f"{source.stem}@{name.replace(' ', '_').replace('/', '-').replace('%', 'pc')}.mp4"
            if not target.exists():
                _perturb(source, target, name)
            rows.append((name, target, source, sound_here, picture_here))
    return rows


@app.command("content")
def measure_content(
    clips: Folder = Path("../shared/clips"),
    work: Folder = Path("build/audit-benchmark"),
    others: int = 1000,
    first: int = 10_000,
    reuploads: int = 160,
    queries: int = 1000,
    seed: int = 7,
) -> None:
    """Recall per perturbation, false matches, seconds."""
    import torch

    from av_bench.audit.content import stream
    from av_bench.audit.library import Library, Match
    from av_bench.features.store import Store
    from protocols.impacts.build import build
    from protocols.impacts.reuploads import plant_reuploads

    torch.set_num_threads(1)
    distinct = _rendered(work / "others", first, others, 128)
    planted = [
        json.loads(x) for x in plant_reuploads("test", work / "reuploads", reuploads, seed).read_text().splitlines()
    ]
    build("test", work / "impacts-test", workers=1)
    rows = _copies(clips, work / "copies") if clips.is_dir() else []
    for p in planted:
        original = work / "impacts-test" / f"{p['source']}.mp4"
        rows.append((f"impacts {p['perturbation']}", work / "reuploads" / p["file"], original, True, True))
    store = Store(work / "store")
    unreadable: list[tuple[Path, str]] = []
    started = time.perf_counter()
    library = Library(cache=2 << 30)
    originals = sorted({row[2] for row in rows})
    for path, codes in stream([*distinct, *originals], store, 1, unreadable):
        library.add(path, codes)
    library.build()
    indexed = time.perf_counter() - started
    found: dict[Path, list[Match]] = defaultdict(list)
    started = time.perf_counter()
    for path, codes in stream([row[1] for row in rows], store, 1, unreadable):
        found[path] += library.matches(path, codes)
    matched = time.perf_counter() - started
    _print_recall(rows, found)
    started = time.perf_counter()
    asked = stream(distinct[:queries], store, 1, unreadable)
    false = [m for path, codes in asked for m in library.matches(path, codes)]
    print(f"{min(queries, others)} different clips against {others} and {len(originals)} originals: {len(false)} false")
    for match in false:
        print(f"  {match.test.name} = {match.train.name}: {match.kind}, {match.sound} {match.picture}")
    print(
        f"index of {len(library.files)} files {indexed:.1f} s, {len(rows)} copies {matched:.1f} s, "
        f"{min(queries, others)} others {time.perf_counter() - started:.1f} s (one thread), "
        f"unreadable: {len(unreadable)}"
    )


def _print_recall(rows: list, found: dict) -> None:  # type: ignore[type-arg]
    by_name = defaultdict(list)
    wrong = []
    for name, copy, original, sound, picture in rows:
        right = [m for m in found[copy] if m.train == original]
        wrong += [m for m in found[copy] if m.train != original]
        by_name[name].append((bool(right), sound, any(m.sound for m in right), picture, any(m.picture for m in right)))
    print(f"{'perturbation':24} {'copies':>6} {'found':>6} {'recall':>7}   sound        picture")
    everything = [case for group in by_name.values() for case in group]
    for name, cases in [*by_name.items(), ("all", everything)]:
        hit = sum(c[0] for c in cases)
        heard = [c[2] for c in cases if c[1]]
        seen = [c[4] for c in cases if c[3]]
        print(
            f"{name:24} {len(cases):6} {hit:6} {100 * hit / len(cases):6.1f} %   {sum(heard):4} of {len(heard):<4} "
            f"{sum(seen):4} of {len(seen):<4}"
        )
    print(f"copies matched to a wrong file: {len(wrong)}")
    for m in wrong:
        print(f"  {m.test.name} = {m.train.name}: {m.kind}, {m.sound} {m.picture}")


# --------------------------------------------------------------------------- scale


def _walk(rng: np.random.Generator, n: int, length: int, bits: int, flip: float) -> np.ndarray:  # type: ignore[type-arg]
    """``(n, length)`` codes whose bits flip from one code to the next with probability ``flip``."""
    dtype = np.uint32 if bits == 32 else np.uint64
    state = rng.integers(0, 2, (n, bits), dtype=np.uint8)
    codes = np.empty((n, length), dtype)
    weights = (np.ones(bits, dtype) << np.arange(bits, dtype=dtype)).astype(dtype)
    for t in range(length):
        state ^= rng.random((n, bits), np.float32) < flip
        codes[:, t] = (state * weights).sum(axis=1, dtype=dtype)
    return codes


def _generated(rng: np.random.Generator, count: int, sound_flip: float, picture_flip: float) -> Iterator[Fingerprint]:
    """Fingerprints of clips of 10 s; the codes of the central part differ from the whole picture's in 20 % of bits."""
    from av_bench.audit.fingerprints import Fingerprint

    sound = _walk(rng, count, 59, 32, sound_flip)
    picture = _walk(rng, count, 65, 64, picture_flip)
    weak = rng.integers(0, 64, (count, 65, 3), dtype=np.uint8)
    for i in range(count):
        heard, seen = np.ones(59, bool), np.ones(65, bool)
        central = _noisy(rng, picture[i], 64, 0.2)
        yield Fingerprint(sound[i], heard, picture[i], central, seen, weak[i], weak[i], (10.0, 10.0))


def _noisy(rng: np.random.Generator, codes: np.ndarray, bits: int, share: float) -> np.ndarray:  # type: ignore[type-arg]
    noise = (rng.random((len(codes), bits)) < share).astype(codes.dtype)
    return codes ^ (noise << np.arange(bits, dtype=codes.dtype)).sum(axis=1, dtype=codes.dtype)


@app.command("scale")
def measure_scale(
    indexed: int = 200_000, queries: int = 15_446, seed: int = 7, sound_flip: float = 0.13, picture_flip: float = 0.15
) -> None:
    """Generated fingerprints of 10 s clips; every tenth query is a copy of an indexed clip with 8 % of bits flipped."""
    from av_bench.audit.library import Library

    rng = np.random.default_rng(seed)
    library, originals = Library(), []
    for start in range(0, indexed, 2000):
        for i, codes in enumerate(_generated(rng, min(2000, indexed - start), sound_flip, picture_flip)):
            library.add(Path(f"{start + i}.mp4"), codes)
            if i == 0:
                originals.append((start, codes))
    started = time.perf_counter()
    library.build()
    built = time.perf_counter() - started
    print(f"index of {indexed:,} clips: build {built:.1f} s, peak {_peak_mb():.0f} MB", flush=True)
    for name, index in (("sound", library.sound), ("picture", library.picture)):
        print(f"  {name}: {index.nbytes / 2**20:.0f} MB, {index.nbytes / indexed:.0f} bytes a clip")
    seconds, copies, heard, seen, extra = 0.0, 0, 0, 0, 0
    for number, codes in enumerate(_generated(rng, queries, sound_flip, picture_flip)):
        source = -1
        if number % 10 == 0:
            source, codes = originals[number // 10 % len(originals)]
            noisy = [
                _noisy(rng, getattr(codes, k), n, 0.08) for k, n in (("audio", 32), ("video", 64), ("video_crop", 64))
            ]
            codes = replace(codes, audio=noisy[0], video=noisy[1], video_crop=noisy[2])
            copies += 1
        started = time.perf_counter()
        sound, picture = library.candidates(codes)
        seconds += time.perf_counter() - started
        heard += source in sound
        seen += source in picture
        extra += len((sound.keys() | picture.keys()) - {source})
    print(
        f"{queries:,} queries: {seconds:.0f} s, {1000 * seconds / queries:.1f} ms each; of {copies} copies {heard} "
        f"found by sound, {seen} by picture; other candidates, verified on media: {extra}; peak {_peak_mb():.0f} MB"
    )


if __name__ == "__main__":
    app()
