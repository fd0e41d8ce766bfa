"""Conditions of the published networks (CLIP and Synchformer), and the store that keeps them per video."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from av_bench.contracts import Decoded, MediaError, Reason, VideoRequest
from av_bench.features.store import Store, media_key, text_key
from av_bench.media.content import read_content
from av_bench.media.decode import decode
from av_bench.media.still import decode_still
from av_bench.networks.packages import on_meta
from av_bench.networks.synchformer import VideoEncoder
from av_bench.runtime.devices import cast_once, single_precision
from av_bench.weights.fill import Weights, fill, read
from model_zoo.mmaudio.conditions.clip_encoder import ENTRY, SIZE, CLIPEncoder
from model_zoo.mmaudio.config import CLIP_FPS, SYNC_FPS, SYNC_SEGMENT, SYNC_STEP, sequence_lengths

if TYPE_CHECKING:
    from model_zoo.mmaudio.interfaces import Conditioner

CLIP_REQUEST = VideoRequest(float(CLIP_FPS), SIZE, "squash")
SYNC_REQUEST = VideoRequest(float(SYNC_FPS), 224, "center")
_FRAMES_AT_ONCE = 16  # CLIP frames per forward
_PREFIX = "vfeat_extractor."
_GLANCE = SYNC_SEGMENT / SYNC_FPS  # s: the shortest video that the networks take


class OfficialConditioner:
    """CLIP frames at 8 per second and text, Synchformer tokens of 16-frame segments every 8 frames at 25 per second."""

    requests: tuple[VideoRequest, ...] = (CLIP_REQUEST, SYNC_REQUEST)

    def __init__(
        self,
        clip: Weights = None,
        synchformer: Weights = None,
        autocast: bool = False,
        frames: Literal["filter", "demo"] = "filter",
    ) -> None:
        """Weights from files, mappings, or the lock file's entries. MissingRequirement with the command to get them.

        ``autocast``: on a GPU compute in bf16, as the published sampling did, instead of in full float32; the networks
        cost about 25 times what the flow network S does for the same 8 s. ``frames``: those that ffmpeg's fps filter
        picks, as training and the published evaluation read videos, or those of the published demo.
        """
        self.clip = CLIPEncoder(clip).eval().requires_grad_(False)
        state = read(synchformer, "synchformer").below(_PREFIX)
        with on_meta():
            self.sync = VideoEncoder()
        fill(self.sync, state.tensors, state.source)
        self.sync.eval().requires_grad_(False)
        self.fingerprint = f"mmaudio-conditions-1-{_identity(clip, ENTRY)}-{_identity(synchformer, 'synchformer')}"
        if frames == "demo":
            self.requests = (replace(CLIP_REQUEST, pick="after"), replace(SYNC_REQUEST, pick="after"))
            self.fingerprint += "-demo"
        self.device = torch.device("cpu")
        self.autocast = autocast

    @property
    def precision(self) -> str:
        """What the networks compute in."""
        return "bf16" if self.autocast and self.device.type == "cuda" else "fp32"

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with single_precision(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            yield

    def to(self, device: torch.device) -> OfficialConditioner:
        """Move both networks; where they compute in bf16 their weights become bf16 for good."""
        self.device = device
        for network in (self.clip, self.sync):
            if self.precision == "bf16":
                cast_once(network)
            network.to(device)
        return self

    def lengths(self, seconds: float) -> tuple[int, int]:
        """CLIP tokens and sync tokens."""
        _, clip, sync = sequence_lengths("16k", seconds)
        return clip, sync

    def video(self, media: Decoded, seconds: float, start: float = 0.0) -> tuple[Tensor, Tensor]:
        """``(int(8 s), 1024)`` and ``(8 segments, 768)`` of the stretch. MediaError when the video does not fill it."""
        pictures, frames = (self._stretch(media, request, seconds, start) for request in self.requests)
        parts = torch.split(pictures, _FRAMES_AT_ONCE)
        moving = (frames.to(self.device).float() / 255 - 0.5) / 0.5
        segments = moving.unfold(0, SYNC_SEGMENT, SYNC_STEP).movedim(-1, 1)[None]  # (1, S, 16, 3, 224, 224), a view
        with self._computing():
            clip = torch.cat([self.clip.images(part.to(self.device)) for part in parts])
            tokens: Tensor = self.sync(segments)
        return clip.cpu(), tokens[0].flatten(0, 1).float().cpu()

    def _stretch(self, media: Decoded, request: VideoRequest, seconds: float, start: float) -> Tensor:
        # Down, as the decoder counts frames: a window that ends with the clip must not ask for one more.
        first, count = int(request.fps * start), int(request.fps * seconds)
        frames = media.frames(request)[first : first + count]
        if len(frames) < count:
            detail = f"{len(frames)} frames from {start:g} s at {request.fps:g} per second, {count} are needed"
            raise MediaError(media.path, Reason.TOO_SHORT_VIDEO, detail)
        return frames

    def text(self, text: str) -> Tensor:
        """``(77, 1024)``."""
        with self._computing():
            return self.clip.text([text])[0].cpu()


def _identity(source: Weights, entry: str) -> str:
    """16 hex digits that change with the weights."""
    from av_bench import weights

    if isinstance(source, Mapping):
        return weights.hash_of_mapping(source)[:16]
    path = weights.require(entry) if source is None else Path(str(source))
    return weights.file_sha256(path)[:16]


def stretches(
    conditioner: Conditioner, path: Path, seconds: float, window: float, starts: Sequence[float], store: Store | None
) -> tuple[Tensor, Tensor, float | None]:
    """Clip tokens ``(W, Lc, Dc)`` and sync tokens ``(W, Ls, Ds)`` of the windows of one video, and the seconds that
    computing them took, without decoding; None when the store had them.

    Keyed by the video's bytes, the window and the networks; a video whose tokens are all known is not decoded.
    """
    keys, content = [], None
    if store is not None:
        folder = _folder(conditioner)
        content = read_content(path)
        keys = [f"{media_key(content.identity, window)}@{start:g}" for start in starts]
        known = store.get(folder, keys)
        if all(key in known for key in keys):
            clip, sync = (
                torch.stack([torch.from_numpy(known[key][part]) for key in keys]) for part in ("clip", "sync")
            )
            return clip, sync, None
    media = decode(path, conditioner.requests, seconds, audio=False, content=content)
    started = time.perf_counter()
    found = [conditioner.video(media, window, start) for start in starts]
    seconds_taken = time.perf_counter() - started
    if store is not None:
        entries = {key: {"clip": c.numpy(), "sync": s.numpy()} for key, (c, s) in zip(keys, found, strict=True)}
        store.put(_folder(conditioner), entries)
    clip, sync = (torch.stack(part) for part in zip(*found, strict=True))
    return clip, sync, seconds_taken


def still(
    conditioner: Conditioner, path: Path, window: float, windows: int, store: Store | None
) -> tuple[Tensor, float | None]:
    """Clip tokens ``(W, Lc, Dc)`` of a still picture, the same at every place, and the seconds as ``stretches`` says.

    The networks that give clip tokens see one picture at a time, so a glance is enough.
    """
    length = conditioner.lengths(window)[0]
    content = read_content(path)
    key = f"{media_key(content.identity, _GLANCE)}@still"
    known = None if store is None else store.get(_folder(conditioner), [key]).get(key)
    if known is not None:
        return torch.from_numpy(known["clip"]).expand(windows, length, -1), None
    media = decode_still(path, conditioner.requests, _GLANCE, content)
    started = time.perf_counter()
    token = conditioner.video(media, _GLANCE)[0][:1]
    seconds = time.perf_counter() - started
    if store is not None:
        store.put(_folder(conditioner), {key: {"clip": token.numpy()}})
    return token.expand(windows, length, -1), seconds


def words(conditioner: Conditioner, text: str, store: Store | None) -> tuple[Tensor, float]:
    """Tokens ``(Lt, Dt)`` of a text, from the store where it has them, and the seconds it took to compute them.

    The seconds lie beside the tokens: labels repeat from clip to clip, and every clip is charged for its own.
    """
    if store is not None:
        row = store.get(_folder(conditioner), [text_key(text)]).get(text_key(text))
        if row is not None:
            return torch.from_numpy(row["text"]), float(row["seconds"])
    started = time.perf_counter()
    tokens = conditioner.text(text)
    seconds = time.perf_counter() - started
    if store is not None:
        store.put(_folder(conditioner), {text_key(text): {"text": tokens.numpy(), "seconds": np.asarray(seconds)}})
    return tokens, seconds


def _folder(conditioner: Conditioner) -> str:
    """Where the store keeps the tokens: other networks, or another kind of device, are another place."""
    parts = f"{conditioner.fingerprint} {conditioner.precision} {conditioner.device.type}"
    return f"conditions-{hashlib.sha256(parts.encode()).hexdigest()[:16]}"
