"""`av-bench study`: listeners' ratings, from the page to the table."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from av_bench.contracts import UsageError

app = typer.Typer(no_args_is_help=True)


class StudyFormat(StrEnum):
    """Forms of a scored study."""

    markdown = "markdown"
    latex = "latex"


@app.command()
def make(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; each is a method of the study.")],
    out: Annotated[Path, typer.Option(help="New folder: page/ for participants, key.json for you.")] = Path("study"),
    clips: Annotated[int, typer.Option(min=1, help="So many clips.")] = 8,
    per_person: Annotated[int | None, typer.Option(min=1, help="Clips one participant sees \\[default: all].")] = None,
    clip: Annotated[list[str] | None, typer.Option(help="These clips, by id, in place of a draw.")] = None,
    min_height: Annotated[int, typer.Option(help="Short side of the picture in pixels, at least.")] = 360,
    without: Annotated[
        str | None, typer.Option(help="Words of label or text that leave a clip out \\[default: those of speech].")
    ] = None,
    quietest: Annotated[float, typer.Option(help="Level in dBFS below which a sample leaves its clip out.")] = -50.0,
    match: Annotated[float | None, typer.Option(help="Loudness in LUFS that all samples are brought to.")] = None,
    checks: Annotated[int, typer.Option(min=0, help="Attention checks in between.")] = 2,
    questions: Annotated[Path | None, typer.Option(help="YAML with other words and questions.")] = None,
    seed: Annotated[int, typer.Option(help="Of the draw and the orders.")] = 14159265,
    post: Annotated[str | None, typer.Option(help="Address that gets the answers \\[default: download only].")] = None,
    single: Annotated[bool, typer.Option("--single", help="One file with all media in it.")] = False,
    data: Annotated[Path | None, typer.Option(help="Folder of the set's videos \\[default: the runs'].")] = None,
    table_file: Annotated[Path | None, typer.Option("--table", help="Table of the set \\[default: the runs'].")] = None,
    lists: Annotated[Path | None, typer.Option(help="Lists of the set \\[default: the runs'].")] = None,
) -> None:
    """A page with samples of several methods to rate, as in appendix A of the MMAudio paper."""
    from av_bench.pipeline.clip_media import clip_media
    from av_bench.results.record import read_run
    from reports.study.design import SPEECH, Rules, design, read_words
    from reports.study.page import write_study

    found = [read_run(path) for path in runs]
    methods = {run.name: str(run.path) for run in found}
    if len(methods) < len(found):
        raise UsageError("study: two runs have the same name; give each its own with `av-bench run --label`")
    words = read_words(questions)
    media = clip_media(found, data=data, table=table_file, lists=lists)
    common = set.intersection(*({str(key[0]) for key in run.values().index} for run in found))
    without_words = SPEECH if without is None else tuple(w.strip().lower() for w in without.split(",") if w.strip())
    rules = Rules(clips, per_person, min_height, without_words, quietest, match, checks, seed, tuple(clip or ()))
    made = design(sorted(common), methods, media, rules)
    key = write_study(
        made, words, rules, out, lambda s, place: media.write(methods[s.method], s.clip, place, s.gain),
        post=post, single=single,
    )  # fmt: skip
    samples = sum(len(group) for group in made.samples)
    typer.echo(f"study {key['study']}: {len(made.samples)} clips, {samples} samples of {len(methods)} methods")
    for reason, n in made.left_out.items():
        typer.echo(f"left out: {n} {reason}")
    typer.echo(f"for participants: {out}/page/index.html; keep {out}/key.json to yourself")


Files = Annotated[list[Path], typer.Argument(help="Answers of participants (JSON).")]
Key = Annotated[Path, typer.Option(help="key.json of the study.")]
Exclude = Annotated[list[str] | None, typer.Option(help="PARTICIPANT=REASON; may be given several times.")]
Wrong = Annotated[int, typer.Option(min=0, help="Attention checks one may fail.")]


@app.command()
def score(
    answers: Files,
    key: Key,
    exclude: Exclude = None,
    wrong_checks: Wrong = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="For `av-bench table --study`.")] = None,
    format_: Annotated[StudyFormat, typer.Option("--format", help="Form of the table.")] = StudyFormat.markdown,
) -> None:
    """Mean and spread of the ratings (table A1), intervals over participants and clips, agreement of the raters."""
    from av_bench.runtime.files import write_atomically
    from reports.study.answers import read_answers
    from reports.study.score import markdown, summary

    data = summary(read_answers(answers, key, exclude or [], wrong_checks))
    if json_file is not None:
        write_atomically(json_file, (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())
    if format_ is StudyFormat.markdown:
        typer.echo(markdown(data), nl=False)
        return
    from av_bench.cli import facts
    from reports import layouts
    from reports.arrange import arranged
    from reports.render import render

    layout = layouts.load("mmaudio-tableA1")
    typer.echo(render(arranged([], layout, facts=facts.ratings(data)), "latex"), nl=False)


@app.command()
def agree(
    answers: Files,
    key: Key,
    runs: Annotated[list[Path], typer.Option("--run", help="The runs of the study; one for each method.")],
    exclude: Exclude = None,
    wrong_checks: Wrong = 0,
) -> None:
    """How well each automatic metric agrees with the ratings, over models and over samples."""
    from av_bench.results.record import read_run
    from reports.study.agree import agreements, markdown
    from reports.study.answers import read_answers

    given = read_answers(answers, key, exclude or [], wrong_checks)
    typer.echo(markdown(agreements(given, [read_run(path) for path in runs])), nl=False)
