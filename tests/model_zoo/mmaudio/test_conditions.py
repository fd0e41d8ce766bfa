"""Conditions of the published networks, with small towers and with the store in between."""

from __future__ import annotations

import importlib.util
import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from av_bench import weights as files
from av_bench.contracts import MediaError, MissingRequirement, Reason, UsageError, VideoRequest
from av_bench.features.store import Store
from av_bench.media.decode import decode
from av_bench.media.picture import Picker
from av_bench.networks.synchformer import VideoEncoder
from model_zoo.mmaudio.conditions.clip_encoder import CONFIG, CLIPEncoder
from model_zoo.mmaudio.conditions.published import (
    CLIP_REQUEST,
    SYNC_REQUEST,
    OfficialConditioner,
    still,
    stretches,
    words,
)
from model_zoo.mmaudio.config import sequence_lengths
from model_zoo.mmaudio.sampling import published
from model_zoo.mmaudio.sampling.settings import read_settings
from model_zoo.mmaudio.sampling.windows import plan
from tests.media_files import write_video
from tests.model_zoo.mmaudio.goldens import GOLDEN, needs_golden

needs_open_clip = pytest.mark.skipif(
    importlib.util.find_spec("open_clip") is None, reason="not installed: open_clip; pip install 'av-bench[paper]'"
)
SMALL: dict[str, Any] = {
    **CONFIG,
    "embed_dim": 1024,
    "vision_cfg": {**CONFIG["vision_cfg"], "layers": 1, "width": 64, "head_width": 32},
    "text_cfg": {**CONFIG["text_cfg"], "layers": 2, "width": 1024, "heads": 16},
}


def small_clip_weights() -> dict[str, torch.Tensor]:
    from open_clip.model import CLIP

    torch.manual_seed(0)
    state: dict[str, torch.Tensor] = CLIP(**SMALL).state_dict()
    return state


@pytest.fixture
def conditioner(monkeypatch: pytest.MonkeyPatch) -> OfficialConditioner:
    monkeypatch.setattr("model_zoo.mmaudio.conditions.clip_encoder.CONFIG", SMALL)
    torch.manual_seed(0)
    sync = {f"vfeat_extractor.{k}": v for k, v in VideoEncoder().state_dict().items()}
    return OfficialConditioner(small_clip_weights(), {**sync, "afeat_extractor.other": torch.zeros(1)})


