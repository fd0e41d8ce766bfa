"""Answers of participants, read back with the key; who is left out, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av_bench.contracts import UsageError
from av_bench.schema import read_json
from reports.study.page import KIND


@dataclass(frozen=True)
class Answers:
    """Ratings that count: ``ratings[question]`` is ``(participants, clips, methods)``, NaN where none was given."""

    study: str
    questions: tuple[str, ...]
    steps: int
    participants: tuple[str, ...]
    clips: tuple[str, ...]
    methods: tuple[str, ...]
    ratings: dict[str, NDArray[np.float64]]
    excluded: dict[str, str]  # participant -> reason
    matched: float | None  # loudness of playback in LUFS, None: as it is

    @property
    def responses(self) -> int:
        """Samples that were rated."""
        return int(np.isfinite(self.ratings[self.questions[0]]).sum())


def read_answers(paths: Sequence[Path], key_file: Path, exclude: Sequence[str] = (), wrong_checks: int = 0) -> Answers:
    """All answer files of one study.

    Left out, with the reason: who has not finished, failed more than ``wrong_checks`` attention checks, gave one and
    the same answer everywhere, or is named in ``exclude`` (PARTICIPANT=REASON). Of two files of one participant the
    one that finished last counts. UsageError for files of another study, and when no participant is left.
    """
    key = read_json(key_file, dict)
    if key.get("kind") != KIND:
        raise UsageError(f"{key_file} is not a key of a study (key.json of `av-bench study make`)")
    questions, steps = tuple(key["questions"]), int(key["steps"])
    samples = {s["token"]: (s["clip"], s["method"]) for s in key["samples"]}
    clips = tuple(dict.fromkeys(s["clip"] for s in key["samples"]))
    methods = tuple(dict.fromkeys(s["method"] for s in key["samples"]))
    by_person = _people(paths, key)
    excluded = _named(exclude, by_person)
    for person, answers in by_person.items():
        reason = _reason_against(answers, questions, wrong_checks)
        if reason is not None:
            excluded.setdefault(person, reason)
    counted = tuple(sorted(p for p in by_person if p not in excluded))
    if not counted:
        raise UsageError(
            f"study score: none of {len(by_person)} participants counts: {_said(excluded) or 'no answers'}"
        )
    ratings = {q: np.full((len(counted), len(clips), len(methods)), np.nan) for q in questions}
    for i, person in enumerate(counted):
        for answer in by_person[person]["answers"]:
            clip, method = samples[answer["sample"]]
            at = (i, clips.index(clip), methods.index(method))
            for q in questions:
                ratings[q][at] = answer["ratings"][q]
    about = (str(key["study"]), questions, steps, counted, clips, methods, ratings, excluded)
    return Answers(*about, key["rules"].get("match"))


def _said(excluded: dict[str, str]) -> str:
    return "; ".join(f"{person}: {reason}" for person, reason in excluded.items())


def _people(paths: Sequence[Path], key: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Participant -> the answers that finished last."""
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        answers = read_json(path, dict)
        _check(answers, key, path)
        person = str(answers["participant"])
        if person not in found or (answers["finished"] or "") >= (found[person]["finished"] or ""):
            found[person] = answers
    return found


def _check(answers: dict[str, Any], key: dict[str, Any], path: Path) -> None:
    """Answers come from strangers' computers: everything used is checked."""
    if answers.get("kind") != "study-answers" or answers.get("study") != key["study"]:
        raise UsageError(f"{path} holds no answers of the study {key['study']}")
    tokens, steps = {s["token"] for s in key["samples"]}, int(key["steps"])
    try:
        if not isinstance(answers["participant"], str) or not isinstance(answers["finished"], str | None):
            raise TypeError("participant or finished is not text")
        for part in ("answers", "checks"):
            for answer in answers[part]:
                if answer["sample"] not in tokens:
                    raise KeyError(f"sample {answer['sample']!r} is not in the key")
                for q in key["questions"]:
                    rating = answer["ratings"][q]
                    if type(rating) is not int or not 1 <= rating <= steps:
                        raise ValueError(f"the rating of {q} is {rating!r}, not a whole number from 1 to {steps}")
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: {error}; the file was changed or is of another version") from error


def _named(exclude: Sequence[str], people: dict[str, dict[str, Any]]) -> dict[str, str]:
    found = {}
    for pair in exclude:
        person, _, reason = pair.partition("=")
        if not reason or person not in people:
            raise UsageError(f"--exclude {pair}: PARTICIPANT=REASON is expected, and a participant of the answers")
        found[person] = reason
    return found


def _reason_against(answers: dict[str, Any], questions: tuple[str, ...], wrong_checks: int) -> str | None:
    if not answers["finished"]:
        return "not finished"
    wrong = sum(any(c["ratings"][q] != c.get("asked") for q in questions) for c in answers["checks"])
    if wrong > wrong_checks:
        return f"{wrong} of {len(answers['checks'])} attention checks wrong"
    given = {a["ratings"][q] for a in answers["answers"] for q in questions}
    if len(given) == 1 and len(answers["answers"]) * len(questions) >= 6:
        return f"the same answer ({given.pop()}) everywhere"
    return None if answers["answers"] else "no answers"
