"""`av-bench store`: the feature store, its size and its cleaning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def store_app() -> typer.Typer:
    store = typer.Typer(no_args_is_help=True)

    @store.command()
    def size() -> None:
        """Bytes per extractor."""
        from av_bench.features.store import Store
        from av_bench.runtime.files import home

        sizes = Store(home() / "store").size()
        for name, count in sizes.items():
            typer.echo(f"{count / 1e6:12.1f} MB  {name}")
        typer.echo(f"{sum(sizes.values()) / 1e6:12.1f} MB  in {home() / 'store'}")

    @store.command()
    def clean(
        extractor: Annotated[str | None, typer.Argument(help="Only this fingerprint.")] = None,
        keep: Annotated[
            list[Path] | None, typer.Option(help="Keep what this run was scored from; may be repeated.")
        ] = None,
        yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    ) -> None:
        """Remove features; they are computed again when needed."""
        from av_bench.contracts import UsageError
        from av_bench.features.store import Store
        from av_bench.pipeline.keep_features import keep_only
        from av_bench.runtime.files import home

        if keep and extractor:
            raise UsageError("store clean: give the fingerprint to remove, or the runs to --keep, not both")
        store = Store(home() / "store")
        if not yes:
            what = f"all features but those of {len(keep)} runs" if keep else extractor or "all features"
            typer.confirm(f"Remove {what} from {store.root}?", abort=True)
        typer.echo(f"{(keep_only(store, keep) if keep else store.clean(extractor)) / 1e6:.1f} MB freed")

    return store
