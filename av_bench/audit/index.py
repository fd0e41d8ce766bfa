"""An approximate index over codes in time: which sequences share a stretch with this one, and at which offset?

A code is cut into overlapping keys of 20 bits; every key has a posting list of the positions that hold it. A query
looks its keys up (and, where it knows its weakest bits, the keys with those bits flipped) and votes for (sequence,
offset).
The best-voted pairs are compared code by code: the share of differing bits along the common stretch decides.

Memory per code: its own bytes, 4 bytes for its sequence, 4 bytes per key; plus 4 MiB per key table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEY_BITS = 20
_CANDIDATES, _OFFSETS = 32, 4  # best-voted (sequence, offset) pairs compared code by code; at most so many a sequence
_SEQUENCES = 256  # ... and the best offset of so many sequences, while their votes are not far below the best:
_SHARE, _FEWEST = 8, 4  # an eighth of the best, and more than chance gives
_STOP = 256  # a key longer than this many times the mean posting list says nothing
_SPAN = 1 << 22  # offsets are in (-_SPAN / 2, _SPAN / 2)


@dataclass(frozen=True, slots=True)
class Hit:
    """A stretch shared with an indexed sequence.

    ``offset`` is time in the indexed sequence minus time in the query, ``start`` and ``length`` the stretch in the
    query (all in query codes); ``distance`` the mean share of differing bits.
    """

    sequence: int
    offset: int
    start: int
    length: int
    distance: float


class CodeIndex:
    """Codes of ``bits`` bits; an indexed code stands every ``step`` query codes, ``slack`` codes of jitter are allowed.

    A hit is a stretch in which every window of ``run`` query codes differs in at most the share ``distance`` of bits.
    """

    def __init__(self, bits: int, shifts: Sequence[int], step: int, run: int, distance: float, slack: int) -> None:
        self.bits, self.shifts, self.step, self.run = bits, tuple(shifts), step, run
        self.distance, self.slack = distance, slack
        self.codes: NDArray[Any] = np.zeros(0, np.uint32 if bits == 32 else np.uint64)
        self.valid = np.zeros(0, bool)
        self._lengths: list[int] = []
        self._new: list[tuple[NDArray[Any], NDArray[np.bool_]]] = []
        self._built = False

    def add(self, codes: NDArray[Any], valid: NDArray[np.bool_]) -> int:
        """Take one sequence (codes at query rate) in; returns its number."""
        kept = codes[:: self.step].astype(self.codes.dtype)
        self._new.append((kept, valid[:: self.step].copy()))
        self._lengths.append(len(kept))
        self._built = False
        return len(self._lengths) - 1

    def build(self) -> None:
        """Sort the posting lists. Call once after the last ``add``."""
        self.codes = np.concatenate([self.codes, *(codes for codes, _ in self._new)])
        self.valid = np.concatenate([self.valid, *(valid for _, valid in self._new)])
        self._new = []
        self.first = np.concatenate([[0], np.cumsum(self._lengths)]).astype(np.int64)
        self.owner = np.repeat(np.arange(len(self._lengths), dtype=np.int32), self._lengths)
        kept = np.flatnonzero(self.valid).astype(np.int32)
        self._tables = [self._postings(kept, shift) for shift in self.shifts]
        self._built = True

    def _postings(self, kept: NDArray[np.int32], shift: int) -> tuple[NDArray[np.int32], NDArray[np.int32], int]:
        keys = _key(self.codes[kept], shift)
        bounds = np.zeros((1 << KEY_BITS) + 1, np.int32)
        np.cumsum(np.bincount(keys, minlength=1 << KEY_BITS), out=bounds[1:])
        longest = _STOP * max(1, len(kept) >> KEY_BITS) + _STOP
        return bounds, kept[np.argsort(keys, kind="stable")], longest

    @property
    def nbytes(self) -> int:
        """Bytes held after ``build``."""
        tables = sum(bounds.nbytes + posts.nbytes for bounds, posts, _ in self._tables)
        return int(self.codes.nbytes + self.valid.nbytes + self.owner.nbytes + self.first.nbytes + tables)

    def query(self, codes: NDArray[Any], valid: NDArray[np.bool_], weak: NDArray[np.uint8] | None = None) -> list[Hit]:
        """Sequences that share a stretch of at least ``run`` codes, the best stretch of each, nearest first."""
        if not self._built:
            self.build()
        best: dict[int, Hit] = {}
        for sequence, offset in self._voted(codes, valid, weak):
            hit = self._compare(codes, valid, sequence, offset)
            if hit and (sequence not in best or _better(hit, best[sequence])):
                best[sequence] = hit
        return sorted(best.values(), key=lambda h: (h.distance, h.sequence))

    def _voted(
        self, codes: NDArray[Any], valid: NDArray[np.bool_], weak: NDArray[np.uint8] | None
    ) -> list[tuple[int, int]]:
        """Best-voted (sequence, offset) pairs: few of one sequence, and as many sequences as there may be copies."""
        times = np.flatnonzero(valid)
        probes, when = [codes[times]], [times]
        if weak is not None:
            for column in range(weak.shape[1]):
                probes.append(codes[times] ^ (np.uint64(1) << weak[times, column].astype(np.uint64)))
                when.append(times)
        votes = [
            self._hits(table, shift, probe, at, probes[0] if i else None)
            for table, shift in zip(self._tables, self.shifts, strict=True)
            for i, (probe, at) in enumerate(zip(probes, when, strict=True))
        ]
        pairs, counts = np.unique(np.concatenate([np.zeros(0, np.int64), *votes]), return_counts=True)
        if not len(pairs):
            return []
        near = counts.copy()
        for gap in range(1, self.slack + 1):  # a stretch between two grid positions votes for both
            at = np.searchsorted(pairs, pairs + gap)
            ok = (at < len(pairs)) & (pairs[np.minimum(at, len(pairs) - 1)] == pairs + gap)
            near[ok] += counts[at[ok]]
        order = np.argsort(-near, kind="stable")
        order = order[near[order] > 1]
        rank = _ranks(pairs[order] // _SPAN)
        first = order[rank == 0][:_SEQUENCES]
        first = first[near[first] >= max(_FEWEST, near.max() / _SHARE)]
        chosen = dict.fromkeys([*order[rank < _OFFSETS][:_CANDIDATES], *first])
        return [(int(pairs[k] // _SPAN), int(pairs[k] % _SPAN) - _SPAN // 2) for k in chosen]

    def _hits(
        self,
        table: tuple[NDArray[np.int32], NDArray[np.int32], int],
        shift: int,
        probe: NDArray[Any],
        at: NDArray[np.int64],
        plain: NDArray[Any] | None,
    ) -> NDArray[np.int64]:
        """(sequence, offset) of every posting of the probed keys, packed into one integer each."""
        bounds, posts, longest = table
        keys = _key(probe, shift)
        low, size = bounds[keys].astype(np.int64), (bounds[keys + 1] - bounds[keys]).astype(np.int64)
        use = (size > 0) & (size <= longest)
        if plain is not None:
            use &= keys != _key(plain, shift)  # the flipped bit lies outside this key
        low, size, at = low[use], size[use], at[use]
        if not len(low):
            return np.zeros(0, np.int64)
        inside = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        position = posts[np.repeat(low, size) + inside]
        owner = self.owner[position].astype(np.int64)
        time = (position - self.first[owner]) * self.step
        packed: NDArray[np.int64] = owner * _SPAN + (time - np.repeat(at, size) + _SPAN // 2)
        return packed

    def _compare(self, codes: NDArray[Any], valid: NDArray[np.bool_], sequence: int, offset: int) -> Hit | None:
        """The longest stretch at this offset in which every window of ``run`` codes is near enough."""
        part = slice(self.first[sequence], self.first[sequence + 1])
        theirs, good = self.codes[part], self.valid[part]
        j = np.arange(len(theirs))
        i = j * self.step - offset
        inside = (i >= 0) & (i < len(codes))
        i, j = i[inside], j[inside]
        window = max(2, self.run // self.step)
        if len(i) < window:
            return None
        differing = np.bitwise_count(codes[i] ^ theirs[j]) / self.bits
        both = valid[i] & good[j]
        total = np.concatenate([[0.0], np.cumsum(np.where(both, differing, 0.0))])
        count = np.concatenate([[0], np.cumsum(both)])
        n = count[window:] - count[:-window]
        mean = (total[window:] - total[:-window]) / np.maximum(n, 1)
        start, length = longest_run((mean <= self.distance) & (2 * n > window))
        if not length:
            return None
        end = start + length - 1 + window
        distance = (total[end] - total[start]) / (count[end] - count[start])
        return Hit(sequence, offset, int(i[start]), int(i[end - 1] - i[start]) + self.step, float(distance))


def _key(codes: NDArray[Any], shift: int) -> NDArray[np.int64]:
    keys: NDArray[np.int64] = ((codes >> codes.dtype.type(shift)) & codes.dtype.type((1 << KEY_BITS) - 1)).astype(
        np.int64
    )
    return keys


def _ranks(sequences: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each entry's sequence stands before it."""
    by_sequence = np.argsort(sequences, kind="stable")
    ordered = sequences[by_sequence]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)])
    inside = np.arange(len(ordered)) - np.repeat(starts, np.diff(np.append(starts, len(ordered))))
    ranks = np.empty(len(ordered), np.int64)
    ranks[by_sequence] = inside
    return ranks


def _better(a: Hit, b: Hit) -> bool:
    return (a.length - b.length) * 0.02 > a.distance - b.distance


def longest_run(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Start and length of the longest stretch of True; (0, 0) without one."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    if not len(edges):
        return 0, 0
    starts, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - starts))
    return int(starts[longest]), int(ends[longest] - starts[longest])


def sound_index() -> CodeIndex:
    """For Chromaprint codes: 12 codes (about 4 s of sound) within 27 % of differing bits."""
    return CodeIndex(bits=32, shifts=(0, 6, 12), step=1, run=12, distance=0.27, slack=1)


def picture_index() -> CodeIndex:
    """For picture codes: 8 codes (2.9 s of picture) within 30 % of differing bits (a crop costs up to 25 %)."""
    return CodeIndex(bits=64, shifts=(0, 11, 22, 33, 44), step=2, run=8, distance=0.30, slack=1)
