"""Every kind of re-upload that the audit's table reports, made from real clips with ffmpeg.

A kind is a chain of filters for the picture, one for the sound, and what is left of both. Where only one of them is to
be recognised the other one is taken away (no sound; a black picture), so that neither helps the other. Added music is
synthesised (chords, a melody, drums); added speech and the picture around a picture-in-picture come from clips that
are in no library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
from audit_clips import added_sound, run
from audit_runs import Found

W, H = 426, 240
_FIT = f"scale={W}:{H}:force_original_aspect_ratio=decrease:force_divisible_by=2"
_SPEED = "asetrate=44100*{0},aresample=44100"


@dataclass(frozen=True)
class Kind:
    """One kind of copy.

    ``video`` and ``audio`` are filter chains ("" for none). ``expects`` names what has to be found: "sound",
    "picture" or "both"; of the other nothing is left. ``added`` is mixed into the sound at ``level`` dB below the
    clip, ``seconds`` is (start, length) of the stretch that is kept.
    """

    name: str
    expects: str
    video: str = "null"
    audio: str = "anull"
    added: str = ""
    level: float = 0.0
    seconds: tuple[float, float] | None = None
    out: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """The name as part of a file name."""
        return "".join(c if c.isalnum() or c in ".+-" else "_" for c in self.name)


def _both(name: str, video: str = "null", audio: str = "anull", **more: object) -> Kind:
    return Kind(name, "both", video, audio, **more)  # type: ignore[arg-type]


def _picture(name: str, video: str, **more: object) -> Kind:
    return Kind(name, "picture", video, **more)  # type: ignore[arg-type]


def _sound(name: str, audio: str = "anull", **more: object) -> Kind:
    return Kind(name, "sound", audio=audio, **more)  # type: ignore[arg-type]


_ON_STILL = "scale=iw*0.6:-2,pad=ceil(iw/0.6/2)*2:ceil(ih/0.6/2)*2:(ow-iw)/2:(oh-ih)/2:color=0x{0}"
_BLURRED = (
    "split[a][b];[a]scale=240:426,boxblur=12:2[back];[b]scale=240:-2[front];[back][front]overlay=0:(H-h)/2,setsar=1"
)
_CORNER = "[1:v]scale={0}:{1},setsar=1,fps=25[back];[0:v]scale={2}:-2[front];[back][front]overlay={3}:shortest=1"
KINDS: tuple[Kind, ...] = (
    _both("re-encoded", out=("-crf", "37", "-b:a", "48k")),
    _both("resized to 176x144", "scale=176:144"),
    _both("letterboxed", "scale=320:180,pad=320:240:0:30"),
    _both("logo", "drawbox=x=iw*0.75:y=ih*0.05:w=iw*0.2:h=ih*0.15:c=yellow:t=fill"),
    _both("cropped by 20 %, centre", "crop=iw*0.8:ih*0.8"),
    _both("cropped by 15 %, corner", "crop=iw*0.85:ih*0.85:0:0"),
    _both("25 frames/s", "fps=25"),
    _both("brighter, more contrast", "eq=brightness=0.08:contrast=1.3:saturation=0.5"),
    _both("from 2.37 s on", seconds=(2.37, 99)),
    _both("only 5.2 s", seconds=(1.7, 5.2)),
    _picture("only 3.2 s, sound replaced", "null", seconds=(0.8, 3.2)),
    _both("only 2.2 s", seconds=(2.1, 2.2)),
    _sound("14 dB quieter", "volume=-14dB"),
    _sound("compressed +6 dB", "acompressor=threshold=0.05:ratio=6,volume=6dB"),
    _sound("32 kbit/s mono", out=("-b:a", "32k", "-ac", "1")),
    _sound("echo", "aecho=0.8:0.7:60:0.4"),
    _sound("white noise at -12 dB", added="noise", level=-12),
    _sound("music at -12 dB", added="music", level=-12),
    _sound("music at -6 dB", added="music", level=-6),
    _sound("music at 0 dB", added="music", level=0),
    _sound("speech at -6 dB", added="speech", level=-6),
    _sound("only 2.2 s of sound", seconds=(2.1, 2.2)),
    _sound("tempo 1.05 x", "atempo=1.05"),
    _sound("speed 1.05 x", _SPEED.format(1.05)),
    _sound("speed 25/24 (PAL)", _SPEED.format("25/24")),
    _sound("tempo 1.25 x", "atempo=1.25"),
    _sound("speed 1.25 x", _SPEED.format(1.25)),
    _sound("tempo 0.9 x", "atempo=0.9"),
    _sound("pitch +1 semitone", _SPEED.format("1.059463") + ",atempo=1/1.059463"),
    _sound("pitch +2 semitones", _SPEED.format("1.122462") + ",atempo=1/1.122462"),
    _picture("mirrored", "hflip"),
    _picture("upside down (180 degrees)", "hflip,vflip"),
    _picture("rotated by 90 degrees", "transpose=1"),
    _picture("rotated by 270 degrees", "transpose=2"),
    _picture("rotated by 5 degrees", "rotate=5*PI/180:fillcolor=black"),
    _picture("rotated by 5 degrees, corners cut", "rotate=5*PI/180,crop=iw*0.84:ih*0.84"),
    _picture("mirrored and cropped by 15 %", "hflip,crop=iw*0.85:ih*0.85"),
    _picture("cropped by 30 %, centre", "crop=iw*0.7:ih*0.7"),
    _picture("9:16 crop", "crop=ih*9/16:ih"),
    _picture("9:16 with blurred borders", _BLURRED),
    _picture("60 % on black", _ON_STILL.format("000000")),
    _picture("60 % on a still colour", _ON_STILL.format("3050A0")),
    _picture("picture-in-picture, 50 %", _CORNER.format(W, H, W // 2, "W-w-10:H-h-10")),
    _picture("picture-in-picture, 35 %", _CORNER.format(W, H, round(W * 0.35), "14:14")),
    _picture("another video over 30 %", "[1:v]scale=iw*0.3:-2,fps=25[o];[0:v][o]overlay=W-w-8:H-h-8:shortest=1"),
    _picture("negative", "negate"),
    _picture("speed 1.05 x, picture", "setpts=PTS/1.05"),
    _picture("speed 25/24 (PAL), picture", "setpts=PTS*24/25,fps=25"),
    _picture("speed 1.25 x, picture", "setpts=PTS/1.25"),
    _picture("speed 0.9 x, picture", "setpts=PTS/0.9"),
    _both("speed 1.05 x, both", "setpts=PTS/1.05", _SPEED.format(1.05)),
    _both("mirrored, music at -6 dB, 1.05 x", "hflip,setpts=PTS/1.05", "atempo=1.05", added="music", level=-6),
)  # fmt: skip


def base(source: Path, folder: Path) -> Path:
    """The clip as first uploaded small: what all its copies are made from."""
    target = folder / f"{source.stem}.mkv"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(".part.mkv")
        coding = ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "18", "-pix_fmt", "yuv420p", "-c:a", "pcm_s16le"]
        run(["-i", str(source), "-t", "12", "-vf", _FIT, *coding, "-ar", "44100", "-ac", "1", str(part)])
        part.rename(target)
    return target


def copies(
    sources: Sequence[Path], work: Path, kinds: Sequence[Kind], backs: Sequence[Path], speech: Path, each: int = 0
) -> Iterator[tuple[Kind, Path, Path]]:
    """(kind, copy, original) of every kind and source, or of ``each`` kinds a source, in turn; copies that are there
    already are kept."""
    (work / "copies").mkdir(parents=True, exist_ok=True)
    for number, source in enumerate(sources):
        first = base(source, work / "bases")
        heard = _has_sound(first)
        turn = [kinds[(number * each + i) % len(kinds)] for i in range(each)] if each else kinds
        for kind in turn:
            if kind.expects == "sound" and not heard:
                continue
            target = work / "copies" / f"{source.stem}@{kind.slug}.mp4"
            if not target.exists():
                back = base(backs[number % len(backs)], work / "bases")
                added = _added(kind, first, work, speech, number) if heard else None
                _make(first, target, kind, heard, back, added)
            yield kind, target, source


def _make(first: Path, target: Path, kind: Kind, heard: bool, back: Path, added: Path | None) -> None:
    part = target.with_suffix(".part.mp4")
    cut = [] if kind.seconds is None else ["-ss", str(kind.seconds[0]), "-t", str(kind.seconds[1])]
    inputs = [*cut, "-i", str(first), "-i", str(back)] + ([] if added is None else ["-i", str(added)])
    chains = []
    if kind.expects == "sound":
        chains.append(f"color=black:s={W}x{H}:r=5:d=12[v]")
    else:
        chains.append((kind.video if kind.video.startswith("[") else f"[0:v]{kind.video}") + "[u]")
        chains.append("[u]scale=trunc(iw/2)*2:trunc(ih/2)*2[v]")
    if kind.expects != "picture" and heard:
        mixed = "[0:a]" if added is None else "[0:a][2:a]amix=inputs=2:duration=first:normalize=0,"
        chains.append(f"{mixed}{kind.audio}[a]")
    maps = ["-map", "[v]", *(["-map", "[a]"] if len(chains) > 2 or (kind.expects == "sound") else [])]
    coding = ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "28", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    length = ["-shortest"] if kind.expects == "sound" else []
    run([*inputs, "-filter_complex", ";".join(chains), *maps, *coding, "-b:a", "96k", *length, *kind.out, str(part)])
    part.rename(target)


def _added(kind: Kind, first: Path, work: Path, speech: Path, number: int) -> Path | None:
    """The file that is mixed into a copy, at its level, or None."""
    return added_sound(first, work / "added", kind.added, kind.level, speech, number) if kind.added else None


def _has_sound(path: Path) -> bool:
    with av.open(str(path)) as container:
        return bool(container.streams.audio)


# --------------------------------------------------------------------------- the table


@dataclass
class Row:
    """One line of the table: copies of a kind, how many were found at all, by sound, by picture."""

    kind: str
    expects: str
    copies: int
    found: int
    sound: int
    picture: int
    missed: list[str]


def table(made: Sequence[tuple[Kind, Path, Path]], matches: Sequence[Found]) -> list[Row]:
    """Lines of the table."""
    original = {copy.name: source.name for _, copy, source in made}
    right = [m for m in matches if original.get(m.test) == m.train]
    rows = []
    for kind in dict.fromkeys(k for k, _, _ in made):
        names = {copy.name for k, copy, _ in made if k is kind}
        hits = [m for m in right if m.test in names]
        found = {m.test for m in hits}
        sound, picture = ({m.test for m in hits if stream(m)} for stream in (_heard, _seen))
        rows.append(
            Row(kind.name, kind.expects, len(names), len(found), len(sound), len(picture), sorted(names - found))
        )
    return rows


def wrong(made: Sequence[tuple[Kind, Path, Path]], matches: Sequence[Found]) -> list[Found]:
    """Matches with another file than the original."""
    original = {copy.name: source.name for _, copy, source in made}
    return [m for m in matches if original[m.test] != m.train]


def _heard(match: Found) -> bool:
    return match.sound is not None


def _seen(match: Found) -> bool:
    return match.picture is not None


def text(tables: Mapping[str, Sequence[Row]]) -> str:
    """The tables side by side, in Markdown."""
    heads = [f"{name}: copies | found | by sound | by picture" for name in tables]
    lines = ["| kind | " + " | ".join(heads) + " |", "|---|" + "---:|" * (4 * len(tables))]
    columns = {name: {row.kind: row for row in rows} for name, rows in tables.items()}
    for kind in dict.fromkeys(row.kind for rows in tables.values() for row in rows):
        cells = [_cells(rows.get(kind)) for rows in columns.values()]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    totals = [f"{sum(r.copies for r in rows)} | {sum(r.found for r in rows)} | | " for rows in tables.values()]
    return "\n".join([*lines, "| all | " + "| ".join(totals) + "|"])


def _cells(row: Row | None) -> str:
    if row is None:
        return "0 | - | - | -"
    sound, picture = "-" if row.expects == "picture" else row.sound, "-" if row.expects == "sound" else row.picture
    return f"{row.copies} | {row.found} | {sound} | {picture}"
