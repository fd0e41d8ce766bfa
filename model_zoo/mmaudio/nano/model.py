"""``mmaudio-nano``: the MMAudio that ships with the package, trained by it on set ``impacts``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from torch import nn

from av_bench.contracts import MissingRequirement, UsageError
from av_bench.weights import file_sha256, hash_of_mapping
from av_bench.weights.fill import fill, read
from model_zoo.mmaudio.flow.load import header_config, load_trained
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.nano.codec import NanoCodec, read_codec
from model_zoo.mmaudio.nano.conditioner import NanoConditioner, whole_stretch
from model_zoo.mmaudio.nano.encoders import Sight
from model_zoo.mmaudio.sampling.generator import MMAudio
from model_zoo.mmaudio.sampling.settings import Settings, read_settings
from model_zoo.options import MMAUDIO_NANO, NANO_DEFAULTS

WEIGHTS = Path(__file__).parent.parent / "weights"
FLOW, CODEC, SIGHT = "mmaudio-nano.safetensors", "mmaudio-nano-codec.safetensors", "mmaudio-nano-sight.safetensors"


class MMAudioNano(MMAudio):
    """The embedded model: mono, 16 kHz, video and text as conditions, made for 8 s.

    Longer clips are generated in overlapping windows of 8 s. Shorter ones (0.5 s and more) are generated as 8 s whose
    video stands still after the clip's end, and the sound is cut to the clip.

    Options are those of ``Settings`` but ``window``, which is 8 s, and ``frames``; ``weights`` is a folder with the
    three files in place of the embedded ones, or one file that training of the flow network wrote (adapters too).
    """

    small = True
    beside: ClassVar[tuple[str, ...]] = ("oracle", "shuffled", "noise")  # its rows mean little without them
    options: ClassVar[Mapping[str, str]] = MMAUDIO_NANO

    def __init__(self, *, weights: str | Path = WEIGHTS, device: str = "cpu", **options: object) -> None:
        settings = read_settings("mmaudio-nano", options, fixed=("window", "frames"), **_defaults(options))
        network, codec, sight = load(Path(weights))
        super().__init__(
            "mmaudio-nano",
            network,
            codec,
            NanoConditioner(sight),
            settings,
            training_sets=("impacts/train",),
            arrange_on=frozenset({"cuda"}),  # on a CPU samples keep their bytes
        )
        self.identity = f"{_identity(Path(weights), (network, codec, sight))}-{_sampling(self.settings)}"
        self.place(device)

    def _plan(self, seconds: float) -> None:
        super()._plan(seconds)
        if len(self.windows) == 1:  # all 8 s of latents, whatever is asked; ``_decode`` cuts the wave
            frames = self.codec.latent_len(whole_stretch(seconds))
            self.windows = replace(self.windows, frames=frames, total=frames)
            self._set_lengths(frames, *self.conditioner.lengths(seconds))


def _defaults(options: Mapping[str, object]) -> dict[str, object]:
    """Of the settings that differ from those of the published variants. The few steps are those of its own solver."""
    own = options.get("solver", NANO_DEFAULTS["solver"]) == NANO_DEFAULTS["solver"]
    return {key: value for key, value in NANO_DEFAULTS.items() if own or key not in ("steps", "solver")}


def _sampling(settings: Settings) -> str:
    """How samples are made where options are left out: with other defaults they are others."""
    return f"{settings.solver}-{settings.steps}-{settings.cfg:g}-{settings.guide_from:g}"


def load(weights: Path) -> tuple[FlowNetwork, NanoCodec, Sight]:
    """The three networks, strictly: of a folder, or one flow network with the embedded codec and feature networks.
    Their sizes are those in the files' headers; files may be stored as fp16, the networks are fp32.

    MissingRequirement names all files that are not there, UsageError flow network and codec that do not fit each other.
    """
    own = weights if weights.is_file() else None
    folder = WEIGHTS if own is not None else weights
    missing = [str(folder / name) for name in (FLOW, CODEC, SIGHT) if not (folder / name).is_file()]
    if missing:
        named = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        what = "give a file that training wrote, or" if len(missing) == 3 else "a folder holds all three:"
        raise MissingRequirement(f"{named}; {what} train again with `av-bench train mmaudio-nano`")
    codec, sight = read_codec(folder / CODEC), Sight()
    network = load_trained(own or folder / FLOW, header_config(folder / FLOW), "mmaudio-nano")
    _fill(sight, folder / SIGHT)
    if network.config.latent_dim != codec.latent_dim:
        raise UsageError(
            f"{folder}: {FLOW} makes {network.config.latent_dim} latents, {CODEC} takes {codec.latent_dim}: they come "
            "from different trainings; bring all three files of one"
        )
    codec.fuse()
    return (
        network.eval().requires_grad_(False),
        codec.eval().requires_grad_(False),
        sight.eval().requires_grad_(False),
    )


def _identity(weights: Path, parts: tuple[nn.Module, ...]) -> str:
    """What tells these networks from others: of the embedded ones their files, of others their tensors, so that equal
    weights are the same model."""
    if weights == WEIGHTS:
        digests = [file_sha256(weights / name) for name in (FLOW, CODEC, SIGHT)]
    else:
        digests = [hash_of_mapping(part.state_dict()) for part in parts]
    return "-".join(digest[:16] for digest in digests)


def _fill(module: nn.Module, file: Path) -> None:
    state = read(file, file.name)
    fill(module, state.tensors, state.source, copy=True)
