"""Device names, checked before any work starts."""

from __future__ import annotations

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
