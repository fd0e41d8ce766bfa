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
from model_zoo.mmaudio.codec.vae import VAE, VAEConfig
from model_zoo.mmaudio.flow.load import header_of
from model_zoo.mmaudio.nano.codec import FIRST, SECOND, CodecConfig, NanoCodec, codec_config, codec_header, read_codec
from model_zoo.mmaudio.nano.recipe import save_weights, write_half
from model_zoo.mmaudio.nano.spectral_loss import Weights, energy_distance
from model_zoo.mmaudio.nano.vocoder import NanoVocoder, VocoderConfig
from model_zoo.mmaudio.nano.vocoder_training import VocoderRecipe, log_lines, train_codec
from model_zoo.mmaudio.vae_training.losses import loud_error
from model_zoo.mmaudio.vae_training.recipes import RECIPES, difference, plain

TINY = CodecConfig(
    MelConfig(16_000, n_fft=320, hop=160, n_mels=16),
    VAEConfig(data_dim=16, embed_dim=4, hidden=8, ch_mult=(1, 1), num_res_blocks=1, constant=True),
    VocoderConfig(width=8, inner=16, blocks=1, window=320, noise=True, relative=True),
)


def tiny() -> NanoCodec:
    torch.manual_seed(0)
    codec = NanoCodec(TINY)
    codec.vae.data_mean.zero_()
    codec.vae.data_std.fill_(1)
    return codec.eval()


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


def test_without_a_constant_channel_the_vae_does_not_hear_how_loud_a_frame_is() -> None:
    mel = white(1, 16, 8)
    for constant in (False, True):
        torch.manual_seed(0)
        vae = VAE(replace(TINY.vae, constant=constant), torch.zeros(16), torch.ones(16)).eval()
        soft, loud = vae.encode(mel).mean, vae.encode(3 * mel).mean
        assert torch.allclose(soft, loud, atol=1e-3) is not constant


def test_checkpoints_of_earlier_versions_still_count_as_the_same_recipe() -> None:
    vae_recipe = RECIPES["tiny"]
    stored = plain(vae_recipe)
    del stored["loud_weight"], stored["cooldown"], stored["vae"]["constant"]
    assert difference(stored, vae_recipe) == []
    assert difference(stored, replace(vae_recipe, loud_weight=1.0)) == ["loud_weight"]
    assert difference(stored, replace(vae_recipe, vae=replace(vae_recipe.vae, constant=True))) == ["vae"]


def test_a_cooldown_ends_at_nothing() -> None:
    steady = replace(RECIPES["tiny"], steps=1000, warmup=0, decay_from=0)
    rates = [replace(steady, cooldown=100).rate_at(step) / steady.rate for step in (900, 901, 951, 1000)]
    np.testing.assert_allclose(rates, [1, 1, 0.5, 0.01])
    assert steady.rate_at(1000) == steady.rate


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
    errors = loud_error(mel + 0.1, mel)[0] / 0.1
    np.testing.assert_allclose(errors, [1 + 10**-1.875, 2, 1 + 10**1.875], rtol=1e-4)
    torch.testing.assert_close(loud_error(mel + 0.1, mel, 0.0), torch.full_like(mel, 0.1))


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
    with pytest.raises(UsageError, match="VAE of 16 bins, mel of 64"):
        replace(TINY, mel=FIRST.mel)
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
