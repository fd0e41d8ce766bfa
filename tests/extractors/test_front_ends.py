"""Front ends and fingerprints: a changed front end needs a new version, and an old store stays warm."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from av_bench import registry
from av_bench.contracts import Need
from av_bench.extractors import frontends, imagebind, synchformer
from av_bench.features.extractor_set import ExtractorSet
from av_bench.media import decode, picture, resample
from av_bench.networks import nano
from av_bench.runtime.constants import constant
from tests.extractors import front_ends

PINS: dict[str, front_ends.Numbers] = json.loads(front_ends.PINS.read_text())
AGAIN = "python -m tests.extractors.front_ends"
Change = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = front_ends.write_clip(tmp_path_factory.mktemp("clip") / "clip.mov")
    yield path
    path.unlink()


def check(name: str, flavour: str, clip: Path) -> None:
    """Fail when the front end is not the pinned one, and say what to do."""
    now, pin = front_ends.pinned(name, flavour, clip), PINS[f"{name} {flavour}"]
    if now["version"] != pin["version"]:
        pytest.fail(f"{name} has front_end_version {now['version']}, the pin is of {pin['version']}; run: {AGAIN}")
    moved = front_ends.difference(pin, now)
    if not moved <= front_ends.tolerance(name):
        pytest.fail(
            f"the front end of {name} ({flavour}) changed by {moved:.1e} of its rms: bump its front_end_version, "
            f"say so under 'Numbers changed', then run: {AGAIN}"
        )


@pytest.mark.parametrize(("name", "flavour"), list(front_ends.every()))
def test_front_end_is_the_one_its_version_names(name: str, flavour: str, clip: Path) -> None:
    check(name, flavour, clip)


def test_every_extractor_is_pinned_and_nothing_else() -> None:
    assert set(PINS) == {f"{name} {flavour}" for name, flavour in front_ends.every()}


# --------------------------------------------------------------------------- small changes that must be seen


def attribute(target: Any, name: str, value: Any) -> Change:
    return lambda patch: patch.setattr(target, name, value)


def around(target: Any, name: str, change: Callable[..., Any]) -> Change:
    """``change(original, *arguments)`` in place of a function."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        original = getattr(target, name)
        patch.setattr(target, name, lambda *a, **k: change(original, *a, **k))

    return apply


