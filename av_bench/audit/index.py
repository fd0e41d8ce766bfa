"""An approximate index over picture codes in time: which files share a stretch with this one, and at which offset?

A code is cut into overlapping keys of 20 bits; every key has a posting list of the positions that hold it. A query
looks its keys up (and the keys with its weakest bits flipped) and votes for (sequence, offset). The best-voted pairs
are compared code by code: the share of differing bits along the common stretch decides.

Memory per code: its own 8 bytes, 4 bytes for its sequence, 4 bytes per key; plus 4 MiB per key table.
"""

from __future__ import annotations

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
_SHIFTS = (0, 11, 22, 33, 44)  # first bits of the keys
_SLACK = 1  # codes of jitter
STEP = 2  # query codes between two of the index
RUN = 8  # query codes, 2.9 s of picture, ...
DISTANCE = 0.30  # ... within this share of differing bits (a crop costs up to 25 %)
SHORT_DISTANCE = 0.20  # a shorter query has to be nearer

Codes = NDArray[np.uint64]
_ONES = np.array([bits.bit_count() for bits in range(1 << 16)], np.uint8)  # numpy counts bits from 2.0 on only


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
    """Codes of 64 bits, every second one of a sequence.

    A hit is a stretch in which every window of ``RUN`` query codes (all of them in a shorter query) differs in at most
    the share of bits that is asked for.
    """

    def __init__(self) -> None:
        self.codes = np.zeros(0, np.uint64)
        self.valid = np.zeros(0, bool)
        self._lengths: list[int] = []
        self._new: list[tuple[NDArray[Any], NDArray[np.bool_]]] = []
        self._built = False

    def add(self, codes: NDArray[Any], valid: NDArray[np.bool_]) -> int:
        """Take one sequence (codes at query rate) in; returns its number."""
        kept = codes[::STEP].astype(np.uint64)
        self._new.append((kept, valid[::STEP].copy()))
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
        self._tables = [self._postings(kept, shift) for shift in _SHIFTS]
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

    def query(
        self, codes: Codes, valid: NDArray[np.bool_], weak: NDArray[np.uint8] | None = None, distance: float = DISTANCE
    ) -> list[Hit]:
        """Sequences that share a stretch of at least ``RUN`` codes, the best stretch of each, nearest first."""
        if not self._built:
            self.build()
        best: dict[int, Hit] = {}
        for sequence, offset in self._voted(codes, valid, weak):
            hit = self._compare(codes, valid, sequence, offset, distance)
            if hit and (sequence not in best or _better(hit, best[sequence])):
                best[sequence] = hit
        return sorted(best.values(), key=lambda h: (h.distance, h.sequence))

    def _voted(self, codes: Codes, valid: NDArray[np.bool_], weak: NDArray[np.uint8] | None) -> list[tuple[int, int]]:
        """Best-voted (sequence, offset) pairs: few of one sequence, and as many sequences as there may be copies."""
        times = np.flatnonzero(valid)
        probes, when = [codes[times]], [times]
        if weak is not None:
            for column in range(weak.shape[1]):
                probes.append(codes[times] ^ (np.uint64(1) << weak[times, column].astype(np.uint64)))
                when.append(times)
        votes = [
            self._hits(table, shift, probe, at, probes[0] if i else None)
            for table, shift in zip(self._tables, _SHIFTS, strict=True)
            for i, (probe, at) in enumerate(zip(probes, when, strict=True))
        ]
        pairs, counts = np.unique(np.concatenate([np.zeros(0, np.int64), *votes]), return_counts=True)
        if not len(pairs):
            return []
        near = counts.copy()
        for gap in range(1, _SLACK + 1):  # a stretch between two grid positions votes for both
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
        time = (position - self.first[owner]) * STEP
        packed: NDArray[np.int64] = owner * _SPAN + (time - np.repeat(at, size) + _SPAN // 2)
        return packed

    def _compare(
        self, codes: Codes, valid: NDArray[np.bool_], sequence: int, offset: int, distance: float
    ) -> Hit | None:
        """The longest stretch at this offset in which every window of codes is near enough."""
        part = slice(self.first[sequence], self.first[sequence + 1])
        theirs, good = self.codes[part], self.valid[part]
        low = max(0, -(-offset // STEP))
        high = min(len(theirs), (len(codes) - 1 + offset) // STEP + 1)
        if high <= low:
            return None
        i, j = np.arange(low, high) * STEP - offset, slice(low, high)
        full = RUN // STEP
        window = min(full, max(1, min(len(codes), len(theirs) * STEP) // STEP))
        if len(i) < window:
            return None
        differing = ones(codes[i] ^ theirs[j]) / 64
        both = valid[i] & good[j]
        total = np.concatenate([[0.0], np.cumsum(np.where(both, differing, 0.0))])
        count = np.concatenate([[0], np.cumsum(both)])
        n = count[window:] - count[:-window]
        mean = (total[window:] - total[:-window]) / np.maximum(n, 1)
        near = min(distance, SHORT_DISTANCE) if window < full else distance
        start, length = longest_run((mean <= near) & (2 * n >= window + (window == full)))
        if not length:
            return None
        end = start + length - 1 + window
        mean_all = (total[end] - total[start]) / (count[end] - count[start])
        return Hit(sequence, offset, int(i[start]), int(i[end - 1] - i[start]) + STEP, float(mean_all))


def ones(codes: Codes) -> NDArray[np.int64]:
    """Bits that are set in each code ``(n,)``."""
    quarters = np.ascontiguousarray(codes).view(np.uint16).reshape(-1, 4)
    counts: NDArray[np.int64] = _ONES[quarters].sum(axis=1, dtype=np.int64)
    return counts


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
