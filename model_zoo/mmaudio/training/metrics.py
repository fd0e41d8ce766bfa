"""Metrics during training: what whoever starts it hands in, and what becomes of the training when they fail."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from av_bench.contracts import AvBenchError, ClipSet, Evaluator, SampleSource
from model_zoo.mmaudio.flow.network import FlowNetwork

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """Metrics during training, handed in by whoever starts it: training itself knows no pipeline.

    ``generator`` turns a network with the current weights into something that makes sound for ``clips``.
    """

    evaluator: Evaluator
    clips: ClipSet
    generator: Callable[[FlowNetwork], SampleSource]

    def attempt(self, network: FlowNetwork, step: int) -> tuple[str, dict[str, Any]]:
        """Kind and values of the log's event: the metrics, or why there are none. Training continues then."""
        generator: SampleSource | None = None
        values: dict[str, Any]
        try:
            generator = self.generator(network)
            kind, values = "metrics", dict(self.evaluator(generator, self.clips))
        except (AvBenchError, OSError, torch.cuda.OutOfMemoryError) as error:
            reason = f"{type(error).__name__}: {error}"
            log.warning("step %d: no metrics, training continues: %s", step, reason)
            kind, values = "metrics-failed", {"reason": reason}
        # Not within the handler: until it ends, the error keeps all that the failed pass had made.
        if generator is not None:
            generator.place("cpu")  # codec and conditions are gigabytes that training wants back
        network.to("cpu")
        torch.cuda.empty_cache()
        return kind, values
