"""Samples of a random generator made from the real sound of ``impacts``, and what the protocol's networks say of them.

    python benchmarks/gate_samples.py --out FOLDER [--clips 256] [--seeds 8]

Each seed draws anew, clip by clip: noise, level, an echo, a small delay, and in a quarter of the clips another clip's
sound. The first ``--damaged`` seeds are also made worse in known ways. One file of features per clip; what is there is
not made again. ``benchmarks/gate.py`` reads them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import protocols
from av_bench import registry
from av_bench.contracts import Clip, clip_seed
from av_bench.media.decode import DecodedMedia, decode
from model_zoo.sanity import Oracle
from protocols.definitions import SetRequest
from protocols.readers.read import read_clips

SECONDS = 8.0
AUDIO = ("nano-tagger", "nano-bind-audio", "nano-sync-audio", "onsets")
VIDEO = ("nano-bind-video", "nano-sync-video")
DAMAGES = {"lowpass": Oracle(lowpass=3000.0), "gain": Oracle(gain=-6.0), "shift": Oracle(shift=0.05)}


def sample(own: torch.Tensor, other: torch.Tensor, rate: int, seed: int) -> torch.Tensor:
    """One draw of the generator ``(channels, samples)``; ``other`` is another clip's sound."""
    rng = np.random.Generator(np.random.PCG64(seed))
    audio = other if rng.random() < 0.25 else own
    echo = float(rng.uniform(0.15, 0.5)) if rng.random() < 0.5 else None
    change = Oracle(
        shift=float(rng.uniform(0.0, 0.08)),
        gain=float(rng.normal(0.0, 3.0)),
        noise=float(rng.normal(-18.0, 6.0)),
        mix=echo,
    )
    return change.change(audio, rate, seed)


def features(item: DecodedMedia, names: tuple[str, ...], built: dict[str, object]) -> dict[str, np.ndarray]:
    """``EXTRACTOR/OUTPUT`` -> array of one medium."""
    found = {}
    for name in names:
        extractor = built[name]
        output = extractor.run([extractor.prepare(item, SECONDS)])[0]  # type: ignore[attr-defined]
        found |= {f"{name}/{key}": value for key, value in output.items()}
    return found


def clip_features(clip: Clip, other: Clip, seeds: int, damaged: int, built: dict[str, object]) -> dict[str, np.ndarray]:
    """Everything that is kept of one clip: ``reference/...``, ``video/...``, ``SEED/DAMAGE/...``."""
    assert clip.video is not None
    assert other.video is not None
    requests = [built[name].video_request for name in VIDEO]  # type: ignore[attr-defined]
    media = decode(clip.video, requests, SECONDS, audio=True)
    stranger = decode(other.video).channels(media.sample_rate, SECONDS)
    own = media.channels(media.sample_rate, SECONDS)
    video = features(media, VIDEO, built)
    kept = {f"video/{key}": value for key, value in video.items() if "bind" in key}
    kept |= {f"reference/{k}": v for k, v in features(media, AUDIO[:1], built).items()}
    for seed in range(seeds):
        audio = sample(own, stranger, media.sample_rate, clip_seed(seed, clip.id))
        for damage in ("none", *(DAMAGES if seed < damaged else ())):
            heard = audio if damage == "none" else DAMAGES[damage].change(audio, media.sample_rate, seed)
            item = DecodedMedia(media.path, "", heard, media.sample_rate, {}, None)
            found = features(item, AUDIO, built)
            head = built["nano-sync"].run(  # type: ignore[attr-defined]
                [video["nano-sync-video/tokens"]], [found.pop("nano-sync-audio/tokens")]
            )[0]
            found["nano-sync/logits"] = head["logits"]
            kept |= {f"{seed}/{damage}/{key}": value for key, value in found.items()}
    return kept


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--damaged", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    built = {
        name: registry.load("extractors", name).build(None, device="cpu", flavour="strict")
        for name in (*AUDIO, *VIDEO, "nano-sync")
    }
    clips = read_clips(protocols.load_set("impacts"), SetRequest(limit=options.clips)).clips
    options.out.mkdir(parents=True, exist_ok=True)
    for i, clip in enumerate(clips):
        path = options.out / f"{clip.id}.npz"
        if not path.exists():
            kept = clip_features(clip, clips[(i + len(clips) // 2) % len(clips)], options.seeds, options.damaged, built)
            part = path.with_suffix(".part")
            with part.open("wb") as sink:
                np.savez_compressed(sink, **kept)
            part.rename(path)


if __name__ == "__main__":
    main()
