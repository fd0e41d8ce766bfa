"""mmaudio-nano: what ships loads and works on real files, and the recipe runs from corpus to package."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from av_bench.contracts import Clip, ClipSet, MissingRequirement, Reason, UsageError
from av_bench.media.decode import decode
from av_bench.metrics.onset import match_onsets, onset_scores
from av_bench.runtime.files import lock
from model_zoo.mmaudio.nano import first, recipe, second
from model_zoo.mmaudio.nano.codec import SECOND, CodecConfig, NanoCodec, codec_config
from model_zoo.mmaudio.nano.conditioner import NanoConditioner
from model_zoo.mmaudio.nano.encoder_training import SightRecipe, contacts, truth
from model_zoo.mmaudio.nano.encoders import Sight
from model_zoo.mmaudio.nano.model import CODEC, FLOW, SIGHT, WEIGHTS, MMAudioNano, load
from model_zoo.mmaudio.nano.patches import PatchConfig
from model_zoo.mmaudio.nano.stage_files import save_weights
from model_zoo.mmaudio.nano.vocoder import VocoderConfig
from model_zoo.scorers.corpus import Corpus
from protocols.impacts.build import render_clip
from protocols.impacts.scene import sample_scene
from tests.conftest import ROOT

VAL = (3, 8, 13, 18, 23)  # scenes of val: neither trained on nor scored elsewhere


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clip, ...]:
    folder = tmp_path_factory.mktemp("impacts")
    found = []
    for index in VAL:
        scene = sample_scene("val", index)
        path = render_clip(scene, folder)
        found.append(Clip(scene.id, video=path, text=scene.caption, label=scene.label, onsets=scene.onsets))
    return tuple(found)


@pytest.fixture(scope="module")
def model() -> MMAudioNano:
    return MMAudioNano()


@pytest.fixture(scope="module")
def sounds(model: MMAudioNano, clips: tuple[Clip, ...]) -> dict[str, torch.Tensor]:
    model.setup(ClipSet("five", "1", clips), 8.0, seed=0)
    made = list(model.generate(clips, seed=0))
    assert [g.reason for g in made] == [None] * len(clips)
    return {g.clip_id: g.audio for g in made if g.audio is not None}


def test_weights_are_small_and_each_has_its_log() -> None:
    files = [WEIGHTS / name for name in (FLOW, CODEC, SIGHT)]
    assert sum(file.stat().st_size for file in files) <= 16e6
    assert all(file.with_suffix(".json").stat().st_size > 100 for file in files)


PAIRED = {"KL-nano": -1, "Bind-nano": 1, "DeSync-nano": -1, "Acc": 1, "AP": 1, "F1": 1}  # metric: sign of better


@pytest.fixture(scope="module")
def evaluation() -> dict[str, Any]:
    """What ``benchmarks/nano_table6.py`` recorded."""
    content: dict[str, Any] = json.loads((WEIGHTS / "mmaudio-nano-evaluation.json").read_text())
    return content


def apart(better: dict[str, Any], worse: dict[str, Any], sign: int) -> bool:
    """Whether one interval lies wholly on the better side of another."""
    if sign > 0:
        return bool(better["interval"][0] > worse["interval"][1])
    return bool(better["interval"][1] < worse["interval"][0])


def test_the_recorded_evaluation_holds_what_is_claimed(evaluation: dict[str, Any]) -> None:
    """Better than shuffled in every paired metric and than noise in FD and IS, with intervals that do not touch."""
    runs = evaluation["runs"]
    nano = runs["mmaudio-nano"]
    assert all(apart(nano[name], runs["shuffled"][name], sign) for name, sign in PAIRED.items())
    assert all(apart(nano[name], runs["noise"][name], sign) for name, sign in {"FD-nano": -1, "IS-nano": 1}.items())
    assert nano["F1"]["value"] >= 0.7 * runs["oracle"]["F1"]["value"]
    differences = evaluation["mmaudio-nano against"]["shuffled"]
    assert all(differences[name]["method"] == "paired" for name in PAIRED)


def test_the_page_quotes_the_record(evaluation: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "mmaudio-nano.md").read_text()
    tables = {"**mmaudio-nano**": evaluation["runs"]["mmaudio-nano"], "noise": evaluation["runs"]["noise"]}
    for number, training in enumerate(evaluation["ablations"]["trainings"], 1):
        tables |= {f"{arm}, {number}": values for arm, values in training["runs"].items()}
    for row, metrics in tables.items():
        line = next(line for line in page.splitlines() if line.startswith(f"| {row} "))
        for name, entry in metrics.items():
            digits = 2 if abs(entry["value"]) >= 10 else 3
            assert f" {entry['value']:.{digits}f} " in line, (row, name)


def test_no_weight_is_shared_with_the_networks_that_score() -> None:
    from safetensors.torch import load_file

    import av_bench.networks

    ours = [value for name in (FLOW, CODEC, SIGHT) for value in load_file(WEIGHTS / name).values()]
    for file in (Path(av_bench.networks.__file__).parent / "weights").glob("*.safetensors"):
        for key, value in load_file(file).items():
            if value.numel() > 256 and not key.endswith(("window", "filters")):
                assert not any(v.shape == value.shape and torch.equal(v.float(), value.float()) for v in ours), key


def test_shape_and_level_of_the_sound(sounds: dict[str, torch.Tensor]) -> None:
    for audio in sounds.values():
        assert audio.shape == (1, 128_000)
        assert 0.01 < float(audio.abs().max()) <= 1


def test_a_sample_depends_on_its_clip_and_seed_alone(
    model: MMAudioNano, clips: tuple[Clip, ...], sounds: dict[str, torch.Tensor]
) -> None:
    alone = next(iter(model.generate(clips[2:3], seed=0))).audio
    other = next(iter(model.generate(clips[2:3], seed=1))).audio
    assert alone is not None
    assert other is not None
    assert torch.equal(alone, sounds[clips[2].id])
    assert not torch.allclose(alone, other, atol=1e-3)


def test_sounds_are_heard_where_something_is_hit(clips: tuple[Clip, ...], sounds: dict[str, torch.Tensor]) -> None:
    """Strict onset F1 on the clip's own labels against that on the next clip's, as the shuffled floor is made."""
    own, other = [], []
    for clip, neighbour in zip(clips, clips[1:] + clips[:1], strict=True):
        audio = sounds[clip.id][0].numpy()
        own.append(onset_scores(audio, 16_000, clip.onsets or (), "strict").f1 or 0.0)
        other.append(onset_scores(audio, 16_000, neighbour.onsets or (), "strict").f1 or 0.0)
    assert np.mean(own) > 0.7
    assert np.mean(own) > np.mean(other) + 0.2


def test_contacts_are_seen_in_an_encoded_video(clips: tuple[Clip, ...]) -> None:
    sight = load(WEIGHTS)[2]
    conditioner = NanoConditioner(sight)
    scores = []
    for clip in clips:
        media = decode(str(clip.video), conditioner.requests, 8.0, audio=False)
        look, motion = conditioner.video(media, 8.0)
        assert look.shape == (16, 32)
        assert motion.shape == (200, 32)
        with torch.no_grad():
            answers, _ = sight.motion.heads((motion * sight.motion_std + sight.motion_mean)[None])
        times, strength = contacts(answers.contact[0], answers.place[0])
        scores.append(match_onsets(times, strength, clip.onsets or (), "strict").f1 or 0.0)
    assert np.mean(scores) > 0.9


def test_a_short_video_is_named_and_the_others_are_made(
    model: MMAudioNano, clips: tuple[Clip, ...], tmp_path: Path
) -> None:
    from protocols.impacts.encode import write_mp4

    short = write_mp4(
        tmp_path / "short.mp4", np.zeros((50, 256, 256, 3), np.uint8), np.zeros((2, 88_200), np.float32), 44_100, 25.0
    )
    pair = (Clip("a", video=short), clips[0])
    model.setup(ClipSet("two", "1", pair), 8.0, seed=0)
    first, second = model.generate(pair, seed=0)
    assert first.reason is Reason.TOO_SHORT_VIDEO
    assert "4 of 16 frames" in first.detail
    assert second.audio is not None


@pytest.mark.parametrize("seconds", [0.5, 2.37, 7.99, 8.1])
def test_any_duration_is_made(model: MMAudioNano, clips: tuple[Clip, ...], seconds: float) -> None:
    """8.1 s of an 8 s video is refused for the video, not for the model's windows."""
    model.setup(ClipSet("one", "1", clips[:1]), seconds, seed=0)
    made = next(iter(model.generate(clips[:1], seed=0)))
    if seconds > 8:
        assert made.reason is Reason.TOO_SHORT_VIDEO
        return
    assert made.reason is None
    assert made.audio is not None
    assert made.audio.shape == (1, round(seconds * 16_000))
    assert bool(torch.isfinite(made.audio).all())


