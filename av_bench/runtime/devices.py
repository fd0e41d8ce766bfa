"""Devices: their names, checked before any work starts, and their arithmetic."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
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
        raise MissingRequirement(f"{device}: this machine has {_cuda_devices(torch.cuda.device_count())}; use cpu")


def _cuda_devices(count: int) -> str:
    if count < 2:
        return "one CUDA device, cuda:0" if count else "no CUDA device"
    return f"{count} CUDA devices, cuda:0 to cuda:{count - 1}"


def parse_devices(text: str) -> tuple[str, ...]:
    """``cuda:0,cuda:1``; ``cuda`` for all of this machine's; ``cpu:4`` for four workers. UsageError otherwise.

    All are of one kind: features of a CPU and of a GPU are not the same to the last bit.
    """
    found: list[str] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        kind, colon, number = part.partition(":")
        if kind == "cpu" and re.fullmatch(r"(:0*[1-9][0-9]{0,2})?", colon + number):
            found += ["cpu"] * int(number or 1)
        elif part == "cuda":
            found += _all_cuda()
        elif kind == "cuda" and re.fullmatch(r"[0-9]{1,4}", number):
            found.append(f"cuda:{int(number)}")
        else:
            raise UsageError(
                f"--devices {text!r}: cuda:0,cuda:1 or cuda (all of them) or cpu:4 (at most 999 workers) is expected"
            )
    if len({device_type(device) for device in found}) != 1:
        raise UsageError(f"--devices {text!r}: devices of one kind are expected, at least one")
    twice = sorted({d for d in found if d != "cpu" and found.count(d) > 1})
    if twice:
        raise UsageError(f"--devices {text!r}: {twice[0]} is listed twice")
    return tuple(found)


def _all_cuda() -> list[str]:
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cuda"]


def device_type(device: str) -> str:
    """``cpu``, ``cuda`` ...: what of a device's name decides the numbers."""
    return device.partition(":")[0]


@cache
def multiplies_bf16() -> bool:
    """Whether this machine's processor has products of bf16 numbers (AVX-512 BF16, AMX, or those of Arm)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf8", errors="replace")
    except OSError:  # not Linux: unknown
        return False
    flags = next((line for line in text.splitlines() if line.lower().startswith(("flags", "features"))), "")
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags.split()))


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


def cast_once(network: torch.nn.Module) -> None:
    """Weights of all matrix products and convolutions to bf16, in place, for use under bf16 autocast.

    Autocast would cast them at every use, since it keeps casts only of weights that are trained; the values, and so the
    samples, are the same. What autocast leaves in float32 (norms, embeddings, latent statistics) stays as it is.
    """
    import torch

    for module in network.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Conv3d):
            module.to(torch.bfloat16)
