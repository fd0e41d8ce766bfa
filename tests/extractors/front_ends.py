"""What reaches the first trained weight of every extractor from one synthetic clip, as a few numbers to pin.

A pin says that a front end changed, not that it is right (the golden tests say that). Update the pins after a change of
``front_end_version``:

    python -m tests.extractors.front_ends
"""

from __future__ import annotations

import json
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from av_bench import registry
from av_bench.extractors.base import BasePairExtractor
from av_bench.media.decode import decode

PINS = Path(__file__).with_name("front_ends.json")
CAPTION = "A dog barks; then, far away, a bell!"
SECONDS, FRAME_RATE, SAMPLE_RATE = 8.2, 12, 44_100
HEIGHT, WIDTH = 192, 256
PROJECTIONS = 6
AT_MOST = 2_000_000  # numbers of one input that are looked at, evenly spread
Numbers = dict[str, Any]


# --------------------------------------------------------------------------- the clip


def write_clip(path: Path) -> Path:
    """Stereo noise with an offset and four knocks, and a moving pattern: PCM and RGB, so that no codec rounds them."""
    dice = np.random.PCG64(7).random_raw(2 * round(SECONDS * SAMPLE_RATE)) >> np.uint64(48)
    sound = (dice.astype(np.int64).reshape(2, -1) - 32_768) // np.array([[16], [24]]) + 900
    for knock in (1.0, 2.5, 4.0, 6.3):
        sound[:, round(knock * SAMPLE_RATE) :][:, :2000] *= 8
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    with av.open(str(path), "w", format="mov") as container:
        video = container.add_stream("rawvideo", rate=FRAME_RATE)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "rgb24"
        audio = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="stereo")
        for index in range(round(SECONDS * FRAME_RATE)):
            channels = [x * 5 + index * 3, y * 3 + index * 7, x * y // 64 + index]
            image = np.stack([np.abs(c % 510 - 255) for c in channels], axis=-1).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = index
            container.mux(video.encode(frame))
        block = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(sound.T.astype(np.int16).reshape(1, -1)), format="s16", layout="stereo"
        )
        block.sample_rate, block.pts = SAMPLE_RATE, 0
        for stream, last in ((video, [None]), (audio, [block, None])):
            for frame in last:
                container.mux(stream.encode(frame))  # type: ignore[attr-defined]
    return path


def letters(text: str, *, padding: str, truncation: bool, max_length: int) -> dict[str, list[int]]:
    """One token per letter, behind the call signature of the real tokenizers, whose vocabularies are not here."""
    assert padding == "max_length"
    ids = [ord(letter) for letter in text][: max_length if truncation else None]
    rest = max(0, max_length - len(ids))
    return {"input_ids": ids + [1] * rest, "attention_mask": [1] * len(ids) + [0] * rest}


# --------------------------------------------------------------------------- what the network is given


class _Given(Exception):
    """The network was called."""


class _Stand(nn.Module):
    """In place of a network: keeps what it is given. ``classes``: answers with so many zeros instead of stopping."""

    def __init__(self, classes: int = 0) -> None:
        super().__init__()
        self.given: list[Tensor] = []
        self.classes = classes

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        self.given += [*tensors(inputs), *tensors(named)]
        if not self.classes:
            raise _Given
        return torch.zeros(len(self.given[-1]), self.classes)

    def get_submodule(self, target: str) -> nn.Module:
        del target
        return self


