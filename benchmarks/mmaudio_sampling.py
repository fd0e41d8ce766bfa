"""Sampling speed: ours against a plain eager implementation that runs two passes per step (``plain_flow.py``).

    python benchmarks/mmaudio_sampling.py --variant mmaudio-s-16k --device cuda --batch 1 8 32 --compile yes graphs
    python benchmarks/mmaudio_sampling.py --variant mmaudio-s-16k --device cpu --shrink 64 --steps 5
    python benchmarks/mmaudio_sampling.py --steps 1 --half --original MMAudio/     # a checkout of hkchengrex/MMAudio

Random weights and conditions (those of a clip with video and text); the flow network alone, without feature networks
and codec. Every row makes the same samples from the same noise, which is checked. On a GPU the plain implementation
runs twice, in full float32 and under bf16 autocast with float32 weights. ``--half`` adds ours with ``precision=bf16``.
"Not arranged" is the network as it is trained; at batch 1 on a GPU "ours" replays a recorded graph per step, and
``--compile no`` adds the same without. ``--original`` adds the published network from a checkout, with the same
weights, sampled as it samples itself (one pass after the other); without it the row is left out. Ratios are against the
plain rows and the original.

Times are medians of ``--repeat`` runs after a warm-up, the rows taking turns so that other load meets all of them.
Ratios are what compares, of wall time and of processor time (which other load disturbs least); seconds are those of
this machine. Operations (two per multiply-add) are counted on the network itself.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from plain_flow import velocity
from published_flow import published
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from av_bench.contracts import Clip, Decoded, VideoRequest
from av_bench.runtime.devices import single_precision
from model_zoo.mmaudio.config import SAMPLE_RATES, VARIANTS, NetworkConfig, Rate, sequence_lengths
from model_zoo.mmaudio.flow import matching
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.sampling.generator import MMAudio
from model_zoo.mmaudio.sampling.inputs import Inputs
from model_zoo.mmaudio.sampling.published import ARRANGE_ON
from model_zoo.mmaudio.sampling.settings import Compile, Precision, Settings

SECONDS, SEED = 8.0, 1
PLAIN, ORIGINAL = "two passes", "the original"


class LatentsAsSound:
    """A codec without networks: the latent is the wave, repeated to the asked length. For timing only."""

    def __init__(self, rate: Rate, config: NetworkConfig) -> None:
        self.rate, self.sample_rate, self.latent_dim = rate, SAMPLE_RATES[rate], config.latent_dim

    def latent_len(self, seconds: float) -> int:
        """As the official codec's."""
        return sequence_lengths(self.rate, seconds)[0]

    def encode(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Not needed for sampling."""
        raise NotImplementedError

    def decode(self, latent: Tensor) -> Tensor:
        """``(B, N, C)`` -> ``(B, T)``, T at least 8 s."""
        flat = latent.flatten(1)
        return flat.repeat(1, -(-round(SECONDS * self.sample_rate) // flat.shape[1]))

    def to(self, device: torch.device) -> LatentsAsSound:
        """Nothing to move."""
        del device
        return self


class NoNetworks:
    """A conditioner that only knows how many tokens there are: ``Sampled`` draws them."""

    requests: tuple[VideoRequest, ...] = ()
    fingerprint, precision = "random", "fp32"
    device = torch.device("cpu")

    def __init__(self, rate: Rate) -> None:
        self.rate = rate

    def lengths(self, seconds: float) -> tuple[int, int]:
        """CLIP and sync tokens."""
        return sequence_lengths(self.rate, seconds)[1:]

    def video(self, media: Decoded, seconds: float, start: float = 0.0) -> tuple[Tensor, Tensor]:
        """No clip of this benchmark has a video."""
        raise NotImplementedError

    def text(self, text: str) -> Tensor:
        """Nor a text."""
        raise NotImplementedError

    def to(self, device: torch.device) -> NoNetworks:
        """Nothing to move."""
        del device
        return self


def tokens(config: NetworkConfig, clip: Clip) -> tuple[Tensor, Tensor, Tensor]:
    """Random CLIP, sync and text tokens of a clip, as those of a video and a text."""
    generator = torch.Generator().manual_seed(int(clip.id[1:]))
    shapes = (
        (config.clip_len, config.clip_dim),
        (config.sync_len, config.sync_dim),
        (config.text_len, config.text_dim),
    )
    clip_tokens, sync, text = (torch.randn(shape, generator=generator) for shape in shapes)
    return clip_tokens / 32, sync, text / 32


class Sampled(MMAudio):
    """The generator whose conditions are drawn instead of computed."""

    def _read(self, clip: Clip) -> Inputs:
        visual, sync, text = (value[None] for value in tokens(self.network.config, clip))
        return Inputs(clip, visual, sync, text)


@dataclass(frozen=True)
class Work:
    """What is measured: one network, ``size`` clips per call."""

    network: FlowNetwork
    rate: Rate
    device: torch.device
    steps: int
    guidance: float
    size: int

    @property
    def clips(self) -> tuple[Clip, ...]:
        """Clips with nothing but a name."""
        return tuple(Clip(f"c{i:04d}") for i in range(self.size))

    def raw(self) -> list[Tensor]:
        """CLIP, sync and text tokens of all clips, on the device."""
        rows = [tokens(self.network.config, clip) for clip in self.clips]
        return [torch.stack(parts).to(self.device) for parts in zip(*rows, strict=True)]


def build(config: NetworkConfig, device: torch.device) -> FlowNetwork:
    """A network whose every tensor is random."""
    torch.manual_seed(0)
    ones = torch.ones(config.latent_dim)
    empty = torch.randn(config.text_len, config.text_dim) / 32
    network = FlowNetwork(config, latent_mean=0 * ones, latent_std=ones, empty_string=empty)
    for parameter in network.parameters():
        if parameter.requires_grad and not bool(parameter.any()):
            torch.nn.init.normal_(parameter, std=0.02)  # gates start at zero: the blocks would do nothing
    return network.to(device).eval().requires_grad_(False)


@torch.no_grad()
def reference(work: Work, half: bool = False) -> Tensor:
    """Plain: eager, conditional and unconditional pass one after the other, a step at a time. Latents ``(B, N, C)``.

    ``half``: under bf16 autocast, the state in float32, else all in float32.
    """
    network, config, device = work.network, work.network.config, work.device
    shape = (config.latent_len, config.latent_dim)
    x = torch.stack([matching.noise(shape, SEED, clip.id) for clip in work.clips]).to(device)
    with single_precision(), torch.autocast(device.type, torch.bfloat16, enabled=half):
        real, empty = network.preprocess(*work.raw()), network.empty(len(x))
        times = torch.linspace(0, 1, work.steps + 1, device=device)
        for k in range(work.steps):
            t = times[k].expand(len(x))
            with_condition, without = velocity(network, x, t, real), velocity(network, x, t, empty)
            guided = work.guidance * with_condition.float() + (1 - work.guidance) * without.float()
            x = x + (times[k + 1] - times[k]) * guided
    return x


def original(work: Work, checkout: Path) -> Callable[[], Tensor]:
    """The published network with the same weights, and its own guidance and Euler steps; latents ``(B, N, C)``."""
    c, device = work.network.config, work.device
    network = published(work.network, checkout).eval()

    @torch.no_grad()
    def run() -> Tensor:
        noise = [matching.noise((c.latent_len, c.latent_dim), SEED, clip.id) for clip in work.clips]
        x = torch.stack(noise).to(device)
        real, empty = network.preprocess_conditions(*work.raw()), network.get_empty_conditions(work.size)
        times = torch.linspace(0, 1, work.steps + 1)
        for k in range(work.steps):
            flow = network.ode_wrapper(times[k], x, real, empty, work.guidance)
            x = x + (times[k + 1] - times[k]) * flow
        return x

    return run


def ours(work: Work, how: Compile, precision: Precision | None = None, arranged: bool = True) -> Callable[[], Tensor]:
    """The generator as users run it, from clips to waves; returns latents for the comparison."""
    settings = Settings(steps=work.steps, cfg=work.guidance, batch=work.size, compile=how, precision=precision)
    config = work.network.config
    codec, conditioner = LatentsAsSound(work.rate, config), NoNetworks(work.rate)
    network = copy.deepcopy(work.network)  # it is taken apart
    model = Sampled("ours", network, codec, conditioner, settings, arrange_on=ARRANGE_ON if arranged else frozenset())
    model.place(str(work.device))

    def run() -> Tensor:
        waves = [made.audio for made in model.generate(work.clips, SEED)]
        count = config.latent_len * config.latent_dim
        rows = [wave[0, :count] for wave in waves if wave is not None]
        return torch.stack(rows).view(len(rows), config.latent_len, config.latent_dim)

    return run


def operations(config: NetworkConfig, steps: int) -> float:
    """Floating point operations of one guided sample: two projections and two evaluations per step."""
    shapes = (
        (config.clip_len, config.clip_dim),
        (config.sync_len, config.sync_dim),
        (config.text_len, config.text_dim),
    )
    with torch.device("meta"), torch.no_grad():
        network = FlowNetwork(config)
        with FlopCounterMode(display=False) as projecting:
            pre = network.preprocess(*(torch.empty(1, *shape) for shape in shapes))
        with FlopCounterMode(display=False) as evaluating:
            network.flow(torch.empty(1, config.latent_len, config.latent_dim), torch.empty(1), pre)
    return float(2 * projecting.get_total_flops() + 2 * steps * evaluating.get_total_flops())


def seconds(run: Callable[[], Tensor], device: torch.device) -> tuple[float, float]:
    """Wall and processor seconds of one call."""
    started, used = time.perf_counter(), time.process_time()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started, time.process_time() - used


def measure(
    work: Work, repeat: int, compiled: Sequence[Compile], half: bool = False, checkout: Path | None = None
) -> dict[str, tuple[float, float]]:
    """Median wall and processor seconds per call of every row.

    RuntimeError when a row makes other samples than the reference.
    """
    rows: dict[str, Callable[[], Tensor]] = {PLAIN: lambda: reference(work)}
    if work.device.type == "cuda":
        rows[f"{PLAIN}, bf16"] = lambda: reference(work, half=True)
    rows["ours"] = ours(work, "auto")
    rows["ours, not arranged"] = ours(work, "no", arranged=False)
    rows |= {f"ours, compile={how}": ours(work, how) for how in compiled}
    if half:
        rows["ours, bf16"] = ours(work, "no", "bf16")
    if checkout is not None:
        rows[ORIGINAL] = original(work, checkout)
    wanted = rows[PLAIN]().cpu()
    for name, run in rows.items():
        limit = 5e-2 if work.device.type == "cuda" or "bf16" in name else 1e-3  # bf16 against fp32 arithmetic
        difference = float((run().cpu() - wanted).abs().max() / wanted.abs().max())
        if not difference < limit:
            raise RuntimeError(f"{name}: differs from the reference by {difference:.1e} of the largest value")
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    for _ in range(repeat):
        for name, run in rows.items():
            times[name].append(seconds(run, work.device))
    return {
        name: (statistics.median(v[0] for v in values), statistics.median(v[1] for v in values))
        for name, values in times.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print one line per row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="mmaudio-s-16k", choices=list(VARIANTS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--cfg", type=float, default=4.5)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--shrink", type=int, help="hidden size of a smaller network (a multiple of 64)")
    parser.add_argument("--compile", nargs="*", default=[], choices=["no", "yes", "graphs"], help="also with these")
    parser.add_argument("--half", action="store_true", help="also with precision=bf16")
    parser.add_argument("--original", type=Path, help="checkout of hkchengrex/MMAudio to compare with")
    given = parser.parse_args(arguments)
    found, device = VARIANTS[given.variant], torch.device(given.device)
    config = found.network
    if given.shrink:
        config = replace(config, hidden=given.shrink, heads=given.shrink // 64)
    network, count = build(config, device), operations(config, given.steps)
    print(f"{given.variant}, hidden {config.hidden}, {device}, {given.steps} steps, {count / 1e12:.3f} TFLOP a sample")
    for size in given.batch:
        work = Work(network, found.rate, device, given.steps, given.cfg, size)
        medians = measure(work, given.repeat, given.compile, given.half, given.original)
        for name, (wall, used) in medians.items():
            ratios = "  ".join(
                f"{base[0] / wall:5.2f}x wall {base[1] / used:5.2f}x processor"
                for plain, base in medians.items()
                if plain.startswith((PLAIN, ORIGINAL))
            )
            rate = f"{size / wall:8.3f} samples/s {count * size / wall / 1e12:8.3f} TFLOP/s"
            print(f"batch {size:3d}  {name:21s} {wall:8.3f} s  {rate}  {ratios}", flush=True)


if __name__ == "__main__":
    main()