@pytest.mark.parametrize("seconds", [9.37, 13.3])
def test_the_last_window_of_an_odd_duration_fits(tmp_path: Path, seconds: float) -> None:
    from protocols.impacts.encode import write_mp4

    pictures = np.random.default_rng(0).integers(0, 255, (round(seconds * 25), 64, 64, 3), dtype=np.uint8)
    file = write_mp4(tmp_path / "long.mp4", pictures, np.zeros((2, 44_100), np.float32), 44_100, 25.0)
    clip = Clip("long", video=file)
    quick = MMAudioNano(steps=1)
    quick.setup(ClipSet("one", "1", (clip,)), seconds, seed=0)
    made = next(iter(quick.generate([clip], seed=0)))
    assert made.audio is not None, made.detail
    assert made.audio.shape == (1, round(seconds * 16_000))


def test_a_short_clip_is_in_time_and_still_after_its_end(model: MMAudioNano, clips: tuple[Clip, ...]) -> None:
    """The first 4 s: contacts seen there are those of the scene, and none after, where the last frame is held."""
    conditioner, sight = model.conditioner, load(WEIGHTS)[2]
    assert isinstance(conditioner, NanoConditioner)
    seen, heard = [], []
    model.setup(ClipSet("three", "1", clips[:3]), 4.0, seed=0)
    for clip, made in zip(clips[:3], model.generate(clips[:3], seed=0), strict=True):
        early = tuple(t for t in clip.onsets or () if t < 3.9)
        _, motion = conditioner.video(decode(str(clip.video), conditioner.requests, 4.0, audio=False), 4.0)
        assert motion.shape == (200, 32)
        with torch.no_grad():
            answers, _ = sight.motion.heads((motion * sight.motion_std + sight.motion_mean)[None])
        times, strength = contacts(answers.contact[0], answers.place[0])
        assert not (np.asarray(times) > 4.2).any()
        seen.append(match_onsets(times, strength, early, "strict").f1 or 0.0)
        assert made.audio is not None
        heard.append(onset_scores(made.audio[0].numpy(), 16_000, early, "strict").f1 or 0.0)
    assert np.mean(seen) > 0.9
    assert np.mean(heard) > 0.6


