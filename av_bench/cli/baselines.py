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

    from av_bench.schema import read_yaml
    from model_zoo.baselines import load_manifest
    from model_zoo.baselines.load import HERE, obstacles

    manifest = load_manifest(name)
    path = Path(name) if name.endswith((".yaml", ".yml")) else HERE / f"{name}.yaml"
    data = read_yaml(path, dict)
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
    python2: Annotated[Path | None, typer.Option(help="Interpreter of its second environment, if it has two.")] = None,
    repo: Annotated[Path | None, typer.Option(help="Clone of the model's repository.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Folder of the weights.")] = None,
    steps: Annotated[Path | None, typer.Option(help="Your steps file (begin with what --print gives).")] = None,
    image: Annotated[str | None, typer.Option(help="Container image, for the mode container.")] = None,
    engine: Annotated[str | None, typer.Option(help="docker or podman.")] = None,
) -> None:
    """Print how to get a baseline, or record where it is on this machine. Nothing is ever fetched."""
    from model_zoo.baselines import load_manifest
    from model_zoo.baselines.instructions import printed
    from model_zoo.baselines.load import obstacles
    from model_zoo.baselines.site import read_site, with_steps, write_site

    manifest = load_manifest(name)
    site = read_site(manifest.name)
    inside = image is not None or site.in_container(manifest)  # the interpreters are the image's then
    given = {"image": image, "engine": engine}
    for key, path in {"python": python, "python2": python2, "repo": repo, "weights": weights, "steps": steps}.items():
        given[key] = _there(key, path, inside)
    given = {key: value for key, value in given.items() if value is not None}
    if print_ or not given:
        typer.echo(printed(manifest))
        return
    if not inside:
        _check_python("python", given.get("python"), manifest)
        _check_python("python2", given.get("python2"), None)
    if weights is not None:
        _check_weights(weights, manifest)
    site = replace(site, **{key: str(value) for key, value in given.items()})
    if steps is not None:
        with_steps(manifest, site)  # refuses what is off in it
    typer.echo(f"recorded in {write_site(manifest.name, site)}")
    left = obstacles(manifest)
    typer.echo(f"still missing: {'; '.join(left)}" if left else f"av-bench run --model {name} --set SET can start")


def _there(key: str, path: Path | None, inside: bool) -> str | None:
    """The absolute path of an option; not resolved: the python of a venv is a link."""
    from av_bench.contracts import UsageError

    if path is None:
        return None
    if inside and key in ("python", "python2"):
        return str(path)
    if not path.exists():
        raise UsageError(f"--{key} {path}: no such file or folder")
    return str(path.absolute())


def _check_python(key: str, python: str | None, manifest: Manifest | None) -> None:
    """The interpreter must start; another version than the declared one is a warning."""
    if python is None:
        return
    import subprocess

    from av_bench.contracts import UsageError

    code = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
    try:
        done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise UsageError(f"--{key} {python} does not start: {error}") from error
    version = done.stdout.strip()
    wanted = manifest.environment.python if manifest is not None and manifest.environment else None
    if wanted and not version.startswith(wanted):
        typer.echo(f"note: Python {version}; the manifest declares {wanted}", err=True)


def _check_weights(folder: Path, manifest: Manifest) -> None:
    """Files whose hash is known and that are there must be the right ones."""
    from av_bench.contracts import UsageError
    from av_bench.runtime.files import file_digest

    for weight in manifest.weights:
        path = folder / weight.what
        if weight.sha256 is not None and path.is_file() and file_digest(path) != weight.sha256:
            raise UsageError(f"{path} is not the declared file: its sha256 differs from {weight.sha256}")
