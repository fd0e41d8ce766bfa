"""Training media as two indexes, and the verified matches of one test file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from av_bench.audit import picture, turns
from av_bench.audit.align_picture import Side, align_picture
from av_bench.audit.align_sound import BESIDE, CLEAR, CLEAR_UNCHANGED, align_sound
from av_bench.audit.alignment import Alignment
from av_bench.audit.excerpts import Excerpts
from av_bench.audit.fingerprints import Fingerprint
from av_bench.audit.index import DISTANCE, RUN, CodeIndex, Hit
from av_bench.audit.landmarks import Heard, LandmarkIndex
from av_bench.audit.levels import ALIKE, level_difference, other_key
from av_bench.audit.picture import WINDOW, Picture
from av_bench.audit.shapes import FPS, SIZE
from av_bench.audit.turns import NONE, Change
from av_bench.audit.views import Box

MIN_SOUND_S, MIN_PICTURE_S = 3.0, 3.0
PICTURE_ALONE = 0.88  # confidence a picture needs without sound that agrees: look-alike scenes reach 0.83,
PICTURE_ALONE_SHORT = 0.95  # ... signs of one signer before one wall 0.94; what is shorter than this proves less
_SHORT_S = 5.0
_OTHER_SPEED = 0.08  # a picture at another speed than within this needs that much alone: motions of one kind are alike
_CHANGED_DISTANCE = 0.20  # differing bits of a picture whose change is undone: copies stay below 0.10
_LEAST_WORTH = 0.85  # see ``_worth``: 8 codes that differ in 20 %, or 16 that differ in 29 %
_TRIES = 3  # candidates of one pair of files that are verified, the best first
_LEAST_ALIKE = 0.5  # correlation of the coefficients of two views: copies reach 0.8, most others stay below
_PROMISING = 0.6  # confidence from which small rotations and overlaid windows are tried
_LIKE_ASPECT, _LEAST_SIDE = 0.85, 0.2  # of the height of a taller shape that a fitted picture fills
_COVERED = 0.35  # of the picture that a window may cover
_SAME_OFFSET_S = 0.3
_TOLERANCE_S = 0.25  # a stretch is measured to the frame and the peak
_SOUND_CHANGES, _PICTURE_CHANGES = turns.sound_changes(), turns.picture_changes()
_WINDOW_CHANGES = turns.window_changes()


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

    @property
    def change(self) -> str:
        """What was changed, in words; empty for nothing."""
        found = [a.change.words() for a in (self.picture, self.sound) if a]
        return "; ".join(dict.fromkeys(words for words in found if words))


@dataclass(frozen=True, slots=True)
class Seen:
    """A candidate: a view of the test file, after undoing a change, and a view of a training file."""

    view: int
    train_view: int
    change: Change
    hit: Hit


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    picture: Picture
    seconds: tuple[float, float]
    aspect: float


class Library:
    """Indexed training files. ``cache`` bytes of decoded thumbnails stay for verification, 1.3 MB per 10 s.

    Coefficients of the pictures stay as well (5 kB per 10 s), so that most candidates are turned down without decoding.
    """

    def __init__(self, cache: int = 1 << 28) -> None:
        self.files: list[_File] = []
        self.sound, self.picture = LandmarkIndex(), CodeIndex()
        self._views: list[tuple[int, int]] = []  # (file, view) of each sequence of the picture index
        self._excerpts = Excerpts(cache)

    def add(self, path: Path, print_: Fingerprint) -> None:
        """Take one training file in."""
        self.sound.add(print_.sound)
        for view in range(len(print_.picture)):
            codes, valid, _ = picture.codes(print_.picture.coefficients(view), weak_bits=0)
            self.picture.add(codes, valid)
            self._views.append((len(self.files), view))
        self.files.append(_File(path, print_.picture, print_.seconds, print_.aspect))

    def build(self) -> None:
        """Sort the posting lists."""
        self.sound.build()
        self.picture.build()

    def heard(self, asked: Fingerprint) -> dict[int, Heard]:
        """Training files (by number) that may share sound."""
        return {found.sequence: found for found in self.sound.query(asked.sound, _SOUND_CHANGES)}

    def seen(self, asked: Fingerprint) -> dict[int, list[Seen]]:
        """Training files that may share picture, each with its nearest candidates."""
        found: dict[int, list[Seen]] = {}
        for view in range(len(asked.picture)):
            flat = asked.picture.coefficients(view)
            for change in _PICTURE_CHANGES if view < 2 else _WINDOW_CHANGES:
                limit = DISTANCE if change == NONE else _CHANGED_DISTANCE
                for hit in self.picture.query(*picture.codes(turns.undone_coefficients(flat, change)), limit):
                    number, train_view = self._views[hit.sequence]
                    seen = Seen(view, train_view, change, hit)
                    if hit.length < RUN or _worth(seen) >= _LEAST_WORTH:
                        found.setdefault(number, []).append(seen)
        for candidates in found.values():
            candidates.sort(key=_worth, reverse=True)
        return found

    def matches(self, path: Path, asked: Fingerprint) -> Iterator[Match]:
        """Verified matches of one test file."""
        heard, seen = self.heard(asked), self.seen(asked)
        for number in sorted(heard.keys() | seen.keys()):
            match = self.verified(path, asked, number, heard.get(number), seen.get(number, []))
            if match:
                yield match

    def verified(
        self, path: Path, asked: Fingerprint, number: int, heard: Heard | None, seen: list[Seen]
    ) -> Match | None:
        """The match of a test file with one training file by what may be shared, if it is one; a file is none of
        itself. Raises MediaError."""
        train = self.files[number]
        if train.path.resolve() == path.resolve():
            return None
        sound, clear = self._verify_sound(asked, number, heard) if heard else (None, 0.0)
        image = self._verify_picture(path, asked, number, seen)
        if not (sound and image and _together(sound, image)):
            sound = sound if sound and _is_clear(sound, clear) and _same_levels(path, train.path, sound) else None
            image = image if image and _stands_alone(image, asked, train) else None
        return Match(path, train.path, sound, image) if sound or image else None

    def _verify_sound(self, asked: Fingerprint, number: int, heard: Heard) -> tuple[Alignment | None, float]:
        least = _required(MIN_SOUND_S, asked.seconds[0], self.files[number].seconds[0], heard.change.speed)
        found = align_sound(asked.sound, self.sound.peaks(number), heard, least)
        return (None, 0.0) if found is None or found[1] < BESIDE else found

    def _verify_picture(self, path: Path, asked: Fingerprint, number: int, candidates: list[Seen]) -> Alignment | None:
        """The best of the first candidates; the first that stands alone ends the search."""
        train = self.files[number]
        best: Alignment | None = None
        for way in _ways(candidates, asked.picture):
            if way.costly and (best is None or best.confidence < _PROMISING):
                continue
            found = self._aligned(path, asked, train, way)
            if found and (best is None or found.confidence > best.confidence):
                best = found
                if _stands_alone(best, asked, train):
                    break
        return best

    def _aligned(self, path: Path, asked: Fingerprint, train: _File, way: _Way) -> Alignment | None:
        speed, hit = way.seen.change.speed, way.seen.hit
        start, length, offset = hit.start / FPS, (hit.length + WINDOW - 1) / FPS, hit.offset / FPS
        begin, end = start / speed, (start + length) / speed
        if not _alike(asked, train, way.seen):
            return None
        ours = self._excerpts.get(path, asked.seconds[1], begin, end)
        theirs = self._excerpts.get(train.path, train.seconds[1], start + offset, start + length + offset)
        least = _required(MIN_PICTURE_S, asked.seconds[1], train.seconds[1], speed)
        shift = ours.start * speed  # of the slowed test clock
        when = (begin + end) / 2, start + length / 2 + offset
        covered = None if way.covered is None else asked.picture.box(way.covered, when[0])
        boxes = asked.picture.box(way.views[0], when[0]), train.picture.box(way.views[1], when[1])
        if way.fitted:
            turned = turns.TURNS[way.seen.change.turn][0]
            boxes = _fitted_boxes(asked.aspect, 1 / train.aspect if turned else train.aspect)
            if boxes == (Box(), Box()):
                return None
        found = align_picture(
            Side(ours.frames, boxes[0], asked.aspect, covered),
            Side(theirs.frames, boxes[1], train.aspect),
            way.seen.change,
            offset + shift - theirs.start,
            (start - shift, length),
            least,
            rotated=way.rotated,
        )
        if found is None:
            return None
        moved = found.offset - ours.start * found.change.speed + theirs.start
        return replace(found, offset=moved, start=found.start + ours.start)


def _alike(asked: Fingerprint, train: _File, seen: Seen) -> bool:
    """Whether a candidate's views move alike: a cheap look before anything is decoded."""
    hit, count = seen.hit, seen.hit.length + WINDOW - 1
    first = hit.start + hit.offset
    there = train.picture.coefficients(seen.train_view)[max(0, first) : first + count]
    here = turns.undone_coefficients(asked.picture.coefficients(seen.view), seen.change)[hit.start :]
    count = min(len(here), len(there))
    return count >= 2 and picture.agreement(here[:count], there[:count]) >= _LEAST_ALIKE


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to look at a candidate: which views, a view of the test that only covers it, small rotations or not."""

    seen: Seen
    views: tuple[int, int]
    covered: int | None = None
    rotated: bool = False
    fitted: bool = False  # one picture fitted into the other's shape, with borders

    @property
    def costly(self) -> bool:
        """Whether it is worth trying only for what is nearly alike already."""
        return self.rotated or self.covered is not None


def _worth(seen: Seen) -> float:
    """How far a candidate is from chance: near and long."""
    return float((0.5 - seen.hit.distance) * np.sqrt(seen.hit.length))


def _fitted_boxes(test: float, train: float) -> tuple[Box, Box]:
    """The parts to compare when one picture (of these aspects) was fitted into the other's shape: the taller shape is
    the one with borders above and below; phones and stories make those."""
    if test < train:
        return fitted(train, test), Box()
    return Box(), fitted(test, train)


def fitted(inner: float, outer: float) -> Box:
    """Where a picture lies that was fitted into the middle of a taller shape; all of that if they are alike."""
    height = outer / inner
    if not _LEAST_SIDE <= height <= _LIKE_ASPECT:
        return Box()
    top = round(SIZE * (1 - height) / 2)
    return Box(top, SIZE - top, 0, SIZE)


def _ways(candidates: list[Seen], test: Picture) -> Iterator[_Way]:
    """The best candidates as they were found; the best one with whole pictures in place of centres, less what small
    windows cover, and rotated."""
    near = candidates[:_TRIES]
    yield from (_Way(seen, (seen.view, seen.train_view)) for seen in near)
    for seen in near[:1]:
        whole = (0 if seen.view == 1 else seen.view, 0 if seen.train_view == 1 else seen.train_view)
        if whole != (seen.view, seen.train_view):
            yield _Way(seen, whole)
        if whole == (0, 0):
            yield _Way(seen, whole, fitted=True)
        if seen.view < 2 and seen.hit.distance <= _CHANGED_DISTANCE:
            for window in range(2, len(test)):
                box = test.box(window, seen.hit.start / FPS)
                if box.height * box.width < _COVERED * SIZE * SIZE:
                    yield _Way(seen, whole, covered=window)
            yield _Way(seen, whole, rotated=True)


def _is_clear(sound: Alignment, clear: float) -> bool:
    """Whether a sound is evidence enough without a picture."""
    return clear >= (CLEAR if sound.change.words() else CLEAR_UNCHANGED)


def _same_levels(test: Path, train: Path, sound: Alignment) -> bool:
    """Whether a sound of another pitch is that recording, and not its tune in another key."""
    return not other_key(sound.change) or level_difference(test, train, sound) <= ALIKE


def _together(sound: Alignment, image: Alignment) -> bool:
    """Whether the sound was found where the picture was: each then supports the other."""
    middle = image.start + image.length / 2
    heard = sound.change.speed * middle + sound.offset
    return abs(heard - (image.change.speed * middle + image.offset)) <= _SAME_OFFSET_S


def _stands_alone(image: Alignment, asked: Fingerprint, train: _File) -> bool:
    """Whether a picture is evidence enough without sound: surer, and for the whole of the least length."""
    least = min(MIN_PICTURE_S, 0.8 * min(asked.seconds[1], train.seconds[1] / image.change.speed))
    if abs(image.change.speed - 1) > _OTHER_SPEED:
        least = _SHORT_S
    surely = PICTURE_ALONE if image.length >= _SHORT_S else PICTURE_ALONE_SHORT
    return image.confidence >= surely and image.length >= least


def _required(usual: float, test: float, train: float, speed: float) -> float:
    """Least common stretch (s of the test file): the usual one, less when one of the files is itself shorter."""
    return min(usual - _TOLERANCE_S, 0.8 * min(test, train / speed))
