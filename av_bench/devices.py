"""Devices: their names, checked before any work starts, and their arithmetic."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from av_bench.contracts import MissingRequirement, UsageError


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
def single_precision() -> Iterator[None]:
    """Full float32: TF32 off inside, the caller's settings restored after."""
    import torch

    matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolution
