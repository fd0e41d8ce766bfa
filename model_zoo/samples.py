"""A folder of samples: ``<id>.wav|flac|...|mp4``, or ``<id>~<k>`` for the k-th of several per clip."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from av_bench.contracts import ClipSet, Generated, GenerationJob, Reason, SampleSource, UsageError
from av_bench.media.decode import AUDIO_SUFFIXES, VIDEO_SUFFIXES, media_files


class SampleFolder(SampleSource):
    """Scores files where they lie. Names are matched exactly: no rewriting, no guessing."""

    name = "samples"

    def __init__(self, folder: Path, files: dict[tuple[str, int], Path] | None = None) -> None:
        if not folder.is_dir():
            raise UsageError(f"--samples {folder}: no such folder")
        self.folder = folder
        self._named = files is None  # the keys come from the file names
        self.files = _by_key(folder) if files is None else files
        self._extra: dict[str, str] = {}  # file -> why it is not scored

    def setup(self, clips: ClipSet, seconds: float, seed: int) -> None:
        """Match names with the list; a folder that matches nothing is refused."""
        del seconds, seed
        ids = {clip.id for clip in clips.clips}
        if self._named:
            self._prefer_ids(ids)
        strangers = [path for (stem, _), path in self.files.items() if stem not in ids]
        self._extra = {self._name(path): "no clip of the set has this name; not scored" for path in sorted(strangers)}
        if not any(stem in ids for stem, _ in self.files):
            have = ", ".join(p.name for p in list(self.files.values())[:3]) or "nothing"
            want = ", ".join(sorted(ids)[:3])
            raise UsageError(f"--samples {self.folder}: no file is named after a clip (found {have}; clips are {want})")

    def produce(self, job: GenerationJob) -> Iterator[Generated]:
        """The file of each (clip, k), or the reason missing-sample; files of further k are extra."""
        ids = {clip.id for clip in job.clips}
        further = [path for (stem, k), path in sorted(self.files.items()) if stem in ids and k >= job.samples]
        detail = f"{job.samples} per clip are scored; --samples-per-clip takes more"
        self._extra |= {self._name(path): detail for path in further}
        for clip, k in job.todo:
            path = self.files.get((clip.id, k))
            if path is None:
                name = clip.id if job.samples == 1 else f"{clip.id}~{k}"
                detail = f"no file {name}.wav (or flac, mp4, ...) in {self.folder}"
                yield Generated(clip.id, k, reason=Reason.MISSING_SAMPLE, detail=detail)
            else:
                yield Generated(clip.id, k, path=path)

    def extra_files(self) -> Mapping[str, str]:
        """Files that no clip of the set is scored from."""
        return self._extra

    def _prefer_ids(self, ids: set[str]) -> None:
        """A file whose whole stem is an id belongs to it: an id may itself end in ~1."""
        whole = {(path.stem, 0): path for path in self.files.values() if path.stem in ids}
        numbered = {key: path for key, path in self.files.items() if path.stem not in ids}
        for key in sorted(set(whole) & set(numbered)):
            both = f"{whole[key].name} and {numbered[key].name}"
            raise UsageError(f"--samples {self.folder}: {both} are samples of the same clip; remove one")
        self.files = numbered | whole

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def _by_key(folder: Path) -> dict[tuple[str, int], Path]:
    files: dict[tuple[str, int], Path] = {}
    for path in media_files(folder, AUDIO_SUFFIXES | VIDEO_SUFFIXES):
        numbered = re.fullmatch(r"(.+)~(\d+)", path.stem)
        key = (numbered.group(1), int(numbered.group(2))) if numbered else (path.stem, 0)
        if key in files:
            raise UsageError(
                f"--samples {folder}: {files[key].name} and {path.name} are samples of the same clip; remove one"
            )
        files[key] = path
    if not files:
        raise UsageError(f"--samples {folder}: no audio or video files directly in this folder")
    return files
