"""The clean subset beside the full set: the same run scored without the clips that an audit marks as overlapping."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from av_bench.audit.report import load_audit
from av_bench.contracts import Clip, UsageError
from av_bench.metrics import intervals

SEED = 20241219


def overlap_hash(path: Path | None, clips: Sequence[Clip]) -> str | None:
    """sha256 of the overlap file, part of the run's spec. UsageError, before work starts, when it is not an audit or
    one of other clips."""
    if path is None:
        return None
    if not path.is_file():
        raise UsageError(f"--dedup {path}: no such file; `av-bench audit lists --json FILE` writes one")
    load_audit(path).check_names({name for clip in clips for name in (clip.id, clip.cluster)})
    return hashlib.sha256(path.read_bytes()).hexdigest()


def clean_subset(clips: Sequence[Clip], path: Path) -> tuple[Clip, ...]:
    """The clips that neither by id nor by source recording are in the overlap file."""
    names = load_audit(path).overlapping
    return tuple(c for c in clips if c.id not in names and c.cluster not in names)


def warnings(path: Path | None) -> list[str]:
    """What the overlap file of a run leaves open."""
    warning = "" if path is None else load_audit(path).warning()
    return [warning] if warning else []


def differences(full: Mapping[str, Any], clean: Mapping[str, Any], clips: Sequence[Clip]) -> dict[str, dict[str, Any]]:
    """Per metric ``clean - full``, with its interval where per-clip values exist.

    ``full`` and ``clean`` are Scores by metric. The subset is part of the set, so the two means are not independent:
    the interval resamples source recordings and takes both means each time. For FD and IS only the difference is
    given, since both also change with n.
    """
    clusters = {clip.id: clip.cluster for clip in clips}
    out: dict[str, dict[str, Any]] = {}
    for name in clean:
        if name not in full:
            continue
        entry: dict[str, Any] = {"difference": clean[name].value - full[name].value}
        if full[name].per_clip and clean[name].per_clip:
            ids = sorted(full[name].per_clip)
            values = np.array([full[name].per_clip[i] for i in ids])
            inside = np.array([i in clean[name].per_clip for i in ids], dtype=np.float64)
            # mean(clean) - mean(full) is the mean of these influence values, whose spread gives the interval
            share = inside.mean()
            influence = (values - clean[name].value) * inside / share - (values - full[name].value)
            groups = [clusters[i] for i in ids]
            if len(set(groups)) >= 2:
                low, high = intervals.cluster_bootstrap_mean(influence, groups, seed=SEED)[:2]
                entry["interval"] = [entry["difference"] + float(low), entry["difference"] + float(high)]
        out[name] = entry
    return out
