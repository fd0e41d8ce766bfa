"""Ray actors on a local cluster of two CPUs: the same results as here, whatever dies. Skipped where Ray is absent."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from av_bench.contracts import MediaError, MissingRequirement, Reason
from av_bench.engines.contract import Local
from av_bench.engines.ray_actors import RayActors
from av_bench.runtime import interrupt
from tests.engines.test_processes import done, parts
from tests.engines.toys import Shout, Words

ray = pytest.importorskip("ray", reason='Ray is not here (pip install "av-bench[ray]")')


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Two CPUs of this machine; workers find the tests' own modules."""
    paths = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error",
        runtime_env={"env_vars": paths},
    )  # fmt: skip
    yield
    ray.shutdown()


def test_actors_do_what_this_process_does(tmp_path: Path) -> None:
    texts = ("a b", "c", "d e f")
    here = done(Local[Words, str]("cpu"), tmp_path, *texts)
    assert done(RayActors[Words, str](("cpu", "cpu")), tmp_path, *texts) == here


def test_an_actor_that_is_killed_loses_no_clip(tmp_path: Path) -> None:
    words, lost = done(RayActors[Words, str](("cpu", "cpu")), tmp_path, "a once:x b", "c", "d")
    assert (words, lost) == ({"A", "ONCE:X", "B", "C", "D"}, [])


def test_the_clip_that_kills_its_actor_is_found_and_reported(tmp_path: Path) -> None:
    words, lost = done(RayActors[Words, str](("cpu",)), tmp_path, "a die:x b")
    assert words == {"A", "B"}
    assert [(found.part.clips, found.reason) for found in lost] == [(("die:x",), Reason.CRASHED)]


def test_a_part_that_fills_the_memory_is_halved_and_other_errors_are_raised(tmp_path: Path) -> None:
    words, lost = done(RayActors[Words, str](("cpu",)), tmp_path, "a fill:x b")
    assert words == {"A", "B"}
    assert [(found.part.clips, found.reason) for found in lost] == [(("fill:x",), Reason.OUT_OF_MEMORY)]
    with pytest.raises(MediaError, match="no word in it"):
        done(RayActors[Words, str](("cpu",)), tmp_path, "break:x")


def test_a_signal_ends_the_run(tmp_path: Path) -> None:
    """Ray replaces the handler of SIGTERM when it is imported and started; SIGUSR1 is left alone."""
    events = RayActors[Words, str](("cpu",)).run(Shout(tmp_path), parts("a slow:x slow:y slow:z"))
    with interrupt.stoppable():
        assert next(events) == "A"
        signal.raise_signal(signal.SIGUSR1)
        with pytest.raises(interrupt.Stopped, match="SIGUSR1"):
            list(events)


def test_more_actors_than_the_cluster_can_ever_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingRequirement, match="3 actors need a CPU each, the cluster has 2"):
        done(RayActors[Words, str](("cpu",) * 3), tmp_path, "a", "b", "c")
