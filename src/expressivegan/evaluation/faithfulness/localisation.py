"""Maps against known regions: does the map lie where the lesion is?

All take maps (N, H, W) and masks (N, H, W) and return (N,) in [0, 1], higher is better. Ties are shared: each figure is
the mean over all orders of equal values, so a map that is the same everywhere scores as chance does, and no order of
pixels is rewarded.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from expressivegan.errors import InputError
from expressivegan.evaluation.faithfulness.arrays import Floats, check_masked


def pointing_game(maps: npt.ArrayLike, masks: npt.ArrayLike, tolerance: float = 0.0) -> Floats:
    """Is the highest point in the region? (Zhang et al., *Top-down Neural Attention by Excitation Backprop*, 2018)

    Args:
        maps: (N, H, W).
        masks: (N, H, W), not 0 in the region.
        tolerance: pixels by which the point may miss; the paper's 15 at 500 px would be 2 at 64 px. 0 is strict.

    Raises:
        InputError: shapes that differ, NaN, an empty region, or a negative tolerance.
    """
    found, region = check_masked(maps, masks)
    if not tolerance >= 0:
        raise InputError(f"tolerance (={tolerance}) must be 0 pixels or more")
    if tolerance:
        region = np.stack([ndimage.distance_transform_edt(~mask) <= tolerance for mask in region])
    top = found == found.max((1, 2), keepdims=True)
    share: Floats = (top & region).sum((1, 2)) / top.sum((1, 2))
    return share


def rank_accuracy(maps: npt.ArrayLike, masks: npt.ArrayLike) -> Floats:
    """Share of the region among the map's K highest pixels, K the size of the region.

    Relevance rank accuracy (Arras, Osman and Samek, *CLEVR-XAI*, Information Fusion 81, 2022, section 3.3). Where equal
    values straddle the K-th place each counts in part.

    Raises:
        InputError: as `check_masked`.
    """
    found, region = check_masked(maps, masks)
    inside = region.reshape(len(found), -1)
    size = inside.sum(1)
    accuracy: Floats = (top_shares(found, size) * inside).sum(1) / size
    return accuracy


def top_shares(maps: Floats, counts: npt.NDArray[np.int64]) -> Floats:
    """(N, H, W) maps, (N,) numbers K → (N, H·W): how much of each pixel is among its map's K highest, ties shared."""
    flat = maps.reshape(len(maps), -1)
    last = np.take_along_axis(np.sort(flat, 1)[:, ::-1], counts[:, None] - 1, 1)
    above, tied = flat > last, flat == last
    part = (counts - above.sum(1)) / tied.sum(1)
    shares: Floats = above + part[:, None] * tied
    return shares


def iou_at_area(maps: npt.ArrayLike, masks: npt.ArrayLike) -> Floats:
    """Intersection over union of the region and the map's equally many highest pixels.

    No threshold has to be chosen. With rank accuracy r it is r / (2 - r): the same order of images, on IoU's scale.

    Raises:
        InputError: as `check_masked`.
    """
    r = rank_accuracy(maps, masks)
    return r / (2 - r)


def relevance_mass(maps: npt.ArrayLike, masks: npt.ArrayLike) -> Floats:
    """Share of the map's positive values that lies in the region (Arras et al. 2022, section 3.3).

    Negative values speak against the class and count as 0. A map without a positive value has the share of the region,
    as one that is the same everywhere.

    Raises:
        InputError: as `check_masked`.
    """
    found, region = check_masked(maps, masks)
    return mass_in(found, region.astype(np.float64))


def mass_in(maps: Floats, region: Floats) -> Floats:
    """(N, H, W) maps and regions in [0, 1] → (N,) share of the positive values there; without any, of the area."""
    positive = np.maximum(maps, 0)
    total = positive.sum((1, 2))
    positive = np.where((total > 0)[:, None, None], positive, 1.0)
    share: Floats = (positive * region).sum((1, 2)) / positive.sum((1, 2))
    return share
