"""Goldens of decoder, resampler and front ends, by the original packages (run through ``tests.golden.make``)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from av_bench.networks.packages import model_file
from tests.golden import originals, pack

Arrays = dict[str, Any]


def each(function: Callable[[Path], Any]) -> Arrays:
    """``function`` of both sounds; arrays under the sound's name, or name and part."""
    found: Arrays = {}
    for name, path in pack.SOUNDS.items():
        made = function(path)
        for part, value in made.items() if isinstance(made, dict) else [("", made)]:
            found[f"{name} {part}".strip()] = np.asarray(value)
    return found


def wave(path: Path, rate: int, **options: Any) -> Tensor:
    return originals.loaded(path, rate, pack.SECONDS, **options)


def waveforms() -> None:
    def of(path: Path) -> Arrays:
        found = {str(rate): wave(path, rate) for rate in (16_000, 32_000, 44_100, 48_000)}
        found["16000 with its mean"] = wave(path, 16_000, centre=False)
        return {key: pack.thinned(value, edge=256, step=61) for key, value in found.items()}

    pack.save("waveforms", ("torchaudio", "soundfile"), each(of), seconds=pack.SECONDS)


def log_mels() -> None:
    from bigvgan.meldataset import mel_spectrogram

    examples_of, passt = model_file("torchvggish.vggish_input").waveform_to_examples, originals.passt_mel()

    def of(path: Path) -> Arrays:
        padded = torch.nn.functional.pad(wave(path, 32_000), (0, 320_000))[:320_000]
        voices = {
            "16k": mel_spectrogram(wave(path, 16_000)[None], 1024, 80, 16_000, 256, 1024, 0, 8000),
            "44k": mel_spectrogram(wave(path, 44_100)[None], 2048, 128, 44_100, 512, 2048, 0, None),
        }
        with originals.imagebind_data() as data:
            imagebind = data.load_and_transform_audio_data([path], "cpu")[0, :, 0]
        return {
            "panns": pack.thinned(originals.decibel_mel(wave(path, 16_000), 16_000, 512, 160, 50, 8000), 0),
            "clap": pack.thinned(originals.decibel_mel(wave(path, 48_000), 48_000, 1024, 480, 50, 14_000), 0),
            "vggish": pack.thinned(examples_of(wave(path, 16_000).numpy(), 16_000).detach()[:, 0], 1),
            "passt": pack.thinned(passt(padded[None])[0]),
            "imagebind": pack.thinned(imagebind),
            "synchformer": pack.thinned(originals.synchformer_mel(wave(path, 16_000, centre=False))),
            **{f"mmaudio {rate}": pack.thinned(mel[0]) for rate, mel in voices.items()},
        }

    packages = (
        "torchaudio",
        "torchlibrosa",
        "torchvggish",
        "hear21passt",
        "imagebind-unofficial",
        "bigvgan",
        "librosa",
    )
    pins = {"clip starts": "pytorchvideo at ae9cfc6 (the rule; the package index has 0.1.5 with other starts)"}
    with torch.no_grad():
        pack.save("log_mels", packages, each(of), seconds=pack.SECONDS, rules=pins)


def picked(rate: str) -> list[np.ndarray[Any, Any]]:
    """RGB frames of the video that ffmpeg's own fps filter lets through."""
    import av

    frames = []
    with av.open(str(pack.VIDEO)) as container:
        graph = av.filter.Graph()
        source = graph.add_buffer(template=container.streams.video[0])
        chain = [source, graph.add("fps", f"fps={rate}"), graph.add("buffersink")]
        graph.link_nodes(*chain).configure()
        for frame in [*container.decode(video=0), None]:
            graph.push(frame)
            while True:
                try:
                    frames.append(graph.pull().to_ndarray(format="rgb24"))
                except (av.error.BlockingIOError, av.error.EOFError):
                    break
    return frames


def frames() -> None:
    from torchvision.transforms import v2

    bicubic = {"interpolation": v2.InterpolationMode.BICUBIC, "antialias": True}
    ways = {
        "center 224": v2.Compose([v2.Resize(224, **bicubic), v2.CenterCrop(224)]),
        "squash 384": v2.Resize((384, 384), **bicubic),
        "center 64": v2.Compose([v2.Resize(64, **bicubic), v2.CenterCrop(64)]),
    }
    arrays: Arrays = {}
    for rate in ("1/2", "8", "25"):
        shown = torch.from_numpy(np.stack(picked(rate))).permute(0, 3, 1, 2)
        few = shown[:4] if rate == "1/2" else shown[[0, 5, 11, 38]]
        for way, resize in ways.items():
            arrays[f"{way} at {rate}"] = resize(few)[..., 3::17, 5::17].numpy()
        arrays[f"count at {rate}"] = np.array(len(shown))
    tall = torch.from_numpy(pack.bytes_of(5, (1, 3, 90, 50)))
    with originals.imagebind_data() as data:
        short = v2.Resize(224, **bicubic)(tall)
        crops = data.SpatialCrop(224, 3)([short.movedim(0, 1)])
    arrays["tall crops"] = torch.stack([c.movedim(1, 0) for c in crops])[..., 3::17, 5::17].numpy()
    pack.save("frames", ("torchvision", "av", "imagebind-unofficial"), arrays)
