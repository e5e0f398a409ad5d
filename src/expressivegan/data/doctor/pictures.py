"""Evidence to look at."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
_GAP = 3


def montage(rows: Sequence[Sequence[UInt8Array]]) -> UInt8Array:
    """Pictures of one size in rows, on white; short rows are left-aligned.

    Args:
        rows: pictures uint8 (H, W), at least one.

    Returns:
        uint8 (height, width).
    """
    height, width = rows[0][0].shape
    columns = max(len(row) for row in rows)
    canvas = np.full(
        (len(rows) * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP), 255, np.uint8
    )  # white in both themes of a page
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            top, left = _GAP + r * (height + _GAP), _GAP + c * (width + _GAP)
            canvas[top : top + height, left : left + width] = picture
    return canvas
