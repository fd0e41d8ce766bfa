"""From the text of a model spec to options: numbers, texts that look like numbers, commas."""

from __future__ import annotations

from typing import Any

import pytest

from av_bench.contracts import UsageError
from model_zoo.load import load, parse
from model_zoo.mmaudio.nano.model import MMAudioNano
from model_zoo.mmaudio.sampling.settings import read_settings
from model_zoo.options import MMAUDIO_NANO, NANO_DEFAULTS


def options(spec: str) -> dict[str, Any]:
    return dict(parse(spec)[1])


def test_numbers_are_numbers_and_texts_are_kept_as_written() -> None:
    assert options("oracle:shift=0.4,noise=-20") == {"shift": 0.4, "noise": -20.0}
    found = read_settings("x", options(r"x:steps=10,cfg=3,negative=1234567,conditions=text"))
    assert (found.steps, found.cfg, found.negative, found.conditions) == (10, 3.0, "1234567", "text")
    for text in ("nan", "007", "1e3"):
        assert read_settings("x", options(f"x:negative={text}")).negative == text


def test_the_options_of_nano_say_its_own_defaults() -> None:
    settings = MMAudioNano().settings
    for name, value in NANO_DEFAULTS.items():
        assert vars(settings)[name] == value
        assert f"(default {value}" in MMAUDIO_NANO[name]


def test_a_comma_can_be_part_of_a_value() -> None:
    found = read_settings("x", options(r"x:negative=speech\, music,steps=3"))
    assert (found.negative, found.steps) == ("speech, music", 3)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mmaudio-nano:steps=abc", "mmaudio-nano: steps must be a whole number, got 'abc'"),
        ("mmaudio-nano:steps=2.5", "steps must be a whole number, got '2.5'"),
        ("mmaudio-nano:steps=inf", "steps must be a whole number, got 'inf'"),
        ("mmaudio-nano:cfg=abc", "cfg must be a number, got 'abc'"),
        ("mmaudio-nano:cfg=nan", "cfg must be a number, got nan"),
        ("mmaudio-nano:window=4", "unknown option 'window'"),
        ("mmaudio-s-16k:step=4", "unknown option 'step'; options are steps"),
    ],
)
def test_wrong_options_are_named(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(spec)


def test_the_embedded_model_takes_every_other_option() -> None:
    made = MMAudioNano(steps=3, cfg=2, negative="glass", solver="euler", conditions="text", compile="no", batch=2)
    assert (made.settings.steps, made.settings.cfg, made.settings.window) == (3, 2.0, 8.0)
