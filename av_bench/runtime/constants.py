"""Constant tensors (filter banks, windows, resampling kernels) that do not remember who asked for them first."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec

import numpy as np
import torch
from numpy.typing import NDArray

P = ParamSpec("P")


def constant(values: Callable[P, NDArray[np.float32]]) -> Callable[P, torch.Tensor]:
    """Decorator: compute ``values`` once per set of arguments, hand out a CPU tensor at every call.

    What is kept is a NumPy array. A kept tensor would keep the mode of its first caller with it: made under
    ``torch.inference_mode`` it can take part in no gradient, made under a default device of ``meta`` or among tensors
    without values it holds no numbers. ``values`` therefore computes with NumPy alone. The tensors of all calls share
    the kept memory: read them, never write to them.
    """
    kept = lru_cache(maxsize=32)(values)

    @wraps(values)
    def made(*args: P.args, **kwargs: P.kwargs) -> torch.Tensor:
        return torch.from_numpy(kept(*args, **kwargs))  # type: ignore[arg-type]  # numbers and names: hashable

    return made
