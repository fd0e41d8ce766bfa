"""Drop-in for the published ``av_bench.evaluate``: two folders of feature files in, the published keys out.

Every metric uses the same clips: those both sides have in every file that is read. What one side lacks is reported in a
warning (the published code pairs differently from metric to metric, and drops in silence). Values that cannot be
computed raise MetricError; nothing is ever -1.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from av_bench import extractors, metrics
from av_bench.contracts import MetricError, UsageError
from av_bench.features import published_caches as caches
from av_bench.features.published_caches import CacheFile
from av_bench.weights import load_checkpoint

log = logging.getLogger(__name__)

AUDIO = (caches.PANNS, caches.VGGISH, caches.PASST, caches.PASST_LOGITS)
Rows = dict[str, Any]


def evaluate(
    gt_audio_cache: Path | str,
    pred_audio_cache: Path | str,
    *,
    is_paired: bool = True,
    num_samples: int = 1,
    skip_video_related: bool = False,
    skip_clap: bool = False,
) -> dict[str, float]:
    """Published metrics of a folder of predictions against a folder of ground truth.

    Keys: FD-VGG, FD-PANN, FD-PASST, ISC-PANNS-mean/-std, ISC-PASST-mean/-std; paired also KL-PANNS-softmax,
    KL-PASST-softmax, and, unless skipped or the ground truth has no such features, IB-Score, DeSync,
    LAION-CLAP-Score, MS-CLAP-Score.
    """
    if num_samples != 1:
        raise UsageError(
            f"num_samples={num_samples}: the published evaluation knows one sample per clip; use av-bench run"
        )
    truth, predictions = _Cache(Path(gt_audio_cache)), _Cache(Path(pred_audio_cache))
    for file in AUDIO:
        truth.need(file)
        predictions.need(file)
    if not is_paired:
        return _unpaired(truth, predictions)
    video = [] if skip_video_related else [p for p in _VIDEO if truth.has(p[0])]
    text = [] if skip_clap else [p for p in _TEXT if truth.has(p[0])]
    clips = _common(
        truth, predictions, [*AUDIO, *(p[0] for p in [*video, *text])], [*AUDIO, *(p[1] for p in [*video, *text])]
    )
    out = _unpaired(truth, predictions, clips)
    out["KL-PANNS-softmax"] = _kl(truth.panns("logits", clips), predictions.panns("logits", clips))
    out["KL-PASST-softmax"] = _kl(truth.rows(caches.PASST_LOGITS, clips), predictions.rows(caches.PASST_LOGITS, clips))
    for first, second, key in [*video, *text]:
        if key == "DeSync":
            out[key] = _desync(truth.rows(first, clips), predictions.rows(second, clips))
        else:
            out[key] = float(
                metrics.cosine_similarity(truth.rows(first, clips), predictions.rows(second, clips)).mean()
            )
    return out


_VIDEO = (
    (caches.IMAGEBIND_VIDEO, caches.IMAGEBIND_AUDIO, "IB-Score"),
    (caches.SYNCHFORMER_VIDEO, caches.SYNCHFORMER_AUDIO, "DeSync"),
)
_TEXT = (
    (caches.CLAP_TEXT, caches.CLAP_AUDIO, "LAION-CLAP-Score"),
    (caches.MSCLAP_TEXT, caches.MSCLAP_AUDIO, "MS-CLAP-Score"),
)


class _Cache:
    """One folder of ``*.pth`` feature files, loaded without running anything in them."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder of features; av_bench.extract.extract writes one")
        self.folder = folder
        self._files: dict[str, Rows] = {}

    def has(self, file: CacheFile) -> bool:
        return (self.folder / file.name).is_file()

    def need(self, file: CacheFile) -> Rows:
        if file.name not in self._files:
            path = self.folder / file.name
            if not self.has(file):
                raise UsageError(f"{path} is missing; the folder is not complete, extract it again")
            loaded = load_checkpoint(path)
            if not isinstance(loaded, Mapping):
                raise UsageError(f"{path}: clip name -> features is expected, found {type(loaded).__name__}")
            self._files[file.name] = dict(loaded)
        return self._files[file.name]

    def rows(self, file: CacheFile, clips: Iterable[str]) -> NDArray[Any]:
        table = self.need(file)
        return np.stack([_numpy(table[c]) for c in clips])

    def panns(self, output: str, clips: Iterable[str]) -> NDArray[Any]:
        table, key = self.need(caches.PANNS), caches.PANNS.keys[output]
        return np.stack([_numpy(table[c][key]).reshape(-1) for c in clips])


def _numpy(value: ArrayLike | torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = torch.as_tensor(value).detach().cpu().float().numpy()
    return array


def _common(truth: _Cache, predictions: _Cache, theirs: Iterable[CacheFile], ours: Iterable[CacheFile]) -> list[str]:
    """Clips in every file of both sides, sorted by name; the rest is a warning."""
    sets = [set(truth.need(f)) for f in theirs] + [set(predictions.need(f)) for f in ours]
    common, every = set.intersection(*sets), set.union(*sets)
    if not common:
        raise UsageError(
            f"no clip is in all feature files of {truth.folder} and {predictions.folder}; compare their names"
        )
    if every - common:
        missing = sorted(every - common)
        log.warning(
            "%d of %d clips are not in every feature file and are left out, e.g. %s",
            len(missing),
            len(every),
            missing[0],
        )
    return sorted(common)


def _unpaired(truth: _Cache, predictions: _Cache, clips: list[str] | None = None) -> dict[str, float]:
    ours = clips or _common(predictions, predictions, AUDIO, AUDIO)
    theirs = clips or _common(truth, truth, AUDIO, AUDIO)

    def patches(cache: _Cache, names: list[str]) -> NDArray[Any]:
        table = cache.need(caches.VGGISH)
        return np.concatenate([np.atleast_2d(_numpy(table[c])) for c in names])

    panns, passt = predictions.panns("logits", ours), predictions.rows(caches.PASST_LOGITS, ours)
    out = {
        "FD-VGG": metrics.frechet_distance(patches(truth, theirs), patches(predictions, ours)),
        "FD-PANN": metrics.frechet_distance(truth.panns("embedding", theirs), predictions.panns("embedding", ours)),
        "FD-PASST": metrics.frechet_distance(truth.rows(caches.PASST, theirs), predictions.rows(caches.PASST, ours)),
    }
    for key, logits in (("PANNS", panns), ("PASST", passt)):
        try:
            out[f"ISC-{key}-mean"], out[f"ISC-{key}-std"] = metrics.inception_score(logits)
        except MetricError as error:
            log.warning("ISC-%s is left out: %s", key, error)
    return out


def _kl(truth: NDArray[Any], predictions: NDArray[Any]) -> float:
    return float(metrics.kl_divergence(truth, predictions).mean())


def _desync(video: NDArray[Any], audio: NDArray[Any]) -> float:
    """Mean |offset| of both crops of every clip, in seconds; the head runs where the weights are."""
    head = extractors.load("synchformer")
    logits = []
    for start in range(0, len(video), head.batch_size):
        rows = head.run(list(video[start : start + head.batch_size]), list(audio[start : start + head.batch_size]))
        logits += [row["logits"] for row in rows]
    return float(metrics.desync(np.stack(logits)).mean())