def test_missing_files_and_odd_stretches_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MissingRequirement, match="av-bench train mmaudio-nano"):
        MMAudioNano(weights=tmp_path)
    with pytest.raises(UsageError, match=r"0\.5 s and more, got 0\.4 s"):
        NanoConditioner(Sight()).lengths(0.4)
    with pytest.raises(UsageError, match="conditions"):
        MMAudioNano(conditions="smell")  # type: ignore[arg-type]


def test_targets_say_when_something_is_hit() -> None:
    targets = truth("train", 6)
    for i in range(6):
        scene = sample_scene("train", i)
        frames = np.flatnonzero(targets.contact[i])
        times = (frames + targets.place[i, frames]) / 25
        np.testing.assert_allclose(times, scene.onsets, atol=1e-6)
        assert targets.speed[i].max() == pytest.approx(1.0)


def _noise_corpus(count: int) -> Corpus:
    rng = np.random.default_rng(0)
    scenes = [sample_scene("train", i) for i in range(count)]
    from av_bench.networks.nano import hashed_words

    return Corpus(
        audio=rng.integers(-3000, 3000, (count, 128_000), dtype=np.int16),
        grey=rng.integers(0, 255, (count, 200, 48, 48), dtype=np.uint8),
        colour=rng.integers(0, 255, (count, 16, 3, 64, 64), dtype=np.uint8),
        words=np.stack([hashed_words(scene.caption).numpy() for scene in scenes]),
        classes=np.zeros(count, np.int64),
        labels=("noise",),
    )


def test_too_few_clips_and_odd_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{recipe.FEWEST - 1} clips are too few"):
        recipe.train_nano(tmp_path, clips=recipe.FEWEST - 1)
    with lock(tmp_path / ".lock"), pytest.raises(UsageError, match="another process trains there"):
        recipe.train_nano(tmp_path)
    (tmp_path / "vae").mkdir()
    with pytest.raises(UsageError, match="holds the other generation of mmaudio-nano"):
        recipe.train_nano(tmp_path)
    for name in ("a, b", "x #1", "run: 2", "a}b", "ü 'q' \"r\""):  # YAML has its own ideas about these
        made = recipe.flow_recipe(tmp_path / name, "nano", (), "cpu")
        assert [source.path for source in made.data.train] == [str(tmp_path / name / "train")]


