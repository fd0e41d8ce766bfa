"""`av-bench store`: the feature store, its size and its cleaning."""

from __future__ import annotations

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
        yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    ) -> None:
        """Remove features; they are computed again when needed."""
        from av_bench.features.store import Store
        from av_bench.runtime.files import home

        if not yes:
            typer.confirm(f"Remove {extractor or 'all features'} from {home() / 'store'}?", abort=True)
        typer.echo(f"{Store(home() / 'store').clean(extractor) / 1e6:.1f} MB freed")

    return store
