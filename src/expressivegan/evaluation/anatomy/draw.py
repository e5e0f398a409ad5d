"""Landmarks painted over images, and the gallery of those that are unlike real ones."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from expressivegan.evaluation.anatomy.curves import SIDE, Line, MaskSource, Pixels
from expressivegan.evaluation.anatomy.landmarks import Traced, check_pixels, measure
from expressivegan.images import UInt8Array, grid

_RIGHT, _LEFT, _LINE, _TEXT = (80, 230, 80), (255, 90, 90), (90, 170, 255), (255, 230, 0)


def draw_landmarks(
    images: Pixels,
    captions: Sequence[str] = (),
    *,
    columns: int | None = None,
    scale: int = 3,
    source: MaskSource | None = None,
) -> UInt8Array:
    """Images with the outlines of the lungs (right green, left red), the mid-line and the width of the thorax.

    Args:
        images: uint8 (N, H, W).
        captions: a short text for each image.
        columns: tiles in a row; the default makes a square.
        scale: pixels of a tile over 64.
        source: as for `landmarks`.

    Returns:
        uint8 (H', W', 3).

    Raises:
        InputError: as `landmarks`.
    """
    check_pixels(images, "images")
    values, traced = measure(images, source)
    tiles = []
    for i, picture in enumerate(images):
        tile = Image.fromarray(picture).resize((SIDE * scale, SIDE * scale), Image.Resampling.BILINEAR).convert("RGB")
        pen = ImageDraw.Draw(tile)
        _draw_one(pen, traced, i, scale, (bool(values["found_right"][i]), bool(values["found_left"][i])))
        if i < len(captions):
            pen.text((2, 1), captions[i], fill=_TEXT)
        tiles.append(np.asarray(tile))
    return grid(np.stack(tiles), columns)


def _draw_one(pen: ImageDraw.ImageDraw, traced: Traced, i: int, scale: int, found: tuple[bool, bool]) -> None:
    for side, sign, colour, there in zip((traced.right, traced.left), (-1, 1), (_RIGHT, _LEFT), found, strict=True):
        rows = np.flatnonzero(side.lateral[i])
        if there and len(rows):
            inner = [_at(traced.line, i, int(y), sign, side.medial[i, y], scale) for y in rows]
            outer = [_at(traced.line, i, int(y), sign, side.lateral[i, y], scale) for y in rows]
            pen.line([*inner, *outer[::-1], inner[0]], fill=colour, width=max(1, scale // 2))
    pen.line([_at(traced.line, i, y, 1, 0.5, scale) for y in (4, 60)], fill=_LINE)
    if all(found):
        shared = np.flatnonzero((traced.right.lateral[i] > 0) & (traced.left.lateral[i] > 0))
        if len(shared):
            across = traced.right.lateral[i, shared] + traced.left.lateral[i, shared]
            y = int(shared[across.argmax()])
            ends = [
                _at(traced.line, i, y, sign, side.lateral[i, y], scale)
                for side, sign in ((traced.right, -1), (traced.left, 1))
            ]
            pen.line(ends, fill=_LINE)


def _at(line: Line, i: int, y: float, sign: int, beside: float, scale: int) -> tuple[float, float]:
    x = line.column[i] + line.slope[i] * (y - 31.5) + sign * (beside - 0.5) + 0.5
    return float(x * scale), float((y + 0.5) * scale)
