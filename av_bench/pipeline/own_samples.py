"""The samples that a run wrote itself: their sha256 is kept, and a file that has become another one is refused.

The ledger has the sha256 from the moment a sample is written, ``inputs.json`` from the end of the first start on (and
for samples of version 0.1, whose ledger has none).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from av_bench.contracts import SampleKey, UsageError
from av_bench.features.sides import MediaFile

if TYPE_CHECKING:
    from av_bench.pipeline.plan import RunPlan


def refuse_changed_samples(plan: RunPlan, found: Sequence[MediaFile], known: Mapping[str, Set[str]]) -> None:
    """UsageError when a sample of an earlier start is not the file that was written then.

    ``found`` are hashed; ``known`` is what ``recorded`` gives.
    """
    changed = [m for m in found if m.digest and known[m.path.name] and m.digest not in known[m.path.name]]
    if changed:
        name = changed[0].path.name
        raise UsageError(
            f"{plan.folder.audio}: {len(changed)} of the run's own samples are not the files it wrote, e.g. {name}; "
            "remove them to have them made again, or score files of your own with --samples"
        )


def keep_hashes(plan: RunPlan, media: Sequence[MediaFile]) -> None:
    """Keep the sha256 of every sample in the run's folder."""
    folder = plan.folder.audio
    found = {m.path.name: m.digest for m in media if m.digest and m.problem is None and m.path.parent == folder}
    inputs = plan.folder.inputs()
    if found and inputs.get("samples") != found:
        plan.folder.write_json("inputs.json", inputs | {"samples": found})


def recorded(inputs: Mapping[str, Any], generated: Mapping[SampleKey, Mapping[str, Any]]) -> dict[str, set[str]]:
    """Names of the samples that earlier starts finished, and every sha256 that they may have (none by version 0.1).

    A file of the folder that is not among them was put there by somebody else, or its writer was killed before it
    could say so: it is made again. ``inputs`` and ``generated`` are ``RunFolder.inputs`` and ``last_generated``.
    """
    known = {str(name): {str(digest)} for name, digest in inputs.get("samples", {}).items()}
    for line in generated.values():
        if "file" in line:
            digests = known.setdefault(str(line["file"]), set())
            if line.get("sha256"):
                digests.add(str(line["sha256"]))
    return known
