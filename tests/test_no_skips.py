"""``--no-skips-of`` on small suites of its own: what is skipped, and whether the run fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

CONFTEST = """
from tests import no_skips
pytest_addoption, pytest_configure = no_skips.add_option, no_skips.register
"""
HEAD = "import pytest\n"
MARKED = "@pytest.mark.golden\n"
SUITES = {
    "runs": (HEAD + MARKED + "def test_a(): pass\ndef test_b(): pytest.skip('b is away')\n", 0, ""),
    "skips": (HEAD + MARKED + "def test_a(): pytest.skip('a is away')\n", 1, "must not be skipped.*a is away"),
    "skipif": (
        HEAD + MARKED + "@pytest.mark.skipif(True, reason='no package')\ndef test_a(): pass\n",
        1,
        "must not be skipped.*no package",
    ),
    "fixture": (
        HEAD + "@pytest.fixture\ndef f(): pytest.skip('no file')\n" + MARKED + "def test_a(f): pass\n",
        1,
        "must not be skipped.*no file",
    ),
    "module": (
        HEAD + "pytest.importorskip('a_package_nobody_has')\npytestmark = pytest.mark.golden\ndef test_a(): pass\n",
        2,
        "must not be skipped.*a_package_nobody_has",
    ),
    "xfail": (
        HEAD + MARKED + "@pytest.mark.xfail\ndef test_a(): assert 0\n" + MARKED + "def test_b(): pass\n",
        0,
        "1 xfailed",
    ),
    "nothing marked": (HEAD + "def test_a(): pass\n", 1, "no test marked golden ran"),
}


@pytest.mark.parametrize(
    ("suite", "workers"), [*((suite, 0) for suite in SUITES), ("runs", 2), ("skips", 2), ("nothing marked", 2)]
)
def test_a_marked_skip_fails(suite: str, workers: int, tmp_path: Path) -> None:
    code, status, said = SUITES[suite]
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_suite.py").write_text(code)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = golden: x\n")
    command = [sys.executable, "-m", "pytest", "-q", "-rx", "--no-skips-of", "golden", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, "-n", str(workers)], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.returncode == status, run.stdout
    assert re.search(said, run.stdout), run.stdout
