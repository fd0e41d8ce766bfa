"""Published samples: from a release's file names to (clip, k), by rule or by table, and what that covers."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from av_bench.contracts import Clip, ClipSet, UsageError
from av_bench.media.suffixes import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from av_bench.rows import read_table, records
from av_bench.runtime.files import inside
from av_bench.schema import build, load_yaml
from model_zoo.baselines.schema import Manifest, PublishedSamples
from model_zoo.samples import SampleFolder

Key = tuple[str, int]


class MappedSamples(SampleFolder):
    """A release scored where it lies: wav, flac, ... or the sound track of mp4.

    Parameters
    ----------
    mapping : a TSV with the columns file, id and (for several per clip) k, or a YAML file with the keys ``files``,
        ``pattern``, ``clip`` and ``first_k`` of a manifest's ``samples``; without it the manifest's own rule.
    """

    def __init__(self, manifest: Manifest, folder: Path, mapping: str | None = None) -> None:
        if not folder.is_dir():
            raise UsageError(f"--samples {folder}: no such folder")
        self.manifest = manifest
        self.unmatched: list[str] = []
        if mapping is not None and not mapping.endswith((".yaml", ".yml")):
            files = _by_table(folder, Path(mapping))
        else:
            rule = _rule(manifest, mapping)
            files, self.unmatched = by_rule(folder, rule)
        super().__init__(folder, files)
        self.name = manifest.name
        self.training_sets = tuple(s.name for s in manifest.training_sets)
        self.metric_networks = manifest.metric_networks_used

    def coverage(self, clips: Sequence[Clip], samples: int) -> dict[str, Any]:
        """Which clips of the list have all their samples, and what the folder holds besides."""
        ids = {clip.id for clip in clips}
        per_clip = Counter(clip_id for clip_id, _ in self.files)
        missing = sorted(i for i in ids if per_clip[i] == 0)
        partial = sorted(i for i in ids if per_clip[i] and any((i, k) not in self.files for k in range(samples)))
        return {
            "baseline": self.manifest.name,
            "expected": len(ids),
            "covered": len(ids) - len(missing) - len(partial),
            "share": (len(ids) - len(missing) - len(partial)) / len(ids),
            "samples_asked": samples,
            "samples_per_clip": {str(k): n for k, n in sorted(Counter(per_clip[i] for i in ids).items())},
            "missing": missing,
            "partial": partial,
            "not_in_list": sorted(set(per_clip) - ids),
            "not_mapped": self.unmatched,
        }

    def describe(self, folder: Path) -> dict[str, Any]:
        """For the record."""
        del folder
        record: dict[str, Any] = {"manifest": self.manifest.digest, "paper": [vars(row) for row in self.manifest.paper]}
        if self.manifest.parameters is not None:
            record["parameters"] = vars(self.manifest.parameters)
        return record

    def setup(self, clips: ClipSet, seconds: float, seed: int) -> None:
        """Match with the list; refuse samples that are too short by declaration."""
        most = self.manifest.native.max_s
        if most is not None and most < seconds:
            raise UsageError(
                f"baseline {self.name} gives at most {most:g} s, the protocol scores {seconds:g} s; choose a protocol "
                "with a shorter window (--protocol)"
            )
        super().setup(clips, seconds, seed)


def _rule(manifest: Manifest, mapping: str | None) -> PublishedSamples:
    if mapping is not None:
        data = load_yaml(Path(mapping))
        known = asdict(manifest.samples) if manifest.samples else {"source": "the user's"}
        return build(PublishedSamples, known | data if isinstance(data, dict) else data, mapping)
    if manifest.samples is None:
        raise UsageError(
            f"baseline {manifest.name} has no mapping rule; give one: --model {manifest.name}:mapping=FILE"
        )
    return manifest.samples


def by_rule(folder: Path, rule: PublishedSamples) -> tuple[dict[Key, Path], list[str]]:
    """Files that the pattern maps, and the names of media files that it does not.

    The pattern must match the whole path below the folder. Its groups fill ``rule.clip``; a group named ``k`` counts
    samples from ``rule.first_k`` on.
    """
    try:
        pattern = re.compile(rule.pattern)
    except re.error as error:
        raise UsageError(f"samples.pattern {rule.pattern!r} is not a regular expression: {error}") from error
    files: dict[Key, Path] = {}
    unmatched = []
    for path in sorted(folder.glob(rule.files)):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or path.suffix.lower() not in AUDIO_SUFFIXES | VIDEO_SUFFIXES:
            continue
        match = pattern.fullmatch(name)
        if match is None:
            unmatched.append(name)
            continue
        _add(files, _key(match, rule), path, folder)
    if not files:
        seen = f"e.g. {unmatched[0]}" if unmatched else f"and there is no media file that fits {rule.files}"
        raise UsageError(f"--samples {folder}: the rule {rule.pattern!r} maps no file, {seen}; give mapping=FILE")
    return files, unmatched


def _key(match: re.Match[str], rule: PublishedSamples) -> Key:
    """(clip id, k) of a matching name; a group that ``clip`` formats as a number becomes one."""
    groups: dict[str, Any] = match.groupdict()
    for _, name, form, _ in string.Formatter().parse(rule.clip):
        if name and form and form.endswith("d"):
            groups[name] = int(groups[name])
    k = int(groups["k"]) - rule.first_k if groups.get("k") is not None else 0
    if k < 0:
        raise UsageError(f"{match.string}: sample {groups['k']}, but samples are counted from {rule.first_k}")
    return rule.clip.format_map(groups), k


def _by_table(folder: Path, table: Path) -> dict[Key, Path]:
    files: dict[Key, Path] = {}
    for line, row in records(read_table(table), f"mapping={table}", "\t", needed=("file", "id")):
        where = f"{table}, line {line}"
        path = inside(folder, row["file"], where)
        if not path.is_file():
            raise UsageError(f"{where}: {path} does not exist")
        text = row.get("k") or "0"
        if not (text.isascii() and text.isdecimal()):
            raise UsageError(f"{where}: k is {text!r}, a number from 0 on is expected")
        _add(files, (row["id"], int(text)), path, folder)
    if not files:
        raise UsageError(f"{table}: no rows")
    return files


def _add(files: dict[Key, Path], key: Key, path: Path, folder: Path) -> None:
    if key in files:
        names = " and ".join(str(p.relative_to(folder)) for p in (files[key], path))
        raise UsageError(f"--samples {folder}: {names} are both sample {key[1]} of clip {key[0]}; give mapping=FILE")
    files[key] = path
