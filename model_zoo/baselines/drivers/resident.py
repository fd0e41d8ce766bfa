"""Runs one official script again and again in one process: its models are loaded once, not once per clip.

``stages.py`` starts this with the interpreter and the folder of a step, and writes one JSON line per item to the
handle named first: ``argv``, ``cwd``, ``env``, ``seed``, ``keep``, ``seeds``, ``replace``. The answer is one JSON line
on the handle named second: ``{"error": null}`` or the reason. Each time the script runs anew as the main program, in a
fresh namespace, with the item's arguments and random state; only what the functions in ``keep`` returned the first
time is handed out again.

* ``keep``: names that the script defines or imports (``load_model``), or ``module:name.of.attribute``. The n-th call in
  an item gets what the n-th call got before, whatever its arguments: only calls that mean the same for every item.
* ``seeds``: functions that set a fixed seed; they are called with the item's seed instead of their own.
* ``replace``: texts in the script's source, replaced in memory: a path that stands in the code, a seed without a flag.

Standard library only, Python 3.8.
"""

from __future__ import annotations
import __future__

import ast
import importlib
import json
import operator
import os
import random
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

Function = Callable[..., Any]

_kept: dict[str, list[object]] = {}
_calls: dict[str, int] = {}
_hooked: set[str] = set()
_seed = 0


def main() -> None:
    """Serve items until the first handle is closed."""
    orders, answers = int(sys.argv[1]), int(sys.argv[2])
    sys.path[0] = ""  # set for each script
    with os.fdopen(orders, encoding="utf8") as source, os.fdopen(answers, "w", encoding="utf8") as sink:
        for line in source:
            error = serve(json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
            sink.write(json.dumps({"error": error}) + "\n")
            sink.flush()


def serve(order: dict[str, Any]) -> str | None:
    """Run the script of one order; the reason when it fails."""
    try:
        run(order)
    except SystemExit as end:
        code = end.code
        return None if code in (None, 0) else f"exit code {code}" if isinstance(code, int) else str(code)
    except BaseException as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    return None


def run(order: dict[str, Any]) -> None:
    """Execute the script statement by statement, so that kept names are wrapped as soon as they exist."""
    global _seed
    os.chdir(order["cwd"])
    os.environ.update(order["env"])
    script = str(Path(order["argv"][0]).resolve())
    source = Path(script).read_text(encoding="utf8")
    for old, new in order["replace"].items():
        if old not in source:
            raise RuntimeError(f"{script} does not contain {old!r}: it is not the revision of the manifest")
        source = source.replace(old, new)
    _seed = order["seed"]
    _calls.clear()
    sys.argv = list(order["argv"])
    sys.path[0] = str(Path(script).parent)
    seed_all(_seed)
    for name in order["keep"] + order["seeds"]:
        if ":" in name:
            hook(name, name in order["seeds"])
    module = types.ModuleType("__main__")
    module.__file__ = script
    sys.modules["__main__"] = module
    names, flags = vars(module), 0
    wrapped: dict[str, object] = {}
    for statement in ast.parse(source, script).body:
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            for alias in statement.names:
                flags |= vars(__future__)[alias.name].compiler_flag
        code = compile(ast.Module(body=[statement], type_ignores=[]), script, "exec", flags, dont_inherit=True)
        before = _random_modules()
        exec(code, names)
        if _random_modules() != before:
            seed_all(_seed)  # numpy or torch has just been imported
        for name in order["keep"] + order["seeds"]:
            if callable(names.get(name)) and names[name] is not wrapped.get(name):
                wrapped[name] = seeded(names[name]) if name in order["seeds"] else kept(name, names[name])
                names[name] = wrapped[name]


def hook(target: str, sets_seed: bool) -> None:
    """Wrap ``module:name.of.attribute`` where it lives, once."""
    if target in _hooked:
        return
    place, _, path = target.partition(":")
    module = importlib.import_module(place)
    parents, _, name = path.rpartition(".")
    owner: Any = operator.attrgetter(parents)(module) if parents else module
    found = operator.attrgetter(path)(module)
    wrapped = seeded(found) if sets_seed else kept(target, found)
    setattr(owner, name, staticmethod(wrapped) if isinstance(owner, type) else wrapped)
    _hooked.add(target)


def kept(name: str, function: Function) -> Function:
    """A function whose n-th result of the first item is the n-th result of every item."""

    def again(*arguments: Any, **more: Any) -> Any:
        number = _calls.get(name, 0)
        _calls[name] = number + 1
        results = _kept.setdefault(name, [])
        if number == len(results):
            results.append(function(*arguments, **more))
        seed_all(_seed)  # building a network draws random numbers, and only the first item builds it
        return results[number]

    return again


def seeded(function: Function) -> Function:
    """A function of a fixed seed, given the item's in its place."""

    def instead(*arguments: Any, **more: Any) -> Any:
        return function(_seed, *arguments[1:], **{key: value for key, value in more.items() if key != "seed"})

    return instead


def _random_modules() -> tuple[bool, bool]:
    """Whether numpy and torch are there, whose random states have to be set."""
    return "numpy" in sys.modules, "torch" in sys.modules


def seed_all(seed: int) -> None:
    """Every random state that is there, so that neither order nor a restart changes a sample."""
    random.seed(seed)
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        numpy.random.seed(seed % 2**32)
    if torch is not None:
        torch.manual_seed(seed)


if __name__ == "__main__":
    main()
