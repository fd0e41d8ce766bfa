"""Goldens of networks under derived weights, by the original packages (run through ``tests.golden.make``)."""

from __future__ import annotations

import os
import random
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from av_bench.networks.packages import model_file, quiet
from tests.golden import originals, pack
from tests.golden.make_front_ends import Arrays, each, picked, wave
from tests.golden.weights import checksum, draws


def hooked(module: torch.nn.Module, layer: str, call: Callable[[], Any]) -> Tensor:
    """What a layer gives while ``call()`` runs."""
    seen: list[Tensor] = []
    handle = module.get_submodule(layer).register_forward_hook(
        lambda _m, _i, out: seen.append(out.clone())
    )  # a ReLU may overwrite it
    try:
        call()
    finally:
        handle.remove()
    return seen[-1]


def part_sum(name: str, state: dict[str, Tensor]) -> int:
    """Checksum of the tower that a golden is about."""
    return checksum({key: value for key, value in state.items() if re.search(originals.PARTS[name], key)})


def panns() -> None:
    network = originals.panns()
    state = originals.filled(network)

    def of(path: Path) -> Arrays:
        inputs = wave(path, 16_000)[None]
        logits = hooked(network, "fc_audioset", lambda: network(inputs))
        return {"embedding": network(inputs)["embedding"][0], "logits": logits[0]}

    pack.save("panns", ("panns-inference", "torchlibrosa", "torchaudio"), each(of), weights=checksum(state))


def vggish() -> None:
    network, examples_of = originals.vggish(), model_file("torchvggish.vggish_input").waveform_to_examples
    state = originals.filled(network)

    def of(path: Path) -> Arrays:
        examples = examples_of(wave(path, 16_000).numpy(), 16_000).detach()
        return {"embedding": hooked(network, "embeddings.4", lambda: network(examples))}

    pack.save("vggish", ("torchvggish", "torchaudio"), each(of), weights=checksum(state))


def passt() -> None:
    network = originals.passt()
    state = originals.filled(network)
    wrapper = model_file("hear21passt.wrapper").PasstBasicWrapper(mel=originals.passt_mel(), net=network, mode="all")

    def of(path: Path) -> Arrays:
        with quiet():
            out = wrapper.eval()(torch.nn.functional.pad(wave(path, 32_000), (0, 320_000))[None, :320_000])[0]
        return {"logits": out[:527], "embedding": out[527:]}

    pack.save("passt", ("hear21passt", "timm", "torchaudio"), each(of), weights=checksum(state))


def imagebind_audio() -> None:
    network = originals.imagebind()
    state = originals.filled(network, originals.PARTS["imagebind-audio"])

    def of(path: Path) -> Arrays:
        with originals.imagebind_data() as data:
            return {"embedding": network({"audio": data.load_and_transform_audio_data([path], "cpu")})["audio"][0]}

    packages = ("imagebind-unofficial", "timm", "torchaudio")
    rules = {"clip starts": "pytorchvideo at ae9cfc6 (the rule)"}
    pack.save("imagebind-audio", packages, each(of), weights=checksum(state), rules=rules)


