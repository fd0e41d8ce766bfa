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
import multiprocessing
import resource
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False, help=__doc__)
Folder = Annotated[Path, typer.Option()]


@app.command("lists")
def measure_lists(lists: Folder = Path("../shared/lists")) -> None:
    """Table A4, wall and processor seconds, peak memory."""
    wall, cpu = time.perf_counter(), time.process_time()
    from av_bench.audit.sources import Lists
    from av_bench.audit.tables import table_a4

    table = table_a4(Lists(lists))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    done = sum(bool(cell.ours) for cell in table.cells)
    print(f"{done} pairs x 3 rules: {wall:.2f} s wall, {cpu:.2f} s processor, peak {_peak_mb():.0f} MB")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --------------------------------------------------------------------------- re-uploads of real clips


@app.command("reuploads")
def measure_reuploads(
    sources: Folder,
    others: Folder,
    backs: Folder,
    speech: Folder,
    work: Folder = Path("build/audit-benchmark"),
    only: str = "",
    jobs: int = 2,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Recall and false matches of every kind of ``benchmarks.reuploads``, each found in a library of all originals.

    Copies are made of the clips in ``sources``; ``others`` are more originals to be confused with; ``backs`` are the
    videos around a picture-in-picture and ``speech`` the clip whose sound is added: both are in no library.
    """
    import reuploads

    kinds = [k for k in reuploads.KINDS if only in k.name]
    clips = sorted(sources.glob("*.mp4"))
    started = time.perf_counter()
    made = list(reuploads.copies(clips, work, kinds, sorted(backs.glob("*.mp4")), speech))
    print(f"{len(made)} copies of {len(kinds)} kinds: {time.perf_counter() - started:.0f} s", flush=True)
    library = _linked(work / "library", [*clips, *sorted(others.glob("*.mp4"))])
    started = time.perf_counter()
    shares = [[copy for _, copy, _ in made[len(made) * i // jobs : len(made) * (i + 1) // jobs]] for i in range(jobs)]
    folders = [_linked(work / f"asked {i + 1} of {jobs}", share) for i, share in enumerate(shares)]
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(_audited, folders, [library] * jobs, [work / "store"] * jobs))
    matches = [match for share, _ in found for match in share]
    seconds = time.perf_counter() - started
    rows, wrong = reuploads.table(made, matches)
    print(reuploads.text(rows))
    print(f"wrong matches: {len(wrong)}")
    for match in wrong:
        print(f"  {match.test.name} = {match.train.name}: {match.kind}, {match.sound} {match.picture}")
    print(f"{len(made)} queries, {len(list(library.iterdir()))} originals, {jobs} processes: {seconds:.0f} s, "
          f"peak of one {max(peak for _, peak in found):.0f} MB")  # fmt: skip
    if json_file:
        json_file.write_text(json.dumps([vars(row) for row in rows], indent=1))


def _audited(asked: Path, library: Path, store: Path) -> tuple[list[Any], float]:
    """Matches of a folder, and the peak memory (MB) of this process."""
    from av_bench.audit.content import audit_content
    from av_bench.features.store import Store

    return audit_content(asked, [library], Store(store), workers=1).matches, _peak_mb()


def _linked(folder: Path, files: list[Path]) -> Path:
    """A folder that holds links to exactly these files."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for path in files:
        (folder / path.name).symlink_to(path.resolve())
    return folder


# --------------------------------------------------------------------------- look-alikes


@app.command("lookalikes")
def measure_lookalikes(
    clips: Annotated[Path | None, typer.Option()] = None,
    rendered: int = 150,
    first: int = 10_000,
    piece: float = 3.0,
    most: int = 20,
    work: Folder = Path("build/audit-benchmark"),
) -> None:
    """Wrong matches among real recordings, among pieces of ``piece`` s of them (at most ``most`` of
    one), and among rendered scenes of one kind.

    Every match is printed with its offset: whether two files are one recording after all is for a person to see.
    """
    import audit_clips

    folders = []
    if rendered:
        folders.append(audit_clips.scenes(work / "scenes", first, rendered))
    if clips is not None:
        folders.append(clips)
        folders.append(audit_clips.pieces(sorted(clips.iterdir()), work / f"pieces of {clips.name}", piece, most))
    for folder in folders:
        _compared_with_itself(folder, work)


def _compared_with_itself(folder: Path, work: Path) -> None:
    from av_bench.audit.content import audit_content
    from av_bench.features.store import Store

    started = time.perf_counter()
    result = audit_content(folder, [folder], Store(work / "store"), workers=1)
    count, kinds = result.counts[str(folder)], Counter(match.kind for match in result.matches)
    print(f"{folder.name}: {count} files, {count * (count - 1) // 2:,} pairs: {len(result.matches)} matches "
          f"{dict(kinds)}, {len(result.not_compared)} not compared, {time.perf_counter() - started:.0f} s, "
          f"peak {_peak_mb():.0f} MB", flush=True)  # fmt: skip
    for match in result.matches:
        print(f"  {match.test.name} = {match.train.name}: {match.kind} {match.change}, {match.sound} {match.picture}")


# --------------------------------------------------------------------------- scale


@app.command("scale")
def measure_scale(
    work: Folder = Path("build/audit-benchmark"),
    sources: Folder = Path("../shared/clips"),
    files: int = 100_000,
    queries: int = 1000,
    seed: int = 7,
    jobs: int = 2,
) -> None:
    """Candidates of the copies that ``reuploads`` made of the clips in ``sources``, their originals among ``files``
    fingerprints, and among the originals alone.

    Of a candidate only the sound is verified here; those of the picture are counted, since perturbed fingerprints have
    no media.
    """
    import many

    many.measure(work, sorted(sources.glob("*.mp4")), files, queries, seed, jobs)
    print(f"peak {_peak_mb():.0f} MB")


if __name__ == "__main__":
    app()
