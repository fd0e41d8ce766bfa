"""Tables in notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from reports.model import Table
from reports.render import from_template, render


class TableText(str):
    """A table as text that shows itself as HTML where a notebook asks for it."""

    html: str

    __slots__ = ("html",)

    @classmethod
    def of(cls, tables: Sequence[Table], form: str) -> Self:
        """Tables in one of the text formats."""
        made = cls(render(tables, form))
        made.html = from_template("tables.html.j2", tables, intervals=True)
        return made

    def _repr_html_(self) -> str:
        return self.html
