"""What is decoded is what was hashed, samples stay the ones that were made, and a store survives what lies in it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import av_bench
from av_bench.contracts import MediaError, Reason, UsageError
from av_bench.features import extraction
from av_bench.features.store import Store
from av_bench.media.content import read_content
from av_bench.media.decode import DecodedMedia, decode
from av_bench.pipeline.plan import RunResult
from av_bench.results.record import read_run
from tests.faults.media import RATE, write_film, write_wav
from tests.media_files import tone, write_video

SECONDS = 8.0
METRICS = ("KL-nano",)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of 8 s that sound different."""
    folder = tmp_path_factory.mktemp("media")
    for i in range(3):
        rng = np.random.default_rng(i)
        noise = 0.2 * rng.standard_normal((1, round(SECONDS * RATE))).astype(np.float32)
        write_video(
            folder / f"c{i}.mp4",
            seconds=SECONDS,
            size=32,
            audio=noise * (i % 2) + tone(SECONDS, RATE, 200 + 500 * i),
            sample_rate=RATE,
        )
    return folder


@pytest.fixture
def data(media: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(media, tmp_path / "data"))


@pytest.fixture
def _no_hanging() -> Iterator[None]:
    """Whatever waits for ever (a pipe without a writer) becomes an error after 20 s."""

    def stop(*_: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def run(data: Path, out: Path, **options: Any) -> RunResult:
    return av_bench.run(**{"set": "clips", "data": data, "out": out, "quiet": True, "metrics": METRICS} | options)


def kl(result: RunResult) -> float:
    return float(result.scores["metrics"]["KL-nano"]["value"])


def reasons(folder: Path) -> set[tuple[str, str]]:
    lines = map(json.loads, (folder / "ledger.jsonl").read_text().splitlines())
    return {(line["clip"], line["reason"]) for line in lines if "reason" in line}


def before_decoding(monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[Path], object]) -> None:
    """Do something to one file between its hashing and its decoding."""
    left = [change]

    def changing(path: Path, *arguments: Any, **options: Any) -> DecodedMedia:
        if path.name == name and left:
            left.pop()(path)
        return decode(path, *arguments, **options)

    monkeypatch.setattr(extraction, "decode", changing)


# --------------------------------------------------------------------------- 1: what is decoded was hashed


