"""How loud a sound is: programme loudness after ITU-R BS.1770-4, and the plain level of its loudest parts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE = 48_000
# K-weighting at 48 kHz (BS.1770-4, tables 1 and 2): a shelf for the head, then a high-pass
_SHELF = ((1.53512485958697, -2.69169618940638, 1.19839281085285), (1.0, -1.69065929318241, 0.73248077421585))
_PASS = ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621))
_BLOCK, _STEP = 0.4, 0.1  # s
_ABSOLUTE, _RELATIVE = -70.0, -10.0  # gates, LUFS and LU


def loudness(wave: NDArray[np.float32], rate: int) -> float | None:
    """Integrated loudness in LUFS of mono ``(samples,)`` at 48 kHz; None when all of it is below the gate.

    ValueError for another rate: the filters are those of 48 kHz.
    """
    from scipy.signal import lfilter

    if rate != RATE:
        raise ValueError(f"loudness is measured at {RATE} Hz, got {rate} Hz")
    weighted = lfilter(*_PASS, lfilter(*_SHELF, np.asarray(wave, dtype=np.float64)))
    block, step = round(_BLOCK * rate), round(_STEP * rate)
    if len(weighted) < block:
        weighted = np.pad(weighted, (0, block - len(weighted)))
    starts = range(0, len(weighted) - block + 1, step)
    powers = np.array([np.mean(weighted[i : i + block] ** 2) for i in starts])
    kept = powers[_lufs(powers) > _ABSOLUTE]
    if not len(kept):
        return None
    kept = kept[_lufs(kept) > float(_lufs(kept.mean())) + _RELATIVE]
    return float(_lufs(kept.mean()))


def _lufs(power: NDArray[np.float64] | float) -> NDArray[np.float64]:
    return np.asarray(-0.691 + 10 * np.log10(np.maximum(power, 1e-12)))


def level_dbfs(wave: NDArray[np.float32]) -> float:
    """Level in dBFS of the loudest tenth of the sound, in pieces of 50 ms at 48 kHz; -inf for silence."""
    size = RATE // 20
    pieces = np.asarray(wave[: len(wave) // size * size], dtype=np.float64).reshape(-1, size)
    if not len(pieces):
        return float("-inf")
    power = np.sort((pieces**2).mean(axis=1))[-max(1, len(pieces) // 10) :].mean()
    return float(10 * np.log10(power)) if power > 0 else float("-inf")
