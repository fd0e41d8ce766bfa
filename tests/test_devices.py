"""TF32 stays off for whoever needs full float32, whatever other threads do; what a full device is asked for again."""

from __future__ import annotations

import threading
import weakref
from typing import ClassVar, Self

import numpy as np
import torch

from av_bench.contracts import Flavour
from av_bench.extractors.base import BaseExtractor
from av_bench.runtime.devices import single_precision
from av_bench.weights.fill import Weights


def test_full_float32_outlasts_another_threads_exit() -> None:
    before = torch.backends.cudnn.allow_tf32
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with single_precision():
            entered.set()
            leave.wait(10)

    torch.backends.cudnn.allow_tf32 = True
    try:
        thread = threading.Thread(target=other)
        thread.start()
        assert entered.wait(10)
        with single_precision():
            leave.set()
            thread.join()
            assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before


def test_a_batch_too_large_for_the_device_is_halved_after_its_memory_is_free() -> None:
    """What the failed pass had made must be gone when the halves are tried, or they fail too."""
    made: list[weakref.ref[torch.Tensor]] = []
    still_there: list[bool] = []

    class Hungry(BaseExtractor):
        name = "hungry"
        outputs: ClassVar = {"sum": "(B,)"}

        @classmethod
        def build(cls, weights: Weights, device: str = "cpu", flavour: Flavour = "paper") -> Self:
            return cls(None, cls.weights_hash_of(weights), device, flavour)

        def prepare(self, item: torch.Tensor, seconds: float) -> torch.Tensor:
            del seconds
            return item

        def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
            still_there.append(any(ref() is not None for ref in made))
            activations = batch * 2
            made.append(weakref.ref(activations))
            if len(batch) > 2:
                raise torch.cuda.OutOfMemoryError("no room")
            return {"sum": activations.sum(dim=1)}

    found = Hungry(None, "0")._run_batch(torch.arange(10.0).view(5, 2))
    np.testing.assert_array_equal(found["sum"], [2, 10, 18, 26, 34])
    assert not any(still_there)
