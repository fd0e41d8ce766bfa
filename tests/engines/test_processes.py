"""Child processes: what one that dies costs, who is at fault, and how all of them stop."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from pathlib import Path

import pytest

from av_bench.contracts import MediaError, MissingRequirement, Reason
from av_bench.engines.contract import Engine, Local, Lost
from av_bench.engines.processes import Processes
from av_bench.runtime import interrupt
from tests.engines.toys import Shout, Words


def parts(*texts: str) -> list[Words]:
    return [Words(tuple(text.split())) for text in texts]


def done(engine: Engine[Words, str], folder: Path, *texts: str) -> tuple[set[str], list[Lost[Words]]]:
    """Words that came back, and parts that were lost."""
    found = list(engine.run(Shout(folder), parts(*texts)))
    return {f for f in found if isinstance(f, str)}, [f for f in found if isinstance(f, Lost)]


def test_processes_do_what_this_one_does(tmp_path: Path) -> None:
    texts = ("a b", "c", "d e f")
    here = done(Local[Words, str]("cpu"), tmp_path, *texts)
    assert here == ({"A", "B", "C", "D", "E", "F"}, [])
    assert done(Processes[Words, str](("cpu", "cpu")), tmp_path, *texts) == here


def test_a_child_that_dies_is_started_again_and_nothing_is_lost(tmp_path: Path) -> None:
    words, lost = done(Processes[Words, str](("cpu",)), tmp_path, "a once:x b", "c")
    assert (words, lost) == ({"A", "ONCE:X", "B", "C"}, [])


def test_the_clip_that_kills_its_worker_is_found_and_reported(tmp_path: Path) -> None:
    words, lost = done(Processes[Words, str](("cpu", "cpu")), tmp_path, "a b die:x c", "d")
    assert words == {"A", "B", "C", "D"}
    assert [(found.part.clips, found.reason) for found in lost] == [(("die:x",), Reason.CRASHED)]
    assert "ended by SIGKILL" in lost[0].detail


def test_a_part_that_fills_the_memory_is_halved(tmp_path: Path) -> None:
    words, lost = done(Processes[Words, str](("cpu",)), tmp_path, "a fill:x b c")
    assert words == {"A", "B", "C"}
    assert [(found.part.clips, found.reason) for found in lost] == [(("fill:x",), Reason.OUT_OF_MEMORY)]
    assert "no room for the word" in lost[0].detail


def test_an_error_that_a_user_can_act_on_arrives_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(MediaError) as caught:
        done(Processes[Words, str](("cpu",)), tmp_path, "a break:x")
    assert (caught.value.path, caught.value.reason) == (Path("a.wav"), Reason.EMPTY)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_child_that_never_starts_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(MissingRequirement, match=r"no worker starts on broken: .* exit code 3"):
        done(Processes[Words, str](("broken",)), tmp_path, "a")


def test_a_signal_ends_all_children_after_their_clip(tmp_path: Path) -> None:
    texts = [" ".join(f"slow:{part}{i}" for i in range(40)) for part in "ab"]
    found = []

    def signal_when_working() -> None:
        while not all((tmp_path / f"{part}1").exists() for part in "ab"):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=signal_when_working)
    thread.start()
    events = Processes[Words, str](("cpu", "cpu")).run(Shout(tmp_path), parts(*texts))
    with interrupt.stoppable(), pytest.raises(interrupt.Stopped, match="SIGUSR1"):
        found.extend(events)
    thread.join()
    started = {path.name for path in tmp_path.iterdir()}
    assert {word.partition(":")[2].lower() for word in map(str, found)} == started  # every clip that began is done
    assert 4 <= len(started) < 80


def test_handlers_are_kept() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with interrupt.handlers_kept():
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGUSR1) is before
