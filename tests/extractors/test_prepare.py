"""What each extractor takes from a decoded file, without networks: lengths, channels, tiling, refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from av_bench import registry
from av_bench.contracts import MediaError, MetricError, Reason, UsageError
from av_bench.extractors import msclap, tokens
from av_bench.media.decode import DecodedMedia
from tests.extractors.front_ends import letters

RATE = 48_000


def sound(seconds: float, channels: int = 2, rate: int = RATE) -> DecodedMedia:
    """Different noise in every channel, with an offset."""
    audio = 0.1 * torch.randn(channels, int(seconds * rate), generator=torch.Generator().manual_seed(3)) + 0.05
    return DecodedMedia(Path("clip.wav"), "0" * 64, audio, rate, {}, None)


def picture(name: str, frames: int, width: int = 224) -> tuple[Any, DecodedMedia]:
    extractor = bare(name)
    shown = torch.arange(frames, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 224, width)
    return extractor, DecodedMedia(Path("clip.mp4"), "0" * 64, None, 0, {extractor.video_request: shown}, None)


def bare(name: str, flavour: str = "paper") -> Any:
    return registry.load("extractors", name)(None, "none", "cpu", flavour)


@pytest.mark.parametrize("seconds", [2.0, 8.0])
@pytest.mark.parametrize(
    ("name", "samples"),
    [
        ("passt", {2.0: 320_000, 8.0: 320_000}),
        ("panns", {2.0: 32_000, 8.0: 128_000}),
        ("vggish", {2.0: 32_000, 8.0: 128_000}),
        ("clap-audio", {2.0: 480_000, 8.0: 480_000}),
    ],
)
def test_mono_extractors_take_the_centred_mix_of_the_first_seconds(
    name: str, samples: dict[float, int], seconds: float
) -> None:
    item = sound(10.0)
    wave = bare(name).prepare(item, seconds)
    assert wave.shape == (samples[seconds],)
    rate = {"passt": 32_000, "clap-audio": 48_000}.get(name, 16_000)
    head = item.waveform(rate, seconds)
    assert torch.equal(wave[: len(head)], head)
    rest = wave[len(head) :]
    if name == "clap-audio" and seconds == 2.0:
        assert torch.equal(wave, head.repeat(5))  # whole copies while they fit
    elif len(rest):
        assert not rest.any()


def test_no_extractor_imports_a_network_before_it_is_built() -> None:
    code = (
        "import sys; from av_bench import registry\n"
        "for name in registry.OWN['extractors'].values():\n"
        "    if 'nano' not in name: __import__(name.split(':')[0])\n"
        "print({n.split('.')[0] for n in sys.modules})"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    networks = {"hear21passt", "panns_inference", "torchvggish", "imagebind", "laion_clap", "msclap", "transformers"}
    assert "av_bench" in out
    assert not [name for name in networks if f"'{name}'" in out]


@pytest.mark.parametrize(
    ("name", "seconds", "needed"),
    [("panns", 0.30, 0.31), ("vggish", 0.97, 0.975), ("imagebind-audio", 0.02, 0.025), ("synchformer-audio", 7.9, 8.0)],
)
def test_too_short_audio_is_refused_with_its_reason(name: str, seconds: float, needed: float) -> None:
    extractor = bare(name)
    assert extractor.prepare(sound(needed, rate=16_000), 8.0).numel()
    with pytest.raises(MediaError) as caught:
        extractor.prepare(sound(seconds, rate=16_000), 8.0)
    assert caught.value.reason is Reason.TOO_SHORT_AUDIO


def test_panns_minimum_is_what_the_network_can_pool() -> None:
    """32 frames survive five halvings, 31 do not."""
    from av_bench.extractors.panns import MINIMUM

    frames = [1 + samples // 160 for samples in (MINIMUM, MINIMUM - 1)]
    assert [count // 2 // 2 // 2 // 2 // 2 for count in frames] == [1, 0]


def test_synchformer_needs_a_whole_crop_even_when_fewer_seconds_are_asked() -> None:
    with pytest.raises(MediaError, match=r"needs 4\.80 s"):
        bare("synchformer-audio").prepare(sound(4.5, rate=16_000), 4.5)


@pytest.mark.parametrize(("name", "enough"), [("synchformer-video", 200), ("imagebind-video", 4)])
def test_missing_frames_are_refused_and_extra_ones_cut(name: str, enough: int) -> None:
    extractor, item = picture(name, enough + 3)
    prepared = extractor.prepare(item, 8.0)
    assert prepared.shape == ((200, 3, 224, 224) if enough == 200 else (3, 4, 3, 224, 224))
    assert prepared.dtype == torch.uint8
    extractor, item = picture(name, enough - 1)
    with pytest.raises(MediaError) as caught:
        extractor.prepare(item, 8.0)
    assert caught.value.reason is Reason.TOO_SHORT_VIDEO


def test_imagebind_paper_reads_the_left_channel_of_the_uncut_file() -> None:
    item = sound(10.0)
    left = DecodedMedia(item.path, item.digest, torch.stack([item.audio[0], 7 * item.audio[1]]), RATE, {}, None)  # type: ignore[index]
    paper, strict = bare("imagebind-audio"), bare("imagebind-audio", "strict")
    clips, louder = paper.prepare(item, 8.0), paper.prepare(left, 8.0)
    assert clips.shape == (3, 32_000)
    # The right channel moves the mean alone, and that is a constant which the filter bank removes again.
    assert (clips.diff(dim=1) - louder.diff(dim=1)).abs().max() < 1e-6
    assert (strict.prepare(item, 8.0) - strict.prepare(left, 8.0)).abs().max() > 0.1
    # 10 s, not cut to the 8 s that are scored: the clips start at 0, 4 and 8 s; strict cuts first.
    whole = item.channels(16_000, None)[0]
    for clip, start in zip(clips, (0, 64_000, 128_000), strict=True):
        assert (clip.diff() - whole[start : start + 32_000].diff()).abs().max() < 1e-6
    mono = item.waveform(16_000, 8.0)
    assert (strict.prepare(item, 8.0)[2].diff() - mono[-32_000:].diff()).abs().max() < 1e-6


@pytest.mark.parametrize(("seconds", "frames"), [(0.5, 48), (2.0, 198)])
def test_imagebind_pads_a_short_clip_in_the_log_domain(seconds: float, frames: int) -> None:
    from av_bench.extractors import frontends

    mel = frontends.imagebind_mel(bare("imagebind-audio").prepare(sound(seconds, rate=16_000), 8.0))
    assert mel.shape == (3, 1, 128, 204)
    assert (mel[..., frames:] - 4.268 / 9.138).abs().max() < 1e-6
    assert (mel[..., :frames] - 4.268 / 9.138).abs().mean() > 0.1


def test_msclap_paper_takes_the_first_window_of_channels_laid_end_to_end() -> None:
    item = sound(5.0, rate=44_100)
    window = bare("msclap-audio").prepare(item, 8.0)
    assert window.shape == (1, msclap.WINDOW)
    assert torch.equal(window[0], item.audio.flatten()[: msclap.WINDOW])  # type: ignore[union-attr]


def test_msclap_strict_covers_the_mono_mix_and_tiles_what_is_short() -> None:
    strict = bare("msclap-audio", "strict")
    item = sound(10.0, rate=44_100)
    windows, mono = strict.prepare(item, 8.0), item.waveform(44_100, 8.0, remove_mean=False)
    assert torch.equal(windows, torch.stack([mono[: msclap.WINDOW], mono[-msclap.WINDOW :]]))
    short = sound(3.0, rate=44_100)
    mono = short.waveform(44_100, 8.0, remove_mean=False)
    assert torch.equal(strict.prepare(short, 8.0)[0], mono.repeat(3)[: msclap.WINDOW])


def test_head_refuses_less_than_a_crop() -> None:
    head = registry.load("extractors", "synchformer")(torch.nn.Identity(), "none")
    with pytest.raises(MetricError, match="14 segments"):
        head.forward(torch.zeros(1, 13, 8, 768), torch.zeros(1, 13, 6, 768))


def test_encode_gives_ids_and_mask_of_fixed_length() -> None:
    encoded = tokens.encode(letters, "dog", cut=True)
    assert encoded.shape == (2, 77)
    assert encoded.dtype == torch.int64
    np.testing.assert_array_equal(encoded[:, :4], [[100, 111, 103, 1], [1, 1, 1, 0]])


def test_clap_cuts_a_long_caption_and_msclap_reads_all_of_it() -> None:
    clap, msclap_text = bare("clap-text"), bare("msclap-text")
    clap._tokenizer = msclap_text._tokenizer = letters
    caption = "a dog barks " * 10
    assert clap.prepare(caption, 8.0).shape == (2, 77)
    encoded = msclap_text.prepare(caption, 8.0)
    assert "".join(map(chr, encoded[0].tolist())) == caption + " <|endoftext|>"
    assert encoded[1].all()
    with pytest.raises(UsageError, match="1024"):
        msclap_text.prepare("a dog barks " * 100, 8.0)
