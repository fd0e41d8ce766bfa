"""The published MMAudio networks as generators: every weight file is looked for before anything is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from av_bench import weights as files
from av_bench.contracts import MissingRequirement
from av_bench.features.store import Store
from av_bench.runtime.files import home
from model_zoo import mmaudio
from model_zoo.mmaudio.conditions import clip_encoder
from model_zoo.mmaudio.config import variant
from model_zoo.mmaudio.flow.load import load_trained
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.interfaces import Codec, Conditioner
from model_zoo.mmaudio.sampling.generator import MMAudio
from model_zoo.mmaudio.sampling.settings import Settings, read_settings
from model_zoo.options import PUBLISHED_MMAUDIO

TRAINING_SETS = ("vggsound/train", "audiocaps/train", "audioset/train", "clotho/train", "wavcaps")
ARRANGE_ON = frozenset({"cpu", "cuda"})
LONGEST = 10.0  # seconds in one piece, as in the paper: 8 s for VGGSound, 10 s for AudioCaps (sections 3.6 and 4.2)
VAES = {
    "16k": ("mmaudio-vae-16k", "mmaudio-vocoder-16k"),
    "44k": ("mmaudio-vae-44k", "bigvgan-v2-44k"),
}


def require_all_files(*entries: str) -> tuple[str, ...]:
    """The entries, when all their files are there; MissingRequirement names all that are not, before hashing any."""
    missing = [entry for entry in entries if files.find(entry) is None]
    if len(missing) == 1:
        files.require(missing[0])  # says how to get it
    if missing:
        raise MissingRequirement(
            f"{len(missing)} weight files are missing in {home() / 'weights'}: {', '.join(missing)}. Get them with\n"
            f"    av-bench weights pull {' '.join(missing)}\n"
            "or, without network, bring each file along and run\n"
            "    av-bench weights add FILE --name NAME"
        )
    return entries


def rows_of_the_paper(name: str) -> tuple[dict[str, str], ...]:
    """Where the paper reports a variant (version 2 came after it)."""
    _, size, rate, *later = name.split("-")
    if later:
        return ()
    row = f"MMAudio-{size.upper()}-{'16kHz' if rate == '16k' else '44.1kHz'}"
    return tuple({"table": table, "row": row} for table in ("table1", "table3"))


def wrap_network(name: str, device: str = "cpu") -> Callable[[FlowNetwork], Any]:
    """From a network in training to a generator, with the published codec and conditions, built on first use.

    Their files are looked for at once: MissingRequirement before training, not at its first sampling.
    """
    found = variant(name)
    require_all_files(*VAES[found.rate], clip_encoder.ENTRY, "synchformer")

    @cache
    def parts() -> tuple[Codec, Conditioner]:
        from model_zoo.mmaudio.codec.published import OfficialCodec
        from model_zoo.mmaudio.conditions.published import OfficialConditioner

        return OfficialCodec(found.rate), OfficialConditioner(autocast=True)

    def generator(network: FlowNetwork) -> MMAudio:
        made = MMAudio(
            f"{name}-in-training", network, *parts(), Settings(window=LONGEST), store=Store(home() / "store")
        )
        try:
            made.place(device)
        except BaseException:  # out of memory: what has been moved must not stay there
            made.place("cpu")
            raise
        return made

    return generator


class PublishedMMAudio(MMAudio):
    """A variant with its official files (non-commercial).

    ``weights`` is a file that training wrote (``<out>/weights/*.safetensors``) in place of the published flow network:
    its sizes and switches are those of the file, codec and conditions stay the variant's. ``vae`` is a file of VAE
    training in place of the published VAE; the flow network must have learned its latents. MissingRequirement names
    all files that are absent and the command for them.
    """

    variant: ClassVar[str]
    options: ClassVar[Mapping[str, str]] = PUBLISHED_MMAUDIO

    def __init__(self, weights: str | None = None, vae: str | None = None, **options: object) -> None:
        found = variant(self.variant)
        chosen = read_settings(self.variant, options, window=LONGEST)
        own = None if weights is None else load_trained(Path(weights), found.network, found.name)
        published = [found.weights] * (own is None) + list(VAES[found.rate][vae is not None :])
        needed = require_all_files(*published, clip_encoder.ENTRY, "synchformer")
        from model_zoo.mmaudio.codec.published import OfficialCodec
        from model_zoo.mmaudio.conditions.published import OfficialConditioner

        network = own or mmaudio.build(self.variant, files.load_state_dict(files.require(found.weights)))
        codec, conditioner = OfficialCodec(found.rate, vae), OfficialConditioner(autocast=True, frames=chosen.frames)
        super().__init__(
            found.name, network, codec, conditioner, chosen, store=Store(home() / "store"), arrange_on=ARRANGE_ON
        )
        given = [] if own is None else [files.hash_of_mapping(own.state_dict())[:16]]
        given += [files.hash_of_mapping(files.load_state_dict(vae))[:16]] if vae is not None else []
        self.identity = "-".join([*given, *(files.file_sha256(files.require(entry))[:16] for entry in needed)])
        if weights is None:
            self.training_sets, self.paper = TRAINING_SETS, rows_of_the_paper(found.name)
            self.metric_networks = {"synchformer": "visual features as condition"}


class MMAudioSmall16k(PublishedMMAudio):
    """MMAudio-S-16kHz with its published weights (non-commercial)."""

    variant = "mmaudio-s-16k"


class MMAudioSmall44k(PublishedMMAudio):
    """MMAudio-S-44.1kHz with its published weights (non-commercial)."""

    variant = "mmaudio-s-44k"


class MMAudioMedium44k(PublishedMMAudio):
    """MMAudio-M-44.1kHz with its published weights (non-commercial)."""

    variant = "mmaudio-m-44k"


class MMAudioLarge44k(PublishedMMAudio):
    """MMAudio-L-44.1kHz with its published weights (non-commercial)."""

    variant = "mmaudio-l-44k"


class MMAudioLarge44kV2(PublishedMMAudio):
    """MMAudio-L-44.1kHz, version 2 with its published weights (non-commercial)."""

    variant = "mmaudio-l-44k-v2"
