"""Names: lazy, open to other packages, and misses that teach."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from av_bench import registry
from av_bench.contracts import UsageError


@pytest.mark.parametrize("group", ["models", "metrics"])
def test_every_own_entry_loads(group: str) -> None:
    for name in registry.OWN[group]:
        assert registry.load(group, name).__doc__


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
