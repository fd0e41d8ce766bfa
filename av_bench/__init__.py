"""av-bench: evaluation and benchmark suite for video-to-audio generation.

>>> import av_bench
>>> result = av_bench.run(set="impacts", model="shuffled", limit=64)   # doctest: +SKIP
>>> print(av_bench.table([result.path]))                               # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from av_bench.contracts import DEFAULT_SEED, Flavour

if TYPE_CHECKING:
    import pandas as pd

    from av_bench.pipeline.plan import RunResult
    from av_bench.results.compare_clips import Comparison
    from av_bench.results.gate import Paths, Verdict

__all__ = ["compare", "frame", "gate", "run", "table"]


def run(
    *,
    set: str,  # noqa: A002
    model: str | None = None,
    samples: Path | str | None = None,
    label: str | None = None,
    data: Path | str | None = None,
    table: Path | str | None = None,
    lists: Path | str | None = None,
    out: Path | str | None = None,
    limit: int | None = None,
    seed: int = DEFAULT_SEED,
    samples_per_clip: int = 1,
    flavour: Flavour | None = None,
    protocol: str | None = None,
    seconds: float | str | None = None,
    pattern: str | None = None,
    metrics: str | Sequence[str] | None = None,
    device: str = "cpu",
    devices: str | None = None,
    engine: str | None = None,
    address: str | None = None,
    shard: str | None = None,
    workers: int | None = None,
    one_network: bool = False,
    offline: bool = False,
    min_coverage: float = 1.0,
    store: Path | str | None = None,
    reference: Path | str | None = None,
    dedup: Path | str | None = None,
    videos: bool | None = None,
    quiet: bool = False,
) -> RunResult:
    """Generate (or take) samples for a set, score them, and record all of it in a run folder.

    Args:
        set: name of a set (`av-bench list sets`) or a YAML file.
        model: name of a model with its options, e.g. ``oracle:shift=0.4``; or give ``samples``.
        samples: folder of generated files named after the clip ids.
        label: name of the row in tables.
        data: folder of the set's videos.
        table: table of id, file, text, label, onsets.
        lists: folder (or file) of the set's list files.
        out: run folder; by default ``runs/SET-MODEL-HASH``. A folder with a part of the same run is resumed.
        limit: only the first clips by id.
        seed: seed of generation.
        samples_per_clip: samples per clip, averaged per clip.
        flavour: ``paper`` or ``strict``; by default the protocol's.
        protocol: name of a protocol or a YAML file; by default the set's.
        seconds: that are scored: a number, ``shortest`` or ``whole`` (each clip's own); by default the protocol's.
        pattern: how the files of ``samples`` are named, e.g. ``pred_{id}.wav`` or ``{id}/audio.wav``.
        metrics: only these, as a sequence or separated by commas; ``+NAME`` adds an optional one.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        devices: several, each with a process of its own: ``cuda:0,cuda:1``, ``cuda`` (all), ``cpu:4``.
        engine: ``ray`` for actors of a Ray cluster in place of processes of this machine.
        address: of the Ray cluster; by default the one that is found, else one on this machine.
        shard: ``i/n``, from 0: only the i-th of n parts of the list, without scores; ``av-bench merge`` scores them.
        workers: decoding threads; by default one per core.
        one_network: hold one network in memory at a time.
        offline: never touch the network during this run.
        min_coverage: share of clips that must be scored, else the exit code is 3.
        store: feature store; by default in the cache folder.
        reference: reference pack (`av-bench stats`) in place of the reference audio.
        dedup: overlap file of `av-bench audit`: scores the clean subset too.
        videos: write an mp4 of each sample to watch; by default for models that generate.
        quiet: no progress on stderr.

    Returns:
        The run folder, its scores, and the exit code: 0, or 3 when fewer clips than ``min_coverage`` were scored.

    Raises:
        UsageError, MissingRequirement, MetricError: see ``av_bench.contracts``.
    """
    from av_bench.pipeline.plan import RunOptions
    from av_bench.pipeline.shard import run as run_pipeline

    names = metrics.split(",") if isinstance(metrics, str) else metrics
    return run_pipeline(
        RunOptions(
            set=set,
            model=model,
            samples=_path(samples),
            label=label,
            data=_path(data),
            table=_path(table),
            lists=_path(lists),
            out=_path(out),
            limit=limit,
            seed=seed,
            samples_per_clip=samples_per_clip,
            flavour=flavour,
            protocol=protocol,
            seconds=None if seconds is None else str(seconds),
            pattern=pattern,
            metrics=None if names is None else tuple(name.strip() for name in names),
            device=device,
            devices=devices,
            engine=engine,
            address=address,
            shard=shard,
            workers=workers,
            one_network=one_network,
            offline=offline,
            min_coverage=min_coverage,
            store=_path(store),
            reference=_path(reference),
            dedup=_path(dedup),
            videos=videos,
            quiet=quiet,
        )
    )


def _path(value: Path | str | None) -> Path | None:
    return None if value is None else Path(value)


def table(paths: Sequence[Path | str], form: str = "markdown", *, allow_different_n: bool = False) -> str:
    """Run folders -> a table as text; ``form`` is markdown, latex, csv or html. A notebook shows it as a table."""
    from reports.build import tables
    from reports.notebook import TableText

    return TableText.of(tables(paths, allow_different_n=allow_different_n), form)


def frame(paths: Sequence[Path | str], per: str = "run") -> pd.DataFrame:
    """Run folders -> a pandas frame: one row per run and metric, or with ``per="clip"`` per run, clip and metric."""
    from av_bench.results.frame import frame as frame_of_runs

    return frame_of_runs(paths, per)


def gate(new: Paths, against: Paths, rules: Path | str | None = None) -> Verdict:
    """A run, or runs of several seeds, against a baseline; ``.passed`` and ``.checks`` of the verdict say the rest."""
    from av_bench.results.gate import gate as gate_runs

    return gate_runs(new, against, rules)


def compare(a: Paths, b: Paths, *, alpha: float = 0.05, most: int = 5) -> Comparison:
    """Two models clip by clip: ``.frame()`` has a row per metric, ``.clips()`` one per metric and clip."""
    from av_bench.results.compare_clips import compare_runs

    return compare_runs(a, b, alpha=alpha, most=most)
