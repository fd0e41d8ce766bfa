"""Runs a model's official commands once per item and hands over the one file they leave.

``generation.extra`` of the request holds what to do:

``commands``  list of argv; run in the repository, one after the other
``write``     file name -> content, written into the item's work folder first (texts lists)
``csv``       ``file`` and ``columns``: a table with one row, written the same way
``collect``   glob below the out folder; it must find one wav or flac file

Placeholders: python, repo, weights, work, out, video, text, seconds, seed, id and the item's extras. Every item has
folders of its own, so equal prompts never collide. A new process per item loads the model again: the seconds are no
measure of the model.
"""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from avbench_driver import Job  # type: ignore[import-not-found]

job = Job.from_arguments()
extra = job.request["generation"]["extra"]


def make(item: dict[str, Any]) -> tuple[Path, int]:
    """One sample: write the inputs, run the commands, find the file."""
    name = hashlib.sha256(f"{item['id']}~{item['k']}".encode()).hexdigest()[:20]
    work = Path(job.request["cache_dir"]) / "stages" / name
    shutil.rmtree(work, ignore_errors=True)
    (work / "out").mkdir(parents=True)
    values = {**item["extras"], "work": work, "out": work / "out", "python": sys.executable, "repo": os.getcwd()}  # noqa: PTH109
    values.update(weights=job.request["model"]["weights_dir"] or "", seconds=job.request["seconds"])
    values.update(video=item["video"] or "", text=item["text"] or "", seed=item["seed"] % 2**32, id=item["id"])
    for file, content in extra.get("write", {}).items():
        (work / file).write_text(content.format_map(values), encoding="utf8")
    if "csv" in extra:
        columns = extra["csv"]["columns"]
        with (work / extra["csv"]["file"]).open("w", encoding="utf8", newline="") as handle:
            csv.writer(handle).writerows([list(columns), [cell.format_map(values) for cell in columns.values()]])
    for command in extra["commands"]:
        # the lock of the job is inherited, so that nothing of this outlives it unseen
        subprocess.run([part.format_map(values) for part in command], check=True, close_fds=False)
    found = sorted(path for path in (work / "out").glob(extra["collect"]) if path.is_file())
    if len(found) != 1:
        raise RuntimeError(f"{len(found)} files fit {extra['collect']}, one is expected")
    return found[0], sample_rate(found[0])


def sample_rate(path: Path) -> int:
    """From the header of a wav or flac file."""
    head = path.read_bytes()[: 1 << 16]
    if head[:4] == b"fLaC":
        return int.from_bytes(head[18:21], "big") >> 4
    at = 12
    while head[at : at + 4] != b"fmt ":
        if head[:4] != b"RIFF" or at + 8 > len(head):
            raise RuntimeError(f"{path.name} is neither wav nor flac")
        at += 8 + struct.unpack_from("<I", head, at + 4)[0]
    return int(struct.unpack_from("<I", head, at + 12)[0])


job.run(make)
