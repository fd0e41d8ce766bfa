"""The user study: chosen by rule, rated in a real browser, scored against known effects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import av_bench
from av_bench.contracts import Clip, UsageError
from av_bench.pipeline.clip_media import clip_media
from av_bench.results.record import RunFolder, read_run
from reports.study.agree import agreements
from reports.study.answers import Answers, read_answers
from reports.study.design import Rules, design, read_words
from reports.study.loudness import level_dbfs, loudness
from reports.study.page import write_study
from reports.study.score import gaps, interval, krippendorff_alpha, ratings, summary, two_way_means
from tests.reports.browser import CHROMIUM, Page, browse
from tests.reports.paper_runs import scored_run

QUESTIONS = ("audio quality", "semantic alignment", "temporal alignment")
METHODS = ("worse", "middle", "better")
EFFECTS = np.array([2.4, 3.0, 3.9])


def simulated(
    rng: np.random.Generator, people: int = 23, clips: int = 8, noise: float = 0.5, rounded: bool = True
) -> Answers:
    """Ratings with known effects of methods, and effects of participants and clips by chance."""
    given = {}
    for q in QUESTIONS:
        values = EFFECTS + rng.normal(0, 0.3, (people, 1, 1)) + rng.normal(0, 0.4, (1, clips, 3))
        values = values + rng.normal(0, noise, (people, clips, 3))
        given[q] = np.clip(np.round(values), 1, 5) if rounded else values
    names = tuple(f"p{i}" for i in range(people)), tuple(f"c{i}" for i in range(clips))
    return Answers("s", QUESTIONS, 5, *names, METHODS, given, {}, None)


def test_known_effects_are_recovered() -> None:
    answers = simulated(np.random.default_rng(1))
    found = ratings(answers)
    inside = 0
    for method, effect in zip(METHODS, EFFECTS, strict=True):
        for question in QUESTIONS:
            rating = found[method][question]
            assert rating.low is not None
            assert rating.high is not None
            inside += rating.low < effect < rating.high
            assert rating.mean == pytest.approx(effect, abs=0.5)
            assert rating.n == 23 * 8
            values = answers.ratings[question][:, :, METHODS.index(method)]
            assert rating.mean == pytest.approx(values.mean())
            assert rating.std == pytest.approx(values.std(ddof=1))
    assert inside >= 8  # of nine intervals at 95 %
    by_pair = {(g.first, g.second): g for g in gaps(answers) if g.question == QUESTIONS[0]}
    gap = by_pair["worse", "better"]
    assert gap.low is not None
    assert gap.high is not None
    assert gap.low < EFFECTS[0] - EFFECTS[2] < gap.high < 0


def test_intervals_hold_what_they_promise() -> None:
    """In studies drawn anew, people and clips, the interval holds the true mean about as often as it says."""
    rng = np.random.default_rng(2)
    hits, studies = 0, 120
    for _ in range(studies):
        given = simulated(rng, rounded=False).ratings[QUESTIONS[0]]
        low, high = interval(two_way_means(given, replicates=300), given.mean(axis=(0, 1)), 8)
        hits += int(((low < EFFECTS) & (high > EFFECTS)).sum())
    assert 0.92 <= hits / (3 * studies) <= 0.99
    only_people = simulated(rng, people=400, rounded=False).ratings[QUESTIONS[0]]
    low, high = interval(two_way_means(only_people, replicates=300), only_people.mean(axis=(0, 1)), 8)
    assert (high - low > 0.25).all()  # 400 people do not make 8 clips more


def test_agreement_of_raters_is_krippendorffs() -> None:
    same = np.array([[1.0, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, np.nan]])
    assert krippendorff_alpha(same) == pytest.approx(1.0)
    # the example of Krippendorff (2011), section C: interval data of four observers and twelve units, alpha = 0.849
    published = """1 2 3 3 2 1 4 1 2 . . .
                   1 2 3 3 2 2 4 1 2 5 . 3
                   . 3 3 3 2 3 4 2 2 5 1 .
                   1 2 3 3 2 4 4 1 2 5 1 ."""
    table = np.array([[np.nan if v == "." else float(v) for v in line.split()] for line in published.splitlines()])
    assert krippendorff_alpha(table) == pytest.approx(0.849, abs=5e-4)
    assert krippendorff_alpha(np.full((3, 4), 2.0)) is None


def test_loudness_is_that_of_the_standard() -> None:
    """EBU Tech 3341: a 1 kHz sine in both channels at -23 dBFS has -23 LUFS, so one channel of it has 3 LU less."""
    t = np.arange(48_000 * 5) / 48_000
    wave = (10 ** (-23 / 20) * np.sin(2 * np.pi * 1000 * t)).astype(np.float32)
    assert loudness(wave, 48_000) == pytest.approx(-23.0 - 3.01, abs=0.1)
    assert loudness(np.zeros(48_000, np.float32), 48_000) is None
    assert level_dbfs(wave) == pytest.approx(-26.0, abs=0.1)


class Sounds:
    """Media by hand: clip c2 is small, c3 is quiet for one method, c4 speaks."""

    def clip(self, clip_id: str) -> Clip:
        return Clip(clip_id, text="A man, speaking" if clip_id == "c4" else "rain")

    def height(self, clip_id: str) -> int | None:
        return 240 if clip_id == "c2" else 720

    def waveform(self, name: str, clip_id: str, rate: int) -> NDArray[np.float32] | None:
        loud = 0.0005 if (name, clip_id) == ("B", "c3") else 0.1
        return (loud * np.sin(2 * np.pi * 500 * np.arange(rate) / rate)).astype(np.float32)


def test_clips_are_left_out_by_rule_and_counted() -> None:
    every = [f"c{i}" for i in range(6)]
    made = design(every, {"A": "A", "B": "B"}, Sounds(), Rules(clips=3, match=-23.0))
    assert {s.clip for group in made.samples for s in group} == {"c0", "c1", "c5"}
    assert all(s.gain == pytest.approx(-23.0 - (s.loudness or 0), abs=0.02) for group in made.samples for s in group)
    with pytest.raises(UsageError) as error:
        design(every, {"A": "A", "B": "B"}, Sounds(), Rules(clips=4))
    for reason in ("below 360 pixels", "with a sample below -50 dBFS", "with a word of speech"):
        assert reason in str(error.value)


def key_file(folder: Path) -> Path:
    samples = [{"token": f"{c}{m}", "clip": c, "method": m} for c in ("a", "b") for m in METHODS]
    content = {"kind": "study-key", "study": "s", "rules": {"match": None}, "questions": list(QUESTIONS), "steps": 5}
    path = folder / "key.json"
    path.write_text(json.dumps(content | {"samples": samples}))
    return path


def answers_file(folder: Path, person: str, rate: Any, *, finished: str | None = "2026-01-01", check: int = 2) -> Path:
    tokens = [f"{c}{m}" for c in ("a", "b") for m in METHODS]
    given = [{"sample": t, "ratings": dict.fromkeys(QUESTIONS, rate(t))} for t in tokens]
    checks = [{"sample": "aworse", "asked": 2, "ratings": dict.fromkeys(QUESTIONS, check)}]
    data = {"kind": "study-answers", "study": "s", "participant": person, "finished": finished}
    path = folder / f"{person}.json"
    path.write_text(json.dumps(data | {"answers": given, "checks": checks}))
    return path


def by_method(token: str) -> int:
    return {"e": 2, "w": 1}.get(token[-1], 4) if "middle" not in token else 3


def test_who_does_not_count_is_named_with_the_reason(tmp_path: Path) -> None:
    key = key_file(tmp_path)
    files = [
        answers_file(tmp_path, "good", by_method),
        answers_file(tmp_path, "asleep", by_method, check=5),
        answers_file(tmp_path, "away", by_method, finished=None),
        answers_file(tmp_path, "bored", lambda _: 3),
        answers_file(tmp_path, "author", by_method),
    ]
    found = read_answers(files, key, exclude=["author=took part in the work"])
    assert found.participants == ("good",)
    assert found.excluded == {
        "author": "took part in the work",
        "asleep": "1 of 1 attention checks wrong",
        "away": "not finished",
        "bored": "the same answer (3) everywhere",
    }
    assert read_answers(files[:2], key, wrong_checks=1).participants == ("asleep", "good")
    with pytest.raises(UsageError, match="none of 1 participants counts: away: not finished"):
        read_answers(files[2:3], key)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(study="other"), "holds no answers of the study"),
        (lambda d: d["answers"][0].update(sample="strange"), "is not in the key"),
        (lambda d: d["answers"][0]["ratings"].update({QUESTIONS[0]: 6}), "not a whole number from 1 to 5"),
        (lambda d: d["answers"][0]["ratings"].update({QUESTIONS[0]: True}), "not a whole number from 1 to 5"),
        (lambda d: d.pop("checks"), "checks"),
    ],
)
def test_changed_answers_are_refused(tmp_path: Path, change: Any, said: str) -> None:
    path = answers_file(tmp_path, "p", by_method)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(UsageError, match=said):
        read_answers([path], key_file(tmp_path))


def test_a_metric_that_follows_the_raters_agrees_and_one_that_does_not_does_not(tmp_path: Path) -> None:
    answers = simulated(np.random.default_rng(3), clips=40, noise=0.2)
    rng = np.random.default_rng(4)
    runs = []
    for m, method in enumerate(METHODS):
        rated = answers.ratings[QUESTIONS[2]][:, :, m].mean(axis=0)
        values = {"DeSync-good": -rated, "KL-noise": rng.normal(size=len(rated))}
        totals = {name: float(column.mean()) for name, column in values.items()}
        folder = scored_run(tmp_path / method, method, "toy", totals, n=len(rated))
        rows = [
            {"id": clip, "group": clip, "metric": name, "value": float(value)}
            for name, column in values.items()
            for clip, value in zip(answers.clips, column, strict=True)
        ]
        RunFolder(folder).write_clips(rows)
        runs.append(read_run(folder))
    found = {(a.metric, a.question): a for a in agreements(answers, runs)}
    good, noise = found["DeSync-good", QUESTIONS[2]], found["KL-noise", QUESTIONS[2]]
    assert good.models == pytest.approx(1.0)
    assert good.samples == pytest.approx(1.0)
    assert good.accuracy == 1.0
    assert noise.accuracy_interval is not None
    assert noise.accuracy_interval[0] < 0.5 < noise.accuracy_interval[1]
    with pytest.raises(UsageError, match="no run is named 'worse'"):
        agreements(answers, runs[1:])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study over real sound and noise on two rendered clips, as the command makes it."""
    folder = tmp_path_factory.mktemp("study")
    runs = [
        read_run(av_bench.run(set="impacts", model=m, limit=4, out=folder / m, quiet=True, metrics=["F1"]).path)
        for m in ("oracle", "noise")
    ]
    media = clip_media(runs)
    rules = Rules(clips=2, min_height=0, checks=1, match=-26.0)
    methods = {run.name: str(run.path) for run in runs}
    chosen = design(sorted(media.clips), methods, media, rules)
    out = folder / "study"
    write_study(chosen, read_words(), rules, out, lambda s, at: media.write(methods[s.method], s.clip, at, s.gain))
    return out


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browse() as opened:
        yield opened


