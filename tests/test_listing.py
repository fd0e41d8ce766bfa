"""Recordings of a folder are found by what is in them; what is left out is named with its reason."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from av_bench.audit.snapshots import moments
from av_bench.contracts import MediaError, UsageError
from av_bench.media.listing import LeftOut, MediaFile, list_media, probe
from av_bench.media.stream import Wish, stream
from tests.media_files import number_of, numbered_frame, write_video

# name -> format and codec of FFmpeg; the others hold the mp4
LAYOUTS = {
    "a.ts": ("mpegts", "mpeg2video"),
    "b.m2ts": ("mpegts", "mpeg2video"),
    "c.mpg": ("mpeg", "mpeg2video"),
    "d.flv": ("flv", "flv"),
    "e.wmv": ("asf", "wmv2"),
    "f.vob": ("vob", "mpeg2video"),
}
NAMES = (*LAYOUTS, "g.m4v", "no_suffix", "z.dat")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path)
    return path


def _encoded(path: Path, layout: str, codec: str) -> None:
    """A second of moving noise."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", format=layout) as out:
        stream = out.add_stream(codec, rate=25, width=64, height=64, pix_fmt="yuv420p")
        for _ in range(25):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).reformat(format="yuv420p")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


def test_every_container_is_found_whatever_its_name(clip: Path, tmp_path: Path) -> None:
    for name in NAMES:
        if name in LAYOUTS:
            _encoded(tmp_path / name, *LAYOUTS[name])
        else:
            shutil.copy(clip, tmp_path / name)
    listing = list_media(tmp_path)
    assert [f.path.name for f in listing.used] == sorted(NAMES)
    assert all(f.video for f in listing.used)
    assert listing.left_out == ()


def test_what_is_left_out_has_a_reason(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "table.tsv").write_text("id\tcaption\n1\ta dög\n", encoding="utf-8")
    (tmp_path / "page.mp4").write_text("<html>404</html>")
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "noise.bin").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n/etc/passwd\n")
    (tmp_path / "nowhere.mp4").symlink_to("gone.mp4")
    (tmp_path / "._clip.mp4").write_bytes(b"\x00\x05\x16\x07" + bytes(80))
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(clip, "clip.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    with av.open(str(tmp_path / "still.png"), "w", format="image2") as out:
        stream = out.add_stream("png", width=16, height=16, pix_fmt="rgb24")
        for packet in (*stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8))), *stream.encode()):
            out.mux(packet)
    listing = list_media(tmp_path, hidden=True)
    assert listing.used == ()
    harmless = {i.path.name: i.reason for i in listing.left_out if i.harmless}
    doubtful = {i.path.name: i.reason for i in listing.doubtful}
    assert harmless == {
        "table.tsv": "a text file",
        "list.m3u8": "a text file",
        "._clip.mp4": "a note of the operating system",
        "still.png": "a still picture",
    }
    assert doubtful["zero.mp4"] == "empty: the file has zero bytes"
    assert doubtful["page.mp4"] == "unreadable: text, not the recording its name promises"
    assert doubtful["nowhere.mp4"] == "a link that leads nowhere"
    assert doubtful["more.zip"].startswith("an archive (zip)")
    assert doubtful["pipe.mp4"].startswith("not a regular file")
    assert doubtful["noise.bin"].startswith("unreadable")
    assert len(doubtful) == 6


def test_links_are_followed_once_and_loops_end(clip: Path, tmp_path: Path) -> None:
    real = tmp_path / "elsewhere"
    real.mkdir()
    shutil.copy(clip, real / "x.mp4")
    folder = tmp_path / "set"
    (folder / "dog").mkdir(parents=True)
    (folder / "cat").symlink_to(real)
    (folder / "cat again").symlink_to(real)
    (folder / "dog" / "up").symlink_to(folder)
    (folder / "dog" / "y.mp4").symlink_to(clip)
    (folder / "dog" / ".hidden.mp4").symlink_to(clip)
    listing = list_media(folder)
    assert [f.path.relative_to(folder).as_posix() for f in listing.used] == ["cat/x.mp4", "dog/y.mp4"]
    assert {i.path.name for i in listing.left_out} == {"cat again", "up", ".hidden.mp4"}
    assert listing.doubtful == ()
    assert len(list_media(folder, hidden=True).used) == 3
    assert [i.reason for i in list_media(folder, below=False).left_out] == [
        "a folder: sub-folders are not searched"
    ] * 3


def test_a_missing_folder_is_refused(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        list_media(tmp_path / "nothing")
    assert probe(clip) == MediaFile(clip, False, True)
    assert isinstance(probe(tmp_path / "gone.mp4"), LeftOut)


@pytest.mark.parametrize(
    "text",
    [b"ffconcat version 1.0\nfile clip.mp4\n#\0\n", b"#EXTM3U\n#EXTINF:1,\nclip.mp4\n#EXT-X-ENDLIST\n#\0\n"],
)
@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8"])
def test_a_list_of_other_files_is_no_recording(clip: Path, tmp_path: Path, text: bytes, name: str) -> None:
    """A zero byte makes it binary; what it names must not be compared in its place."""
    shutil.copy(clip, tmp_path / "clip.mp4")
    path = tmp_path / name
    path.write_bytes(text)
    found = probe(path)
    assert isinstance(found, LeftOut)
    assert not found.harmless
    with pytest.raises(MediaError, match=r"list of other files|decoder says"):
        stream(path, Wish(8, 64, 11_025), lambda _: None, lambda _: None)


def test_a_part_of_a_transport_stream_without_keyframes_is_shown(tmp_path: Path) -> None:
    """Its only keyframe is the first picture; a jump behind it would show nothing."""
    path = tmp_path / "long.ts"
    with av.open(str(path), "w", format="mpegts") as out:
        video = out.add_stream("libx264", rate=25, width=64, height=64, options={"g": "1000", "preset": "ultrafast"})
        for index in range(200):
            out.mux(video.encode(av.VideoFrame.from_ndarray(numbered_frame(index))))
        out.mux(video.encode())
    seen: list[NDArray[np.uint8]] = []
    whole: list[NDArray[np.uint8]] = []
    stream(path, Wish(5, 64, 11_025, start=5.0, end=7.0), seen.append, lambda _: None)
    stream(path, Wish(5, 64, 11_025), whole.append, lambda _: None)
    numbers = [number_of(np.repeat(grey[..., None], 3, axis=2)) for grey in whole]
    assert numbers[25:35] == list(range(127, 177, 5))  # a tick shows the frame nearest to it from before
    np.testing.assert_array_equal(seen, whole[25:35])
    assert len(moments(path, (5.0, 6.0, 7.0))) == 3


def test_a_name_is_not_taken_for_a_protocol(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("take:1.mp4", "http:x.mp4", "%d.mp4", "concat:clip.mp4|clip.mp4"):
        shutil.copy(clip, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    listing = list_media(Path())
    assert len(listing.used) == 4
    assert listing.left_out == ()
    for media in listing.used:
        assert stream(media.path, Wish(8, 64, 11_025), lambda _: None, lambda _: None).video
