"""Front ends against the published tool's intermediates, against librosa and numpy, and against their definitions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from av_bench.extractors import frontends, imagebind
from av_bench.media.decode import decode
from tests.extractors import golden_pipeline as gold

PROTOCOL = gold.SHARED / "golden/protocol"
CLIP = "0B4dYTMsgHA_000130"
needs_protocol = pytest.mark.skipif(not PROTOCOL.is_dir(), reason="no golden files: folder 'shared' is not beside")


def panns(wave: Tensor) -> Tensor:
    return frontends.decibel_mel(wave, 16_000, 512, 160, 50.0, 8000.0)


def imagebind_in_place(audio: Tensor) -> Tensor:
    bounds = imagebind.clip_bounds(audio.shape[1])
    return frontends.imagebind_mel(imagebind.centred_clips(audio, bounds, in_place=True))


@pytest.fixture(scope="module")
def protocol() -> dict[str, Tensor]:
    with np.load(PROTOCOL / "frontends.npz") as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


# Decibels are 4.34 times natural-log units, so their limit is 4.34 times that of the others.
@needs_protocol
@pytest.mark.parametrize(
    ("front_end", "signal", "expected", "limit"),
    [
        (lambda x: frontends.vggish_examples(x)[0], "in_16000_2s", "vggish_examples", 1e-4),
        (lambda x: panns(x)[0], "in_16000_2s", "panns_logmel", 4.34e-4),
        (lambda x: frontends.synchformer_mel(x)[0, :, 0], "in_16000_2s", "synchformer_mel", 1e-4),
        (lambda x: imagebind_in_place(x)[:, 0], "in_16000_5s", "imagebind_mel_5s", 1e-4),
        (lambda x: imagebind_in_place(x)[:, 0], "in_16000_5s_stereo", "imagebind_mel_stereo5s", 1e-4),
    ],
    ids=["vggish", "panns", "synchformer", "imagebind", "imagebind-stereo"],
)
def test_seeded_signal_gives_the_reference_log_mel(
    protocol: dict[str, Tensor], front_end: Callable[[Tensor], Tensor], signal: str, expected: str, limit: float
) -> None:
    ours = front_end(torch.atleast_2d(protocol[signal]))
    assert ours.shape == protocol[expected].shape
    assert (ours - protocol[expected]).abs().max() < limit


@needs_protocol
def test_passt_mel_of_padded_second(protocol: dict[str, Tensor]) -> None:
    mel = frontends.passt_mel(frontends.fit(protocol["in_32000_1s"], frontends.PASST_SAMPLES)[None])[0]
    facts = json.loads((PROTOCOL / "frontends.json").read_text())
    assert list(mel.shape) == facts["passt_mel_shape"]
    assert (mel[:, :120] - protocol["passt_mel_first120"]).abs().max() < 1e-4
    assert (mel[:, 120:] - facts["passt_mel_pad_value"]).abs().max() < 1e-6


# --------------------------------------------------------------------------- real clips, file to log-mel


@pytest.fixture(scope="module", params=["gt", "pred"])
def chain(request: pytest.FixtureRequest) -> tuple[Any, dict[str, Tensor]]:
    """A real file (44.1 kHz stereo wav, 16 kHz mono flac), decoded by us, and the original's intermediates of it."""
    with np.load(gold.PIPELINE / f"intermediates/audio_{request.param}_{CLIP}.npz") as stored:
        reference = {name: torch.from_numpy(stored[name]) for name in stored.files}
    return decode(gold.media(request.param)[gold.stems().index(CLIP)]), reference


@gold.needs_golden
@pytest.mark.parametrize(("key", "rate"), [("wave_16k", 16_000), ("wave_32k", 32_000), ("wave_48k", 48_000)])
def test_load_rule_gives_the_original_waveform(chain: tuple[Any, dict[str, Tensor]], key: str, rate: int) -> None:
    item, reference = chain
    gold.note(f"{key} of a real file", "golden run", item.waveform(rate, gold.SECONDS), reference[key], 1e-5)


@gold.needs_golden
def test_sync_waveform_keeps_its_mean(chain: tuple[Any, dict[str, Tensor]]) -> None:
    item, reference = chain
    ours = item.waveform(16_000, gold.SECONDS, remove_mean=False)
    assert (ours - reference["wave_sync_16k"]).abs().max() < 1e-5


