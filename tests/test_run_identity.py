"""What a run is: its definitions, its seeds, its clips. Small real runs on rendered sound, and tables made of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from typer.testing import CliRunner

import av_bench
from av_bench.cli.app import app
from av_bench.contracts import UsageError
from av_bench.metrics import frechet_distance, inception_score
from av_bench.metrics.set_scores import interval_of_effects
from av_bench.pipeline.plan import RunOptions
from av_bench.pipeline.rescore import on_common_clips
from av_bench.pipeline.seeds import run_seeds
from av_bench.results.compare import half_width
from av_bench.results.gate import gate
from av_bench.results.record import read_run
from av_bench.results.values import PSEUDO, read_values
from reports.build import tables
from reports.render import render
from tests.media_files import write_video

COUNT = 14
METRICS = {
    "FD": {"kind": "frechet", "extractor": "nano-tagger", "output": "embedding"},
    "KL": {"kind": "kl", "extractor": "nano-tagger", "output": "logits"},
    "IS": {"kind": "inception", "extractor": "nano-tagger", "output": "logits", "splits": 3},
}


def sound(rng: np.random.Generator, kind: int) -> np.ndarray:
    """8 s of clicks of one pitch over a little noise, ``(1, samples)``."""
    audio = 2e-2 * rng.standard_normal((1, 8 * 16_000)).astype(np.float32)
    ring = np.exp(-np.arange(4_000) / (200 + 100 * kind)) * np.sin(np.arange(4_000) * (0.05 + 0.04 * kind))
    for at in rng.integers(2_000, 120_000, 6):
        audio[0, at : at + 4_000] += 0.4 * ring.astype(np.float32)
    return audio


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos with sound, two sets of samples for them, and a protocol of three metrics."""
    root = tmp_path_factory.mktemp("identity")
    rng = np.random.default_rng(0)
    for folder in ("videos", "good", "bad"):
        (root / folder).mkdir()
    for i in range(COUNT):
        write_video(root / "videos" / f"c{i:02d}.mp4", seconds=8, size=48, audio=sound(rng, i % 7), sample_rate=16_000)
        soundfile.write(root / "good" / f"c{i:02d}.wav", sound(rng, i % 7)[0], 16_000)
        soundfile.write(root / "bad" / f"c{i:02d}.wav", sound(rng, (i + 3) % 7)[0], 16_000)
    write_protocol(root)
    return root


def write_protocol(root: Path, name: str = "toy.yaml", **changes: Any) -> Path:
    content = {"name": "toy", "version": "1", "seconds": 8.0, "flavour": "strict", "metrics": METRICS} | changes
    path = root / name
    path.write_text(yaml.safe_dump(content))
    return path


def run(data: Path, out: Path, **options: Any) -> Path:
    common: dict[str, Any] = {
        "set": "clips",
        "data": data / "videos",
        "protocol": str(data / "toy.yaml"),
        "quiet": True,
    }
    common |= {"store": data / "store", "out": out, "min_coverage": 0.0}
    return av_bench.run(**common | options).path


# --------------------------------------------------------------------------- pseudo-values


def test_pseudo_values_have_the_metric_as_their_mean_and_give_its_interval(data: Path, tmp_path: Path) -> None:
    found = read_run(run(data, tmp_path / "run", samples=data / "good"))
    assert found.per_clip() == {"KL"}
    for name, values in read_values(found.path / PSEUDO).items():
        entry = found.scores["metrics"][name]
        numbers = np.array(list(values.value.values()))
        assert numbers.mean() == pytest.approx(entry["value"], rel=1e-12)
        effects = (numbers - numbers.mean()) / len(numbers)
        units = [values.unit[clip] for clip in values.value]
        interval, details = interval_of_effects(entry["value"], effects, units)
        if interval is not None:
            assert entry["details"]["half_width"] == pytest.approx(details["half_width"])
            assert half_width(entry) == entry["details"]["half_width"]
    assert set(read_values(found.path / PSEUDO)["IS"].unit.values()) == {f"split {i}" for i in range(3)}


def test_a_warm_run_gives_the_same_pseudo_values(data: Path, tmp_path: Path) -> None:
    runs = [run(data, tmp_path / name, samples=data / "good") for name in "ab"]
    assert (runs[0] / PSEUDO).read_bytes() == (runs[1] / PSEUDO).read_bytes()


