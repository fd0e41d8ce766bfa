"""The rendered set: scenes, their sound and their pictures."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from typing import Any, get_args

import numpy as np
import pytest

from av_bench.contracts import UsageError
from protocols.impacts.materials import LABELS, MATERIALS
from protocols.impacts.picture import render_frames
from protocols.impacts.scene import Factor, Scene, counterfactual, sample_scene
from protocols.impacts.sound import render_audio

RATE = 44100
ONE_OF_EACH = range(24)
SILENT = {"noise_db": -300.0, "hum_db": -120.0, "wind_db": -120.0}


def dry(scene: Scene) -> np.ndarray[Any, Any]:
    """The scene's sound without background and with next to no room."""
    return render_audio(replace(scene, reverb_db=-90.0, **SILENT))


# --------------------------------------------------------------------------- scenes


def test_classes_are_balanced() -> None:
    counts = Counter(sample_scene("test", i).label for i in range(256))
    assert set(counts) == set(LABELS)
    assert len(LABELS) == 24
    assert max(counts.values()) - min(counts.values()) <= 1


def test_splits_share_no_clip() -> None:
    scenes = [sample_scene(split, i) for split in ("train", "val", "test") for i in range(60)]
    assert len({s.seed for s in scenes}) == len({s.id for s in scenes}) == len({s.onsets for s in scenes}) == 180
    assert sample_scene("train", 999_999).seed < sample_scene("val", 0).seed
    assert sample_scene("val", 255).seed < sample_scene("test", 0).seed


@pytest.mark.parametrize("split", ["val", "test"])
def test_rhythms_fill_the_clip(split: Any) -> None:
    for i in range(256):
        scene = sample_scene(split, i)
        onsets = np.array(scene.onsets)
        assert 3 <= onsets.size <= 10
        assert np.all(np.diff(onsets) >= 0.09)
        assert onsets[0] <= 1.5
        assert 5.0 <= onsets[-1] < 7.7
        assert (onsets < 4.7).sum() >= 2  # in both 4.8 s crops
        assert (onsets > 3.3).sum() >= 2
        assert sorted(t for track in scene.tracks for t in track.times) == list(onsets)


def test_captions_say_what_happens() -> None:
    captions = [(sample_scene("test", i), sample_scene("test", i).caption) for i in range(120)]
    for scene, caption in captions:
        assert MATERIALS[scene.material].adjective in caption
        assert any(word in caption for word in ("small", "medium-sized", "large"))
        assert caption.endswith(".")
        assert caption[0].isupper()
        assert "  " not in caption
    assert len({caption for _, caption in captions}) > 100


def test_params_are_flat_and_plain() -> None:
    row = sample_scene("test", 5).params()
    assert {"material", "kind", "size", "zoom", "light_side", "wall", "contacts", "fastest"} <= set(row)
    assert all(type(value) in (str, float, int) for value in row.values())


@pytest.mark.parametrize(("split", "index"), [("test", 256), ("val", -1), ("train", 1_000_000), ("dev", 0)])
def test_unknown_clips_are_refused(split: Any, index: int) -> None:
    with pytest.raises(UsageError, match="impacts"):
        sample_scene(split, index)


@pytest.mark.parametrize("factor", get_args(Factor))
@pytest.mark.parametrize("index", [0, 3, 9, 13, 17, 22, 31, 38, 43])
def test_a_counterfactual_changes_one_factor(factor: Factor, index: int) -> None:
    scene = sample_scene("test", index)
    other = counterfactual(scene, factor)
    assert other == counterfactual(scene, factor)
    may = {
        "material": {"material", "label"},
        "size": {"size"},
        "timing": {"tracks", "onsets"},
        "count": {"tracks", "onsets"},
    }[factor] | {"id", "caption"}
    changed = {f.name for f in fields(scene) if getattr(scene, f.name) != getattr(other, f.name)}
    assert changed <= may
    assert changed >= may - {"caption"}
    if factor == "timing":
        assert len(other.onsets) == len(scene.onsets)
        assert [t.speeds for t in other.tracks] == [t.speeds for t in scene.tracks]
    if factor == "count":
        assert len(other.onsets) != len(scene.onsets)
        assert set(other.onsets) & set(scene.onsets)  # what stays is in its place


