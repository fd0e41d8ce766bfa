"""One evaluation of the flow network as one CUDA graph: a batch of one else waits for the launches of its kernels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from model_zoo.mmaudio.flow.network import Flow, Preprocessed
from model_zoo.mmaudio.flow.ready import Ready

Record = Callable[[Callable[[], Tensor], torch.device], tuple[Tensor, Callable[[], object]]]
"""Takes a call and its device; gives the tensor that holds the call's result, and what repeats the call."""

_WARM_UP = 3  # calls before a recording: libraries choose their kernels and take their memory


def cuda_graph(run: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, Callable[[], object]]:
    """A call as a CUDA graph. RuntimeError where it does what a graph cannot hold."""
    with torch.cuda.device(device):
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                run()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = run()
    return result, graph.replay


class Recorded:
    """A flow that is recorded at its first call, and again when shapes change; its results are new tensors.

    Conditions are copied where the recording reads them when others than those of the last call come. Whoever changes
    the network calls ``forget``. When recording fails, the flow is called as it is from then on, with one warning.
    """

    def __init__(self, flow: Flow, record: Record = cuda_graph) -> None:
        self._flow, self._record = flow, record
        self._works = True
        self.forget()

    def forget(self) -> None:
        """Record again at the next call."""
        self._replay: Callable[[], object] | None = None
        self._inputs: list[Tensor] = []
        self._last: Preprocessed | Ready | None = None
        self._result = torch.empty(0)

    def __call__(self, latent: Tensor, t: Tensor, given: Preprocessed | Ready) -> Tensor:
        """As the flow."""
        if not self._works:
            return self._flow(latent, t, given)
        inputs = [latent, t, *_tensors(given)]
        if self._replay is None or [x.shape for x in inputs] != [x.shape for x in self._inputs]:
            try:
                self._start(latent, t, given)
            except RuntimeError as error:
                self._works = False
                self.forget()
                warnings.warn(
                    f"no CUDA graph of the flow network, steps are launched one by one: {error}", stacklevel=2
                )
                return self._flow(latent, t, given)
        fresh = inputs if given is not self._last else inputs[:2]
        for place, value in zip(self._inputs, fresh, strict=False):
            place.copy_(value)
        self._last = given
        assert self._replay is not None
        self._replay()
        return self._result.clone()

    def _start(self, latent: Tensor, t: Tensor, given: Preprocessed | Ready) -> None:
        self.forget()
        x, when, conditions = latent.clone(), t.clone(), _copied(given)
        self._inputs = [x, when, *_tensors(conditions)]
        self._result, self._replay = self._record(lambda: self._flow(x, when, conditions), x.device)


def _tensors(given: Preprocessed | Ready) -> list[Tensor]:
    values = [vars(given)[field.name] for field in fields(given)]
    return [value for value in values if value is not None]


def _copied(given: Preprocessed | Ready) -> Preprocessed | Ready:
    """Tensors in memory of their own."""
    values: dict[str, Any] = {field.name: vars(given)[field.name] for field in fields(given)}
    copies: dict[str, Any] = {name: None if value is None else value.clone() for name, value in values.items()}
    return type(given)(**copies)
