"""On a real GPU: the values of the CPU, no waiting inside the loop, the same samples however they are computed."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from av_bench import extractors
from av_bench.contracts import ClipSet
from av_bench.extractors.base import BaseExtractor
from av_bench.features.store import Store
from av_bench.runtime.devices import cast_once, single_precision
from av_bench.weights import load_state_dict
from model_zoo.mmaudio.config import NetworkConfig
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.flow.products import best_for
from model_zoo.mmaudio.nano.model import MMAudioNano
from model_zoo.mmaudio.sampling.recorded import Recorded
from model_zoo.mmaudio.sampling.settings import compiled
from model_zoo.mmaudio.training import loop
from tests.model_zoo.mmaudio.test_sample import clips, generator, run
from tests.model_zoo.mmaudio.training_tools import tiny_recipe

__all__ = ["clips"]  # a fixture
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
CONFIG = NetworkConfig(20, 128, 4, 2, 2, 250, 64, 192)


def network(v2: bool = False) -> FlowNetwork:
    torch.manual_seed(0)
    made = FlowNetwork(replace(CONFIG, v2=v2), empty_string=torch.randn(77, 1024) / 32)
    for parameter in made.parameters():
        if parameter.requires_grad and not bool(parameter.any()):
            torch.nn.init.normal_(parameter, std=0.02)
    return made.eval().requires_grad_(False)


def inputs(rows: int) -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    raw = torch.randn(rows, 64, 1024) / 32, torch.randn(rows, 192, 768), torch.randn(rows, 77, 1024) / 32
    return (torch.randn(rows, 250, 20), *raw, torch.rand(rows))


def far(a: Tensor, b: Tensor) -> float:
    return float((a.cpu().float() - b.cpu().float()).abs().max() / b.abs().max())


@pytest.mark.parametrize("v2", [False, True])
def test_the_flow_network_gives_the_cpus_values(v2: bool) -> None:
    on_cpu, given = network(v2), inputs(3)
    wanted, on_gpu = on_cpu(*given), copy.deepcopy(on_cpu).cuda()
    moved = [x.cuda() for x in given]
    with single_precision():
        assert far(on_gpu(*moved), wanted) < 1e-4
    with torch.autocast("cuda", torch.bfloat16):
        half = on_gpu(*moved)
        assert far(half, wanted) < 2e-2
        cast_once(on_gpu)
        torch.testing.assert_close(on_gpu(*moved), half, rtol=0, atol=0)


@pytest.mark.parametrize("half", [False, True])
def test_an_arranged_network_gives_the_cpus_values(half: bool) -> None:
    on_cpu, (x, *raw, t) = network(), inputs(3)
    wanted, on_gpu = on_cpu(x, *raw, t), copy.deepcopy(on_cpu).cuda()
    on_gpu.arrange(best_for(torch.device("cuda"), half, compiled=False))
    if half:
        cast_once(on_gpu)
    with torch.no_grad(), single_precision(), torch.autocast("cuda", torch.bfloat16, enabled=half):
        pre = on_gpu.preprocess(*(value.cuda() for value in raw))
        flow = Recorded(on_gpu.flow)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a graph that cannot be recorded
            found = [flow(x.cuda(), t.cuda(), on_gpu.ready(pre)) for _ in range(2)]
        assert torch.equal(found[0], found[1])
    assert far(found[0], wanted) < (2e-2 if half else 1e-4)


def test_attention_is_fused() -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    on_gpu, moved = network().cuda(), [x.cuda() for x in inputs(2)]
    fused = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]
    with torch.autocast("cuda", torch.bfloat16), sdpa_kernel(fused):
        on_gpu(*moved)


@pytest.mark.parametrize("how", ["yes", "graphs", "recorded"])
def test_compiled_and_replayed_networks_agree_and_keep_what_they_gave(how: Any) -> None:
    on_gpu = network().cuda()
    x, clip, sync, text, t = (value.cuda() for value in inputs(4))
    flow = Recorded(on_gpu.flow) if how == "recorded" else compiled(on_gpu.flow, how)
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        pre = on_gpu.preprocess(clip, sync, text)
        wanted = [on_gpu.flow(x * k, t, pre) for k in (1.0, 0.5, 0.25)]
        found = [flow(x * k, t, pre) for k in (1.0, 0.5, 0.25)]
    for one, other in zip(found, wanted, strict=True):
        assert far(one, other) < 1e-2


@pytest.mark.parametrize("name", ["nano-tagger", "nano-bind-audio", "nano-bind-video", "nano-sync-audio"])
def test_extractors_give_the_cpus_values(name: str) -> None:
    torch.manual_seed(2)
    shape = (16, 3, 64, 64) if name == "nano-bind-video" else (128_000,)
    item = torch.rand(shape).mul(255).byte() if len(shape) > 1 else 0.1 * torch.randn(shape)
    on_cpu, on_gpu = (extractors.load(name, None, device=device).run([item, item])[1] for device in ("cpu", "cuda"))
    for key, value in on_cpu.items():
        assert far(torch.from_numpy(on_gpu[key]), torch.from_numpy(value)) < 1e-4


@pytest.mark.parametrize("options", [{"batch": 1}, {"batch": 3}, {"batch": 2, "compile": "graphs"}])
def test_samples_are_the_cpus_whatever_their_company(clips: ClipSet, options: dict[str, Any]) -> None:
    wanted = run(generator(), clips, [0, 1, 2, 3])
    model = generator(**options)
    model.place("cuda")
    for _ in range(2):
        found = run(model, clips, [0, 1, 2, 3])
        assert {k: g.reason for k, g in found.items()} == {k: g.reason for k, g in wanted.items()}
        for key, sample in wanted.items():
            if sample.audio is not None:
                assert far(found[key].audio, sample.audio) < 5e-2


def test_a_cold_and_a_warm_store_give_the_same_waves(clips: ClipSet, tmp_path: Path) -> None:
    model = MMAudioNano(steps=4, batch=2, device="cuda")
    model.store = Store(tmp_path / "store")
    cold, warm = (run(model, clips, [0, 1, 3]) for _ in range(2))
    for key, sample in cold.items():
        torch.testing.assert_close(warm[key].audio, sample.audio, rtol=0, atol=0)


@pytest.mark.parametrize("seconds", [8.0, 20.0])
def test_nothing_waits_inside_the_sampling_loop(seconds: float) -> None:
    model = MMAudioNano(steps=3, device="cuda")
    model.setup(ClipSet("none", "1", ()), seconds, 0)
    noise = torch.randn(1, model.windows.total, 16, device="cuda")
    nothing = model.network.empty(len(model.windows))
    pre = nothing.join(nothing)
    model._solve(noise, pre)
    fade = model.windows.weights().cuda()
    object.__setattr__(model.windows, "weights", lambda: fade)  # copied once per sample, before the loop
    torch.cuda.set_sync_debug_mode("error")
    try:
        model._solve(noise, pre)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_full_device_halves_the_batch() -> None:
    class Hungry(BaseExtractor):
        name, outputs = "hungry", {"sum": "(B,)"}

        def forward(self, batch: Tensor) -> dict[str, Tensor]:
            room = torch.empty(len(batch), 2**28, device=batch.device)  # 1 GiB an item
            return {"sum": batch.sum(dim=1) + 0 * room[:, 0].nan_to_num()}

    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + 2.6 * 2**30) / total))
    try:
        found = Hungry(None, "0", device="cuda").run([torch.full((2,), float(k)) for k in range(8)])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert [float(row["sum"]) for row in found] == [2.0 * k for k in range(8)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_follows_the_cpu_and_a_resumed_run_repeats_itself(precision: str, tmp_path: Path) -> None:
    shared = {"precision": precision, "compile": False, "tensorboard": False, "deterministic": True}

    def last(name: str, device: str, steps: int = 6) -> dict[str, Tensor]:
        recipe = tiny_recipe(tmp_path, steps=steps, run={**shared, "device": device})
        file = loop.train(recipe, tmp_path / name, quiet=True) / "last.safetensors"
        return load_state_dict(file)

    on_cpu, on_gpu = last("cpu", "cpu"), last("gpu", "cuda")
    limit = 1e-3 if precision == "fp32" else 5e-2
    assert max(far(on_gpu[key], value) for key, value in on_cpu.items() if bool(value.any())) < limit
    last("again", "cuda", steps=4)
    for key, value in last("again", "cuda").items():
        torch.testing.assert_close(value, on_gpu[key], rtol=0, atol=0)