@gold.needs_golden
@pytest.mark.parametrize("name", ["vggish", "panns", "passt", "imagebind", "synchformer"])
def test_real_file_gives_the_original_log_mel(chain: tuple[Any, dict[str, Tensor]], name: str) -> None:
    item, reference = chain
    wave = item.waveform(16_000, gold.SECONDS)[None]
    ours, key, limit = {
        "vggish": (lambda: frontends.vggish_examples(wave)[0], "vggish_examples", 1e-4),
        "panns": (lambda: panns(wave)[0], "panns_logmel", 4.34e-4),
        "passt": (
            lambda: frontends.passt_mel(frontends.fit(item.waveform(32_000, gold.SECONDS), 320_000)[None])[0],
            "passt_mel",
            1e-4,
        ),
        # The original's resampling kernel is float32; near-silent bins of an fbank amplify that 1e-6 of the waveform.
        "imagebind": (lambda: imagebind_in_place(item.channels(16_000, None)), "imagebind_fbank", 5e-4),
        "synchformer": (
            lambda: frontends.synchformer_mel(item.waveform(16_000, gold.SECONDS, remove_mean=False)[None])[0, :, 0],
            "sync_mel",
            2e-3,  # stored in half precision: its own rounding is up to 1e-3
        ),
    }[name]
    mel = ours()
    assert mel.shape == reference[key].shape
    gold.note(f"{name} log-mel of a real file", "golden run", mel, reference[key].float(), limit, absolute=True)
    assert (mel - reference[key].float()).abs().mean() < limit / 10


@gold.needs_golden
def test_frames_are_the_original_ones_bit_for_bit() -> None:
    from av_bench.extractors.imagebind import ImageBindVideo
    from av_bench.extractors.synchformer import SynchformerVideo

    with np.load(gold.PIPELINE / f"intermediates/video_{CLIP}.npz") as stored:
        reference = {name: torch.from_numpy(stored[name]) for name in stored.files}
    extractors = [SynchformerVideo(None, "none"), ImageBindVideo(None, "none")]
    requests = [extractor.video_request for extractor in extractors if extractor.video_request is not None]
    item = decode(gold.media("video")[gold.stems().index(CLIP)], requests, gold.SECONDS, audio=False)
    sync, crops = (extractor.prepare(item, gold.SECONDS) for extractor in extractors)
    assert torch.equal(sync[reference["sync_frames_index"]], reference["sync_resized_cropped_uint8"])
    assert torch.equal(crops, reference["ib_resized_crops_uint8"])


# --------------------------------------------------------------------------- parts, without golden files


@pytest.mark.parametrize(
    ("rate", "n_fft", "mels", "low", "high", "scale", "area"),
    [
        (16_000, 512, 64, 50.0, 8000.0, "slaney", True),
        (48_000, 1024, 64, 50.0, 14_000.0, "slaney", True),
        (16_000, 1024, 128, 0.0, 8000.0, "htk", False),
        (22_050, 2048, 128, 0.0, 11_025.0, "slaney", False),
    ],
)
def test_mel_bank_equals_librosas(
    rate: int, n_fft: int, mels: int, low: float, high: float, scale: Any, area: bool
) -> None:
    librosa = pytest.importorskip("librosa")
    expected = librosa.filters.mel(
        sr=rate, n_fft=n_fft, n_mels=mels, fmin=low, fmax=high, htk=scale == "htk", norm="slaney" if area else None
    )
    ours = frontends.mel_bank(rate, n_fft, mels, low, high, scale=scale, unit_area=area)
    np.testing.assert_allclose(ours.numpy(), expected, atol=2e-7 * float(expected.max()) + 1e-9)


def test_bank_straight_over_mel_is_the_triangle_formula() -> None:
    bank = frontends.mel_bank(16_000, 512, 128, 20.0, 8000.0, straight_over="mel")
    mel = [1127 * math.log(1 + k * 16_000 / 512 / 700) for k in range(257)]
    low, high = 1127 * math.log(1 + 20 / 700), 1127 * math.log(1 + 8000 / 700)
    width = (high - low) / 129
    for row in (0, 1, 40, 127):
        centre = low + (row + 1) * width
        expected = [max(0.0, 1 - abs(m - centre) / width) for m in mel]
        np.testing.assert_allclose(bank[row].numpy(), expected, atol=1e-6)


def test_stft_power_of_one_frame_is_numpys() -> None:
    wave = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    window = frontends.hann(400, periodic=True)
    power = frontends.stft_power(wave, 1024, window, 160)
    assert power.shape == (1, 513, 26)
    padded = np.zeros(1024)
    padded[312:712] = window.numpy()  # the short window sits in the middle of the frame
    frame = wave[0, 10 * 160 - 512 : 10 * 160 + 512].double().numpy() * padded
    np.testing.assert_allclose(power[0, :, 10].numpy(), np.abs(np.fft.rfft(frame)) ** 2, rtol=2e-4, atol=1e-4)


def test_symmetric_window_ends_on_zero_and_periodic_does_not() -> None:
    assert frontends.hann(800, periodic=False)[-1] == 0
    assert frontends.hann(800, periodic=True)[-1] > 0


