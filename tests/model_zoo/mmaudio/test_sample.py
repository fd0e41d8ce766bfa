"""Sampling: solvers against closed forms and golden steps, windows, and the generator on real video files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from av_bench.contracts import Clip, ClipSet, Decoded, MediaError, Reason, UsageError, VideoRequest
from model_zoo.mmaudio.config import NetworkConfig
from model_zoo.mmaudio.flow import matching, solvers
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.sampling import settings, windows
from model_zoo.mmaudio.sampling.generator import MMAudio
from model_zoo.mmaudio.sampling.settings import Settings
from tests.media_files import write_video
from tests.model_zoo.mmaudio.goldens import GOLDEN, needs_golden

REQUEST = VideoRequest(25.0, 16, "center")


class Codec:
    """Latents of 4 channels are the wave itself, 100 samples at 400 Hz per frame and channel."""

    sample_rate, latent_dim = 400, 4

    def latent_len(self, seconds: float) -> int:
        return math.ceil(seconds * self.sample_rate / 100)

    def encode(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        mean = wave.view(len(wave), -1, 4, 25).mean(-1)
        return mean, torch.zeros_like(mean)

    def decode(self, latent: Tensor) -> Tensor:
        return latent.repeat_interleave(25, dim=-1).flatten(1)

    def to(self, _device: torch.device) -> Codec:
        return self


class Conditioner:
    """Mean colours of frames, at 2 and 25 per second; a text is its letters."""

    requests: tuple[VideoRequest, ...] = (REQUEST,)
    fingerprint, precision = "test", "fp32"
    device = torch.device("cpu")

    def lengths(self, seconds: float) -> tuple[int, int]:
        return int(2 * seconds), int(25 * seconds) // 8 * 8

    def video(self, media: Decoded, seconds: float, start: float = 0.0) -> tuple[Tensor, Tensor]:
        frames = media.frames(REQUEST)[round(25 * start) :][: round(25 * seconds)].float().mean(dim=(2, 3)) / 255
        if len(frames) < round(25 * seconds):
            raise MediaError(media.path, Reason.TOO_SHORT_VIDEO, f"{len(frames)} frames")
        clip, sync = self.lengths(seconds)
        return frames[:: len(frames) // clip][:clip], frames[:sync]

    def text(self, text: str) -> Tensor:
        letters = torch.tensor([ord(c) % 16 for c in text.ljust(6)[:6]]).float()
        return letters[:, None].expand(-1, 5) / 16

    def to(self, _device: torch.device) -> Conditioner:
        return self


def generator(**options: Any) -> MMAudio:
    torch.manual_seed(1)
    config = NetworkConfig(4, 16, 3, 1, 2, 32, 16, 200, clip_dim=3, sync_dim=3, text_dim=5, text_len=6)
    network = FlowNetwork(config, latent_mean=torch.zeros(4), latent_std=torch.full((4,), 0.2))
    for parameter in network.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.15)
    return MMAudio("tiny", network.eval(), Codec(), Conditioner(), Settings(**{"steps": 4, **options}))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipSet:
    folder = tmp_path_factory.mktemp("clips")
    rows = []
    for i in range(4):
        path = folder / f"c{i}.mp4"
        write_video(path, seconds=8.2 if i != 2 else 3.0)
        rows.append(Clip(f"c{i}", path, text=f"thing {i}" if i != 3 else None))
    return ClipSet("four", "1", tuple(rows))


def run(model: MMAudio, clips: ClipSet, which: list[int], samples: int = 1, seed: int = 7) -> dict[str, Any]:
    model.setup(clips, 8.0, seed)
    found = model.generate([clips.clips[i] for i in which], seed, samples)
    return {f"{g.clip_id}~{g.sample}": g for g in found}


# --------------------------------------------------------------------------- solvers


@needs_golden
def test_interpolation_and_euler_steps_of_the_published_code() -> None:
    golden = torch.load(GOLDEN / "mmaudio_tiny/flow_matching.pt", weights_only=True)
    x0, x1, t = golden["x0"], golden["x1"], golden["t"]
    torch.testing.assert_close(matching.interpolate(x0, x1, t), golden["xt_sigma0"])
    torch.testing.assert_close(matching.loss_per_sample(golden["v"], matching.target(x0, x1)), golden["loss_sigma0"])
    seen: list[float] = []

    def watch(x: Tensor, t: Tensor) -> Tensor:
        seen.append(t[0].item())
        return x

    solvers.euler(watch, torch.zeros(1, 1), 25)
    torch.testing.assert_close(torch.tensor(seen), golden["euler_steps_25"][:-1])
    torch.testing.assert_close(golden["randn"].sigmoid(), golden["logit_normal_t"])


@pytest.mark.parametrize(
    ("name", "order", "evaluations"), [("euler", 1, 1), ("heun", 2, 2), ("midpoint", 2, 2), ("multistep", 2, 1)]
)
def test_errors_of_solvers_fall_with_their_order(name: str, order: int, evaluations: int) -> None:
    """x' = -3 x + cos 4 t, x(0) = 1, in double precision: twice the steps, 2^order times less error."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        calls.append(t[0].item())
        return -3 * x + torch.cos(4 * t.double())[:, None]

    exact = (3 * math.cos(4) + 4 * math.sin(4)) / 25 + (1 - 3 / 25) * math.exp(-3)
    errors = []
    for steps in (100, 200):
        calls: list[float] = []
        found = solvers.WITH_STEPS[name](velocity, torch.ones(1, 1, dtype=torch.float64), steps)
        errors.append(abs(float(found) - exact))
        assert len(calls) == evaluations * steps
        assert min(calls) == 0
        assert max(calls) <= 1
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.15)
    with pytest.raises(UsageError, match="steps must be at least 1"):
        solvers.WITH_STEPS[name](velocity, torch.ones(1, 1), 0)


