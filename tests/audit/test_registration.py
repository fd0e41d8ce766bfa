"""How one picture lies in another: known crops of made pictures, and pictures that have nothing in common."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from av_bench.audit.registration import THUMB, register, turned
from av_bench.audit.shapes import resized

SIZE = 400  # pixels of the picture that is cropped


def pictures(seed: int, count: int = 5) -> NDArray[np.float32]:
    """Smooth random pictures ``(count, SIZE, SIZE)`` with something that moves, grey levels 0-255."""
    rng = np.random.default_rng(seed)
    still = resized(rng.random((1, 12, 12)).astype(np.float32), SIZE)
    moving = resized(rng.random((count, 6, 6)).astype(np.float32), SIZE)
    return np.asarray(180 * still + 70 * moving, np.float32)


@pytest.mark.parametrize(
    ("top", "left", "height", "width"),
    [
        (0.0, 0.0, 1.0, 1.0),
        (0.0, 0.0, 0.85, 0.85),  # a corner
        (0.1, 0.1, 0.8, 0.8),  # the centre
        (0.0, 0.12, 1.0, 0.75),  # another aspect
        (0.07, 0.2, 0.9, 0.72),
    ],
)
@pytest.mark.parametrize("swap", [False, True])
def test_a_crop_is_found_to_the_pixel(top: float, left: float, height: float, width: float, swap: bool) -> None:
    whole = pictures(3)
    y, x, h, w = (round(SIZE * share) for share in (top, left, height, width))
    part = whole[:, y : y + h, x : x + w]
    small, full = resized(part, THUMB), resized(whole, THUMB)
    fit = register(full, small) if not swap else register(small, full)
    assert fit is not None
    found = np.array([fit.top, fit.left, fit.height, fit.width]) / fit.grid
    assert np.abs(found - [top, left, height, width]).max() <= 1.5 / THUMB
    assert height == width == 1.0 or fit.swap == (not swap)


def test_pictures_without_anything_in_common_fit_nowhere() -> None:
    fits = [register(resized(pictures(a), THUMB), resized(pictures(a + 100), THUMB)) for a in range(8)]
    assert fits.count(None) >= 6  # of smooth pictures a part may look alike now and then


@pytest.mark.parametrize("angle", [5.0, -7.0])
def test_a_small_rotation_is_found_when_asked_for(angle: float) -> None:
    whole = resized(pictures(5), THUMB)
    tilted, _ = turned(whole, -angle, 4 / 3)
    fit = register(tilted, whole, 4 / 3)
    assert fit is not None
    assert fit.angle == pytest.approx(angle, abs=1.01)
    upright = register(tilted, whole)
    assert upright is None or upright.score < fit.score
    ours, theirs, mask = fit.apply(tilted, whole)
    assert 0.6 < mask.mean() < 1
    assert np.corrcoef(ours[:, mask].ravel(), theirs[:, mask].ravel())[0, 1] > 0.97