def test_the_recipe_of_what_ships_runs_from_corpus_to_a_package_that_makes_sound(
    tmp_path: Path, clips: tuple[Clip, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every stage for a step or two, on noise; started again, finished stages are not done again."""
    for module in (recipe, second):
        monkeypatch.setattr(module, "HOLDOUT", 4)
    data, said = _noise_corpus(20), []
    sizes = CodecConfig(
        SECOND.mel, VocoderConfig(16, 32, 1, noise=True, relative=True), patches=PatchConfig(width=8, inner=8, blocks=1)
    )
    for _ in range(2):
        sight = recipe.sight_stage(
            tmp_path, data, "cpu", said.append, SightRecipe(epochs=1, look_epochs=1, motion_frames=16, holdout=4)
        )
        patches = second.patch_stage(tmp_path, data, said.append, sizes)
        short = {"steps": 2, "batch": 2, "frames": 20, "holdout": 4}
        vocoder = second.vocoder_stage(
            tmp_path, data, "cpu", said.append, replace(second.VOCODER_RECIPE, **short), sizes
        )
        codec = second.tune_stage(
            tmp_path, data, patches, vocoder, "cpu", said.append, replace(second.TUNE_RECIPE, **short)
        )
        recipe.feature_stage(tmp_path, data, sight, codec, "cpu", said.append)
        changes = (
            "steps=2", "batch=4", "every.log=1", "every.validate=2", "every.checkpoint=2", "data.threads=0",
            "network.hidden=16",
        )  # fmt: skip
        flow = recipe.flow_stage(tmp_path, tmp_path / "features", "nano", changes, "cpu")
        folder = recipe.package(tmp_path, flow, 2)
        trained = [line for line in said if line.startswith(("sight", "patches", "vocoder", "codec"))]
        assert len(trained) == 5  # two epochs, a line of each stage of the codec: the second round adds none
    assert_half(folder)
    assert codec_config(folder / CODEC) == sizes
    logs = json.loads((folder / CODEC).with_suffix(".json").read_text())
    assert [entry["step"] for entry in logs["tuned"]["steps"]] == [2]
    network, codec, sight = load(folder)
    for module in (network, codec, sight):
        assert {value.dtype for value in module.state_dict().values() if value.is_floating_point()} == {torch.float32}
    assert torch.equal(network.latent_std, torch.ones(1, 1, 48))  # components keep their own scale
    assert MMAudioNano(weights=folder).identity != MMAudioNano(weights=folder, steps=1).identity
    made = next(iter(MMAudioNano(weights=folder, steps=1).generate(clips[:1], seed=0)))
    assert made.audio is not None
    assert made.audio.shape == (1, 128_000)
    other = NanoCodec()  # of the first generation
    for value in other.state_dict().values():
        value.nan_to_num_(1.0)
    save_weights(other, folder / CODEC)
    with pytest.raises(UsageError, match=r"makes 48 latents, .* takes 16: they come from different trainings"):
        load(folder)


def test_the_recipe_of_the_first_generation_runs_from_corpus_to_a_package_that_makes_sound(
    tmp_path: Path, clips: tuple[Clip, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every stage for a step or two, on noise; started again, finished stages are not done again."""
    monkeypatch.setattr(recipe, "HOLDOUT", 4)
    data, said = _noise_corpus(20), []
    vae_recipe = replace(
        first.VAE_RECIPE, steps=2, batch=2, frames=40, holdout=4, log_every=1, validate_every=1, save_every=1
    )
    for _ in range(2):
        sight = recipe.sight_stage(
            tmp_path, data, "cpu", said.append, SightRecipe(epochs=1, look_epochs=1, motion_frames=16, holdout=4)
        )
        vae = first.vae_stage(tmp_path, data, "cpu", said.append, vae_recipe)
        vocoder_recipe = first.VocoderRecipe(steps=2, batch=2, frames=20, decoded_from=2, holdout=4)
        codec = first.vocoder_stage(tmp_path, data, vae, "cpu", said.append, vocoder_recipe)
        codec = first.tune_stage(tmp_path, data, codec, "cpu", said.append, replace(vocoder_recipe, frames=40))
        recipe.feature_stage(tmp_path, data, sight, codec, "cpu", said.append)
        changes = ("steps=2", "batch=4", "every.log=1", "every.validate=2", "every.checkpoint=2", "data.threads=0")
        flow = recipe.flow_stage(tmp_path, tmp_path / "features", "nano1", changes, "cpu")
        folder = recipe.package(tmp_path, flow, 1)
        trained = [line for line in said if line.startswith(("sight", "vocoder", "codec"))]
        assert len(trained) == 4  # two epochs, a line of the vocoder, a line of its tuning: the second round adds none
    made = next(iter(MMAudioNano(weights=folder, steps=1).generate(clips[:1], seed=0)))
    assert made.audio is not None
    assert made.audio.shape == (1, 128_000)


def assert_half(folder: Path) -> None:
    """All three files hold fp16."""
    from safetensors.torch import load_file

    for name in (FLOW, CODEC, SIGHT):
        assert {v.dtype for v in load_file(folder / name).values() if v.is_floating_point()} == {torch.float16}
