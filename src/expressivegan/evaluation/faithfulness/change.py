"""Maps against how much the picture truly changed: every pixel counts by its change.

A region of all that changed at all is easily hit: where a picture changes a little nearly everywhere, every map has
most of its weight "inside". What counts is whether a map is high where the change is large.
"""

import numpy as np
import numpy.typing as npt

from expressivegan.errors import InputError
from expressivegan.evaluation.faithfulness.arrays import Bools, Floats, check_array, constant
from expressivegan.evaluation.faithfulness.localisation import top_shares

SHARE = 0.8
"""Of an image's change, held by the smallest region that is asked for."""


def smallest_region(changes: npt.ArrayLike, share: float = SHARE) -> Bools:
    """The fewest pixels of each image that together hold this share of its change.

    Args:
        changes: (N, H, W), at least 0, in any unit; such as |image - base|.
        share: in (0, 1).

    Returns:
        bool (N, H, W). Of equal pixels the first count.

    Raises:
        InputError: NaN, a negative change, an image without any, or a share out of range.
    """
    if not 0 < share < 1:
        raise InputError(f"share (={share}) must be above 0 and below 1")
    flat = _check_changes(changes)
    order = np.argsort(-flat, 1, kind="stable")
    held = np.cumsum(np.take_along_axis(flat, order, 1), 1)
    counts = (held < share * (1 - 1e-12) * held[:, -1:]).sum(1) + 1
    region = np.zeros(flat.shape, bool)
    np.put_along_axis(region, order, np.arange(flat.shape[1]) < counts[:, None], 1)
    return region.reshape(np.shape(changes))


def captured(maps: npt.ArrayLike, changes: npt.ArrayLike, share: float = SHARE) -> Floats:
    """Change under the map's K highest pixels, over the most that K pixels can hold.

    K is the size of `smallest_region`, so a map that is large all over gains nothing by it. Equal values share.

    Args:
        maps: (N, H, W).
        changes: (N, H, W), at least 0.
        share: that the smallest region holds.

    Returns:
        (N,) in [0, 1], higher is better; 1 for a map in the order of the change. A map that is the same everywhere has
        K / (H·W) / share, as one at random has on average.

    Raises:
        InputError: shapes that differ, or as `smallest_region`.
    """
    found, flat = _pair(maps, changes)
    region = smallest_region(changes, share).reshape(flat.shape)
    part: Floats = (top_shares(found, region.sum(1)) * flat).sum(1) / (flat * region).sum(1)
    return part


def correlation(maps: npt.ArrayLike, changes: npt.ArrayLike) -> Floats:
    """Pearson's correlation of map and change over the pixels of each image, (N,) in [-1, 1]; 0 for a constant map.

    Raises:
        InputError: shapes that differ, NaN, a negative change, or an image without any.
    """
    found, flat = _pair(maps, changes)
    still = constant(found)
    x, y = (values - values.mean(1, keepdims=True) for values in (found.reshape(flat.shape), flat))
    size = np.sqrt((x * x).sum(1) * (y * y).sum(1))
    still |= size == 0
    found_r: Floats = np.where(still, 0.0, (x * y).sum(1) / np.where(still, 1.0, size))
    return found_r


def _pair(maps: npt.ArrayLike, changes: npt.ArrayLike) -> tuple[Floats, Floats]:
    found = check_array(maps)
    if found.shape != np.shape(changes):
        raise InputError(f"changes of shape {np.shape(changes)} must have that of maps, {found.shape}; see `enlarge`")
    return found, _check_changes(changes)


def _check_changes(changes: npt.ArrayLike) -> Floats:
    """(N, H·W)."""
    found = check_array(changes, "changes")
    if found.min() < 0:
        raise InputError(f"changes hold {found.min():g}; give their absolute value")
    flat = found.reshape(len(found), -1)
    bad = np.flatnonzero(flat.sum(1) == 0)
    if len(bad):
        raise InputError(f"changes[{bad[0]}] is 0 everywhere ({len(bad)} of {len(flat)} are); leave such images out")
    return flat