def test_a_counterfactual_keeps_background_and_picture() -> None:
    """Before the first contact of either, only what the material changes differs."""
    scene = sample_scene("test", 8)
    other = counterfactual(scene, "timing")
    quiet = round(min(scene.onsets[0], other.onsets[0]) * RATE)
    np.testing.assert_array_equal(render_audio(scene)[:, :quiet], render_audio(other)[:, :quiet])
    np.testing.assert_array_equal(render_frames(scene, 64)[0], render_frames(other, 64)[0])


# --------------------------------------------------------------------------- sound


@pytest.mark.parametrize("index", [1, 10, 19])
def test_sound_and_picture_are_deterministic(index: int) -> None:
    scene, again, next_one = sample_scene("test", index), sample_scene("test", index), sample_scene("test", index + 24)
    assert scene == again
    assert render_audio(scene).tobytes() == render_audio(again).tobytes()
    assert render_audio(scene).tobytes() != render_audio(next_one).tobytes()
    assert render_frames(scene, 64).tobytes() == render_frames(again, 64).tobytes()
    assert render_frames(scene, 64).tobytes() != render_frames(next_one, 64).tobytes()


@pytest.mark.parametrize("rate", [44100, 16000])
def test_sound_has_the_form_asked_for(rate: int) -> None:
    audio = render_audio(sample_scene("test", 2), rate)
    assert audio.shape == (2, 8 * rate)
    assert audio.dtype == np.float32
    assert 0.05 < np.abs(audio).max() < 1.0


@pytest.mark.parametrize("index", ONE_OF_EACH)
def test_every_contact_sounds_at_its_time(index: int) -> None:
    """Nothing before the first contact; at each one the treble rises within 5 ms; between them nothing else does."""
    scene = sample_scene("test", index)
    audio = dry(scene)[0]
    first = round(scene.onsets[0] * RATE)
    assert np.abs(audio[:first]).max() < 1e-12
    edges = np.abs(np.diff(audio, n=2, prepend=[0, 0]))  # what is new stands out over what rings on
    window = round(0.005 * RATE)
    for onset in scene.onsets:
        k = round(onset * RATE)
        assert edges[k : k + window].max() > 1.5 * edges[k - window : k].max()
    elsewhere = np.ones(audio.size, bool)
    for onset in scene.onsets:
        elsewhere[round(onset * RATE) :][: round(0.15 * RATE)] = False
    at_contacts = min(edges[round(t * RATE) :][:window].max() for t in scene.onsets)
    assert edges[elsewhere].max() < max(at_contacts, 0.1 * edges.max())


@pytest.mark.parametrize("index", ONE_OF_EACH)
def test_every_contact_is_heard_over_the_background(index: int) -> None:
    scene = sample_scene("test", index)
    clean = render_audio(replace(scene, **SILENT))
    background = render_audio(scene) - clean
    for onset in scene.onsets:
        k = round(onset * RATE)
        event, noise = clean[:, k : k + 882], background[:, k : k + 882]
        assert 10 * np.log10((event**2).mean() / (noise**2).mean()) > 10


def ringing(material: str) -> tuple[float, float]:
    """Spectral centroid (Hz) of the blow and its time (s) to -30 dB, for one scene in this material."""
    scene = replace(sample_scene("test", 24), material=material, head=3, size=1.0)
    start = round(scene.onsets[0] * RATE)
    sound = dry(scene)[0, start : round(scene.onsets[1] * RATE)]
    power = np.abs(np.fft.rfft(sound)) ** 2
    centroid = float((power * np.fft.rfftfreq(sound.size, 1 / RATE)).sum() / power.sum())
    left = np.cumsum(sound[::-1].astype(np.float64) ** 2)[::-1]
    return centroid, float((left > left[0] * 1e-3).sum() / RATE)


