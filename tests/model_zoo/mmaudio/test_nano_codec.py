"""The codec of mmaudio-nano: its generations, the noise that is drawn and the loss that wants it, resumed training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from av_bench.contracts import UsageError
from model_zoo.mmaudio.codec.mel import MelConfig, log_mel, mel_bank
from model_zoo.mmaudio.flow.load import header_of
from model_zoo.mmaudio.nano.codec import FIRST, SECOND, CodecConfig, NanoCodec, codec_config, codec_header, read_codec
from model_zoo.mmaudio.nano.patches import PatchConfig, Patches
from model_zoo.mmaudio.nano.spectral_loss import Weights, energy_distance, loud_error, loudness
from model_zoo.mmaudio.nano.stage_files import save_weights, write_half
from model_zoo.mmaudio.nano.vocoder import NanoVocoder, VocoderConfig
from model_zoo.mmaudio.nano.vocoder_training import VocoderRecipe, log_lines, train_codec

PATCHES = PatchConfig(stride=2, latents=4, width=8, inner=8, blocks=1)
TINY = CodecConfig(
    MelConfig(16_000, n_fft=320, hop=160, n_mels=16),
    VocoderConfig(width=8, inner=16, blocks=1, window=320, noise=True, relative=True),
    patches=PATCHES,
)


def tiny() -> NanoCodec:
    torch.manual_seed(0)
    return NanoCodec(TINY).eval()


def white(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sizes", [FIRST, SECOND])
def test_the_overlap_of_exact_spectra_is_the_wave(sizes: CodecConfig) -> None:
    window, edge = sizes.vocoder.window, (sizes.vocoder.window - 160) // 2
    wave = torch.from_numpy(np.random.default_rng(0).uniform(-0.5, 0.5, (2, 160 * 40)).astype(np.float32))
    padded = F.pad(wave[:, None], (edge, edge), mode="reflect")[:, 0]
    spectrum = torch.stft(padded, window, 160, window=torch.hann_window(window), center=False, return_complex=True)
    assert spectrum.shape[-1] == log_mel(wave, sizes.mel).shape[-1] == 40
    made = NanoVocoder(sizes.vocoder, sizes.mel).synthesise(spectrum)
    torch.testing.assert_close(made, wave, rtol=0, atol=1e-5)


def test_every_band_of_the_second_generation_hears_something() -> None:
    assert (mel_bank(SECOND.mel).amax(dim=1) > 0).all()
    assert (mel_bank(replace(SECOND.mel, n_fft=320)).amax(dim=1) == 0).any()  # a window can be too short for 128


def test_drawn_noise_is_white_of_unit_variance_and_the_same_for_all() -> None:
    vocoder = NanoVocoder(SECOND.vocoder, SECOND.mel)
    noise = vocoder.draw(400)
    assert float(noise.abs().square()[:, 1:-1].mean()) == pytest.approx(1, abs=0.05)
    mel = white(3, 128, 20)
    with torch.no_grad():
        assert torch.equal(vocoder(mel), vocoder(mel))
        torch.testing.assert_close(vocoder(mel)[1:2], vocoder(mel[1:2]), rtol=0, atol=1e-5)


def test_levels_follow_the_mel() -> None:
    """White noise at any level: its magnitudes lie where the mel says they do (the mean of a logarithm lies lower)."""
    vocoder, euler = NanoVocoder(SECOND.vocoder, SECOND.mel), 0.5772
    for gain in (0.001, 0.3):
        wave = gain * white(2, 32_000)
        level = vocoder.level(log_mel(wave.clamp(-1, 1), SECOND.mel)).mean()
        power = gain**2 * vocoder.window.square().sum()
        assert float(level) == pytest.approx(0.5 * (float(power.log()) - euler), abs=0.35)
        mel = log_mel(wave, SECOND.mel)
        assert float((log_mel(vocoder(mel).detach(), SECOND.mel) - mel).abs().mean()) < 0.35  # untrained


def test_patches_hold_the_components_and_nothing_is_lost_with_all_of_them() -> None:
    """Mels of four hidden signals: four components are enough; with all components any mel comes back."""
    mixing, hidden = white(16, 4, seed=1), white(20, 4, 60, seed=2).repeat_interleave(2, dim=2)
    mels = mixing @ hidden - 3
    few, all_of_them = Patches(replace(PATCHES, latents=4), 16), Patches(replace(PATCHES, latents=32), 16)
    assert few.fit([mels[:12], mels[12:]]) == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(few.decode(few.encode(mels).mean), mels, rtol=0, atol=1e-3)
    latents = few.encode(mels).mean.transpose(1, 2).reshape(-1, 4)
    assert float(latents.square().mean().sqrt()) == pytest.approx(0.5, abs=0.01)
    deviations = torch.linalg.svdvals(few._cut(mels).flatten(0, 1))[:4]  # what each component carries of the mels
    torch.testing.assert_close(latents.norm(dim=0) / latents.norm(), deviations / deviations.norm(), rtol=0, atol=0.01)
    noise = white(40, 16, 60)
    assert all_of_them.fit([noise]) == pytest.approx(1)
    posterior = all_of_them.encode(3 * noise)
    torch.testing.assert_close(all_of_them.decode(posterior.mean), 3 * noise, rtol=0, atol=1e-3)  # as loud as it was
    assert float(posterior.std.mean()) == pytest.approx(0.05)
    with pytest.raises(UsageError, match="too few"):
        few.fit([mels[:1, :, :60]])
    with pytest.raises(UsageError, match="a multiple of 2"):
        few.encode(mels[..., :5])


def test_the_loss_is_least_for_noise_as_wide_as_the_real_one() -> None:
    """And the mean distance alone, without what the draws differ by, wants too little of it: the hum."""
    real = 0.1 * white(8, 12_800)
    weights = Weights(mel=4.0, magnitude=1.0)
    width = [0.5, 0.7, 0.85, 1.0, 1.2, 1.5]

    def at(gain: float, draws: int) -> float:
        made = [0.1 * gain * white(8, 12_800, seed=1 + n) for n in range(draws)]
        return float(energy_distance(made, real, SECOND.mel, weights))

    assert min(width, key=lambda gain: at(gain, 2)) == 1.0
    assert at(1.0, 1) > 0.1
    assert energy_distance([real], real, SECOND.mel, weights) < 1e-3


def test_loud_cells_weigh_more() -> None:
    mel = torch.tensor([[-5.0, -2.5, 0.0]])
    np.testing.assert_allclose(loudness(mel)[0], [10**-1.875, 1, 10**1.875], rtol=1e-5)
    assert float(loud_error(mel + 0.1, mel)) == pytest.approx(0.1 * float((1 + loudness(mel)).mean()), rel=1e-4)


def test_a_file_says_its_sizes_and_one_without_a_header_is_of_the_first_generation(tmp_path: Path) -> None:
    codec = tiny()
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    save_weights(codec, whole, codec_header(TINY))
    write_half(whole, half)
    assert codec_config(whole) == codec_config(half) == TINY
    found = read_codec(half)
    assert half.stat().st_size < 0.7 * whole.stat().st_size
    latent = white(1, 10, 4)
    torch.testing.assert_close(found.decode(latent), codec.decode(latent), rtol=0, atol=0.02)
    assert found.decode(latent).shape == (1, 10 * found.samples_per_latent)

    old = tmp_path / "old.safetensors"
    save_weights(NanoCodec(), old)
    assert codec_config(old) == FIRST
    odd = tmp_path / "odd.safetensors"
    save_weights(codec, odd, {"codec": {**codec_header(TINY)["codec"], "bands": 3}})
    with pytest.raises(UsageError, match=r"odd\.safetensors: codec.*bands"):
        read_codec(odd)
    huge = tmp_path / "huge.safetensors"
    with torch.no_grad():
        codec.vocoder.enter.weight.fill_(1e6)
    save_weights(codec, huge)
    with pytest.raises(UsageError, match=r"vocoder\.enter\.weight do not fit into fp16"):
        write_half(huge, tmp_path / "no.safetensors")


def test_sizes_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="VAE of 64 bins, mel of 16"):
        replace(FIRST, mel=TINY.mel)
    with pytest.raises(UsageError, match="one of vae and patches"):
        replace(FIRST, patches=PATCHES)
    with pytest.raises(UsageError, match="33 components of 32 values"):
        Patches(replace(PATCHES, latents=33), 16)
    with pytest.raises(UsageError, match="no even overlap"):
        NanoVocoder(replace(TINY.vocoder, window=300), TINY.mel)
    assert header_of(codec_header(TINY)).keys() == {"about"}


class Killed(Exception):
    """In place of a kill."""


def test_a_killed_training_of_the_codec_resumes_as_if_unbroken(tmp_path: Path) -> None:
    audio = np.random.default_rng(0).integers(-9000, 9000, (6, 8000), dtype=np.int16)
    recipe = VocoderRecipe(
        steps=5, batch=2, frames=12, warmup=2, adversarial_from=2, discriminator_width=4, decoder=True, holdout=2,
        log_every=1, save_every=2,
    )  # fmt: skip
    start = {key: value.clone() for key, value in tiny().state_dict().items()}
    whole = train_codec(recipe, audio, tiny(), tmp_path / "whole", report=lambda _: None)
    losses = {name for line in log_lines(tmp_path / "whole") for name in line}
    assert {"spectral", "decoder", "critics", "adversary", "features"} <= losses

    def until_fourth(line: str) -> None:
        if " step 4:" in line:
            raise Killed

    with pytest.raises(Killed):
        train_codec(recipe, audio, tiny(), tmp_path / "broken", report=until_fourth)
    said: list[str] = []
    broken = train_codec(recipe, audio, tiny(), tmp_path / "broken", report=said.append)
    assert said[0] == "broken: resumed at step 2"
    ours, theirs = whole.state_dict(), broken.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    moved = {key for key in ours if not torch.equal(ours[key], start[key])}
    trained = ("vae.decoder.", "vocoder.")
    assert all(key.startswith(trained) for key in moved)
    assert all(any(key.startswith(part) for key in moved) for part in trained)
    assert [line["step"] for line in log_lines(tmp_path / "broken")] == [1, 2, 3, 4, 5]
    with pytest.raises(UsageError, match=r"different recipe \(batch\)"):
        train_codec(replace(recipe, batch=1), audio, tiny(), tmp_path / "broken", report=said.append)
    with pytest.raises(UsageError, match="different data"):
        train_codec(recipe, audio[1:], tiny(), tmp_path / "broken", report=said.append)
