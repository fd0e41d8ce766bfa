"""``mmaudio-nano``: a small MMAudio with its own features, VAE and vocoder, trained on ``impacts`` train on a CPU."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """``MMAudioNano``, imported when asked for: it needs torch."""
    if name == "MMAudioNano":
        from model_zoo.mmaudio.nano.model import MMAudioNano

        return MMAudioNano
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
