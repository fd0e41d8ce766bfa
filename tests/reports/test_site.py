"""The report folder: opened in a real browser, sorted, switched, and unmoved by hostile names."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

import av_bench
from av_bench.contracts import Clip, UsageError
from av_bench.pipeline.clip_media import clip_media
from av_bench.results.record import RunFolder, read_run
from av_bench.runtime.progress import Reporter
from reports.build import tables
from reports.site.choose import choose
from reports.site.pages import Options, write_report
from tests.reports.browser import CHROMIUM, Page, browse
from tests.runs import make_run

HOSTILE = {
    "clip000": ('"><script>window.HACKED=1</script>', "<img src=x onerror='window.HACKED=2'>"),
    "clip001": ("'; window.HACKED=3; '", "</script><script>window.HACKED=4</script>"),
    "clip002": ("שלום \u202e مرحبا", "{{ 7 * 7 }} {% raw %}"),
}


class Tones:
    """Media of a run that was made by hand: a tone for each clip and sound."""

    seconds = 1.0

    def __init__(self, texts: dict[str, tuple[str, str]]) -> None:
        self.texts = texts

    def clip(self, clip_id: str) -> Clip:
        if clip_id not in self.texts:
            raise KeyError(clip_id)
        text, label = self.texts[clip_id]
        return Clip(clip_id, text=text, label=label, onsets=(0.25, 0.5))

    def waveform(self, name: str, clip_id: str, rate: int) -> NDArray[np.float32] | None:
        pitch = 200 + 40 * (hash((name, clip_id)) % 20)
        return np.sin(2 * np.pi * pitch * np.arange(rate) / rate).astype(np.float32) * 0.5

    def link(self, name: str, clip_id: str) -> Path | None:
        raise AssertionError(f"media are copied, not linked: {name}, {clip_id}")

    def write(self, name: str, clip_id: str, target: Path) -> Path | None:
        target.parent.mkdir(parents=True, exist_ok=True)
        path = target.with_name(target.name + ".flac")
        wave = self.waveform(name, clip_id, 16_000)
        assert wave is not None
        soundfile.write(path, wave, 16_000)
        return path


def _detect(wave: NDArray[np.float32], rate: int) -> list[float]:
    return [0.3] if len(wave) == rate else []


def report(runs: list[Path], media: object, out: Path, **options: object) -> Path:
    found = [read_run(path) for path in runs]
    chosen = Options(**options)  # type: ignore[arg-type]
    made = tables(runs, allow_different_n=True)
    write_report(made, found, media, out, chosen, _detect, Reporter(quiet=True))  # type: ignore[arg-type]
    return out


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report over the real sound and noise on four rendered clips, as the command makes it."""
    folder = tmp_path_factory.mktemp("site")
    runs = [
        av_bench.run(set="impacts", model=m, limit=4, out=folder / m, quiet=True, metrics=["DeSync-nano", "F1"]).path
        for m in ("oracle", "noise")
    ]
    return report(runs, clip_media([read_run(p) for p in runs]), folder / "report", clips=4)


browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: chromium)")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browse() as opened:
        yield opened


def ask(page: Page, path: Path, script: str) -> object:
    """What a script returns on a page that made no error and asked for nothing outside its folder."""
    page.errors.clear()
    page.requests.clear()
    page.open(path)
    told = page.run(script)
    assert page.errors == []
    assert [r for r in page.requests if not r.startswith((path.parent.as_uri(), "data:"))] == []
    assert any(r.startswith(path.as_uri()) for r in page.requests)
    return told


@browser
def test_players_play_and_another_sound_keeps_the_position(real: Path, page: Page) -> None:
    script = """
      const media = document.querySelector("article.clip video");
      const ready = (v) => new Promise((go) => v.readyState ? go() : v.addEventListener("loadedmetadata", go));
      const lengths = [];
      for (const v of document.querySelectorAll("video")) { await ready(v); lengths.push(v.duration); }
      media.currentTime = 3;
      document.querySelector('article.clip button[data-key="m1"]').click();
      await new Promise((go) => media.addEventListener("seeked", go, {once: true}));
      return {lengths, src: media.getAttribute("src"), at: media.currentTime,
              pressed: document.querySelector('article.clip button[aria-pressed="true"]').dataset.key};
    """
    told: Any = ask(page, real / "clips.html", script)
    assert len(told["lengths"]) == 4
    assert all(abs(length - 8) < 0.2 for length in told["lengths"])
    assert told["src"].endswith("-m1.mp4")
    assert told["at"] == pytest.approx(3, abs=0.05)
    assert told["pressed"] == "m1"


