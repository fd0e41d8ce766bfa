"""What the product takes from numpy is there in the oldest version it accepts, which the paper environment has."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PRODUCT = ("av_bench", "model_zoo", "protocols", "reports")


def names_from_numpy(tree: ast.AST) -> set[str]:
    """The attributes of ``np`` in a file."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "np"
    }


@pytest.mark.paper
def test_the_oldest_numpy_has_every_name() -> None:
    used = {
        (name, str(file.relative_to(ROOT)))
        for folder in PRODUCT
        for file in sorted((ROOT / folder).rglob("*.py"))
        for name in names_from_numpy(ast.parse(file.read_text(encoding="utf8")))
    }
    assert len(used) > 500
    assert sorted((name, file) for name, file in used if not hasattr(np, name)) == []
