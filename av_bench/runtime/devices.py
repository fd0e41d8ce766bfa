"""Devices: their names, checked before any work starts, and their arithmetic."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from av_bench.contracts import MissingRequirement, UsageError

if TYPE_CHECKING:
    import torch


def check_device(device: str) -> None:
    """Refuse names torch does not know and CUDA devices that are not there."""
    import torch

    try:
        parsed = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"--device {device!r}: cpu, cuda or cuda:N is expected") from error
    if parsed.type == "cuda" and (not torch.cuda.is_available() or (parsed.index or 0) >= torch.cuda.device_count()):
        raise MissingRequirement(
            f"--device {device}: this machine has {torch.cuda.device_count()} CUDA devices; use cpu"
        )


@contextlib.contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """This thread's GPU work beside that of other threads, done when the context ends; elsewhere nothing changes.

    What goes in must be complete on the GPU, and nothing made inside may be used on another stream before the end.
    """
    import torch

    if device.type != "cuda" or not torch.cuda.is_available():
        yield
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()


def finish(device: torch.device) -> None:
    """Wait for what this thread gave the GPU to do, and for nothing else."""
    import torch

    if device.type == "cuda" and torch.cuda.is_available():
        torch.cuda.current_stream(device).synchronize()


_switch = threading.Lock()
_inside = 0  # threads that want full float32 now
_before = (False, False)


@contextlib.contextmanager
def single_precision() -> Iterator[None]:
    """Full float32: TF32 is off inside, and comes back when the last thread that is inside leaves.

    The switch is the process's, so other threads compute in full float32 meanwhile.
    """
    global _inside, _before
    import torch

    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    with _switch:
        if _inside == 0:
            _before = matmul.allow_tf32, convolution.allow_tf32
            matmul.allow_tf32 = convolution.allow_tf32 = False
        _inside += 1
    try:
        yield
    finally:
        with _switch:
            _inside -= 1
            if _inside == 0:
                matmul.allow_tf32, convolution.allow_tf32 = _before