@browser
def test_keys_move_filters_filter_and_sorting_sorts(real: Path, page: Page) -> None:
    script = """
      const press = (key) => {
        document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
        return document.querySelector(".clip.current")?.id;
      };
      const moved = [press("j"), press("j"), press("k")];
      const set = (id, value) => {
        const element = document.getElementById(id);
        element.value = value;
        element.dispatchEvent(new Event("input", {bubbles: true}));
      };
      const value = (clip) => Number(/m1\\|DeSync-nano\\|([-.0-9e]+)/.exec(clip.dataset.values)[1]);
      const values = () => [...document.querySelectorAll("article.clip")].map(value);
      set("metric", "DeSync-nano"); set("model", "m1");
      const worst = values();
      set("order", "best");
      const best = values();
      set("find", "no such text");
      return {moved, worst, best, count: document.getElementById("count").textContent};
    """
    told: Any = ask(page, real / "clips.html", script)
    assert told["moved"] == ["c0000", "c0001", "c0000"]
    assert told["worst"] == sorted(told["worst"], reverse=True)
    assert told["best"] == sorted(told["best"])
    assert told["count"] == "0 of 4 clips"


@browser
def test_the_overview_sorts_by_any_column(real: Path, page: Page) -> None:
    script = """
      const table = document.querySelector("table.sortable");
      const names = () => [...table.tBodies[0].rows].map((r) => r.cells[0].textContent);
      const head = [...table.tHead.rows[0].cells].find((c) => c.textContent.startsWith("DeSync"));
      head.click(); const up = names(); head.click(); const down = names();
      return {up, down};
    """
    told: Any = ask(page, real / "index.html", script)
    assert told == {"up": ["oracle", "noise"], "down": ["noise", "oracle"]}


@browser
@pytest.mark.parametrize("name", ["compare", "distributions"])
def test_charts_are_drawn_and_ask_nobody(real: Path, page: Page, name: str) -> None:
    pytest.importorskip("plotly", reason="plotly is not installed (extra av-bench[report])")
    script = "return {points: document.querySelectorAll('.chart path.point, .chart .trace').length};"
    told: Any = ask(page, real / f"{name}.html", script)
    assert told["points"] > 2


@browser
def test_hostile_names_and_captions_are_text(tmp_path: Path, page: Page) -> None:
    evil = "<script>window.HACKED=5</script>"
    runs = [
        make_run(tmp_path / "a", evil, n=3),
        make_run(tmp_path / "b", "b\"' onload='window.HACKED=6'", shift=0.1, n=3),
    ]
    for run in runs:
        handle = RunFolder(run)
        handle.log(f"clip<b onmouseover=window.HACKED=7>{evil}", "generate", reason=None)
        line = {"clip": evil, "stage": "media", "status": "excluded", "reason": "unreadable", "detail": evil}
        with (run / "ledger.jsonl").open("a") as sink:
            sink.write(json.dumps(line) + "\n")
    folder = report(runs, Tones(HOSTILE), tmp_path / "report", clips=3)
    script = "return {hacked: window.HACKED ?? null, text: document.body.innerText};"
    for name in ("index", "clips", "compare", "distributions", "failures"):
        told: Any = ask(page, folder / f"{name}.html", script)
        assert told["hacked"] is None, name
        assert evil in told["text"] or name == "distributions", name
    text = (folder / "clips.html").read_text(encoding="utf8")
    assert "{{ 7 * 7 }}" in text
    assert "<script>window.HACKED" not in text


def test_a_report_without_its_charts_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    folder = report([make_run(tmp_path / "a", n=3), make_run(tmp_path / "b", "b", n=3)], Tones(HOSTILE), tmp_path / "r")
    text = (folder / "compare.html").read_text(encoding="utf8")
    assert "pip install &#34;av-bench[report]&#34;" in text or 'pip install "av-bench[report]"' in text
    assert "plotly.min.js" not in text
    assert not (folder / "plotly.min.js").exists()


def test_no_page_names_an_address(real: Path) -> None:
    for path in [*real.glob("*.html"), real / "report.js", real / "charts.js", real / "report.css"]:
        assert not re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]+", path.read_text(encoding="utf8")), path.name


def test_only_a_report_is_replaced(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", n=3)
    folder = report([run], Tones(HOSTILE), tmp_path / "r", clips=1)
    report([run], Tones(HOSTILE), tmp_path / "r", clips=2)
    assert json.loads((folder / "report.json").read_text())["clips"] == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="exists and is not a report"):
        report([run], Tones(HOSTILE), tmp_path / "mine")
    assert (tmp_path / "mine/thesis.tex").read_text() == "x"
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".partial")]


def test_clips_are_chosen_by_the_rule() -> None:
    scores = {f"c{i}": float(i) for i in range(9)}
    assert [c.clip for c in choose(scores, 2, "worst", 0)] == ["c0", "c1"]
    assert [c.clip for c in choose(scores, 2, "best", 0)] == ["c8", "c7"]
    assert [c.clip for c in choose(scores, 3, "median", 0)] == ["c4", "c3", "c5"]
    mixed = choose(scores, 8, "mixed", 0, named=["c4"])
    assert mixed[0].why == "named"
    assert len({c.clip for c in mixed}) == 8
    assert {c.why for c in mixed[1:]} == {"worst", "best", "median", "random"}
    assert choose(scores, 4, "random", 1) == choose(scores, 4, "random", 1)
    with pytest.raises(UsageError, match="Did you mean 'c1'"):
        choose(scores, 1, "worst", 0, named=["c11"])
