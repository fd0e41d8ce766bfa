"""Names: lazy, open to other packages, and misses that teach."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any, ClassVar

import pytest

from av_bench import registry
from av_bench.contracts import (
    Extractor,
    Generated,
    GenerationJob,
    Metric,
    MetricInputs,
    PluginError,
    SampleSource,
    Score,
    UsageError,
)
from model_zoo.options import OPTIONS_OF
from tests.conftest import ROOT


@pytest.mark.parametrize("group", ["models", "metrics"])
def test_every_own_entry_loads(group: str) -> None:
    for name in registry.OWN[group]:
        assert registry.load(group, name).__doc__


def test_what_is_listed_without_an_import_is_what_the_classes_say() -> None:
    for group in registry.CLASS_GROUPS:
        for name in registry.OWN[group]:
            loaded = registry.load(group, name)
            assert registry.first_line(group, name) == loaded.__doc__.strip().splitlines()[0] != ""
            if group == "models":
                assert OPTIONS_OF.get(name, {}) == loaded.options


def test_lists_and_help_import_no_torch() -> None:
    code = (
        "import sys; from av_bench.cli.app import app\n"
        "for words in (['--help'], ['list', 'models'], ['list', 'extractors'], ['list', 'metrics']):\n"
        "    app(words, standalone_mode=False)\n"
        "heavy = ('torch', 'librosa', 'pandas', 'scipy', 'sklearn', 'pyarrow', 'transformers')\n"
        "print(sorted(name for name in heavy if name in sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "mmaudio-nano" in out.stdout
    assert "synchformer-audio" in out.stdout
    assert out.stdout.splitlines()[-1] == "[]"


def test_a_miss_names_the_nearest_and_the_available() -> None:
    with pytest.raises(
        UsageError, match=r"unknown model 'suffled'. Did you mean 'shuffled'\? Available: mmaudio-l, .*noise"
    ):
        registry.load("models", "suffled")


def test_other_packages_add_names_but_do_not_take_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def points(group: str) -> list[EntryPoint]:
        if group != "av_bench.models":
            return []
        return [
            EntryPoint("theirs", "model_zoo.sanity:Silence", group),
            EntryPoint("oracle", "model_zoo.sanity:Silence", group),
        ]

    monkeypatch.setattr(registry, "entry_points", points)
    assert "theirs" in registry.names("models")
    assert registry.load("models", "theirs").__name__ == "Silence"
    assert registry.load("models", "oracle").__name__ == "Oracle"


class Nameless(Extractor):
    """An extractor that says neither its name nor its outputs."""

    @classmethod
    def build(cls, weights: Any, device: str = "cpu", flavour: Any = "paper") -> Any:
        raise NotImplementedError

    def prepare(self, item: Any, seconds: float) -> Any:
        raise NotImplementedError

    def forward(self, batch: Any) -> Any:
        raise NotImplementedError


class Named(Nameless):
    """An extractor with nothing but what the contract asks for."""

    name = "named"
    outputs: ClassVar[dict[str, str]] = {"embedding": "(B, 1)"}


class NoCompute(Metric):
    """A metric without ``compute``."""


class Whole(Metric):
    """A metric that can be used."""

    def compute(self, inputs: MetricInputs) -> Score:
        raise NotImplementedError


class NoMetric(SampleSource):
    """A sample source."""

    def produce(self, job: GenerationJob) -> Iterator[Generated]:
        raise NotImplementedError


def offer(monkeypatch: pytest.MonkeyPatch, **offered: str) -> None:
    """Entry points of every group, in order."""

    def points(group: str) -> list[EntryPoint]:
        return [EntryPoint(name, f"{__name__}:{value}", group) for name, value in offered.items()]

    monkeypatch.setattr(registry, "entry_points", points)


@pytest.mark.parametrize(
    ("group", "value", "message"),
    [
        ("extractors", "Nameless", "Nameless lacks name, outputs"),
        ("metrics", "NoCompute", "NoCompute lacks compute"),
        ("metrics", "NoMetric", "Metric"),
        ("models", "Whole", "SampleSource"),
        ("models", "offer", "SampleSource"),
        ("models", "nothing", "nothing"),
    ],
)
def test_what_another_package_offers_must_be_what_its_group_holds(
    group: Any, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, theirs=value)
    with pytest.raises(PluginError, match=f"'theirs' .*{message}"):
        registry.load(group, "theirs")


def test_the_doctor_examines_extractors_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    from av_bench.doctor import examine

    offer(monkeypatch, theirs="Named")
    found = {finding.what: (finding.status, finding.detail) for finding in examine()}
    assert found["extractor theirs"] == ("ok", "no weights needed")
    assert found["extractor onsets"] == ("ok", "no weights needed")


def test_of_two_packages_with_one_name_the_first_is_kept_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def points(group: str) -> list[EntryPoint]:
        return [EntryPoint("theirs", f"{__name__}:{value}", group) for value in ("Whole", "NoCompute")]

    monkeypatch.setattr(registry, "entry_points", points)
    assert registry.load("metrics", "theirs") is Whole
    assert "two packages offer metrics 'theirs'" in caplog.text
    assert registry.origin("metrics", "theirs") == "tests.test_registry"
    assert registry.origin("metrics", "kl") == "av-bench"