def test_materials_sound_as_they_should() -> None:
    heard = {name: ringing(name) for name in MATERIALS}
    longest = sorted(heard, key=lambda name: -heard[name][1])
    assert longest[0] == "metal"
    assert set(longest[:3]) == {"metal", "glass", "ceramic"}
    dull = sorted(heard, key=lambda name: heard[name][0])
    assert dull[0] == "rubber"
    assert {"glass", "metal", "stone", "ceramic"} == set(dull[4:])


def test_larger_is_lower_and_faster_is_louder_and_brighter() -> None:
    scene = replace(sample_scene("test", 3), head=3)
    slow, fast = scene.tracks[0].times.index(scene.onsets[0]), 1
    speeds = list(scene.tracks[0].speeds)
    speeds[slow], speeds[fast] = 0.8, 3.0
    both = replace(scene, tracks=(replace(scene.tracks[0], speeds=tuple(speeds)),))

    def blow(of: Scene, which: int) -> tuple[float, float]:
        start = round(of.onsets[which] * RATE)
        sound = dry(of)[0, start : start + 8820]
        power = np.abs(np.fft.rfft(sound)) ** 2
        return float(np.abs(sound).max()), float((power * np.fft.rfftfreq(8820, 1 / RATE)).sum() / power.sum())

    assert blow(both, fast)[0] > 1.5 * blow(both, slow)[0]
    assert blow(both, fast)[1] > blow(both, slow)[1]
    assert blow(replace(both, size=1.4), fast)[1] < blow(replace(both, size=0.7), fast)[1]


# --------------------------------------------------------------------------- picture


@pytest.mark.parametrize(("size", "fps", "count"), [(64, 25.0, 200), (96, 30.0, 240), (256, 5.0, 40)])
def test_frames_have_the_form_asked_for(size: int, fps: float, count: int) -> None:
    frames = render_frames(sample_scene("test", 12), size, fps)
    assert frames.shape == (count, size, size, 3)
    assert frames.dtype == np.uint8


def mover_edge(scene: Scene, size: int) -> list[int]:
    """Per frame, how far down the mover reaches (px), or how far left where the object hangs; -1 when out of sight.

    The mover is what differs between two pictures of the same scene that give it another colour.
    """
    change: dict[str, Any] = {"strike": {"head": 2}, "drop": {"tint": 1 - scene.tint}, "bounce": {}}[scene.kind]
    other = replace(scene, **change) if change else replace(scene, mover_hue=(scene.mover_hue + 0.4) % 1)
    frames, recoloured = (render_frames(s, size).astype(np.int16) for s in (scene, other))
    mover = np.abs(frames - recoloured).max(axis=3) > 20
    if scene.support == "hanging":
        mover = mover[:, : round(0.6 * size), ::-1].transpose(0, 2, 1)  # the head only, its grip is further down
    return [int(np.flatnonzero(rows).max()) if rows.any() else -1 for rows in mover.any(axis=2)]


@pytest.mark.parametrize("index", [0, 2, 7, 24, 30, 32, 33, 35, 16, 17, 23, 43])
def test_the_mover_touches_at_the_onset(index: int) -> None:
    """In pixels: the mover is nearest to the surface in the frame of each contact, farther 0.12 s before and after."""
    plain = sample_scene("test", index)
    upright = replace(plain, tilt=0.0, flip=False, zoom=0.95, pan_x=0.0, pan_y=0.0, head=1)
    for track in upright.tracks:
        edge = mover_edge(replace(upright, tracks=(track,)), 128)
        gaps = [9.0, *np.diff(track.times), 0.0]
        for time, before, after in zip(track.times, gaps, gaps[1:], strict=False):
            frame = round(time * 25)
            if before > 0.35:
                assert edge[frame] > edge[frame - 3] + 1, time
            if after > 0.35:
                assert edge[frame] > edge[frame + 3] + 1, time
        touching = [edge[round(t * 25)] for t in track.times]
        assert max(touching) - min(touching) <= 12  # always the same surface, but for the 20 ms between frames
        assert max(edge) <= max(touching) + 2  # and never through it
