"""The lock file, opening by name, and fetching from a real server on this machine."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from av_bench.audit.formats import FORMATS
from av_bench.audit.pull import pull, verify, wanted
from av_bench.audit.sources import Lists
from av_bench.cli.audit import lists_app
from av_bench.contracts import MissingRequirement, UsageError
from protocols.lists import sources

ONE = b"aaaaaaaaaaa_0_10000\nbbbbbbbbbbb_0_10000\n"
TWO = b"h1\nh2\nccccccccccc_0_10000\n", b"h1\nh2\nddddddddddd_0_10000\n"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A lock file of two lists, served from a folder of this machine; gives the served folder."""
    site = tmp_path / "site"
    (site / "a" / "b" / "1").mkdir(parents=True)
    (site / "a" / "b" / "1" / "one.txt").write_bytes(ONE)
    for i, text in enumerate(TWO):
        (site / "a" / "b" / "1" / f"two{i:02d}.txt").write_bytes(text)
    joined = b"".join(t.split(b"\n", 2)[2] for t in TWO)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    common = {"repository": "a/b", "commit": "1", "format": "vggsound-ms", "licence": "CC0", "rows": 2}
    lock = {
        "url": f"http://127.0.0.1:{server.server_address[1]}/{{repository}}/{{commit}}/{{path}}",
        "files": {
            "one": common | {"path": "one.txt", "local": "x/one.txt.gz", "sha256": hashlib.sha256(ONE).hexdigest()},
            "two": common
            | {"path": "two{part:02d}.txt", "parts": 2, "drop_lines": 2, "local": "x/two.txt.gz",
               "sha256": hashlib.sha256(joined).hexdigest()},
        },
        "lists": {
            "s/both": {"files": ["one", "two"]},
            "s/rest": {"files": ["one", "two"], "minus": ["two"], "note": "n"},
        },
        "user": {"avsync15/test": {"format": "avsync15", "note": "pass --list avsync15/test=FILE"}},
        "aliases": {"s": "s/both"},
    }  # fmt: skip
    path = tmp_path / "lock.yaml"
    path.write_text(yaml.safe_dump(lock))
    monkeypatch.setattr(sources, "LOCK", path)
    sources.sources.cache_clear()
    yield site
    sources.sources.cache_clear()
    server.shutdown()
    server.server_close()


def test_lock_file_is_sound() -> None:
    known = sources.sources()
    for item in known.files.values():
        assert len(item.sha256) == 64
        assert len(item.commit) == 40
        assert item.licence
        assert item.rows > 0
        assert item.format is None or item.format in FORMATS
        assert all(url.startswith("https://") and item.commit in url for url in sources.urls(item))
    for name, entry in known.lists.items():
        for file in (*entry.files, *entry.minus):
            assert sources.list_file(file).format, name
    assert len({item.local for item in known.files.values()}) == len(known.files)


def test_pull_then_open(own_lock: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lists"
    assert [state for _, state in verify(folder)] == ["absent", "absent"]
    for item in wanted(["s"]):
        pull(folder, item)
    assert [state for _, state in verify(folder, ["s/both"])] == ["ok", "ok"]
    both = Lists(folder).open("s")
    assert both.rows["id"].to_pylist() == ["aaaaaaaaaaa", "bbbbbbbbbbb", "ccccccccccc", "ddddddddddd"]
    assert both.where(3) == ("x/two.txt.gz", 2)
    rest = Lists(folder).open("s/rest")
    assert rest.rows["id"].to_pylist() == ["aaaaaaaaaaa", "bbbbbbbbbbb"]
    assert rest.notes[0].startswith("2 rows that two holds as well were taken away")
    assert rest.notes[1:] == ("n",)
    for name in ("one.txt", "two00.txt", "two01.txt"):  # what is there and right is not fetched again
        (own_lock / "a" / "b" / "1" / name).unlink()
    assert pull(folder, sources.list_file("one")).is_file()


def test_pull_stores_nothing_wrong(own_lock: Path, tmp_path: Path) -> None:
    (own_lock / "a" / "b" / "1" / "one.txt").write_bytes(b"<html>moved</html>")
    with pytest.raises(MissingRequirement, match="Nothing was stored"):
        pull(tmp_path / "lists", sources.list_file("one"))
    (own_lock / "a" / "b" / "1" / "one.txt").unlink()
    with pytest.raises(MissingRequirement, match=r"one\.txt.*cannot be fetched"):
        pull(tmp_path / "lists", sources.list_file("one"))
    assert list(tmp_path.glob("lists/**/*.gz*")) == []


@pytest.mark.usefixtures("own_lock")
def test_changed_and_absent_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "lists"
    (folder / "x").mkdir(parents=True)
    with pytest.raises(MissingRequirement, match="lists pull one"):
        Lists(folder).open("s/both")
    assert not Lists(folder).has("s/both")
    (folder / "x" / "one.txt.gz").write_bytes(gzip.compress(ONE + b"eeeeeeeeeee_0_10000\n", mtime=0))
    with pytest.raises(UsageError, match="not the locked one"):
        Lists(folder).open("s/both")
    assert [state for _, state in verify(folder, ["one"])] == ["changed"]


@pytest.mark.usefixtures("own_lock")
def test_own_files_win_and_unknown_names_get_help(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("dog/aaaaaaaaaaa_000030.mp4\n")
    with pytest.raises(UsageError, match="--list avsync15/test=FILE"):
        Lists().open("avsync15/test")
    clips = Lists(own={"avsync15/test": tmp_path / "mine.txt"}).open("avsync15/test")
    assert (clips.name, clips.format, len(clips)) == ("avsync15/test", "avsync15", 1)
    with pytest.raises(UsageError, match="Did you mean 's/both'"):
        Lists().open("s/bot")
    with pytest.raises(UsageError, match="no such lists folder or list file"):
        Lists(tmp_path / "nowhere")
    assert len(Lists().open(f"avsync15:{tmp_path / 'mine.txt'}")) == 1


@pytest.mark.usefixtures("own_lock")
def test_commands(tmp_path: Path) -> None:
    run = CliRunner().invoke
    done = run(lists_app, ["pull", "s/both", "--into", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert done.output.count("licence: CC0") == 2
    assert run(lists_app, ["verify", "--lists", str(tmp_path)]).exit_code == 0
    (tmp_path / "x" / "two.txt.gz").unlink()
    assert run(lists_app, ["verify", "--lists", str(tmp_path)]).exit_code == 4
    assert "127.0.0.1" in run(lists_app, ["show"]).output


@pytest.mark.usefixtures("own_lock")
def test_lists_may_be_a_folder_or_one_file(tmp_path: Path) -> None:
    """The same meaning for an audit and for a run: the locked place, the public name, or the file itself."""
    public = tmp_path / "flat"
    public.mkdir()
    (public / "one.txt").write_bytes(ONE)
    one = sources.list_file("one")
    assert sources.locate(public, one) == sources.locate(public / "one.txt", one) == public / "one.txt"
    assert sources.locate(public / "one.txt", sources.list_file("two")) is None
    assert [state for _, state in verify(public / "one.txt")] == ["ok", "absent"]
    assert not Lists(public).has("s/both")
    (public / "one.txt").write_bytes(b"another list of that name")
    assert sources.locate(public, one) is None
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "one.txt").write_bytes(b"changed")
    assert sources.locate(tmp_path, one) == tmp_path / "x" / "one.txt"  # refused with its hash when it is read
