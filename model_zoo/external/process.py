"""Child processes: started with a short list of variables, found again after a crash, ended with all they started."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from av_bench.contracts import UsageError
from av_bench.runtime.files import lock_handle, write_atomically

_REQUEST = "AV_BENCH_REQUEST"
_GRACE = 3.0  # seconds between asking a child to end and ending it
_KEPT = (
    *("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "CUDA_HOME"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES", "OMP_NUM_THREADS"),
    *("HF_HOME", "TORCH_HOME", "XDG_CACHE_HOME", "DOCKER_HOST"),
)


@dataclass(frozen=True)
class Launch:
    """How to start the child: argv, working folder, more environment variables, and how to end it from outside."""

    argv: tuple[str, ...]
    folder: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    stop: tuple[str, ...] | None = None  # for a container, whose processes are not children of ours


@contextlib.contextmanager
def locked(folder: Path, launch: Launch) -> Iterator[int]:
    """The lock that child and harness share (yields its handle); a child that outlived its harness is ended first."""
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        for attempt in range(100):
            if lock_handle(handle):
                break
            if attempt == 0:
                _end_orphan(folder, launch)
            time.sleep(0.1)
        else:
            raise UsageError(f"{folder}: a process of an earlier run still works here; end it and start again")
        yield handle
    finally:
        os.close(handle)


def _end_orphan(folder: Path, launch: Launch) -> None:
    if launch.stop is not None:
        subprocess.run(launch.stop, capture_output=True, timeout=60, check=False)
    with contextlib.suppress(OSError, ValueError, KeyError):
        group = int(json.loads((folder / "child.json").read_text())["group"])
        os.killpg(group, signal.SIGKILL)
    _end_marked(folder)


def start(launch: Launch, folder: Path, lock: int, network: bool) -> subprocess.Popen[bytes]:
    """Start the child in a group of its own; what it prints goes to ``log.txt``, and it holds the lock too."""
    log = (folder / "log.txt").open("ab")
    try:
        child = subprocess.Popen(
            list(launch.argv),
            cwd=launch.folder or folder,
            env=environment(launch, folder, network),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(lock,),
            preexec_fn=_die_with(os.getpid()) if sys.platform == "linux" else None,
        )
    except OSError as error:
        raise UsageError(f"{folder}: cannot start {launch.argv[0]}: {error}") from error
    finally:
        log.close()
    write_atomically(folder / "child.json", json.dumps({"group": child.pid}).encode())
    return child


def _end_marked(folder: Path) -> None:
    """Linux: end processes of a job that left its group (``setsid``, daemons), found by the job's own variable.

    Repeated until none is found, because one of them may start another meanwhile.
    """
    mark = _mark(folder).encode()
    for _ in range(10):
        found = [pid for pid in _processes() if pid != os.getpid() and mark in _variables(pid)]
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _mark(folder: Path) -> str:
    """What the environment of every process of a job holds, unless it throws its environment away."""
    return f"{_REQUEST}={folder / 'request.json'}"


def _processes() -> list[int]:
    root = Path("/proc")
    return [int(path.name) for path in root.iterdir() if path.name.isdigit()] if root.is_dir() else []


def _variables(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # gone, or somebody else's
        return []


def environment(launch: Launch, folder: Path, network: bool) -> dict[str, str]:
    """A short list of variables: no paths of ours, no tokens, no settings of this interpreter."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    offline = {} if network else {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    ours = {
        _REQUEST: str(folder / "request.json"),
        "PYTHONPATH": str(folder / "lib"),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(folder / "tmp"),
    }
    return {**kept, **offline, **ours, **launch.environment}


def end(launch: Launch, child: subprocess.Popen[bytes], folder: Path) -> None:
    """End the child and all that it started, also when it is gone already: it may have left others behind."""
    if launch.stop is not None and child.poll() is None:
        subprocess.run(launch.stop, capture_output=True, timeout=60, check=False)
    if child.poll() is None:
        _signal(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE)
    _signal(child.pid, signal.SIGKILL)
    child.wait()
    _end_marked(folder)


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _die_with(parent: int) -> Callable[[], None]:
    """Linux: the kernel ends the child when the harness dies, however that happens and however early."""

    def prepare() -> None:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the kernel was asked
            os.kill(os.getpid(), signal.SIGKILL)

    return prepare