# --------------------------------------------------------------------------- definitions


def test_an_edited_protocol_is_refused_on_resume_and_named(data: Path, tmp_path: Path) -> None:
    path = run(data, tmp_path / "run", model="oracle")
    edited = write_protocol(data, "edited.yaml", metrics={**METRICS, "IS": {**METRICS["IS"], "splits": 4}})
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    with pytest.raises(UsageError, match=r"started with a different protocol: metrics\.IS\.splits \(4 against 3\)"):
        run(data, tmp_path / "run", model="oracle", protocol=str(edited))
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before
    longer = write_protocol(data, "longer.yaml", seconds=8.2)
    with pytest.raises(UsageError, match=r"protocol: seconds \(8\.2 against 8\.0\)"):
        run(data, tmp_path / "run", model="oracle", protocol=str(longer))


def test_prose_and_further_columns_are_no_other_definition(data: Path, tmp_path: Path) -> None:
    path = run(data, tmp_path / "run", model="oracle")
    kad = {"kind": "kernel_distance", "extractor": "nano-tagger"}
    more = write_protocol(data, "more.yaml", title="Other words", notes=["n"], metrics={**METRICS, "KAD": kad})
    run(data, tmp_path / "run", model="oracle", protocol=str(more))
    assert "KAD" in read_run(path).scores["metrics"]
    assert gate(path, run(data, tmp_path / "plain", model="oracle")).passed


def test_tables_and_gates_do_not_mix_definitions(data: Path, tmp_path: Path) -> None:
    plain = run(data, tmp_path / "plain", samples=data / "good", label="plain")
    edited = write_protocol(data, "splits.yaml", metrics={**METRICS, "IS": {**METRICS["IS"], "splits": 4}})
    other = run(data, tmp_path / "other", samples=data / "bad", label="other", protocol=str(edited))
    found = tables([plain, other])
    assert [[row.name for row in table.rows] for table in found] == [["plain"], ["other"]]
    assert "metrics.IS.splits (3 against 4)" in found[0].notes[-1]
    assert "not comparable with other" in found[0].notes[-1]
    assert "metrics.IS.splits (4 against 3)" in gate(other, plain).checks[0].detail


def test_a_folder_of_version_0_1_is_read_and_resumed(data: Path, tmp_path: Path) -> None:
    """It has no definition and no pseudo-values."""
    path = run(data, tmp_path / "run", model="oracle")
    for name in ("spec.json", "scores.json"):
        content = json.loads((path / name).read_text())
        del content["definition"]
        (path / name).write_text(json.dumps(content))
    (path / PSEUDO).unlink()
    assert render(tables([path]), "markdown")
    assert gate(run(data, tmp_path / "new", model="oracle"), path).comparable
    assert run(data, tmp_path / "run", model="oracle") == path
    assert json.loads((path / "spec.json").read_text())["definition"]["protocol"]["seconds"] == 8.0


# --------------------------------------------------------------------------- seeds


def test_seeds_are_runs_in_one_folder_and_a_baseline(data: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "set": "clips", "data": data / "videos", "protocol": str(data / "toy.yaml"), "store": data / "store",
        "quiet": True, "model": "noise", "seed": 5, "out": tmp_path / "base",
    }  # fmt: skip
    results = run_seeds(RunOptions(**options), 3)
    assert [r.path.name for r in results] == ["seed5", "seed6", "seed7"]
    values = {r.scores["metrics"]["KL"]["value"] for r in results}
    assert len(values) == 3
    new = run(data, tmp_path / "new", model="noise", seed=9)
    verdict = gate(new, tmp_path / "base")
    effect = next(c for c in verdict.checks if c.name == "KL").difference
    assert effect is not None
    assert effect.effect is not None
    assert effect.effect.seeds == (1, 3)
    assert not verdict.notes


def test_seeds_are_refused_where_they_mean_nothing(data: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"samples": data / "good"}, "generates again for every seed"),
        ({"model": "noise", "seeds": 0}, "at least 1"),
    ):
        seeds = options.pop("seeds", 2)
        with pytest.raises(UsageError, match=message):
            run_seeds(RunOptions(set="clips", data=data / "videos", out=tmp_path / "x", quiet=True, **options), seeds)
    single = run(data, tmp_path / "one", model="noise")
    with pytest.raises(UsageError, match="holds a run itself"):
        run_seeds(RunOptions(set="clips", data=data / "videos", out=single, model="noise", quiet=True), 2)