def imagebind_video() -> None:
    from torchvision.transforms import v2

    network = originals.imagebind()
    state = originals.filled(network, originals.PARTS["imagebind-video"])
    few = torch.from_numpy(np.stack(picked("1/2")[:2])).permute(0, 3, 1, 2)
    few = v2.Resize(224, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)(few).float() / 255
    with originals.imagebind_data() as data:
        normal = data.NormalizeVideo((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
        views = torch.stack(data.SpatialCrop(224, 3)([normal(few.movedim(0, 1))]))
        views = views[:1]  # the frames are square: the three crops are one
    embedding = network({"vision": views[None]})["vision"][0]
    packages = ("imagebind-unofficial", "timm", "torchvision", "av")
    pack.save("imagebind-video", packages, {"embedding": embedding.numpy()}, weights=checksum(state))


def clap_audio() -> None:
    network, settings = originals.laion_clap()
    state = originals.filled(network)
    features_of = originals.laion_features()

    def of(path: Path) -> Arrays:
        item = features_of({}, wave(path, 48_000), 480_000, "rand_trunc", "repeatpad", settings)
        return {"embedding": network.get_audio_embedding([item])[0]}  # type: ignore[operator]

    pack.save(
        "clap-audio", ("laion-clap", "torchlibrosa", "torchaudio"), each(of), weights=part_sum("clap-audio", state)
    )


def clap_text() -> None:
    from transformers import RobertaTokenizer

    network, _ = originals.laion_clap()
    state = originals.filled(network)
    with tempfile.TemporaryDirectory() as folder:
        originals.vocabulary(Path(folder) / "roberta-base", "roberta-base")
        tokenizer = RobertaTokenizer.from_pretrained(str(Path(folder) / "roberta-base"))
    ids = tokenizer(list(originals.CAPTIONS), padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    embedding = network.get_text_embedding(dict(ids))  # type: ignore[operator]
    arrays = {"embedding": embedding.numpy(), "ids": ids["input_ids"].numpy()}
    pack.save(
        "clap-text",
        ("laion-clap", "transformers"),
        arrays,
        weights=part_sum("clap-text", state),
        captions=originals.CAPTIONS,
    )


def msclap_wrapper(folder: Path) -> tuple[Any, dict[str, Tensor]]:
    """The package's own wrapper around derived weights."""
    from transformers import GPT2Config, GPT2Model

    state = originals.filled(originals.msclap())
    torch.save({"model": state}, folder / "CLAP_weights_2023.pth")
    originals.vocabulary(folder / "gpt2", "gpt2")
    package, wrapper = model_file("msclap.models.clap"), model_file("msclap.CLAPWrapper")
    here = Path.cwd()
    os.chdir(folder)  # the wrapper asks for a tokenizer by the name gpt2
    try:
        with mock.patch.object(package.AutoModel, "from_pretrained", return_value=GPT2Model(GPT2Config())), quiet():
            original = wrapper.CLAPWrapper(folder / "CLAP_weights_2023.pth", version="2023", use_cuda=False)
    finally:
        os.chdir(here)
    return original, state


def msclap_audio() -> None:
    import torchaudio

    def read_audio(path: Path, resample: bool = True) -> tuple[Tensor, int]:
        audio, rate = originals.raw(path)
        return (torchaudio.transforms.Resample(rate, 44_100)(audio) if resample else audio), 44_100

    with tempfile.TemporaryDirectory() as folder:
        original, state = msclap_wrapper(Path(folder))
    original.read_audio = read_audio
    with mock.patch.object(random, "randrange", return_value=0):  # the dice show the first window
        arrays = each(lambda path: {"embedding": original.get_audio_embeddings([path])[0]})
    pack.save("msclap-audio", ("msclap", "torchlibrosa", "torchaudio"), arrays, weights=part_sum("msclap-audio", state))


def msclap_text() -> None:
    with tempfile.TemporaryDirectory() as folder:
        original, state = msclap_wrapper(Path(folder))
    with quiet():
        rows = [original.get_text_embeddings([caption])[0].numpy() for caption in originals.CAPTIONS]
    arrays = {"embedding": np.stack(rows)}
    pack.save(
        "msclap-text",
        ("msclap", "transformers"),
        arrays,
        weights=part_sum("msclap-text", state),
        captions=originals.CAPTIONS,
    )


def open_clip() -> None:
    from open_clip import SimpleTokenizer
    from torchvision.transforms import v2

    network: Any = originals.open_clip()
    state = originals.filled(network)
    few = torch.from_numpy(np.stack([picked("8")[i] for i in (0, 11)])).permute(0, 3, 1, 2)
    few = v2.Resize((384, 384), interpolation=v2.InterpolationMode.BICUBIC, antialias=True)(few)
    scaled = v2.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))(few.float() / 255)
    ids = SimpleTokenizer(context_length=77)(list(originals.CAPTIONS))
    arrays = {
        "images": network.encode_image(scaled, normalize=True).numpy(),
        "ids": ids.numpy(),
        "pooled texts": network.encode_text(ids, normalize=True).numpy(),
    }
    pack.save("open-clip", ("open-clip-torch", "torchvision", "av"), arrays, weights=checksum(state))


def bigvgan() -> None:
    arrays: Arrays = {}
    sums = {}
    for rate, settings in originals.SMALL_VOCODERS.items():
        network = originals.bigvgan(rate)
        sums[rate] = checksum(originals.filled(network))
        mel = torch.from_numpy(draws("mel", settings["num_mels"] * 40).reshape(1, -1, 40)) - 2
        arrays[rate] = network(mel)[0, 0].numpy()
    pack.save("bigvgan", ("bigvgan",), arrays, weights=sums)
