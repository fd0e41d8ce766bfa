"""Training media as an index, and the verified matches of one test file."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from av_bench.audit.alignment import SOUND_RATE, Alignment, Floats, align_picture, align_sound, spectrogram
from av_bench.audit.fingerprints import CHROMA_HOP, THUMB, VIDEO_FPS, WINDOW, Fingerprint, luminance, read
from av_bench.audit.index import Hit, picture_index, sound_index

MIN_SOUND_S, MIN_PICTURE_S = 5.0, 3.0
PICTURE_ALONE = 0.88  # confidence a picture needs without sound that agrees: look-alike scenes reach 0.83
SOUND_ALONE = 0.78  # and sound without a picture that agrees: two series of bangs reached 0.75, copies 0.79 and more
_SAME_OFFSET_S = 0.3
_TOLERANCE_S = 0.25  # a stretch is measured to the frame and the window


@dataclass(frozen=True)
class Match:
    """A test file and a training file with a common stretch of sound, picture or both."""

    test: Path
    train: Path
    sound: Alignment | None
    picture: Alignment | None

    @property
    def kind(self) -> str:
        """ "audio and video", "audio only" or "video only"."""
        if self.sound and self.picture:
            return "audio and video"
        return "audio only" if self.sound else "video only"

    @property
    def confidence(self) -> float:
        """The better of the two confidences."""
        return max(a.confidence for a in (self.sound, self.picture) if a)


View = tuple[Floats, Floats | None]  # thumbnails and spectrogram


class _Views:
    """What verification looks at, decoded when it is first asked for; the latest stay, up to ``budget`` bytes."""

    def __init__(self, budget: int) -> None:
        self.budget, self.held = budget, 0
        self._views: OrderedDict[Path, View] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, path: Path) -> View:
        with self._lock:
            if path in self._views:
                self._views.move_to_end(path)
                return self._views[path]
        view = _view(path)  # threads decode side by side; now and then two of them the same file
        with self._lock:
            if path not in self._views:
                self._views[path] = view
                self.held += _size(view)
            while self.held > self.budget and len(self._views) > 1:
                self.held -= _size(self._views.popitem(last=False)[1])
        return view


class Library:
    """Indexed training files. ``cache`` bytes of decoded files stay for verification, about 1.2 MB per 8 s."""

    def __init__(self, cache: int = 1 << 30) -> None:
        self.files: list[Path] = []
        self.sound, self.picture = sound_index(), picture_index()
        self._lengths: list[tuple[float, float]] = []
        self._view = _Views(cache)

    def add(self, path: Path, codes: Fingerprint) -> None:
        """Take one training file in; its whole picture and its central part are two sequences."""
        self.files.append(path)
        self._lengths.append(codes.seconds)
        self.sound.add(codes.audio, codes.audio_valid)
        self.picture.add(codes.video, codes.video_valid)
        self.picture.add(codes.video_crop, codes.video_valid)

    def build(self) -> None:
        """Sort the posting lists."""
        self.sound.build()
        self.picture.build()

    def candidates(self, codes: Fingerprint) -> tuple[dict[int, Hit], dict[int, Hit]]:
        """Training files (by number) that may share sound, and that may share picture."""
        heard = {hit.sequence: hit for hit in self.sound.query(codes.audio, codes.audio_valid)}
        hits = self.picture.query(codes.video, codes.video_valid, codes.weak)
        hits += self.picture.query(codes.video_crop, codes.video_valid, codes.weak_crop)
        seen: dict[int, Hit] = {}
        for hit in sorted(hits, key=lambda h: h.distance):
            seen.setdefault(hit.sequence // 2, hit)
        return heard, seen

    def matches(self, path: Path, codes: Fingerprint) -> Iterator[Match]:
        """Verified matches of one test file."""
        heard, seen = self.candidates(codes)
        own = path.resolve()
        for number in sorted(heard.keys() | seen.keys()):
            train = self.files[number]
            if train.resolve() == own:
                continue
            sound = self._verify_sound(path, codes, number, heard[number]) if number in heard else None
            picture = self._verify_picture(path, codes, number, seen[number]) if number in seen else None
            if not (sound and picture and _together(sound, picture)):
                sound = sound if sound and sound.confidence >= SOUND_ALONE else None
                picture = picture if picture and _stands_alone(picture, codes, self._lengths[number]) else None
            if sound or picture:
                yield Match(path, train, sound, picture)

    def _verify_sound(self, path: Path, codes: Fingerprint, number: int, hit: Hit) -> Alignment | None:
        _, test = self._view(path)
        _, train = self._view(self.files[number])
        if test is None or train is None:
            return None
        least = _required(MIN_SOUND_S, codes.seconds[0], self._lengths[number][0])
        return align_sound(test, train, hit.offset * CHROMA_HOP, least)

    def _verify_picture(self, path: Path, codes: Fingerprint, number: int, hit: Hit) -> Alignment | None:
        test, _ = self._view(path)
        train, _ = self._view(self.files[number])
        length = (hit.length + WINDOW - 1) / VIDEO_FPS
        least = _required(MIN_PICTURE_S, codes.seconds[1], self._lengths[number][1])
        return align_picture(test, train, hit.offset / VIDEO_FPS, hit.start / VIDEO_FPS, length, least)


def _together(sound: Alignment, picture: Alignment) -> bool:
    """Whether the sound was found at the picture's offset: each then supports the other."""
    return abs(sound.offset - picture.offset) <= _SAME_OFFSET_S


def _stands_alone(picture: Alignment, codes: Fingerprint, train: tuple[float, float]) -> bool:
    """Whether a picture is evidence enough without sound: surer, and for the whole of the least length."""
    least = min(MIN_PICTURE_S, 0.8 * min(codes.seconds[1], train[1]))
    return picture.confidence >= PICTURE_ALONE and picture.length >= least


def _required(usual: float, *lengths: float) -> float:
    """Least common stretch (s): the usual one, less when one of the files is itself shorter."""
    return min(usual - _TOLERANCE_S, 0.8 * min(lengths))


def _size(view: View) -> int:
    return view[0].nbytes + (0 if view[1] is None else view[1].nbytes)


def _view(path: Path) -> View:
    """Thumbnails and spectrogram of a file, for verification."""
    media, has_video = read(path)
    thumbs = luminance(media) if has_video else np.zeros((0, THUMB, THUMB), np.float32)
    sound = None if media.audio is None else spectrogram(media.waveform(SOUND_RATE, None).numpy())
    return thumbs, sound
