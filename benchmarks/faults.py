"""Faults and sizes that take too long for the tests: each is made, and what the promise says is checked.

    python benchmarks/faults.py                 all of them
    python benchmarks/faults.py --only kills    one or several by name
    python benchmarks/faults.py --list

Each runs in a process of its own, so that its seconds and its peak memory are its own. The last line says how many
held; the exit code is 1 when one did not. Full disks need the right to mount a small tmpfs, and say so without it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

FILES = 100_000
HOURS = 10


class Skipped(Exception):
    """A fault that cannot be made here, with the reason."""


def many_files(folder: Path) -> str:
    """A folder of 100,000 videos without and with a table, and a ledger and a record of as many clips."""
    from av_bench.results.record import RunFolder, RunSpec, read_run
    from protocols.definitions import SetRequest, load_set
    from protocols.readers.read import read_clips
    from tests.runs import make_run

    data = folder / "data"
    data.mkdir()
    names = [f"clip{i:06d}" for i in range(FILES)]
    for name in names:
        (data / f"{name}.mp4").touch()
    definition = load_set("clips")
    assert len(read_clips(definition, SetRequest(data=data)).clips) == FILES
    rows = "".join(f'{name},{name}.mp4,"a, sound"\n' for name in names[:-1])
    (data / "clips.csv").write_text("id,file,text\n" + rows)
    clips = read_clips(definition, SetRequest(data=data))
    assert len(clips.clips) == FILES - 1
    assert clips.notes[0].startswith("1 video of")
    run = RunFolder(make_run(folder / "run", n=FILES))
    run.open(RunSpec("model", "toy", "1", "0" * 64, "toy", "1", "strict", 1))
    for name in names:
        run.log(name, "generate", k=0, file=f"{name}.flac")
    run.close()
    assert len(run.last_generated()) == FILES
    assert len(read_run(folder / "run").values()) == FILES
    return f"{FILES:,} files, rows, ledger lines and values"


def gzip_bomb(folder: Path) -> str:
    """A list of a few megabytes that unpacks to 4.4 GB."""
    from av_bench.audit.lists import read_list
    from av_bench.contracts import UsageError

    path = folder / "list.txt.gz"
    block = b"-1234567890_000030\n" * (1 << 18)
    with gzip.open(path, "wb", compresslevel=1) as handle:
        for _ in range(4_400_000_000 // len(block)):
            handle.write(block)
    said = ""
    try:
        read_list(path)
    except UsageError as error:
        said = str(error)
    assert "bytes unpacked" in said, said
    return f"{path.stat().st_size >> 20} MB refused"


def long_sound(folder: Path) -> str:
    """A wav of ten hours beside two short ones: it is scored by its window, or left out; the others are scored."""
    import soundfile

    import av_bench
    from tests.media_files import tone, write_video

    rate, data, samples = 16_000, folder / "data", folder / "samples"
    data.mkdir()
    samples.mkdir()
    rng = np.random.default_rng(0)
    for name in "abc":
        write_video(data / f"{name}.mp4", seconds=8, size=48, audio=tone(8.0))
        soundfile.write(samples / f"{name}.wav", 0.1 * rng.standard_normal(8 * rate), rate)
    count = HOURS * 3600 * rate
    with (samples / "a.wav").open("wb") as handle:  # a hole: silence without disk
        head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, rate, rate * 2, 2, 16)
        handle.write(b"RIFF" + struct.pack("<I", 2 * count + 36) + head + b"data" + struct.pack("<I", 2 * count))
        handle.truncate(44 + 2 * count)
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    options = {"metrics": "KL-nano", "store": folder / "store", "workers": 1, "quiet": True}
    result = av_bench.run(set="clips", data=data, samples=samples, out=folder / "run", **options)  # type: ignore[arg-type]
    counts = result.scores["counts"]
    assert counts["scored"] >= 2, counts
    return f"{HOURS} h: {counts['scored']} of 3 scored, excluded {counts['excluded']}, within 6 GiB of addresses"


def full_disk(folder: Path) -> str:
    """A run on disks of growing size, from one that holds nothing: one line with the file, and the rest goes on."""
    from tests.media_files import tone, write_video

    data, disk = folder / "data", folder / "disk"
    data.mkdir()
    disk.mkdir()
    for name in "abcd":
        write_video(data / f"{name}.mp4", seconds=8, size=48, audio=tone(8.0, hertz=200.0 + 50 * ord(name)))
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True).returncode:
        raise Skipped("mounting a tmpfs is not allowed here")
    refused = 0
    try:
        command = [sys.executable, "-m", "av_bench", "run", "--set", "clips", "--data", str(data), "--model", "oracle"]
        command += ["--metrics", "KL-nano", "--workers", "1", "--quiet", "--store", str(disk / "store")]
        for size in (64, 256, 512, 1024, 2048, 4096, 65536):
            subprocess.run(["mount", "-o", f"remount,size={size}k", str(disk)], check=True)
            done = subprocess.run(
                [*command, "--out", str(disk / "run")], capture_output=True, text=True, env=_environment()
            )
            if done.returncode == 0:
                break
            assert done.returncode == 4, done.stderr
            assert done.stderr.count("\n") == 1, done.stderr
            assert f"{disk}/" in done.stderr, done.stderr
            assert "No space left on device" in done.stderr, done.stderr
            refused += 1
        assert done.returncode == 0
        assert refused > 0
        whole = folder / "whole"
        subprocess.run(
            [*command, "--out", str(whole), "--store", str(folder / "store")], check=True, env=_environment()
        )
        for name in ("scores.json", "clips.parquet"):
            assert (whole / name).read_bytes() == (disk / "run" / name).read_bytes()
        assert not list((disk / "run").rglob(".*.part"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    return f"{refused} full disks, each one line with the file; then the same bytes as without"


def kills(folder: Path) -> str:
    """A kill before every change of the folder while rendering, training and auditing."""
    from tests.faults.kill_jobs import jobs
    from tests.faults.test_kills import check
    from tests.media_files import tone, write_video

    points = {}
    for work in ("render", "train", "audit"):
        place = folder / work
        for name in ("train", "test"):
            (place / "media" / name).mkdir(parents=True)
            write_video(place / "media" / name / f"{name}.mp4", seconds=6, size=48, audio=tone(6.0))
        with jobs(place) as made:
            points[work] = check(made, work, None)
    return ", ".join(f"{count} while {work}ing" for work, count in points.items())


def noisy_child(folder: Path) -> str:
    """A child that writes 200 MB into its log and a row of 200 MB."""
    from model_zoo.external.runner import LONGEST_ROW, DriverJob, _whole_lines

    size = 200 << 20
    with (folder / "log.txt").open("wb") as log, (folder / "outputs.jsonl").open("wb") as rows:
        rows.write(b'{"id": "a", "k": 0, "status": "failed", "reason": "')
        for _ in range(size >> 20):
            log.write(b"noise\n" * ((1 << 20) // 6))
            rows.write(b"x" * (1 << 20))
        rows.write(b'"}\n{"id": "b"}\n')
    job = DriverJob.__new__(DriverJob)
    job.folder = folder
    assert len(job._tail()) < 500
    lines, _ = _whole_lines(folder / "outputs.jsonl")
    assert [len(line) for line in lines] == [LONGEST_ROW, 11]
    return "200 MB of log and 200 MB of a row"


FAULTS: dict[str, Callable[[Path], str]] = {
    "many-files": many_files,
    "gzip-bomb": gzip_bomb,
    "long-sound": long_sound,
    "full-disk": full_disk,
    "kills": kills,
    "noisy-child": noisy_child,
}


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def _one(name: str) -> None:
    """Make one fault in this process, and print what it did as JSON."""
    with tempfile.TemporaryDirectory() as place:
        os.environ["AV_BENCH_HOME"] = str(Path(place) / "home")
        os.environ["OMP_NUM_THREADS"] = "1"
        (Path(place) / "work").mkdir()
        started = time.perf_counter()
        try:
            said, held = FAULTS[name](Path(place) / "work"), True
        except Skipped as reason:
            said, held = f"not made: {reason}", None
        seconds = time.perf_counter() - started
        shutil.rmtree(Path(place) / "work", ignore_errors=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"said": said, "held": held, "seconds": round(seconds, 1), "peak": peak}))


def main() -> int:
    """All faults, or those asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(FAULTS), default=list(FAULTS))
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--one", choices=list(FAULTS), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.list:
        for name, fault in FAULTS.items():
            print(f"{name:12} {(fault.__doc__ or '').strip()}")
        return 0
    if asked.one:
        _one(asked.one)
        return 0
    broken = 0
    for name in asked.only:
        command = [sys.executable, __file__, "--one", name]
        done = subprocess.run(command, capture_output=True, text=True, env=_environment())
        if done.returncode:
            broken += 1
            print(f"{name:12} BROKEN (exit {done.returncode}): {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
            continue
        found = json.loads(done.stdout.strip().splitlines()[-1])
        word = {True: "held", None: "skipped"}[found["held"]]
        print(f"{name:12} {word:8} {found['said']} ({found['seconds']} s, peak {found['peak']:,} MB)", flush=True)
    print(f"{len(asked.only) - broken} of {len(asked.only)} without a broken promise")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
