"""Runs for other people's tools, each through its own library: Weights & Biases, TensorBoard, Hugging Face."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from av_bench.contracts import MissingRequirement
from av_bench.results.record import Run

INSTALL = 'pip install "av-bench[export]"'


def numbers(run: Run) -> dict[str, float]:
    """What a run measured, by name: values, and the ends of their intervals."""
    found: dict[str, float] = {}
    for name, entry in run.scores["metrics"].items():
        found[name] = float(entry["value"])
        if interval := entry.get("interval"):
            found[f"{name}/low"], found[f"{name}/high"] = map(float, interval)
    return found


def settings(run: Run) -> dict[str, object]:
    """What the numbers depend on."""
    scores = run.scores
    counts = {name: scores["counts"][name] for name in ("expected", "scored")}
    return {
        "model": run.name,
        "set": f"{scores['set']['name']} {scores['set']['version']}",
        "list_hash": scores["set"]["list_hash"],
        "protocol": f"{scores['protocol']['name']} {scores['protocol']['version']}",
        "flavour": scores["flavour"],
        "seed": run.info["spec"].get("seed"),
        **counts,
    }


def to_tensorboard(runs: Sequence[Run], folder: Path) -> list[Path]:
    """One log per run below ``folder``, with scalars and settings; MissingRequirement without the package."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingRequirement(f"tensorboard is not installed: {INSTALL}") from error
    written = []
    for run in runs:
        place = folder / run.path.name
        with SummaryWriter(str(place)) as writer:
            for name, value in numbers(run).items():
                writer.add_scalar(name, value, 0)
            lines = [f"{name}: {value}" for name, value in settings(run).items()]
            writer.add_text("settings", "  \n".join(lines), 0)
        written.append(place)
    return written


def to_wandb(runs: Sequence[Run], project: str, mode: str = "online") -> list[str]:
    """One W&B run per run folder; names of the W&B runs. ``mode``: online or offline."""
    try:
        import wandb
    except ImportError as error:
        raise MissingRequirement(f"wandb is not installed: {INSTALL}") from error
    names = []
    for run in runs:
        started = wandb.init(project=project, name=run.path.name, config=settings(run), mode=mode, dir=str(run.path))
        started.summary.update(numbers(run))
        started.finish()
        names.append(str(started.name))
    return names


def model_index(run: Run, task: str = "text-to-audio") -> str:
    """The metadata block of a Hugging Face model card (YAML), one result per metric of the run.

    ``task`` is one of the hub's task types; it has none for video-to-audio.
    """
    try:
        from huggingface_hub import EvalResult, ModelCardData
    except ImportError as error:
        raise MissingRequirement(f"huggingface_hub is not installed: {INSTALL}") from error
    about = settings(run)
    results = [
        EvalResult(
            task_type=task,
            task_name="Video-to-audio generation",
            dataset_type=run.scores["set"]["name"],
            dataset_name=about["set"],
            dataset_args={"protocol": about["protocol"], "flavour": about["flavour"], "clips": about["scored"]},
            metric_type=name,
            metric_name=f"{name} ({entry['unit']})" if entry["unit"] else name,
            metric_value=float(entry["value"]),
        )
        for name, entry in run.scores["metrics"].items()
    ]
    data = ModelCardData(model_name=run.name, eval_results=results)
    return f"---\n{data.to_yaml()}\n---\n"
