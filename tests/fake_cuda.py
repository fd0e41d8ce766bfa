"""A CUDA device that is not there: tensors with shape, type and device, but without values.

Operations on such tensors check what a GPU would refuse first of all, tensors on two devices, and give the shape and
device of the result. It shows that GPU code is written for a GPU; it says nothing about values, memory or speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

CUDA = torch.device("cuda")
needs_cuda_build = pytest.mark.skipif(
    not torch.backends.cuda.is_built(), reason="this torch is built without CUDA, even for tensors without values"
)


@contextmanager
def fake_cuda() -> Iterator[FakeTensorMode]:
    """Inside, ``cuda`` is a device for tensors without values; modules can be moved there."""
    with ExitStack() as stack:
        mode = stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(mock.patch("torch.cuda.synchronize"))
        stack.enter_context(mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False))
        stack.enter_context(mock.patch("torch.cuda.is_bf16_supported", return_value=True))
        stack.enter_context(mock.patch.object(nn.Module, "_apply", _apply))
        stack.enter_context(mock.patch.object(Tensor, "numpy", _zeros))
        yield mode


def _apply(module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """What ``Module.to`` does, with new parameters in place of changed ones: those without values cannot be swapped."""
    for child in module.children() if recurse else ():
        _apply(child, function)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            module._parameters[name] = nn.Parameter(function(parameter.detach()), parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = function(buffer)
    return module


def _zeros(tensor: Tensor, **_options: Any) -> np.ndarray[Any, Any]:
    """What leaves torch. Only what lies on the CPU may."""
    assert tensor.device.type == "cpu", "numpy() of a tensor on the GPU"
    return np.zeros(tuple(tensor.shape), np.float32)
