"""The options that say where work is done; the same words in every command."""

from __future__ import annotations

from typing import Annotated

import typer

DevicesOption = Annotated[
    str | None, typer.Option("--devices", help="Several, each with a process: cuda:0,cuda:1, cuda (all), cpu:4.")
]
EngineOption = Annotated[str | None, typer.Option("--engine", help="ray: actors of a Ray cluster do the work.")]
AddressOption = Annotated[
    str | None, typer.Option("--address", help="Ray cluster \\[default: a running one, else a local one].")
]
