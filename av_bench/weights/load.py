"""Reading weight files without ever running what is in them.

Two formats are read: safetensors, and torch's own through its restricted reader (``weights_only=True``), which knows
tensors and plain containers and refuses every other class by name. Old training checkpoints also hold numpy objects
(a sampler's state); those few names are read as inert stand-ins, so no numpy constructor runs on foreign data.
torch is imported inside the functions: importing this module costs nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from av_bench.contracts import MissingRequirement, UsageError

if TYPE_CHECKING:
    import torch

WRAPPERS = ("model", "state_dict", "generator", "weights")
"""Keys under which published checkpoints keep their weights (PANNs and MS-CLAP, LAION-CLAP, BigVGAN, training)."""

INERT_GLOBALS = (
    "numpy.core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
)
"""The allow-list: what an old checkpoint may name beyond torch's own list. Each is read as ``Discarded``."""

HEADER_LIMIT = 100_000_000  # bytes; the safetensors format's own limit
_HEAD = 1024


class BadWeights(MissingRequirement):
    """A weight file is there but is not what it should be. Never loaded, never given its final name."""


class Discarded:
    """Stand-in for a numpy object of an old checkpoint: takes whatever its constructor is given and keeps nothing."""

    def __init__(self, *args: object) -> None:
        """Ignore the constructor's arguments."""

    def __setstate__(self, state: object) -> None:
        """Ignore the state."""


def wrong_kind(head: bytes, *, text_is_fine: bool = False) -> str | None:
    """What the first bytes of a file say it is, if that cannot be a weight file; None when it can.

    ``text_is_fine`` for tokenizer and configuration files: then only a web page, a gzip file, a pointer file of
    git-lfs and an empty file are refused.
    """
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    if not head:
        return "an empty file"
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<body")):
        return "an HTML page, not weights (a login, licence or error page of the server)"
    if head.startswith(b"\x1f\x8b"):
        return "a gzip file; unpack it first"
    if start.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the file it points to (fetch it with `git lfs pull`)"
    if not text_is_fine and _is_text(head) and not is_safetensors(head):
        return f"a text file that begins with {head[:40].decode('utf-8', 'replace')!r}"
    return None


def load_checkpoint(path: str | Path) -> Any:  # noqa: ANN401 - unpickled
    """Everything a weight file holds, as tensors in plain containers on the CPU (memory-mapped where possible).

    Numpy objects of old checkpoints come back as ``Discarded``. Raises MissingRequirement when the file is absent
    and BadWeights when it is not a weight file, is cut short, or names a class outside the allow-list.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingRequirement(f"{path}: no such weight file; `av-bench weights list` shows what can be pulled")
    with path.open("rb") as file:
        head = file.read(_HEAD)
    reason = wrong_kind(head)
    if reason is not None:
        raise BadWeights(f"{path}: this is {reason}; get the file again")
    if is_safetensors(head):
        return _load_safetensors(path, head)
    return _load_torch(path, zipped=head.startswith(b"PK\x03\x04"))


def load_state_dict(source: str | Path | Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Weights by name, from a file or from a mapping already in memory; nothing but tensors.

    The mapping itself, or the one found under a key of ``WRAPPERS``, is returned with its keys as they are (prefixes
    such as ``module.`` are the network's business). Parameters come back as plain tensors.

    Raises what ``load_checkpoint`` raises, and BadWeights (UsageError for a mapping) when no set of tensors is found.
    """
    import torch

    where = "the given mapping" if isinstance(source, Mapping) else str(source)
    error = UsageError if isinstance(source, Mapping) else BadWeights
    content = source if isinstance(source, Mapping) else load_checkpoint(source)
    if not isinstance(content, Mapping) or not content:
        raise error(f"{where}: expected tensors by name, found {_describe(content)}")
    if not any(isinstance(value, torch.Tensor) for value in content.values()):
        found = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if len(found) != 1:
            keys = ", ".join(str(key) for key in list(content)[:8])
            raise error(f"{where}: no tensors by name, and not exactly one of {WRAPPERS} among its keys ({keys})")
        where, content = f"{where} [{found[0]}]", content[found[0]]
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise error(f"{where}: {key!r} is {_describe(value)}, not a tensor; this is not a state dict")
    if not content:
        raise error(f"{where}: holds no tensors")
    return {key: value.detach() for key, value in content.items()}


def hash_of_mapping(state_dict: Mapping[str, torch.Tensor]) -> str:
    """sha256 over names, dtypes, shapes and raw bytes, in the order of the names; for weights that are not a file.

    Says nothing about the sha256 of a file with the same content. Device and memory layout do not count.
    """
    import torch

    total = hashlib.sha256()
    for key in sorted(state_dict):
        tensor = state_dict[key].detach().cpu().contiguous()
        total.update(f"{key}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1f".encode())
        if tensor.numel():
            total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _load_safetensors(path: Path, head: bytes) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    header, size = int.from_bytes(head[:8], "little"), path.stat().st_size
    if header > min(HEADER_LIMIT, size - 8):  # checked before anything of that length is read
        raise BadWeights(f"{path}: its safetensors header claims {header:,} bytes in a file of {size:,}; refused")
    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError) as error:
        raise BadWeights(f"{path}: damaged safetensors file ({error}); get the file again") from None


def _load_torch(path: Path, *, zipped: bool) -> Any:  # noqa: ANN401 - unpickled
    import torch

    allowed: list[Any] = [(Discarded, name) for name in INERT_GLOBALS]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped or None)
    except UnpicklingError as error:
        raise BadWeights(f"{path}: {_refusal(str(error))}") from None
    except Exception as error:  # whatever a damaged file makes the reader stumble over, it is not a weight file
        first = (str(error).splitlines() or [""])[0]
        raise BadWeights(
            f"{path}: cannot be read as a weight file ({type(error).__name__}: {first}); it is cut short, damaged or "
            "of another kind; get the file again"
        ) from None


def _refusal(message: str) -> str:
    """torch's message without its advice to switch the protection off."""
    named = re.search(r"GLOBAL (\S+)", message) or re.search(r"(?:unrecognized function|but got) (.+)", message)
    if named:
        return (
            f"refused: it asks for {named.group(1)!r}, which is neither a tensor nor on the allow-list, so reading it "
            "could run code. Nothing of it was run. Convert it to safetensors where you trust it"
        )
    detail = re.search(r"Unsupported operand \d+|Weights only load failed[^.]*", message)
    return (
        f"refused: not a torch weight file ({detail.group(0) if detail else 'unreadable'}), e.g. a plain pickle. "
        "Nothing of it was run. Get the file again, or convert it to safetensors where you trust it"
    )


def is_safetensors(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a safetensors header."""
    return len(head) > 8 and head[8:9] == b"{" and not _is_text(head[:8])


def _is_text(head: bytes) -> bool:
    return bool(head) and all(byte in b"\t\n\r\f" or 32 <= byte < 127 or byte >= 128 for byte in head[:256])


def _describe(value: object) -> str:
    if isinstance(value, Discarded):
        return "a numpy object"
    return f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
