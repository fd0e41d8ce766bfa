"""Renders a split of the set into a folder: one MP4 per clip and the table ``clips.jsonl``.

Clips that are there are skipped, so that a build can be stopped and started again, or run twice at once: every file
appears by renaming a finished one, and two builders write the same content.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import get_args

from av_bench.contracts import UsageError
from av_bench.rows import json_lines, read_table
from av_bench.runtime.cores import usable_cores
from av_bench.runtime.files import ABANDONED, remove_parts, write_text
from av_bench.schema import load_json
from protocols.impacts import FPS, SAMPLE_RATE, SIZE, VERSION
from protocols.impacts.encode import write_mp4
from protocols.impacts.picture import render_frames
from protocols.impacts.reuploads import plant_reuploads
from protocols.impacts.scene import SPLIT_CLIPS, Factor, Scene, Split, counterfactual, sample_scene
from protocols.impacts.sound import render_audio

__all__ = ["build", "counterfactual_pairs", "plant_reuploads"]

Progress = Callable[[int, int], None]  # clips done, clips in all


def build(
    split: Split,
    out_dir: Path | str,
    count: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Renders the first ``count`` clips of a split that ``out_dir`` lacks; returns the table's path.

    ``count`` is by default the whole split, and must be said for train. Each line of ``clips.jsonl``: id, file, text,
    label, onsets (s), group, params; clips of an earlier, longer build keep their lines. ``workers`` processes
    (default: one per core). Raises UsageError when the folder holds another split or version of the set.
    """
    total = _total(split, count)
    out = Path(out_dir)
    _claim(out, {"set": "impacts", "version": VERSION, "split": split})
    jobs = [(split, index, None, 0) for index in range(total)]
    scenes = [_scene(job) for job in jobs]
    _render_missing(out, list(zip(jobs, scenes, strict=True)), workers, progress)
    return write_table(out / "clips.jsonl", _with_earlier(out, [row(scene) for scene in scenes]))


def _total(split: str, count: int | None) -> int:
    if split not in SPLIT_CLIPS:
        raise UsageError(f"impacts has no split {split!r}; choose one of {', '.join(SPLIT_CLIPS)}")
    if count is None and split == "train":
        raise UsageError("impacts train has a million clips; say how many to render (count=...)")
    total = SPLIT_CLIPS[split] if count is None else count
    if not 1 <= total <= SPLIT_CLIPS[split]:
        raise UsageError(f"impacts {split} has 1..{SPLIT_CLIPS[split]} clips, not {total}; choose another count")
    return total


def _with_earlier(out: Path, rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """The rows and those of a longer build into the same folder, which may be running beside this one."""
    table = out / "clips.jsonl"
    if not table.exists():
        return rows
    ours = {line["id"] for line in rows}
    earlier = [line for _, line in json_lines(read_table(table), str(table))]
    kept = [line for line in earlier if line["id"] not in ours and (out / line["file"]).exists()]
    return sorted(rows + kept, key=lambda line: str(line["id"]))


def counterfactual_pairs(
    split: Split, out_dir: Path | str, count: int, workers: int | None = None, progress: Progress | None = None
) -> Path:
    """Renders ``count`` pairs that differ in one factor (the four take turns); returns the path of ``pairs.jsonl``.

    Each line: id (the clip), counterfactual (its changed twin), factor. ``clips.jsonl`` describes all clips; both
    clips of a pair share their group.
    """
    _total(split, count)
    out = Path(out_dir)
    _claim(out, {"set": "impacts", "version": VERSION, "split": f"{split} pairs"})
    factors: tuple[Factor, ...] = get_args(Factor)
    clips, pairs = [], []
    for index in range(count):
        # the factor moves on once per round of classes as well, so that every class meets every factor
        factor = factors[(index + index // 24) % len(factors)]
        plain, changed = (split, index, None, 0), (split, index, factor, 0)
        scene, twin = _scene(plain), _scene(changed)
        clips += [(plain, scene), (changed, twin)]
        pairs.append({"id": scene.id, "counterfactual": twin.id, "factor": factor})
    _render_missing(out, clips, workers, progress)
    write_table(out / "clips.jsonl", [row(scene) | {"group": _scene((*job[:2], None, 0)).id} for job, scene in clips])
    return write_table(out / "pairs.jsonl", pairs)


def row(scene: Scene) -> dict[str, object]:
    """One line of ``clips.jsonl``."""
    return {
        "id": scene.id, "file": f"{scene.id}.mp4", "text": scene.caption, "label": scene.label,
        "onsets": list(scene.onsets), "group": scene.id, "params": scene.params(),
    }  # fmt: skip


def render_clip(scene: Scene, out_dir: Path) -> Path:
    """Renders one clip and writes its file."""
    frames, audio = render_frames(scene, SIZE, FPS), render_audio(scene, SAMPLE_RATE)
    return write_mp4(out_dir / f"{scene.id}.mp4", frames, audio, SAMPLE_RATE, FPS)


def write_table(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    """Writes one JSON object per line, whole or not at all."""
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in rows))
    return path


# --------------------------------------------------------------------------- work

_Job = tuple[Split, int, Factor | None, int]


def _scene(job: _Job) -> Scene:
    split, index, factor, seed = job
    scene = sample_scene(split, index)
    return scene if factor is None else counterfactual(scene, factor, seed)


def _render_job(job: _Job, out_dir: str) -> str:
    scene = _scene(job)
    if not (Path(out_dir) / f"{scene.id}.mp4").exists():  # another builder may have been faster
        render_clip(scene, Path(out_dir))
    return scene.id


def _render_missing(
    out: Path, clips: Sequence[tuple[_Job, Scene]], workers: int | None, progress: Progress | None
) -> None:
    missing = [job for job, scene in clips if not (out / f"{scene.id}.mp4").exists()]
    done = len(clips) - len(missing)
    if progress:
        progress(done, len(clips))
    count = min(workers or usable_cores(), len(missing))
    if count <= 1:
        for job in missing:
            _render_job(job, str(out))
            done += 1
            if progress:
                progress(done, len(clips))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context) as pool:
        for future in as_completed([pool.submit(_render_job, job, str(out)) for job in missing]):
            future.result()
            done += 1
            if progress:
                progress(done, len(clips))


def _claim(out: Path, what: dict[str, str]) -> None:
    """Marks the folder with what it holds, or refuses when it holds something else."""
    out.mkdir(parents=True, exist_ok=True)
    remove_parts(out, older_than=ABANDONED)  # of builders that were killed; another may write here now
    mark = out / "set.json"
    if mark.exists():
        found = load_json(mark)
        if found != what:
            raise UsageError(f"{out} holds {found}, not {what}; choose another folder or delete it")
        return
    write_text(mark, json.dumps(what))
