"""Weights out of names: both programs of a comparison get the same ones, and no checkpoint is needed.

A tensor follows from its key and shape alone. The draws are the raw bits of PCG64, seeded by the crc32 of the key, read
as evenly spread numbers of unit variance: no library's normal distribution is involved, so they stay the same in every
version. Scales are chosen so that activations neither vanish nor explode and clips differ in what comes out.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# What a network computes for itself: front-end matrices, index tables, masks, fixed scales.
OWN = re.compile(
    r"spectrogram_extractor\.|logmel_extractor\.|attn_mask$|relative_position_index$|position_ids$|token_type_ids$"
    r"|num_batches_tracked$|text\.mask$|log_logit_scale$|activation.*filter$|^attn_mask$"
)
RECTIFIED = re.compile(r"^features\.|^embeddings\.|^conv_block|^fc1\.")  # VGG-like stacks with ReLU between the layers


def draws(key: str, count: int) -> NDArray[np.float32]:
    """``count`` evenly spread numbers with mean 0 and variance 1."""
    raw = np.random.PCG64(zlib.crc32(key.encode())).random_raw((count + 1) // 2)
    halves = raw.astype("<u8", copy=False).view("<u4")[:count] >> np.uint32(8)
    numbers = halves.astype(np.float32)
    numbers -= np.float32(2**23 - 0.5)
    numbers *= np.float32(math.sqrt(12) / 2**24)
    return numbers


def derived(key: str, shape: Iterable[int]) -> Tensor:
    """The tensor of a key: matrices and kernels by fan-in, gains near 1, the rest small."""
    sizes = tuple(shape)
    numbers = draws(key, math.prod(sizes))
    if key.endswith("bn0.running_mean"):  # decibels enter here: around what sound has
        numbers = 3 * numbers - 35
    elif key.endswith("bn0.running_var"):
        numbers = 150 + 150 * np.abs(numbers)
    elif key.endswith("running_var"):
        numbers = 0.5 + np.abs(numbers)
    elif key.endswith("weight") and len(sizes) >= 2:
        gain = 1.5 if RECTIFIED.search(key) else 0.8
        numbers = numbers * np.float32(gain / math.sqrt(math.prod(sizes[1:])))
    elif key.endswith("weight"):
        numbers = 1 + 0.1 * numbers
    else:
        numbers = 0.1 * numbers
    return torch.from_numpy(np.asarray(numbers, dtype=np.float32).reshape(sizes))


def weights_of(own: Mapping[str, Tensor], only: str = "") -> dict[str, Tensor]:
    """A state dict with derived weights; ``only`` (a pattern) keeps some of its keys. ``own`` gives keys and shapes."""
    kept = {key: value for key, value in own.items() if re.search(only, key)}
    return {
        key: value if OWN.search(key) or not value.is_floating_point() else derived(key, value.shape)
        for key, value in kept.items()
    }


def checksum(state: Mapping[str, Tensor]) -> int:
    """crc32 over the derived tensors, in the order of their keys."""
    total = 0
    for key in sorted(state):
        if not OWN.search(key):
            total = zlib.crc32(state[key].numpy().tobytes(), total)
    return total
