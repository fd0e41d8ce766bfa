"""TF32 stays off for whoever needs full float32, whatever other threads do."""

from __future__ import annotations

import threading

import torch

from av_bench.devices import single_precision


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