@pytest.mark.paper
@needs_open_clip
def test_text_tokens_are_the_states_that_open_clip_pools() -> None:
    clip = CLIPEncoder(small_clip_weights(), SMALL).eval()
    texts = ["a dog barks, twice", ""]
    with torch.no_grad():
        ours = clip.text(texts)
        ids = clip.tokenizer(texts)
        pooled = ours[torch.arange(2), ids.argmax(dim=1)]
        theirs = clip.model.encode_text(ids, normalize=True)
        projected = torch.nn.functional.normalize(pooled @ clip.model.text_projection, dim=-1)
    assert ours.shape == (2, 77, 1024)
    torch.testing.assert_close(ours.norm(dim=-1), torch.ones(2, 77))
    torch.testing.assert_close(projected, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.paper
@needs_open_clip
def test_images_are_normalised_by_clips_own_statistics() -> None:
    clip = CLIPEncoder(small_clip_weights(), SMALL).eval()
    frames = torch.randint(0, 256, (2, 3, 384, 384), dtype=torch.uint8)
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    scaled = ((frames / 255).movedim(1, -1) - mean) / std
    with torch.no_grad():
        theirs = clip.model.encode_image(scaled.movedim(-1, 1), normalize=True)
        torch.testing.assert_close(clip.images(frames), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.paper
@needs_open_clip
def test_a_video_becomes_tokens_once(conditioner: OfficialConditioner, tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    write_video(path, seconds=1.1, fps=12)  # an odd rate: frames are repeated
    store = Store(tmp_path / "store")
    with torch.no_grad():
        clip, sync, seconds = stretches(conditioner, path, 1.0, 1.0, [0.0], store)
    assert seconds is not None
    assert seconds > 0
    assert clip.shape == (1, 8, 1024)
    assert sync.shape == (1, 16, 768)
    conditioner.clip.images = None  # type: ignore[assignment, method-assign]  # a second run must not need the networks
    again = stretches(conditioner, path, 1.0, 1.0, [0.0], Store(tmp_path / "store"))
    assert torch.equal(again[0], clip)
    assert torch.equal(again[1], sync)
    assert again[2] is None


@pytest.mark.paper
@needs_open_clip
def test_weights_cast_once_give_the_tokens_that_autocast_gives(
    conditioner: OfficialConditioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, with the processor's autocast in its place."""
    path = tmp_path / "v.mp4"
    write_video(path, seconds=0.7)
    media = decode(path, conditioner.requests, 0.64, audio=False)
    monkeypatch.setattr(OfficialConditioner, "precision", "bf16")
    with torch.no_grad():
        cast_each_time = (*conditioner.video(media, 0.64), conditioner.text("dog barking"))
        conditioner.to(torch.device("cpu"))
        assert conditioner.sync.norm.weight.dtype == torch.float32
        assert sum(p.dtype == torch.bfloat16 for p in conditioner.sync.parameters()) > 100
        cast_once = (*conditioner.video(media, 0.64), conditioner.text("dog barking"))
    for ours, wanted in zip(cast_once, cast_each_time, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=2e-2 * float(wanted.abs().max()))


@pytest.mark.paper
@needs_open_clip
def test_a_still_is_looked_at_once(conditioner: OfficialConditioner, tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", seconds=0.7)
    with torch.no_grad():
        tokens, _ = still(conditioner, tmp_path / "v.mp4", 1.0, 2, Store(tmp_path / "store"))
        again, seconds = still(conditioner, tmp_path / "v.mp4", 1.0, 2, Store(tmp_path / "store"))
    assert tokens.shape == (2, 8, 1024)
    assert torch.equal(tokens, tokens[:1, :1].expand(2, 8, -1))
    assert torch.equal(tokens, again)
    assert seconds is None


@pytest.mark.paper
@needs_open_clip
def test_a_text_becomes_tokens_once_and_keeps_its_price(conditioner: OfficialConditioner, tmp_path: Path) -> None:
    with torch.no_grad():
        tokens, seconds = words(conditioner, "dog barking", Store(tmp_path / "store"))
        other, _ = words(conditioner, "cat purring", Store(tmp_path / "store"))
    assert tokens.shape == (77, 1024)
    assert seconds > 0
    assert not torch.equal(tokens, other)
    conditioner.clip.text = None  # type: ignore[assignment, method-assign]  # a second run must not need the network
    again, price = words(conditioner, "dog barking", Store(tmp_path / "store"))
    assert torch.equal(again, tokens)
    assert price == seconds


@pytest.mark.paper
@needs_open_clip
def test_a_video_shorter_than_asked_is_refused(conditioner: OfficialConditioner, tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    write_video(path, seconds=1.0)
    media = decode(path, [CLIP_REQUEST, SYNC_REQUEST], 2.0)
    with pytest.raises(MediaError, match="8 frames from 0 s at 8 per second, 16 are needed") as caught:
        conditioner.video(media, 2.0)
    assert caught.value.reason is Reason.TOO_SHORT_VIDEO


def test_missing_official_files_are_named_in_the_first_second() -> None:
    """All of them at once, with one command for all."""
    with pytest.raises(MissingRequirement, match="5 weight files are missing") as caught:
        published.MMAudioSmall16k()
    command = re.search("av-bench weights pull (.*)", str(caught.value))
    assert command is not None
    names = command[1].split()
    assert names[:3] == ["mmaudio-small-16k", "mmaudio-vae-16k", "mmaudio-vocoder-16k"]
    assert all(files.get(name) for name in names)
    with pytest.raises(MissingRequirement, match="4 weight files are missing"):
        published.MMAudioSmall16k(vae="own.safetensors")  # the published VAE is not needed
    with pytest.raises(UsageError, match="unknown option 'stepz'; options are steps, cfg"):
        published.MMAudioLarge44k(stepz=3)
    with pytest.raises(UsageError, match="the adaptive solver chooses its own"):
        published.MMAudioLarge44k(steps=3, solver="adaptive")


@pytest.mark.parametrize("seconds", [8.0, 8.07, 9.03, 9.2, 12.34, 20.5, 29.99])
def test_a_video_that_is_exactly_long_enough_fills_every_window(seconds: float) -> None:
    latent, total = sequence_lengths("16k", 8.0)[0], sequence_lengths("16k", seconds)[0]

    class Media:
        path = Path("v.mp4")

        def frames(self, request: VideoRequest) -> torch.Tensor:
            return torch.arange(int(request.fps * seconds))  # as many as the decoder gives

    stretch = OfficialConditioner._stretch
    for start in plan(seconds, 8.0, 2.0, latent, total).starts:
        for request in (CLIP_REQUEST, SYNC_REQUEST):
            found = stretch(None, Media(), request, 8.0, start)  # type: ignore[arg-type]
            assert len(found) == int(8 * request.fps)
            assert 0 <= start - float(found[0]) / request.fps < 1 / request.fps + 1e-6


def test_options_of_a_model_spec() -> None:
    found = read_settings("mmaudio-l", {"steps": 10.0, "cfg": 3.0, "compile": "no", "negative": 3.0})
    assert (found.steps, found.cfg, found.compile, found.negative) == (10, 3.0, "no", "3")
    assert read_settings("mmaudio-l", {"compile": "graphs"}).compile == "graphs"
    latent, total = sequence_lengths("16k", published.LONGEST)[0], sequence_lengths("16k", 10.0)[0]
    assert (
        len(plan(10.0, read_settings("mmaudio-l", {}, window=published.LONGEST).window, 2.0, latent, total)) == 1
    )  # AudioCaps: one piece


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("steps", "x", "steps must be a whole number, got 'x'"),
        ("steps", 2.7, "steps must be a whole number, got 2.7"),
        ("steps", float("nan"), "steps must be a whole number"),
        ("cfg", "high", "cfg must be a number"),
        ("compile", "maybe", "compile must be auto, no, yes or graphs"),
    ],
)
def test_options_that_say_nothing_are_named(option: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_settings("mmaudio-l", {option: value})


@needs_golden
@pytest.mark.parametrize("rate", ["60", "30", "29.97", "25", "24", "23.976", "15", "12", "10", "5"])
def test_the_frames_of_the_demo_are_those_of_the_published_one(rate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = json.loads((GOLDEN / "full_size/frame_sampling.json").read_text())[rate]
    exact = {"29.97": Fraction(30_000, 1001), "23.976": Fraction(24_000, 1001)}.get(rate) or Fraction(rate)
    for name, fps in (("clip8", 8.0), ("sync25", 25.0)):
        found: list[int] = []
        picker = Picker(VideoRequest(fps, 8, "squash", "after"), len(wanted[name]))
        monkeypatch.setattr(picker, "_array", lambda frame: frame)
        monkeypatch.setattr(picker, "_wait", found.append)
        for index in range(wanted["n_in"]):
            picker.push(index / exact, index)
        assert found == wanted[name]
