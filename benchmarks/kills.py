"""Kill -9 at many points: children, Ray actors, the parent, and shards; each run ends with the bytes of one process.

    python benchmarks/kills.py --points 20                                    # children, parent, shards
    python benchmarks/kills.py --points 20 --kinds child,parent,shard,actor   # actors too, where Ray is installed

A point is a number of files (samples and feature shards) after which a process is killed. After a kill of a child or an
actor the same command goes on by itself; after a kill of the parent, or of a shard, it is started again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tests.media_files import write_video

CLIPS = 8
NAMES = ("scores.json", "clips.parquet", "pseudo_values.parquet")


def command(folder: Path, data: Path, *more: str) -> list[str]:
    """A run with a store of its own."""
    own = ["--set", "clips", "--data", str(data), "--model", "noise", "--protocol", "nano", "--no-videos", "--quiet"]
    return [
        sys.executable, "-m", "av_bench", "run", *own, "--beside", "none", "--metrics", "FD-nano,KL-nano",
        "--out", str(folder / "run"), "--store", str(folder / "store"), *more,
    ]  # fmt: skip


def bytes_of(folder: Path) -> str:
    """A hash over the files that are a function of spec and inputs."""
    payload = b"".join((folder / "run" / name).read_bytes() for name in NAMES)
    return hashlib.sha256(payload).hexdigest()[:16]


def files(folder: Path) -> int:
    """Samples and feature shards that are finished."""
    return sum(path.suffix in (".flac", ".safetensors") for path in folder.rglob("*") if path.is_file())


def descendants(root: int) -> list[tuple[int, str]]:
    """Processes below one, with their command lines (Linux)."""
    parents: dict[int, int] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found, waiting = [], [root]
    while waiting:
        here = waiting.pop()
        below = [child for child, parent in parents.items() if parent == here]
        waiting += below
        found += below
    return [(pid, _words(pid)) for pid in found]


def _words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def killed_at(words: Sequence[str], folder: Path, point: int, wanted: str) -> tuple[int, bool]:
    """Run a command; when ``point`` files are there, kill the process whose command line holds ``wanted`` ("": itself).

    Returns its exit code and whether anything was killed.
    """
    done = False
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if not done and files(folder) >= point:
                targets = [pid for pid, line in descendants(process.pid) if wanted in line] if wanted else [process.pid]
                if targets:
                    os.kill(targets[point % len(targets)], signal.SIGKILL)
                    done = True
            time.sleep(0.05)
    return process.returncode, done


def again(words: Sequence[str]) -> None:
    """The same command, to its end."""
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def trial(kind: str, folder: Path, data: Path, point: int) -> bool:
    """One kill of one kind; returns whether it happened."""
    if kind == "shard":
        words = command(folder, data, "--shard", "0/2")
        _, done = killed_at(words, folder, point, "")
        again(words)
        again(command(folder, data, "--shard", "1/2"))
        again([sys.executable, "-m", "av_bench", "merge", str(folder / "run"), "--quiet"])
        return done
    words = command(folder, data, "--devices", "cpu:2", *(["--engine", "ray"] if kind == "actor" else []))
    wanted = {"child": "av_bench.engines.child", "actor": "ray::Opened", "parent": ""}[kind]
    code, done = killed_at(words, folder, point, wanted)
    if kind == "parent":
        again(words)
    elif code:
        raise SystemExit(f"{kind}, point {point}: exit code {code} in {folder}")
    return done


def main() -> None:
    """Run all trials and print one line per kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--kinds", default="child,parent,shard", help="also actor, where Ray is installed")
    asked = parser.parse_args()
    report: Callable[..., None] = lambda *words: print(*words, flush=True)  # noqa: E731
    with tempfile.TemporaryDirectory() as top:
        root = Path(top)
        data = root / "data"
        data.mkdir()
        rng = np.random.default_rng(0)
        for i in range(CLIPS):
            audio = 0.05 * rng.standard_normal((1, 8 * 16_000)).astype(np.float32)
            write_video(data / f"clip_{i}.mp4", seconds=8, size=48, audio=audio, sample_rate=16_000)
        again(command(root / "whole", data))
        expected, total = bytes_of(root / "whole"), files(root / "whole")
        report(f"one process: {expected}, {total} files")
        for kind in asked.kinds.split(","):
            killed = 0
            for number in range(asked.points):
                folder = root / f"{kind}{number}"
                point = 1 + number * (total - 1) // asked.points
                killed += trial(kind, folder, data, point)
                if bytes_of(folder) != expected:
                    raise SystemExit(f"{kind}, point {point}: other bytes in {folder}")
            report(f"{kind}: {killed} kills in {asked.points} runs, all with the bytes of one process")


if __name__ == "__main__":
    main()