def test_adaptive_reaches_the_analytic_solution_and_items_do_not_influence_each_other() -> None:
    rates = torch.tensor([-1.0, -40.0, 2.0])
    calls = 0

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return rates[: len(x), None] * x + torch.cos(20 * t)[:, None]

    def exact(a: Tensor) -> Tensor:
        """x' = a x + cos 20 t, x(0) = 1."""
        a = a.double()
        particular = (-a * math.cos(20) + 20 * math.sin(20)) / (a**2 + 400)
        return (1 + a / (a**2 + 400)) * a.exp() + particular

    together = solvers.adaptive(velocity, torch.ones(3, 1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together[:, 0].double(), exact(rates), rtol=1e-3, atol=1e-4)
    assert calls > 7
    alone = solvers.adaptive(velocity, torch.ones(1, 1), rtol=1e-5, atol=1e-5)
    assert torch.equal(alone[0], together[0])
    with pytest.raises(UsageError, match="did not reach"):
        solvers.adaptive(velocity, torch.ones(3, 1), most=2)


def test_adaptive_tries_again_after_an_overflow_and_a_lost_item_costs_the_others_nothing() -> None:
    calls = 0

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        slope = -x.clone()
        if 2 < calls < 6:
            slope[0] = math.inf  # within the first step only
        if len(x) == 3:
            slope[2] = torch.where(t[2] > 0.5, math.nan, slope[2])
        return slope

    found = solvers.adaptive(velocity, torch.ones(3, 1))
    torch.testing.assert_close(found[:2, 0], torch.full((2,), math.exp(-1)), rtol=1e-3, atol=0)
    assert bool(found[2].isnan().all())
    assert torch.equal(solvers.adaptive(lambda x, _: -x, torch.ones(1, 1))[0], found[1])


# --------------------------------------------------------------------------- windows


@pytest.mark.parametrize(("seconds", "count"), [(6.0, 1), (8.0, 1), (9.0, 2), (20.0, 3), (30.5, 5)])
def test_windows_cover_the_clip_and_blend_to_one(seconds: float, count: int) -> None:
    total = round(31.25 * seconds)
    cut = windows.plan(seconds, 8.0, 2.0, min(250, total), total)
    assert len(cut) == count
    assert cut.first[-1] + cut.frames == total
    x = torch.randn(2, total, 3)
    torch.testing.assert_close(cut.merge(cut.split(x), cut.weights()), x)
    rate = total / seconds
    assert all(abs(f / rate - s) < 0.5 / rate + 1e-9 for s, f in zip(cut.starts, cut.first, strict=True))
    with pytest.raises(UsageError, match="overlap"):
        windows.plan(20.0, 8.0, 8.0, 250, 625)


# --------------------------------------------------------------------------- the generator


def test_samples_have_the_asked_length_and_depend_on_seed_and_id_only(clips: ClipSet) -> None:
    model = generator()
    first, again = run(model, clips, [0, 1, 3], samples=2), run(model, clips, [1])
    assert [*first] == ["c0~0", "c0~1", "c1~0", "c1~1", "c3~0", "c3~1"]
    assert all(g.audio.shape == (1, 3200) and g.sample_rate == 400 for g in first.values())
    assert torch.equal(first["c1~0"].audio, again["c1~0"].audio)
    assert not torch.equal(first["c1~0"].audio, first["c1~1"].audio)
    assert not torch.equal(first["c1~0"].audio, run(model, clips, [1], seed=8)["c1~0"].audio)
    assert set(first["c3~1"].timings) == {"features", "generation", "decoding"}
    assert not first["c0~0"].timings  # the first two samples warm up


def test_a_video_that_is_too_short_loses_only_itself(clips: ClipSet) -> None:
    found = run(generator(), clips, [1, 2, 3])
    assert found["c2~0"].reason is Reason.TOO_SHORT_VIDEO
    assert found["c2~0"].audio is None
    assert found["c3~0"].audio is not None


def test_conditions_matter_and_can_be_left_out(clips: ClipSet) -> None:
    outputs = {c: run(generator(conditions=c), clips, [0])["c0~0"].audio for c in ("both", "video", "text", "none")}
    values = list(outputs.values())
    assert not any(torch.equal(a, b) for i, a in enumerate(values) for b in values[:i])
    negative = run(generator(negative="voices"), clips, [0])["c0~0"].audio
    assert not torch.equal(negative, outputs["both"])


def test_guidance_in_one_batch_equals_two_passes(clips: ClipSet) -> None:
    model = generator(cfg=3.0)
    ours = run(model, clips, [0])["c0~0"].audio
    inputs = model._read(clips.clips[0])
    assert inputs.visual is not None
    assert inputs.sync is not None
    assert inputs.text is not None
    network = model.network
    with torch.no_grad():
        real, empty = network.preprocess(inputs.visual, inputs.sync, inputs.text), network.empty(1)
        x = matching.noise((32, 4), 7, "c0")[None]
        for k in range(4):
            t = torch.tensor([k / 4])
            one, other = network.flow(x, t, real), network.flow(x, t, empty)
            x = x + 0.25 * (3.0 * one - 2.0 * other)
        wanted = Codec().decode(network.unnormalize(x))
    torch.testing.assert_close(ours, wanted[:, :3200], rtol=1e-4, atol=1e-5)
    assert not torch.equal(ours, run(generator(cfg=0.0), clips, [0])["c0~0"].audio)


def test_guidance_of_one_is_the_conditional_pass_alone(clips: ClipSet) -> None:
    """At 1 the unconditional velocity cancels out: one row a step, and the two-pass result up to rounding."""
    model, rows = generator(cfg=1.0), set()
    flow_of = model.network.flow
    model._flow = lambda x, t, pre: (rows.add(len(x)), flow_of(x, t, pre))[1]
    ours = run(model, clips, [0])["c0~0"].audio
    assert rows == {1}
    two_passes = run(generator(cfg=1.0 + 1e-9), clips, [0])["c0~0"].audio
    torch.testing.assert_close(ours, two_passes, rtol=0, atol=1e-5)
    assert not torch.allclose(ours, run(generator(cfg=1.5), clips, [0])["c0~0"].audio, rtol=0, atol=1e-3)


def test_precision_changes_samples_a_little_and_is_part_of_their_identity(
    clips: ClipSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(**options: Any) -> tuple[Tensor, str]:
        model = generator(**options)
        model.identity = "weights"
        model.place("cpu")
        model.place("cpu")  # a run places a model that placed itself
        return run(model, clips, [0])["c0~0"].audio, model.identity

    (usual, name), (full, same), (half, other) = made(), made(precision="fp32"), made(precision="bf16")
    assert torch.equal(usual, full)
    assert (name, same, other) == ("weights", "weights", "weights@bf16")
    difference = float((half - full).abs().max() / full.abs().max())
    assert 1e-5 < difference < 0.1
    for able in (True, False):
        monkeypatch.setattr(settings, "multiplies_bf16", lambda able=able: able)
        wave, identity = made(precision="auto")
        assert identity == ("weights@bf16" if able else "weights")
        assert torch.equal(wave, half if able else full)


def test_offload_has_one_part_on_the_device_at_a_time(clips: ClipSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is "on the device" is seen by when a part is moved: to it before its work, away before the next one's."""
    wanted = run(generator(negative="voices"), clips, [0, 1, 2], samples=2)
    model = generator(offload="yes", negative="voices")
    log: list[str] = []
    for name in ("network", "codec", "conditioner"):
        part = vars(model)[name]
        move = part.to
        monkeypatch.setattr(part, "to", lambda device, name=name, move=move: (log.append(name), move(device))[1])
    model.place("cpu")
    assert log == ["network", "codec", "conditioner"]  # all to rest
    log.clear()
    work = {"conditioner": (model.conditioner, "text"), "network": (model, "_flow"), "codec": (model.codec, "decode")}
    for name, (owner, method) in work.items():
        do = getattr(owner, method)
        monkeypatch.setattr(owner, method, lambda *a, name=name, do=do: (log.append(f"{name} works"), do(*a))[1])
    found = run(model, clips, [0, 1, 2], samples=2)
    steps = [entry for n, entry in enumerate(log) if n == 0 or entry != log[n - 1]]
    assert steps == [
        *("conditioner", "conditioner works", "conditioner"),
        *("network", "network works", "network"),
        *("codec", "codec works", "codec"),
    ]
    assert found["c2~0"].reason is Reason.TOO_SHORT_VIDEO
    assert all(torch.equal(found[k].audio, wanted[k].audio) for k in wanted if wanted[k].audio is not None)


def test_a_compiled_network_always_gets_full_batches(clips: ClipSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU another batch size is another compilation; the rows that fill it up leave no trace."""
    alone = run(generator(), clips, [0, 1, 3])
    model, sizes = generator(), []
    flow_of = model.network.flow
    model.settings = Settings(steps=4, compile="yes", batch=2)
    monkeypatch.setattr(MMAudio, "_at_once", 2)
    monkeypatch.setattr(MMAudio, "_alone", False)
    model._flow = lambda x, t, pre: (sizes.append(len(x)), flow_of(x, t, pre))[1]
    found = run(model, clips, [0, 1, 2, 3])  # clip 2 is too short
    assert set(sizes) == {4}  # two samples, with and without condition
    assert [g.audio is None for g in found.values()] == [False, False, True, False]
    for key, sample in alone.items():
        torch.testing.assert_close(found[key].audio, sample.audio, rtol=0, atol=1e-5)


@pytest.mark.parametrize("seconds_of_window", [8.0, 5.0])
def test_guidance_from_a_time_on(clips: ClipSet, seconds_of_window: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before that time one pass is made, and its velocity is that of no guidance; after it, that of guidance."""
    plain = {"window": seconds_of_window, "batch": 1, "steps": 4}
    rows: list[tuple[float, int]] = []

    def sample(**options: Any) -> torch.Tensor:
        model, rows[:] = generator(**plain, **options), []
        flow = model._flow

        def counted(latent: torch.Tensor, t: torch.Tensor, given: Any) -> torch.Tensor:
            rows.append((float(t[0]), len(latent)))
            return flow(latent, t, given)

        monkeypatch.setattr(model, "_flow", counted)
        found: torch.Tensor = run(model, clips, [0])["c0~0"].audio
        return found

    never, always = sample(cfg=1.0), sample(cfg=3.0)
    late = sample(cfg=3.0, guide_from=0.4)
    assert dict(rows) == {0.0: 1, 0.25: 1, 0.5: 2, 0.75: 2}
    torch.testing.assert_close(sample(cfg=3.0, guide_from=0.8), never, rtol=0, atol=1e-5)
    assert not torch.allclose(late, never, atol=1e-3)
    assert not torch.allclose(late, always, atol=1e-3)
    several = sample(cfg=3.0, guide_from=0.4, solver="adaptive")
    assert bool(torch.isfinite(several).all())


def test_adaptive_and_euler_agree_when_both_are_fine(clips: ClipSet) -> None:
    fine = run(generator(steps=400, cfg=1.0), clips, [0])["c0~0"].audio
    ours = run(generator(solver="adaptive", cfg=1.0), clips, [0])["c0~0"].audio
    torch.testing.assert_close(ours, fine, rtol=0, atol=0.02 * float(fine.abs().max()))


def test_solvers_of_second_order_come_to_the_same_sample(clips: ClipSet) -> None:
    fine = run(generator(steps=200, cfg=1.0), clips, [0])["c0~0"].audio
    for solver in ("heun", "midpoint", "multistep"):
        ours = run(generator(steps=25, solver=solver, cfg=1.0), clips, [0])["c0~0"].audio
        torch.testing.assert_close(ours, fine, rtol=0, atol=0.03 * float(fine.abs().max()))


def test_long_videos_in_windows(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    write_video(path, seconds=13.2)
    clips = ClipSet("long", "1", (Clip("long", path, text="x"),))
    model = generator(window=6.0)
    model.setup(clips, 13.0, 0)
    assert len(model.windows) == 3
    (found,) = model.generate(clips.clips, 0)
    assert found.audio is not None
    assert found.audio.shape == (1, 13 * 400)
    narrow, rows = generator(window=6.0, batch=2), []
    narrow.setup(clips, 13.0, 0)
    evaluate = narrow._flow
    narrow._flow = lambda x, t, pre: (rows.append(len(x)), evaluate(x, t, pre))[1]
    (again,) = narrow.generate(clips.clips, 0)
    assert rows == 4 * [4, 2]  # per step: two windows, then the third, each with and without condition
    assert again.audio is not None
    torch.testing.assert_close(again.audio, found.audio, rtol=0, atol=1e-5)


def test_a_clip_without_any_wanted_condition_gives_its_reason_not_a_sample(clips: ClipSet) -> None:
    mixed = ClipSet("mixed", "1", (clips.clips[0], Clip("silent-text", text="rain"), Clip("nothing", text=" ")))
    reasons: dict[str, dict[str, Reason | None]] = {}
    for conditions in ("video", "text", "both", "none"):
        model = generator(conditions=conditions)
        model.setup(mixed, 8.0, 0)
        reasons[conditions] = {g.clip_id: g.reason for g in model.generate(mixed.clips, 0)}
    missing = Reason.NO_VIDEO
    assert reasons["video"] == {"c0": None, "nothing": missing, "silent-text": missing}
    assert reasons["text"] == {"c0": None, "nothing": Reason.NO_TEXT, "silent-text": None}
    assert reasons["both"] == {"c0": None, "nothing": missing, "silent-text": None}
    assert set(reasons["none"].values()) == {None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cfg": math.nan}, "cfg must be a number"),
        ({"solver": "magic"}, "solver must be one of"),
        ({"frames": "all"}, "frames must be one of filter, demo"),
        ({"offload": "maybe"}, "offload must be one of yes, no"),
        ({"precision": "fp16"}, "precision must be one of bf16, fp32, auto"),
        ({"conditions": "smell"}, "conditions must be"),
        ({"steps": 0}, "at least 1"),
        ({"window": 2.0}, "window must be 3 s or longer"),
        ({"window": math.nan}, "window must be 3 s or longer"),
        ({"negative": "music", "cfg": 0.5}, "which cfg=0.5 leaves out"),
        ({"guide_from": 1.0}, "guide_from must be at least 0 and below 1"),
        ({"guide_from": 0.4, "cfg": 1.0, "given": frozenset({"guide_from"})}, "with cfg=1 there is none"),
        ({"negative": "music", "cfg": 1.0}, "which cfg=1 leaves out"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Settings(**options)


@pytest.mark.parametrize(
    ("conditions", "clip", "wanted"),
    [
        ("video", Clip("a", text="rain"), "has a video"),
        ("text", Clip("a", Path("a.mp4"), text=" "), "has a text"),
        ("both", Clip("a"), "has a video or a text"),
    ],
)
def test_a_set_without_any_wanted_condition_is_refused(conditions: str, clip: Clip, wanted: str) -> None:
    with pytest.raises(UsageError, match=f"no clip of set texts {wanted};"):
        generator(conditions=conditions).setup(ClipSet("texts", "1", (clip,)), 8.0, 0)


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_a_duration_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(UsageError, match="must last longer than 0 s"):
        generator(conditions="none").setup(ClipSet("none", "1", (Clip("a"),)), seconds, 0)
