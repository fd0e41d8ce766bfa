"""Processes and their surroundings: children that run away, Ctrl-C, closed streams, full disks, no home."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import typer

from av_bench.cli import process
from av_bench.contracts import MetricError, MissingRequirement, PluginError, UsageError
from av_bench.results.record import RunFolder
from av_bench.runtime import interrupt
from av_bench.runtime.files import atomic_path, explained, home, write_atomically
from av_bench.runtime.progress import Stage
from model_zoo.external.process import Launch, end, locked, start
from tests.conftest import ROOT

linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

RUNAWAY = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:  # a daemon: its parent is gone, its group and session are its own
        open("daemon.pid.part", "w").write(str(os.getpid()))
        os.rename("daemon.pid.part", "daemon.pid")
        time.sleep(600)
    os._exit(0)
while not os.path.exists("daemon.pid"):
    time.sleep(0.01)
time.sleep(float(sys.argv[1]))
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@linux
@pytest.mark.parametrize("lives", ["600", "0"])
def test_what_a_child_left_behind_ends_with_the_job(tmp_path: Path, lives: str) -> None:
    """Also what left its session, and also when the child itself has ended already."""
    launch = Launch((sys.executable, "-c", RUNAWAY, lives))
    with locked(tmp_path, launch) as lock:
        child = start(launch, tmp_path, lock, network=False)
        deadline = time.monotonic() + 60
        while not (tmp_path / "daemon.pid").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        daemon = int((tmp_path / "daemon.pid").read_text())
        assert alive(daemon)
        if lives == "0":
            child.wait()
        end(launch, child, tmp_path)
        assert not alive(daemon)


@linux
def test_what_an_earlier_harness_left_behind_ends_when_the_job_goes_on(tmp_path: Path) -> None:
    """A daemon that holds the lock of a job whose harness was killed."""
    launch = Launch((sys.executable, "-c", RUNAWAY, "0"))
    handle = os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT)
    with locked(tmp_path, launch) as lock:
        start(launch, tmp_path, lock, network=False).wait()
    os.close(handle)
    daemon = int((tmp_path / "daemon.pid").read_text())
    assert alive(daemon)
    with locked(tmp_path, launch):
        assert not alive(daemon)


# --------------------------------------------------------------------------- endings


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("no such set"), 2, "no such set"),
        (MetricError("undefined"), 2, "undefined"),
        (MissingRequirement("get it"), 4, "get it"),
        (PluginError("metric x"), 5, "metric x"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/run/scores.json"), 4, "/data/run/scores.json"),
        (MemoryError("18 GB"), 4, "out of memory (18 GB); use fewer --workers"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command to resume"),
        (RuntimeError("boom\x1b[31m"), 5, "unexpected RuntimeError: this is a fault of av-bench"),
        (AssertionError(), 5, "unexpected AssertionError"),
        (RecursionError("deep"), 5, "unexpected RecursionError"),
    ],
)
def test_every_error_has_its_exit_code_and_a_line(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise error

    with pytest.raises(SystemExit) as done:
        process.run_command(command)
    assert done.value.code == code
    shown = capsys.readouterr().err
    assert "\x1b" not in shown
    assert shown.splitlines()[-1].startswith("av-bench: ")
    assert said in shown.splitlines()[-1]
    assert ("Traceback" in shown) == (code == 5 and not isinstance(error, PluginError))
    if "Traceback" in shown:
        assert "Please report it" in shown


def test_a_signal_that_ends_a_command_of_the_app_gives_75(capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()  # which has ends of its own for what a command raises

    @app.command()
    def command() -> None:
        with interrupt.stoppable():
            signal.raise_signal(signal.SIGTERM)
            interrupt.check()

    with pytest.raises(SystemExit) as done:
        process.run_command(lambda: app(args=[]))
    assert done.value.code == 75
    assert "stopped by SIGTERM; what is finished is on disk" in capsys.readouterr().err


def test_exit_codes_of_commands_pass() -> None:
    for code in (0, 1, 3):
        with pytest.raises(SystemExit) as done:
            process.run_command(lambda code=code: sys.exit(code))  # type: ignore[misc]
        assert done.value.code == code


RUN = "import sys\nfrom av_bench.cli.process import run_command\ndef command():\n    {body}\nrun_command(command)\n"


def script(body: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN.format(body=body)],
        text=True,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        **options,  # type: ignore[call-overload]
    )


def test_a_reader_that_goes_away_does_not_change_the_exit_code() -> None:
    read, write = os.pipe()
    os.close(read)
    done = script("print('x' * 100_000); print('y' * 100_000); sys.exit(3)", stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (3, "")


def test_a_closed_standard_output_does_not_change_the_exit_code(tmp_path: Path) -> None:
    body = "print('x → \\\\udc80'); sys.exit(3)"
    (tmp_path / "a.py").write_text(RUN.format(body=body))
    command = ["sh", "-c", f"{sys.executable} {tmp_path}/a.py >&-"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (3, "")


# --------------------------------------------------------------------------- Ctrl-C


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT as in the foreground: whoever started the tests may have it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_that_a_decoder_swallowed_ends_the_work_at_the_next_item() -> None:
    stage = Stage("decode", 10, quiet=True)
    with interrupt.remembered():
        stage.advance()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)  # C code would drop this exception
        with pytest.raises(KeyboardInterrupt):
            stage.advance()
    with interrupt.remembered():
        stage.advance()  # forgotten with the command it was meant for
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_command_in_the_background_keeps_ignoring_ctrl_c() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupt.remembered():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_says_how_to_go_on() -> None:
    body = "import os, signal, time\n    from av_bench.cli.app import app\n    "
    body += "app.command('wait')(lambda: (os.kill(os.getpid(), signal.SIGINT), time.sleep(5)))\n    "
    body += "sys.argv = ['av-bench', 'wait']\n    app()"
    foreground = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # whoever started the tests may have it ignored
    done = script(body, stdout=subprocess.DEVNULL, preexec_fn=foreground)
    assert done.returncode == 130
    assert done.stderr == "av-bench: interrupted; run the same command to resume\n"


# --------------------------------------------------------------------------- disks and homes


def test_a_full_disk_is_said_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = tmp_path / "scores.json"
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space") as found:
        write_atomically(target, b"x")
    assert found.value.filename == str(target)
    assert explained(found.value).startswith(f"{target}: No space left on device; make room there")
    for said in (
        "Error while serializing: I/O error: No space left on device (os error 28)",
        "[Errno 28] No space left on device",
    ):
        with pytest.raises(OSError, match="No space") as found, atomic_path(target):
            raise RuntimeError(said)
        assert found.value.filename == str(target)
    with pytest.raises(RuntimeError, match="other"), atomic_path(target):
        raise RuntimeError("other")
    assert not list(tmp_path.iterdir())


def test_a_ledger_on_a_full_disk_is_said_with_its_file() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    folder = RunFolder(Path("/dev"))
    folder._ledger.path = full
    with pytest.raises(OSError, match="No space") as found:
        folder.log("a", "generate")
    assert found.value.filename == "/dev/full"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOTDIR])
def test_a_cache_folder_that_cannot_be_used_gives_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path / "home"))
    for path in (tmp_path / "home/store/x", tmp_path / "home", tmp_path):
        assert "set AV_BENCH_HOME (or --store)" in explained(OSError(number, os.strerror(number), str(path)))
    other = OSError(number, os.strerror(number), str(tmp_path / "elsewhere/run"))
    assert "AV_BENCH_HOME" not in explained(other)


def test_no_home_at_all_gives_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("AV_BENCH_HOME")
    monkeypatch.setattr(
        Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("Could not determine home directory."))
    )
    with pytest.raises(MissingRequirement, match="set AV_BENCH_HOME to one that can be written"):
        home()
    monkeypatch.setenv("AV_BENCH_HOME", "~no-such-user/x")
    with pytest.raises(MissingRequirement, match="set AV_BENCH_HOME"):
        home()


def test_a_limit_of_nothing_is_refused_before_anything_is_rendered(tmp_path: Path) -> None:
    from av_bench.pipeline.make_pack import make_pack
    from protocols.definitions import SetRequest

    for limit in (0, -1):
        with pytest.raises(UsageError, match="--limit must be at least 1"):
            SetRequest(limit=limit)
        with pytest.raises(UsageError, match="--limit must be at least 1"):
            make_pack("impacts", tmp_path / "pack", tmp_path / "set", None, None, None, limit, True, "cpu")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_a_stream_is_not_a_failed_gate() -> None:
    with Path("/dev/full").open("wb") as full:
        done = script("print('x'); sys.exit(0)", stdout=full)
        assert done.returncode == 4
        assert done.stderr.startswith("av-bench: standard output: No space left on device")
        text = RUN.format(body="from av_bench.contracts import UsageError; raise UsageError('no such set')")
        assert subprocess.run([sys.executable, "-c", text], stderr=full, env=ENVIRONMENT).returncode == 2


def test_a_file_in_the_place_of_a_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(FileExistsError) as found:
        (tmp_path / "run").mkdir()
    assert "there is a file where a folder is needed" in explained(found.value)
