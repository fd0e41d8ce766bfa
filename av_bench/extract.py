"""Drop-in for the published ``av_bench.extract``: writes the same feature files, from this package's extractors.

Differences, all on purpose: every file is decoded once; a file that cannot be used raises, with all names, instead of
being replaced by its neighbour; what is short is refused; windows follow flavour "paper".
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from av_bench import extractors
from av_bench.contracts import AvBenchError, MediaError, UsageError
from av_bench.features.extraction import enough_audio
from av_bench.features.published_caches import (
    CACHE_FILES,
    CLAP_AUDIO,
    IMAGEBIND_AUDIO,
    MSCLAP_AUDIO,
    PASST,
    SYNCHFORMER_AUDIO,
)
from av_bench.media.decode import decode
from av_bench.media.folder import media_files
from av_bench.media.suffixes import AUDIO_SUFFIXES
from av_bench.runtime.cores import default_workers
from av_bench.runtime.files import atomic_path
from av_bench.runtime.prefetch import prefetch_map

log = logging.getLogger(__name__)

FILES = [file for file in CACHE_FILES if file.side == "reference"]
VIDEO_RELATED = (IMAGEBIND_AUDIO, SYNCHFORMER_AUDIO)
CLAP = (CLAP_AUDIO, MSCLAP_AUDIO)


def extract(
    audio_path: Path | str,
    output_path: Path | str,
    *,
    audio_length: float = 8.0,
    batch_size: int = 128,
    num_workers: int = 32,
    device: str = "cuda",
    skip_video_related: bool = False,
    skip_clap: bool = False,
) -> None:
    """Features of every wav and flac in ``audio_path`` as ``*.pth`` files in ``output_path``.

    Raises UsageError (no files, equal stems, unusable files) before anything is written, MissingRequirement when
    weights are absent.
    """
    if audio_length is None or audio_length <= 0:
        raise UsageError(f"audio_length must be seconds, got {audio_length!r}")
    skipped = (VIDEO_RELATED if skip_video_related else ()) + (CLAP if skip_clap else ())
    names = list(dict.fromkeys(file.extractor for file in FILES if file not in skipped))
    files = _files(Path(audio_path))
    networks = [extractors.load(name, device=str(device), flavour="paper") for name in names]
    rows = _features(files, networks, float(audio_length), batch_size, min(num_workers, 2 * default_workers()))
    _write(rows, Path(output_path))


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    files = sorted(media_files(folder, AUDIO_SUFFIXES & {".wav", ".flac"}), key=lambda path: path.stem)
    stems = [path.stem for path in files]
    if not files:
        raise UsageError(f"{folder}: no wav or flac files")
    if len(set(stems)) < len(stems):
        twice = next(s for s in stems if stems.count(s) > 1)
        raise UsageError(f"{folder}: two files are called {twice!r}; remove one")
    return files


def _features(
    files: Sequence[Path], networks: Sequence[Any], seconds: float, batch_size: int, workers: int
) -> dict[str, dict[str, Any]]:
    """file name -> clip name -> tensor (for panns: dict of tensors)."""

    def prepare(path: Path) -> list[torch.Tensor] | AvBenchError:
        try:
            media = decode(path, window=seconds)
            if not enough_audio(media, seconds):
                return UsageError(f"{path}: {media.audio_seconds:.3f} s, {seconds:g} s are needed")
            return [network.prepare(media, seconds) for network in networks]
        except MediaError as error:
            return error

    out: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    for start in range(0, len(files), batch_size):
        batch = files[start : start + batch_size]
        prepared = list(prefetch_map(prepare, batch, workers, 2 * workers))
        problems += [str(p) for p in prepared if isinstance(p, AvBenchError)]
        if problems:
            continue  # look at every file, so that one message names them all
        for i, network in enumerate(networks):
            rows: list[dict[str, Any]] = []
            for at in range(0, len(batch), network.batch_size):
                rows += network.run(
                    [p[i] for p in prepared[at : at + network.batch_size] if not isinstance(p, AvBenchError)]
                )
            for path, row in zip(batch, rows, strict=True):
                _keep(out, network.name, path.stem, row)
    if problems:
        raise UsageError(f"{len(problems)} of {len(files)} files cannot be used: " + "; ".join(problems[:5]))
    return out


def _keep(out: dict[str, dict[str, Any]], name: str, clip: str, row: dict[str, Any]) -> None:
    for file in FILES:
        for output, key in file.keys.items() if file.extractor == name else ():
            rows = out.setdefault(file.name, {})
            tensor = torch.from_numpy(row[output])
            if key:
                rows.setdefault(clip, {})[key] = tensor
            else:
                rows[clip] = tensor


def _write(rows: dict[str, dict[str, Any]], folder: Path) -> None:
    """Every file whole or not at all; the one whose presence readers check comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(rows, key=lambda name: name == PASST.name):
        with atomic_path(folder / file) as temporary:
            torch.save(rows[file], temporary)
