"""The VAE against the published one: keys, values, fusing; and its magnitude-preserving layers by their definition."""

from __future__ import annotations

import math

import pytest
import torch

from av_bench.contracts import UsageError
from model_zoo.mmaudio.codec.magnitude import MPConv1d, mp_silu, mp_sum, normalize
from model_zoo.mmaudio.codec.vae import VAE, VAES, Posterior, VAEConfig
from tests.model_zoo.mmaudio.goldens import close, golden, layout, needs_golden, recipe, shapes

TINY = VAEConfig(data_dim=80, embed_dim=4, hidden=16)
NANO = VAEConfig(data_dim=6, embed_dim=2, hidden=8, ch_mult=(1, 2))


def nano(seed: int = 0) -> VAE:
    torch.manual_seed(seed)
    return VAE(NANO, torch.zeros(6), torch.ones(6))


@needs_golden
@pytest.mark.parametrize("rate", VAES)
def test_every_key_shape_and_count_is_the_official_one(rate: str) -> None:
    meta, wanted = layout(f"vae_{rate}")
    with torch.device("meta"):
        vae = VAE(VAES[rate])
    assert shapes(vae.state_dict()) == wanted
    counts = [sum(p.numel() for p in module.parameters()) for module in (vae, vae.encoder, vae.decoder)]
    assert counts == [meta["n_params"], meta["encoder"], meta["decoder"]]


@needs_golden
@pytest.mark.parametrize("fused", [False, True])
def test_tiny_values(fused: bool) -> None:
    found = golden("mmaudio_tiny/vae_tiny_80.pt")
    vae = VAE(TINY)
    vae.load_state_dict(found["raw_state_dict"])
    vae = vae.fuse() if fused else vae.eval()
    if fused:
        for key, weight in found["fused_weight_check"].items():
            close(vae.state_dict()[key], weight, 1e-6)
    posterior = vae.encode(found["mel"])
    for ours, name in ((posterior.mean, "mean"), (posterior.logvar, "logvar"), (posterior.std, "std")):
        close(ours, found[name])
    close(vae.decode(found["mean"]), found["decode_of_mean"])
    close(vae.decode(found["z"]), found["decode_of_z"])


@pytest.mark.slow
@needs_golden
def test_full_size_values() -> None:
    """171,657,218 parameters; about 8 s on one core."""
    rule, found = recipe(), golden("full_size/vae_16k.pt")
    constants = golden("mmaudio_tiny/vae_tiny_80.pt")["raw_state_dict"]
    with torch.device("meta"):
        vae = VAE(VAES["16k"])
    state = {key: rule.fill(key, value.shape) for key, value in vae.state_dict().items()}
    state |= {key: constants[key] for key in ("data_mean", "data_std")}
    vae.load_state_dict(state, assign=True)
    vae.fuse()
    posterior = vae.encode(rule.inp("vmel16k", (1, 80, 64), 1.5) - 2)
    close(posterior.mean, found["mean"])
    close(posterior.logvar, found["logvar"])
    close(vae.decode(rule.inp("vz16k", (1, 20, 32))), found["decode"])


def test_layers_keep_the_magnitude() -> None:
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(2, 4, 64, 500, generator=generator)
    for out in (mp_silu(x), mp_sum(x, y), MPConv1d(64, 64, 3).eval().requires_grad_(False)(x)[..., 1:-1]):
        assert float(out.square().mean().sqrt()) == pytest.approx(1.0, abs=0.03)
    assert torch.allclose(normalize(7 * x, (1,)).square().mean(1), torch.ones(()), atol=1e-3)
    assert torch.allclose(mp_sum(x, y, 0.5), (x + y) / math.sqrt(2), atol=1e-6)


def test_training_mode_forces_the_norm_of_stored_weights() -> None:
    vae = nano().train()
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, MPConv1d):
                module.weight.mul_(5)
    mel = torch.randn(2, 6, 8)
    loss = vae.decode(vae.encode(mel).mean).square().mean()
    loss.backward()  # type: ignore[no-untyped-call]
    for module in vae.modules():
        if isinstance(module, MPConv1d):
            sizes = module.weight.square().mean((1, 2))
            assert torch.allclose(sizes, torch.ones_like(sizes), atol=2e-3)
    assert all(p.grad is not None for name, p in vae.named_parameters() if "conv_out" in name)


def test_evaluation_changes_nothing_and_fusing_neither() -> None:
    vae, mel = nano().eval(), torch.randn(2, 6, 8)
    raw = {key: value.clone() for key, value in vae.state_dict().items()}
    before = vae.decode(vae.encode(mel).mean).detach()
    assert all(torch.equal(vae.state_dict()[key], value) for key, value in raw.items())
    owned = vae.encoder.conv_in.weight.data
    after = vae.fuse().decode(vae.encode(mel).mean)
    close(after, before, 1e-5)
    assert torch.equal(owned, raw["encoder.conv_in.weight"])  # whoever gave the tensor still has the raw one
    close(vae.fuse().decode(vae.encode(mel).mean), before, 1e-5)  # twice is once
    with pytest.raises(UsageError, match="fused for inference"):
        vae.train()


def test_runs_under_bf16() -> None:
    vae, mel = nano().train(), torch.randn(2, 6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out = vae.decode(vae.encode(mel).mean)
    assert out.dtype == torch.float32
    close(out, vae.decode(vae.encode(mel).mean), 0.1)


def test_posterior() -> None:
    mean, logvar = torch.randn(2, 3, 4, 5)
    posterior = Posterior(mean, logvar)
    wanted = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, torch.exp(logvar / 2)), torch.distributions.Normal(0.0, 1.0)
    )
    torch.testing.assert_close(posterior.kl(), wanted.sum((1, 2)))
    assert torch.equal(posterior.sample(torch.zeros_like(mean)), mean)


def test_refuses_wrong_shapes_and_sizes() -> None:
    with pytest.raises(UsageError, match=r"\(B, 6, a multiple of 2\), got \(1, 6, 7\)"):
        nano().encode(torch.zeros(1, 6, 7))
    with pytest.raises(UsageError, match="down_levels"):
        VAEConfig(6, 2, 8, ch_mult=(1, 2), down_levels=(1,))
    with pytest.raises(UsageError, match="odd"):
        VAEConfig(6, 2, 8, kernel_size=4)
