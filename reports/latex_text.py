"""Text for LaTeX: escaping, and how wide it will be set."""

from __future__ import annotations

import math
from functools import lru_cache

SIZES = {"small": 9.0, "footnotesize": 8.0, "scriptsize": 7.0}  # pt, in a document of 10 pt
_GROWTH = {9.0: 1.028, 8.0: 1.0625, 7.0: 1.139, 5.0: 1.36}  # Computer Modern is cut wider where it is smaller

_ESCAPED = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "×": r"$\times$",
    "−": r"$-$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "◇": r"$\diamond$",
    "•": r"$\bullet$",
    "—": "---",
    "–": "--",
    "…": r"\dots{}",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "\n": " ",
    "\t": " ",
}


def escape(text: str) -> str:
    """Plain text for LaTeX. A character that pdfLaTeX cannot set without more packages stands as its code point."""
    return "".join(_character(c) for c in text)


def _character(c: str) -> str:
    if c in _ESCAPED:
        return _ESCAPED[c]
    if " " <= c <= "~" or ("\u00a1" <= c <= "\u017f" and c != "\u00ad"):
        return c
    return f"[U+{ord(c):04X}]"


def breakable(text: str, every: int = 12) -> str:
    """Escaped text that may be broken behind punctuation, and anywhere after ``every`` characters without a blank."""
    parts, run = [], 0
    for c in text:
        run = 0 if c == " " else run + 1
        parts.append(_character(c))
        if c in "-_:/=.,+&" or run == every:
            parts.append(r"\allowbreak{}")
            run = 0
    return "".join(parts)


def comment(text: str) -> str:
    """One comment line."""
    return "% " + " ".join(text.split())


@lru_cache(maxsize=1)
def _font() -> object:
    from matplotlib import get_data_path
    from matplotlib.ft2font import FT2Font

    font = FT2Font(f"{get_data_path()}/fonts/ttf/cmr10.ttf")
    font.set_size(100, 72)
    return font


@lru_cache(maxsize=4096)
def _units(text: str) -> float:
    """Width in em of text in Computer Modern, the widest of the fonts that papers are set in."""
    from matplotlib.ft2font import FT2Font

    font = _font()
    assert isinstance(font, FT2Font)
    plain = "".join(c if " " <= c <= "~" else "M" for c in text)
    font.set_text(plain, 0.0)
    return font.get_width_height()[0] / 64 / 100 if plain else 0.0


def width(text: str, size: float, *, bold: bool = False) -> float:
    """Width in pt of plain text at a size in pt, a little on the safe side."""
    growth = _GROWTH.get(size, 1.0) * (1.16 if bold else 1.0)
    shown = "".join(f"[U+{ord(c):04X}]" if _character(c).startswith("[U+") else c for c in text)
    return math.ceil(10 * (_units(shown) * size * growth + 0.04 * size)) / 10
