"""Values of model specs such as ``mmaudio-l:steps=10,negative=007``."""

from __future__ import annotations


class Number(float):
    """A number of a spec that knows how it was written: ``negative=007`` is a text."""

    text: str


def written(value: object) -> str:
    """A value as the user wrote it."""
    if isinstance(value, Number):
        return value.text
    return f"{value:g}" if isinstance(value, float) else str(value)
