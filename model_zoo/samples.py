"""A folder of samples: ``<id>.wav`` or another suffix, ``<id>~<k>`` with several per clip, or named by a pattern."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from av_bench.contracts import ClipSet, Generated, GenerationJob, Reason, SampleSource, UsageError
from av_bench.media.folder import list_folder
from av_bench.media.suffixes import AUDIO_SUFFIXES, VIDEO_SUFFIXES

Key = tuple[str, int]
NEAREST = 20  # names for which the nearest one is looked for; it takes time in large folders
_STRANGER = "no clip of the set has this name; not scored"


class SampleFolder(SampleSource):
    """Scores files where they lie. Names are matched exactly: no rewriting, no guessing.

    ``pattern`` is a path below the folder with ``{id}``, and ``{k}`` with several per clip: ``pred_{id}.wav``,
    ``{id}/audio.wav``, ``*/{id}_{k}.flac``. ``*`` stands for anything but a slash; a pattern without a suffix takes
    every suffix of audio and video.
    """

    name = "samples"

    def __init__(self, folder: Path, files: dict[Key, Path] | None = None, pattern: str | None = None) -> None:
        if not folder.is_dir():
            raise UsageError(f"--samples {folder}: no such folder")
        self.folder, self.pattern = folder, pattern
        self._named = files is None and pattern is None  # the keys come from the file names
        self._left_out: dict[str, str] = {}
        if files is not None:
            self.files = files
        elif pattern is not None:
            self.files = by_pattern(folder, pattern)
        else:
            listed = list_folder(folder, AUDIO_SUFFIXES | VIDEO_SUFFIXES)
            self._left_out = dict(listed.notes())
            self.files = _by_key(folder, listed.used)
        self._extra: dict[str, str] = {}  # file -> why it is not scored
        self._ids: set[str] = set()  # of the whole list

    def setup(self, clips: ClipSet, seconds: float, seed: int) -> None:
        """Match names with the list; a folder that matches nothing is refused."""
        del seconds, seed
        ids = self._ids = {clip.id for clip in clips.clips}
        self._compose(ids)
        if self._named:
            self._prefer_ids(ids)
        strangers = [(stem, path) for (stem, _), path in self.files.items() if stem not in ids]
        reasons = [_stranger(stem, ids) if i < NEAREST else _STRANGER for i, (stem, _) in enumerate(sorted(strangers))]
        self._extra = self._left_out | {
            self._name(path): text for (_, path), text in zip(sorted(strangers), reasons, strict=True)
        }
        if not any(stem in ids for stem, _ in self.files):
            raise UsageError(self._nothing_fits(ids))

    def files_of(self) -> Mapping[str, Sequence[Path]]:
        """All samples of each clip."""
        found: dict[str, list[Path]] = {}
        for (clip_id, _), path in sorted(self.files.items()):
            found.setdefault(clip_id, []).append(path)
        return found

    def produce(self, job: GenerationJob) -> Iterator[Generated]:
        """The file of each (clip, k), or the reason missing-sample; files of further k are extra."""
        ids = self._ids or {clip.id for clip in job.clips}
        further = [path for (stem, k), path in sorted(self.files.items()) if stem in ids and k >= job.samples]
        detail = f"{job.samples} per clip are scored; --samples-per-clip takes more"
        self._extra |= {self._name(path): detail for path in further}
        unused, lacking = [stem for stem, _ in self.files if stem not in ids], 0
        for clip, k in job.todo:
            path = self.files.get((clip.id, k))
            if path is None:
                lacking += 1
                near = _nearest(clip.id, unused) if lacking <= NEAREST else ""
                detail = f"no file {self._wanted(clip.id, k, job.samples)} in {self.folder}{near}"
                yield Generated(clip.id, k, reason=Reason.MISSING_SAMPLE, detail=detail)
            else:
                yield Generated(clip.id, k, path=path)

    def extra_files(self) -> Mapping[str, str]:
        """Files that no clip of the set is scored from."""
        return self._extra

    def _wanted(self, clip_id: str, k: int, samples: int) -> str:
        if self.pattern is not None:
            return self.pattern.replace("{id}", clip_id).replace("{k}", str(k))
        return f"{clip_id if samples == 1 else f'{clip_id}~{k}'}.wav (or flac, mp4, ...)"

    def _nothing_fits(self, ids: set[str]) -> str:
        """What was looked for, what is there, and the pattern that would fit, if one does."""
        have = ", ".join(self._name(p) for p in list(self.files.values())[:3]) or "nothing"
        want = ", ".join(sorted(ids)[:3])
        looked = (
            f"no file is named {self.pattern!r} with the id of a clip"
            if self.pattern
            else "no file is named after a clip"
        )
        text = f"--samples {self.folder}: {looked} (found {have}; clips are {want})"
        fitting = suggested(self.folder, ids)
        return f"{text}. {fitting}" if fitting else text

    def _prefer_ids(self, ids: set[str]) -> None:
        """A file whose whole stem is an id belongs to it: an id may itself end in ~1."""
        whole = {(path.stem, 0): path for path in self.files.values() if path.stem in ids}
        numbered = {key: path for key, path in self.files.items() if path.stem not in ids}
        for key in sorted(set(whole) & set(numbered)):
            both = f"{whole[key].name} and {numbered[key].name}"
            raise UsageError(f"--samples {self.folder}: {both} are samples of the same clip; remove one")
        self.files = numbered | whole

    def _compose(self, ids: set[str]) -> None:
        """An id and a name that differ only in how accents are encoded (file systems do that) are the same name."""
        known = {unicodedata.normalize("NFC", clip_id): clip_id for clip_id in ids}
        if len(known) < len(ids):
            return  # the set itself tells them apart
        files: dict[Key, Path] = {}
        for (stem, k), path in self.files.items():
            same = stem if stem in ids else known.get(unicodedata.normalize("NFC", stem), stem)
            _add(files, (same, k), path, self.folder)
        self.files = files

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def _by_key(folder: Path, paths: Iterable[Path]) -> dict[Key, Path]:
    files: dict[Key, Path] = {}
    for path in paths:
        numbered = re.fullmatch(r"(.+)~(\d+)", path.stem)
        key = (numbered.group(1), int(numbered.group(2))) if numbered else (path.stem, 0)
        _add(files, key, path, folder)
    if not files:
        below = sum(1 for _ in _all_media(folder))
        more = (
            f"; {below} lie in sub-folders: --pattern '{{id}}/*' or the like says how they are named" if below else ""
        )
        raise UsageError(f"--samples {folder}: no audio or video files directly in this folder{more}")
    return files


def by_pattern(folder: Path, pattern: str) -> dict[Key, Path]:
    """Files whose path below the folder fits a pattern, by (id, k). UsageError when none does."""
    expression = _expression(pattern)
    files: dict[Key, Path] = {}
    seen = 0
    for path in _all_media(folder):
        seen += 1
        match = expression.fullmatch(path.relative_to(folder).as_posix())
        if match is not None:
            _add(files, (match["id"], int(match.groupdict().get("k") or 0)), path, folder)
    if not files:
        examples = ", ".join(p.relative_to(folder).as_posix() for p in list(_all_media(folder))[:3])
        there = f"the folder holds {seen} audio and video files, e.g. {examples}" if seen else "the folder holds none"
        raise UsageError(f"--samples {folder}: no file fits --pattern {pattern!r}; {there}")
    return files


def _expression(pattern: str) -> re.Pattern[str]:
    """A pattern of paths as a regular expression."""
    if pattern.count("{id}") < 1:
        raise UsageError(f"--pattern {pattern!r}: it needs {{id}}, as in 'pred_{{id}}.wav' or '{{id}}/audio.wav'")
    text = ""
    for part in re.split(r"(\{id\}|\{k\}|\*)", pattern.strip("/")):
        if part == "{id}":
            text += "(?P=id)" if "(?P<id>" in text else "(?P<id>[^/]+)"
        elif part == "{k}":
            text += "(?P=k)" if "(?P<k>" in text else r"(?P<k>\d+)"
        else:
            text += "[^/]*" if part == "*" else _literal(part)
    if not re.search(r"\.\w+$|\*$", pattern):
        text += r"\.\w+"
    return re.compile(text)


def _literal(part: str) -> str:
    """A part of a pattern as it stands; a suffix of audio or video fits in capitals too."""
    suffix = Path(part).suffix or (part if part.startswith(".") else "")
    if part.endswith(suffix) and suffix.lower() in AUDIO_SUFFIXES | VIDEO_SUFFIXES:
        return f"{re.escape(part.removesuffix(suffix))}(?i:{re.escape(suffix)})"
    return re.escape(part)


def suggested(folder: Path, ids: set[str]) -> str:
    """The pattern that would give most clips a file, in words; nothing when no path holds an id."""
    longest = sorted(ids, key=len, reverse=True)
    patterns: Counter[str] = Counter()
    for path in list(_all_media(folder))[:2000]:
        name = path.relative_to(folder).as_posix()
        clip_id = next((i for i in longest if i in name), None)
        if clip_id is not None:
            patterns[name.replace(clip_id, "{id}")] += 1
    if not patterns:
        return ""
    pattern, count = patterns.most_common(1)[0]
    return f"--pattern {pattern!r} would fit {count} file{'s' if count > 1 else ''}"


def _stranger(stem: str, ids: set[str]) -> str:
    near = get_close_matches(stem, ids, n=1, cutoff=0.6)
    return _STRANGER + (f" (the nearest id is {near[0]})" if near else "")


def _nearest(clip_id: str, unused: Sequence[str]) -> str:
    near = get_close_matches(clip_id, unused, n=1, cutoff=0.6)
    return f" (the nearest unused name is {near[0]})" if near else ""


def _add(files: dict[Key, Path], key: Key, path: Path, folder: Path) -> None:
    if key in files:
        first, second = (p.relative_to(folder).as_posix() for p in (files[key], path))
        raise UsageError(f"--samples {folder}: {first} and {second} are samples of the same clip; remove one")
    files[key] = path


def _all_media(folder: Path) -> Iterator[Path]:
    suffixes = AUDIO_SUFFIXES | VIDEO_SUFFIXES
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in suffixes and not path.is_dir() and not path.name.startswith("."):
            yield path
