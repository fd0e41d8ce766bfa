"""``--no-skips-of`` on small suites of its own: what is skipped, and whether the run fails."""

from __future__ import annotations

import re

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
    ("suite", "workers"), [*((suite, 0) for suite in SUITES), ("runs", 1), ("skips", 1), ("nothing marked", 1)]
)
def test_a_marked_skip_fails(
    suite: str, workers: int, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, status, said = SUITES[suite]
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_suite=code)
    pytester.makeini("[pytest]\nmarkers = golden: x\n")
    options = (
        "-q",
        "-rx",
        "--no-skips-of",
        "golden",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
        "-n",
        str(workers),
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run = (pytester.runpytest_subprocess if workers else pytester.runpytest_inprocess)(*options)
    assert run.ret == status, run.stdout
    assert re.search(said, str(run.stdout)), run.stdout
