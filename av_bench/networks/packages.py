"""Model classes out of other people's packages, without what those packages do when they are imported.

Some packages of the field run downloads, read tokenizers or import broken dependencies in their ``__init__``. Their
model files are fine, but import seconds' worth of packages of which the network takes one function, or none.
``model_file`` imports one such file with bare stand-ins for its parent packages and for packages it does not need;
``on_meta`` and ``uninitialised`` build a network without drawing random weights that a checkpoint is about to replace.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from av_bench.contracts import MissingRequirement

_lock = threading.RLock()  # sys.modules and torch.nn.init are changed for a moment: one build at a time


_files: dict[tuple[str, ...], ModuleType] = {}  # what was imported beside stand-ins, by name and packages


def model_file(name: str, *, without: tuple[str, ...] = (), names: Mapping[str, Any] | None = None) -> Any:
    """Import ``package.sub.module`` without running the ``__init__`` of ``package`` and ``package.sub``.

    Packages in ``without`` are not imported: what the file takes from them is an empty class, or the object that
    ``names`` holds under the full dotted name. Stand-ins, and modules that saw one, leave ``sys.modules`` afterwards:
    a later ``import`` of somebody else runs as usual. Raises MissingRequirement with the command that installs the
    package when it, or something it needs, is absent.
    """
    with _lock:
        if (name, *without) in _files:
            return _files[name, *without]
        finder = _StandIns(without, names or {})
        before = set(sys.modules)
        added = []
        sys.meta_path.insert(0, finder)
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
            sys.meta_path.remove(finder)
            touched = {name.partition(".")[0], "torchlibrosa", *finder.packages} if without else set()
            for module in set(sys.modules) - before:
                if module.partition(".")[0] in touched:
                    _files[module, *without] = sys.modules.pop(module)
            for parent in added:
                sys.modules.pop(parent, None)


class _Nothing:
    """Whatever a model file takes from a package that its network does not use; made with any arguments."""

    def __init__(self, *_: object, **__: object) -> None: ...


class _Unneeded(ModuleType):
    """Stands for one module of a package that is not needed."""

    def __init__(self, name: str, names: Mapping[str, Any]) -> None:
        super().__init__(name)
        self.__path__ = []
        self._names = names

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        full = f"{self.__name__}.{name}"
        if full in self._names:
            return self._names[full]
        if any(known.startswith(f"{full}.") for known in self._names):
            return _Unneeded(full, self._names)
        return type(name, (_Nothing,), {})


class _StandIns(MetaPathFinder, Loader):
    """Finds every module of some packages, unless they are imported already, and gives ``_Unneeded`` for it."""

    def __init__(self, packages: tuple[str, ...], names: Mapping[str, Any]) -> None:
        self.packages = [package for package in packages if package not in sys.modules]
        self.names = names

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """A spec for a module of one of the packages."""
        del path, target
        return ModuleSpec(fullname, self, is_package=True) if fullname.partition(".")[0] in self.packages else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The stand-in."""
        return _Unneeded(spec.name, self.names)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


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
def uninitialised(*modules: ModuleType) -> Iterator[None]:
    """Inside, weight initialisers do nothing: memory is reserved, not written. Every tensor must be loaded after.

    ``modules`` are those with initialisers of their own, under the names of torch's.
    """
    with _lock:
        places = [vars(module) for module in (torch.nn.init, *modules)]
        kept = [{name: place[name] for name in _DRAWS if name in place} for place in places]
        try:
            for place, own in zip(places, kept, strict=True):
                place.update(dict.fromkeys(own, untouched))
            yield
        finally:
            for place, own in zip(places, kept, strict=True):
                place.update(own)


def untouched(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """An initialiser that does nothing."""
    return tensor


class _NumbersOnCpu(TorchFunctionMode):
    """Ranges of plain numbers (drop-path rates) are made on the CPU even where tensors are not.

    The triangle of a mask without values is that mask; asking torch for it would import the compiler.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs["device"] = "cpu"
        if func is torch.Tensor.triu_ and args[0].is_meta:
            return args[0]
        return func(*args, **kwargs)


@contextlib.contextmanager
def on_meta() -> Iterator[None]:
    """Inside, networks are built without memory: only shapes. Every tensor must be assigned after.

    Initialisers do nothing here either: on the meta device their first call imports the compiler, in seconds.
    """
    with uninitialised(), torch.device("meta"), _NumbersOnCpu():
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow what packages print and warn while they are imported, built or run; errors still come through."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