def other_rolloff(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(resample, "ROLLOFF", 0.98)
    patch.setattr(resample, "_kernel", constant(resample._kernel.__wrapped__))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("panns", other_rolloff),
        ("panns", around(frontends, "mel_bank", lambda f, r, n, m, low, high, **k: f(r, n, m, low + 5, high, **k))),
        ("vggish", around(frontends, "hann", lambda f, n, *, periodic: f(n, periodic=not periodic))),
        ("passt", around(frontends, "passt_mel", lambda f, x: f(x) + 5e-4)),
        ("imagebind-audio", attribute(frontends, "FLOAT_EPS", 1e-3)),
        (
            "imagebind-audio",
            around(imagebind, "clip_bounds", lambda f, n: [(a * 2 // 3, a * 2 // 3 + b - a) for a, b in f(n)]),
        ),
        ("imagebind-video", attribute(imagebind, "MEAN", (0.5, 0.4578275, 0.40821073))),
        ("synchformer-audio", around(frontends, "synchformer_mel", lambda f, x: f(x).index_fill(-1, LAST, 0.0))),
        ("synchformer-video", around(picture, "resize", lambda f, x, *more: f(x, *more).roll(1, dims=-1))),
        ("synchformer", attribute(synchformer, "SEGMENTS", 13)),
        ("nano-sync", attribute(nano, "CROP_FRAMES", 119)),
        ("nano-tagger", around(nano.LogMel, "forward", lambda f, self, x: f(self, x) * 1.001)),
        ("nano-bind-text", around(nano, "hashed_words", lambda f, text: f(text.replace(";", " 1")))),
        ("msclap-text", attribute(front_ends, "CAPTION", front_ends.CAPTION.lower())),
        ("onsets", around(decode, "resample", lambda f, x, old, new: f(x, old, new) * 1.001)),
    ],
)
def test_a_small_change_of_a_front_end_is_noticed(
    name: str, change: Change, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(monkeypatch)
    with pytest.raises(pytest.fail.Exception, match=f"front end of {name} .* changed .* bump its front_end_version"):
        check(name, "paper", clip)


LAST = torch.tensor([65])


def test_a_new_version_asks_for_a_new_pin_and_a_changed_old_one_gets_none(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind: Any = registry.load("extractors", "nano-bind-text")
    now = front_ends.pinned("nano-bind-text", "paper", clip)
    other = json.loads(json.dumps(now))
    other["inputs"][0]["rms"] += 1
    assert front_ends.refused({"x": other}, "x", now, "nano-bind-text")
    assert not front_ends.refused({"x": now}, "x", now, "nano-bind-text")
    assert not front_ends.refused({"x": {**other, "version": 2}}, "x", now, "nano-bind-text")
    monkeypatch.setattr(kind, "front_end_version", 2)
    with pytest.raises(pytest.fail.Exception, match="front_end_version 2, the pin is of 1"):
        check("nano-bind-text", "paper", clip)


def test_signs_are_balanced_and_differ_between_inputs() -> None:
    drawn = front_ends.signs("a", 10_001)
    assert drawn.shape == (front_ends.PROJECTIONS, 10_001)
    assert set(np.unique(drawn)) == {-1.0, 1.0}
    assert np.abs(drawn.mean(axis=1)).max() < 0.05
    assert not np.array_equal(drawn, front_ends.signs("b", 10_001))


# --------------------------------------------------------------------------- fingerprints

# Flavours paper and strict on a CPU, as version 0.1.0 wrote them into stores (imagebind-audio: front end 2, later).
# The embedded networks have their own weights, the others a weights hash of zeros. Change a line only together with the
# extractor's front_end_version or its embedded weights, and say so in the changelog.
FINGERPRINTS = {
    "nano-tagger": ("af5dccd041f832c9", "af5dccd041f832c9"),
    "nano-bind-audio": ("aee8930715f5e67d", "aee8930715f5e67d"),
    "nano-bind-video": ("51e1bc9770642563", "51e1bc9770642563"),
    "nano-bind-text": ("636d28649778c2c8", "636d28649778c2c8"),
    "nano-sync-audio": ("4c1a050aaf28ff13", "4c1a050aaf28ff13"),
    "nano-sync-video": ("43998eb5bb646e66", "43998eb5bb646e66"),
    "nano-sync": ("ee9dbbdff8e95219", "ba5e1206e6852137"),
    "onsets": ("6fef14e667489a25", "385aadab869d0bc9"),
    "passt": ("10f1266076b840d1", "10f1266076b840d1"),
    "panns": ("46414a9aac6ab5b6", "46414a9aac6ab5b6"),
    "vggish": ("d12d06c8e684f684", "d12d06c8e684f684"),
    "imagebind-audio": ("1bf41b53a75fbd3a", "32dfb4924378dc9c"),
    "imagebind-video": ("52d2bcbe8a3bcc20", "52d2bcbe8a3bcc20"),
    "clap-audio": ("19daca6e2cef8aef", "19daca6e2cef8aef"),
    "clap-text": ("ccb57e2dc8f887b1", "ccb57e2dc8f887b1"),
    "msclap-audio": ("c86a18a0c99b8d47", "65730e1d8b7aeec8"),
    "msclap-text": ("ffe92d6d7b7e1cd3", "fe845d9926d6a85d"),
    "synchformer-audio": ("5f7642dd4b6c6bfe", "5f7642dd4b6c6bfe"),
    "synchformer-video": ("b9fd815c5a34bd4b", "b9fd815c5a34bd4b"),
    "synchformer": ("ec28679de5265594", "51827a0d0118bf3c"),
    "sfx": ("85d744a1202ffb8b", "85d744a1202ffb8b"),  # since 0.2
}
NO_WEIGHTS_HERE = "0" * 64


def fingerprint(name: str, flavour: Any) -> str:
    kind: Any = registry.load("extractors", name)
    embedded = name.startswith("nano") or name == "onsets"
    found: str = kind.fingerprint_for(kind.weights_hash_of(None) if embedded else NO_WEIGHTS_HERE, "cpu", flavour)
    return found


@pytest.mark.parametrize("name", registry.OWN["extractors"])
def test_fingerprints_are_those_of_old_stores(name: str) -> None:
    expected = tuple(f"{name}-{digits}" for digits in FINGERPRINTS[name])
    assert tuple(fingerprint(name, flavour) for flavour in ("paper", "strict")) == expected


@pytest.mark.parametrize("name", registry.OWN["extractors"])
def test_a_new_front_end_version_is_another_fingerprint(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind: Any = registry.load("extractors", name)
    before = fingerprint(name, "paper")
    monkeypatch.setattr(kind, "front_end_version", kind.front_end_version + 1)
    assert fingerprint(name, "paper") != before


def test_a_store_written_by_the_first_version_is_read(shared: Path) -> None:
    """The folders of a store of 0.1.0, strict flavour, are the ones that this version looks into.

    But for the probe, which holds more now: every file is decoded once more, and no network runs.
    """
    outputs = {"nano-tagger": "logits", "nano-bind-audio": "embedding", "nano-sync": "logits", "onsets": "detections"}
    needs = [Need(name, output, "generated") for name, output in outputs.items()]
    wanted = ExtractorSet([*needs, Need("nano-bind-video", "embedding", "video")], "cpu", "strict")
    names = {wanted.pair_fingerprint(n) if wanted.is_pair(n) else wanted.fingerprint(n) for n in wanted.names}
    there = {path.name for path in (shared / "store").iterdir()}
    assert {name for name in there if not name.startswith("probe-")} == names


def test_the_pair_fingerprint_of_the_first_version() -> None:
    wanted = ExtractorSet([Need("nano-sync", "logits", "generated")], "cpu", "strict")
    assert wanted.pair_fingerprint("nano-sync") == "nano-sync-725717535e3bc454"
