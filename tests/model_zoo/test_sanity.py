"""Ceilings, floors and damages do what their names say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import model_zoo
from av_bench.contracts import Clip, ClipSet, UsageError, clip_seed
from model_zoo.sanity import derangement

RATE = 16_000


@pytest.fixture
def clips(tmp_path: Path) -> ClipSet:
    rng = np.random.default_rng(0)
    made = []
    for i in range(6):
        path = tmp_path / f"c{i}.wav"
        soundfile.write(path, 0.1 * (i + 1) * rng.standard_normal((RATE * 2, 2)).clip(-1, 1), RATE, subtype="FLOAT")
        made.append(Clip(f"c{i}", audio=path, group=f"g{i // 2}"))
    return ClipSet("toy", "1", tuple(made))


def generate(spec: str, clips: ClipSet, seed: int = 1, samples: int = 1) -> dict[tuple[str, int], torch.Tensor]:
    generator = model_zoo.load(spec)
    generator.setup(clips, 1.5, seed)
    found = {(g.clip_id, g.sample): g.audio for g in generator.generate(clips.clips, seed, samples)}
    assert all(audio is not None for audio in found.values())
    return found  # type: ignore[return-value]


def test_oracle_is_the_real_audio_cut(clips: ClipSet) -> None:
    real, _ = soundfile.read(clips.clips[0].audio, dtype="float32")
    np.testing.assert_allclose(generate("oracle", clips)["c0", 0].numpy().T, real[: int(1.5 * RATE)], atol=1e-7)


@pytest.mark.parametrize("shift", [0.25, -0.25])
def test_shift_moves_and_fills_with_silence(clips: ClipSet, shift: float) -> None:
    real, moved = generate("oracle", clips)["c0", 0], generate(f"oracle:shift={shift}", clips)["c0", 0]
    by = int(0.25 * RATE)
    assert moved.shape == real.shape
    if shift > 0:
        assert torch.equal(moved[:, by:], real[:, :-by])
        assert not moved[:, :by].any()
    else:
        assert torch.equal(moved[:, :-by], real[:, by:])
        assert not moved[:, -by:].any()


def test_gain_lowpass_noise_and_mix(clips: ClipSet) -> None:
    real = generate("oracle", clips)["c1", 0]
    np.testing.assert_allclose(generate("oracle:gain=-20", clips)["c1", 0], 0.1 * real, rtol=1e-5, atol=1e-8)
    dull = torch.fft.rfft(generate("oracle:lowpass=1000", clips)["c1", 0][0]).abs()
    edge = int(2000 / (RATE / 2) * len(dull))
    assert float(dull[edge:].square().mean()) < 1e-3 * float(dull[: edge // 4].square().mean())
    added = generate("oracle:noise=-10", clips)["c1", 0] - real
    assert float(added.square().mean().sqrt() / real.square().mean().sqrt()) == pytest.approx(
        10 ** (-10 / 20), rel=0.05
    )
    echo = generate("oracle:mix=0.5", clips)["c1", 0] - real
    assert torch.allclose(echo[:, RATE // 2 :], real[:, : -RATE // 2], atol=1e-6)


def test_noise_has_the_level_of_its_clip_and_differs_by_sample(clips: ClipSet) -> None:
    real, noise = generate("oracle", clips), generate("noise", clips, samples=2)
    for clip in clips.clips:
        levels = [float(x.square().mean().sqrt()) for x in (real[clip.id, 0], noise[clip.id, 0])]
        assert levels[0] == pytest.approx(levels[1], rel=0.05)
    assert not torch.equal(noise["c0", 0], noise["c0", 1])


def test_samples_do_not_depend_on_company(clips: ClipSet) -> None:
    alone = model_zoo.load("noise")
    alone.setup(clips, 1.5, 1)
    (one,) = alone.generate(clips.clips[3:4], 1)
    assert torch.equal(one.audio, generate("noise", clips)["c3", 0])


def test_silence_is_zero(clips: ClipSet) -> None:
    assert not any(audio.any() for audio in generate("silence", clips).values())


def test_shuffled_takes_another_recordings_audio(clips: ClipSet) -> None:
    real, shuffled = generate("oracle", clips), generate("shuffled", clips)
    groups = {clip.id: clip.group for clip in clips.clips}
    for clip in clips.clips:
        source = next(i for i in groups if torch.equal(shuffled[clip.id, 0], real[i, 0]))
        assert groups[source] != clip.group
    assert any(not torch.equal(shuffled[k], v) for k, v in generate("shuffled", clips, seed=2).items())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=30), st.integers(0, 2**32))
def test_derangement(clusters: list[int], seed: int) -> None:
    order = derangement([str(c) for c in clusters], seed)
    assert sorted(order) == list(range(len(clusters)))
    assert all(i != j for i, j in enumerate(order))


def test_seeds_depend_on_seed_clip_and_sample_only() -> None:
    seeds = {clip_seed(s, c, k) for s in (0, 1) for c in ("a", "b") for k in (0, 1)}
    assert len(seeds) == 8
    assert clip_seed(1, "a", 0) == clip_seed(1, "a", 0)
    assert all(0 <= s < 2**63 for s in seeds)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("oracle:lowpass=99999", "lowpass must lie"),
        ("oracle:gain=loud", "must be a number"),
        ("noise:shift=1", "shift"),
    ],
)
def test_bad_options(clips: ClipSet, spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        generate(spec, clips)


def test_a_set_without_real_audio_is_refused() -> None:
    generator = model_zoo.load("oracle")
    with pytest.raises(UsageError, match="has none"):
        generator.setup(ClipSet("mute", "1", (Clip("a"),)), 8.0, 0)
