"""Landmarks of frontal chest X-rays: lungs, heart, mid-line, diaphragm, as numbers that can be compared."""

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from expressivegan.errors import InputError
from expressivegan.evaluation.anatomy.curves import (
    HALF,
    SIDE,
    Bools,
    Grey,
    Ints,
    Line,
    MaskSource,
    Outline,
    Pixels,
    midlines,
    outline,
    outline_of_mask,
    prepare,
    unfold,
)

Floats = npt.NDArray[np.float64]

_CHUNK = 64  # images at once: the tables of the dynamic programme stay in a core's cache
_OUTSIDE = 1.2  # local brightness beyond the picture
_ENOUGH = 22.0  # score of an outline that counts as a lung
_LEAST_ROWS, _LEAST_AREA = 12, 0.02  # of a lung; shares of the frame for the area
_NEAR = 15  # columns from the mid-line within which a lung begins; the gap between chest and arm lies farther out
_ROWS, _COLUMNS = np.arange(SIDE), np.arange(HALF)


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Landmarks of N images; every field has shape (N,). The patient's right is the image's left.

    Lengths and heights are shares of the frame's side, areas shares of the frame. NaN where a thing could not be
    measured: there is no number without the lungs it was measured on.
    """

    found: Bools
    """Both lungs were found; without it all that needs both is NaN."""
    found_right: Bools
    found_left: Bools
    confidence: Floats
    """Evidence for the weaker lung, 0..1; at 0.5 it counts as found."""
    right_lung: Floats
    """Area of the right lung, without heart and mediastinum, 0..1."""
    left_lung: Floats
    symmetry: Floats
    """Smaller lung over larger lung, 0..1."""
    midline: Floats
    """Where the mid-line stands at half of the frame's height, 0 (left edge) to 1."""
    tilt: Floats
    """Of the mid-line, in degrees, within ±22; positive where its lower end lies further right."""
    heart_shift: Floats
    """How much further the heart reaches to the patient's left than to the right, over the width of the thorax and
    corrected for a mid-line off centre; about 0.2, and negative where the heart lies on the wrong side."""
    heart_width: Floats
    thorax_width: Floats
    ctr: Floats
    """Cardiothoracic ratio, heart_width over thorax_width; about 0.5 in small children."""
    right_diaphragm: Floats
    """Height of the dome, 0 (top) to 1."""
    left_diaphragm: Floats
    lung_top: Floats
    """Height of the higher apex."""
    lung_height: Floats
    """Apex to lowest row, the mean of both lungs."""
    taper: Floats
    """Width of the thorax in the upper third of the lungs over that in the lower third; < 1 in an upright chest."""
    body: Floats
    """Share of the frame that is not dark background."""
    contrast: Floats
    """Grey of the mediastinum less grey of the lungs, in 0..1 of the image's own range."""

    def __len__(self) -> int:
        return len(self.found)

    def take(self, indices: Ints | Bools) -> "Landmarks":
        """The landmarks of some of the images."""
        return Landmarks(**{name: getattr(self, name)[indices] for name in _FIELDS})


_FIELDS = tuple(f.name for f in fields(Landmarks))
MEASURES = tuple(name for name in _FIELDS if not name.startswith("found"))
"""The numeric fields of `Landmarks`."""


class Traced(NamedTuple):
    """Outlines behind landmarks, for drawing."""

    line: Line
    right: Outline
    left: Outline


def landmarks(images: Pixels, source: MaskSource | None = None) -> Landmarks:
    """Measures landmarks of frontal chest X-rays, each image by itself.

    Args:
        images: uint8 (N, H, W), bone bright, air dark; of any size, each stretched to a square.
        source: masks of lungs and heart from elsewhere (`PSPNetMasks`); by default lungs are found as `curves` says,
            and the heart is what lies between them.

    Raises:
        InputError: not uint8 (N, H, W), no image, or sides under 16 pixels.
    """
    check_pixels(images, "images")
    parts = [measure(images[i : i + _CHUNK], source)[0] for i in range(0, len(images), _CHUNK)]
    return Landmarks(**{name: np.concatenate([part[name] for part in parts]) for name in _FIELDS})


def check_pixels(images: Pixels, name: str) -> None:
    """Raises InputError unless uint8 (N, H, W) with N ≥ 1 and sides of 16 pixels or more."""
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 3:
        what = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise InputError(f"{name} must be uint8 of shape (N, H, W), not {what}; convert colour to grey first")
    if len(images) == 0 or min(images.shape[1:]) < 16:
        raise InputError(f"{name} of shape {images.shape} must hold an image at least, with sides of 16 pixels or more")


def measure(images: Pixels, source: MaskSource | None = None) -> tuple[dict[str, Any], Traced]:
    """The landmarks of a chunk by name, and the outlines they were measured on."""
    picture = prepare(images)
    line = midlines(picture.local)
    hearts: list[Ints] | None = None
    if source is None:
        right, left = (outline(unfold(picture.local, line, sign, _OUTSIDE)) for sign in (-1, 1))
    else:
        masks = source(images)
        right, left = outline_of_mask(masks.right_lung, line, -1), outline_of_mask(masks.left_lung, line, 1)
        hearts = [outline_of_mask(masks.heart, line, sign).lateral for sign in (-1, 1)]
    traced = Traced(line, right, left)
    greys = [unfold(picture.grey, line, sign, 0) for sign in (-1, 1)]
    values = _combine(traced, greys, hearts)
    values["body"] = picture.body.mean((1, 2))
    return values, traced


class _Lung(NamedTuple):
    mask: Bools  # (N, 64, HALF)
    rows: Bools  # (N, 64) rows with lung
    top: Ints
    bottom: Ints
    dome: Ints
    area: Floats
    found: Bools


