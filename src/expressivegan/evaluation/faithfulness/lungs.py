"""Where the lungs are, as masks, from the measured outlines."""

import numpy as np

from expressivegan.evaluation.anatomy.curves import HALF, SIDE
from expressivegan.evaluation.anatomy.landmarks import check_pixels, measure
from expressivegan.evaluation.faithfulness.arrays import Bools
from expressivegan.images import UInt8Array

_CHUNK = 64


def lung_masks(images: UInt8Array) -> tuple[Bools, Bools]:
    """Masks of both lungs on a 64 x 64 grid, and which images have both.

    Args:
        images: uint8 (N, H, W).

    Returns:
        bool (N, 64, 64), without heart and mediastinum; bool (N,), True where both lungs were found. A mask of an image
        where they were not means nothing.

    Raises:
        InputError: as `anatomy.landmarks`.
    """
    check_pixels(images, "images")
    rows = np.arange(SIDE)
    masks, found = [], []
    for start in range(0, len(images), _CHUNK):
        values, traced = measure(images[start : start + _CHUNK])
        line = traced.line
        middle = line.column[:, None, None] + line.slope[:, None, None] * (rows[:, None] - (SIDE - 1) / 2)
        mask = np.zeros((len(middle), SIDE, SIDE), bool)
        for side, sign in ((traced.right, -1), (traced.left, 1)):
            beside = np.rint(sign * (np.arange(SIDE) - middle))
            inside = (beside >= side.medial[:, :, None]) & (beside < side.lateral[:, :, None])
            mask |= inside & (beside >= 0) & (beside < HALF)
        masks.append(mask)
        found.append(np.asarray(values["found"], bool))
    return np.concatenate(masks), np.concatenate(found)
