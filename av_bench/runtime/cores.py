"""Processor cores that this process may really use, and how many threads one piece of work gets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST = 16  # decoding scales with cores, memory with workers
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Cores of this machine, of this process's affinity, or of its cgroup's quota, whichever is least; at least 1.

    A quota of 1.5 cores counts as 1: a second thread would be stopped for half of its time.
    """
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    return max(1, own if quota is None else min(own, int(quota)))


def default_workers() -> int:
    """Threads that decode unless the user says otherwise: the usable cores, at most 16."""
    return min(MOST, usable_cores())


def cgroup_quota(root: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> float | None:
    """Cores that the cgroups of this process allow, None without a limit: the least of all groups above it."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines() if line.count(":") >= 2]
    except OSError:
        return None
    found = []
    for _, controllers, path in lines:
        if not controllers:  # version 2
            found += [_limit_v2(group / "cpu.max") for group in _upwards(root, path)]
        elif "cpu" in controllers.split(","):
            for top in (root / "cpu", root / controllers):
                found += [_limit_v1(group) for group in _upwards(top, path)]
    return min((quota for quota in found if quota is not None), default=None)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Operations of this thread, and of threads that start inside, run on ``count`` threads each.

    With more threads than free cores, small operations wait for one another at every step; one thread for each clip
    and several clips at once take the same time on an idle machine and do not collapse on a busy one.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _upwards(root: Path, path: str) -> list[Path]:
    """A group and those above it; in a container the group's own path may not be visible, its root then is."""
    group = root / path.lstrip("/")
    return [place for place in (group, *group.parents) if place == root or root in place.parents]


def _limit_v2(path: Path) -> float | None:
    try:
        quota, period = path.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _limit_v1(group: Path) -> float | None:
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text())
        return None if quota <= 0 else quota / int((group / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError, ZeroDivisionError):
        return None
