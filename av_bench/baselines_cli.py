"""`av-bench baselines`: which generators of others are known, what they need, and where they are on this machine."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from model_zoo.baselines.schema import Manifest

app = typer.Typer(no_args_is_help=True)

HEADINGS = ("baseline", "takes", "gives", "code / weights", "how", "driver tried on", "here")


class ListFormat(StrEnum):
    """Forms of the list."""

    terminal = "terminal"
    markdown = "markdown"


@app.command("list")
def list_(
    format_: Annotated[ListFormat, typer.Option("--format", help="terminal or markdown.")] = ListFormat.terminal,
) -> None:
    """What each takes, gives and needs, under which licence, and whether it runs here."""
    from model_zoo.baselines import load_manifest, manifest_names
    from model_zoo.baselines.load import obstacles

    rows = []
    for name in manifest_names():
        manifest = load_manifest(name)
        found = obstacles(manifest)
        here = "runs" if not found else "; ".join(found)
        if "import" in manifest.modes:
            here = "import with --samples DIR" if found else "runs; import with --samples DIR"
        rows.append((*facts(manifest), here))
    if format_ is ListFormat.markdown:
        typer.echo(markdown([row[:-1] for row in rows], HEADINGS[:-1]))
        return
    from rich.table import Table
    from rich.text import Text

    from reports.terminal import console

    view = Table(box=None, pad_edge=False)
    for heading in HEADINGS:
        view.add_column(heading, overflow="fold")
    for row in rows:
        view.add_row(*map(Text, row))
    console().print(view)


def facts(manifest: Manifest) -> tuple[str, ...]:
    """The cells of a row that do not depend on the machine."""
    uses = {"video": manifest.conditions.video, "text": manifest.conditions.text}
    takes = [name if use == "required" else f"({name})" for name, use in uses.items() if use != "unused"]
    native = manifest.native
    rate = f"{native.rate / 1000:g} kHz" if native.rate else "rate not declared"
    low, high, step = native.min_s, native.max_s, native.step_s
    length = "any length" if high is None else (f"{low:g} s" if low else f"up to {high:g} s")
    length = f"multiples of {step:g} s" if step else length
    licence = " / ".join(filter(None, (manifest.licence.code, manifest.licence.weights)))
    territory = manifest.licence.territory
    if territory and territory != "none stated":
        licence += f"; {territory}"
    how = ", ".join(manifest.modes)
    return (
        manifest.name,
        ", ".join([*takes, *manifest.conditions.extras]),
        f"{rate}, {length}",
        licence,
        how,
        manifest.driver.status,
    )


def markdown(rows: list[tuple[str, ...]], headings: tuple[str, ...]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    return "\n".join([*lines, *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)])


@app.command()
def show(name: Annotated[str, typer.Argument(help="Baseline by name or YAML file.")]) -> None:
    """Everything the manifest says; what is not certain is marked."""
    import yaml

    from model_zoo.baselines import load_manifest
    from model_zoo.baselines.load import HERE, obstacles

    manifest = load_manifest(name)
    path = Path(name) if name.endswith((".yaml", ".yml")) else HERE / f"{name}.yaml"
    data = yaml.safe_load(path.read_text(encoding="utf8"))
    unverified = data.pop("unverified", {})
    typer.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110).rstrip())
    for key, why in unverified.items():
        typer.echo(f"[unverified] {key}: {why}")
    found = obstacles(manifest)
    typer.echo(f"here: {'; '.join(found) if found else 'runs'}")


@app.command()
def setup(
    name: Annotated[str, typer.Argument(help="Baseline by name or YAML file.")],
    print_: Annotated[bool, typer.Option("--print", help="Print the recipe; change nothing.")] = False,
    python: Annotated[Path | None, typer.Option(help="Interpreter of the model's environment.")] = None,
    repo: Annotated[Path | None, typer.Option(help="Clone of the model's repository.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Folder of the weights.")] = None,
    image: Annotated[str | None, typer.Option(help="Container image, for the mode container.")] = None,
    engine: Annotated[str | None, typer.Option(help="docker or podman.")] = None,
) -> None:
    """Print how to get a baseline, or record where it is on this machine. Nothing is ever fetched."""
    from av_bench.contracts import UsageError
    from model_zoo.baselines import load_manifest
    from model_zoo.baselines.load import obstacles, read_site, write_site

    manifest = load_manifest(name)
    given = {"image": image, "engine": engine}
    for key, path in {"python": python, "repo": repo, "weights": weights}.items():
        if path is not None and not path.exists():
            raise UsageError(f"--{key} {path}: no such file or folder")
        given[key] = None if path is None else str(path.absolute())  # not resolved: the python of a venv is a link
    given = {key: value for key, value in given.items() if value is not None}
    if print_ or not given:
        typer.echo(recipe(manifest))
        return
    if python is not None:
        _check_python(python.absolute(), manifest)
    if weights is not None:
        _check_weights(weights, manifest)
    site = replace(read_site(manifest.name), **{key: str(value) for key, value in given.items()})
    typer.echo(f"recorded in {write_site(manifest.name, site)}")
    left = obstacles(manifest)
    typer.echo(f"still missing: {'; '.join(left)}" if left else f"av-bench run --model {name} --set SET can start")


def recipe(manifest: Manifest) -> str:
    """Shell lines and what has to be fetched by hand, with licences, hashes and what is not certain."""
    lines = [f"# {manifest.title}: {manifest.citation}", f"# code: {manifest.licence.code}"]
    for what, terms in (("weights", manifest.licence.weights), ("samples", manifest.licence.samples)):
        lines += [f"# {what}: {terms}"] if terms else []
    lines += [f"# territory: {manifest.licence.territory}"] if manifest.licence.territory else []
    if manifest.repository:
        lines.append(f"git clone {manifest.repository} {manifest.name}")
        lines += [f"git -C {manifest.name} checkout {manifest.revision}"] if manifest.revision else []
    environment = manifest.environment
    if environment is not None:
        lines.append(f"# Python {environment.python or '(version not declared)'}; {environment.note}".rstrip("; "))
        lines += list(environment.recipe)
        if environment.pins:
            lines.append("# pins: " + ", ".join(environment.pins))
    for weight in manifest.weights:
        size = f", {weight.size} bytes" if weight.size else ""
        digest = f"sha256 {weight.sha256}" if weight.sha256 else "sha256 not known"
        lines.append(f"# weights: {weight.what}: {weight.url or 'see the repository'} ({digest}{size})")
    if manifest.samples is not None:
        lines += [f"# samples: {manifest.samples.source}", f"#   names: {manifest.samples.pattern}"]
        lines.append(f"av-bench run --model {manifest.name} --samples DIR --set SET")
    lines += [f"# driver: {manifest.driver.status}. {manifest.driver.note}".rstrip(". ")]
    if manifest.driver.command:
        options = " ".join(f"--{need} PATH" for need in manifest.driver.needs)
        lines.append(f"av-bench baselines setup {manifest.name} {options}")
    elif manifest.driver.target:
        lines.append(f"av-bench baselines setup {manifest.name} --weights DIR")
    return "\n".join([*lines, *(f"# [unverified] {key}: {why}" for key, why in manifest.unverified.items())])


def _check_python(python: Path, manifest: Manifest) -> None:
    """The interpreter must start; another version than the declared one is said aloud."""
    import subprocess

    from av_bench.contracts import UsageError

    code = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
    try:
        done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise UsageError(f"--python {python} does not start: {error}") from error
    version, wanted = done.stdout.strip(), manifest.environment.python if manifest.environment else None
    if wanted and not version.startswith(wanted):
        typer.echo(f"note: Python {version}; the manifest declares {wanted}", err=True)


def _check_weights(folder: Path, manifest: Manifest) -> None:
    """Files whose hash is known and that are there must be the right ones."""
    from av_bench.contracts import UsageError
    from av_bench.media import file_digest

    for weight in manifest.weights:
        path = folder / weight.what
        if weight.sha256 is not None and path.is_file() and file_digest(path) != weight.sha256:
            raise UsageError(f"{path} is not the declared file: its sha256 differs from {weight.sha256}")
