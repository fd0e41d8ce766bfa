"""Fake generators behind the real contract. Runs in the second environment: ``fake_driver.py KIND REQUEST [MORE]``."""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from avbench_driver import Job

KIND, MORE = sys.argv[1], sys.argv[3:]
job = Job(sys.argv[2])
RATE = 16_000


def number(item: dict[str, Any]) -> int:
    """Clips of the tests and of the rendered set end in their number."""
    return int(item["id"].rpartition("_")[2])


def sine(item: dict[str, Any], seconds: float | None = None, rate: int = RATE) -> np.ndarray:
    """A tone whose pitch and level are functions of the item's seed."""
    rng = np.random.RandomState(item["seed"] % 2**32)
    time_ = np.arange(round((seconds or job.request["seconds"]) * rate)) / rate
    return (rng.uniform(0.05, 0.5) * np.sin(2 * np.pi * rng.uniform(150, 2000) * time_)).astype(np.float32)


def make(item: dict[str, Any]) -> tuple[Any, int]:
    with job.timed("features"):
        video = Path(item["video"]).read_bytes() if item["video"] else b""
        zlib.crc32(video)
    with job.timed("generation"):
        audio = sine(item)
    if KIND == "copy":
        return next(Path(MORE[0]).glob(f"{item['id']}.*")), int(MORE[1])
    if KIND == "silence":
        return np.zeros_like(audio), RATE
    if KIND == "cheat":
        return 0.9 * audio / np.abs(audio).max(), RATE
    if KIND == "stereo-list":
        return [audio[:16_000].tolist(), audio[:16_000].tolist()], RATE
    if KIND == "nan":
        audio[5] = np.nan
    if KIND == "short":
        return audio[: 3 * RATE], RATE
    if KIND == "long":
        return sine(item, 11.0), RATE
    if KIND == "other-rate":
        return sine(item, rate=22_050), 22_050
    if KIND == "slow" and number(item) == 2:
        time.sleep(60)
    if KIND == "crash" and number(item) == 2:
        print("device-side assert", file=sys.stderr, flush=True)
        os._exit(7)
    if KIND == "crash-late" and number(item) >= 2:
        os._exit(7)
    if KIND == "fails" and number(item) == 2:
        raise ValueError("the model says no")
    if KIND == "steady":
        time.sleep(float(MORE[0]))
    if KIND == "gated":
        while not (Path(MORE[0]) / item["id"]).exists():
            time.sleep(0.01)
    return audio, RATE


def by_hand(item: dict[str, Any]) -> None:
    """Rows that an honest driver would not write."""
    folder = Path(job.request["output_dir"])
    outside = Path(job.request["cache_dir"]) / "outside.wav"
    row = {"id": item["id"], "k": item["k"], "status": "ok"}
    job.row = lambda _item, _status, **more: row.update(more)  # keep the honest row, to change it
    job.write(item, sine(item), RATE)
    del job.row
    name, lines = row["path"], []
    outside.write_bytes((folder / name).read_bytes())
    if KIND == "escape-climb":
        row["path"] = "../cache/outside.wav"
    elif KIND == "escape-absolute":
        row["path"] = str(folder / name)
    elif KIND == "escape-link":
        (folder / "link.wav").symlink_to(outside)
        row["path"] = "link.wav"
    elif KIND == "escape-folder":
        (folder / "linked").symlink_to(outside.parent)
        row["path"] = "linked/outside.wav"
    elif KIND == "says-rate":
        row["sample_rate"] = 44_100
    elif KIND == "says-length":
        row["n_samples"] += 1
    elif KIND == "no-file":
        row["path"] = "nowhere.wav"
    elif KIND == "text":
        (folder / name).write_text("no audio")
    elif KIND == "twice":
        lines.append(json.dumps(row))
    elif KIND == "stranger":
        lines.append(json.dumps({**row, "id": "stranger"}))
    elif KIND == "typo":
        row["sample_rat"] = row.pop("sample_rate")
    elif KIND == "other-seed":
        row["seed"] += 1
    elif KIND == "garbage":
        lines += ["not json", "[1, 2]"]
    with job.rows_file.open("a") as handle:
        handle.write("".join(f"{line}\n" for line in [*lines, json.dumps(row)]))


HONEST = ("sine", "copy", "silence", "cheat", "nan", "short", "long", "other-rate", "stereo-list")
HONEST += ("sine-and-note", "slow", "crash", "crash-late", "fails", "steady", "gated")
if KIND == "import-error":
    raise ImportError("No module named 'model_of_the_year'")
if KIND == "environment":
    Path(MORE[0]).write_text(json.dumps({"numpy": np.__version__, "path": sys.path, "env": dict(os.environ)}))
if KIND == "sine-and-note":
    shown = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")}
    Path(MORE[0]).write_text(json.dumps({**shown, "device": job.request["device"]}))
if KIND == "hangs-at-load":
    time.sleep(60)
if KIND == "missing":
    items = [item for item in job.items() if number(item) != 2]
    for item in items:
        job.write(item, sine(item), RATE)
    job.finish({})
elif KIND == "miscounts":
    for item in job.items():
        job.write(item, sine(item), RATE)
    job._counts["ok"] += 3
    job.finish({})
elif KIND in HONEST or KIND == "environment":
    job.run(make, parameters=12_345)
else:
    for item in job.items():
        if number(item) == 2:
            by_hand(item)
        else:
            job.write(item, sine(item), RATE)
    job.finish({})
