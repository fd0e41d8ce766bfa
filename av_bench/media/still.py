"""Still pictures as input: one picture that is shown for as long as a network looks."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import torch

from av_bench.contracts import MediaError, Reason, VideoRequest
from av_bench.media.content import Content, read_content
from av_bench.media.decode import DecodedMedia
from av_bench.media.headers import open_recording, refuse_text
from av_bench.media.picture import Picker

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


def decode_still(
    path: Path, requests: Sequence[VideoRequest], seconds: float, content: Content | None = None
) -> DecodedMedia:
    """The first picture of a file, at every tick of the requests in ``seconds``. No sound.

    ``content`` is what the file held when it was hashed. MediaError: missing-file, empty, unreadable, no-video.
    """
    content = content or read_content(path)  # also refuses pipes and devices
    try:
        if path.stat().st_size == 0:
            raise MediaError(path, Reason.EMPTY, "the file has zero bytes")
        refuse_text(path)
        with open_recording(path, path.read_bytes()) as container:
            if not container.streams.video:
                raise MediaError(path, Reason.NO_VIDEO, "there is no picture in the file")
            frame = next(container.decode(video=0), None)
            if frame is None:
                raise MediaError(path, Reason.NO_VIDEO, "there is no picture in the file")
            pictures = {request: _shown(frame, request, seconds) for request in requests}
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise MediaError(path, Reason.UNREADABLE, "not a picture that can be read") from error
    return DecodedMedia(path, content.digest, None, 0, pictures, seconds)


def _shown(frame: av.VideoFrame, request: VideoRequest, seconds: float) -> torch.Tensor:
    picker = Picker(request, int(request.fps * seconds))
    picker.push(Fraction(0), frame)
    picker.finish(seconds)
    return picker.stack()
