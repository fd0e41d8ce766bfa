"""Held-out quality of the embedded networks, measured on encoded clips through the extractors that score.

Reported in the README and kept in each training log: tagger top-1, retrieval top-1 among 32, and the offset error on
real pairs whose sound was shifted by a known amount.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from av_bench import extractors
from av_bench.contracts import Clip
from av_bench.media.decode import DecodedMedia, decode
from av_bench.metrics import offset_grid
from av_bench.networks import nano
from av_bench.runtime.cores import default_workers
from av_bench.runtime.prefetch import prefetch_map
from av_bench.weights.fill import Weights

CANDIDATES = 32
SECONDS = 8.0
SHIFTS = (-1.2, -0.6, -0.2, 0.0, 0.2, 0.6, 1.2)


def quality(network: str, clips: Sequence[Clip], labels: Sequence[str], weights: Weights = None) -> dict[str, Any]:
    """Quality of one network on encoded clips; ``weights`` overrides the embedded ones."""
    measure = {"nano-tagger": _tagger, "nano-bind": _bind, "nano-sync": _sync}[network]
    return {"clips": len(clips), **measure(clips, list(labels), weights)}


def _rows(name: str, clips: Sequence[Clip], weights: Weights, change: float = 0.0) -> dict[str, NDArray[Any]]:
    """Features of the clips, the sound delayed by ``change`` seconds."""
    extractor = extractors.load(name, weights)
    requests = [extractor.video_request] if extractor.video_request else []

    def load(clip: Clip) -> torch.Tensor:
        if extractor.modality == "text":
            return torch.as_tensor(extractor.prepare(clip.text, SECONDS))
        media = decode(str(clip.video), requests, SECONDS, audio=not requests)
        return torch.as_tensor(extractor.prepare(_shifted(media, change) if change else media, SECONDS))

    items = list(prefetch_map(load, clips, default_workers(), 8))
    rows: list[dict[str, NDArray[Any]]] = []
    for start in range(0, len(items), 16):
        rows += extractor.run(items[start : start + 16])
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def _shifted(media: DecodedMedia, seconds: float) -> DecodedMedia:
    """The same file with its sound moved; what moves in is silent."""
    assert media.audio is not None
    samples, audio = round(seconds * media.sample_rate), torch.zeros_like(media.audio)
    if samples >= 0:
        audio[:, samples:] = media.audio[:, : media.audio.shape[1] - samples]
    else:
        audio[:, :samples] = media.audio[:, -samples:]
    return DecodedMedia(media.path, media.digest, audio, media.sample_rate, media.pictures, media.video_seconds)


def _tagger(clips: Sequence[Clip], labels: list[str], weights: Weights) -> dict[str, float]:
    logits = _rows("nano-tagger", clips, weights)["logits"]
    truth = np.array([labels.index(str(clip.label)) for clip in clips])
    return {"top1": float(np.mean(logits.argmax(axis=1) == truth))}


def _bind(clips: Sequence[Clip], labels: list[str], weights: Weights) -> dict[str, float]:
    del labels
    towers = {
        name: _unit(_rows(f"nano-bind-{name}", clips, weights)["embedding"]) for name in ("audio", "video", "text")
    }
    return {
        f"{first}_to_{second}_top1_of_{CANDIDATES}": _retrieval(towers[first], towers[second])
        for first, second in (("audio", "video"), ("video", "audio"), ("audio", "text"))
    }


def _unit(rows: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _retrieval(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Share of rows whose own partner is nearest among 32 (blocks of consecutive clips, the rest left out)."""
    hits = []
    for start in range(0, len(first) - CANDIDATES + 1, CANDIDATES):
        block = slice(start, start + CANDIDATES)
        hits += list((first[block] @ second[block].T).argmax(axis=1) == np.arange(CANDIDATES))
    return float(np.mean(hits)) if hits else float("nan")


def _sync(clips: Sequence[Clip], labels: list[str], weights: Weights) -> dict[str, Any]:
    """Mean |found - true| offset in seconds, overall and per shift, over both crops."""
    del labels
    head = extractors.load("nano-sync", weights)
    video = list(_rows("nano-sync-video", clips, weights)["tokens"])
    errors: dict[str, float] = {}
    for shift in SHIFTS:
        audio = list(_rows("nano-sync-audio", clips, weights, shift)["tokens"])
        logits = np.stack([row["logits"] for row in head.run(video, audio)])
        found = np.asarray(offset_grid())[logits.argmax(axis=-1)]
        errors[f"{shift:+.1f}"] = round(float(np.abs(found - shift).mean()), 4)
    mean = float(np.mean(list(errors.values())))
    return {"mean_error_seconds": round(mean, 4), "error_by_shift": errors, "grid_seconds": nano.LAG_STEP / 25}