def test_a_file_replaced_in_between_poisons_no_store(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    original = (data / "c0.mp4").read_bytes()
    before_decoding(monkeypatch, "c0.mp4", lambda path: shutil.copyfile(data / "c1.mp4", path))
    first = run(data, tmp_path / "first", model="noise", store=store)
    assert first.exit_code == 3
    assert first.scores["counts"]["excluded"] == {"changed-while-read": 1}
    monkeypatch.undo()
    (data / "c0.mp4").write_bytes(original)
    second = run(data, tmp_path / "second", model="oracle", store=store)
    assert second.exit_code == 0
    assert kl(second) == pytest.approx(0, abs=1e-4)  # with the features of c1 under c0's hash it is not


@pytest.mark.parametrize("kind", ["replaced", "same size and times", "longer", "removed", "touched"])
def test_every_change_between_hashing_and_decoding_is_seen(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, np.full(RATE, 9000, "<i2"))
    content, info = read_content(path), path.stat()
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    if kind == "replaced":
        (tmp_path / "b.wav").write_bytes(changed)
        (tmp_path / "b.wav").replace(path)
    elif kind == "same size and times":
        with path.open("r+b") as handle:
            handle.write(changed)
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    elif kind == "longer":
        with path.open("ab") as handle:
            handle.write(b"\0\0")
    elif kind == "removed":
        path.unlink()
    else:
        path.touch()
        assert decode(path, content=content).samples == RATE  # other times, the same bytes: no change
        return
    with pytest.raises(MediaError) as caught:
        decode(path, content=content)
    assert caught.value.reason is (Reason.MISSING_FILE if kind == "removed" else Reason.CHANGED_WHILE_READ)


def test_a_change_while_it_is_decoded_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from av_bench.media import sound as sounds

    path = tmp_path / "a.wav"
    write_wav(path, np.full(RATE, 9000, "<i2"))
    whole = sounds.Sound.tensor

    def writing(sound: sounds.Sound) -> Any:
        with path.open("r+b") as handle:
            handle.seek(100)
            handle.write(b"\1\2")
        return whole(sound)

    monkeypatch.setattr(sounds.Sound, "tensor", writing)
    with pytest.raises(MediaError, match="changed while it was read"):
        decode(path)


def test_a_file_that_grows_while_it_is_hashed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    path = tmp_path / "a.wav"
    write_wav(path, np.full(RATE, 9000, "<i2"))
    whole = hashlib.file_digest

    def growing(handle: Any, name: str) -> Any:
        with path.open("ab") as other:
            other.write(b"\0\0")
        return whole(handle, name)

    monkeypatch.setattr(hashlib, "file_digest", growing)
    with pytest.raises(MediaError) as caught:
        read_content(path)
    assert caught.value.reason is Reason.CHANGED_WHILE_READ


# --------------------------------------------------------------------------- 1: the run's own samples


def test_exchanged_samples_are_refused_and_removed_ones_made_again(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = run(media, out, model="oracle")
    audio = sorted((out / "audio").iterdir())
    assert set(json.loads((out / "inputs.json").read_text())["samples"]) == {path.name for path in audio}
    shutil.copyfile(audio[1], audio[0])
    with pytest.raises(UsageError, match=r"1 of the run's own samples are not the files it wrote, e\.g\. c0"):
        run(media, out, model="oracle")
    audio[0].unlink()
    assert run(media, out, model="oracle").scores == first.scores


def test_the_ledger_alone_knows_the_samples_of_a_start_that_was_killed(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(media, out, model="oracle")
    inputs = json.loads((out / "inputs.json").read_text())
    del inputs["samples"]  # written at the end of a start
    (out / "inputs.json").write_text(json.dumps(inputs))
    audio = sorted((out / "audio").iterdir())
    shutil.copyfile(audio[1], audio[0])
    with pytest.raises(UsageError, match="not the files it wrote"):
        run(media, out, model="oracle")


def test_a_file_that_the_run_did_not_write_is_no_sample(media: Path, tmp_path: Path) -> None:
    first = run(media, tmp_path / "first", model="oracle")
    (tmp_path / "run" / "audio").mkdir(parents=True)
    for i in range(3):
        soundfile.write(tmp_path / f"run/audio/c{i}.flac", tone(SECONDS, RATE, 900).T, RATE)
    assert run(media, tmp_path / "run", model="oracle").scores == first.scores


def test_a_sample_exchanged_before_it_is_hashed_is_excluded(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from av_bench.features.sides import MediaFile

    identify = MediaFile.identify

    def late(medium: MediaFile) -> None:
        if medium.made is not None and medium.id == "c0":
            soundfile.write(medium.path, tone(SECONDS, RATE).T, RATE)
        identify(medium)

    monkeypatch.setattr(MediaFile, "identify", late)
    result = run(media, tmp_path / "run", model="oracle")
    assert result.scores["counts"]["excluded"] == {"changed-while-read": 1}


# --------------------------------------------------------------------------- a store of version 0.1


def test_features_stay_warm_without_the_new_probe(media: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = run(media, tmp_path / "first", model="oracle", store=store)
    shutil.rmtree(store / extraction.PROBE)  # as a store of version 0.1 has none
    again = run(media, tmp_path / "again", model="oracle", store=store)
    assert read_run(again.path).info["network_runs"] == 0
    assert again.scores == first.scores


def test_features_of_avi_files_have_keys_of_their_own(media: Path, tmp_path: Path) -> None:
    """Version 0.1 kept features of frames in a wrong order under the sha256 of the file."""
    write_film(tmp_path / "v.avi", seconds=0.2, codec="mpeg4", sound=None)
    avi, mp4 = read_content(tmp_path / "v.avi"), read_content(media / "c0.mp4")
    assert avi.identity != avi.digest
    assert mp4.identity == mp4.digest


# --------------------------------------------------------------------------- 12: pipes, sockets, devices


@pytest.mark.usefixtures("_no_hanging")
@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "dangling", "device"])
def test_a_store_with_something_else_in_it_works(tmp_path: Path, kind: str) -> None:
    row = {"x": np.ones(3, np.float32)}
    Store(tmp_path).put("net", {"a": row})
    odd = tmp_path / "net" / f"{'0' * 40}.safetensors"
    put(odd, kind)
    store = Store(tmp_path)
    assert sorted(store.get("net", ["a", "b"])) == ["a"]
    store.put("net", {"b": row})
    assert sorted(Store(tmp_path).get("net", ["a", "b"])) == ["a", "b"]


@pytest.mark.usefixtures("_no_hanging")
def test_a_shard_that_becomes_a_pipe_is_lost_not_waited_for(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("net", {"a": {"x": np.ones(3, np.float32)}})
    (shard,) = (tmp_path / "net").iterdir()
    shard.unlink()
    put(shard, "pipe")
    assert store.get("net", ["a"]) == {}


@pytest.mark.parametrize("header", [b"5", b"null", b'"text"', b"[]", b"[" * 100_000, b"{}", b'{"a/x": 5}'])
def test_a_shard_with_any_header_is_no_end_of_a_run(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "net").mkdir()
    path = tmp_path / "net" / f"{'1' * 40}.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert Store(tmp_path).get("net", ["a"]) == {}


@pytest.mark.usefixtures("_no_hanging")
@pytest.mark.parametrize(
    ("kind", "reason", "text"),
    [
        ("pipe", Reason.UNREADABLE, "a named pipe, not a regular file"),
        ("socket", Reason.UNREADABLE, "a socket, not a regular file"),
        ("device", Reason.UNREADABLE, "a device, not a regular file"),
        ("folder", Reason.UNREADABLE, "a folder, not a regular file"),
        ("dangling", Reason.MISSING_FILE, "a link that leads nowhere: nowhere"),
        ("loop", Reason.MISSING_FILE, "a link that leads to itself"),
        ("nothing", Reason.MISSING_FILE, "no such file"),
    ],
)
def test_what_is_no_file_is_called_by_its_name(tmp_path: Path, kind: str, reason: Reason, text: str) -> None:
    put(tmp_path / "a.wav", kind)
    with pytest.raises(MediaError, match=text) as caught:
        decode(tmp_path / "a.wav")
    assert caught.value.reason is reason


def put(path: Path, kind: str) -> None:
    """Something that is not a regular file."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)  # a whole path may be too long for a socket
    elif kind == "folder":
        path.mkdir()
    elif kind in ("dangling", "device", "loop"):
        path.symlink_to({"dangling": "nowhere", "device": "/dev/zero", "loop": path.name}[kind])
