"""The closest pairs, to look at."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from expressivegan.errors import InputError
from expressivegan.evaluation.memorisation.distances import UInt8Array

_GAP, _GROUP = 2, 8  # white pixels between pictures and between groups of three


@dataclass(frozen=True)
class ClosePair:
    """A generated image with its nearest training and its nearest held-out picture."""

    generated: int
    """Indices into the arrays that `memorisation_report` was given."""
    training: int
    heldout: int
    training_likeness: float
    """-1..1; see `MemorisationReport.calibration` for what counts as a near-duplicate."""
    heldout_likeness: float
    training_mirrored: bool
    """The training picture had to be mirrored."""
    heldout_mirrored: bool


def draw_gallery(
    pairs: Sequence[ClosePair],
    generated: UInt8Array,
    training: UInt8Array,
    heldout: UInt8Array,
    columns: int = 3,
) -> UInt8Array:
    """Pictures in threes on white: generated, nearest training, nearest held-out; mirrored ones mirrored back.

    Args:
        pairs: of `MemorisationReport.gallery`, at least one.
        generated: uint8 (N, H, W), as given to `memorisation_report`.
        training: uint8 (T, H, W).
        heldout: uint8 (M, H, W).
        columns: threes in a row, at least 1.

    Returns:
        uint8 (height, width).

    Raises:
        InputError: no pairs, or no columns.
    """
    if not pairs or columns < 1:
        raise InputError(f"pairs ({len(pairs)}) and columns (={columns}) must be at least 1: there is nothing to draw")
    height, width = generated.shape[1:]
    columns = min(columns, len(pairs))
    rows = -(-len(pairs) // columns)
    three = 3 * width + 2 * _GAP
    canvas = np.full((rows * (height + _GROUP) - _GROUP, columns * (three + _GROUP) - _GROUP), 255, np.uint8)
    for i, pair in enumerate(pairs):
        top, left = (i // columns) * (height + _GROUP), (i % columns) * (three + _GROUP)
        pictures = [
            generated[pair.generated],
            training[pair.training][:, :: -1 if pair.training_mirrored else 1],
            heldout[pair.heldout][:, :: -1 if pair.heldout_mirrored else 1],
        ]
        for picture in pictures:
            canvas[top : top + height, left : left + width] = picture
            left += width + _GAP
    return canvas