RATE_ALL = """
  const wait = (ms) => new Promise((go) => setTimeout(go, ms));
  document.getElementById("agree").click();
  document.getElementById("begin").click();
  const seen = [];
  while (document.querySelector("form")) {
    const video = document.querySelector("video");
    const next = document.querySelector("form button");
    const asked = document.querySelector(".check");
    const steps = STUDY.words.scale;
    const value = asked ? 1 + steps.findIndex((s) => asked.textContent.includes(`“${s}”`)) : 4;
    const before = next.disabled;
    document.querySelectorAll(`input[value="${value}"]`).forEach((i) => i.click());
    const unheard = next.disabled;
    video.muted = true;
    await new Promise((go) => video.readyState ? go() : video.addEventListener("loadedmetadata", go));
    video.currentTime = video.duration - 0.1;
    const ended = new Promise((go) => video.addEventListener("ended", go));
    await video.play();
    await ended;
    await wait(20);
    seen.push({before, unheard, after: next.disabled, file: video.getAttribute("src")});
    next.click();
    await wait(20);
  }
  const answers = JSON.parse(localStorage.getItem(`study-${STUDY.study}`));
  return {seen, answers, source: document.documentElement.outerHTML};
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: chromium)")
def test_a_participant_rates_everything_and_the_answers_are_scored(made: Path, page: Page, tmp_path: Path) -> None:
    page.open(made / "page" / "index.html")
    told = page.run(RATE_ALL)
    assert page.errors == []
    assert [r for r in page.requests if not r.startswith(((made / "page").as_uri(), "data:", "blob:"))] == []
    assert len(told["seen"]) == 5  # two clips of two methods, one check
    assert all(s["before"] and s["unheard"] and not s["after"] for s in told["seen"])
    key = json.loads((made / "key.json").read_text())
    files = [s["file"].partition("/")[2].partition(".")[0] for s in told["seen"]]
    clip_of = {s["token"]: s["clip"] for s in key["samples"]}
    rated = [a["sample"] for a in told["answers"]["answers"]]
    assert sorted(rated) == sorted(clip_of)
    assert clip_of[rated[0]] == clip_of[rated[1]]  # samples of one video follow each other
    assert set(files) == set(clip_of)
    for secret in ("oracle", "noise"):
        assert secret not in told["source"]  # nothing in the page tells whose sample it is
    answers = told["answers"]
    answers["answers"][0]["ratings"] = dict.fromkeys(QUESTIONS, 2)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(answers))
    data = summary(read_answers([path], made / "key.json"))
    assert data["excluded"] == {}
    assert data["responses"] == 4
    assert data["matched"] == -26.0


def test_a_study_is_never_written_over(made: Path) -> None:
    key = json.loads((made / "key.json").read_text())
    with pytest.raises(UsageError, match="never written over"):
        write_study(design([], {}, Sounds(), Rules(clips=0)), read_words(), Rules(), made, lambda s, at: at)  # noqa: ARG005
    assert json.loads((made / "key.json").read_text()) == key
