"""PaSST, PANNs and VGGish end to end: official file -> our loader, real file -> features, against the original."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from av_bench import extractors
from av_bench.metrics import kl_divergence
from tests.extractors import golden_pipeline as gold

pytestmark = [
    pytest.mark.paper,
    gold.needs_golden,
    gold.needs_package("hear21passt", "panns_inference", "torchvggish", "torchlibrosa", "timm"),
]

OUTPUTS = {
    "passt": {"embedding": "passt_features", "logits": "passt_logits"},
    "panns": {"embedding": "panns_2048", "logits": "panns_logits"},
    "vggish": {"embedding": "vggish"},
}
Rows = dict[str, dict[str, np.ndarray[Any, Any]]]


def wrap(name: str, state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """As the publisher wrapped it: PANNs under "model" beside numpy objects of the training sampler."""
    if name != "panns":
        return state
    sampler = {"pointers": np.arange(3), "indexes": [np.int64(5)], "rate": np.float64(0.5)}
    return {"iteration": 600_000, "model": state, "sampler": sampler}


@pytest.fixture(scope="module", params=list(OUTPUTS))
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Rows]]:
    """Our features of both sides of the three clips."""
    path: Path = tmp_path_factory.mktemp(request.param) / "official.pth"
    torch.save(wrap(request.param, gold.rebuild(request.param)), path)
    extractor = extractors.load(request.param, path)
    yield request.param, {side: extractor.features(gold.media(side), gold.SECONDS) for side in ("gt", "pred")}
    path.unlink()


@pytest.mark.parametrize("side", ["gt", "pred"])
def test_features_of_real_files_are_the_originals(network: tuple[str, Rows], side: str) -> None:
    name, rows = network
    assert set(rows[side]) == set(OUTPUTS[name])
    for output, key in OUTPUTS[name].items():
        reference = gold.golden(side, key)
        gold.note(f"{name} {output}, {side} audio of 3 clips", "golden run", rows[side][output], reference, 1e-4)
        # The clips must differ by much more than the tolerance, or agreement would prove nothing.
        assert gold.relative(np.roll(rows[side][output], 1, axis=0), reference) > 1e-2


@pytest.mark.parametrize("network", ["passt", "panns"], indirect=True)
def test_kl_of_every_clip_is_the_originals(network: tuple[str, Rows]) -> None:
    name, rows = network
    ours = kl_divergence(rows["gt"]["logits"], rows["pred"]["logits"])
    gold.note(f"KL-{name} of 3 clips", "golden run", ours, gold.per_clip(f"kl_{name}"), 1e-4, absolute=True)
