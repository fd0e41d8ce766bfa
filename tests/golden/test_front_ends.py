"""Decoder, resampler and front ends against the original packages, on our own inputs. Needs the core only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from av_bench.contracts import VideoRequest
from av_bench.extractors import frontends
from av_bench.extractors.imagebind import ImageBindAudio
from av_bench.media.decode import DecodedMedia, decode, resize
from model_zoo.mmaudio.codec.mel import MELS, MelConfig, log_mel
from tests.golden import pack

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module", params=list(pack.SOUNDS))
def sound(request: pytest.FixtureRequest) -> tuple[str, DecodedMedia]:
    return request.param, decode(pack.SOUNDS[request.param])


def wave(item: DecodedMedia, rate: int, *, remove_mean: bool = True) -> Tensor:
    return item.waveform(rate, pack.SECONDS, remove_mean=remove_mean)


@pytest.mark.parametrize("rate", [16_000, 32_000, 44_100, 48_000])
def test_the_load_rule_is_torchaudios(sound: tuple[str, DecodedMedia], rate: int) -> None:
    name, item = sound
    ours = pack.thinned(wave(item, rate), edge=256, step=61)
    assert pack.relative(ours, pack.load("waveforms")[f"{name} {rate}"]) < 1e-5


def test_the_mean_stays_where_it_should(sound: tuple[str, DecodedMedia]) -> None:
    name, item = sound
    reference = pack.load("waveforms")[f"{name} 16000 with its mean"]
    assert pack.relative(pack.thinned(wave(item, 16_000, remove_mean=False), edge=256, step=61), reference) < 1e-5
    if name == "chirp":  # it has an offset: removing it would be seen
        assert pack.relative(pack.thinned(wave(item, 16_000), edge=256, step=61), reference) > 1e-2


def mmaudio_mel(rate: str, item: DecodedMedia) -> Tensor:
    """In natural logarithm, which bigvgan uses for both; MMAudio's 16 kHz model has the base 10."""
    config = MELS[rate]
    natural = MelConfig(config.sample_rate, config.n_fft, config.hop, config.n_mels, config.low, config.high, log="e")
    return log_mel(wave(item, config.sample_rate)[None], natural)[0]


# name -> how it is made, limits of the largest and of the mean difference. The largest are in bins near silence, where
# a logarithm turns the rounding of an FFT (another on each processor) into up to 1e-3; a wrong window, hop or filter
# bank moves the mean by 1e-2 and more.
FRONT_ENDS: dict[str, tuple[Callable[[DecodedMedia], Any], float, float]] = {
    "panns": (
        lambda x: pack.thinned(frontends.decibel_mel(wave(x, 16_000)[None], 16_000, 512, 160, 50.0, 8000.0)[0], 0),
        2e-2,  # in dB, as clap
        2e-4,
    ),
    "clap": (
        lambda x: pack.thinned(frontends.decibel_mel(wave(x, 48_000)[None], 48_000, 1024, 480, 50.0, 14_000.0)[0], 0),
        2e-2,
        2e-4,
    ),
    "vggish": (lambda x: pack.thinned(frontends.vggish_examples(wave(x, 16_000)[None])[0], 1), 1e-3, 2e-5),
    "passt": (
        lambda x: pack.thinned(frontends.passt_mel(frontends.fit(wave(x, 32_000), frontends.PASST_SAMPLES)[None])[0]),
        5e-3,
        5e-5,
    ),
    "imagebind": (
        lambda x: pack.thinned(frontends.imagebind_mel(ImageBindAudio(None, "none").prepare(x, pack.SECONDS))[:, 0]),
        1e-2,
        1e-4,
    ),
    "synchformer": (
        lambda x: pack.thinned(frontends.synchformer_mel(wave(x, 16_000, remove_mean=False)[None])[0, :, 0]),
        1e-3,
        2e-5,
    ),
    "mmaudio 16k": (lambda x: pack.thinned(mmaudio_mel("16k", x)), 5e-3, 5e-5),
    "mmaudio 44k": (lambda x: pack.thinned(mmaudio_mel("44k", x)), 5e-3, 5e-5),
}


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_log_mel_is_the_originals(sound: tuple[str, DecodedMedia], name: str) -> None:
    clip, item = sound
    ours, largest, mean = FRONT_ENDS[name]
    reference = pack.load("log_mels")[f"{clip} {name}"]
    made = ours(item)
    assert pack.absolute(made, reference) < largest
    assert abs(made - reference).mean() < mean


