"""A script written for av-benchmark, run unchanged on this package, against the published tool's own results."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from av_bench import weights
from av_bench.networks.packages import model_file, quiet
from tests.extractors import golden_pipeline as g

pytestmark = [
    pytest.mark.paper,
    g.needs_golden,
    g.needs_package("hear21passt", "panns_inference", "torchvggish", "msclap"),
]


def published_cache(folder: Path, side: str) -> None:
    """The feature files of one side as the published tool writes them, from its own stored features."""
    folder.mkdir()

    def save(file: str, key: str, source: str = side) -> None:
        torch.save(dict(zip(g.stems(), torch.from_numpy(g.golden(source, key)), strict=True)), folder / file)

    panns = zip(g.stems(), g.golden(side, "panns_2048"), g.golden(side, "panns_logits"), strict=True)
    torch.save(
        {s: {"2048": torch.from_numpy(a), "logits": torch.from_numpy(b)} for s, a, b in panns},
        folder / "pann_features.pth",
    )
    save("vggish_features.pth", "vggish")
    save("passt_features_embed.pth", "passt_features")
    save("passt_logits.pth", "passt_logits")
    save("imagebind_video.pth", "imagebind_video", "video")
    save("synchformer_video.pth", "synchformer_video", "video")
    save("clap_laion_text.pth", "clap_text", "text")


@pytest.fixture
def derived_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files in the official layouts with the golden run's weights, found where the lock file's would be."""
    files: dict[str, Path] = {}
    for entry in ("panns", "vggish", "passt", "synchformer", "imagebind", "laion-clap"):
        net = {"laion-clap": "clap"}.get(entry, entry)
        only = r"modality_\w+\.audio\." if entry == "imagebind" else None
        files[entry] = tmp_path / f"{entry}.pt"
        torch.save(g.rebuild(net, only), files[entry])
    files["ms-clap"] = tmp_path / "ms-clap.pt"  # not in the golden run: any values, only its file must be written
    with quiet():
        tower = model_file("msclap.models.clap").AudioEncoder("HTSAT", 768, 1024, 44_100, 1024, 320, 64, 50, 8000, 527)
    torch.save({f"audio_encoder.{key}": value for key, value in tower.state_dict().items()}, files["ms-clap"])
    monkeypatch.setattr(weights, "require", lambda name: files[name])


@pytest.mark.usefixtures("derived_weights")
def test_a_trainers_script_gives_the_published_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published_cache(tmp_path / "gt", "gt")
    audio = g.media("pred")[0].parent
    arguments = {"gt_cache": tmp_path / "gt", "pred_audio": audio, "pred_cache": tmp_path / "pred"}
    arguments["output"] = tmp_path / "output_metrics.json"
    monkeypatch.setattr(sys, "argv", ["trainer", *(f"--{k}={v}" for k, v in arguments.items())])
    runpy.run_path(str(Path(__file__).with_name("trainer_script.py")), run_name="__main__")
    ours = json.loads(arguments["output"].read_text())

    published = {
        "KL-PANNS-softmax": g.per_clip("kl_panns").mean(),
        "KL-PASST-softmax": g.per_clip("kl_passt").mean(),
        "IB-Score": g.per_clip("ib").mean(),
        "LAION-CLAP-Score": g.per_clip("clap").mean(),
        "DeSync": np.mean([np.abs(g.per_clip("desync_cropA")), np.abs(g.per_clip("desync_cropB"))]),
    }
    assert set(published) <= set(ours)
    for key, value in published.items():
        g.note(f"drop-in {key}", "published tool", ours[key], value, 2e-6, absolute=True)
