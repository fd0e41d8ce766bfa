"""``mmaudio-nano``: the MMAudio that ships with the package, trained by it on set ``impacts``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from av_bench.contracts import MissingRequirement
from av_bench.weights import file_sha256
from av_bench.weights.fill import fill, read
from model_zoo.mmaudio.flow.load import header_config
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.nano.codec import NanoCodec
from model_zoo.mmaudio.nano.conditioner import NanoConditioner, whole_stretch
from model_zoo.mmaudio.nano.encoders import Sight
from model_zoo.mmaudio.sampling.generator import MMAudio
from model_zoo.mmaudio.sampling.settings import read_settings
from model_zoo.options import MMAUDIO_NANO

WEIGHTS = Path(__file__).parent.parent / "weights"
FLOW, CODEC, SIGHT = "mmaudio-nano.safetensors", "mmaudio-nano-codec.safetensors", "mmaudio-nano-sight.safetensors"
GUIDANCE = 3.5  # best of 1 to 3.5 on held-out train scenes


class MMAudioNano(MMAudio):
    """The embedded model: mono, 16 kHz, video and text as conditions, made for 8 s.

    Longer clips are generated in overlapping windows of 8 s. Shorter ones (0.5 s and more) are generated as 8 s whose
    video stands still after the clip's end, and the sound is cut to the clip.

    Options are those of ``Settings`` but ``window``, which is 8 s; ``weights`` is a folder with the three files in
    place of the embedded ones.
    """

    small = True
    beside: ClassVar[tuple[str, ...]] = ("oracle", "shuffled", "noise")  # its rows mean little without them
    options: ClassVar[Mapping[str, str]] = MMAUDIO_NANO

    def __init__(self, *, weights: str | Path = WEIGHTS, device: str = "cpu", **options: object) -> None:
        settings = read_settings("mmaudio-nano", options, fixed=("window",), cfg=GUIDANCE)
        network, codec, sight = load(Path(weights))
        super().__init__(
            "mmaudio-nano", network, codec, NanoConditioner(sight), settings, training_sets=("impacts/train",)
        )
        self.identity = "-".join(file_sha256(Path(weights) / name)[:16] for name in (FLOW, CODEC, SIGHT))
        self.place(device)

    def _plan(self, seconds: float) -> None:
        super()._plan(seconds)
        if len(self.windows) == 1:  # all 8 s of latents, whatever is asked; ``_decode`` cuts the wave
            frames = self.codec.latent_len(whole_stretch(seconds))
            self.windows = replace(self.windows, frames=frames, total=frames)
            self.network.set_lengths(frames, *self.conditioner.lengths(seconds))


def load(folder: Path) -> tuple[FlowNetwork, NanoCodec, Sight]:
    """The three networks of a folder, strictly; the flow network's sizes lie in its file's header."""
    for name in (FLOW, CODEC, SIGHT):
        if not (folder / name).is_file():
            raise MissingRequirement(f"{folder / name} is missing; train it again with `av-bench train mmaudio-nano`")
    network = FlowNetwork(header_config(folder / FLOW))
    codec, sight = NanoCodec(), Sight()
    for module, name in ((network, FLOW), (codec, CODEC), (sight, SIGHT)):
        state = read(folder / name, name)
        fill(module, state.tensors, state.source, copy=True)
    codec.vae.fuse()
    return (
        network.eval().requires_grad_(False),
        codec.eval().requires_grad_(False),
        sight.eval().requires_grad_(False),
    )
