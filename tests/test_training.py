"""`av-bench train` for MMAudio: what the command hands to the training loop."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from av_bench import training
from av_bench.contracts import UsageError
from model_zoo.mmaudio.dataset import FeatureSet
from tests.model_zoo.mmaudio.training_tools import tiny_recipe


def config(folder: Path) -> Path:
    recipe = tiny_recipe(folder)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(recipe)))))
    return path


def audit_of(ids: list[str], path: Path) -> Path:
    findings = [
        {"clip": i, "id": i, "train_list": "t", "test": {"file": "a", "line": 1}, "train": {"file": "b", "line": 1}}
        for i in ids
    ]
    content = {"version": 1, "kind": "lists", "rule": "id", "overlapping": ids, "findings": findings}
    path.write_text(json.dumps(content))
    return path


def test_an_audits_training_side_is_left_out(tmp_path: Path) -> None:
    file = config(tmp_path)
    ids = FeatureSet(str(tmp_path / "features")).ids
    audit = audit_of(list(ids[:4]), tmp_path / "audit.json")
    weights = training.train_mmaudio(str(file), out=tmp_path / "run", exclude=audit, quiet=True)
    assert (weights / "last.safetensors").is_file()
    written = json.loads((tmp_path / "run/recipe.json").read_text())
    assert written["samples"] == 2 * (len(ids) - 4)
    assert (tmp_path / "run/excluded.txt").read_text().split() == sorted(ids[:4])


def test_a_file_that_is_no_audit_is_refused_before_work(tmp_path: Path) -> None:
    (tmp_path / "audit.json").write_text("{}")
    with pytest.raises(UsageError, match="not an audit file"):
        training.train_mmaudio("small_16k", out=tmp_path / "run", exclude=tmp_path / "audit.json")
    with pytest.raises(UsageError, match="small_16k"):
        training.train_mmaudio("smal_16k", out=tmp_path / "run")