@pytest.mark.parametrize("change", [{"hop": 254}, {"n_fft": 1000}, {"low": 20}, {"high": 7900}])
def test_another_mel_is_noticed(change: dict[str, int]) -> None:
    """The limits above are far below what the smallest change of a setting moves."""
    item = decode(pack.SOUNDS["impact"])
    right = replace(MELS["16k"], log="e")
    audio = wave(item, right.sample_rate)[None]
    made, wrong = (log_mel(audio, config)[0] for config in (right, replace(right, **change)))
    frames = min(made.shape[1], wrong.shape[1])
    assert (made[:, :frames] - wrong[:, :frames]).abs().mean() > 1e-2


def test_imagebind_hears_the_pinned_clips(sound: tuple[str, DecodedMedia]) -> None:
    """The golden names the rule, and clips at other places are far away from it."""
    clip, item = sound
    assert "ae9cfc6" in pack.note("log_mels")["rules"]["clip starts"]
    audio = item.channels(16_000, None)
    thirds = [int(i * (audio.shape[1] / 16_000 - 2) / 3 * 16_000) for i in range(3)]
    other = torch.stack([audio[0, start : start + 32_000] for start in thirds])
    made = pack.thinned(frontends.imagebind_mel(other - other.mean(dim=1, keepdim=True))[:, 0])
    assert pack.absolute(made, pack.load("log_mels")[f"{clip} imagebind"]) > 0.1


# --------------------------------------------------------------------------- frames

WAYS = {"center 224": ("center", 224), "squash 384": ("squash", 384), "center 64": ("center", 64)}
PICKED = {"1/2": slice(0, 4), "8": [0, 5, 11, 38], "25": [0, 5, 11, 38]}


@pytest.mark.parametrize("rate", PICKED)
@pytest.mark.parametrize("way", WAYS)
def test_frames_are_picked_by_ffmpeg_and_resized_by_torchvision(way: str, rate: str) -> None:
    """To one level of 256: colour conversion and resizing round differently on some processors."""
    stored = pack.load("frames")
    mode, size = WAYS[way]
    request = VideoRequest(0.5 if rate == "1/2" else float(rate), size, mode)  # type: ignore[arg-type]
    shown = decode(pack.VIDEO, [request], 8.0, audio=False).frames(request)
    assert len(shown) == int(stored[f"count at {rate}"])
    ours = shown[PICKED[rate]][..., 3::17, 5::17]
    assert pack.absolute(ours, stored[f"{way} at {rate}"]) <= 1
    assert abs(ours.float() - torch.from_numpy(stored[f"{way} at {rate}"]).float()).mean() < 0.05
    assert pack.absolute(ours.roll(1, dims=0), stored[f"{way} at {rate}"]) > 2  # another frame is another picture


def test_crops_of_a_tall_picture_are_imagebinds() -> None:
    noise = torch.from_numpy(pack.bytes_of(5, (1, 3, 90, 50)))
    crops = frontends.spatial_crops(resize(noise, VideoRequest(0.5, 224, "short")))
    assert pack.absolute(crops[..., 3::17, 5::17], pack.load("frames")["tall crops"]) <= 1


# --------------------------------------------------------------------------- the pack itself


def test_every_golden_names_what_made_it() -> None:
    assert len(pack.names()) >= 14
    for name in pack.names():
        made_from = pack.note(name)["made_from"]
        assert {"torch", "numpy"} < set(made_from), name
        assert all(version and version[0].isdigit() for version in made_from.values()), name


def test_the_pack_stays_small() -> None:
    files = [path for path in pack.HERE.rglob("*") if path.suffix in (".npz", ".flac", ".mp4")]
    assert sum(path.stat().st_size for path in files) < 4_000_000
