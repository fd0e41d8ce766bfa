"""Weights: the lock file, downloads from a real server with real faults, the user's own files, hashes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pickle
import pty
import random
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from typer.testing import CliRunner

from av_bench.cli.weights import app
from av_bench.contracts import MissingRequirement, UsageError
from av_bench.doctor import weights_of
from av_bench.extractors.base import BaseExtractor
from av_bench.weights import BadWeights, file_sha256, find, recorded_sha256, remembered, require
from av_bench.weights import fetch as weights_fetch
from av_bench.weights.lock import folder, get, load_lock, select
from protocols.impacts.encode import write_mp4
from tests.weights_server import CUT, Handler, serving

ROOT = Path(__file__).parents[1]
FACTS = ROOT.parent / "shared" / "facts"
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # old torch files begin with it
DATA = MAGIC + random.Random(5).randbytes(150_000)
OTHER = MAGIC + random.Random(6).randbytes(150_000)
VOCAB = b'{"a": 0, "b": 1}'
Lock = Callable[..., Path]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def server() -> Iterator[str]:
    with serving({"net.pth": DATA, "other.pth": OTHER, "vocab.json": VOCAB, "short.pth": DATA[:-7]}) as address:
        yield address


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("AV_BENCH_OFFLINE", raising=False)
    monkeypatch.delenv("AV_BENCH_WEIGHTS_LOCK", raising=False)
    monkeypatch.setattr(weights_fetch, "BACKOFF", 0.001)


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str) -> Lock:
    """Writes a lock file with one entry ``net`` (and others by keyword) and makes it the one in use."""

    def write(manner: str = "good", *, extra: dict[str, Any] | None = None, **values: Any) -> Path:
        net: dict[str, Any] = {"file": "net.pth", "url": f"{server}/{manner}/net.pth", "licence": "MIT"}
        net |= {"needed_by": ["netter"], "sha256": sha256(DATA), "bytes": len(DATA)} | values
        files = {"net": {key: value for key, value in net.items() if value is not None}} | (extra or {})
        path = tmp_path / "lock.yaml"
        path.write_text(yaml.safe_dump({"files": files}))
        monkeypatch.setenv("AV_BENCH_WEIGHTS_LOCK", str(path))
        return path

    return write


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def leftovers() -> list[str]:
    return sorted(path.name for path in folder().iterdir() if path.is_file())


# --------------------------------------------------------------------------- the lock file itself


def test_own_lock_holds_every_checkpoint_of_the_paper() -> None:
    lock = load_lock()
    flows = {f"mmaudio-{size}" for size in ("small-16k", "small-44k", "medium-44k", "large-44k", "large-44k-v2")}
    metrics = {"passt", "panns", "vggish", "imagebind", "synchformer", "laion-clap", "ms-clap"}
    assert flows | metrics <= set(lock)
    assert {name for name, entry in lock.items() if entry.non_commercial} == {
        "imagebind", "mmaudio-vae-16k", "mmaudio-vae-44k", "mmaudio-vocoder-16k", "mmaudio-empty-string", *flows
    }  # fmt: skip
    assert all(entry.url.startswith("https://") for entry in lock.values())


def test_own_lock_agrees_with_the_facts() -> None:
    if not FACTS.is_dir():
        pytest.skip("../shared/facts is absent")
    text = (FACTS / "protocol.md").read_text() + (FACTS / "mmaudio.md").read_text()
    numbers = set(re.findall(r"\b[0-9a-f]{32,64}\b|\b\d{1,3}(?:,\d{3})+\b", text))
    checked = 0
    for entry in load_lock().values():
        if entry.name == "sfx":  # a package of the registry, not of the facts: its wheel was hashed here
            continue
        stated = [entry.sha256, entry.md5, f"{entry.bytes:,}" if entry.bytes else None]
        assert {value for value in stated if value} <= numbers, entry.name
        checked += sum(value is not None for value in stated)
    assert checked >= 23


def test_documentation_names_every_entry() -> None:
    text = (ROOT / "docs" / "weights.md").read_text()
    assert [name for name in load_lock() if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("FD-PaSST", {"passt"}),
        ("laion_clap", {"laion-clap", "roberta-base-vocab", "roberta-base-merges", "roberta-base-config"}),
        (
            "MMAudio_small_16k",
            {"mmaudio-small-16k", "mmaudio-vae-16k", "mmaudio-vocoder-16k", "dfn5b-clip", "synchformer"},
        ),
        ("mmaudio-vae-16k", {"mmaudio-vae-16k"}),
    ],
)
def test_select_by_entry_extractor_or_column(name: str, expected: set[str]) -> None:
    assert {entry.name for entry in select([name])} == expected


def test_select_miss_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"Did you mean 'vggish'"):
        select(["vgish"])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"file": "../net.pth"}, "file"),
        ({"file": "/net.pth"}, "file"),
        ({"url": "file:///etc/passwd"}, "url"),
        ({"sha256": "abc"}, "sha256"),
        ({"bytes": -1}, "bytes"),
        ({"needed_by": []}, "needed_by"),
        ({"size": 3}, "size"),
        ({"licence": None}, "licence"),
        ({"extra": {"b": {"file": "net.pth", "url": "http://x/y", "licence": "MIT", "needed_by": ["a"]}}}, "same file"),
    ],
)
def test_malformed_lock_is_refused(lock: Lock, change: dict[str, Any], named: str) -> None:
    path = lock(**change)
    with pytest.raises(UsageError, match=named) as caught:
        load_lock()
    assert str(path) in str(caught.value)


# --------------------------------------------------------------------------- require, list


def test_missing_file_says_the_command_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(MissingRequirement, match="av-bench weights pull panns") as caught:
        require("panns")
    assert time.monotonic() - started < 1.0
    assert caught.value.exit_code == 4
    assert find("panns") is None


def test_list_shows_state_size_licence_and_users(lock: Lock) -> None:
    lock(non_commercial=True, licence="CC-BY-NC-4.0")
    assert re.search(r"net +missing +150\.0 kB +CC-BY-NC-4\.0 \(non-commercial\) +netter", run("list")[1])
    folder().mkdir(parents=True)
    (folder() / "net.pth.part").write_bytes(DATA[:5000])
    assert "partial, 5.0 kB" in run("list")[1]
    (folder() / "net.pth").write_bytes(DATA)
    assert re.search(r"net +present", run("list")[1])
    (folder() / "net.pth").write_bytes(DATA[:-1])
    assert "WRONG SIZE" in run("list")[1]


# --------------------------------------------------------------------------- pull


@pytest.mark.parametrize("manner", ["good", "flaky", "busy", "no-range", "no-etag"])
def test_pull_brings_the_right_bytes(lock: Lock, manner: str) -> None:
    lock(manner)
    code, output = run("pull", "netter")
    assert code == 0, output
    assert require("net").read_bytes() == DATA
    assert leftovers() == ["net.pth"]
    if manner == "flaky":
        assert [asked for _, asked in Handler.seen] == [None, *(f"bytes={CUT * i}-" for i in (1, 2, 3))]
    requests = len(Handler.seen)
    assert "already there" in run("pull", "net")[1]
    assert len(Handler.seen) == requests


@pytest.mark.parametrize(
    ("manner", "values", "told"),
    [
        ("page", {}, ["HTML page", "net.pth"]),
        ("disguised-page", {"bytes": None}, ["HTML page", "net.pth"]),
        ("missing", {}, ["404", "av-bench weights add"]),
        ("good", {"bytes": len(DATA) + 1}, [f"{len(DATA):,}", f"{len(DATA) + 1:,}", "net.pth"]),
        ("good", {"sha256": sha256(OTHER)}, [sha256(DATA), sha256(OTHER), "net.pth.rejected"]),
        ("good", {"sha256": None, "md5": "0" * 32}, ["0" * 32, hashlib.md5(DATA).hexdigest(), "net.pth.rejected"]),
        ("dead", {}, ["1,500", "continues"]),
        ("unmeasured", {"sha256": None, "bytes": None}, ["could not be noticed"]),
        ("good", {"bytes": None, "about": 10**16, "url": "SHORT"}, ["expected", sha256(DATA[:-7])]),
    ],
)
def test_pull_refuses_what_is_not_the_file(
    lock: Lock, server: str, manner: str, values: dict[str, Any], told: list[str]
) -> None:
    if values.get("url") == "SHORT":
        values = values | {"url": f"{server}/good/short.pth"}
    lock(manner, **values)
    code, output = run("pull", "net")
    assert code == 4
    assert all(part in output for part in told), output
    assert find("net") is None
    assert all(name.endswith((".rejected", ".part", ".part.json")) for name in leftovers())
    with pytest.raises(MissingRequirement):
        require("net")


def test_rejected_download_starts_anew(lock: Lock) -> None:
    lock(sha256=sha256(OTHER))
    assert run("pull", "net")[0] == 4
    assert (folder() / "net.pth.rejected").read_bytes() == DATA
    lock()
    assert run("pull", "net")[0] == 0
    assert Handler.seen[-1][1] is None


def test_part_of_an_older_version_is_never_continued(lock: Lock) -> None:
    lock("dead", sha256=None, bytes=None)
    assert run("pull", "net")[0] == 4
    assert (folder() / "net.pth.part").stat().st_size == 1500
    Handler.files["net.pth"], Handler.etag = OTHER, '"two"'
    Handler.seen.clear()
    lock("dead", sha256=None, bytes=None)
    run("pull", "net")
    assert Handler.seen[0][1] == "bytes=1500-"
    assert (folder() / "net.pth.part").read_bytes() == OTHER[:1500]


def test_one_failure_does_not_stop_the_others(lock: Lock, server: str) -> None:
    other = {"file": "o/other.pth", "url": f"{server}/good/other.pth", "licence": "MIT", "needed_by": ["netter"]}
    lock("missing", extra={"other": other})
    code, output = run("pull", "netter")
    assert (code, find("net"), require("other").read_bytes()) == (4, None, OTHER)
    assert "1 of 2 files failed: net" in output


def test_two_pulls_of_one_file_do_not_mix(lock: Lock) -> None:
    lock()
    (folder() / ".records").mkdir(parents=True)
    with (folder() / ".records" / "net.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, output = run("pull", "net")
    assert code == 4
    assert "another process" in output
    assert run("pull", "net")[0] == 0


def test_full_disk_is_noticed_before_the_download(lock: Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    lock()
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    code, output = run("pull", "net")
    assert code == 4
    assert "1.0 kB free" in output
    assert leftovers() == []


def test_killed_pull_resumes(lock: Lock) -> None:
    """Killed when all that the server has sent is in the part: it sends the rest to the next pull only."""
    lock("stalls")
    command = [sys.executable, "-m", "av_bench.cli.weights", "pull", "net"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    part = folder() / "net.pth.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > CUT // 2):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert find("net") is None
    kept = part.stat().st_size
    assert DATA.startswith(part.read_bytes())
    assert kept < len(DATA)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert Handler.seen[-1][1] == f"bytes={kept}-"
    assert require("net").read_bytes() == DATA


# --------------------------------------------------------------------------- offline

GUARD = """
import os, sys
sys.addaudithook(lambda event, _: os._exit(99) if event.startswith("socket.") else None)
from av_bench.cli.weights import app
app(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("arguments", "variable", "code"),
    [
        (["pull", "net"], "", 99),  # the guard works: an online pull dies at its first socket
        (["pull", "net", "--offline"], "", 4),
        (["pull", "net"], "1", 4),
        (["verify"], "1", 0),
        (["list"], "1", 0),
    ],
)
def test_offline_opens_no_socket(lock: Lock, arguments: list[str], variable: str, code: int) -> None:
    lock()
    done = subprocess.run(
        [sys.executable, "-c", GUARD, *arguments],
        cwd=ROOT, env=os.environ | {"AV_BENCH_OFFLINE": variable}, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert Handler.seen == []
    if code == 4:
        assert "av-bench weights pull net" in done.stderr


def test_offline_is_content_with_a_present_file(lock: Lock) -> None:
    lock()
    run("pull", "net")
    assert run("pull", "net", "--offline")[0] == 0


# --------------------------------------------------------------------------- licences


def test_non_commercial_licence_needs_consent_in_scripts(lock: Lock) -> None:
    lock(non_commercial=True, licence="CC-BY-NC-4.0")
    code, output = run("pull", "netter")
    assert code == 4
    assert "av-bench weights pull netter --accept-licence" in output
    assert "CC-BY-NC-4.0" in output
    assert Handler.seen == []
    assert run("pull", "netter", "--accept-licence")[0] == 0


@pytest.mark.parametrize("answer", ["y", "n"])
def test_terminal_is_asked_once(lock: Lock, server: str, answer: str) -> None:
    other: dict[str, Any] = {"file": "other.pth", "url": f"{server}/good/other.pth", "licence": "CC-BY-NC-4.0"}
    other |= {"needed_by": ["x"], "non_commercial": True}
    lock(non_commercial=True, licence="CC-BY-NC-4.0", extra={"other": other})
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "av_bench.cli.weights", "pull", "net"]
    with subprocess.Popen(command, cwd=ROOT, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        os.write(master, f"{answer}\n".encode())
        output = process.communicate(timeout=30)[0].decode()
    os.close(master)
    os.close(slave)
    assert output.count("Do you accept CC-BY-NC-4.0") == 1
    assert (process.returncode == 0) == (answer == "y")
    assert (find("net") is not None) == (answer == "y")
    assert run("pull", "other")[0] == (0 if answer == "y" else 4)  # no terminal here: works only if accepted before


# --------------------------------------------------------------------------- verify, recorded hashes


def test_verify_reads_every_byte(lock: Lock) -> None:
    lock()
    run("pull", "net")
    assert run("verify")[0] == 0
    path = folder() / "net.pth"
    stat = path.stat()
    path.write_bytes(DATA[:-1] + bytes([DATA[-1] ^ 1]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # a flipped bit leaves size and time alone
    code, output = run("verify")
    assert code == 4
    assert sha256(DATA) in output
    assert sha256(path.read_bytes()) in output


def test_changed_file_is_not_handed_out_and_pull_replaces_it(lock: Lock) -> None:
    lock()
    run("pull", "net")
    (folder() / "net.pth").write_bytes(OTHER)
    with pytest.raises(BadWeights, match=sha256(OTHER)):
        require("net")
    assert run("pull", "net", "--offline")[0] == 4
    assert run("pull", "net")[0] == 0
    assert require("net").read_bytes() == DATA
    assert (folder() / "net.pth.rejected").read_bytes() == OTHER


def test_first_arrival_is_recorded_and_later_ones_must_match(lock: Lock, server: str) -> None:
    lock(file="base/vocab.json", url=f"{server}/good/vocab.json", sha256=None, bytes=None)
    code, output = run("pull", "net")
    assert code == 0
    assert "recorded" in output
    (folder() / "base" / "vocab.json").unlink()
    Handler.files["vocab.json"] = VOCAB.replace(b"1", b"2")
    code, output = run("pull", "net")
    assert code == 4
    assert sha256(VOCAB) in output
    assert sha256(Handler.files["vocab.json"]) in output
    assert "delete" in output
    Handler.files["vocab.json"] = VOCAB
    assert run("pull", "net")[0] == 0


def test_file_sha256_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    os.utime(path, (1000, 1000))
    assert file_sha256(path) == sha256(b"one")
    path.write_bytes(b"two")
    os.utime(path, (1000, 1000))
    assert file_sha256(path) == sha256(b"one")  # same size and time: remembered, as documented
    os.utime(path, (2000, 2000))
    assert file_sha256(path) == sha256(b"two")
    (tmp_path / "home" / "hashes.json").write_text("{ damaged")
    assert file_sha256(path) == sha256(b"two")
    other = tmp_path / "other"
    other.write_bytes(b"six")
    os.utime(other, (2000, 2000))
    other.replace(path)
    assert file_sha256(path) == sha256(b"six")  # another file of the same size and time


def test_doctor_does_not_hash_weights(lock: Lock) -> None:
    lock()
    run("pull", "net")
    (folder().parent / "hashes.json").unlink()

    class Net(BaseExtractor):
        weights_name = "net"

    assert "hashed at first use" in weights_of(Net)
    assert remembered(folder() / "net.pth") is None
    os.utime(folder() / "net.pth", (1000, 1000))
    require("net")
    assert weights_of(Net) == "weights present"
    (folder() / "net.pth").write_bytes(OTHER + b"more")
    with pytest.raises(BadWeights, match="bytes, but"):
        weights_of(Net)


def test_file_sha256_of_a_fresh_file_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    stat = path.stat()
    assert file_sha256(path) == sha256(b"one")
    path.write_bytes(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # a second write within one tick of the clock
    assert file_sha256(path) == sha256(b"two")


# --------------------------------------------------------------------------- add


@pytest.mark.parametrize("arguments", [[], ["--name", "net"]])
def test_add_links_a_known_file(lock: Lock, tmp_path: Path, arguments: list[str]) -> None:
    lock()
    source = tmp_path / "downloaded (1)"
    source.write_bytes(DATA)
    code, output = run("add", str(source), *arguments)
    assert code == 0, output
    assert require("net").samefile(source)
    assert run("add", str(require("net")))[0] == 0


def test_add_copies_where_links_do_not_work(lock: Lock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError("Invalid cross-device link")

    lock()
    monkeypatch.setattr("os.link", no_links)
    (tmp_path / "net.pth").write_bytes(DATA)
    assert run("add", str(tmp_path / "net.pth"))[0] == 0
    assert not require("net").samefile(tmp_path / "net.pth")
    assert require("net").read_bytes() == DATA


@pytest.mark.parametrize(
    ("file", "content", "arguments", "told"),
    [
        ("net.pth", OTHER, [], [sha256(DATA), sha256(OTHER)]),
        ("any.bin", OTHER, ["--name", "net"], [sha256(DATA), sha256(OTHER), "any.bin"]),
        ("net.pth", DATA[:-1], [], ["net.pth", f"{len(DATA):,}"]),
        ("net.pth", b"<html>Sign in</html>", [], ["HTML page", "net.pth"]),
        ("net.pth", b"version https://git-lfs.github.com/spec/v1\n", [], ["git-lfs pointer"]),
        ("net.pth", b"\x1f\x8b" + DATA, ["--name", "net"], ["gzip"]),
        ("net.pth", b"", ["--name", "net"], ["empty"]),
        ("mine.pth", OTHER, [], ["mine.pth", sha256(OTHER), "weights list"]),
        ("absent", None, [], ["no such file"]),
    ],
)
def test_add_refuses(
    lock: Lock, tmp_path: Path, file: str, content: bytes | None, arguments: list[str], told: list[str]
) -> None:
    lock()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    code, output = run("add", str(tmp_path / file), *arguments)
    assert code in (2, 4)
    assert all(part in output for part in told), output
    assert find("net") is None
    assert not folder().exists() or leftovers() == []


def test_add_of_an_unpublished_hash_needs_the_name(lock: Lock, server: str, tmp_path: Path) -> None:
    twin = {"file": "b/vocab.json", "url": f"{server}/good/vocab.json", "licence": "MIT", "needed_by": ["x"]}
    lock(file="a/vocab.json", sha256=None, bytes=None, extra={"twin": twin})
    (tmp_path / "vocab.json").write_bytes(VOCAB)
    code, output = run("add", str(tmp_path / "vocab.json"))
    assert code == 2
    assert "--name net or --name twin" in output
    assert run("add", str(tmp_path / "vocab.json"), "--name", "twin")[0] == 0
    assert (get("twin").path.read_bytes(), find("net")) == (VOCAB, None)


# --------------------------------------------------------------------------- files whose hash nobody published


def torch_file(path: Path, legacy: bool = False) -> Path:
    torch.save({"w": torch.zeros(100, 100)}, path, _use_new_zipfile_serialization=not legacy)
    return path


def safetensors_file(path: Path) -> Path:
    save_file({"w": torch.zeros(100, 100)}, path)
    return path


def zip_file(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "x" * 50_000)
    return path


def written(content: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return write


def film(path: Path) -> Path:
    return write_mp4(path, np.zeros((5, 64, 64, 3), np.uint8), np.zeros((2, 4410), np.float32), 44_100, 25.0)


def damaged(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
    def cut(path: Path) -> Path:
        content = make(path).read_bytes()
        path.write_bytes(content[: len(content) // 2])
        return path

    return cut


@pytest.mark.parametrize(
    ("file", "make"),
    [
        ("w.bin", torch_file),
        ("w.pth", lambda path: torch_file(path, legacy=True)),
        ("w.pt", safetensors_file),
        ("w.safetensors", safetensors_file),
        ("vocab.json", written(VOCAB)),
        ("merges.txt", written(b"#version: 0.2\n\xc4\xa0 t\nh e\n")),
        ("merges.txt", written(b"# version\nh e\n")),
    ],
)
def test_a_plausible_first_arrival_is_recorded(
    lock: Lock, tmp_path: Path, file: str, make: Callable[[Path], Path]
) -> None:
    lock(file=f"base/{file}", sha256=None, bytes=None)
    code, output = run("add", str(make(tmp_path / "arriving")), "--name", "net")
    assert code == 0, output
    assert recorded_sha256(get("net")) == sha256((tmp_path / "arriving").read_bytes())


@pytest.mark.parametrize(
    ("file", "make", "told"),
    [
        ("w.bin", film, "neither a torch nor a safetensors file"),
        ("w.bin", zip_file, "neither a torch nor"),
        ("w.bin", damaged(torch_file), "neither a torch nor"),
        ("w.bin", written(b"\x80\x02" + bytes(5000)), "neither a torch nor"),
        ("w.pt", damaged(safetensors_file), "safetensors header speaks of"),
        ("w.safetensors", torch_file, "not a safetensors file"),
        ("w.safetensors", written(b"\x10\x00\x00\x00\x00\x00\x00\x00{not json either}" + bytes(99)), "cannot be read"),
        ("vocab.json", written(b'{"a": 0, "b"'), "not a JSON file"),
        ("vocab.json", written(b"[1]"), "not a JSON object"),
        ("vocab.json", film, "not a JSON file"),
        ("merges.txt", written(b"#version: 0.2\nh e\nthis is prose\n"), "'this is prose' is not two tokens"),
        ("merges.txt", written(b"#version: 0.2\n"), "no merges"),
    ],
)
def test_an_implausible_first_arrival_is_refused_and_leaves_no_record(
    lock: Lock, tmp_path: Path, file: str, make: Callable[[Path], Path], told: str
) -> None:
    lock(file=f"base/{file}", sha256=None, bytes=None)
    code, output = run("add", str(make(tmp_path / "arriving.mp4")), "--name", "net")
    assert code == 4
    assert told in output.replace("\n", " ")
    assert recorded_sha256(get("net")) is None
    assert find("net") is None


@pytest.mark.parametrize(("share", "code"), [(0.94, 4), (0.96, 0), (1.0, 0), (1.04, 0), (1.06, 4)])
def test_the_size_of_a_first_arrival_must_be_about_right(lock: Lock, tmp_path: Path, share: float, code: int) -> None:
    source = torch_file(tmp_path / "w.pt")
    lock(file="w.pt", sha256=None, bytes=None, about=round(source.stat().st_size / share))
    found, output = run("add", str(source), "--name", "net")
    assert found == code, output
    assert ("the real one has about" in output) == (code == 4)


def test_a_film_never_stands_for_dfn5b_clip(tmp_path: Path) -> None:
    code, output = run("add", str(film(tmp_path / "clip.mp4")), "--name", "dfn5b-clip")
    assert code == 4
    assert "the real one has about 3.9 GB" in output.replace("\n", " ")
    assert recorded_sha256(get("dfn5b-clip")) is None


def test_a_wrong_record_of_an_earlier_version_is_named_with_the_way_out(lock: Lock, tmp_path: Path) -> None:
    lock(file="w.pt", sha256=None, bytes=None)
    entry, wrong = get("net"), film(tmp_path / "clip.mp4")
    record = folder() / ".records" / "net.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"sha256": sha256(wrong.read_bytes())}))
    entry.path.write_bytes(wrong.read_bytes())
    with pytest.raises(BadWeights, match="neither a torch nor") as caught:
        require("net")
    assert f"if it was this one, delete {record}" in str(caught.value)
    code, output = run("add", str(torch_file(tmp_path / "right.pt")), "--name", "net")
    assert code == 4
    assert f"If that was a wrong file, or its publisher has replaced it and you want the new one, delete {record}" in (
        output.replace("\n", " ")
    )
    record.unlink()
    assert run("add", str(tmp_path / "right.pt"), "--name", "net")[0] == 0
