"""Everything that a run lacks, in one message before any work, with one command that gets what can be got."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import protocols
from av_bench.contracts import MissingRequirement
from av_bench.pipeline.choose import choose_protocol
from av_bench.pipeline.disk import shortages, writes
from av_bench.pipeline.needed import Missing, lacking_for, lacking_for_model
from av_bench.pipeline.plan import RunOptions
from av_bench.weights.lock import load_lock, readable_size
from protocols.lists.sources import default_folder, list_file, locate


def preflight(options: RunOptions) -> list[Missing]:
    """What is missing for these options. Raises UsageError for unknown names."""
    definition = protocols.load_set(options.set)
    protocol, _ = choose_protocol(definition, options.protocol)
    found = lacking_for(protocol, options.metrics)
    if options.model is not None and options.samples is None:
        found += _model(options.model)
    found += _list(definition, options.lists)
    found += _data(definition, options.data)
    if options.samples is not None and not options.samples.is_dir():
        found.append(Missing("data", "samples", f"{options.samples}: no such folder"))
    found = list(dict.fromkeys(found))
    return [*found, *shortages(writes(options, found))]


def refuse_missing(options: RunOptions) -> None:
    """MissingRequirement that names everything at once, when anything is missing that can be fetched."""
    found = preflight(options)
    if any(item.kind in ("package", "weights", "list") for item in found):
        raise MissingRequirement(describe(found))


def describe(found: Sequence[Missing]) -> str:
    """One line for each missing thing, and one command for all."""
    if not found:
        return "nothing is missing"
    lines = [f"{len(found)} thing{'s are' if len(found) > 1 else ' is'} missing:"]
    lines += [f"    {item}" for item in found]
    total = sum(item.size for item in found if item.kind == "weights")
    size = f" ({readable_size(total)} of weights)" if total else ""
    command = one_command(found)
    return "\n".join([*lines, *([f"Get it all{size} with\n    {command}"] if command else [])])


def one_command(found: Sequence[Missing]) -> str:
    """Everything that can be got, in one line of shell."""
    lock = load_lock()
    weights = [item.name for item in found if item.kind == "weights"]
    steps = list(dict.fromkeys(item.command for item in found if item.kind == "package"))
    if weights:
        accept = " --accept-licence" if any(lock[name].non_commercial for name in weights) else ""
        steps.append(f"av-bench weights pull {' '.join(weights)}{accept}")
    lists = [item.name for item in found if item.kind == "list" and item.command]
    if lists:
        steps.append(f"av-bench lists pull {' '.join(lists)}")
    return " && ".join(steps)


def _model(spec: str) -> list[Missing]:
    """Weights of a published model, or the obstacles of a baseline."""
    from model_zoo.baselines import is_baseline, load_manifest
    from model_zoo.baselines.load import obstacles
    from model_zoo.mmaudio.config import ALIASES, VARIANTS, variant

    name, _, given = spec.partition(":")
    if is_baseline(name):
        command = f"av-bench baselines setup {name} --print"
        return [Missing("model", name, text, command) for text in obstacles(load_manifest(name))]
    own = {variant(name).weights} if name in (*VARIANTS, *ALIASES) and "weights=" in given else set()
    return [item for item in lacking_for_model(name) if item.name not in own]


def _list(definition: protocols.SetDefinition, lists: Path | None) -> list[Missing]:
    """The list file of a set of kind list, when it is not where it is looked for."""
    if definition.kind != "list":
        return []
    where, wanted = lists or default_folder(), next(iter(definition.lists.values()))
    if wanted.list is None or (where.exists() and (where.is_file() or locate(where, list_file(wanted.list)))):
        return []
    detail = f"not in {where}, {wanted.count} clips"
    return [Missing("list", wanted.list, detail, f"av-bench lists pull {wanted.list}")]


def _data(definition: protocols.SetDefinition, data: Path | None) -> list[Missing]:
    if definition.kind == "rendered" or (data is not None and data.is_dir()):
        return []
    hint = "give --data DIR" if data is None else f"{data}: no such folder"
    return [Missing("data", f"media of set {definition.name}", f"{hint} (docs/sets.md says what and from where)")]
