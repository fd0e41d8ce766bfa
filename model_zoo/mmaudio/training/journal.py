"""What a training run says: JSON lines always, TensorBoard when installed, Weights & Biases when a project is named."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from av_bench.contracts import MissingRequirement
from av_bench.runtime.files import write_atomically

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

Value = float | int | str | list[float] | list[int] | dict[str, Any]


class Journal:
    """``log.jsonl`` in the run's folder: one line per event with ``step`` and ``kind``.

    Opened at a resumed ``step``, it drops what a killed run had written beyond it, so that the log of a broken run
    reads like that of an unbroken one. Numbers also go to TensorBoard (``<out>/tensorboard``) and W&B.
    """

    def __init__(
        self, out: Path, step: int, *, tensorboard: bool = True, wandb: str | None = None, quiet: bool = False
    ) -> None:
        self.path, self.quiet = out / "log.jsonl", quiet
        self._drop_after(step)
        self._handle = self.path.open("a", encoding="utf8")
        self._board = _tensorboard(out / "tensorboard", step) if tensorboard else None
        self._wandb = _wandb(out, wandb) if wandb else None

    def write(self, step: int, kind: str, values: Mapping[str, Value]) -> None:
        """One event, on disk when this returns."""
        self._handle.write(json.dumps({"step": step, "kind": kind, **values}, allow_nan=False) + "\n")
        self._handle.flush()
        numbers = {f"{kind}/{k}": v for k, v in values.items() if isinstance(v, int | float)}
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)
        if not self.quiet:
            shown = ", ".join(f"{k} {v:.4g}" for k, v in values.items() if isinstance(v, int | float))
            print(f"step {step} {kind}: {shown}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Close all writers. One that cannot be closed is warned about: the error that ends the run comes first.

        No event is lost by that, ``write`` has put each on disk or said that it could not.
        """
        closing = [self._handle.close]
        closing += [self._board.close] if self._board is not None else []
        closing += [self._wandb.finish] if self._wandb is not None else []
        for close in closing:
            try:
                close()
            except OSError as error:
                log.warning("%s: a log could not be closed (%s)", self.path.parent, error)

    def _drop_after(self, step: int) -> None:
        if not self.path.is_file():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return
        kept = []
        for line in self.path.read_text(encoding="utf8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):  # a line cut off by a kill, or no event
                continue
        write_atomically(self.path, "".join(kept).encode())


def read_log(path: Path) -> list[dict[str, Any]]:
    """The events of a ``log.jsonl``."""
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]


def _tensorboard(folder: Path, step: int) -> SummaryWriter | None:
    """A TensorBoard writer, None where the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)


def _wandb(out: Path, project: str) -> Any:  # noqa: ANN401 - wandb may be absent
    try:
        import wandb  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise MissingRequirement("run.wandb is set, but the package is missing: pip install wandb") from error
    return wandb.init(project=project, name=out.name, dir=str(out), resume="allow", id=out.name)
