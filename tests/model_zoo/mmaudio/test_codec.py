"""The codec as a whole on shrunken networks, and how it takes and refuses weight files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from av_bench.contracts import MissingRequirement, UsageError
from av_bench.weights import BadWeights
from model_zoo.mmaudio.codec import published, vocoder
from model_zoo.mmaudio.codec.mel import MELS, log_mel
from model_zoo.mmaudio.codec.published import OfficialCodec, load_vae
from model_zoo.mmaudio.codec.vae import VAE, VAEConfig
from model_zoo.mmaudio.codec.vocoder import BigVGAN, VocoderConfig
from model_zoo.mmaudio.config import VARIANTS
from tests.model_zoo.mmaudio.goldens import close

SMALL_VAES = {"16k": VAEConfig(80, 20, 8, ch_mult=(1, 2)), "44k": VAEConfig(128, 40, 8, ch_mult=(1, 2))}
SMALL_VOCODERS = {
    "16k": VocoderConfig(80, (4, 4, 2, 2, 2, 2), channels=64),
    "44k": VocoderConfig(128, (8, 4, 2, 2, 2, 2), channels=64, tanh=False, last_bias=False),
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Path, Path]]:
    """Weight files of shrunken networks, wrapped as the published ones are."""
    monkeypatch.setattr(published, "VAES", SMALL_VAES)
    monkeypatch.setattr(vocoder, "VOCODERS", SMALL_VOCODERS)
    torch.manual_seed(0)
    made = {}
    for rate, config in SMALL_VAES.items():
        paths = tmp_path / f"vae-{rate}.pth", tmp_path / f"vocoder-{rate}.pt"
        vae = VAE(config, torch.full((config.data_dim,), -3.0), torch.full((config.data_dim,), 1.5))
        torch.save(vae.state_dict(), paths[0])
        torch.save({"generator": BigVGAN(SMALL_VOCODERS[rate]).state_dict()}, paths[1])
        made[rate] = paths
    return made


@pytest.mark.parametrize("rate", ["16k", "44k"])
def test_there_and_back(files: dict[str, tuple[Path, Path]], rate: str) -> None:
    made = OfficialCodec(rate, *files[rate])  # type: ignore[arg-type]
    assert (made.sample_rate, made.latent_dim) == (MELS[rate].sample_rate, {"16k": 20, "44k": 40}[rate])
    wave = torch.rand(1, 6 * made.samples_per_latent) - 0.5
    mean, std = made.encode(wave)
    assert mean.shape == std.shape == (1, 6, made.latent_dim)
    assert float(std.min()) > 0
    raw = load_vae(rate, files[rate][0])
    posterior = raw.encode(log_mel(wave, MELS[rate]))
    close(mean, posterior.mean.transpose(1, 2).detach())
    out = made.decode(mean)
    assert out.shape == wave.shape
    assert float(out.abs().max()) <= 1
    close(out, made.vocoder(raw.decode(posterior.mean)).detach(), 1e-3)
    assert not any(p.requires_grad for p in made.parameters())


def test_features_need_no_vocoder(files: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    made = OfficialCodec("16k", files["16k"][0], tmp_path / "nowhere.pt", decodes=False)
    wave = torch.rand(1, 6 * made.samples_per_latent) - 0.5
    assert torch.equal(made.encode(wave)[0], OfficialCodec("16k", *files["16k"]).encode(wave)[0])
    with pytest.raises(UsageError, match="built to encode only"):
        made.decode(torch.zeros(1, 6, 20))


@pytest.mark.parametrize("rate", ["16k", "44k"])
def test_lengths_are_those_of_the_flow_networks(files: dict[str, tuple[Path, Path]], rate: str) -> None:
    made = OfficialCodec(rate, *files[rate])  # type: ignore[arg-type]
    networks = {(v.network.latent_len, v.network.latent_dim) for v in VARIANTS.values() if v.rate == rate}
    assert networks == {(made.latent_len(8.0), made.latent_dim)}
    assert made.latent_len(10.0) == {"16k": 313, "44k": 431}[rate]
    assert 0 <= made.latent_len(2.5) * made.samples_per_latent - 2.5 * made.sample_rate < made.samples_per_latent


def test_refusals(files: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    made = OfficialCodec("16k", *files["16k"])
    with pytest.raises(UsageError, match=r"\(B, a multiple of 512\), got \(1, 600\)"):
        made.encode(torch.zeros(1, 600))
    with pytest.raises(UsageError, match=r"\(B, N, 20\), got \(1, 20, 5\)"):
        made.decode(torch.zeros(1, 20, 5))
    with pytest.raises(UsageError, match="known are 16k, 44k"):
        OfficialCodec("48k")  # type: ignore[arg-type]
    with pytest.raises(BadWeights, match="other shapes"):
        OfficialCodec("16k", files["44k"][0], files["16k"][1])
    state = torch.load(files["16k"][0], weights_only=True)
    state["extra.weight"] = state.pop("decoder.conv_out.weight")
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(BadWeights, match=r"missing keys \(decoder.conv_out.weight\).*unexpected keys \(extra.weight\)"):
        OfficialCodec("16k", tmp_path / "odd.pth", files["16k"][1])
    state["decoder.conv_out.weight"] = state.pop("extra.weight") * float("nan")
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(BadWeights, match=r"not finite \(decoder.conv_out.weight\)"):
        OfficialCodec("16k", tmp_path / "odd.pth", files["16k"][1])


def test_absent_files_say_how_to_get_them() -> None:
    with pytest.raises(MissingRequirement, match="av-bench weights pull mmaudio-vae-44k"):
        OfficialCodec("44k")
