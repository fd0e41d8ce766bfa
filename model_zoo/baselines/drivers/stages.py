"""Runs a model's official commands once per item and hands over the one file they leave.

``generation.extra`` of the request holds what to do (``model_zoo/baselines/steps.py`` says what each key means); the
interpreter of the second environment is the second argument. The texts are filled in with: python, python2, repo,
weights, work, out, id, name (of the item, safe as a file name), k, seed, seconds, video, suffix (of the video), text,
video_fps and the item's extras. A text is filled in once, so braces in a caption stay braces.

Every item has folders of its own, so equal prompts never collide. A new process per command loads the model again: the
seconds are those of whole commands and no measure of the model.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import Any

from avbench_driver import Job  # type: ignore[import-not-found]

job = Job.from_arguments()
extra = job.request["generation"]["extra"]
REPO = Path.cwd()
done: list[Path] = []  # work folders whose file has been handed over


def make(item: dict[str, Any]) -> tuple[Path, int]:
    """One sample: write the inputs, run the commands, find the file."""
    tidy()
    values = placeholders(item)
    work, out = Path(values["work"]), Path(values["out"])
    shutil.rmtree(str(work), ignore_errors=True)
    out.mkdir(parents=True)
    write_inputs(work, values)
    for number, step in enumerate(extra["commands"], 1):
        with job.timed(step["part"]):
            run(step, f"stage {number} of {len(extra['commands'])} ({step['name'] or step['part']})", values)
    pattern = extra["collect"].format_map({key: glob.escape(str(value)) for key, value in values.items()})
    found = sorted(path for path in out.glob(pattern) if path.is_file())
    if len(found) != 1:
        names = ", ".join(str(path.relative_to(out)) for path in found[:3] or sorted(out.rglob("*"))[:3])
        raise RuntimeError(f"{len(found)} files fit {pattern}, one is expected; there: {names or 'nothing'}")
    done.append(work)
    return found[0], sample_rate(found[0])


def tidy() -> None:
    """Remove what finished items left; the folder of one that failed stays for a look."""
    while done:
        shutil.rmtree(str(done.pop()), ignore_errors=True)


def placeholders(item: dict[str, Any]) -> dict[str, Any]:
    """What the texts are filled in with."""
    name = hashlib.sha256(f"{item['id']}~{item['k']}".encode()).hexdigest()[:20]
    work = Path(job.request["cache_dir"]) / "stages" / name
    video = item["video"] or ""
    known = {
        "python": sys.executable,
        "python2": "".join(sys.argv[2:3]),
        "repo": REPO,
        "work": work,
        "out": work / "out",
    }
    known.update(weights=job.request["model"]["weights_dir"] or "", seconds=job.request["seconds"])
    known.update(id=item["id"], name=name, k=item["k"], seed=item["seed"] % 2**32)
    known.update(video=video, suffix=Path(video).suffix, text=item["text"] or "")
    return {**item["extras"], **known}


def write_inputs(work: Path, values: dict[str, Any]) -> None:
    """Texts, copies, the table and the JSON line, below the work folder."""

    def below(name: str) -> Path:
        path = work / name.format_map(values)
        if work not in Path(os.path.normpath(str(path))).parents:
            raise RuntimeError(f"{name}: {path} is not below the work folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    for name, content in extra["write"].items():
        below(name).write_bytes(content.format_map(values).encode("utf8"))
    for name, source in extra["copy"].items():
        shutil.copyfile(source.format_map(values), str(below(name)))
    if extra["csv"]:
        columns = extra["csv"]["columns"]
        with below(extra["csv"]["file"]).open("w", encoding="utf8", newline="") as handle:
            csv.writer(handle).writerows([list(columns), [cell.format_map(values) for cell in columns.values()]])
    if extra["jsonl"]:
        line = {key: filled(value, values) for key, value in extra["jsonl"]["fields"].items()}
        below(extra["jsonl"]["file"]).write_bytes((json.dumps(line) + "\n").encode("utf8"))


def filled(value: Any, values: dict[str, Any]) -> Any:
    """Texts inside a JSON value filled in; the rest stays what it is."""
    if isinstance(value, dict):
        return {key: filled(inner, values) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, values) for inner in value]
    return value.format_map(values) if isinstance(value, str) else value


def run(step: dict[str, Any], title: str, values: dict[str, Any]) -> None:
    """One command; what it prints goes to the log, and its end into the reason when it fails."""
    print(f"--- {values['id']} ~ {values['k']}: {title}", flush=True)
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "AV_BENCH_REQUEST")}
    environment.update({key: value.format_map(values) for key, value in step["env"].items()})
    argv = [part.format_map(values) for part in step["run"]]
    last: deque[str] = deque(maxlen=4)
    try:
        # the lock of the job is inherited, so that nothing of this outlives it unseen
        child = subprocess.Popen(
            argv,
            cwd=str(REPO / step["cwd"].format_map(values)),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            close_fds=False,
        )
    except OSError as error:
        raise RuntimeError(f"{title} cannot start: {error}") from error
    pump = threading.Thread(target=forward, args=(child.stdout, last), daemon=True)
    pump.start()
    code = child.wait()
    pump.join(5.0)  # no longer: a process left behind may hold the pipe
    if code:
        ending = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
        raise RuntimeError(f"{title}: {ending}; log ends: {' | '.join(last)[-400:] or 'nothing was printed'}")


def forward(pipe: Any, last: deque[str]) -> None:
    """Copy what a command prints, and remember its last lines."""
    for line in iter(pipe.readline, b""):
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        text = line.decode("utf8", errors="replace").strip().rpartition("\r")[2]
        if text:
            last.append(text)


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
tidy()
