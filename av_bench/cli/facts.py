"""Rows of tables that come from no run: codecs, variants, training logs, the overlap audit, a user study."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from av_bench.contracts import UsageError
from av_bench.schema import read_json

if TYPE_CHECKING:
    from av_bench.results.shapes import Timing
    from reports.arrange import Fact, Value

HOUR = 3600.0


def codecs() -> list[Fact]:
    """Table A5: the front ends and latents that the code uses."""
    from model_zoo.mmaudio.codec.mel import MELS
    from model_zoo.mmaudio.codec.vae import VAES
    from reports.arrange import Fact

    facts = []
    for rate, mel in MELS.items():
        vae = VAES[rate]
        values: dict[str, Value] = {
            "latent frame rate": mel.sample_rate / mel.hop / vae.stride,
            "latent channels": vae.embed_dim,
            "mel bins": mel.n_mels,
            "FFT bins": mel.n_fft,
            "hop": mel.hop,
            "window": mel.n_fft,
            "window function": "Hann",
        }
        facts.append(Fact(f"{mel.sample_rate / 1000:g}kHz", values))
    return facts


def variants(runs: Sequence[Path] = ()) -> list[Fact]:
    """Table A6: networks built without weights and counted; seconds from runs of the variants, where given."""
    import torch

    from av_bench.results.record import read_run
    from model_zoo.mmaudio.config import VARIANTS
    from model_zoo.mmaudio.flow.network import FlowNetwork
    from reports.arrange import Fact

    timed: dict[str, Timing] = {}
    for path in runs:
        run = read_run(path)
        if "seconds_per_sample" in run.info.get("generator", {}):
            timed[str(run.info["spec"]["model"]).partition(":")[0]] = run.info["generator"]["seconds_per_sample"]
    facts = []
    for name, found in VARIANTS.items():
        with torch.device("meta"):
            network = FlowNetwork(found.network)
        values: dict[str, Value] = {
            "params": sum(p.numel() for p in network.parameters()) / 1e6,
            "multimodal blocks": found.network.depth - found.network.fused_depth,
            "single-modal blocks": found.network.fused_depth,
            "hidden dim": found.network.hidden,
            "latent dim": found.network.latent_dim,
        }
        remarks = ["parameters counted in the network as built"]
        if name in timed:
            values["seconds"] = float(timed[name]["mean"])
            remarks.append(f"seconds over {timed[name]['n']} samples: {timed[name]['how']}; {timed[name]['device']}")
        facts.append(Fact(_printed_name(name), values, remarks=tuple(remarks)))
    return facts


def _printed_name(variant: str) -> str:
    """mmaudio-s-16k -> S-16kHz."""
    _, size, rate, *later = variant.split("-")
    return "-".join([size.upper(), "16kHz" if rate == "16k" else "44.1kHz", *later])


def training(folders: Sequence[Path]) -> list[Fact]:
    """Table A7: GPUs and hours of training runs, from ``log.jsonl`` and ``recipe.json``."""
    if not folders:
        raise UsageError("this table is made from training runs: av-bench table --layout mmaudio-tableA7 TRAINED...")
    return [_trained(folder) for folder in folders]


def _trained(folder: Path) -> Fact:
    from reports.arrange import Fact

    try:
        lines = (folder / "log.jsonl").read_text(encoding="utf8").splitlines()
        batch = int(json.loads((folder / "recipe.json").read_text(encoding="utf8"))["batch"])
        events = [event for event in map(json.loads, lines) if event["kind"] == "train"]
        seconds, step = 0.0, 0
        for event in events:
            seconds += (event["step"] - step) * batch / event["samples_per_second"]
            step = event["step"]
        gpus = [event["gpus"] for event in events if "gpus" in event]
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        what = f"{type(error).__name__}: {error}"
        raise UsageError(f"{folder} is not an MMAudio training run with log.jsonl and recipe.json ({what})") from error
    if not events:
        raise UsageError(f"{folder}/log.jsonl says nothing of training steps yet")
    hours = seconds / HOUR
    values: dict[str, Value] = {"hours": hours}
    remarks = [f"{step} steps, {hours:.4g} hours by its log, from the first to the last logged step"]
    if gpus and max(gpus):
        values |= {"GPUs": max(gpus), "GPU-hours": hours * max(gpus)}
    else:
        values["GPUs"] = "none (CPU)" if gpus else "not logged"
    return Fact(folder.name, values, remarks=tuple(remarks))


_TEST = {"audiocaps": "AudioCaps", "vggsound": "VGGSound", "avsync15": "AVSync15", "audioset": "AudioSet"}


def audit(path: Path | None) -> list[Fact]:
    """Table A4: test clips found in the training lists, by the video's id, from `av-bench audit table-a4 --json`."""
    from reports.arrange import Fact

    if path is None:
        raise UsageError("this table is made from the audit: `av-bench audit table-a4 --json FILE`, then --from FILE")
    data = read_json(path, dict)
    if data.get("kind") != "table-a4":
        raise UsageError(f"{path} holds no table A4: write it with `av-bench audit table-a4 --json {path.name}`")
    rows: dict[str, dict[str, Value]] = {}
    remarks: dict[str, list[str]] = {}
    for cell in data["cells"]:
        test, train = (_TEST[cell[side].partition("/")[0]] for side in ("test", "train"))
        row = rows.setdefault(test, {})
        if cell["without"] or test == train:
            continue
        if "ours" in cell:
            row["test clips"], row[train] = float(cell["clips"]), float(cell["ours"]["id"]["clips"])
        else:
            remarks.setdefault(test, []).append(f"{train} not compared ({cell['why']})")
    return [Fact(name, values, remarks=tuple(remarks.get(name, ()))) for name, values in rows.items()]


def study(paths: Sequence[Path]) -> list[Fact]:
    """Tables A1 and A2: mean and standard deviation of the ratings, from `av-bench study score --json FILE`."""
    facts = []
    for path in paths:
        data = read_json(path, dict)
        if data.get("kind") != "study":
            raise UsageError(f"{path} holds no scored study: write it with `av-bench study score ... --json FILE`")
        facts += ratings(data)
    return facts


def ratings(data: dict[str, Any]) -> list[Fact]:
    """The rows of a scored study (``reports.study.score.summary``)."""
    from reports.arrange import Fact

    facts = []
    for method, of in data["ratings"].items():
        means: dict[str, Value] = {question: r["mean"] for question, r in of.items()}
        facts.append(Fact(method, means, {question: r["std"] for question, r in of.items()}))
    return facts
