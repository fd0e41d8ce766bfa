"""The link checker finds what is broken, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import check_links


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("see [a](other.md) and [b](other.md#two-words) and [c](#here)", ""),
        ("see [a](https://example.org/nowhere) or `code [x](y.md)`", ""),
        ("see [a](absent.md)", "1: absent.md: no such file"),
        ("see [a](other.md#three)", "1: other.md#three: no heading makes this anchor"),
        ("# Here\n```\n[a](absent.md)\n```\n[b](#there)", "5: #there: no heading makes this anchor"),
        ("in `av_bench/networks/weights/*.json`", ""),
        ("in `model_zoo/networks/weights/*.json`", "1: `model_zoo/networks/weights/*.json`: no such file or folder"),
        ("`av_bench.run` and `av_bench.metrics.columns.Frechet` and the group `av_bench.models`", ""),
        ("call `av_bench.pipeline.score.nothing`", "1: av_bench.pipeline.score.nothing: nothing is called 'nothing'"),
        ("```bash\npython -m model_zoo.mmaudio.train x\n```", "2: model_zoo.mmaudio.train: nothing is called 'train'"),
    ],
)
def test_what_is_broken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, problem: str) -> None:
    (tmp_path / "other.md").write_text("# One\n## Two words\n")
    page = tmp_path / "page.md"
    page.write_text(text if text.startswith("#") else f"{text}\n\n# Here\n")
    monkeypatch.setattr(Path, "relative_to", lambda path, _: path.name)
    found = check_links.problems(page)
    assert [line.startswith(f"page.md:{problem}") for line in found] == ([True] if problem else [])
