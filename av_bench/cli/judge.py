"""`av-bench gate` and `av-bench compare`: two runs, or runs of several seeds, judged against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from av_bench.cli.output import write_beside
from av_bench.contracts import UsageError


class ManyAfterAgainst(TyperCommand):
    """Lets ``--against`` take all that a shell makes of ``base/seed*``, when the new run stands before it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - of click or typer, by version
        """Repeat the option before each of its values."""
        rest: list[str] = []
        repeating = False
        positional = False
        for i, arg in enumerate(args):
            if arg.startswith("-") and arg != "-":
                repeating = arg == "--against" and positional
            elif i and args[i - 1].startswith("--") and "=" not in args[i - 1]:
                pass  # the value of the option before it
            elif repeating:
                rest.append("--against")
            else:
                positional = True
            rest.append(arg)
        return super().parse_args(ctx, rest)


def mount(app: typer.Typer) -> None:
    """Add both commands."""
    app.command("gate", cls=ManyAfterAgainst)(gate)
    app.command("compare")(compare)


def gate(
    new: Annotated[list[Path], typer.Argument(help="The new run folder, or those of several seeds.")],
    against: Annotated[list[Path], typer.Option(help="The baseline: a run folder, or those of several seeds.")],
    rules: Annotated[Path | None, typer.Option(help="YAML: alpha, sided, tolerances (docs/ci.md).")] = None,
    junit: Annotated[Path | None, typer.Option(help="JUnit XML \\[default: NEW/gate.xml].")] = None,
    summary: Annotated[Path | None, typer.Option(help="Markdown \\[default: NEW/gate.md].")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="JSON \\[default: NEW/gate.json].")] = None,
    update: Annotated[bool, typer.Option("--update", help="Make NEW the baseline instead, and say why.")] = False,
    reason: Annotated[str, typer.Option(help="Why the baseline changes; kept in its HISTORY.md.")] = "",
) -> None:
    """Compare a run with a baseline; exit 1 on a regression, 2 when they cannot be compared."""
    from av_bench.results import gate_report
    from av_bench.results.gate import gate as gate_runs
    from reports.terminal import show_verdict

    if update:
        _update(new, against, reason)
        return
    verdict = gate_runs(new, against, rules)
    home = new[0] if (new[0] / "scores.json").is_file() else None
    if not verdict.comparable:
        home = None  # earlier files stay as they are; files that were asked for by name say what happened
    else:
        show_verdict(verdict)
    for path, name, content in (
        (junit, "gate.xml", gate_report.junit(verdict)),
        (summary, "gate.md", gate_report.markdown(verdict).encode()),
        (json_, "gate.json", gate_report.as_json(verdict)),
    ):
        target = path or (home / name if home is not None else None)
        if target is not None:
            write_beside(target, content, asked=path is not None)
    if not verdict.comparable:
        raise UsageError(f"{verdict.new} and {verdict.base} cannot be compared: {verdict.checks[0].detail}")
    raise typer.Exit(verdict.exit_code)


def _update(new: list[Path], against: list[Path], reason: str) -> None:
    from av_bench.results.baseline import update_baseline
    from av_bench.results.gate import read_side

    if len(against) != 1:
        raise UsageError("--update writes one baseline: name its folder, not those of its seeds")
    runs = read_side(new)
    has_one = (against[0] / "scores.json").is_file() or any(against[0].glob("seed*/scores.json"))
    before = read_side(against[0]) if has_one else []
    folder = update_baseline(runs, against[0], reason, before)
    typer.echo(f"{folder} is now the baseline; commit it with its HISTORY.md")


def compare(
    a: Annotated[Path, typer.Argument(help="A run folder, or a folder of seeds.")],
    b: Annotated[Path, typer.Argument(help="The other one.")],
    alpha: Annotated[float, typer.Option(help="Error rate of all metrics together.")] = 0.05,
    clips: Annotated[int, typer.Option(help="Clips that differ most, per metric.")] = 5,
    format_: Annotated[str, typer.Option("--format", help="terminal, markdown or csv.")] = "terminal",
    out: Annotated[Path | None, typer.Option(help="Write to a file (markdown, or csv by its suffix).")] = None,
) -> None:
    """Two models clip by clip: differences, win rates, sign tests, and the clips that differ most."""
    from av_bench.results.compare_clips import compare_runs
    from av_bench.runtime.files import write_atomically
    from reports.comparison import csv_text, markdown, show

    if format_ not in ("terminal", "markdown", "csv"):
        raise UsageError(f"--format must be terminal, markdown or csv, got {format_!r}")
    found = compare_runs(a, b, alpha=alpha, most=clips)
    if out is not None:
        form = "csv" if out.suffix == ".csv" or format_ == "csv" else "markdown"
        text = csv_text(found) if form == "csv" else markdown(found, out.resolve().parent)
        write_atomically(out, text.encode())
    elif format_ == "terminal":
        show(found)
    else:
        typer.echo(csv_text(found) if format_ == "csv" else markdown(found), nl=False)
