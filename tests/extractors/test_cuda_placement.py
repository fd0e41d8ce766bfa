"""Every network on a GPU that is not there: what meets lies on one device, and only the result leaves it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from av_bench import registry
from av_bench.media.decode import decode
from benchmarks.extractors import random_weights
from tests.fake_cuda import CUDA, fake_cuda, needs_cuda_build
from tests.media_files import tone, write_video

SECONDS = 8.0
EMBEDDED = ["nano-tagger", "nano-bind-audio", "nano-bind-video", "nano-bind-text", "nano-sync-audio", "nano-sync-video"]
PAPER = [
    *("vggish", "panns", "passt", "clap-audio", "msclap-audio"),
    *("imagebind-audio", "imagebind-video", "synchformer-audio", "synchformer-video"),
]
pytestmark = [needs_cuda_build, pytest.mark.paper]
needs_packages = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("hear21passt", "imagebind", "laion_clap", "msclap")),
    reason="not installed: the paper's networks; pip install 'av-bench[paper]'",
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, seconds=SECONDS, size=64, audio=tone(SECONDS))
    return path


def run(name: str, clip: Path) -> None:
    """Two items through the network, as the pipeline does it."""
    kind = registry.load("extractors", name)
    with random_weights():
        extractor = kind.build(None, device="cpu", flavour="paper")
    requests = [kind.video_request] if kind.video_request is not None else []
    item = "a dog barks" if kind.modality == "text" else decode(clip, requests, SECONDS)
    ready = extractor.prepare(item, SECONDS)
    with fake_cuda():
        extractor.device = CUDA
        extractor.module.to(CUDA)
        rows = extractor.run([ready, ready])
    assert len(rows) == 2
    assert set(rows[0]) == set(kind.outputs)


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_networks_stay_on_the_device(name: str, clip: Path) -> None:
    run(name, clip)


@pytest.mark.paper
@needs_packages
@pytest.mark.parametrize("name", PAPER)
def test_networks_of_the_paper_stay_on_the_device(name: str, clip: Path) -> None:
    run(name, clip)


@pytest.mark.parametrize("name", ["nano-sync", "synchformer"])
def test_pair_heads_stay_on_the_device(name: str) -> None:
    kind = registry.load("extractors", name)
    with random_weights():
        head = kind.build(None, device="cpu", flavour="paper")
    shapes = {"nano-sync": ((200, 64), (200, 64)), "synchformer": ((24, 8, 768), (24, 6, 768))}[name]
    video, audio = (torch.zeros(shape).numpy() for shape in shapes)
    with fake_cuda():
        head.device = CUDA
        head.module.to(CUDA)
        rows = head.run([video] * 2, [audio] * 2)
    assert set(rows[0]) == set(kind.outputs)


def test_two_devices_are_noticed() -> None:
    with fake_cuda(), pytest.raises((RuntimeError, AssertionError)):
        torch.zeros(2, device=CUDA) + torch.zeros(2)
