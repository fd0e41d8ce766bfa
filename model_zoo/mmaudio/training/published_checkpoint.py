"""Import of checkpoints that the published MMAudio training wrote: current weights and tracked averages.

Such a file holds ``it``, ``weights``, ``optimizer``, ``scheduler`` and ``ema``; the averages lie under
``ema_models.<number>.ema_model.<name>``, in the order of their widths. Files of weights alone are taken, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from av_bench import weights
from av_bench.contracts import UsageError
from av_bench.weights import BadWeights
from model_zoo.mmaudio.config import variant
from model_zoo.mmaudio.flow.load import filled, header_of
from model_zoo.mmaudio.flow.network import DERIVED
from model_zoo.mmaudio.training.checkpoints import write_weights

WIDTHS = (0.05, 0.1)  # tracked by the published training
_AVERAGE = re.compile(r"ema_models\.(\d+)\.ema_model\.(.+)")


def import_checkpoint(file: Path, name: str, out: Path, widths: Sequence[float] = WIDTHS) -> list[Path]:
    """Write ``last.safetensors`` and ``ema-<width>.safetensors`` into ``out``, as training here would.

    ``name``: the variant. All are checked before the first is written: BadWeights names what does not fit.
    """
    content = weights.load_checkpoint(file)
    states = {"last": weights.load_state_dict(content if isinstance(content, Mapping) else file)}
    step = content.get("it") if isinstance(content, Mapping) else None
    averages = _averages(content.get("ema") if isinstance(content, Mapping) else None, file)
    if len(averages) > len(widths):
        raise UsageError(f"{file}: {len(averages)} averages, but {len(widths)} widths are named; name one for each")
    states |= {f"ema-{width:g}": state for width, state in zip(widths, averages, strict=False)}
    config = variant(name).network
    for key, state in states.items():
        own = {k: v for k, v in state.items() if k not in DERIVED}
        filled(config, own, f"{file} ({key})")
        states[key] = {k: v.float() for k, v in own.items()}
    written = []
    for key, state in states.items():
        about: dict[str, Any] = {"network": asdict(config), "recipe": f"published {name}", "weights": key}
        about |= {"step": step} if isinstance(step, int) else {}
        write_weights(out / f"{key}.safetensors", state, header_of(about))
        written.append(out / f"{key}.safetensors")
    return written


def _averages(content: object, file: Path) -> list[dict[str, torch.Tensor]]:
    if content is None:
        return []
    if not isinstance(content, Mapping):
        raise BadWeights(f"{file}: its averages (ema) are not tensors by name")
    found: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in content.items():
        match = _AVERAGE.fullmatch(str(key))
        if match and isinstance(value, torch.Tensor):
            found.setdefault(int(match[1]), {})[match[2]] = value
    if sorted(found) != list(range(len(found))) or not found:
        raise BadWeights(f"{file}: its averages (ema) have other names than ema_models.<number>.ema_model.<name>")
    return [found[number] for number in sorted(found)]
