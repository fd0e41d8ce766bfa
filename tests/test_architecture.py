"""Imports point one way, and the door stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

GROUND = {"contracts", "media", "resample", "store", "registry", "record", "devices", "engines", "progress", "weights"}

# room -> what of ours it may import ("av_bench.X" is written as "X")
ALLOWED: dict[str, set[str]] = {
    "av_bench/metrics": {"contracts", "metrics"},
    "av_bench/extractors": GROUND | {"extractors", "metrics", "model_zoo"},
    "model_zoo": GROUND | {"metrics", "model_zoo", "protocols"},
    "protocols": GROUND | {"protocols"},
    "av_bench/audit": GROUND | {"audit", "protocols"},
}


def imports(path: Path) -> set[str]:
    """Modules of ours that a file imports, anywhere in it; ``av_bench.x.y`` counts as ``x``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module] if node.module != "av_bench" else [f"av_bench.{a.name}" for a in node.names]
        for name in names:
            top, _, rest = name.partition(".")
            if top == "av_bench":
                found.add(rest.split(".")[0] if rest else "av_bench")
            elif top in ("model_zoo", "protocols", "reports"):
                found.add(top)
    return found


def files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_rooms_import_downwards(room: str) -> None:
    wrong = {
        f"{p.relative_to(ROOT)}: {sorted(imports(p) - ALLOWED[room])}"
        for p in files(room)
        if imports(p) - ALLOWED[room]
    }
    assert not wrong


def test_ground_floor_imports_nothing_from_above() -> None:
    paths = [p for p in (ROOT / "av_bench").glob("*.py") if p.stem in GROUND] + files("av_bench/engines")
    paths += files("av_bench/weights")
    wrong = {f"{p.name}: {sorted(imports(p) - GROUND)}" for p in paths if imports(p) - GROUND}
    assert not wrong


def test_reports_and_gating_read_records_only() -> None:
    allowed = {
        "record",
        "contracts",
        "comparison",
        "gating",
        "registry",
        "store",
        "selfcheck",
        "doctor",
        "reports",
        "protocols",
    }
    for path in [*files("reports"), ROOT / "av_bench/results/gate.py", ROOT / "av_bench/results/compare.py"]:
        assert imports(path) <= allowed | {"metrics"}, path  # metrics: the paired intervals


def test_import_stays_light() -> None:
    code = (
        "import sys, av_bench, av_bench.cli.app;"
        "print([m for m in ('torch', 'librosa', 'pandas', 'scipy', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"