def test_fbank_of_a_constant_is_the_floor() -> None:
    fbank = frontends.kaldi_fbank(torch.full((1, 1600), 0.5))
    assert fbank.shape == (1, 8, 128)
    assert (fbank - math.log(frontends.FLOAT_EPS)).abs().max() < 1e-5


def test_imagebind_padding_reads_the_documented_value() -> None:
    mel = frontends.imagebind_mel(torch.randn(2, 32_000))
    assert mel.shape == (2, 1, 128, 204)
    assert (mel[..., 198:] - 4.268 / 9.138).abs().max() < 1e-6


def test_synchformer_pads_a_constant_after_the_last_frame() -> None:
    mel = frontends.synchformer_mel(torch.zeros(1, 10_240 + 5_120))
    assert mel.shape == (1, 2, 1, 128, 66)
    assert (mel[..., 65] - 4.2677393 / (2 * 4.5689974)).abs().max() < 1e-6
    assert (mel[..., :65] - (math.log(1e-6) + 4.2677393) / (2 * 4.5689974)).abs().max() < 1e-5


@pytest.mark.parametrize(
    "front_end",
    [frontends.vggish_examples, panns, frontends.passt_mel, frontends.synchformer_mel, frontends.imagebind_mel],
    ids=["vggish", "panns", "passt", "synchformer", "imagebind"],
)
def test_rows_of_a_batch_do_not_see_each_other(front_end: Callable[[Tensor], Tensor]) -> None:
    waves = 0.1 * torch.randn(3, 32_000, generator=torch.Generator().manual_seed(1))
    together = front_end(waves)
    alone = torch.cat([front_end(wave[None]) for wave in waves])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-4)
    assert (together[0] - together[1]).abs().max() > 0.1


@pytest.mark.parametrize(("seconds", "patches"), [(0.975, 1), (5, 5), (8, 8), (10, 10)])
def test_vggish_patch_count(seconds: float, patches: int) -> None:
    assert frontends.vggish_examples(torch.zeros(1, int(16_000 * seconds))).shape == (1, patches, 96, 64)


def test_fit_tiles_whole_copies_then_pads() -> None:
    wave = torch.tensor([1.0, 2.0, 3.0])
    assert frontends.fit(wave, 8, repeat=True).tolist() == [1, 2, 3, 1, 2, 3, 0, 0]
    assert frontends.fit(wave, 5).tolist() == [1, 2, 3, 0, 0]
    assert frontends.fit(wave, 2, repeat=True).tolist() == [1, 2]


@needs_protocol
def test_spatial_crops_lie_where_the_reference_cuts() -> None:
    table = json.loads((PROTOCOL / "frontends.json").read_text())["uniform_crop_top_left_yx_and_hw"]
    for shape, boxes in table.items():
        height, width = map(int, shape.split("x"))
        frames = torch.arange(height * width).view(1, 1, height, width).expand(1, 3, -1, -1)
        crops = frontends.spatial_crops(frames)
        corners = [[int(crop[0, 0, 0, 0]) // width, int(crop[0, 0, 0, 0]) % width, 224, 224] for crop in crops]
        assert corners == boxes, shape
        assert crops.shape == (3, 1, 3, 224, 224)


@needs_protocol
def test_clips_start_where_the_table_says() -> None:
    table = json.loads((PROTOCOL / "frontends.json").read_text())["imagebind_clip_starts"]
    for seconds, clips in table.items():
        bounds = imagebind.clip_bounds(16_000 * int(seconds))
        assert [[start / 16_000, end / 16_000] for start, end in bounds] == clips


@pytest.mark.parametrize(
    ("seconds", "starts"),
    [(8.0, (0, 3, 6)), (10.0, (0, 4, 8)), (5.0, (0, 1.5, 3)), (2.0, (0, 0, 0)), (1.0, (0, 0, 0))],
)
def test_clips_are_spread_from_the_first_second_to_the_last(seconds: float, starts: tuple[float, ...]) -> None:
    bounds = imagebind.clip_bounds(int(16_000 * seconds))
    assert [(start / 16_000, end / 16_000) for start, end in bounds] == [(s, s + 2) for s in starts]


def test_in_place_centring_reaches_overlapping_clips_only() -> None:
    audio = torch.linspace(0, 1, 5 * 16_000)[None]
    apart, overlapping = [(0, 32_000), (32_000, 64_000)], [(0, 32_000), (16_000, 48_000)]
    for bounds, same in ((apart, True), (overlapping, False)):
        kept = audio.clone()
        once = imagebind.centred_clips(audio, bounds, in_place=False)
        twice = imagebind.centred_clips(audio, bounds, in_place=True)
        assert torch.equal(once, twice) is same
        assert torch.equal(audio, kept)  # the caller's buffer is untouched
