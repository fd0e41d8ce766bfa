"""Reference packs: the same scores without the real audio, and published caches read without running them."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

import av_bench
from av_bench.contracts import AvBenchError, Need, Side, UsageError
from av_bench.features import reference_pack
from av_bench.metrics import frechet_distance
from av_bench.pipeline.make_pack import make_pack
from tests.media_files import tone, write_video

SIDES = get_args(Side)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(3)
    for i in range(6):
        audio = (0.1 * rng.standard_normal((1, 8 * 16_000)) * np.linspace(0, 1 + i, 8 * 16_000)).astype(np.float32)
        write_video(folder / f"c{i}.mp4", seconds=8, size=48, audio=audio.clip(-1, 1), sample_rate=16_000)
    return folder


def _values(result: object) -> dict[str, float]:
    return {name: entry["value"] for name, entry in result.scores["metrics"].items()}  # type: ignore[attr-defined]


def test_a_pack_replaces_the_real_side(data: Path, tmp_path: Path) -> None:
    samples = av_bench.run(set="clips", model="noise", data=data, out=tmp_path / "noise", quiet=True)
    own = av_bench.run(set="clips", samples=samples.path / "audio", data=data, out=tmp_path / "own", quiet=True)
    make_pack("clips", tmp_path / "pack", data, None, None, None, None, True, "cpu")
    packed = av_bench.run(
        set="clips",
        samples=samples.path / "audio",
        data=data,
        out=tmp_path / "packed",
        quiet=True,
        reference=tmp_path / "pack",
    )
    assert _values(packed) == _values(own)
    make_pack("clips", tmp_path / "stats", data, None, None, None, None, False, "cpu")
    bare = av_bench.run(
        set="clips",
        samples=samples.path / "audio",
        data=data,
        out=tmp_path / "bare",
        quiet=True,
        reference=tmp_path / "stats",
    )
    assert _values(bare)["FD-nano"] == pytest.approx(_values(own)["FD-nano"], rel=1e-5)
    assert "needs reference audio (or its features)" in bare.scores["absent"]["KL-nano"]
    assert not (tmp_path / "stats" / "features.safetensors").exists()


def test_a_pack_stands_for_everything_but_the_samples() -> None:
    rows = {name: {"embedding": np.ones(2, np.float32)} for name in ("a", "b")}
    pack = reference_pack.from_rows({}, {"x": rows, "v": rows}, {"x": "reference", "v": "video"}, keep=True)
    assert {side: pack.covers(Need("x", "embedding", side)) for side in SIDES} == {
        "reference": True, "generated": False, "video": True, "text": True,
    }  # fmt: skip
    assert not pack.covers(Need("y", "embedding", "reference"))
    assert pack.gaussian(Need("x", "embedding", "reference")) is not None
    assert pack.gaussian(Need("x", "embedding", "generated")) is None
    assert pack.gaussian(Need("v", "embedding", "reference")) is None  # FD is of reference audio, not of the videos
    assert pack.info["ids_hash"] == hashlib.sha256(b"a\nb").hexdigest()
    bare = reference_pack.from_rows({}, {"x": rows}, {"x": "reference"}, keep=False)
    assert not bare.covers(Need("x", "embedding", "reference"))


def test_a_pack_leaves_no_clip_out_in_silence(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_video(tmp_path / "data" / "a.mp4", seconds=8, size=48, audio=tone(8.0, 16_000), sample_rate=16_000)
    (tmp_path / "data" / "b.mp4").write_bytes(b"no video")
    with pytest.raises(UsageError, match=r"1 of 2 clips cannot be used, e\.g\. .*b\.mp4"):
        make_pack("clips", tmp_path / "pack", tmp_path / "data", None, None, ("FD-nano",), None, True, "cpu")
    assert not (tmp_path / "pack").exists()


def test_a_damaged_pack_is_refused(data: Path, tmp_path: Path) -> None:
    make_pack("clips", tmp_path / "pack", data, None, None, ("FD-nano",), None, False, "cpu")
    file = tmp_path / "pack" / "statistics.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UsageError, match="damaged"):
        reference_pack.read(tmp_path / "pack")
    with pytest.raises(UsageError, match="not a reference pack"):
        reference_pack.read(tmp_path)


def test_published_caches(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = {f"clip{i}": torch.from_numpy(rng.standard_normal(768).astype(np.float32)) for i in range(5)}
    torch.save(rows, tmp_path / "passt_features_embed.pth")
    torch.save(
        {k: {"2048": torch.ones(1, 2048), "logits": torch.ones(1, 527)} for k in rows}, tmp_path / "pann_features.pth"
    )
    torch.save(
        {k: torch.from_numpy(rng.standard_normal((8, 128)).astype(np.float32)) for k in rows},
        tmp_path / "vggish_features.pth",
    )
    pack = reference_pack.import_published(tmp_path, 8.0)
    reference_pack.write(pack, tmp_path / "pack")
    again = reference_pack.read(tmp_path / "pack")
    assert again.info["clips"] == 5
    assert again.features["panns"]["clip0"]["logits"].shape == (527,)
    vggish = again.statistics["vggish", "embedding"]
    assert vggish.n == 40
    table = np.stack([row.numpy() for row in rows.values()])
    np.testing.assert_allclose(again.statistics["passt", "embedding"].mean, table.mean(axis=0), atol=1e-6)
    assert frechet_distance(
        table, np.stack([r["embedding"] for r in again.features["passt"].values()])
    ) == pytest.approx(0, abs=1e-6)


class _Canary:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.mkdir, (self.path,)


def test_a_cache_that_runs_code_does_not(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "passt_features_embed.pth").write_bytes(pickle.dumps({"a": _Canary(str(canary))}))
    with pytest.raises(AvBenchError):
        reference_pack.import_published(tmp_path, 8.0)
    assert not canary.exists()
