"""Plans of runs: everything that decides a number names the run, and nothing else does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from av_bench.pipeline.plan import RunOptions, RunPlan
from av_bench.pipeline.prepare import make_plan
from av_bench.runtime.progress import Reporter


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of videos; planning looks at their names only."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.mp4").touch()
    return folder


def plan(data: Path, **options: Any) -> RunPlan:
    return make_plan(RunOptions(**{"set": "clips", "model": "silence", "data": data} | options), Reporter(quiet=True))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"samples_per_clip": 2},
        {"flavour": "paper"},
        {"limit": 2},
        {"model": "noise"},
        {"protocol": "greatest_hits-8s"},
    ],
)
def test_what_decides_a_number_gives_the_run_another_name(data: Path, change: dict[str, Any]) -> None:
    first, other = plan(data), plan(data, **change)
    assert other.spec.digest != first.spec.digest
    assert other.folder.path != first.folder.path


def test_so_do_the_version_of_a_protocol_and_the_overlaps(data: Path, tmp_path: Path) -> None:
    first = plan(data)
    text = Path(str(first.protocol.source)).read_text()
    assert f"version: {first.protocol.version}" in text.replace("'", "").replace('"', "")
    newer = tmp_path / "newer.yaml"
    lines = ["version: '99'" if line.startswith("version:") else line for line in text.splitlines()]
    newer.write_text("\n".join(lines))
    other = plan(data, protocol=str(newer))
    assert other.protocol.name == first.protocol.name
    assert other.spec.digest != first.spec.digest
    audit = {"version": 1, "test": "clips", "train": [], "rule": "id", "overlapping": ["a"], "findings": []}
    names = set()
    for overlapping in (["a"], ["b"]):
        (tmp_path / "audit.json").write_text(json.dumps(audit | {"overlapping": overlapping}))
        names.add(plan(data, dedup=tmp_path / "audit.json").spec.digest)
    assert len(names | {first.spec.digest}) == 3


@pytest.mark.parametrize(
    "change", [{"metrics": ("KL-nano",)}, {"workers": 1}, {"one_network": True}, {"quiet": True}, {"min_coverage": 0.5}]
)
def test_how_the_work_is_done_does_not(data: Path, change: dict[str, Any]) -> None:
    assert plan(data, **change).spec.digest == plan(data).spec.digest


def test_a_label_names_the_folder_and_not_the_spec(data: Path) -> None:
    first, named = plan(data), plan(data, label="my model/2")
    assert named.spec == first.spec
    assert named.folder.path == Path("runs") / f"clips-my_model_2-{first.spec.digest}"


def test_metrics_are_chosen_by_name_and_added_with_a_plus(data: Path) -> None:
    usual = [metric.name for metric in plan(data).measurement.metrics]
    assert usual == list(plan(data).protocol.metrics)
    optional = next(iter(plan(data).protocol.optional))
    added = [metric.name for metric in plan(data, metrics=(f"+{optional}",)).measurement.metrics]
    assert sorted(added) == sorted([*usual, optional])
    assert [m.name for m in plan(data, metrics=(usual[1],)).measurement.metrics] == [usual[1]]
    both = [m.name for m in plan(data, metrics=(usual[1], f"+{optional}")).measurement.metrics]
    assert sorted(both) == sorted([usual[1], optional])
