"""The embedded networks: small enough to ship and to run on a CPU, trained by this package on ``impacts`` only.

Shared time base: 16 kHz audio in 10 ms mel frames, video at 25 frames/s, so four mel frames are one video frame.
They exist for the embedded set, CI and teaching; their numbers carry their name and never the paper's.
"""

from __future__ import annotations

import math
import re
import zlib

import torch
from torch import nn
from torch.nn import functional as F

SAMPLE_RATE = 16_000
HOP = 160
MELS = 64
EMBEDDING = 64
FRAME_RATE = 25
CROP_FRAMES = 120  # 4.8 s, as in the published two-crop score
CLASSES = 21
MAX_LAG = 50  # 2 s
LAG_STEP = 5  # 0.2 s
HASHED_WORDS = 512


def grey(frames: torch.Tensor) -> torch.Tensor:
    """uint8 ``(n, 3, h, w)`` -> uint8 ``(n, h, w)``, BT.601 luma."""
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (frames.float() * weights).sum(dim=1).round().to(torch.uint8)


class LogMel(nn.Module):
    """Waveform ``(B, samples)`` at 16 kHz -> ``(B, 64, samples / 160)``: ln(mel power + 1e-5) in about unit range.

    Frame i is centred on sample 160 i (25 ms Hann window, 32 ms FFT), so frame times need no correction.
    """

    window: torch.Tensor
    filters: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(400), persistent=False)
        self.register_buffer("filters", mel_filters(), persistent=False)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """See the class."""
        spectrum = torch.stft(audio, 512, HOP, 400, self.window, center=True, pad_mode="reflect", return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        mel = torch.matmul(self.filters, power)[..., : audio.shape[-1] // HOP]
        return (torch.log(mel + 1e-5) + 5.0) / 5.0


def mel_filters() -> torch.Tensor:
    """Triangular filters ``(64, 257)`` equally spaced on the HTK mel scale from 50 to 8000 Hz, peak 1."""

    def to_mel(hertz: float) -> float:
        return 2595.0 * math.log10(1.0 + hertz / 700.0)

    points = torch.linspace(to_mel(50.0), to_mel(SAMPLE_RATE / 2), MELS + 2, dtype=torch.float64)
    edges = 700.0 * (10.0 ** (points / 2595.0) - 1.0)
    bins = torch.linspace(0, SAMPLE_RATE / 2, 257, dtype=torch.float64)
    rising = (bins[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins[None]) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0).float()


def _block(inputs: int, outputs: int, stride: int | tuple[int, int] = 2) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class _Pooled(nn.Module):
    """Image stack ``(B, c, h, w)`` -> concatenated mean and maximum over time of the mean over frequency."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.mean(dim=2)
        return torch.cat([x.mean(dim=2), x.amax(dim=2)], dim=1)


class AudioTower(nn.Module):
    """Waveform ``(B, 128000)`` -> embedding ``(B, 64)``."""

    def __init__(self) -> None:
        super().__init__()
        self.mel = LogMel()
        self.trunk = nn.Sequential(_block(1, 24), _block(24, 48), _block(48, 64), _block(64, 96), _Pooled())
        self.project = nn.Linear(192, EMBEDDING)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """See the class."""
        out: torch.Tensor = self.project(self.trunk(self.mel(audio)[:, None]))
        return out


class Tagger(nn.Module):
    """Waveform ``(B, 128000)`` -> embedding ``(B, 64)`` and class logits ``(B, classes)``."""

    def __init__(self, classes: int = 24) -> None:
        super().__init__()
        self.tower = AudioTower()
        self.classify = nn.Sequential(nn.ReLU(), nn.Linear(EMBEDDING, classes))

    def forward(self, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See the class."""
        embedding = self.tower(audio)
        return embedding, self.classify(embedding)


class VideoTower(nn.Module):
    """Frames ``(B, n, 3, 64, 64)`` in [0, 1] -> embedding ``(B, 64)``: a picture network, pooled over time."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(_block(3, 24), _block(24, 48), _block(48, 64), _block(64, 96))
        self.project = nn.Sequential(nn.Linear(2 * 96 * 4, 128), nn.ReLU(), nn.Linear(128, EMBEDDING))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """See the class."""
        batch, count = frames.shape[:2]
        maps = F.adaptive_avg_pool2d(self.trunk(frames.flatten(0, 1) - 0.5), 2).flatten(1).view(batch, count, -1)
        out: torch.Tensor = self.project(torch.cat([maps.mean(dim=1), maps.amax(dim=1)], dim=1))
        return out


class TextTower(nn.Module):
    """Hashed word ids ``(B, words)`` (0 = padding) -> embedding ``(B, 64)``."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(HASHED_WORDS, EMBEDDING, padding_idx=0)
        self.project = nn.Sequential(nn.Linear(EMBEDDING, 128), nn.ReLU(), nn.Linear(128, EMBEDDING))

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """See the class."""
        present = (words != 0).sum(dim=1, keepdim=True).clamp(min=1)
        out: torch.Tensor = self.project(self.words(words).sum(dim=1) / present)
        return out


def hashed_words(text: str, length: int = 32) -> torch.Tensor:
    """Word ids of a caption, ``(length,)`` int64: crc32 of each lower-case word, 0 as padding, cut to ``length``."""
    words = [1 + zlib.crc32(w.encode()) % (HASHED_WORDS - 1) for w in re.findall(r"[a-z0-9']+", text.lower())]
    return torch.tensor((words + [0] * length)[:length], dtype=torch.int64)


class Bind(nn.Module):
    """Three towers into one space; embeddings are compared by cosine."""

    def __init__(self) -> None:
        super().__init__()
        self.audio = AudioTower()
        self.video = VideoTower()
        self.text = TextTower()
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))


