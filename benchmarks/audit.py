"""Measures the overlap audit: python benchmarks/audit.py lists|reuploads|lookalikes|scale [options]. Seeds are fixed.

lists       Table A4 with the whole of AudioSet in this process: seconds and peak memory.
reuploads   Recall of every kind of copy (``reuploads.KINDS``) of real clips, and wrong matches, as the table of
            docs/audit.md. Give clips to tune on and others to report on.
lookalikes  Wrong matches among clips none of which is a copy of another: real recordings (--clips), pieces of them that
            follow one another, and rendered scenes of one kind (--rendered).
scale       Index and query time and memory with many files: real fingerprints and perturbed real ones.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, help=__doc__)
Folder = Annotated[Path, typer.Option()]


@app.command("lists")
def measure_lists(lists: Folder = Path("../shared/lists")) -> None:
    """Table A4, wall and processor seconds, peak memory."""
    wall, cpu = time.perf_counter(), time.process_time()
    from audit_runs import peak_mb

    from av_bench.audit.sources import Lists
    from av_bench.audit.tables import table_a4

    table = table_a4(Lists(lists))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    done = sum(bool(cell.ours) for cell in table.cells)
    print(f"{done} pairs x 3 rules: {wall:.2f} s wall, {cpu:.2f} s processor, peak {peak_mb():.0f} MB")


# --------------------------------------------------------------------------- re-uploads of real clips


@app.command("reuploads")
def measure_reuploads(
    tuned: Folder,
    held: Folder,
    others: Folder,
    backs: Folder,
    speech: Folder,
    more: Annotated[Path | None, typer.Option()] = None,
    each: int = 3,
    work: Folder = Path("build/audit-benchmark"),
    only: str = "",
    jobs: int = 2,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Recall and false matches of every kind of ``benchmarks.reuploads``, each found in a library of all originals.

    Copies of every kind are made of the clips in ``tuned``, on which the audit was tuned, and in ``held``, on which it
    was not; of each clip in ``more``, which is held out as well, ``each`` kinds, in turn. ``others`` are more originals
    to be confused with; ``backs`` are the videos around a picture-in-picture and ``speech`` the clip whose sound is
    added: both are in no library. Copies and answers are kept, so that a stopped run goes on where it was.
    """
    import audit_runs
    import reuploads

    started = time.perf_counter()
    kinds = [k for k in reuploads.KINDS if only in k.name]
    sets = {"tuned": (_files(tuned), 0), "held": (_files(held), 0), "more": (_files(more) if more else [], each)}
    made = {
        name: list(reuploads.copies(clips, work, kinds, _files(backs), speech, count))
        for name, (clips, count) in sets.items()
    }
    copies = [copy for group in made.values() for _, copy, _ in group]
    print(f"{len(copies)} copies of {len(kinds)} kinds: {time.perf_counter() - started:.0f} s", flush=True)
    originals = [*(clip for clips, _ in sets.values() for clip in clips), *_files(others)]
    answers = audit_runs.asked(copies, originals, work, jobs)
    rows = {
        "tuned on": reuploads.table(made["tuned"], answers.matches),
        "held out": reuploads.table([*made["held"], *made["more"]], answers.matches),
    }
    print(reuploads.text(rows))
    wrong = reuploads.wrong([entry for group in made.values() for entry in group], answers.matches)
    print("\n".join([f"wrong matches: {len(wrong)}", *(f"  {match.text()}" for match in wrong)]))
    print(f"{len(copies)} queries of {sum(len(c) for c, _ in sets.values())} clips, {len(originals)} originals: "
          f"{sum(answers.seconds.values()) / len(copies):.2f} s of one core each, "
          f"peak {answers.peak:.0f} MB")  # fmt: skip
    if json_file:
        json_file.write_text(json.dumps({k: [vars(row) for row in r] for k, r in rows.items()}, indent=1))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


# --------------------------------------------------------------------------- look-alikes


@app.command("lookalikes")
def measure_lookalikes(
    clips: Annotated[Path | None, typer.Option()] = None,
    rendered: int = 150,
    first: int = 10_000,
    piece: float = 3.0,
    most: int = 20,
    work: Folder = Path("build/audit-benchmark"),
    jobs: int = 2,
) -> None:
    """Wrong matches among real recordings, among pieces of ``piece`` s of them (at most ``most`` of
    one; 0 for none), and among rendered scenes of one kind.

    Every match is printed with its offset: whether two files are one recording after all is for a person to see.
    """
    import audit_clips

    folders = []
    if rendered:
        folders.append(audit_clips.scenes(work / "scenes", first, rendered))
    if clips is not None:
        folders.append(clips)
    if clips is not None and most:
        folders.append(audit_clips.pieces(sorted(clips.iterdir()), work / f"pieces of {clips.name}", piece, most))
    for folder in folders:
        _compared_with_itself(folder, work, jobs)


def _compared_with_itself(folder: Path, work: Path, jobs: int) -> None:
    import audit_runs

    files = _files(folder)
    answers = audit_runs.asked(files, files, work, jobs)
    pairs = {frozenset((match.test, match.train)): match for match in answers.matches}
    kinds = Counter(match.kind for match in pairs.values())
    print(f"{folder.name}: {len(files)} files, {len(files) * (len(files) - 1) // 2:,} pairs: {len(pairs)} that match "
          f"{dict(kinds)}, {sum(answers.seconds.values()):.0f} s of one core, peak {answers.peak:.0f} MB")  # fmt: skip
    for match in pairs.values():
        print(f"  {match.text()}")


# --------------------------------------------------------------------------- scale


@app.command("scale")
def measure_scale(
    sources: Annotated[list[Path], typer.Option()],
    work: Folder = Path("build/audit-benchmark"),
    files: int = 100_000,
    queries: int = 1000,
    whole: int = 50,
    seed: int = 7,
    jobs: int = 2,
) -> None:
    """The copies that ``reuploads`` made (same ``work``) of clips in the folders ``sources``, asked for among the clips
    of these folders alone and among ``files`` fingerprints; all candidates of the first ``whole`` queries are
    verified."""
    import many
    from audit_runs import peak_mb

    many.measure(work, [path for folder in sources for path in _files(folder)], files, queries, seed, jobs, whole)
    print(f"peak {peak_mb():.0f} MB")


if __name__ == "__main__":
    app()
