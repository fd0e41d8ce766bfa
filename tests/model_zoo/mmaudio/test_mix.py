"""The mix: every copy once an epoch, the same samples and noise for any number of processes and threads."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from av_bench.audit.formats import FORMATS
from av_bench.audit.lists import read_list
from av_bench.contracts import UsageError
from model_zoo.mmaudio.features.read import FeatureSet
from model_zoo.mmaudio.training.exclusion import Exclusion, parts
from model_zoo.mmaudio.training.mix import Batch, Dropout, Loader, Mix, Source, draw
from tests.model_zoo.mmaudio.training_tools import SHAPES, folder

NAMES = ("mean", "std", "clip", "sync", "text", "video", "has_text")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureSet, FeatureSet]:
    root = tmp_path_factory.mktemp("features")
    return FeatureSet(folder(root / "a", 12)), FeatureSet(folder(root / "b", 30, video=False, seed=1))


def mix(sets: tuple[FeatureSet, FeatureSet], seed: int = 3, **first: object) -> Mix:
    return Mix([(Source("a", **first), sets[0]), (Source("b"), sets[1])], SHAPES, seed)  # type: ignore[arg-type]


def rows_of(batches: list[Batch]) -> set[tuple[bytes, ...]]:
    """What each sample of the batches is, whatever the order."""
    found = set()
    for batch in batches:
        for n in range(len(batch)):
            values = [getattr(batch.rows, name)[n] for name in NAMES]
            values += [batch.eps[n], batch.noise[n], batch.t[n], batch.drop_video[n], batch.drop_text[n]]
            found.add(tuple(v.numpy().tobytes() for v in values))
    return found


def test_an_epoch_holds_every_copy_once_and_epochs_differ(sets: tuple[FeatureSet, FeatureSet]) -> None:
    repeated = mix(sets, repeat=5)
    assert len(repeated) == 5 * 12 + 30
    assert repeated.steps_per_epoch(9) == 10
    epochs = [np.concatenate([repeated.chosen(step, 9) for step in range(e * 10, e * 10 + 10)]) for e in range(2)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(90))
    assert not np.array_equal(*epochs)
    counted = Counter(zip(repeated._source[epochs[0]], repeated._row[epochs[0]], strict=True))
    assert set(counted.values()) == {5, 1}


@pytest.mark.parametrize("world", [2, 3, 6])
def test_processes_share_the_batch_of_one(sets: tuple[FeatureSet, FeatureSet], world: int) -> None:
    one = mix(sets)
    for step in (0, 5, 30):
        whole = rows_of([one.batch(step, 12, Dropout())])
        parts = [one.batch(step, 12, Dropout(), rank, world) for rank in range(world)]
        assert len(whole) == 12
        assert rows_of(parts) == whole


def test_a_batch_is_a_function_of_seed_and_step(sets: tuple[FeatureSet, FeatureSet]) -> None:
    first, second = mix(sets), mix(sets)
    for step in range(8):  # the first has walked here, the second jumps
        expected = first.batch(step, 6, Dropout())
    assert rows_of([second.batch(7, 6, Dropout())]) == rows_of([expected])
    assert rows_of([mix(sets, seed=4).batch(7, 6, Dropout())]).isdisjoint(rows_of([expected]))
    with_threads = Loader(lambda step: first.batch(step, 6, Dropout()), threads=2)
    for step in range(8):
        assert rows_of([with_threads(step)]) == rows_of([first.batch(step, 6, Dropout())])
    with_threads.close()


def test_missing_modalities_are_dropped_and_hidden_ones_too(sets: tuple[FeatureSet, FeatureSet]) -> None:
    none = Dropout(0.0, 0.0)
    plain = mix(sets).fixed(0, 42)
    assert torch.equal(plain.drop_video, ~plain.rows.video)
    assert torch.equal(plain.drop_text, ~plain.rows.has_text)
    assert 0 < int(plain.drop_text.sum()) < 42
    hidden = mix(sets, video=False, text=False).batch(0, 42, none)
    owner = [name in {"0"} for name in map(str, mix(sets)._source[np.sort(mix(sets).chosen(0, 42))])]
    assert sum(owner) == 12
    assert int(hidden.drop_video.sum()) == 42
    assert int(hidden.drop_text.sum()) == 12 + int((~hidden.rows.has_text[12:]).sum())


def test_random_numbers_have_their_distributions() -> None:
    draws = draw(5, (11, 1), np.arange(4000), (4, 2))
    logit = torch.logit(draws.t.double())
    for values in (draws.eps, draws.noise, logit):
        assert stats.kstest(values.flatten().numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(draws.uniform.flatten(), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(draws.uniform.T)[0, 1]) < 0.06
    assert abs(float(torch.corrcoef(torch.stack([draws.eps.flatten(), draws.noise.flatten()]))[0, 1])) < 0.03
    other = draw(5, (12, 1), np.arange(4000), (4, 2))
    assert not bool((other.noise == draws.noise).all(dim=(1, 2)).any())


def test_dropout_hits_its_rate_and_takes_modalities_independently(sets: tuple[FeatureSet, FeatureSet]) -> None:
    full = Mix([(Source("a"), sets[0])], SHAPES, 3)
    dropped = []
    for step in range(400):
        batch = full.batch(step, 12, Dropout(0.1, 0.3))
        there = batch.rows.video & batch.rows.has_text
        dropped.append(torch.stack([batch.drop_video, batch.drop_text], 1)[there])
    found = torch.cat(dropped).double()
    n = len(found)
    for column, rate in enumerate((0.1, 0.3)):
        assert stats.binomtest(int(found[:, column].sum()), n, rate).pvalue > 1e-3
    assert stats.binomtest(int(found.prod(dim=1).sum()), n, 0.03).pvalue > 1e-3


def test_smaller_share_is_a_subset(sets: tuple[FeatureSet, FeatureSet]) -> None:
    kept = {share: set(Source("b", share=share).rows(sets[1])) for share in (0.25, 0.5, 1.0)}
    assert kept[0.25] < kept[0.5] < kept[1.0]
    assert len(kept[1.0]) == 30


@pytest.mark.parametrize("bad", [{"repeat": 0}, {"share": 0.0}, {"share": 1.5}, {"crops": 0}])
def test_impossible_source_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="source x"):
        Source("x", **bad)  # type: ignore[arg-type]


def test_other_shapes_and_too_few_samples_are_refused(sets: tuple[FeatureSet, FeatureSet]) -> None:
    with pytest.raises(UsageError, match=r"clip is \(4, 12\), the network of this config wants \(5, 12\)"):
        Mix([(Source("a"), sets[0])], SHAPES | {"clip": (5, 12)}, 3)
    with pytest.raises(UsageError, match="holds 42 samples, a batch wants 64"):
        mix(sets).batch(0, 64, Dropout())


def test_excluded_recordings_are_left_out(sets: tuple[FeatureSet, FeatureSet]) -> None:
    first, _ = sets
    names = {first.ids[0], first.ids[3]}
    kept = {first.ids[row] for row in Source("x").rows(first, Exclusion(names))}
    assert kept == set(first.ids) - names
    with pytest.raises(UsageError, match="excluded names leave no sample"):
        Source("x").rows(first, Exclusion(first.ids))


@pytest.mark.parametrize(
    ("key", "inside", "outside"),
    [
        ("-abc_d_000030", ["-abc_d", "-abc_d_000030"], ["-abc_d_000040", "-abc"]),
        ("Yr1nicOVtvkQ", ["r1nicOVtvkQ", "r1nicOVtvkQ_000030", "Yr1nicOVtvkQ.wav"], ["Yr1nicOVtvk", "2H3miNoF_Z8"]),
        (
            "r1nicOVtvkQ_30000_40000",
            ["r1nicOVtvkQ", "r1nicOVtvkQ_000030"],
            ["r1nicOVtvkQ_000040", "r1nicOVtvkQ_030000"],
        ),
        ("-0nic_Vt_kQ_130", ["-0nic_Vt_kQ_000130", "Y-0nic_Vt_kQ"], ["-0nic_Vt_kQ_000013"]),
        ("r1nicOVtvkQ_0028_0038", ["r1nicOVtvkQ_000028"], ["r1nicOVtvkQ_000000"]),
        ("2015-02-16-17-08-51_denoised_thumb", ["2015-02-16-17-08-51"], ["2015-02-16-17-08-52"]),
        ("117790", ["117790"], ["11779", "117790_000000"]),
        ("dup", ["dup"], ["extra/dup", "dup_000010"]),
        ("Santa Motor", ["Santa Motor.wav"], ["Santa"]),
    ],
)
def test_a_sample_goes_by_every_way_of_writing_its_name(key: str, inside: list[str], outside: list[str]) -> None:
    for name in inside:
        assert key in Exclusion([*outside, name]), name
    assert key not in Exclusion(outside)


@pytest.mark.parametrize(
    "layout", ["vggsound", "vggsound-ms", "wavcaps-blacklist-audioset", "countix", "greatest-hits"]
)
def test_ids_are_taken_apart_as_the_audit_does(layout: str, tmp_path: Path) -> None:
    """The example of a list format, read by the audit, names the sample that has the example as its id."""
    example = FORMATS[layout].example.split(",")[-1 if layout.startswith("wavcaps") else 0].strip('[]"')
    text = {"wavcaps-blacklist-audioset": f"index,id\n0,{example}\n", "countix": f'["{example}"]\n'}
    (tmp_path / "list").write_text(text.get(layout, f"{example}\n"))
    row = read_list(tmp_path / "list", layout).rows.to_pylist()[0]
    name = f"{row['id']}_{row['start'] // 1000:06d}" if "start" in row else row["id"]
    assert Path(example).stem in Exclusion([name])
    assert parts(Path(example).stem)[0] == row["id"]


def test_what_was_left_out_is_said_and_names_that_fit_nothing_are_refused(
    sets: tuple[FeatureSet, FeatureSet], caplog: pytest.LogCaptureFixture
) -> None:
    names = [*sets[0].ids[:3], "nowhere"]
    both = [(Source("a"), sets[0]), (Source("b", share=0.25), sets[1])]
    Mix(both, SHAPES, 3, names)
    assert "source a: 3 of 12 samples left out by name" in caplog.text
    assert "source b: " in caplog.text
    assert "1 of 4 excluded names are of no training sample" in caplog.text
    with pytest.raises(UsageError, match=r"none of the 1 excluded names \(like 'nowhere'\) is that of a"):
        Mix(both, SHAPES, 3, ["nowhere"])
