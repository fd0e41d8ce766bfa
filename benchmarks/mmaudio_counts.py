"""What MMAudio costs, by counting: operations, bytes and FLOP of a step, of a clip's conditions, of decoding; memory.

    python benchmarks/mmaudio_counts.py                                 # every variant, a few minutes
    python benchmarks/mmaudio_counts.py --variant mmaudio-s-16k

Nothing is computed: tensors have shape, type and device, but no values. They are those of a GPU where torch is built
for CUDA, with the precision of a GPU (bf16, codec in float32), else those of a CPU, whose operations differ a little.

An operation is what torch's dispatcher hands to a kernel, views and allocations apart: a lower bound of the launches.
Bytes are those of all its inputs and outputs, each once: what a GPU would move if no cache held anything. FLOP are two
per multiply-add. Memory is the largest sum of tensors alive besides the weights: workspaces of libraries and what the
allocator keeps are not in it. Attention is one operation, as fused kernels do it.
"""

from __future__ import annotations

import argparse
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from av_bench.networks.synchformer import VideoEncoder
from av_bench.runtime.devices import cast_once
from model_zoo.mmaudio.codec.vae import VAE, VAES
from model_zoo.mmaudio.codec.vocoder import VOCODERS, BigVGAN
from model_zoo.mmaudio.conditions.clip_encoder import CONFIG, SIZE
from model_zoo.mmaudio.config import VARIANTS, Rate, Variant
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.flow.products import How, best_for
from tests.fake_cuda import fake_cuda

FREE = {"empty", "empty_like", "empty_strided", "new_empty", "_unsafe_view", "detach", "lift_fresh"}
MIB, GB = 2**20, 1e9


@dataclass
class Counts:
    """Of one part of the work."""

    operations: int = 0
    bytes: int = 0
    flop: int = 0
    peak: int = 0


class Watch(TorchDispatchMode):
    """Counts operations and bytes, and the memory that is alive."""

    def __init__(self, counts: Counts, known: Sequence[Tensor]) -> None:
        """``known``: weights and inputs, which are there anyway."""
        super().__init__()
        self.counts, self.alive = counts, 0
        self.seen = {id(tensor.untyped_storage()): tensor.untyped_storage() for tensor in known}
        self.gone: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See the module."""
        out = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        for tensor in made:
            self._hold(tensor)
        returns = func._schema.returns
        views = all(given.alias_info is not None and not given.alias_info.is_write for given in returns)
        if made and not views and func._schema.name.split("::")[1] not in FREE:
            self._add([*(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)), *made])
        return out

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *_args: object, **_options: object) -> Tensor:
        """In place of torch's attention, which takes the way without fused kernels where no device is."""
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        self._add([q, k, v, out])
        return out

    def _add(self, touched: Sequence[Tensor]) -> None:
        self.counts.operations += 1
        self.counts.bytes += sum(_size(tensor) for tensor in touched)

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self.seen or key in self.gone:
            return
        size = storage.nbytes()
        self.alive += size
        self.counts.peak = max(self.counts.peak, self.alive)
        self.gone[key] = weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self.alive -= size
        del self.gone[key]


