"""Sub-commands that live beside what they call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def mount(app: typer.Typer) -> None:
    """Add `weights`, `audit`, `lists`, `store` and `train`."""
    from av_bench.audit.cli import app as audit_app
    from av_bench.audit.cli import lists_app
    from av_bench.stats_cli import app as stats_app
    from av_bench.weights_cli import app as weights_app

    app.add_typer(weights_app, name="weights", help="Pretrained files: list, pull, verify, add.")
    app.add_typer(audit_app, name="audit", help="Train/test overlaps: lists, Table A4, content.")
    app.add_typer(lists_app, name="lists", help="Public list files of the field: list, pull.")
    app.add_typer(stats_app, name="stats", help="The real side as a file: make, import, show.")
    app.add_typer(_store_app(), name="store", help="The feature store: size, clean.")
    app.command("train")(train)


def train(
    network: Annotated[str, typer.Argument(help="nano-tagger, nano-bind or nano-sync.")],
    out: Annotated[Path, typer.Option(help="Folder for weights and log.")] = Path("trained"),
    clips: Annotated[int, typer.Option(help="Scenes of impacts train.")] = 2400,
    corpus: Annotated[Path | None, typer.Option(help="Rendered corpus [default: in the cache folder].")] = None,
    epochs: Annotated[int | None, typer.Option(help="[default: the recipe's]")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    workers: Annotated[int, typer.Option(help="Rendering processes.")] = 2,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
) -> None:
    """Train an embedded network on the rendered set and measure it on held-out clips."""
    from av_bench.training import train_nano

    file = train_nano(
        network, out=out, clips=clips, corpus_folder=corpus, epochs=epochs, device=device, workers=workers, quiet=quiet
    )
    typer.echo(f"weights: {file}; log: {file.with_suffix('.json')}")


def _store_app() -> typer.Typer:
    store = typer.Typer(no_args_is_help=True)

    @store.command()
    def size() -> None:
        """Bytes per extractor."""
        from av_bench.store import Store, home

        sizes = Store(home() / "store").size()
        for name, count in sizes.items():
            typer.echo(f"{count / 1e6:12.1f} MB  {name}")
        typer.echo(f"{sum(sizes.values()) / 1e6:12.1f} MB  in {home() / 'store'}")

    @store.command()
    def clean(
        extractor: Annotated[str | None, typer.Argument(help="Only this fingerprint.")] = None,
        yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    ) -> None:
        """Remove features; they are computed again when needed."""
        from av_bench.store import Store, home

        if not yes:
            typer.confirm(f"Remove {extractor or 'all features'} from {home() / 'store'}?", abort=True)
        typer.echo(f"{Store(home() / 'store').clean(extractor) / 1e6:.1f} MB freed")

    return store
