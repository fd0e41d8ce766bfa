"""The lock file of lists: which public file is which list, with address, hash, rows and licence.

Sets and audits name the same entries of ``sources.yaml``, and ``--lists`` means the same to both: a lists folder, or
one list file. A locked file must have the locked content: a list that changed is refused.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from av_bench.contracts import MissingRequirement, UsageError, unknown_name
from av_bench.rows import LARGEST_TABLE
from av_bench.runtime.files import home
from av_bench.schema import SET_BY_LOADER, NonNegativeInt, PositiveInt, Sha256, read_yaml

LOCK = Path(__file__).with_name("sources.yaml")


@dataclass(frozen=True)
class ListFile:
    """One locked file. ``local`` is its place below a lists folder, gzipped; ``sha256`` is of the unpacked content.

    ``format`` is None for files that hold no clips. A repository may keep a file in ``parts`` (``{part}`` in ``path``),
    each with ``drop_lines`` lines at its head that are left out.
    """

    repository: str
    path: str
    commit: str
    local: str
    sha256: Sha256
    rows: PositiveInt
    licence: str
    format: str | None = None
    parts: PositiveInt = 1
    drop_lines: NonNegativeInt = 0
    name: str = field(default="", metadata=SET_BY_LOADER)


@dataclass(frozen=True)
class NamedList:
    """A list that can be audited: the rows of ``files`` without those that are in ``minus``."""

    files: tuple[str, ...]
    minus: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class UserList:
    """A list that is not public; the user gives the file."""

    note: str
    format: str | None = None


@dataclass(frozen=True)
class Sources:
    """The lock file. ``url``: template of a file's address; ``aliases``: other names of ``lists``."""

    url: str
    files: Mapping[str, ListFile]
    lists: Mapping[str, NamedList]
    user: Mapping[str, UserList]
    aliases: Mapping[str, str]
    version: PositiveInt = 1


@cache
def sources() -> Sources:
    """The lock file, read once."""
    found = read_yaml(LOCK, Sources)
    return replace(found, files={name: replace(item, name=name) for name, item in found.files.items()})


def list_file(name: str) -> ListFile:
    """One locked file by its name."""
    files = sources().files
    if name not in files:
        raise UsageError(unknown_name("list file", name, files))
    return files[name]


def urls(item: ListFile) -> list[str]:
    """Public addresses of a file (several when the repository keeps it in parts)."""
    paths = [item.path.format(part=part) for part in range(item.parts)]
    return [sources().url.format(repository=item.repository, commit=item.commit, path=path) for path in paths]


# --------------------------------------------------------------------------- files


def default_folder() -> Path:
    """Where ``lists pull`` puts files: ``$AV_BENCH_LISTS``, else ``lists`` in the package's cache folder."""
    return Path(os.environ.get("AV_BENCH_LISTS") or home() / "lists")


def check_lists(where: Path | None) -> Path:
    """What ``--lists`` names: a folder or a file, by default the folder of ``lists pull``. UsageError when absent."""
    if where is None:
        return default_folder()
    if not where.exists():
        raise UsageError(f"--lists {where}: no such lists folder or list file")
    return where


def unpack(path: Path) -> bytes:
    """Bytes of a list, gunzipped where the name ends in ``.gz``; UsageError when missing, damaged, empty or too large.

    At most ``LARGEST_TABLE`` bytes are unpacked, whatever a gzip file holds.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such list file; give an existing file, or a known list name with --lists DIR")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as handle:
            raw = handle.read(LARGEST_TABLE + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path}: not a readable file or gzip file ({error}); pull or unpack it again") from error
    if len(raw) > LARGEST_TABLE:
        raise UsageError(f"{path}: more than {LARGEST_TABLE:,} bytes unpacked; a list has at most that many")
    if raw.isspace() or not raw:
        raise UsageError(f"{path}: the list is empty")
    return raw


def sha256_of(path: Path) -> str:
    """sha256 of a list's unpacked content."""
    return hashlib.sha256(unpack(path)).hexdigest()


def locate(where: Path, item: ListFile) -> Path | None:
    """The file of ``item`` in a lists folder: at its locked place, plain or ``.gz``.

    A file of its public name, and a single file in place of a folder, are taken when they have the locked content.
    None when it is not there.
    """
    if where.is_dir() and (path := find_in(where, item.local.removesuffix(".gz"))) is not None:
        return path
    path = where if where.is_file() else find_in(where, Path(item.path).name)
    return path if path is not None and sha256_of(path) == item.sha256 else None


def find_in(folder: Path, *names: str) -> Path | None:
    """The first of ``names`` that a folder has, plain or ``.gz``."""
    candidates = (folder / f"{name}{suffix}" for name in names for suffix in (".gz", ""))
    return next((path for path in candidates if path.is_file()), None)


def require(where: Path, item: ListFile) -> Path:
    """``locate``; MissingRequirement with the command that gets the file when it is not there."""
    path = locate(where, item)
    if path is None:
        raise MissingRequirement(
            f"{where}: the list {item.name} is not there; get it with `av-bench lists pull {item.name}`, "
            f"or point --lists at a folder that holds {item.local}, or at the file"
        )
    return path


def changed(path: Path, item: ListFile, digest: str) -> str:
    """Message for content that is not the locked one."""
    return (
        f"{path}: the content is not the locked one (sha256 {digest[:16]}..., locked {item.sha256[:16]}...); pull it "
        "again, or give the file as a plain path to audit it as a list of your own"
    )
