"""Structural similarity on several scales: how alike the images of one class are, pixel by pixel.

Blurred images look alike and noisy ones do not, so this is a figure of diversity only beside the same of real images.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from expressivegan.errors import InputError
from expressivegan.evaluation.distances import Index, check_labels, check_patients
from expressivegan.images import UInt8Array
from expressivegan.intervals import Interval
from expressivegan.streams import derive_seed

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, section 3.2
_WINDOW, _SIGMA = 11, 1.5
_CHUNK = 128


def scales_for(side: int) -> int:
    """How many of the five scales an image has: as long as the 11x11 window fits; 3 at 64 px, 4 at 128, 5 from 176.

    Raises:
        InputError: not even one fits.
    """
    if side < _WINDOW:
        raise InputError(f"images must be at least {_WINDOW} pixels wide and high for MS-SSIM, not {side}")
    return min(len(_WEIGHTS), int(np.log2(side / _WINDOW)) + 1)


@torch.inference_mode()
def ms_ssim(a: UInt8Array, b: UInt8Array) -> npt.NDArray[np.float64]:
    """Multi-scale structural similarity of pairs (Wang, Simoncelli and Bovik 2003, equation 7).

    Gaussian window of 11 pixels, σ 1.5, without padding; K1 = 0.01, K2 = 0.03, range 255; halved by means of 2x2. Small
    images have fewer scales (`scales_for`), whose exponents are divided by their sum: compare at one size only. A
    negative contrast term, which has no real power, counts as 0.

    Args:
        a: uint8 (N, H, W).
        b: uint8 (N, H, W).

    Returns:
        (N,) in [0, 1]; 1 for equal images.

    Raises:
        InputError: other shapes or types, or smaller than 11 pixels.
    """
    first, second = _check(a, "a"), _check(b, "b")
    if first.shape != second.shape:
        raise InputError(f"a and b must have one shape, not {first.shape} and {second.shape}")
    scales = scales_for(min(first.shape[1:]))
    weights = np.array(_WEIGHTS[:scales]) / sum(_WEIGHTS[:scales])
    found = np.ones(len(first))
    for start in range(0, len(first), _CHUNK):
        part = slice(start, start + _CHUNK)
        x, y = (torch.from_numpy(i[part].astype(np.float64))[:, None] for i in (first, second))  # (B, 1, H, W)
        for scale, weight in enumerate(weights):
            luminance, contrast = _terms(x, y)
            term = luminance * contrast if scale == scales - 1 else contrast
            found[part] *= term.flatten(1).mean(1).clamp(min=0).numpy() ** weight
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return found


def ssim_diversity(
    images: UInt8Array,
    labels: npt.ArrayLike,
    classes: Sequence[str],
    *,
    patients: npt.ArrayLike | None = None,
    pairs: int = 500,
    rounds: int = 200,
    seed: int = 0,
) -> dict[str, Interval]:
    """1 - mean MS-SSIM of random pairs within each class, with a 95% interval: 0 for one image repeated.

    The interval draws images (real ones: patients) with replacement, a pair counting as often as both its ends were
    drawn; it covers the choice of images as well as of pairs.

    Args:
        images: uint8 (N, H, W).
        labels: (N,) indices into `classes`.
        classes: names.
        patients: (N,) names of real images: pairs of one patient are left out.
        pairs: per class, as far as there are so many.
        rounds: of the bootstrap.
        seed: of pairs and rounds.

    Returns:
        A class of fewer than 2 images, or of a single patient, has NaN throughout.

    Raises:
        InputError: images, labels or patients that do not fit, or fewer than 1 pair or 40 rounds.
    """
    pixels = _check(images, "images")
    own = check_labels(labels, len(pixels), len(classes), "labels")
    names = check_patients(patients, len(pixels))
    if pairs < 1 or rounds < 40:
        raise InputError(f"pairs (={pairs}) must be at least 1 and rounds (={rounds}) at least 40")
    report = {}
    for label, name in enumerate(classes):
        rows = np.flatnonzero(own == label)
        draw = np.random.default_rng(derive_seed(seed, "evaluation.ssim", name))
        i, j = _pairs(rows, names, pairs, draw)
        if not len(i):
            report[name] = Interval(np.nan, np.nan, np.nan)
            continue
        apart = 1 - ms_ssim(pixels[i], pixels[j])
        number = np.unique(names[rows], return_inverse=True)[1]
        place = dict(zip(rows.tolist(), number.tolist(), strict=True))
        a, b = (np.array([place[r] for r in side.tolist()]) for side in (i, j))
        count = int(number.max()) + 1
        drawn = draw.multinomial(count, np.full(count, 1 / count), size=rounds)  # (R, patients)
        weights = drawn[:, a] * drawn[:, b]
        weights = weights[weights.sum(1) > 0]
        ends = np.percentile(weights @ apart / weights.sum(1), [2.5, 97.5]) if len(weights) else (np.nan, np.nan)
        report[name] = Interval(float(apart.mean()), float(ends[0]), float(ends[1]))
    return report


def _pairs(rows: Index, names: Index, wanted: int, draw: np.random.Generator) -> tuple[Index, Index]:
    """Different pairs of rows of different patients, at most `wanted`."""
    n = len(rows)
    if n * (n - 1) // 2 <= 4 * wanted:
        i, j = np.triu_indices(n, 1)
        order = draw.permutation(len(i))
        i, j = i[order], j[order]
    else:
        i, j = draw.integers(n, size=(2, 8 * wanted))
        first = np.unique(np.minimum(i, j) * n + np.maximum(i, j), return_index=True)[1]
        i, j = i[np.sort(first)], j[np.sort(first)]
    i, j = rows[i], rows[j]
    kept = np.flatnonzero(names[i] != names[j])[:wanted]
    return i[kept], j[kept]


def _terms(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance, and contrast times structure, at each place of the window."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    at = torch.arange(_WINDOW, dtype=x.dtype) - _WINDOW // 2
    window = torch.exp(-(at**2) / (2 * _SIGMA**2))
    window /= window.sum()
    stack = torch.cat([x, y, x * x, y * y, x * y])  # (5·B, 1, H, W)
    stack = F.conv2d(F.conv2d(stack, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
    mx, my, xx, yy, xy = stack.chunk(5)
    vx, vy, cov = xx - mx * mx, yy - my * my, xy - mx * my
    return (2 * mx * my + c1) / (mx * mx + my * my + c1), (2 * cov + c2) / (vx + vy + c2)


def _check(images: npt.NDArray[Any], name: str) -> UInt8Array:
    pixels = np.asarray(images)
    if pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise InputError(f"{name} must be uint8 (N, H, W), not {pixels.dtype} {pixels.shape}")
    return pixels