# --------------------------------------------------------------------------- common clips


@pytest.fixture
def lossy(data: Path, tmp_path: Path) -> list[Path]:
    """Two runs that lost different clips."""
    for name, lost in (("good", 2), ("bad", 5)):
        shutil.copytree(data / name, tmp_path / name)
        (tmp_path / name / f"c{lost:02d}.wav").unlink()
    return [run(data, tmp_path / f"run-{n}", samples=tmp_path / n, label=n) for n in ("good", "bad")]


def test_common_scores_every_row_on_the_same_clips(data: Path, lossy: list[Path]) -> None:
    with pytest.raises(UsageError, match="--common"):
        tables(lossy)
    common = on_common_clips(lossy, data / "store")
    (table,) = tables(common)
    assert {row.counts["scored"] for row in table.rows} == {COUNT - 2}
    text = render([table], "markdown")
    assert "12 of 14 clips scored; excluded: 1 missing-sample, 1 not scored in every row" in text
    keep = [f"c{i:02d}" for i in range(COUNT) if i not in (2, 5)]
    for found, path in zip(common, lossy, strict=True):
        features = arrays(data, path, keep)
        metrics = found.scores["metrics"]
        assert metrics["FD"]["value"] == pytest.approx(frechet_distance(features["real"], features["made"]), rel=1e-9)
        assert metrics["IS"]["value"] == pytest.approx(inception_score(features["logits"], 3)[0], rel=1e-9)
        own = read_values(path / "clips.parquet")["KL"].value
        assert metrics["KL"]["value"] == pytest.approx(np.mean([own[c] for c in keep]))
        assert {m["n"] for m in metrics.values()} == {COUNT - 2}


def test_the_command_scores_on_common_clips(data: Path, lossy: list[Path]) -> None:
    arguments = ["table", *map(str, lossy), "--common", "--store", str(data / "store")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "n = 12" in result.output


def arrays(data: Path, path: Path, keep: list[str]) -> dict[str, np.ndarray]:
    """Features of the kept clips, read from the media themselves."""
    from av_bench.extractors.nano import NanoTagger

    network = NanoTagger.build(None, device="cpu", flavour="strict")
    samples = Path(json.loads((path / "spec.json").read_text())["samples"])
    made = network.features([samples / f"{c}.wav" for c in keep], 8.0)
    real = network.features([data / "videos" / f"{c}.mp4" for c in keep], 8.0)
    return {"real": real["embedding"], "made": made["embedding"], "logits": made["logits"]}


def test_common_refuses_what_it_cannot_do(data: Path, lossy: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"features of .* are not in the store"):
        on_common_clips(lossy, tmp_path / "empty")
    edited = write_protocol(data, "other.yaml", metrics={**METRICS, "IS": {**METRICS["IS"], "splits": 4}})
    other = run(data, tmp_path / "other", samples=data / "good", protocol=str(edited))
    with pytest.raises(UsageError, match="cannot be compared"):
        on_common_clips([lossy[0], other], data / "store")
    (lossy[0] / "ledger.jsonl").write_text("{torn")
    with pytest.raises(UsageError, match="no line of it names a scored clip"):
        on_common_clips(lossy, data / "store")
    (lossy[0] / "ledger.jsonl").unlink()
    with pytest.raises(UsageError, match=r"ledger\.jsonl is missing"):
        on_common_clips(lossy, data / "store")


def test_several_samples_per_clip_have_one_interval(data: Path, tmp_path: Path) -> None:
    found = read_run(run(data, tmp_path / "run", model="noise", samples_per_clip=3))
    entry = found.scores["metrics"]["FD"]
    values = read_values(found.path / PSEUDO)["FD"].value
    assert np.mean(list(values.values())) == pytest.approx(entry["value"])
    assert entry["details"]["samples"] == 3
    low, high = entry["interval"]
    assert high - entry["value"] == pytest.approx(entry["details"]["half_width"])
    assert low < entry["value"] < high
