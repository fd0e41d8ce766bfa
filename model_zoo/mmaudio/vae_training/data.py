"""Sound for VAE training: waves or mels in memory, a memory-mapped file, or a folder of audio files.

Items are drawn without replacement within an epoch. Which items and which crops a step sees is a function of
(seed, step) alone, so a resumed run needs no stored position.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from av_bench.contracts import MediaError, UsageError
from av_bench.media.suffixes import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from av_bench.runtime.files import atomic_path, write_atomically
from model_zoo.mmaudio.codec.mel import log_mel
from model_zoo.mmaudio.vae_training.recipes import VAERecipe


class Items(Protocol):
    """Items by index: waves ``(samples,)`` as float in [-1, 1] or int16, or mels ``(n_mels, frames)`` as float."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> ArrayLike: ...


_RECORDINGS = AUDIO_SUFFIXES | VIDEO_SUFFIXES
_PROBES = 64
PACK_WINDOWS = 2  # a packed item is at most this many training windows long, so that an epoch hears most of it


class Windows:
    """Random windows of ``recipe.frames`` mel frames out of ``items``; the last ``recipe.holdout`` items stay out.

    Where these would be half of all or more, a quarter stays out: small folders can be trained on.
    """

    def __init__(self, items: Items, recipe: VAERecipe) -> None:
        self.items, self.recipe = items, recipe
        few = 2 * recipe.holdout >= len(items)
        held_out = -(-len(items) // 4) if few and recipe.holdout else recipe.holdout
        self.count = len(items) - held_out
        if self.count < 1:
            raise UsageError(
                f"VAE training: {len(items)} items are too few: one is held out and one trained on at least; bring more"
            )
        self.waves = np.asarray(items[0]).ndim == 1
        self.length = recipe.frames * (recipe.mel.hop if self.waves else 1)
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def rows(self, step: int) -> list[int]:
        """Indices of the items of a step (the first step is 1)."""
        first = (step - 1) * self.recipe.batch
        return [self._row(k) for k in range(first, first + self.recipe.batch)]

    def _row(self, position: int) -> int:
        epoch, place = divmod(position, self.count)
        order = self._order  # read once: a thread that prepares a batch may replace it
        if order is None or order[0] != epoch:
            order = epoch, np.random.default_rng([self.recipe.seed, epoch, 1]).permutation(self.count)
            self._order = order
        return int(order[1][place])

    def batch(self, step: int, share: slice = slice(None)) -> Tensor:
        """A process's share of a step's windows: waves ``(n, length)`` or mels ``(n, n_mels, frames)``, float32."""
        rows = self.rows(step)
        places = np.random.default_rng([self.recipe.seed, step, 2]).random(len(rows)).tolist()
        return torch.stack([self.window(*found) for found in list(zip(rows, places, strict=True))[share]])

    def window(self, row: int, place: float) -> Tensor:
        """One window of an item; ``place`` in [0, 1) says where. UsageError for an item that cannot be used."""
        item = np.asarray(self.items[row])
        shape_fits = item.ndim == 1 if self.waves else item.ndim == 2 and item.shape[0] == self.recipe.mel.n_mels
        if not shape_fits or item.shape[-1] < self.length:
            wanted = f"({self.length}+,)" if self.waves else f"({self.recipe.mel.n_mels}, {self.length}+)"
            raise UsageError(f"VAE training: item {row} has shape {item.shape}, expected {wanted}")
        start = int(place * (item.shape[-1] - self.length + 1))
        piece = np.array(item[..., start : start + self.length])
        values = piece.astype(np.float32) / 32767 if piece.dtype == np.int16 else piece.astype(np.float32)
        if not np.isfinite(values).all():
            raise UsageError(f"VAE training: item {row} holds values that are not finite")
        return torch.from_numpy(values)

    def mel(self, windows: Tensor) -> Tensor:
        """Windows on any device -> log-mels ``(B, n_mels, frames)``."""
        return log_mel(windows, self.recipe.mel) if self.waves else windows

    def held_out(self) -> Tensor:
        """The central window of every item that is kept for validation."""
        return torch.stack([self.window(row, 0.5) for row in range(self.count, len(self.items))])

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation per mel bin, each ``(n_mels,)``, over at most ``statistics_items`` windows."""
        rng = np.random.default_rng([self.recipe.seed, 3])
        rows = rng.permutation(self.count)[: self.recipe.statistics_items]
        total = torch.zeros(2, self.recipe.mel.n_mels, dtype=torch.float64)
        for part in np.array_split(rows, -(-len(rows) // 32)):
            mels = self.mel(torch.stack([self.window(int(row), float(rng.random())) for row in part])).double()
            total += torch.stack([mels.sum((0, 2)), mels.square().sum((0, 2))])
        mean, square = total / (len(rows) * self.recipe.frames)
        std = (square - mean.square()).clamp(min=0).sqrt()
        if bool((std < 1e-4).any()):
            flat = int((std < 1e-4).nonzero()[0])
            raise UsageError(f"VAE training: mel bin {flat} never changes in {len(rows)} windows; is the data silent?")
        return mean.float(), std.float()


def digest(items: Items) -> str:
    """sha256 of what tells data sets apart: number of items, a pack's files and pieces, and up to 64 items' content.

    The items are spread evenly over all, so that large data need not be read through.
    """
    listing = items.listing if isinstance(items, Pack) else ""
    found = hashlib.sha256(f"{len(items)} {listing}".encode())
    for row in np.unique(np.linspace(0, len(items) - 1, _PROBES).astype(np.int64)).tolist():
        item = np.ascontiguousarray(items[row])
        found.update(f"{item.shape} {item.dtype.str}".encode() + item.tobytes())
    return found.hexdigest()


def open_items(
    source: Path, recipe: VAERecipe, work: Path, report: Callable[[str], None] = print, decode: bool = True
) -> Items:
    """Items of a ``.npy`` file ``(n, samples)`` or ``(n, n_mels, frames)``, memory-mapped, or of a folder of sound.

    A folder is decoded once into ``work/pack.raw``: mono int16 at the mel's sample rate, every file cut into equal
    items of one to two windows. Files that are unreadable or shorter than a window are named in ``work/pack.json`` and
    left out. One process at a time may decode; with ``decode`` False the pack must be there (UsageError).
    """
    if source.is_dir():
        return _pack(source, recipe, work, report if decode else None)
    try:
        array = np.load(source, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"{source}: neither a folder of audio files nor a readable .npy file ({error})") from None
    if array.ndim not in (2, 3):
        raise UsageError(f"{source}: expected (items, samples) or (items, n_mels, frames), got {array.shape}")
    items: NDArray[Any] = array
    return items


class Pack:
    """Pieces of sound of different lengths, mono int16, one after another in a memory-mapped file of raw samples.

    ``starts`` holds the first sample of each piece and the end of the last, ``listing`` is a sha256 of that and of what
    the sound is from.
    """

    def __init__(self, path: Path, starts: Sequence[int], listing: str) -> None:
        self.listing = hashlib.sha256(f"{listing} {list(starts)}".encode()).hexdigest()
        self.starts = np.array(starts, dtype=np.int64)
        self._samples = np.memmap(path, dtype=np.int16, mode="r", shape=(int(self.starts[-1]),))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> NDArray[np.int16]:
        return self._samples[self.starts[row] : self.starts[row + 1]]


def _pack(folder: Path, recipe: VAERecipe, work: Path, report: Callable[[str], None] | None) -> Items:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _RECORDINGS)
    window = recipe.frames * recipe.mel.hop
    listing = {
        "sample_rate": recipe.mel.sample_rate,
        "samples": PACK_WINDOWS * window,
        "files": [[str(path.relative_to(folder)), path.stat().st_size] for path in files],
    }
    pack, index = work / "pack.raw", work / "pack.json"
    try:
        known = json.loads(index.read_bytes()) if index.exists() else {}
    except ValueError:  # damaged: as good as none
        known = {}
    if isinstance(known, dict) and all(known.get(key) == value for key, value in listing.items()):
        if "starts" in known and pack.exists():
            return Pack(pack, known["starts"], json.dumps(listing))
        if "starts" not in known and (work / "pack.npy").exists():
            return _mapped(work / "pack.npy")  # a run that was started when all pieces had one length keeps them
    if report is None:
        raise UsageError(
            f"{work}: the sound that the first process decoded is not here; --out must be one shared folder"
        )
    for old in work.glob(f".{pack.name}.*.part"):  # half a pack, left by a killed run
        old.unlink()
    with atomic_path(pack) as raw:
        starts, left_out = _decoded(files, folder, recipe, raw)
        index.unlink(missing_ok=True)  # never an index beside another pack
    write_atomically(index, json.dumps({**listing, "starts": starts, "left_out": left_out}).encode())
    items = len(starts) - 1
    report(f"{folder}: {len(files) - len(left_out)} files, {items} items; {len(left_out)} files left out, see {index}")
    return Pack(pack, starts, json.dumps(listing))


def _decoded(files: Sequence[Path], folder: Path, recipe: VAERecipe, raw: Path) -> tuple[list[int], dict[str, str]]:
    """Decode into ``raw``; returns where pieces start, and files left out with the reason. UsageError when all are."""
    window = recipe.frames * recipe.mel.hop
    starts: list[int] = [0]
    left_out: dict[str, str] = {}
    with raw.open("wb") as out:
        for path in files:
            try:
                sound = _sound(path, recipe.mel.sample_rate, window)
            except MediaError as error:
                left_out[str(path.relative_to(folder))] = str(error)
                continue
            out.write(sound.tobytes())
            starts += [starts[-1] + end for end in _ends(len(sound), PACK_WINDOWS * window)]
    if len(starts) == 1:
        why = f" ({left_out})" if left_out else f"; looked for {', '.join(sorted(_RECORDINGS))}"
        raise UsageError(f"{folder}: none of {len(files)} audio files holds {window} samples{why}")
    return starts, left_out


def _ends(samples: int, longest: int) -> list[int]:
    """Ends of the fewest pieces of at most ``longest`` samples, as equal as can be; nothing is dropped.

    Two windows at most and one window at least give pieces of at least one window.
    """
    count = -(-samples // longest)
    return [samples * number // count for number in range(1, count + 1)]


def _sound(path: Path, sample_rate: int, least: int) -> NDArray[np.int16]:
    from av_bench.contracts import Reason
    from av_bench.media.decode import decode

    wave = decode(path).waveform(sample_rate, None, remove_mean=False).numpy()
    if len(wave) < least:
        raise MediaError(path, Reason.TOO_SHORT_AUDIO, f"{len(wave)} samples, {least} are needed")
    samples: NDArray[np.int16] = np.round(wave.clip(-1, 1) * 32767).astype(np.int16)
    return samples


def _mapped(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
