"""What a table says under itself about a model: parameters, seconds, spread over samples, problems of its driver."""

from __future__ import annotations

from collections.abc import Iterable

from av_bench.results.record import Run
from av_bench.results.shapes import Described
from protocols.known_overlaps import known_overlaps, list_name


def model_notes(run: Run, described: Described) -> tuple[str, ...]:
    """Where parameters and seconds come from, how far samples of one clip differ, what went wrong besides."""
    notes = list(run.scores["protocol"].get("notes", ()))
    parameters, seconds = described.get("parameters"), described.get("seconds_per_sample")
    if parameters is not None and parameters["source"] != "measured":
        notes.append(f"{run.name}: params as declared, not counted ({parameters['source']})")
    if seconds is not None:
        spread = f", sd {seconds['sd']:.3f}" if "sd" in seconds else ""
        notes.append(f"{run.name}: seconds over {seconds['n']} samples{spread}: {seconds['how']}; {seconds['device']}")
    spreads = []
    for name, entry in run.scores["metrics"].items():
        if "std_over_samples" in entry["details"]:
            spreads.append(f"{name} {entry['details']['std_over_samples']:.3f}")
            count = entry["details"]["samples"]
    if spreads:
        notes.append(
            f"{run.name}: mean over {count} samples per clip, then over clips; sd over samples: {', '.join(spreads)}"
        )
    pack = run.scores.get("reference")
    if pack is not None:
        unsaid = "" if pack["networks_stated"] else "; which weights made it is not stated"
        notes.append(f"{run.name}: the reference is a reference pack ({pack['source']}{unsaid})")
    notes += overlaps(run.name, scored_list(run), described.get("training_sets", ()))
    notes += [f"Warning: {run.name}: {problem}" for problem in described.get("problems", ())]
    return tuple(notes)


def scored_list(run: Run) -> str:
    """Name of the list a run was scored on (see ``protocols.known_overlaps``)."""
    return list_name(str(run.scores["set"]["name"]), str(run.scores["set"]["version"]))


def overlaps(name: str, listed: str, training_sets: Iterable[str]) -> list[str]:
    """Notes on a row whose declared training sets overlap the set (the mark † stands at its name), or may do so."""
    known, unknown = known_overlaps(listed, training_sets)
    notes = []
    if known:
        notes.append(f"† {name} was trained on data that overlaps this set: {'; '.join(o.text for o in known)}")
    if unknown:
        notes.append(f"{name} was trained on {', '.join(unknown)}: overlap with this set not audited")
    return notes


def marked(listed: str, training_sets: Iterable[str]) -> bool:
    """Whether a row's training data is known to overlap the set."""
    return bool(known_overlaps(listed, training_sets)[0])
