"""Metrics: what one needs, what it is given, what it returns, and the base class of all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from av_bench.contracts.clips import Clip, ClipField
from av_bench.contracts.errors import MetricError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Flavour = Literal["paper", "strict"]
Side = Literal["reference", "generated", "video", "text"]


@dataclass(frozen=True, slots=True)
class Need:
    """One array a metric wants: which output of which extractor, of which side."""

    extractor: str
    output: str
    side: Side


class GaussianRows(Protocol):
    """Mean and covariance of many rows, standing for the rows themselves (``av_bench.metrics.GaussianStatistics``)."""

    @property
    def n(self) -> int:
        """Number of rows."""

    @property
    def mean(self) -> NDArray[np.float64]:
        """``(d,)``."""

    @property
    def covariance(self) -> NDArray[np.float64]:
        """``(d, d)``."""


@dataclass(frozen=True)
class MetricInputs:
    """Aligned inputs of one metric: row i of every array belongs to ``ids[i]`` (sorted by id)."""

    clips: tuple[Clip, ...]
    arrays: Mapping[Need, Sequence[NDArray[Any]]]
    flavour: Flavour = "strict"
    statistics: Mapping[Need, GaussianRows] = field(default_factory=dict)  # in place of a side's rows
    seconds: float | None = None  # the scored window; None: the clips are as long as they are

    def stacked(self, need: Need) -> NDArray[Any]:
        """The rows of one need as a single array ``(n, ...)``."""
        import numpy as np

        return np.stack(list(self.arrays[need]))


@dataclass(frozen=True)
class Score:
    """One cell of a table: ``value`` with its 95 % ``interval``, the ``n`` clips behind it, per-clip values.

    A metric of the whole set has ``pseudo_values`` instead of per-clip values: their mean is the value, and runs are
    compared by them clip by clip (``av_bench.metrics.set_scores.set_score`` makes them). ``units`` names what moves
    together where that is not the source recording.
    """

    value: float
    n: int
    interval: tuple[float, float] | None = None
    per_clip: Mapping[str, float] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    pseudo_values: Mapping[str, float] | None = None
    units: Mapping[str, str] | None = None


class Metric(ABC):
    """A column of the table. A protocol names it and gives its options; ``name`` is the column's name.

    A subclass passes its needs to ``__init__`` and writes ``compute``; the other members are optional. Arguments of the
    subclass's ``__init__`` after ``name`` are its options in a protocol. ``docs/extend.md`` shows one in full.
    """

    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = ""
    minimum: ClassVar[int] = 1  # clips below which there is no value
    accepts_statistics: ClassVar[bool] = False  # a reference pack's mean and covariance may replace the rows

    def __init__(self, name: str, needs: tuple[Need, ...], clip_fields: tuple[ClipField, ...] = ()) -> None:
        self.name = name
        self.needs = needs
        self.clip_fields = clip_fields  # fields of Clip that every clip must have, e.g. ("onsets",)

    def validate(self, inputs: MetricInputs) -> None:
        """Raise MetricError (what, where, why, what to do) when the value would mean nothing."""
        if len(inputs.clips) < self.minimum:
            raise MetricError(
                f"{self.name} needs at least {self.minimum} clips, this set has {len(inputs.clips)} scored"
            )

    @abstractmethod
    def compute(self, inputs: MetricInputs) -> Score:
        """A pure function of the inputs. MetricError when there is no value."""