def _size(tensor: Tensor) -> int:
    """Bytes; what is repeated by a stride of 0 counts once."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride else 1
    return count * tensor.element_size()


def count(run: Callable[[], object], known: Sequence[Tensor]) -> Counts:
    """Counts of a call; ``known`` are the tensors that are there anyway."""
    counts = Counts()
    with torch.no_grad():
        run()  # what is made at the first call only
        with FlopCounterMode(display=False) as flop:
            run()
        watch = Watch(counts, known)
        with watch, mock.patch("torch.nn.functional.scaled_dot_product_attention", watch.attention):
            run()
    counts.flop = flop.get_total_flops()
    return counts


def tensors(*modules: nn.Module) -> list[Tensor]:
    """Weights and buffers."""
    return [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]


@contextmanager
def without_values(device: torch.device) -> Iterator[None]:
    """Inside, tensors of the device have no values."""
    with fake_cuda() if device.type == "cuda" else FakeTensorMode(), device:
        yield


def step(variant: Variant, device: torch.device, how: How | None, batch: int = 1) -> Counts:
    """One guided step of the flow network, both passes in one batch; ``how`` None: not arranged."""
    config, half = variant.network, device.type == "cuda"
    network = FlowNetwork(config).eval().requires_grad_(False)
    if how is not None:
        network.arrange(how)
    if half:
        cast_once(network)
    rows = 2 * batch
    shapes = (
        (config.clip_len, config.clip_dim),
        (config.sync_len, config.sync_dim),
        (config.text_len, config.text_dim),
    )
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        pre = network.preprocess(*(torch.empty(rows, *shape) for shape in shapes))
        ready = network.ready(pre)
        latent, t = torch.empty(rows, config.latent_len, config.latent_dim), torch.empty(rows)
        return count(lambda: network.flow(latent, t, ready), [*tensors(network), latent, t])


def images(device: torch.device, frames: int) -> Counts:
    """CLIP of the frames of 8 s, ``frames`` at a time."""
    clip = _clip(device)
    pictures = torch.empty(64, 3, SIZE, SIZE)

    def run() -> None:
        for part in pictures.split(frames):
            clip.encode_image(part)

    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        return count(run, [*tensors(clip), pictures])


def words(device: torch.device) -> Counts:
    """CLIP of a text."""
    clip = _clip(device)
    x = torch.empty(1, CONFIG["text_cfg"]["context_length"], CONFIG["text_cfg"]["width"])
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        return count(lambda: clip.transformer(x, attn_mask=clip.attn_mask), [*tensors(clip), x])


def _clip(device: torch.device) -> Any:
    from open_clip.model import CLIP

    clip = CLIP(**CONFIG).eval().requires_grad_(False)
    if device.type == "cuda":
        cast_once(clip)
    return clip


def motion(device: torch.device) -> Counts:
    """Synchformer of 8 s: 24 segments."""
    network = VideoEncoder().eval().requires_grad_(False)
    if device.type == "cuda":
        cast_once(network)
    segments = torch.empty(1, 24, 16, 3, 224, 224)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        return count(lambda: network(segments), [*tensors(network), segments])


def decoding(rate: Rate, frames: int) -> Counts:
    """VAE and vocoder of 8 s, in float32."""
    vae, vocoder = VAE(VAES[rate]).eval().requires_grad_(False), BigVGAN(VOCODERS[rate]).eval().requires_grad_(False)
    latent = torch.empty(1, VAES[rate].embed_dim, frames)
    return count(lambda: vocoder(vae.decode(latent)), [*tensors(vae, vocoder), latent])


def show(name: str, counts: Counts) -> None:
    """One row of a table."""
    print(
        f"| {name} | {counts.operations:,} | {counts.bytes / GB:.2f} | {counts.flop / 1e12:.3f} | "
        f"{counts.peak / MIB:,.0f} |",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--parts", nargs="+", default=["flow", "conditions", "codec"])
    given = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.backends.cuda.is_built() else "cpu")
    print(f"tensors of {device} without values, torch {torch.__version__}\n")
    print("| | operations | GB | TFLOP | MiB at most |\n|---|---:|---:|---:|---:|")
    found = [VARIANTS[name] for name in given.variant]
    with without_values(device):
        for variant in found if "flow" in given.parts else ():
            show(f"{variant.name}, guided step, plain", step(variant, device, None))
            for batch in (1, 8):
                how = best_for(device, device.type == "cuda", compiled=True)
                show(f"{variant.name}, guided step, arranged, batch {batch}", step(variant, device, how, batch))
        if "conditions" in given.parts:
            for frames in (16, 64):
                show(f"CLIP, 64 frames, {frames} at a time", images(device, frames))
            show("CLIP, one text", words(device))
            show("Synchformer, 24 segments", motion(device))
        for variant in {v.rate: v for v in found}.values() if "codec" in given.parts else ():
            show(f"decoding 8 s, {variant.rate}", decoding(variant.rate, variant.network.latent_len))


if __name__ == "__main__":
    main()
