"""Model classes out of other people's packages, without what those packages do when they are imported.

Some packages of the field run downloads, read tokenizers or import broken dependencies in their ``__init__``. Their
model files are fine. ``model_file`` imports one such file with bare stand-ins for its parent packages; ``on_meta`` and
``uninitialised`` build a network without drawing random weights that a checkpoint is about to replace.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from av_bench.contracts import MissingRequirement

_lock = threading.RLock()  # sys.modules and torch.nn.init are changed for a moment: one build at a time


def model_file(name: str) -> Any:
    """Import ``package.sub.module`` without running the ``__init__`` of ``package`` and ``package.sub``.

    The stand-ins are removed afterwards, so a later ``import package`` of somebody else runs as usual.
    Raises MissingRequirement with the command that installs the package when it, or something it needs, is absent.
    """
    with _lock:
        if name in sys.modules:
            return sys.modules[name]
        added = []
        try:
            parts = name.split(".")
            for depth in range(1, len(parts)):
                parent = ".".join(parts[:depth])
                if parent not in sys.modules:
                    sys.modules[parent] = _stand_in(parent)
                    added.append(parent)
            with quiet():
                return importlib.import_module(name)
        except ImportError as error:
            raise MissingRequirement(
                f"{name} cannot be imported: {error}. It belongs to the networks of the paper; get them with\n"
                "    pip install 'av-bench[paper]'"
            ) from error
        finally:
            for parent in added:
                sys.modules.pop(parent, None)


def _stand_in(package: str) -> ModuleType:
    """A module that only knows where the package's files lie."""
    head, _, tail = package.rpartition(".")
    if head:
        places = [str(Path(place) / tail) for place in sys.modules[head].__path__]
    else:
        found = importlib.util.find_spec(package)
        if found is None or found.submodule_search_locations is None:
            raise ImportError(f"No module named {package!r}", name=package)
        places = list(found.submodule_search_locations)
    module = ModuleType(package)
    module.__path__ = places
    return module


_DRAWS = (
    "uniform_",
    "normal_",
    "trunc_normal_",
    "xavier_uniform_",
    "xavier_normal_",
    "kaiming_uniform_",
    "kaiming_normal_",
    "orthogonal_",
)


@contextlib.contextmanager
def uninitialised() -> Iterator[None]:
    """Inside, weight initialisers do nothing: memory is reserved, not written. Every tensor must be loaded after."""

    def untouched(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return tensor

    with _lock:
        kept = {name: getattr(torch.nn.init, name) for name in _DRAWS}
        try:
            for name in _DRAWS:
                setattr(torch.nn.init, name, untouched)
            yield
        finally:
            for name, function in kept.items():
                setattr(torch.nn.init, name, function)


class _NumbersOnCpu(TorchFunctionMode):
    """Ranges of plain numbers (drop-path rates) are made on the CPU even where tensors are not."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


@contextlib.contextmanager
def on_meta() -> Iterator[None]:
    """Inside, networks are built without memory: only shapes. Every tensor must be assigned after."""
    with torch.device("meta"), _NumbersOnCpu():
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow what packages print and warn while they are imported, built or run; errors still come through."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
