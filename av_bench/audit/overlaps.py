"""Which test clips are in which training set: three rules, several training sets, every finding with both rows.

Rules (windows are half-open intervals in ms):

* ``id``: the same recording id. What the paper's Appendix H describes ("by comparing the video IDs").
* ``overlap``: the same id and windows that share time.
* ``segment``: the same id and the same start.

Clips and ids are counted apart: a recording can give several clips, and one leaked recording then counts once by id
and several times by clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pyarrow.compute as pc

from av_bench.audit.cliplist import ClipList, Malformed, clip_name, clip_names, distinct, distinct_rows, key_columns
from av_bench.contracts import UsageError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Rule = Literal["id", "overlap", "segment"]
RULES: tuple[Rule, ...] = get_args(Rule)


@dataclass(frozen=True, slots=True)
class OverlapRow:
    """One row of a list file: times in ms, None where the list has none."""

    file: str
    line: int
    start: int | None
    end: int | None


@dataclass(frozen=True, slots=True)
class Finding:
    """A test clip and a training clip that are the same under the rule."""

    clip: str
    id: str
    train_list: str
    test: OverlapRow
    train: OverlapRow


@dataclass(frozen=True)
class TrainResult:
    """Overlap of the test list with one training list. ``clips`` are names of test clips, ``ids`` their ids."""

    name: str
    n_clips: int
    n_ids: int
    clips: frozenset[str]
    ids: frozenset[str]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class ListAudit:
    """The answer to "which of my test clips were in the training data?". ``clips`` are the names of all of them."""

    test: str
    rule: Rule
    clips: frozenset[str]
    n_clips: int
    n_ids: int
    trains: tuple[TrainResult, ...]
    files: dict[str, str]
    malformed: tuple[Malformed, ...]
    notes: tuple[str, ...]

    @property
    def union(self) -> tuple[frozenset[str], frozenset[str]]:
        """Test clips (names) and ids found in at least one training list."""
        return frozenset().union(*(t.clips for t in self.trains)), frozenset().union(*(t.ids for t in self.trains))

    @property
    def intersection(self) -> tuple[frozenset[str], frozenset[str]]:
        """Test clips (names) and ids found in every training list."""
        first, *rest = self.trains
        return first.clips.intersection(*(t.clips for t in rest)), first.ids.intersection(*(t.ids for t in rest))

    @property
    def findings(self) -> list[Finding]:
        """All findings, by test clip, then training list, then training row."""
        found = [f for t in self.trains for f in t.findings]
        return sorted(found, key=lambda f: (f.clip, f.train_list, f.train.file, f.train.line))


def audit(test: ClipList, trains: Sequence[ClipList], rule: Rule = "id") -> ListAudit:
    """Compare a test list with training lists.

    Raises UsageError for an unknown rule, no training list, a list named twice, ids that cannot be compared (YouTube
    ids against Freesound numbers), and a rule about windows on a list without times.
    """
    if rule not in RULES:
        raise UsageError(f"no rule is called {rule!r}; available: {', '.join(RULES)}")
    if not trains:
        raise UsageError("no training list given; name at least one with --train")
    names = [t.name for t in trains]
    if len(set(names)) != len(names):
        raise UsageError(
            f"a training list is named twice: {', '.join(sorted({n for n in names if names.count(n) > 1}))}"
        )
    rows = distinct(test)
    results = tuple(_against(test, rows, train, rule) for train in trains)
    lists = [test, *trains]
    return ListAudit(
        test.name,
        rule,
        clip_names(rows),
        rows.num_rows,
        test.n_ids,
        results,
        {name: digest for c in lists for name, digest in zip(c.files, c.hashes, strict=True)},
        tuple(dict.fromkeys(m for c in lists for m in c.malformed)),
        tuple(dict.fromkeys(f"{c.name}: {note}" for c in lists for note in c.notes)),
    )


def counts(test: ClipList, train: ClipList) -> dict[Rule, tuple[int, int]]:
    """Number of overlapping test clips and test ids under every rule both lists allow, from a single join."""
    _comparable(test, train, "id")
    pairs = _id_pairs(distinct(test), train)
    rules = RULES if test.windows and train.windows else RULES[:1]
    found = {rule: _under(pairs, rule) for rule in rules}
    key = key_columns(test.rows)
    return {rule: (len(hit[key].drop_duplicates()), hit["id"].nunique()) for rule, hit in found.items()}


def _against(test: ClipList, rows: pa.Table, train: ClipList, rule: Rule) -> TrainResult:
    _comparable(test, train, rule)
    findings = []
    pairs: Iterator[Any] = iter(_under(_id_pairs(rows, train), rule).itertuples(index=False))
    for r in pairs:
        a = OverlapRow(test.files[r.file], r.line, *_times(r, "start", "end"))
        b = OverlapRow(train.files[r.file_train], r.line_train, *_times(r, "start_train", "end_train"))
        findings.append(Finding(clip_name(r.id, a.start), r.id, train.name, a, b))
    return TrainResult(
        train.name,
        train.n_clips,
        train.n_ids,
        frozenset(f.clip for f in findings),
        frozenset(f.id for f in findings),
        tuple(findings),
    )


def _times(row: Any, start: str, end: str) -> tuple[int | None, int | None]:  # noqa: ANN401 - a row of pandas
    return (int(getattr(row, start)), int(getattr(row, end))) if hasattr(row, start) else (None, None)


def _comparable(test: ClipList, train: ClipList, rule: Rule) -> None:
    if test.namespace != train.namespace:
        raise UsageError(
            f"{test.name} holds {test.namespace} ids, {train.name} holds {train.namespace} ids: lists cannot tell "
            "whether they share recordings; compare the media with `av-bench audit content`"
        )
    timeless = [c.name for c in (test, train) if not c.windows]
    if rule != "id" and timeless:
        raise UsageError(
            f"{', '.join(timeless)}: no start times in the list, so rule {rule} has no meaning; use --rule id"
        )


def _id_pairs(rows: pa.Table, train: ClipList) -> pd.DataFrame:
    """Pandas frame of (test row, training row) pairs of one id; training columns end in ``_train``."""
    known = pc.is_in(train.rows["id"], value_set=pc.unique(rows["id"]))
    candidates = distinct_rows(train.rows.filter(known))
    left: pd.DataFrame = rows.select([*key_columns(rows), "file", "line"]).to_pandas()
    right = candidates.select([*key_columns(candidates), "file", "line"]).to_pandas()
    return left.merge(right.rename(columns={c: f"{c}_train" for c in right.columns if c != "id"}), on="id")


def _under(pairs: pd.DataFrame, rule: Rule) -> pd.DataFrame:
    """The pairs that also satisfy the rule about windows."""
    if rule == "segment":
        return pairs[pairs["start"] == pairs["start_train"]]
    if rule == "overlap":
        later = np.maximum(pairs["start"], pairs["start_train"])
        return pairs[later < np.minimum(pairs["end"], pairs["end_train"])]
    return pairs
