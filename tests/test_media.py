"""The decoder on real files: clock, frame picking, formats, and every way a file can be bad."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch

from av_bench.contracts import MediaError, Reason, UsageError, VideoRequest
from av_bench.media.decode import decode, resize
from av_bench.media.resample import resample
from av_bench.media.sound import Sound
from tests.media_files import number_of, tone, write_video

FULL = VideoRequest(25.0, 64, "short")


def picked(path: Path, fps: float, seconds: float | None) -> list[int]:
    frames = decode(path, [VideoRequest(fps, 64, "short")], seconds).frames(VideoRequest(fps, 64, "short"))
    return [number_of(frame.permute(1, 2, 0).numpy()) for frame in frames]


@pytest.mark.parametrize(
    ("source", "expected"),
    [(25, [24, 74, 124, 174]), (30, [29, 89, 149, 209]), (24, [23, 71, 119, 167]), (60, [59, 179, 299 % 256])],
)
def test_half_frame_per_second_picks_what_the_fps_filter_picks(
    tmp_path: Path, source: int, expected: list[int]
) -> None:
    # the last frame before 1, 3, 5, 7 s (measured with ffmpeg); four base-4 digits hold numbers below 256
    write_video(tmp_path / "v.mp4", seconds=8 if source < 60 else 5.5, fps=source)
    assert picked(tmp_path / "v.mp4", 0.5, 8.0)[: len(expected)] == expected


@pytest.mark.parametrize(("source", "fps"), [(30, 8.0), (24, 8.0), (12, 4.0)])
def test_the_demo_shows_the_first_frame_at_or_after_a_tick(tmp_path: Path, source: int, fps: float) -> None:
    write_video(tmp_path / "v.mp4", seconds=3.0, fps=source)
    request = VideoRequest(fps, 64, "short", "after")
    frames = decode(tmp_path / "v.mp4", [request], 2.5).frames(request)
    found = [number_of(frame.permute(1, 2, 0).numpy()) for frame in frames]
    assert found == [-(-n * source // round(fps)) for n in range(int(2.5 * fps))]


def test_the_demo_counts_in_floating_point(tmp_path: Path) -> None:
    """Twenty steps of 1/25 s are a rounding error above 0.8 s, where frame 24 begins: the tick takes the next one."""
    write_video(tmp_path / "v.mp4", seconds=2.0, fps=30)
    request = VideoRequest(25.0, 64, "short", "after")
    frames = decode(tmp_path / "v.mp4", [request], 1.0).frames(request)
    assert number_of(frames[20].permute(1, 2, 0).numpy()) == 25


def test_same_rate_picks_every_frame_once(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", seconds=4, fps=25)
    assert picked(tmp_path / "v.mp4", 25, None) == list(range(100))


def test_low_rate_source_repeats_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", seconds=2, fps=10)
    numbers = picked(tmp_path / "v.mp4", 25, 2.0)
    assert len(numbers) == 50
    assert sorted(set(numbers)) == list(range(20))
    assert numbers == sorted(numbers)


def test_picks_of_the_published_tool(shared: Path) -> None:
    golden = json.loads((shared / "golden/pipeline/intermediates/frame_picks.json").read_text())
    checked = 0
    for stem, expected in golden.items():
        if not (shared / f"clips/{stem}.mp4").is_file():
            continue
        media = decode(shared / f"clips/{stem}.mp4", [VideoRequest(25.0, 32), VideoRequest(0.5, 32)], 8.0)
        assert media.frames(VideoRequest(25.0, 32)).shape[0] == len(expected["25.0fps"]["source_index"])
        assert media.frames(VideoRequest(0.5, 32)).shape[0] == len(expected["0.5fps"]["source_index"])
        checked += 1
    assert checked == 3


def test_resized_frames_of_the_published_tool(shared: Path) -> None:
    golden = np.load(shared / "golden/pipeline/intermediates/video_0B4dYTMsgHA_000130.npz")
    request, short = VideoRequest(25.0, 224, "center"), VideoRequest(0.5, 224, "short")
    media = decode(shared / "clips/0B4dYTMsgHA_000130.mp4", [request, short], 8.0)
    ours = media.frames(request)[torch.from_numpy(golden["sync_frames_index"])].numpy().astype(int)
    assert np.abs(ours - golden["sync_resized_cropped_uint8"]).max() <= 1
    wide = media.frames(short)
    for crop, left in enumerate((0, 87, 174)):
        theirs = golden["ib_resized_crops_uint8"][crop]
        assert np.abs(wide[..., left : left + 224].numpy().astype(int) - theirs).max() <= 1


def test_load_rule_of_the_published_tool(shared: Path) -> None:
    golden = np.load(shared / "golden/pipeline/intermediates/audio_gt_0B4dYTMsgHA_000130.npz")
    media = decode(shared / "golden/pipeline/audio_gt/0B4dYTMsgHA_000130.wav")
    for rate in (16_000, 32_000, 48_000):
        ours = media.waveform(rate, 8.0).numpy()
        np.testing.assert_allclose(ours, golden[f"wave_{rate // 1000}k"], atol=1e-5)
    np.testing.assert_allclose(
        media.waveform(16_000, 8.0, remove_mean=False).numpy(), golden["wave_sync_16k"], atol=1e-5
    )


@pytest.mark.parametrize("pair", ["44100_16000", "44100_32000", "44100_48000", "48000_16000", "48000_32000"])
def test_resampling_parity(shared: Path, pair: str) -> None:
    golden = np.load(shared / "golden/protocol/frontends.npz")
    old, new = (int(x) for x in pair.split("_"))
    ours = resample(torch.from_numpy(golden[f"in_{old}_mono"]), old, new).numpy()
    assert ours.shape == golden[f"resample_{pair}"].shape
    np.testing.assert_allclose(ours, golden[f"resample_{pair}"], atol=5e-7)


@pytest.mark.parametrize("rates", [(44_056, 16_000), (11_025, 32_000), (8_000, 48_000), (192_000, 16_000)])
def test_resampling_keeps_a_tone(rates: tuple[int, int]) -> None:
    old, new = rates
    out = resample(torch.from_numpy(tone(1.0, old)), old, new)[0].numpy()
    assert len(out) == new
    middle = slice(new // 10, -new // 10)
    expected = tone(1.0, new)[0]
    assert np.abs(out[middle] - expected[middle]).max() < 2e-3


def test_resampling_refuses_rate_zero() -> None:
    with pytest.raises(UsageError, match="must be positive"):
        resample(torch.zeros(1, 8), 0, 16_000)


def test_sound_and_picture_keep_their_offset(tmp_path: Path) -> None:
    click = np.zeros((1, 44_100 * 2), np.float32)
    click[0, 44_100:44_200] = 0.9
    write_video(tmp_path / "late.mp4", seconds=2, audio=click, video_delay=0.4)
    media = decode(tmp_path / "late.mp4", [FULL])
    assert media.audio is not None
    assert abs(int(media.audio[0].abs().argmax()) - 44_150) < 200
    numbers = [number_of(f.permute(1, 2, 0).numpy()) for f in media.frames(FULL)]
    assert numbers[:11] == [0] * 11  # the first frame is held until its time comes at 0.4 s
    assert numbers[25] == 15  # second 1.0 shows frame 15, drawn 0.6 s after the late start


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2])
def test_wav_formats_agree(tmp_path: Path, subtype: str, channels: int) -> None:
    audio = tone(0.5, 44_100, channels=channels)
    soundfile.write(tmp_path / "a.wav", audio.T, 44_100, subtype=subtype)
    media = decode(tmp_path / "a.wav")
    assert media.audio is not None
    assert media.audio.shape == audio.shape
    tolerance = {"PCM_U8": 1 / 128, "PCM_16": 1 / 32768}.get(subtype, 1e-6)
    np.testing.assert_allclose(media.audio.numpy(), audio, atol=1.01 * tolerance)


def test_level_and_mean_are_those_of_the_frames_one_by_one(tmp_path: Path) -> None:
    """To the last bit, however many frames are looked at together; the end of the file is not forgotten."""
    rng = np.random.default_rng(0)
    wave = (0.1 * rng.standard_normal((2, 3 * 44_100 + 77))).astype(np.float32)
    wave[1, -3] = -0.9
    write_video(tmp_path / "a.mp4", seconds=3, audio=wave, sample_rate=44_100)
    with av.open(str(tmp_path / "a.mp4")) as container:
        frames = [frame.to_ndarray() for frame in container.decode(container.streams.audio[0])]
    sound = Sound(tmp_path / "a.mp4", 0.0, None)
    with av.open(str(tmp_path / "a.mp4")) as container:
        for frame in container.decode(container.streams.audio[0]):
            sound.push(frame)
    total = 0.0
    for found in frames:
        total += float(found.mean(axis=0, dtype=np.float64).sum())
    assert len(frames) > 64  # more than are looked at together
    assert sound.samples == sum(found.shape[1] for found in frames)
    assert sound.mean == total / sound.samples
    assert sound.peak == max(float(np.abs(found).max()) for found in frames) > 0.5


def test_surround_is_mixed_to_the_channel_mean(tmp_path: Path) -> None:
    audio = np.stack([k * tone(0.5)[0] / 6 for k in range(6)])
    soundfile.write(tmp_path / "a.wav", audio.T, 44_100, subtype="FLOAT")
    media = decode(tmp_path / "a.wav")
    np.testing.assert_allclose(media.waveform(44_100, None, remove_mean=False).numpy(), audio.mean(axis=0), atol=1e-6)


def test_wrong_extension_is_read_by_content(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", tone(0.5).T, 44_100)
    (tmp_path / "a.flac").rename(tmp_path / "b.wav")
    assert decode(tmp_path / "b.wav").audio_seconds == pytest.approx(0.5)


def test_stem_that_begins_with_a_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "-a.wav", tone(0.5).T, 44_100)
    monkeypatch.chdir(tmp_path)
    assert decode("-a.wav").audio_seconds == pytest.approx(0.5)


def _bad(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "bad.wav"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("<html>not found</html>" * 50)
    elif kind == "nan":
        audio = tone(0.5)
        audio[0, 100] = np.nan
        soundfile.write(path, audio.T, 44_100, subtype="FLOAT")
    elif kind == "header-only":
        soundfile.write(path, np.zeros((0, 1), np.float32), 44_100)
    elif kind == "cut-off":
        soundfile.write(path, tone(4.0).T, 44_100)
        path.write_bytes(path.read_bytes()[:100_000])
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", Reason.MISSING_FILE),
        ("empty", Reason.EMPTY),
        ("text", Reason.UNREADABLE),
        ("nan", Reason.NOT_FINITE),
        ("header-only", Reason.EMPTY),
        ("cut-off", Reason.UNREADABLE),
    ],
)
def test_bad_audio_has_its_reason(tmp_path: Path, kind: str, reason: Reason) -> None:
    with pytest.raises(MediaError) as error:
        decode(_bad(tmp_path, kind))
    assert error.value.reason is reason


def test_unknown_data_size_of_a_pipe_is_read(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1.0).T, 44_100)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    (tmp_path / "a.wav").write_bytes(content)
    assert decode(tmp_path / "a.wav").audio_seconds == pytest.approx(1.0, abs=0.01)


def test_truncated_and_headless_mp4(write_video: Callable[..., Path]) -> None:
    path = write_video(seconds=4, audio=tone(4.0))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])  # the index comes last: nothing can be read
    with pytest.raises(MediaError) as error:
        decode(path, [FULL])
    assert error.value.reason is Reason.UNREADABLE


def test_video_without_sound_and_sound_without_video(write_video: Callable[..., Path]) -> None:
    silent = decode(write_video("v.mp4", seconds=1), [FULL])
    assert silent.audio is None
    with pytest.raises(MediaError) as error:
        silent.waveform(16_000, 1.0)
    assert error.value.reason is Reason.NO_AUDIO
    with pytest.raises(MediaError) as error:
        decode(write_video("a.mp4", with_video=False, audio=tone(1.0)), [FULL])
    assert error.value.reason is Reason.NO_VIDEO


def test_video_end_does_not_depend_on_the_requests(write_video: Callable[..., Path]) -> None:
    path = write_video(seconds=3, audio=tone(3.0))
    ends = {decode(path).video_seconds, decode(path, [FULL]).video_seconds, decode(path, [FULL], 1.0).video_seconds}
    assert ends == {3.0}


@pytest.mark.parametrize(("mode", "shape"), [("short", (224, 398)), ("center", (224, 224)), ("squash", (224, 224))])
def test_resize_shapes(mode: str, shape: tuple[int, int]) -> None:
    frames = torch.zeros((2, 3, 720, 1280), dtype=torch.uint8)
    assert tuple(resize(frames, VideoRequest(25, 224, mode)).shape[-2:]) == shape  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("matrix", "clockwise"), [((0, 1, -1, 0), 1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 3)], ids=["90", "180", "270"]
)
def test_a_rotated_video_is_turned_upright(
    write_video: Callable[..., Path], tmp_path: Path, matrix: tuple[int, int, int, int], clockwise: int
) -> None:
    """The display matrix of the track header, written by hand; the published tool takes the frames as stored."""
    path = write_video(seconds=0.4)
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 44  # version 0 of the box
    a, b, c, d = (65_536 * entry for entry in matrix)
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "rotated.mp4").write_bytes(content)
    upright, turned = (decode(p, [FULL], 0.4).frames(FULL) for p in (path, tmp_path / "rotated.mp4"))
    assert torch.equal(turned, upright.rot90(-clockwise, dims=(2, 3)))
    assert not torch.equal(turned, upright)
