"""Snapshots of weight averages on disk, and the averages that are put together from them at the end of a training."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from av_bench.contracts import AvBenchError, MissingRequirement
from model_zoo.mmaudio.training.checkpoints import digest, write_tensors
from model_zoo.mmaudio.training.ema import WORST, gamma_of, kept_at, synthesis_error, synthesis_weights

_NAME = re.compile(r"sigma-([0-9.]+)-step-(\d+)\.safetensors$")


class Snapshots:
    """Averages on disk, one file per width and step, taken every ``every`` steps; at most ``limit`` per width."""

    def __init__(self, folder: Path, every: int, limit: int = 24) -> None:
        self.folder, self.every, self.limit = folder, every, limit

    def path(self, sigma_rel: float, step: int) -> Path:
        """File of one average."""
        return self.folder / f"sigma-{sigma_rel:g}-step-{step:09d}.safetensors"

    def entries(self) -> list[tuple[float, int]]:
        """(width, step) of every snapshot, sorted."""
        found = (_NAME.match(path.name) for path in self.folder.glob("sigma-*.safetensors"))
        return sorted((float(match[1]), int(match[2])) for match in found if match)

    def add(self, sigma_rel: float, step: int, average: Mapping[str, Tensor]) -> None:
        """Write one average at once, then thin its width. MissingRequirement when the disk is full; nothing is lost."""
        path = self.path(sigma_rel, step)
        try:
            write_tensors(path, average, {"digest": digest(average)})
        except OSError as error:
            raise MissingRequirement(
                f"{path}: the snapshot cannot be written ({error}); nothing is lost. Free space and start "
                "the same command to resume from the last checkpoint"
            ) from error
        steps = [found for sigma, found in self.entries() if sigma == float(f"{sigma_rel:g}")]
        for old in self._surplus(steps, step):
            self.path(sigma_rel, old).unlink()

    def _surplus(self, steps: Sequence[int], step: int) -> list[int]:
        """Those of the steps that make too many: never one of ``kept_at``, so what goes depends on ``step`` alone.

        Others are there when ``every`` was changed on the way; the ones with the closest neighbours go first.
        """
        left, gone, planned = sorted(steps), [], set(kept_at(step, self.every, self.limit))
        while len(left) > self.limit:
            others = [n for n, found in enumerate(left) if found not in planned]
            inner = [n for n in others if 0 < n < len(left) - 1] or others  # the ends stay while there is a choice
            gaps = [left[min(n + 1, len(left) - 1)] - left[max(n - 1, 0)] for n in inner]
            gone.append(left.pop(inner[gaps.index(min(gaps))]))
        return gone

    def forget_after(self, step: int) -> None:
        """Remove snapshots of steps that a resumed run does again."""
        for sigma, found in self.entries():
            if found > step:
                self.path(sigma, found).unlink()

    def synthesise(
        self, sigma_rel: float, step: int | None = None, live: Mapping[float, Mapping[str, Tensor]] | None = None
    ) -> dict[str, Tensor]:
        """The average of any width at ``step`` (None: the newest), float32; one snapshot is in memory at a time.

        ``live`` are tracked averages of ``step`` that need no file. MissingRequirement when the snapshots that are
        there would give an average further off than ``WORST``, or when one cannot be read.
        """
        found = self.entries()
        if step is None and found:
            step = max(s for _, s in found)
        if step is None:
            raise MissingRequirement(f"{self.folder}: no snapshots to make an average from")
        now = {(float(f"{sigma:g}"), step): average for sigma, average in (live or {}).items()}
        found = sorted({*found, *now})
        steps, gammas = [s for _, s in found], [gamma_of(sigma) for sigma, _ in found]
        self._check(sigma_rel, step, found)
        weights = synthesis_weights(steps, gammas, step, gamma_of(sigma_rel))
        total: dict[str, Tensor] = {}
        for weight, average in zip(weights.tolist(), self._read(found, now), strict=True):
            for name, value in average.items():
                share = value.double() * weight
                total[name] = total[name].add_(share) if name in total else share
        return {name: value.float() for name, value in total.items()}

    def _check(self, sigma_rel: float, step: int, found: Sequence[tuple[float, int]]) -> None:
        gammas = [gamma_of(sigma) for sigma, _ in found]
        error = synthesis_error([s for _, s in found], gammas, step, gamma_of(sigma_rel))
        if error <= WORST:
            return
        files = self.entries()
        there = {f"{sigma:g}": [s for other, s in files if other == sigma] for sigma, _ in files}
        listed = "; ".join(f"width {sigma}: steps {', '.join(map(str, s))}" for sigma, s in there.items())
        raise MissingRequirement(
            f"{self.folder}: the average of width {sigma_rel:g} at step {step} would be off by {error:.0%} (at most "
            f"{WORST:.0%}) when made from the snapshots that are there ({listed or 'none'}). Put missing ones back, or "
            "leave the width out of ema.final; to have it in another run, track it in ema.sigma_rel"
        )

    def _read(
        self, found: Sequence[tuple[float, int]], now: Mapping[tuple[float, int], Mapping[str, Tensor]]
    ) -> Iterator[Mapping[str, Tensor]]:
        for key in found:
            if key in now:
                yield now[key]
                continue
            try:
                yield _intact(self.path(*key))
            except (AvBenchError, OSError) as error:
                raise MissingRequirement(
                    f"snapshot {self.path(*key)} cannot be read ({error}). Remove this file and start the same command "
                    "again: the average is then made from the others, or refused if they are too few"
                ) from error


def _intact(path: Path) -> dict[str, Tensor]:
    """A snapshot whose digest is the one it was written with (those of earlier versions have none)."""
    from safetensors import safe_open

    from av_bench.weights import BadWeights, load_state_dict

    tensors = load_state_dict(path)
    with safe_open(str(path), "pt") as file:
        written = (file.metadata() or {}).get("digest")
    if written not in (None, digest(tensors)):
        raise BadWeights("its checksum differs")
    return tensors
