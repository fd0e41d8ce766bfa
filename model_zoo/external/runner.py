"""Run a foreign generator as a child process and settle every item: a row of its own, or the reason why there is none.

The child is a process group of its own. It ends when an item or the whole job takes too long, when the harness is
interrupted, and (on Linux) when the harness dies. It holds the lock of the job folder, so that a child that outlived
its harness is found and ended before the next one starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from av_bench.contracts import Reason, UsageError, printable
from av_bench.runtime.files import write_atomically
from model_zoo.external.contract import Item, OutputRow, Request, key_of, read_result, read_row, write_lines
from model_zoo.external.process import Launch, end, locked, start

Key = tuple[str, int]

LONGEST_ROW = 1 << 20  # bytes of a row; the rest of a longer one is not read
_LOG_END = 1 << 14  # bytes of a log that are looked at
POLL = 0.05  # seconds between looks at the child
GIVE_UP = 3  # items in a row that crash or time out before the rest is given up
_DRIVER = Path(__file__).with_name("driver.py")


@dataclass(frozen=True)
class Settled:
    """What became of one item: its row, or a reason given by the harness."""

    key: Key
    row: OutputRow | None = None
    reason: Reason = Reason.GENERATOR_FAILED
    detail: str = ""


@dataclass
class DriverJob:
    """One job folder and the child that works in it."""

    folder: Path
    request: Request
    launch: Launch
    whole_list: bool = False  # rows come at the end of the list, so the clock of an item counts for all of them
    problems: list[str] = field(default_factory=list)
    seeds: dict[Key, int] = field(default_factory=dict)
    _offset: int = 0
    _rows: int = 0  # of the child that runs
    _failures: int = 0

    @property
    def output_dir(self) -> Path:
        """Where the child puts its files."""
        return Path(self.request.output_dir)

    def run(self, items: list[Item]) -> Iterator[Settled]:
        """Settle every item, each at least once; a second one for the same key takes the first one back."""
        self._prepare()
        self.seeds = {(item.id, item.k): item.seed for item in items}
        with locked(self.folder, self.launch) as lock:
            started = time.monotonic()
            pending = {(item.id, item.k): item for item in items}
            known = set(pending)
            yield from self._salvage(pending)
            while pending:
                yield from self._session(pending, known, lock, started)
            if self.problems:
                write_atomically(self.folder / "problems.json", json.dumps(self.problems, indent=1).encode())

    def _prepare(self) -> None:
        for name in ("lib", "tmp"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "problems.json").unlink(missing_ok=True)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        Path(self.request.cache_dir).mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / "lib/avbench_driver.py", _DRIVER.read_bytes())
        write_atomically(self.folder / "request.json", json.dumps(asdict(self.request), indent=1).encode())

    def _salvage(self, pending: dict[Key, Item]) -> Iterator[Settled]:
        """What an earlier harness left: ok rows whose file waits are taken, rows of items still to do are removed."""
        rows, kept = self.folder / "outputs.jsonl", []
        for line in _whole_lines(rows)[0]:
            key = key_of(line)
            with contextlib.suppress(UsageError):
                row = read_row(line, "outputs.jsonl")
                waits = row.status == "ok" and (self.output_dir / str(row.path)).is_file()
                if key in pending and waits:
                    del pending[key]
                    yield Settled(key, row)
                elif key in pending or row.status != "ok":
                    continue
                kept.append(line)
        write_atomically(rows, "".join(f"{line}\n" for line in kept).encode())
        self._offset = rows.stat().st_size

    # ------------------------------------------------------------------ one process

    def _session(self, pending: dict[Key, Item], known: set[Key], lock: int, started: float) -> Iterator[Settled]:
        """One child over what is pending; afterwards at least one item less is."""
        write_atomically(self.folder / "items.jsonl", write_lines(list(pending.values())))
        for name in ("result.json", "started.json"):
            (self.folder / name).unlink(missing_ok=True)
        os.truncate(self.folder / "outputs.jsonl", self._offset)  # a line torn by a kill
        self._rows = 0
        child = start(self.launch, self.folder, lock, self.request.network)
        clock = _Clock(self, len(pending), started)
        try:
            while True:
                running = child.poll() is None
                for settled in self._new_rows(pending, known):
                    clock.event()
                    yield settled
                late = clock.late() if running else None
                if late is not None or not running:
                    break
                time.sleep(POLL)
        finally:
            end(self.launch, child, self.folder)
        for settled in self._new_rows(pending, known):
            yield settled
        begun = self._rows > 0 or (self.folder / "started.json").exists()
        yield from self._ended(child.returncode, late, pending, begun)

    # ------------------------------------------------------------------ rows

    def _new_rows(self, pending: dict[Key, Item], known: set[Key]) -> Iterator[Settled]:
        """Whole lines that were appended since the last look."""
        lines, self._offset = _whole_lines(self.folder / "outputs.jsonl", self._offset)
        for line in lines:
            self._rows += 1
            settled = self._settled(line, pending, known)
            if settled is not None:
                pending.pop(settled.key, None)
                self._failures = 0
                yield settled

    def _settled(self, line: str, pending: dict[Key, Item], known: set[Key]) -> Settled | None:
        key = key_of(line)
        if key is None or key not in known:
            what = "an item that was not asked for" if key else "no item"
            self.problems.append(f"outputs.jsonl has a row of {what}: {line[:120]}")
            return None
        if key not in pending:
            return Settled(key, reason=Reason.DUPLICATE_STEM, detail="the model gave two rows for this sample")
        try:
            return Settled(key, read_row(line, "outputs.jsonl"))
        except UsageError as error:
            return Settled(key, detail=str(error))

    # ------------------------------------------------------------------ endings

    def _ended(self, code: int, late: str | None, pending: dict[Key, Item], begun: bool) -> Iterator[Settled]:
        """Charge what is left to somebody, or to everything."""
        if late is None and code == 0:
            self._read_result()
            yield from _all(pending, Reason.MISSING_SAMPLE, "the model ended and gave no row for it")
            return
        if late is not None:
            reason, detail = Reason.TIMEOUT, late
        else:
            reason, detail = Reason.CRASHED, f"{_ending(code)}; {self._tail()}"
        if not pending:
            self.problems.append(f"after the last item: {detail}")
        self._failures += 1
        if not begun or self._failures >= GIVE_UP or (late is not None and late.startswith("the job")):
            yield from _all(pending, reason, detail)
        elif (key := self._current(pending)) is not None:
            del pending[key]
            yield Settled(key, reason=reason, detail=detail)

    def _read_result(self) -> None:
        try:
            result = read_result(self.folder / "result.json")
        except UsageError as error:
            self.problems.append(str(error))
            return
        counted = sum(result.counters.values())
        if counted != self._rows:
            self.problems.append(f"result.json counts {counted} rows, {self._rows} were written")
        if result.exit_code != 0:
            self.problems.append(f"result.json says exit code {result.exit_code}")

    def _current(self, pending: dict[Key, Item]) -> Key | None:
        """The item that was worked on: the one the driver named (None when it has its row), else the first."""
        with contextlib.suppress(OSError):
            key = key_of((self.folder / "started.json").read_text(encoding="utf8"))
            return key if key in pending else None
        return next(iter(pending), None)

    def _tail(self) -> str:
        """The end of the log, for messages."""
        with contextlib.suppress(OSError):
            lines = _end_of(self.folder / "log.txt").decode("utf8", errors="replace").splitlines()[-4:]
            return f"log ends: {' | '.join(printable(line).strip() for line in lines if line.strip())[-400:]}"
        return "no log"


class _Clock:
    """Deadlines of one child: until the first sign of work, per item, and for the job."""

    def __init__(self, job: DriverJob, count: int, started: float) -> None:
        self.limits, self.file = job.request.limits, job.folder / "started.json"
        self.share = count if job.whole_list else 1
        self.job_started, self.last = started, time.monotonic()
        self.begun, self._stamp = False, 0

    def event(self) -> None:
        """Something was done."""
        self.begun, self.last = True, time.monotonic()

    def late(self) -> str | None:
        """What took too long, None while all is well."""
        with contextlib.suppress(OSError):
            stamp = self.file.stat().st_mtime_ns
            if stamp != self._stamp:
                self._stamp = stamp
                self.event()
        now, whole = time.monotonic(), self.limits.get("timeout_s")
        if whole is not None and now - self.job_started > whole:
            return f"the job took longer than {whole:g} s"
        allowed = (self.limits["item_s"] or 0.0) * self.share + (0.0 if self.begun else self.limits["load_s"] or 0.0)
        if now - self.last > allowed:
            return f"no sample within {allowed:g} s"
        return None


def _whole_lines(file: Path, offset: int = 0) -> tuple[list[str], int]:
    """Lines from ``offset`` on that end with a newline, and where they end; one more may be on its way."""
    if not file.exists():
        return [], offset
    lines: list[str] = []
    with file.open("rb") as handle:
        handle.seek(offset)
        while payload := handle.readline(LONGEST_ROW):
            while not payload.endswith(b"\n") and (more := handle.readline(LONGEST_ROW)):
                payload = payload[:LONGEST_ROW] + (b"\n" if more.endswith(b"\n") else b"")  # its end is not kept
            if not payload.endswith(b"\n"):
                break
            lines.append(payload[:-1].decode("utf8", errors="replace"))
            offset = handle.tell()
    return lines, offset


def _end_of(file: Path) -> bytes:
    """The last bytes of a log, however long it is."""
    with file.open("rb") as handle:
        handle.seek(max(0, handle.seek(0, os.SEEK_END) - _LOG_END))
        return handle.read(_LOG_END)


def _all(pending: dict[Key, Item], reason: Reason, detail: str) -> Iterator[Settled]:
    for key in list(pending):
        del pending[key]
        yield Settled(key, reason=reason, detail=detail)


def _ending(code: int) -> str:
    return f"ended by signal {-code}" if code < 0 else f"exit code {code}"
