"""Sound for VAE training: waves or mels in memory, a memory-mapped file, or a folder of audio files.

Items are drawn without replacement within an epoch. Which items and which crops a step sees is a function of
(seed, step) alone, so a resumed run needs no stored position.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from av_bench.contracts import MediaError, UsageError
from model_zoo.mmaudio.mel import log_mel
from model_zoo.mmaudio.vae_recipes import VAERecipe

Items = Sequence[NDArray[Any]] | NDArray[Any]
"""Items by index: waves ``(samples,)`` as float in [-1, 1] or int16, or mels ``(n_mels, frames)`` as float."""

AUDIO = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".mp4", ".mkv", ".webm"})
PACK_FRAMES = 2  # a packed item is this many training windows long, so that crops move


class Windows:
    """Random windows of ``recipe.frames`` mel frames out of ``items``; the last ``recipe.holdout`` items stay out."""

    def __init__(self, items: Items, recipe: VAERecipe) -> None:
        self.items, self.recipe = items, recipe
        self.count = len(items) - recipe.holdout
        if self.count < 1:
            raise UsageError(
                f"VAE training: {len(items)} items are too few for {recipe.holdout} held out; bring more or set holdout"
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
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.recipe.seed, epoch, 1]).permutation(self.count)
        return int(self._order[1][place])

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


def open_items(source: Path, recipe: VAERecipe, work: Path, report: Callable[[str], None] = print) -> Items:
    """Items of a ``.npy`` file ``(n, samples)`` or ``(n, n_mels, frames)``, memory-mapped, or of a folder of sound.

    A folder is decoded once into ``work/pack.npy``: mono int16 at the mel's sample rate, items two windows long
    without overlap. Files that are unreadable or too short are named in ``work/pack.json`` and left out.
    """
    if source.is_dir():
        return _pack(source, recipe, work, report)
    try:
        array = np.load(source, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"{source}: neither a folder of audio files nor a readable .npy file ({error})") from None
    if array.ndim not in (2, 3):
        raise UsageError(f"{source}: expected (items, samples) or (items, n_mels, frames), got {array.shape}")
    items: NDArray[Any] = array
    return items


def _pack(folder: Path, recipe: VAERecipe, work: Path, report: Callable[[str], None]) -> Items:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO)
    samples = PACK_FRAMES * recipe.frames * recipe.mel.hop
    listing = {
        "sample_rate": recipe.mel.sample_rate,
        "samples": samples,
        "files": [[str(path.relative_to(folder)), path.stat().st_size] for path in files],
    }
    pack, index = work / "pack.npy", work / "pack.json"
    if pack.exists() and index.exists():
        known = json.loads(index.read_text())
        if all(known.get(key) == value for key, value in listing.items()):
            return _mapped(pack)
    pieces, left_out = 0, {}
    raw = work / f".pack.{os.getpid()}.raw"
    with raw.open("wb") as out:
        for path in files:
            try:
                found = _pieces(path, recipe.mel.sample_rate, samples)
            except MediaError as error:
                left_out[str(path.relative_to(folder))] = str(error)
                continue
            out.write(found.tobytes())
            pieces += len(found)
    if not pieces:
        raw.unlink()
        raise UsageError(f"{folder}: none of {len(files)} audio files holds {samples} samples ({left_out})")
    array = np.lib.format.open_memmap(pack, mode="w+", dtype=np.int16, shape=(pieces, samples))
    array[:] = np.memmap(raw, dtype=np.int16, mode="r", shape=(pieces, samples))
    array.flush()
    raw.unlink()
    index.write_text(json.dumps({**listing, "left_out": left_out}, indent=1))
    report(f"{folder}: {len(files) - len(left_out)} files, {pieces} items; {len(left_out)} files left out, see {index}")
    return _mapped(pack)


def _pieces(path: Path, sample_rate: int, samples: int) -> NDArray[np.int16]:
    from av_bench.contracts import Reason
    from av_bench.media import decode

    wave = decode(path).waveform(sample_rate, None, remove_mean=False).numpy()
    count = len(wave) // samples
    if not count:
        raise MediaError(path, Reason.TOO_SHORT_AUDIO, f"{len(wave)} samples, {samples} are needed")
    cut = np.round(wave[: count * samples].clip(-1, 1) * 32767).astype(np.int16)
    return cut.reshape(count, samples)


def _mapped(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