def _lung(one: Outline) -> _Lung:
    mask = (one.medial[:, :, None] <= _COLUMNS) & (one.lateral[:, :, None] > _COLUMNS)
    rows = one.lateral > 0
    height = rows.sum(1)
    top, bottom = rows.argmax(1), SIDE - 1 - rows[:, ::-1].argmax(1)
    area = mask.mean((1, 2)) * HALF / SIDE
    beside = np.where(rows, one.medial, HALF).min(1) <= _NEAR
    found = (one.score > _ENOUGH) & (height >= _LEAST_ROWS) & (area > _LEAST_AREA) & beside
    # The dome: the highest of the lower ends of the lung's columns, on the lateral side, where no heart lies before it.
    ends = np.where(mask, _ROWS[:, None], -1).max(1)
    counted = (mask & ((top + 0.5 * height)[:, None, None] < _ROWS[:, None])).sum(1) >= 2
    first, last = np.where(counted, _COLUMNS, HALF).min(1)[:, None], np.where(counted, _COLUMNS, -1).max(1)[:, None]
    core = counted & (first + 0.5 * (last - first) <= _COLUMNS) & (first + 0.85 * (last - first) >= _COLUMNS)
    dome = np.minimum(np.where(core, ends, SIDE).min(1), bottom)
    return _Lung(mask, rows, top, bottom, dome, area, found)


def _combine(traced: Traced, greys: list[Grey], hearts: list[Ints] | None) -> dict[str, Any]:
    sides = (traced.right, traced.left)
    lungs = [_lung(side) for side in sides]
    right, left = lungs
    both = right.found & left.found
    top, bottom = np.minimum(right.top, left.top), np.maximum(right.bottom, left.bottom)
    floor = np.minimum(right.dome, left.dome)  # below it the medial border follows the diaphragm, not the heart
    tall = (floor - top)[:, None]
    height = _ROWS - top[:, None]
    lower = (height >= 0.45 * tall) & (np.maximum(floor - 1, top + 6)[:, None] > _ROWS)
    upper = (height >= 0) & (height < 0.4 * tall)
    reach, wall, neck = [], [], []
    for i, (side, lung) in enumerate(zip(sides, lungs, strict=True)):
        border = side.medial if hearts is None else hearts[i]
        where = lung.rows if hearts is None else border > 0
        reach.append(_percentile(border, lower & where, 90))
        wall.append(_percentile(side.lateral, lower & lung.rows, 50))
        neck.append(_percentile(side.medial, upper & lung.rows, 50))
    shared = right.rows & left.rows
    across = traced.right.lateral + traced.left.lateral
    thorax = _percentile(across, shared, 95)
    share = (_ROWS - top[:, None]) / np.maximum(bottom - top, 1)[:, None]
    thirds = [_mean(across, shared & (share > low) & (share < low + 0.2)) for low in (0.2, 0.6)]
    centre = [_mean(grey, shared[:, :, None] & (_COLUMNS < 3)) for grey in greys]
    dark = [_mean(grey, lung.mask) for grey, lung in zip(greys, lungs, strict=True)]
    # The mid-line is drawn towards the heart; the walls and the upper mediastinum say how far.
    shift = (reach[1] - reach[0]) - 0.75 * (wall[1] - wall[0]) - 0.5 * (neck[1] - neck[0])
    weaker = np.maximum(np.minimum(traced.right.score, traced.left.score), 0).astype(np.float64)
    areas = [np.where(lung.found, lung.area, np.nan) for lung in lungs]
    values: dict[str, Any] = {
        "symmetry": np.minimum(*areas) / np.maximum(*areas),
        "midline": (traced.line.column + 0.5) / SIDE,
        "tilt": np.degrees(np.arctan(traced.line.slope)),
        "heart_shift": shift / thorax,
        "heart_width": (reach[0] + reach[1]) / SIDE,
        "thorax_width": thorax / SIDE,
        "ctr": (reach[0] + reach[1]) / thorax,
        "lung_top": top / SIDE,
        "lung_height": (right.bottom - right.top + left.bottom - left.top + 2) / (2 * SIDE),
        "taper": thirds[0] / thirds[1],
        "contrast": (centre[0] + centre[1] - dark[0] - dark[1]) / 2,
    }
    values = {name: np.where(both, value, np.nan).astype(np.float64) for name, value in values.items()}
    values["found"], values["found_right"], values["found_left"] = both, right.found, left.found
    values["right_lung"], values["left_lung"] = areas
    for name, lung in (("right_diaphragm", right), ("left_diaphragm", left)):
        values[name] = np.where(lung.found, (lung.dome + 1) / SIDE, np.nan)
    values["confidence"] = weaker / (weaker + _ENOUGH)
    return values


def _percentile(values: Ints, where: Bools, percentile: float) -> Floats:
    """Over the chosen rows of each image, interpolated; (N, 64) → (N,), NaN without rows."""
    ranked = np.sort(np.where(where, values, np.inf), 1)
    count = where.sum(1)
    at = np.maximum(count - 1, 0) * percentile / 100
    low = at.astype(int)
    who = np.arange(len(values))
    first = ranked[who, low]
    second = ranked[who, np.minimum(low + 1, np.maximum(count - 1, 0))]
    first, second = np.where(count > 0, first, np.nan), np.where(count > 0, second, np.nan)
    found: Floats = first + (second - first) * (at - low)
    return found


def _mean(values: npt.NDArray[Any], where: Bools) -> Floats:
    """Over the chosen entries of each image; (N, …) → (N,), NaN without any."""
    where = np.broadcast_to(where, values.shape)
    axes = tuple(range(1, values.ndim))
    count = where.sum(axes)
    found: Floats = np.where(where, values, 0).sum(axes) / np.where(count > 0, count, np.nan)
    return found
