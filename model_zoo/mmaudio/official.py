"""The published MMAudio networks as generators: every weight file is looked for before anything is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import Any

from av_bench import weights
from av_bench.contracts import UsageError
from av_bench.store import Store, home
from model_zoo import mmaudio
from model_zoo.mmaudio import clip
from model_zoo.mmaudio.config import variant
from model_zoo.mmaudio.network import FlowNetwork
from model_zoo.mmaudio.sample import Codec, Conditioner, MMAudio
from model_zoo.mmaudio.settings import Settings

TRAINING_SETS = ("vggsound/train", "audiocaps/train", "audioset/train", "clotho/train", "wavcaps")
LONGEST = 10.0  # seconds in one piece, as in the paper: 8 s for VGGSound, 10 s for AudioCaps (sections 3.6 and 4.2)
VAES = {
    "16k": ("mmaudio-vae-16k", "mmaudio-vocoder-16k"),
    "44k": ("mmaudio-vae-44k", "bigvgan-v2-44k"),
}


def settings(name: str, options: dict[str, Any]) -> Settings:
    """Options of a model spec (``mmaudio-l:steps=10,cfg=3``) as settings; UsageError names an unknown one."""
    known = {f.name: f for f in fields(Settings)}
    unknown = [key for key in options if key not in known]
    if unknown:
        raise UsageError(f"{name}: unknown option {unknown[0]!r}; options are {', '.join(known)}")
    return Settings(**{"window": LONGEST, **{key: _typed(name, key, value) for key, value in options.items()}})


def _typed(name: str, key: str, value: Any) -> Any:
    """An option as its own type; UsageError when the text does not say one. Specs give numbers as floats."""
    if key in ("steps", "batch") and isinstance(value, int | float) and float(value).is_integer():
        return int(value)
    if key in ("cfg", "window") and isinstance(value, int | float):
        return float(value)
    if key == "compile" and value in ("yes", "no", "graphs"):
        return value
    if key in ("negative", "solver", "conditions"):
        return f"{value:g}" if isinstance(value, float) else str(value)
    wanted = {"compile": "no, yes or graphs", "cfg": "a number", "window": "a number"}.get(key, "a whole number")
    raise UsageError(f"{name}: {key} must be {wanted}, got {value!r}")


def load(name: str, **options: Any) -> MMAudio:
    """A variant with its official files. MissingRequirement names the first that is absent and the command for it."""
    found = variant(name)
    chosen = settings(name, options)
    needed = (found.weights, *VAES[found.rate], clip.ENTRY, "synchformer")
    for entry in needed:
        if weights.find(entry) is None:
            weights.require(entry)  # says what is missing and how to get it, before gigabytes are hashed
    from model_zoo.mmaudio.codec import OfficialCodec
    from model_zoo.mmaudio.conditions import OfficialConditioner

    network = mmaudio.build(name, weights.load_state_dict(weights.require(found.weights)))
    codec, conditioner = OfficialCodec(found.rate), OfficialConditioner(autocast=True)
    store = Store(home() / "store")
    made = MMAudio(found.name, network, codec, conditioner, chosen, TRAINING_SETS, store, rows_of_the_paper(found.name))
    made.identity = "-".join(weights.file_sha256(weights.require(entry))[:16] for entry in needed)
    return made


def rows_of_the_paper(name: str) -> tuple[dict[str, str], ...]:
    """Where the paper reports a variant (version 2 came after it)."""
    _, size, rate, *later = name.split("-")
    if later:
        return ()
    row = f"MMAudio-{size.upper()}-{'16kHz' if rate == '16k' else '44.1kHz'}"
    return tuple({"table": table, "row": row} for table in ("table1", "table3"))


def around(name: str, device: str = "cpu") -> Callable[[FlowNetwork], Any]:
    """From a network in training to a generator, with the published codec and conditions, built on first use."""
    found = variant(name)

    @cache
    def parts() -> tuple[Codec, Conditioner]:
        from model_zoo.mmaudio.codec import OfficialCodec
        from model_zoo.mmaudio.conditions import OfficialConditioner

        return OfficialCodec(found.rate), OfficialConditioner(autocast=True)

    def generator(network: FlowNetwork) -> MMAudio:
        made = MMAudio(
            f"{name}-in-training", network, *parts(), Settings(window=LONGEST), store=Store(home() / "store")
        )
        made.place(device)
        return made

    return generator


def _factory(name: str) -> Callable[..., MMAudio]:
    def make(**options: Any) -> MMAudio:
        return load(name, **options)

    make.__doc__ = f"MMAudio {name.removeprefix('mmaudio-')} with its published weights (non-commercial)."
    return make


small_16k = _factory("mmaudio-s-16k")
small_44k = _factory("mmaudio-s-44k")
medium_44k = _factory("mmaudio-m-44k")
large_44k = _factory("mmaudio-l-44k")
large_44k_v2 = _factory("mmaudio-l-44k-v2")
