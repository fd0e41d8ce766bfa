"""LAION-CLAP end to end: wrapped official file -> our loader, real files and token ids -> embeddings and cosines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from av_bench import extractors
from av_bench.metrics import cosine_similarity
from av_bench.weights import BadWeights
from tests.extractors import golden_pipeline as gold

pytestmark = [pytest.mark.paper, gold.needs_golden, gold.needs_package("laion_clap", "transformers", "torchlibrosa")]


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file as published: "state_dict" with data-parallel prefixes, the dropped table, an optimiser beside it."""
    path = tmp_path_factory.mktemp("clap") / "official.pt"
    state = {f"module.{key}": value for key, value in gold.rebuild("clap").items()}
    state["module.text_branch.embeddings.position_ids"] = torch.arange(514)[None]
    torch.save({"epoch": 15, "name": "run", "state_dict": state, "optimizer": {"param_groups": [{"lr": 1e-4}]}}, path)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def audio(official: Path) -> dict[str, np.ndarray[Any, Any]]:
    extractor = extractors.load("clap-audio", official)
    return {side: extractor.features(gold.media(side), gold.SECONDS)["embedding"] for side in ("gt", "pred")}


@pytest.fixture(scope="module")
def text(official: Path) -> np.ndarray[Any, Any]:
    """Embeddings of the golden token ids; turning captions into ids is tested elsewhere."""
    with np.load(gold.PIPELINE / "clap_text_tokens.npz") as stored:
        ids, mask = torch.from_numpy(stored["input_ids"]), torch.from_numpy(stored["attention_mask"])
    rows = extractors.load("clap-text", official).run(list(torch.stack([ids, mask], dim=1)))
    return np.stack([row["embedding"] for row in rows])


@pytest.mark.parametrize("side", ["gt", "pred"])
def test_audio_embeddings_are_the_originals(audio: dict[str, np.ndarray[Any, Any]], side: str) -> None:
    reference = gold.golden(side, "clap_audio")
    gold.note(f"clap-audio, {side} audio of 3 clips", "golden run", audio[side], reference, 1e-4)
    assert gold.relative(np.roll(audio[side], 1, axis=0), reference) > 1e-2


def test_text_embeddings_are_the_originals(text: np.ndarray[Any, Any]) -> None:
    reference = gold.golden("text", "clap_text")
    gold.note("clap-text, 3 captions", "golden run", text, reference, 1e-4)
    assert gold.relative(np.roll(text, 1, axis=0), reference) > 1e-2


@pytest.mark.parametrize(("side", "metric"), [("pred", "clap"), ("gt", "extra_clap_gt_audio")])
def test_score_of_every_clip_is_the_originals(
    audio: dict[str, np.ndarray[Any, Any]], text: np.ndarray[Any, Any], side: str, metric: str
) -> None:
    ours = cosine_similarity(text, audio[side])
    gold.note(f"CLAP of 3 clips, {side} audio", "golden run", ours, gold.per_clip(metric), 1e-4, absolute=True)


@pytest.mark.parametrize("name", ["clap-audio", "clap-text"])
def test_a_file_with_another_networks_keys_is_refused_by_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save({"audio_branch.foreign": torch.zeros(1), "text_branch.foreign": torch.zeros(1)}, path)
    with pytest.raises(BadWeights, match=r"missing keys.*unexpected keys.*foreign"):
        extractors.load(name, path)
