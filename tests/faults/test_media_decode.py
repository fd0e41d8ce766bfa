"""Files that are odd inside: broken clocks, headers that are wrong, times that run backwards, sizes that change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from av_bench.contracts import MediaError, Reason, VideoRequest
from av_bench.media import sound as sounds
from av_bench.media.decode import decode
from av_bench.media.resample import _without_kernel, resample
from tests.conftest import ROOT
from tests.faults.media import RATE, empty_every_second_frame, frames_of, write_film, write_wav
from tests.media_files import tone, write_video

FULL = VideoRequest(25.0, 64, "squash")
SHORT = VideoRequest(25.0, 64, "short")


def refused(path: Path, reason: Reason, text: str, **options: object) -> None:
    with pytest.raises(MediaError, match=text) as caught:
        decode(path, **options)  # type: ignore[arg-type]
    assert caught.value.reason is reason


# --------------------------------------------------------------------------- 6: order of frames


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_avi_with_b_frames_is_shown_in_order(tmp_path: Path, codec: str) -> None:
    write_film(tmp_path / "v.avi", seconds=3, codec=codec, sound=None, bframes=2)
    numbers = frames_of(decode(tmp_path / "v.avi", [FULL], 3.0).frames(FULL))
    assert numbers == sorted(numbers)
    assert set(numbers) >= set(range(60))  # every frame is shown: none is skipped, none comes twice out of order


def test_pictures_whose_times_run_backwards_are_refused(tmp_path: Path) -> None:
    write_film(tmp_path / "v.ts", seconds=2)
    once = (tmp_path / "v.ts").read_bytes()
    (tmp_path / "v.ts").write_bytes(once + once)  # a stream that starts again: its clock does, too
    refused(tmp_path / "v.ts", Reason.UNREADABLE, "times of its pictures run backwards", requests=[FULL], seconds=4.0)


def test_an_empty_picture_repeats_the_last(tmp_path: Path) -> None:
    write_film(tmp_path / "v.avi", seconds=2, codec="mjpeg", sound=None)
    empty_every_second_frame(tmp_path / "v.avi", tmp_path / "v.nut")
    numbers = frames_of(decode(tmp_path / "v.nut", [FULL], 2.0).frames(FULL))
    assert numbers == [index // 2 * 2 for index in range(50)]


# --------------------------------------------------------------------------- 8: clocks and memory


@pytest.mark.parametrize(("picture", "sound"), [(0.0, 100_000.0), (100_000.0, 0.0)])
def test_a_stream_stamped_in_wall_time_is_refused(tmp_path: Path, picture: float, sound: float) -> None:
    write_film(tmp_path / "v.mkv", seconds=1, start=picture, sound_start=sound)
    refused(tmp_path / "v.mkv", Reason.UNREADABLE, "the clock of the file is broken", window=1.0)
    refused(tmp_path / "v.mkv", Reason.UNREADABLE, "the clock of the file is broken")  # also when all is wanted


def test_streams_that_share_a_wall_clock_start_at_0(tmp_path: Path) -> None:
    write_film(tmp_path / "v.mkv", seconds=2, start=100_000.0)
    media = decode(tmp_path / "v.mkv", [FULL], 1.0)
    assert frames_of(media.frames(FULL)) == list(range(25))
    assert media.audio_seconds == pytest.approx(2.0, abs=0.1)


def test_of_a_long_file_the_window_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    time = np.arange(30 * RATE) / RATE
    wave = (8000 * np.sin(440 * 2 * np.pi * time) + 3000 * (time > 20)).astype("<i2")  # a mean that the window lacks
    write_wav(tmp_path / "a.wav", wave)
    whole = decode(tmp_path / "a.wav", window=2.0)
    monkeypatch.setattr(sounds, "_WHOLE_BYTES", 1 << 18)
    part = decode(tmp_path / "a.wav", window=2.0)
    assert part.audio is not None
    assert part.audio.shape == (1, 3 * RATE)
    assert (part.samples, part.peak) == (whole.samples, whole.peak)
    for rate in (RATE, 32_000, 11_025):
        for centred in (False, True):
            ours = part.waveform(rate, 2.0, remove_mean=centred)
            torch.testing.assert_close(ours, whole.waveform(rate, 2.0, remove_mean=centred), atol=1e-6, rtol=0)
    with pytest.raises(MediaError, match="too long for a network that takes the whole file") as caught:
        part.channels(RATE, None)
    assert caught.value.reason is Reason.OUT_OF_MEMORY


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of address space is Linux's")
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    """Three minutes of 48 kHz stereo are 66 MiB of float32; the process may take 60 MiB more than it has."""
    size = 180 * 48_000 * 4
    write_wav(tmp_path / "a.wav", np.full(2 * RATE, 8000, "<i2"), channels=2, rate=48_000, declared=size)
    with (tmp_path / "a.wav").open("r+b") as handle:
        handle.truncate(44 + size)
    code = (
        "import resource, sys\n"
        "from av_bench.media import sound\n"
        "from av_bench.media.decode import decode\n"
        "sound._WHOLE_BYTES = 16 << 20\n"
        "now = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (now + (60 << 20),) * 2)\n"
        "print(decode(sys.argv[1], window=8.0).samples)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.wav")], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout.strip() == str(180 * 48_000), done.stderr[-500:]


def test_rates_without_a_common_factor_need_no_gigabytes() -> None:
    ours = resample(torch.from_numpy(tone(1.0, 44_101)), 44_101, 16_000)[0].numpy()  # its kernel would take 2.8 GB
    assert np.abs(ours - tone(1.0, 16_000)[0])[1600:-1600].max() < 2e-3
    audio = torch.from_numpy(tone(0.3, 44_100, channels=2))
    with_kernel = resample(audio, 44_100, 16_000)
    torch.testing.assert_close(_without_kernel(audio, 441, 160, with_kernel.shape[1]), with_kernel, atol=1e-6, rtol=0)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
def test_no_memory_for_a_file_is_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    write_wav(tmp_path / "a.wav", np.zeros(RATE, "<i2"))

    def full(_: object) -> torch.Tensor:
        raise error

    monkeypatch.setattr(sounds.Sound, "tensor", full)
    refused(tmp_path / "a.wav", Reason.OUT_OF_MEMORY, "more memory than there is")


# --------------------------------------------------------------------------- 10: sizes and headers


def test_frames_that_change_their_size_are_resized_each_by_itself(tmp_path: Path) -> None:
    write_film(tmp_path / "v.ts", seconds=2, sizes=((0.0, 64, 64), (1.0, 128, 96)))
    media = decode(tmp_path / "v.ts", [FULL, SHORT], 2.0)
    numbers = frames_of(media.frames(FULL))
    assert numbers == sorted(numbers)
    assert set(numbers) >= set(range(47))  # of both sizes; priming sound may come before the picture
    assert media.frames(SHORT).shape == (50, 3, 64, 64)  # of the first frame; another aspect is stretched to it


@pytest.mark.parametrize("declared", [0, 0x7FFFF000, 0x7FFFFF00, 0x7FFFFFFF, 0xFFFFFFDB, 0xFFFFFFFF])
def test_a_length_that_a_pipe_leaves_declares_nothing(tmp_path: Path, declared: int) -> None:
    write_wav(tmp_path / "a.wav", np.full(2 * RATE, 9000, "<i2"), declared=declared)
    media = decode(tmp_path / "a.wav")
    assert media.samples == 2 * RATE
    assert media.peak == pytest.approx(9000 / 32768)


def test_a_length_that_counts_the_header_is_read_and_a_cut_file_is_not(tmp_path: Path) -> None:
    wave = np.full(2 * RATE, 9000, "<i2")
    write_wav(tmp_path / "a.wav", wave, declared=wave.nbytes + 16)
    assert decode(tmp_path / "a.wav").samples == 2 * RATE
    write_wav(tmp_path / "a.wav", wave, declared=wave.nbytes + RATE)  # half a second less than is declared
    refused(tmp_path / "a.wav", Reason.UNREADABLE, "cut off: the header declares 80000 bytes of samples, 64000")


def test_a_header_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.full(RATE, 9000, "<i2"), block=7)  # the decoder reads noise out of it
    refused(tmp_path / "a.wav", Reason.UNREADABLE, "contradicts itself: 1 x 16 bits in 7 bytes")


def test_wav_files_that_the_decoder_misreads_are_refused(tmp_path: Path) -> None:
    import soundfile

    wave = tone(1.0, RATE)[0]
    soundfile.write(tmp_path / "big.wav", wave, RATE, endian="BIG")
    refused(tmp_path / "big.wav", Reason.UNREADABLE, r"big-endian \(RIFX\)")
    soundfile.write(tmp_path / "ext.wav", wave, RATE, format="WAVEX", subtype="PCM_32")
    content = bytearray((tmp_path / "ext.wav").read_bytes())
    at = content.index(b"fmt ") + 8 + 18
    assert content[at] == 32
    assert decode(tmp_path / "ext.wav").peak == pytest.approx(0.5, abs=1e-3)
    content[at] = 24  # of the 32 bits, which is what studios write
    (tmp_path / "ext.wav").write_bytes(content)
    refused(tmp_path / "ext.wav", Reason.UNREADABLE, "24 bits in 32")


def test_a_picture_too_long_to_be_resized_is_refused(tmp_path: Path) -> None:
    write_film(tmp_path / "v.mkv", seconds=0.2, sound=None, codec="ffv1", sizes=((0.0, 32_000, 4),))
    refused(tmp_path / "v.mkv", Reason.UNREADABLE, "32000 x 4 is too long", requests=[VideoRequest(25.0, 224)])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"ffconcat version 1.0\nfile other.mp4\n", "text, not a recording"),
        (b"ffconcat version 1.0\nfile other.mp4\n#\0\n", "a list of other files"),
        (b"#EXTM3U\n#EXTINF:9,\nother.ts\n#EXT-X-ENDLIST\n", "text, not a recording"),
    ],
)
def test_a_file_that_names_another_is_not_that_other(tmp_path: Path, content: bytes, text: str) -> None:
    write_film(tmp_path / "other.mp4", seconds=1)
    (tmp_path / "c.mp4").write_bytes(content)
    refused(tmp_path / "c.mp4", Reason.UNREADABLE, text)


def test_a_name_is_never_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wav(tmp_path / "take:1.wav", np.full(RATE, 9000, "<i2"))
    monkeypatch.chdir(tmp_path)
    assert decode("take:1.wav").samples == RATE


# --------------------------------------------------------------------------- 19: late starts


@pytest.mark.parametrize(
    ("suffix", "codec", "sound"),
    [
        (".mkv", "libx264", "aac"),
        (".webm", "libvpx", "libopus"),
        (".ts", "libx264", "aac"),
        (".mp4", "libx264", "aac"),
        (".mov", "libx264", "aac"),
        (".flv", "libx264", None),
    ],
)
def test_a_file_that_starts_late_is_moved_to_0(tmp_path: Path, suffix: str, codec: str, sound: str | None) -> None:
    path = tmp_path / f"v{suffix}"
    write_film(path, seconds=3, start=4.2, codec=codec, sound=sound)
    media = decode(path, [FULL], 2.0)
    numbers = frames_of(media.frames(FULL))[5:]
    assert 2 < numbers[0] < 6  # priming sound may come before the picture
    assert numbers == list(range(numbers[0], numbers[0] + 45))
    assert media.video_seconds == pytest.approx(3.0, abs=0.1)
    assert media.audio_seconds == pytest.approx(3.0 if sound else 0.0, abs=0.1)


@pytest.mark.parametrize("start", [0.0, 4.2])
def test_a_matroska_file_that_is_cut_off_is_refused_wherever_it_starts(tmp_path: Path, start: float) -> None:
    write_film(tmp_path / "v.mkv", seconds=4, start=start)
    content = (tmp_path / "v.mkv").read_bytes()
    (tmp_path / "v.mkv").write_bytes(content[: len(content) // 2])
    refused(tmp_path / "v.mkv", Reason.UNREADABLE, r"cut off: the header declares 4\.")


def test_one_missing_sample_can_be_read_in_the_message(tmp_path: Path) -> None:
    from av_bench.extractors.synchformer import SynchformerAudio

    write_wav(tmp_path / "a.wav", np.full(8 * RATE - 1, 9000, "<i2"))
    extractor = SynchformerAudio.__new__(SynchformerAudio)  # its front end needs no network
    with pytest.raises(MediaError, match=r"7\.9999 of 8 s of audio, 1 samples at 16000 Hz are missing"):
        extractor.prepare(decode(tmp_path / "a.wav"), 8.0)


# --------------------------------------------------------------------------- 4: level


def test_what_is_heard_is_the_centred_mono_mix_of_the_window(tmp_path: Path) -> None:
    wave = tone(3.0, RATE)[0].astype("<f4")
    later = np.where(np.arange(3 * RATE) < 2.5 * RATE, 0, wave).astype("<f4")
    sets = {
        "antiphase": (np.stack([wave, -wave], 1), 2),
        "constant": (np.full(3 * RATE, 0.7, "<f4"), 1),
        "later": (later, 1),
        "half": (np.stack([wave, 0 * wave], 1), 2),
    }
    heard = {}
    for name, (samples, channels) in sets.items():
        write_wav(tmp_path / f"{name}.wav", samples, channels=channels)
        media = decode(tmp_path / f"{name}.wav")
        assert media.peak > 0.4
        heard[name] = media.heard(2.0)
    assert max(heard[name] for name in ("antiphase", "constant", "later")) < 1e-6
    assert heard["half"] == pytest.approx(0.25, abs=0.01)


def test_good_files_are_read_as_before(tmp_path: Path) -> None:
    """Every sample is kept and the mean is that of the whole file, as the published loader takes it."""
    write_video(tmp_path / "v.mp4", seconds=3, audio=tone(3.0, RATE) + 0.1, sample_rate=RATE)
    with av.open(str(tmp_path / "v.mp4")) as container:
        blocks = [frame.to_ndarray() for frame in container.decode(audio=0)]
    plain = torch.from_numpy(np.concatenate(blocks, axis=1))
    media = decode(tmp_path / "v.mp4", window=1.0)
    assert media.audio is not None
    start = plain.shape[1] - media.audio.shape[1]  # priming that the edit list takes away
    assert torch.equal(media.audio, plain[:, start:])
    mono = media.audio.mean(dim=0, keepdim=True)
    assert torch.equal(media.waveform(RATE, 1.0), (mono - mono.mean())[0, :RATE])
