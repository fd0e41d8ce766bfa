"""Every reader has a limit: what is too large, too deep or endless is refused in one line, in little memory."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from av_bench.audit import pull as pulling
from av_bench.contracts import MissingRequirement, UsageError
from av_bench.schema import load_json, load_yaml
from av_bench.weights import fetch
from av_bench.weights.load import BadWeights
from av_bench.weights.lock import LockEntry, load_lock
from model_zoo.external.contract import key_of, read_row
from model_zoo.external.runner import LONGEST_ROW, DriverJob, _whole_lines
from protocols.lists.sources import ListFile

ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.yaml", ALIASES, "aliases are not read"),
        ("a.yaml", "[" * 5_000, "cannot be read as YAML|not YAML|nested"),
        ("a.yaml", "a: " + "[" * 100 + "]" * 100, "nested more than 64 levels"),
        ("a.json", "[" * 100_000, "not JSON"),
        ("a.json", "[" * 100 + "]" * 100, "nested more than 64 levels"),
        ("a.json", '{"a": ' + "1" * 10_000 + "}", "not JSON"),
        ("a.json", " " * (17 << 20), "at most 16,777,216"),
    ],
)
def test_documents_are_bounded(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    started = time.process_time()
    with pytest.raises(UsageError, match=said):
        (load_yaml if name.endswith("yaml") else load_json)(tmp_path / name)
    assert time.process_time() - started < 20


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_no_document_and_no_table(tmp_path: Path) -> None:
    from protocols.definitions import SetRequest, load_set
    from protocols.readers.read import read_clips

    os.mkfifo(tmp_path / "a.yaml")
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(UsageError, match="not a file"):
        load_yaml(tmp_path / "a.yaml")
    with pytest.raises(UsageError, match="not a file"):
        read_clips(load_set("clips"), SetRequest(data=tmp_path, table=tmp_path / "a.csv"))


# --------------------------------------------------------------------------- children


def test_rows_of_a_child_are_read_up_to_a_limit(tmp_path: Path) -> None:
    rows = tmp_path / "outputs.jsonl"
    rows.write_bytes(b'{"a": 1}\n' + b"x" * (5 * LONGEST_ROW) + b'\n{"b": 2}\n{"torn')
    lines, offset = _whole_lines(rows)
    assert [len(line) for line in lines] == [8, LONGEST_ROW, 8]
    assert rows.read_bytes()[offset:] == b'{"torn'
    assert _whole_lines(rows, offset) == ([], offset)
    with rows.open("ab") as handle:
        handle.write(b'"}\n')
    assert _whole_lines(rows, offset)[0] == ['{"torn"}']


def test_a_row_nested_too_deep_names_no_item() -> None:
    assert key_of("[" * 100_000) is None
    assert key_of('{"id": "a", "k": 0, "x": ' + "[" * 100_000) is None
    with pytest.raises(UsageError, match="not JSON"):
        read_row("[" * 100_000, "outputs.jsonl")


def test_a_log_of_gigabytes_costs_its_end(tmp_path: Path) -> None:
    job = DriverJob.__new__(DriverJob)
    job.folder = tmp_path
    with (tmp_path / "log.txt").open("wb") as log:
        log.truncate(4 << 30)  # a hole: no disk is used
        log.seek(0, os.SEEK_END)
        log.write(b"\nlast \x1b[31mwords\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert job._tail().endswith(r"last \x1b[31mwords")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


# --------------------------------------------------------------------------- downloads


class Endless(BaseHTTPRequestHandler):
    """Sends in chunks until the client hangs up, and never says how much it will be."""

    protocol_version = "HTTP/1.1"
    sent: ClassVar[int] = 0

    def log_message(self, *args: object) -> None:
        """Keep the test output clean."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        block = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." + bytes(1 << 20)
        for _ in range(200):
            self.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
            Endless.sent += len(block)


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """The client hangs up."""


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("AV_BENCH_OFFLINE", raising=False)
    server = _Quiet(("127.0.0.1", 0), Endless)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    Endless.sent = 0
    yield f"http://127.0.0.1:{server.server_address[1]}/net.pth"
    server.shutdown()
    server.server_close()


def entry_of(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **more: object) -> LockEntry:
    lines = "".join(f"    {key}: {value}\n" for key, value in more.items())
    (tmp_path / "lock.yaml").write_text(
        f"files:\n  net:\n    file: net.pth\n    url: {address}\n    licence: MIT\n    needed_by: [x]\n{lines}"
    )
    monkeypatch.setenv("AV_BENCH_WEIGHTS_LOCK", str(tmp_path / "lock.yaml"))
    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path / "home"))
    entry = load_lock()["net"]
    entry.path.parent.mkdir(parents=True)
    return entry


@pytest.mark.parametrize("more", [{"bytes": 1 << 20}, {}])
def test_a_download_that_does_not_end_is_ended(
    endless: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, object]
) -> None:
    entry = entry_of(endless, tmp_path, monkeypatch, sha256="a" * 64, **more)
    monkeypatch.setattr(fetch, "LARGEST", 4 << 20)
    part = entry.path.with_name("net.part")
    with pytest.raises(BadWeights, match="sends more than"):
        fetch.download(entry, part, None)
    assert not part.exists()
    assert Endless.sent < 100 << 20


def test_a_download_leaves_room_on_the_disk(endless: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = entry_of(endless, tmp_path, monkeypatch, sha256="a" * 64)
    free = fetch.RESERVE + (3 << 20)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: fetch.shutil._ntuple_diskusage(free, 0, free))
    with pytest.raises(BadWeights, match=r"sends more than 3\.\d MB"):
        fetch.download(entry, entry.path.with_name("net.part"), None)


def test_a_list_that_does_not_end_is_ended(endless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "LARGEST_TABLE", 4 << 20)
    with pytest.raises(MissingRequirement, match="sends more than 4,194,304 bytes"):
        pulling._fetch(endless)
    assert Endless.sent < 100 << 20


def test_lists_are_not_pulled_offline(endless: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AV_BENCH_OFFLINE", "1")
    item = ListFile("a/b", "list.csv", "0" * 40, "list.csv.gz", "0" * 64, 1, "MIT")
    with pytest.raises(MissingRequirement, match="AV_BENCH_OFFLINE forbids the network"):
        pulling.pull(tmp_path, item)
    with pytest.raises(MissingRequirement, match="AV_BENCH_OFFLINE forbids the network"):
        pulling._fetch(endless)
    assert Endless.sent == 0
    assert not list(tmp_path.iterdir())
