"""Maps against another network: what happens to its score when pixels go in the order that the map gives?"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.integrate import trapezoid

from expressivegan.errors import InputError
from expressivegan.evaluation.faithfulness.arrays import Bools, Floats, Score, check_array, check_images
from expressivegan.evaluation.faithfulness.controls import blur
from expressivegan.evaluation.faithfulness.imputation import NOISE, impute
from expressivegan.images import UInt8Array
from expressivegan.streams import derive_seed

PERCENTAGES = (10, 30, 50, 70, 90)
"""Shares of pixels that ROAD removes."""
STEPS = 8
"""Equal parts in which deletion and insertion go."""
_START_BLUR = 1 / 8


def order(maps: Floats, seed: int = 0) -> npt.NDArray[np.int64]:
    """(N, H, W) → (N, H·W) places of the pixels in the map, 0 the highest; equal values in random order."""
    flat = maps.reshape(len(maps), -1)
    ties = np.random.default_rng(derive_seed(seed, "faithfulness.ties")).random(flat.shape)
    ranked = np.lexsort((ties, -flat), axis=1)
    places = np.empty_like(ranked)
    np.put_along_axis(places, ranked, np.arange(flat.shape[1])[None], 1)
    return places.astype(np.int64)


def highest(maps: Floats, percent: float, seed: int = 0) -> Bools:
    """(N, H, W) → bool (N, H, W), True in that percentage of pixels, the highest first."""
    places = order(maps, seed)
    chosen: Bools = (places < round(places.shape[1] * percent / 100)).reshape(maps.shape)
    return chosen


def deletion(maps: npt.ArrayLike, images: UInt8Array, score: Score, *, steps: int = STEPS, seed: int = 0) -> Floats:
    """Area under the score while the highest pixels go first and become the image's mean grey; lower is better.

    RISE (Petsiuk, Das and Saenko, BMVC 2018, section 4.1), which fills with the data set's mean.

    Args:
        maps: (N, H, W).
        images: uint8 (N, H, W).
        score: an independent network's.
        steps: equal parts in which pixels go; the area is by trapezoids.
        seed: of the order of equal values.

    Returns:
        (N,), in units of the score.

    Raises:
        InputError: shapes that differ, NaN, or no step.
    """
    found, pixels = _paired(maps, images, steps)
    mean = np.rint(pixels.mean((1, 2), keepdims=True)).astype(np.uint8)
    return _area(found, pixels, np.broadcast_to(mean, pixels.shape), score, steps, seed)


def insertion(maps: npt.ArrayLike, images: UInt8Array, score: Score, *, steps: int = STEPS, seed: int = 0) -> Floats:
    """Area under the score while the highest pixels come first into a blurred copy; higher is better.

    RISE, section 4.1. The blur's σ is an eighth of the side: in the paper's, 1.4 px at 64, a consolidation stays.
    Arguments, returns and errors are those of `deletion`.
    """
    found, pixels = _paired(maps, images, steps)
    blurred = np.rint(blur(pixels, _START_BLUR)).astype(np.uint8)
    return _area(found, blurred, pixels, score, steps, seed)


def _paired(maps: npt.ArrayLike, images: UInt8Array, steps: int) -> tuple[Floats, UInt8Array]:
    if steps < 1:
        raise InputError(f"steps (={steps}) must be at least 1")
    found = check_array(maps)
    pixels = check_images(images, len(found))
    if found.shape != pixels.shape:
        raise InputError(f"maps of shape {found.shape} must have that of images, {pixels.shape}; see `enlarge`")
    return found, pixels


def _area(maps: Floats, start: UInt8Array, end: UInt8Array, score: Score, steps: int, seed: int) -> Floats:
    places = order(maps, seed).reshape(maps.shape)
    count = maps[0].size
    curve = [np.asarray(score(np.where(places < count * k / steps, end, start)), np.float64) for k in range(steps + 1)]
    area: Floats = trapezoid(np.stack(curve), dx=1 / steps, axis=0)
    return area


def road(
    maps: npt.ArrayLike,
    images: UInt8Array,
    score: Score,
    *,
    percentages: Sequence[float] = PERCENTAGES,
    noise: float = NOISE,
    seed: int = 0,
) -> dict[str, Floats]:
    """ROAD (Rong et al., ICML 2022): remove and debias, with noisy linear imputation.

    Args:
        maps: (N, H, W).
        images: uint8 (N, H, W).
        score: an independent network's.
        percentages: of pixels removed, each above 0 and below 100.
        noise: standard deviation as a share of the value range.
        seed: of noise and of the order of equal values.

    Returns:
        Each (N,), the mean over the percentages: `morf`, the score with the most relevant pixels removed (lower is
        better); `lerf`, with the least relevant (higher is better); `combined`, (lerf - morf) / 2 (higher is better),
        as pytorch-grad-cam's ROADCombined.

    Raises:
        InputError: shapes that differ, NaN, or a percentage out of range.
    """
    found, pixels = _paired(maps, images, 1)
    if not percentages or not all(0 < p < 100 for p in percentages):
        raise InputError(f"percentages (={list(percentages)}) must be above 0 and below 100")
    sides: dict[str, Floats] = {}
    for name, sign in (("morf", 1), ("lerf", -1)):
        values = []
        for p in percentages:
            filled = impute(pixels, highest(sign * found, p, seed), noise=noise, seed=seed)
            values.append(np.asarray(score(np.rint(filled).clip(0, 255).astype(np.uint8)), np.float64))
        sides[name] = np.mean(values, axis=0)
    sides["combined"] = (sides["lerf"] - sides["morf"]) / 2
    return sides
