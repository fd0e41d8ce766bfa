"""Files in the released formats, filled with derived weights: what `av-bench accept` is tried on.

Keys and shapes come from the constructors of the original packages, and from our own networks where no package can be
installed (Synchformer, MMAudio's flow networks, VAEs and vocoders; tests/model_zoo compares their layouts with the
published ones). Each file gets the wrapper its publisher uses. ``python -m tests.golden.released HOME [NAME ...]``
writes them at full size (all: about 28 GB) and a lock file that pins them.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from av_bench.weights import lock
from tests.golden.weights import derived, weights_of

FLOWS = {
    "mmaudio-small-16k": "mmaudio-s-16k",
    "mmaudio-small-44k": "mmaudio-s-44k",
    "mmaudio-medium-44k": "mmaudio-m-44k",
    "mmaudio-large-44k": "mmaudio-l-44k",
    "mmaudio-large-44k-v2": "mmaudio-l-44k-v2",
}


def write(home: Path, names: Iterable[str]) -> Path:
    """The files of these lock entries below ``home``, and beside them the lock file that pins them (its path)."""
    path = home / "lock.yaml"
    content = yaml.safe_load((path if path.is_file() else lock.OWN).read_text(encoding="utf8"))
    for name in names:
        entry = content["files"][name]
        file = home / "weights" / entry["file"]
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(name, file)
        for key in ("md5", "about", "unverified"):
            entry.pop(key, None)
        with file.open("rb") as handle:
            entry |= {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(handle, "sha256").hexdigest()}
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf8")
    return path


def _write(name: str, file: Path) -> None:
    if file.suffix in (".json", ".txt"):
        _write_text(name, file)
    elif file.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(_state(name), file)
    else:
        torch.save(wrapped(name, _state(name)), file)


def wrapped(name: str, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The state dict as its publisher keeps it."""
    if name == "laion-clap":
        return {"epoch": 15, "state_dict": {f"module.{key}": value for key, value in state.items()}}
    key = {"panns": "model", "ms-clap": "model", "mmaudio-vocoder-16k": "generator", "bigvgan-v2-44k": "generator"}
    return {key[name]: dict(state)} if name in key else dict(state)


def _write_text(name: str, file: Path) -> None:
    from tests.golden import originals

    if name == "bigvgan-v2-44k-config":
        file.write_text(json.dumps({"num_mels": 128, "sampling_rate": 44_100}))
    elif not file.is_file():  # all three files of a tokenizer are written at once
        (file.parent / "made").mkdir()
        originals.vocabulary(file.parent / "made/it", file.parent.name)
        for part in (file.parent / "made/it").iterdir():
            part.rename(file.parent / part.name)
        (file.parent / "made/it").rmdir()
        (file.parent / "made").rmdir()


def _state(name: str) -> dict[str, Tensor]:
    if name in FLOWS:
        return _flow(FLOWS[name])
    return _BUILDERS[name]()


def _of_package(build: str) -> Callable[[], dict[str, Tensor]]:
    def state() -> dict[str, Tensor]:
        from tests.golden import originals

        made = vars(originals)[build]()
        network: nn.Module = made[0] if isinstance(made, tuple) else made
        return weights_of(network.state_dict())

    return state


def _on_meta(build: Callable[[], nn.Module]) -> dict[str, Tensor]:
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in build().state_dict().items()}
    return {key: derived(key, shape) for key, shape in shapes.items()}


def _flow(name: str) -> dict[str, Tensor]:
    """A flow network; deviations of the latent are positive, and the rotations are left to the network."""
    from model_zoo.mmaudio.config import variant
    from model_zoo.mmaudio.flow.network import FlowNetwork

    state = _on_meta(lambda: FlowNetwork(variant(name).network))
    state["latent_std"] = 0.5 + state["latent_std"].abs()
    return state


def _vae(rate: str) -> dict[str, Tensor]:
    from model_zoo.mmaudio.codec.vae import VAE, VAES

    return _on_meta(lambda: VAE(VAES[rate]))


def _vocoder(rate: str) -> dict[str, Tensor]:
    """BigVGAN with weight normalisation in the old spelling, as the released files have it."""
    from model_zoo.mmaudio.codec.vocoder import VOCODERS, BigVGAN, low_pass

    state: dict[str, Tensor] = {}
    for key, value in _on_meta(lambda: BigVGAN(VOCODERS[rate])).items():
        if key.endswith("filter"):
            state[key] = low_pass()
        elif key.endswith(".weight") and value.ndim == 3:
            norm = value.flatten(1).norm(dim=1)[:, None, None]
            state |= {f"{key}_g": norm, f"{key}_v": 3 * value}
        else:
            state[key] = value
    return state


def _synchformer() -> dict[str, Tensor]:
    from av_bench.networks.synchformer import Synchformer

    return _on_meta(Synchformer)


def _clip() -> dict[str, Tensor]:
    from open_clip.model import CLIP

    from av_bench.networks.packages import quiet, uninitialised
    from model_zoo.mmaudio.conditions.clip_encoder import CONFIG

    with quiet(), uninitialised():
        return weights_of(CLIP(**CONFIG).state_dict())


def _gpt2() -> dict[str, Tensor]:
    from transformers import GPT2Config, GPT2Model

    with torch.device("meta"):
        shapes = {key: value.shape for key, value in GPT2Model(GPT2Config()).state_dict().items()}
    return {key: derived(key, shape) for key, shape in shapes.items()}


def _sfx() -> dict[str, Tensor]:
    from tests.extractors.test_sfx import derived_state

    return derived_state()


_BUILDERS: dict[str, Callable[[], dict[str, Tensor]]] = {
    "sfx": _sfx,
    "passt": _of_package("passt"),
    "panns": _of_package("panns"),
    "vggish": _of_package("vggish"),
    "imagebind": _of_package("imagebind"),
    "laion-clap": _of_package("laion_clap"),
    "ms-clap": _of_package("msclap"),
    "gpt2-weights": _gpt2,
    "synchformer": _synchformer,
    "dfn5b-clip": _clip,
    "mmaudio-vae-16k": lambda: _vae("16k"),
    "mmaudio-vae-44k": lambda: _vae("44k"),
    "mmaudio-vocoder-16k": lambda: _vocoder("16k"),
    "bigvgan-v2-44k": lambda: _vocoder("44k"),
    "mmaudio-empty-string": lambda: {"empty_string_feat": derived("empty_string_feat", (77, 1024))},
}


if __name__ == "__main__":
    where, *wanted = sys.argv[1:]
    print(write(Path(where), wanted or list(lock.load_lock())))
