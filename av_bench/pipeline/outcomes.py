"""What became of the clips of a shard, as lines of JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from av_bench.contracts import UsageError
from av_bench.features.sides import MediaFile
from av_bench.pipeline.work import ClipMedia
from av_bench.runtime.files import write_atomically

SAME = "video"  # in the place of the reference audio that is the video's file


def write_outcomes(path: Path, clips: Iterable[ClipMedia], audio: Path) -> str:
    """Write one line per clip; returns the sha256 of the file. ``audio`` is the folder of the samples."""
    lines = [json.dumps(_record(clip, audio), ensure_ascii=True, sort_keys=True) for clip in clips]
    payload = "".join(f"{line}\n" for line in lines).encode()
    write_atomically(path, payload)
    return hashlib.sha256(payload).hexdigest()


def read_outcomes(path: Path, sha256: str, audio: Path) -> list[ClipMedia]:
    """Read them back. UsageError when the file is not the one that was written."""
    try:
        payload = path.read_bytes()
        if hashlib.sha256(payload).hexdigest() != sha256:
            raise ValueError("its checksum is not that of the manifest")
        return [_clip(json.loads(line), audio) for line in payload.splitlines()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is not whole ({error}); remove {path.parent} and run that shard again") from error


def _record(clip: ClipMedia, audio: Path) -> dict[str, Any]:
    sound = None if clip.audio is None else clip.audio.as_record(audio)
    return {
        "id": clip.id,
        "video": None if clip.video is None else clip.video.as_record(audio),
        "audio": SAME if clip.audio is not None and clip.audio is clip.video else sound,
        "generated": [medium.as_record(audio) for medium in clip.generated],
    }


def _clip(record: dict[str, Any], audio: Path) -> ClipMedia:
    name = str(record["id"])
    video = None if record["video"] is None else MediaFile.from_record(name, record["video"], audio)
    sound = record["audio"]
    if sound == SAME:
        own = video
    else:
        own = None if sound is None else MediaFile.from_record(name, sound, audio)
    return ClipMedia(name, video, own, tuple(MediaFile.from_record(name, m, audio) for m in record["generated"]))
