"""Small feature folders and recipes for the training tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml

from av_bench.contracts import Generated, GenerationJob, SampleSource
from av_bench.schema import build, merge
from model_zoo.mmaudio.features.write import Sample, ShardWriter
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.training.recipe import FlowRecipe

SHAPES = {"mean": (16, 4), "std": (16, 4), "clip": (4, 12), "sync": (8, 10), "text": (5, 6)}


def text_features(text: str) -> torch.Tensor:
    """Features that depend on the text alone."""
    generator = torch.Generator().manual_seed(sum(ord(letter) * (k + 1) for k, letter in enumerate(text)))
    return torch.randn(SHAPES["text"], generator=generator)


def samples(count: int, video: bool = True, seed: int = 0) -> list[Sample]:
    """``count`` random samples of three labels; every fifth has no text, and with ``video`` every fourth no video."""
    generator = torch.Generator().manual_seed(seed)

    def normal(name: str) -> torch.Tensor:
        return torch.randn(SHAPES[name], generator=generator)

    made = []
    for number in range(count):
        seen = video and number % 4 != 3
        text = f"label {number % 3}" if number % 5 else None
        clip, sync = (normal("clip"), normal("sync")) if seen else (None, None)
        features = None if text is None else text_features(text)
        mean, std = 2 * normal("mean") + 1, 0.1 * normal("std").abs()
        made.append(Sample(f"{seed}-{number:03d}", mean, std, clip, sync, text, features))
    return made


def folder(
    path: Path, count: int, *, video: bool = True, seed: int = 0, shard_size: int = 7, dtype: str = "fp32"
) -> Path:
    """A feature folder with the features of the empty text."""
    with ShardWriter(path, shard_size, dtype) as writer:
        writer.add_text("", text_features(""))
        for sample in samples(count, video, seed):
            writer.append(sample)
    return path


NETWORK = {
    "latent_dim": 4, "clip_dim": 12, "sync_dim": 10, "text_dim": 6, "hidden": 16, "depth": 2, "fused_depth": 1,
    "heads": 1, "latent_len": 16, "clip_len": 4, "sync_len": 8, "text_len": 5, "ffn": "mlp",
}  # fmt: skip


def tiny_recipe(path: Path, **changes: Any) -> FlowRecipe:
    """A recipe on a folder of 24 samples that trains in seconds; ``changes`` are laid over it."""
    data = path / "features"
    if not data.is_dir():
        folder(data, 24)
    content: dict[str, Any] = {
        "name": "tiny",
        "network": NETWORK,
        "data": {"train": [{"path": str(data), "repeat": 2}], "validation": [{"path": str(data)}], "threads": 0},
        "batch": 12,
        "steps": 6,
        "seed": 5,
        "optimiser": {"rate": 1e-3},
        "schedule": {"warmup": 2, "milestones": [4, 5]},
        "ema": {"snapshots": 4},
        "every": {"log": 1, "validate": 3, "metrics": 0, "snapshot": 2, "checkpoint": 2},
        "run": {"precision": "fp32", "compile": False, "device": "cpu", "tensorboard": False},
    }
    return build(FlowRecipe, merge(content, changes), "tiny")


def config_file(path: Path, recipe: FlowRecipe) -> Path:
    """The recipe as a YAML file."""
    content = json.loads(json.dumps(asdict(recipe)))
    path.write_text(yaml.safe_dump(content), encoding="utf8")
    return path


class Carrier(SampleSource):
    """A sample source that only carries the network in training to whoever looks at it."""

    name = "in-training"

    def __init__(self, network: FlowNetwork) -> None:
        self.network = network

    def produce(self, job: GenerationJob) -> Iterator[Generated]:
        """Nothing."""
        del job
        return iter(())
