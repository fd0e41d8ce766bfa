"""Make the pack again: the original packages on our inputs. In the environment of the extra ``paper``:

    python -m tests.golden.make [NAME ...] [--inputs]

Nothing of av_bench computes a golden; only the import helpers for misbehaving packages are used. ``--inputs`` renders
the inputs again first (then all goldens must be made again).
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from tests.golden import make_front_ends, make_networks, pack
from tests.golden.weights import draws

SCENE = 1  # of impacts val: a wooden-tipped mallet strikes a metal rod


def make_inputs() -> None:
    """An impacts clip (its sound as 16 bit FLAC, its mp4) and 5 s of two rising tones over noise, with an offset."""
    import soundfile

    from protocols.impacts.build import render_clip
    from protocols.impacts.scene import sample_scene
    from protocols.impacts.sound import render_audio

    pack.INPUTS.mkdir(exist_ok=True)
    scene = sample_scene("val", SCENE)
    soundfile.write(pack.SOUNDS["impact"], np.asarray(render_audio(scene)).T, 44_100, subtype="PCM_16")
    render_clip(scene, pack.INPUTS).replace(pack.VIDEO)
    time = np.arange(5 * 24_000) / 24_000
    tones = [0.3 * np.sin(2 * np.pi * (start + slope * time) * time) for start, slope in ((200, 400), (900, 900))]
    noise = 0.004 * draws("chirp", 2 * len(time)).reshape(2, -1)
    soundfile.write(pack.SOUNDS["chirp"], (np.stack(tones) + noise + 0.02).T, 24_000, subtype="PCM_16")


MAKERS = {
    "waveforms": make_front_ends.waveforms,
    "log_mels": make_front_ends.log_mels,
    "frames": make_front_ends.frames,
    "panns": make_networks.panns,
    "vggish": make_networks.vggish,
    "passt": make_networks.passt,
    "imagebind-audio": make_networks.imagebind_audio,
    "imagebind-video": make_networks.imagebind_video,
    "clap-audio": make_networks.clap_audio,
    "clap-text": make_networks.clap_text,
    "msclap-audio": make_networks.msclap_audio,
    "msclap-text": make_networks.msclap_text,
    "open-clip": make_networks.open_clip,
    "bigvgan": make_networks.bigvgan,
}


def main() -> None:
    """Make the goldens that are named, or all."""
    parser = argparse.ArgumentParser(description="make goldens with the original packages")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MAKERS)}; all by default")
    parser.add_argument("--inputs", action="store_true", help="render the inputs again first")
    options = parser.parse_args()
    if unknown := set(options.names) - set(MAKERS):
        parser.error(f"no golden is called {', '.join(sorted(unknown))}")
    if options.inputs:
        make_inputs()
    for name in options.names or MAKERS:
        with torch.no_grad():
            MAKERS[name]()
        print(f"{name}: {', '.join(f'{k} {v}' for k, v in pack.note(name)['made_from'].items())}", flush=True)


if __name__ == "__main__":
    main()
