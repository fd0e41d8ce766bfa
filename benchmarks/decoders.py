"""Our decoding (PyAV) against torchcodec on a CPU: the same frames, the same sound, processor time taken in turns.

    python benchmarks/decoders.py CLIPS... [--rounds 3]

Both read the first 8 s of a file as the video networks of protocol ``vggsound-8s`` want it (25 frames/s and 0.5
frames/s, short side 224) and its whole sound, with one thread; torchcodec's frames go through the same picking and
resizing (``media/picture.py``) by the times it states. Needs torchcodec (0.13.0 for torch 2.13).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchcodec.decoders import AudioDecoder, VideoDecoder  # type: ignore[import-not-found]

from av_bench.contracts import VideoRequest
from av_bench.media.decode import decode
from av_bench.media.picture import Picker

SECONDS = 8.0
REQUESTS = (VideoRequest(25.0, 224, "center"), VideoRequest(0.5, 224, "short"))
CHUNK = 16  # frames that torchcodec hands over at once
Read = tuple[dict[VideoRequest, torch.Tensor], torch.Tensor | None]


def ours(path: Path) -> Read:
    """Frames of every request, and the sound."""
    media = decode(path, REQUESTS, SECONDS, window=SECONDS)
    return media.pictures, media.audio


class FramePicker(Picker):
    """Our picker for frames that are RGB already."""

    def _array(self, frame: Any) -> NDArray[np.uint8]:
        array: NDArray[np.uint8] = frame
        return array


def theirs(path: Path) -> Read:
    """The same with torchcodec: its frames through our picker."""
    decoder = VideoDecoder(str(path), num_ffmpeg_threads=1, seek_mode="exact", dimension_order="NHWC")
    pickers = [FramePicker(request, int(request.fps * SECONDS)) for request in REQUESTS]
    for start in range(0, len(decoder), CHUNK):
        batch = decoder.get_frames_in_range(start, min(start + CHUNK, len(decoder)))
        for seconds, frame in zip(batch.pts_seconds.tolist(), batch.data.numpy(), strict=True):
            for picker in pickers:
                picker.push(Fraction(seconds).limit_denominator(1_000_000), frame)
        if all(picker.done for picker in pickers):
            break
    for picker in pickers:
        picker.finish(decoder.metadata.end_stream_seconds)
    return {picker.request: picker.stack() for picker in pickers}, sound(path)


def sound(path: Path) -> torch.Tensor | None:
    """``(channels, samples)`` from second 0 on; None without a stream of sound."""
    try:
        decoder = AudioDecoder(str(path))
    except ValueError:
        return None
    found = decoder.get_all_samples()
    shift = round(found.pts_seconds * found.sample_rate)
    data: torch.Tensor = found.data
    return data[:, -shift:] if shift < 0 else torch.nn.functional.pad(data, (shift, 0))


def seconds_of(work: Callable[[Path], Read], path: Path) -> tuple[Read, float]:
    """The result and processor seconds of all threads of the process."""
    started = time.process_time()
    return work(path), time.process_time() - started


def difference(first: Any, second: Any) -> str:
    """How far two arrays are apart."""
    if first is None or second is None:
        return "none" if first is second else "one has none"
    if first.shape != second.shape:
        return f"{tuple(first.shape)} against {tuple(second.shape)}"
    gap = (first.float() - second.float()).abs()
    return f"max {float(gap.max()):.3g}, mean {float(gap.mean()):.2g}" if gap.numel() else "empty"


def main() -> None:
    """Print one line for each clip and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    ratios = []
    for path in options.clips:
        used: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(options.rounds):
            (mine, my_sound), spent = seconds_of(ours, path)
            used["ours"].append(spent)
            (other, other_sound), spent = seconds_of(theirs, path)
            used["theirs"].append(spent)
        ratios.append(statistics.median(used["ours"]) / statistics.median(used["theirs"]))
        frames = "; ".join(f"{r.fps:g} fps: {difference(mine[r], other[r])}" for r in REQUESTS)
        print(
            f"{path.name:<24} ours / torchcodec {ratios[-1]:.2f}  {frames}; sound: {difference(my_sound, other_sound)}"
        )
    print(f"median {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) of {len(ratios)} clips")


if __name__ == "__main__":
    main()