def tensors(value: Any) -> list[Tensor]:
    """All tensors in nested tuples and mappings, in order."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, Sequence) else ()
    return [tensor for part in parts for tensor in tensors(part)]


def first_inputs(module: nn.Module, run: Any) -> list[Tensor]:
    """What the first layer with weights of its own is given, call by call, while ``run()`` runs."""
    calls: list[tuple[str, list[Tensor]]] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: calls.append((name, tensors(inputs))))
        for name, layer in module.named_modules()
        if any(True for _ in layer.parameters(recurse=False))
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return [tensor for name, given in calls if name == calls[0][0] for tensor in given]


def inputs_of(name: str, flavour: str, clip: Path) -> list[Tensor]:
    """Everything that the network of an extractor is given for the clip (a caption, tokens counted upwards)."""
    kind: Any = registry.load("extractors", name)
    if name == "onsets":  # no weights: what it hands out is what it finds
        extractor = kind.build(None, flavour=flavour)
        heard = extractor.prepare(decode(clip), SECONDS)
        return [heard[:1], heard[1:], torch.from_numpy(extractor.run([heard])[0]["detections"])]
    embedded = name.startswith("nano")
    if issubclass(kind, BasePairExtractor):
        shapes = ((200, 64), (200, 64)) if embedded else ((24, 8, 768), (24, 6, 768))
        pair = [(torch.arange(1.0 + np.prod(s))[1:] / 1000).view(1, *s).sin() for s in shapes]
        if embedded:
            head = kind.build(None, flavour=flavour)
            return first_inputs(head.module, lambda: head.forward(*pair))
        stand = _Stand(classes=21)
        kind(stand, "none").forward(*pair)
        return stand.given
    extractor = kind.build(None, flavour=flavour) if embedded else kind(_Stand(), "none", "cpu", flavour)
    seconds = kind.shortest or 4.8
    if kind.modality == "text":
        if not embedded:
            extractor._tokenizer = letters
        item: Any = CAPTION
    else:
        item = decode(clip, [kind.video_request] if kind.video_request else [], seconds)
    ready = extractor.prepare(item, seconds)[None]
    if embedded:
        return first_inputs(extractor.module, lambda: extractor.forward(ready))
    try:
        extractor.forward(ready)
    except _Given:
        return list(extractor.module.given)
    raise AssertionError(f"{name}: forward() never called its network")


# --------------------------------------------------------------------------- a few numbers of it


def signs(label: str, count: int) -> NDArray[np.float64]:
    """``(PROJECTIONS, count)`` of +1 and -1, the same everywhere."""
    raw = np.random.PCG64(zlib.crc32(label.encode())).random_raw(-(-PROJECTIONS * count // 64))
    bits = np.unpackbits(raw.astype("<u8").view(np.uint8), bitorder="little")[: PROJECTIONS * count]
    return (2.0 * bits - 1.0).reshape(PROJECTIONS, count)


def summary(label: str, given: Tensor) -> Numbers:
    """Shape, root mean square, and sums under random signs over the root of the count.

    If the values move by d (root mean square), each sum moves by about d: no change hides in a mean.
    """
    flat = given.detach().reshape(-1)
    values = flat[:: max(1, len(flat) // AT_MOST) | 1].double().numpy()
    return {
        "shape": list(given.shape),
        "rms": float(np.sqrt(np.square(values).mean())),
        "projections": [float(p) for p in signs(label, len(values)) @ values / np.sqrt(len(values))],
    }


def flavours(name: str) -> list[str]:
    """Both flavours where they differ."""
    kind: Any = registry.load("extractors", name)
    matters = not issubclass(kind, BasePairExtractor) and kind.flavour_matters
    return ["paper", "strict"] if matters else ["paper"]


def pinned(name: str, flavour: str, clip: Path) -> Numbers:
    """The pin of one extractor as the code is now."""
    with torch.inference_mode():
        given = inputs_of(name, flavour, clip)
    version = registry.load("extractors", name).front_end_version
    return {"version": version, "inputs": [summary(f"{name} {i}", tensor) for i, tensor in enumerate(given)]}


def difference(old: Numbers, new: Numbers) -> float:
    """Largest movement of a number in units of the root mean square; infinity for another shape."""
    if [i["shape"] for i in old["inputs"]] != [i["shape"] for i in new["inputs"]]:
        return float("inf")
    worst = 0.0
    for a, b in zip(old["inputs"], new["inputs"], strict=True):
        moved = np.abs(np.subtract([a["rms"], *a["projections"]], [b["rms"], *b["projections"]]))
        worst = max(worst, float(moved.max()) / (a["rms"] or 1.0))
    return worst


def tolerance(name: str) -> float:
    """Rounding differs between processors: that of a float32 FFT, that of resized uint8 frames; ids do not round."""
    kind: Any = registry.load("extractors", name)
    if issubclass(kind, BasePairExtractor):
        return 1e-5
    return {"audio": 1e-4, "video": 5e-3, "text": 1e-12}[str(kind.modality)]


def refused(pins: Mapping[str, Numbers], key: str, made: Numbers, name: str) -> bool:
    """A changed front end under its old version must not be pinned."""
    old = pins.get(key)
    return old is not None and old["version"] == made["version"] and difference(old, made) > tolerance(name)


def every() -> Iterator[tuple[str, str]]:
    """All extractors with their flavours."""
    for name in registry.OWN["extractors"]:
        for flavour in flavours(name):
            yield name, flavour


def main() -> int:
    """Write the pins; exit status 1 when a front end changed and its version did not."""
    pins: dict[str, Numbers] = json.loads(PINS.read_text()) if PINS.is_file() else {}
    wrong, new = [], {}
    with tempfile.TemporaryDirectory() as folder:
        clip = write_clip(Path(folder) / "clip.mov")
        for name, flavour in every():
            key = f"{name} {flavour}"
            made = pinned(name, flavour, clip)
            if refused(pins, key, made, name):
                wrong.append(key)
            old = pins.get(key)
            new[key] = old if old is not None and old["version"] == made["version"] else made
    if wrong:
        print(f"not pinned, the front end changed but front_end_version did not: {', '.join(wrong)}")
        return 1
    PINS.write_text(json.dumps(new, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
