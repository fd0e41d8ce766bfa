"""Peak memory of mmaudio-nano on a GPU, eight clips from text.

python benchmarks/mmaudio_memory.py --device cuda --offload yes
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

from av_bench.contracts import Clip, ClipSet
from model_zoo.mmaudio.nano.model import MMAudioNano


def main(arguments: Sequence[str] | None = None) -> None:
    """Sample and print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--offload", default="no", choices=["no", "yes"])
    parser.add_argument("--steps", type=int, default=25)
    given = parser.parse_args(arguments)
    clips = ClipSet("texts", "1", tuple(Clip(f"c{i}", text="glass") for i in range(8)))
    model = MMAudioNano(offload=given.offload, device=given.device, steps=given.steps)
    model.setup(clips, 8.0, 1)
    made = list(model.generate(clips.clips, 1))
    if torch.device(given.device).type != "cuda":
        print(f"{len(made)} clips; on {given.device} memory is not counted")
        return
    most, left = torch.cuda.max_memory_allocated() / 2**20, torch.cuda.memory_allocated() / 2**20
    print(f"{len(made)} clips: {most:.0f} MiB at most, {left:.0f} MiB left")


if __name__ == "__main__":
    main()
