"""The drop-in keeps the published signature and keys, and one population for all metrics."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch

from av_bench import metrics
from av_bench.contracts import UsageError
from av_bench.evaluate import evaluate
from av_bench.extract import extract

CLIPS = [f"clip_{i:02d}" for i in range(24)]


def cache(folder: Path, seed: int, clips: list[str] = CLIPS) -> dict[str, dict[str, np.ndarray]]:
    """A folder of feature files as av-benchmark writes them; returns the arrays."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    rows = {
        "2048": {c: rng.standard_normal(2048).astype(np.float32) for c in clips},
        "logits": {c: rng.standard_normal(527).astype(np.float32) for c in clips},
        "vggish": {c: rng.standard_normal((8, 128)).astype(np.float32) for c in clips},
        "passt": {c: rng.standard_normal(768).astype(np.float32) for c in clips},
        "passt_logits": {c: rng.standard_normal(527).astype(np.float32) for c in clips},
        "ib": {c: rng.standard_normal(1024).astype(np.float32) for c in clips},
    }

    def save(name: str, table: dict[str, object]) -> None:
        torch.save(table, folder / name)

    save("pann_features.pth", {c: {k: torch.from_numpy(rows[k][c]) for k in ("2048", "logits")} for c in clips})
    for name, key in (
        ("vggish_features.pth", "vggish"),
        ("passt_features_embed.pth", "passt"),
        ("passt_logits.pth", "passt_logits"),
        ("clap_laion_audio.pth", "ib"),
        ("clap_laion_text.pth", "ib"),
    ):
        save(name, {c: torch.from_numpy(rows[key][c]) for c in clips})
    return rows


def table(rows: dict[str, np.ndarray], clips: list[str] = CLIPS) -> np.ndarray:
    return np.stack([rows[c] for c in clips])


def test_published_keys_and_values(tmp_path: Path) -> None:
    truth, mine = cache(tmp_path / "gt", 0), cache(tmp_path / "pred", 1)
    out = evaluate(tmp_path / "gt", tmp_path / "pred", skip_video_related=True)
    assert set(out) == {
        "FD-VGG", "FD-PANN", "FD-PASST", "KL-PANNS-softmax", "KL-PASST-softmax", "ISC-PANNS-mean", "ISC-PANNS-std",
        "ISC-PASST-mean", "ISC-PASST-std", "LAION-CLAP-Score",
    }  # fmt: skip
    assert out["FD-PANN"] == metrics.frechet_distance(table(truth["2048"]), table(mine["2048"]))
    assert out["FD-VGG"] == metrics.frechet_distance(
        np.concatenate(list(truth["vggish"].values())), np.concatenate(list(mine["vggish"].values()))
    )
    assert out["KL-PASST-softmax"] == pytest.approx(
        metrics.kl_divergence(table(truth["passt_logits"]), table(mine["passt_logits"])).mean()
    )
    assert all(isinstance(v, float) for v in out.values())


def test_clips_missing_on_one_side_are_out_of_every_metric(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    truth = cache(tmp_path / "gt", 0)
    mine = cache(tmp_path / "pred", 1, CLIPS[:20])
    out = evaluate(tmp_path / "gt", tmp_path / "pred", skip_video_related=True, skip_clap=True)
    assert "4 of 24 clips" in caplog.text
    expected = metrics.frechet_distance(table(truth["passt"], CLIPS[:20]), table(mine["passt"], CLIPS[:20]))
    assert out["FD-PASST"] == expected


def test_unpaired_and_missing_files(tmp_path: Path) -> None:
    cache(tmp_path / "gt", 0)
    cache(tmp_path / "pred", 1)
    out = evaluate(tmp_path / "gt", tmp_path / "pred", is_paired=False)
    assert "KL-PANNS-softmax" not in out
    (tmp_path / "pred/passt_logits.pth").unlink()
    with pytest.raises(UsageError, match=r"passt_logits\.pth is missing"):
        evaluate(tmp_path / "gt", tmp_path / "pred")


def test_ten_clips_have_no_inception_score(tmp_path: Path) -> None:
    cache(tmp_path / "gt", 0, CLIPS[:10])
    cache(tmp_path / "pred", 1, CLIPS[:10])
    out = evaluate(tmp_path / "gt", tmp_path / "pred", skip_video_related=True)
    assert not any(key.startswith("ISC") for key in out)  # absent, neither NaN nor 1.0


def test_signatures_are_the_published_ones() -> None:
    names = list(inspect.signature(evaluate).parameters)
    assert names == [
        "gt_audio_cache",
        "pred_audio_cache",
        "is_paired",
        "num_samples",
        "skip_video_related",
        "skip_clap",
    ]
    names = list(inspect.signature(extract).parameters)
    assert names[:4] == ["audio_path", "output_path", "audio_length", "batch_size"]
    assert {"num_workers", "device", "skip_video_related", "skip_clap"} <= set(names)


def test_extract_refuses_before_loading_networks(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no wav or flac"):
        extract(tmp_path, tmp_path / "out")
    with pytest.raises(UsageError, match="audio_length"):
        extract(tmp_path, tmp_path / "out", audio_length=None)  # type: ignore[arg-type]