class _Temporal(nn.Module):
    """Two residual convolutions over time, ``(B, n, d)`` -> ``(B, n, d)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(width, width, 5, padding=2)
        self.second = nn.Conv1d(width, width, 5, padding=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.transpose(1, 2)
        x = x + self.second(F.relu(self.first(F.relu(x))))
        return x.transpose(1, 2)


class SyncAudio(nn.Module):
    """Waveform ``(B, 128000)`` -> tokens ``(B, 200, 64)``, one per video frame."""

    def __init__(self) -> None:
        super().__init__()
        self.mel = LogMel()
        self.trunk = nn.Sequential(_block(1, 12), _block(12, 24), _block(24, 32, (2, 1)))
        self.project = nn.Linear(32 * 8, EMBEDDING)
        self.temporal = _Temporal(EMBEDDING)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """See the class."""
        maps = self.trunk(self.mel(audio)[:, None])
        out: torch.Tensor = self.temporal(self.project(maps.permute(0, 3, 1, 2).flatten(2)))
        return out


class SyncVideo(nn.Module):
    """Grey frames ``(B, n, 48, 48)`` in [0, 1] -> tokens ``(B, n, 64)``: a frame and its change to both neighbours."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.Sequential(nn.Conv2d(3, 12, 5, 3, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU(inplace=True))
        self.trunk = nn.Sequential(first, _block(12, 24), _block(24, 32))  # 48 -> 16 -> 8 -> 4 px
        self.project = nn.Linear(32 * 16, EMBEDDING)
        self.temporal = _Temporal(EMBEDDING)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """See the class."""
        batch, count = frames.shape[:2]
        padded = torch.cat([frames[:, :1], frames, frames[:, -1:]], dim=1)
        change = 4.0 * (padded[:, 1:] - padded[:, :-1])  # (B, n + 1, 48, 48)
        stack = torch.stack([frames - 0.5, change[:, :-1], change[:, 1:]], dim=2)
        maps = self.trunk(stack.flatten(0, 1)).flatten(1).view(batch, count, -1)
        out: torch.Tensor = self.temporal(self.project(maps))
        return out


class SyncHead(nn.Module):
    """Tokens of two crops ``(B, 120, 64)`` each -> logits ``(B, 21)`` over offsets -2 ... 2 s.

    Tokens are compared at every lag of up to 2 s by several inner products at once, and a small convolution over the
    lags turns these into one logit per 0.2 s. Positive offset: the sound comes late.
    """

    heads = 8

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Conv1d(self.heads, 16, 5, padding=2), nn.ReLU(), nn.Conv1d(16, 1, 5, padding=2))

    def forward(self, video: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        """See the class."""
        count = video.shape[1]
        size = 256  # at least count + MAX_LAG: the circular correlation then equals the linear one at these lags
        v = torch.fft.rfft(video.transpose(1, 2), size)
        a = torch.fft.rfft(audio.transpose(1, 2), size)
        spectrum = (v.conj() * a).view(len(v), self.heads, -1, size // 2 + 1).sum(dim=2)
        correlation = torch.fft.irfft(spectrum, size) / math.sqrt(count)  # (B, heads, lag)
        lags = torch.cat([correlation[..., -MAX_LAG:], correlation[..., : MAX_LAG + 1]], dim=-1)
        scores: torch.Tensor = self.mix(lags)[:, 0]  # (B, 101)
        return scores[:, ::LAG_STEP]


class Sync(nn.Module):
    """Both towers and the head."""

    def __init__(self) -> None:
        super().__init__()
        self.audio = SyncAudio()
        self.video = SyncVideo()
        self.head = SyncHead()


def two_crops(tokens: torch.Tensor) -> torch.Tensor:
    """``(B, n, d)`` -> first and last 4.8 s, ``(2, B, 120, d)``."""
    return torch.stack([tokens[:, :CROP_FRAMES], tokens[:, -CROP_FRAMES:]])
