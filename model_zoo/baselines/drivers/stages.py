"""Runs a model's official commands once per item and hands over the one file they leave.

``generation.extra`` of the request holds what to do (``model_zoo/baselines/steps.py`` says what each key means); the
interpreter of the second environment is the second argument. The texts are filled in with: python, python2, repo,
weights, work, out, id, name (of the item, safe as a file name), k, seed, seconds, video, suffix (of the video), text,
video_fps and the item's extras. A text is filled in once, so braces in a caption stay braces.

Every item has folders of its own, so equal prompts never collide. A command with ``keep``, ``seeds`` or ``replace``
runs in a process that stays for all items (``resident.py``), so its models are loaded once; every other command is a
new process per item. The seconds are those of whole commands, with files and all, and no measure of the model.
"""

from __future__ import annotations

import contextlib
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
import time
from collections import deque
from pathlib import Path
from typing import IO, Any

from avbench_driver import Job  # type: ignore[import-not-found]

job = Job.from_arguments()
extra = job.request["generation"]["extra"]
REPO = Path.cwd()
done: list[Path] = []  # work folders whose file has been handed over
residents: dict[int, Resident] = {}  # by number of the command


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
            run(step, number, f"stage {number} of {len(extra['commands'])} ({step['name'] or step['part']})", values)
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
    known.update(text_json=json.dumps(item["text"] or ""))
    known.update(gpu=os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0")
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


def filled(value: object, values: dict[str, Any]) -> object:
    """Texts inside a JSON value filled in; the rest stays what it is."""
    if isinstance(value, dict):
        return {key: filled(inner, values) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, values) for inner in value]
    return value.format_map(values) if isinstance(value, str) else value


def run(step: dict[str, Any], number: int, title: str, values: dict[str, Any]) -> None:
    """One command; what it prints goes to the log, and its end into the reason when it fails."""
    print(f"--- {values['id']} ~ {values['k']}: {title}", flush=True)
    argv = [part.format_map(values) for part in step["run"]]
    folder = str(REPO / step["cwd"].format_map(values))
    variables = {key: value.format_map(values) for key, value in step["env"].items()}
    if step["keep"] or step["seeds"] or step["replace"]:
        replace = {old.format_map(values): new.format_map(values) for old, new in step["replace"].items()}
        order = {"argv": argv[1:], "cwd": folder, "env": variables, "seed": values["seed"], "replace": replace}
        order.update(keep=list(step["keep"]), seeds=list(step["seeds"]))
        serve(number, title, argv[0], order)
        return
    last: deque[str] = deque(maxlen=4)
    child = start(title, argv, folder, variables)
    pump = threading.Thread(target=forward, args=(child.stdout, last), daemon=True)
    pump.start()
    code = child.wait()
    pump.join(5.0)  # no longer: a process left behind may hold the pipe
    if code:
        raise RuntimeError(f"{title}: {ended(code)}; {log_end(last)}")


def start(title: str, argv: list[str], folder: str, variables: dict[str, str]) -> subprocess.Popen[bytes]:
    """A child process. The lock of the job is inherited, so that nothing of this outlives it unseen."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "AV_BENCH_REQUEST")}
    environment.update(variables)
    try:
        return subprocess.Popen(
            argv,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            close_fds=False,
        )
    except OSError as error:
        raise RuntimeError(f"{title} cannot start: {error}") from error


def ended(code: int) -> str:
    """How a process ended."""
    return f"ended by signal {-code}" if code < 0 else f"exit code {code}"


def log_end(last: deque[str]) -> str:
    """The last lines that were printed."""
    return f"log ends: {' | '.join(last)[-400:] or 'nothing was printed'}"


def serve(number: int, title: str, python: str, order: dict[str, Any]) -> None:
    """Hand an order to the process that stays for this command; it is started for the first item and after a crash."""
    if number not in residents:
        residents[number] = Resident(title, python, order)
    resident = residents[number]
    resident.last.clear()
    answer = resident.ask(order)
    if answer is None:
        del residents[number]
        code = resident.close()
        raise RuntimeError(f"{title}: {ended(code)}; {log_end(resident.last)}")
    if answer["error"]:
        time.sleep(0.1)  # for what was printed last
        raise RuntimeError(f"{title}: {answer['error']}; {log_end(resident.last)}")


class Resident:
    """A process that runs one command's script for every item (``resident.py``)."""

    def __init__(self, title: str, python: str, order: dict[str, Any]) -> None:
        theirs, orders = os.pipe()
        answers, theirs_too = os.pipe()
        for handle in (theirs, theirs_too):
            os.set_inheritable(handle, True)
        script = Path(__file__).resolve().with_name("resident.py")
        argv = [python, str(script), str(theirs), str(theirs_too)]
        self.last: deque[str] = deque(maxlen=4)
        try:
            self.child = start(title, argv, order["cwd"], order["env"])
        finally:
            os.close(theirs)
            os.close(theirs_too)
        self.orders = os.fdopen(orders, "w", encoding="utf8")
        self.answers = os.fdopen(answers, encoding="utf8")
        threading.Thread(target=forward, args=(self.child.stdout, self.last), daemon=True).start()

    def ask(self, order: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to one order, None when the process ended."""
        try:
            self.orders.write(json.dumps(order) + "\n")
            self.orders.flush()
        except OSError:
            return None
        line = self.answers.readline()
        return dict(json.loads(line)) if line else None

    def close(self) -> int:
        """End it; its exit code."""
        with contextlib.suppress(OSError):
            self.orders.close()
        self.answers.close()
        return int(self.child.wait())


def forward(pipe: IO[bytes], last: deque[str]) -> None:
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
for resident in residents.values():
    resident.close()
