"""The video to watch has the picture from its first moment on, however the source file was cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch

from av_bench.contracts import MediaError, Reason, VideoRequest
from av_bench.media.decode import decode
from av_bench.media.mux import mux

REQUEST = VideoRequest(25.0, 32, "squash")
SECONDS = 4.0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 s with a keyframe every 2 s; the picture grows lighter by 1.5 grey levels a frame."""
    path = tmp_path_factory.mktemp("mux") / "whole.mp4"
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("libx264", rate=25, options={"g": "50", "keyint_min": "50", "sc_threshold": "0"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(150):
            picture = np.full((64, 64, 3), 16 + 1.5 * number, np.uint8)
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        sink.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "s.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.1, 0.1, 4 * 16_000), 16_000)
    return path


def cut(source: Path, target: Path, seconds: float, use: Callable[[Any], bool] = lambda _: True) -> Path:
    """Copy packets from ``seconds`` on without coding them: those before 0 get an edit list."""
    with av.open(str(source)) as given, av.open(str(target), "w", options={"avoid_negative_ts": "disabled"}) as sink:
        picture = given.streams.video[0]
        stream = sink.add_stream_from_template(picture)
        for packet in given.demux(picture):
            if packet.pts is None or not use(packet):
                continue
            move(packet, -seconds)
            packet.stream = stream
            sink.mux(packet)
    return target


def move(packet: Any, seconds: float) -> None:
    shift = round(seconds / packet.time_base)
    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift


def frames(path: Path) -> torch.Tensor:
    return decode(path, [REQUEST], SECONDS, audio=False).frames(REQUEST).float().mean(dim=(1, 2, 3))


def test_a_whole_file_is_copied(whole: Path, sound: Path, tmp_path: Path) -> None:
    mux(whole, sound, tmp_path / "out.mp4", SECONDS)
    assert torch.equal(frames(tmp_path / "out.mp4"), frames(whole))


@pytest.mark.parametrize("seconds", [1.2, 0.4])
def test_a_file_cut_between_keyframes_keeps_its_first_pictures(
    whole: Path, sound: Path, tmp_path: Path, seconds: float
) -> None:
    source = cut(whole, tmp_path / "cut.mp4", seconds)
    with av.open(str(source)) as container:
        packets = [p for p in container.demux(video=0) if p.pts is not None]
    assert packets[0].is_discard  # as a cut with -c copy leaves it
    expected = frames(source)
    assert float(expected[0]) == pytest.approx(16 + 1.5 * 25 * seconds, abs=3)
    mux(source, sound, tmp_path / "out.mp4", SECONDS)
    found = frames(tmp_path / "out.mp4")
    assert len(found) == len(expected) == 100
    assert float((found - expected).abs().max()) < 3  # two frames are 3 levels apart


def test_a_file_that_begins_between_keyframes_shows_what_can_be_decoded(
    whole: Path, sound: Path, tmp_path: Path
) -> None:
    source = cut(whole, tmp_path / "late.mkv", 0.0, lambda packet: packet.pts * packet.time_base >= 1)
    mux(source, sound, tmp_path / "out.mp4", SECONDS)
    with av.open(str(tmp_path / "out.mp4")) as container:
        first = next(container.decode(video=0))
    assert first.key_frame


def test_a_file_without_a_picture_in_reach_is_said(whole: Path, sound: Path, tmp_path: Path) -> None:
    source = tmp_path / "far.mp4"
    with av.open(str(whole)) as given, av.open(str(source), "w") as sink:  # sound from 0 s, picture from 5 s
        stream = sink.add_stream_from_template(given.streams.video[0])
        silence = sink.add_stream("aac", rate=16_000, layout="mono")
        for number in range(90):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, 1024 * number
            sink.mux(silence.encode(frame))
        sink.mux(silence.encode(None))
        for packet in given.demux(video=0):
            if packet.pts is not None:
                move(packet, 5.0)
                packet.stream = stream
                sink.mux(packet)
    with pytest.raises(MediaError, match=r"no picture in the first 4 s") as caught:
        mux(source, sound, tmp_path / "out.mp4", SECONDS)
    assert caught.value.reason is Reason.NO_VIDEO
    assert not (tmp_path / "out.mp4").exists()
