"""MMAudio on a GPU that is not there: everything that meets lies on one device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from av_bench.contracts import Clip, Decoded, VideoRequest
from av_bench.media.decode import decode
from av_bench.networks.synchformer import VideoEncoder
from model_zoo.mmaudio.codec.mel import log_mel
from model_zoo.mmaudio.codec.published import OfficialCodec
from model_zoo.mmaudio.codec.vae import VAE, VAES
from model_zoo.mmaudio.codec.vocoder import VOCODERS, BigVGAN
from model_zoo.mmaudio.conditions.published import OfficialConditioner
from model_zoo.mmaudio.config import NetworkConfig, Rate, sequence_lengths, variant
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.sampling.generator import MMAudio
from model_zoo.mmaudio.sampling.inputs import Inputs
from model_zoo.mmaudio.sampling.published import ARRANGE_ON
from model_zoo.mmaudio.sampling.settings import Settings
from model_zoo.mmaudio.training import setup
from model_zoo.mmaudio.training.distributed import Cluster
from model_zoo.mmaudio.training.ema import PostHocEMA
from model_zoo.mmaudio.training.mix import Dropout
from model_zoo.mmaudio.training.objective import Normaliser, adamw, autocast, losses, update
from tests.fake_cuda import CUDA, fake_cuda, needs_cuda_build
from tests.media_files import write_video
from tests.model_zoo.mmaudio.test_conditions import SMALL, needs_open_clip, small_clip_weights
from tests.model_zoo.mmaudio.training_tools import tiny_recipe

pytestmark = [needs_cuda_build, pytest.mark.paper]
SECONDS = 12.0  # two windows


class Codec:
    """Latents as sound."""

    sample_rate = 16_000

    def __init__(self, config: NetworkConfig) -> None:
        self.latent_dim = config.latent_dim

    def latent_len(self, seconds: float) -> int:
        return sequence_lengths("16k", seconds)[0]

    def encode(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def decode(self, latent: Tensor) -> Tensor:
        assert latent.device.type == "cuda"
        return latent.repeat_interleave(64, dim=1).flatten(1)

    def to(self, _device: torch.device) -> Codec:
        return self


class Conditioner:
    """Conditions on the CPU, as they come from the store."""

    requests: tuple[VideoRequest, ...] = ()
    fingerprint = "random"
    device = CUDA

    def __init__(self, config: NetworkConfig) -> None:
        self.config = config

    def lengths(self, seconds: float) -> tuple[int, int]:
        _, clip, sync = sequence_lengths("16k", seconds)
        return clip, sync

    def video(self, media: Decoded, seconds: float, start: float = 0.0) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def text(self, _text: str) -> Tensor:
        return torch.randn(self.config.text_len, self.config.text_dim)

    def to(self, _device: torch.device) -> Conditioner:
        return self


def read(model: MMAudio, number: int) -> Inputs:
    """Conditions of one clip; every second one has no video."""
    count, config = len(model.windows), model.network.config
    inputs = Inputs(Clip(f"clip-{number}", None, text="a dog"))
    inputs.text = model.conditioner.text("a dog").expand(count, -1, -1)
    if number % 2 == 0:
        inputs.visual = torch.randn(count, config.clip_len, config.clip_dim)
        inputs.sync = torch.randn(count, config.sync_len, config.sync_dim)
    return inputs


@pytest.mark.parametrize("name", ["mmaudio-s-16k", "mmaudio-l-44k-v2"])
@pytest.mark.parametrize("cfg", [4.5, 0.0])
@pytest.mark.parametrize("arrange_on", [frozenset(), ARRANGE_ON], ids=["plain", "arranged"])
def test_sampling_stays_on_the_device(name: str, cfg: float, arrange_on: frozenset[str]) -> None:
    with fake_cuda():
        config = variant(name).network
        network = FlowNetwork(config)
        negative = "music" if cfg >= 1 else ""
        settings = Settings(steps=2, cfg=cfg, negative=negative, window=8.0, batch=4)  # six windows: in two parts
        model = MMAudio(name, network, Codec(config), Conditioner(config), settings, arrange_on=arrange_on)
        model.place("cuda")
        assert (network.arranged is not None) == bool(arrange_on)
        model._plan(SECONDS)
        jobs = [(read(model, number), 0) for number in range(3)]
        found, latent, _ = model._latents(jobs, seed=1)
        assert latent.device.type == "cuda"
        made = model._decode(found, latent, 0.0)
        audio = [m.audio for m in made]
        assert all(a is not None and a.shape == (1, int(SECONDS * 16_000)) and a.device.type == "cpu" for a in audio)


@pytest.fixture(scope="module")
def codecs() -> dict[Rate, OfficialCodec]:
    """The two codecs at full size with random weights."""
    rates: tuple[Rate, ...] = ("16k", "44k")
    made: dict[Rate, OfficialCodec] = {}
    for rate in rates:
        vae = {key: value.nan_to_num(1.0) for key, value in VAE(VAES[rate]).state_dict().items()}  # no statistics yet
        made[rate] = OfficialCodec(rate, vae, BigVGAN(VOCODERS[rate]).state_dict())
    return made


@pytest.mark.parametrize("rate", ["16k", "44k"])
def test_the_codec_stays_on_the_device(codecs: dict[Rate, OfficialCodec], rate: Rate) -> None:
    codec = codecs[rate]
    log_mel(torch.zeros(1, codec.samples_per_latent * 8), codec.mel)  # filters are made once, with values
    with fake_cuda():
        codec.to(CUDA)
        frames = 40
        mean, std = codec.encode(torch.zeros(2, frames * codec.samples_per_latent, device=CUDA))
        assert mean.shape == std.shape == (2, frames, codec.latent_dim)
        assert codec.decode(mean).device.type == "cuda"


def test_loss_and_update_stay_on_the_device(tmp_path: Path) -> None:
    """Without the backward pass, which asks for a real device: gradients are put in by hand."""
    recipe = tiny_recipe(tmp_path)
    mix, _ = setup.mixes(recipe, Cluster(0, 1, torch.device("cpu")))
    batch = mix.batch(0, 12, Dropout(), 0, 1)
    with fake_cuda():
        network = setup.network(recipe, mix).to(CUDA)
        normalise = Normaliser(network.latent_mean.detach().clone(), network.latent_std.detach().clone())
        optimiser = adamw(network, 1e-3, 1e-6, (0.9, 0.95), 1e-6)
        with autocast(CUDA, "bf16"):
            found = losses(network, batch.to(CUDA), normalise)
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        average = PostHocEMA({name: p.detach() for name, p in network.named_parameters()}, (0.05, 0.1))
        norm = update(optimiser, 1e-3, 1.0)
        average.update({name: p.detach() for name, p in network.named_parameters()})
        assert found.device.type == norm.device.type == "cuda"
        assert {t.device.type for kept in average.averages.values() for t in kept.values()} == {"cuda"}


@needs_open_clip
def test_conditions_are_computed_on_the_device_and_come_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("model_zoo.mmaudio.conditions.clip_encoder.CONFIG", SMALL)
    towers = {f"vfeat_extractor.{k}": v for k, v in VideoEncoder().state_dict().items()}
    conditioner = OfficialConditioner(small_clip_weights(), towers)
    write_video(tmp_path / "v.mp4", seconds=1.1)
    media = decode(tmp_path / "v.mp4", conditioner.requests, 1.0)
    with fake_cuda(), torch.no_grad():
        conditioner.to(CUDA)
        clip, sync = conditioner.video(media, 1.0)
        text = conditioner.text("a dog")
    assert (clip.shape, sync.shape, text.shape) == ((8, 1024), (16, 768), (77, 1024))
    assert clip.device.type == sync.device.type == text.device.type == "cpu"
