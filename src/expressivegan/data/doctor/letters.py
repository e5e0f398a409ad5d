"""Finds letters and words that were burnt into a grey picture, without reading them.

Strokes are narrow, much brighter (or darker) than what is around them, sharp and of one grey. So: white top-hat, half
of the local contrast as the threshold, connected components, and for each component a score from its shape and
contrast. Letters that stand side by side become one box.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

UInt8Array = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

SIDE = 224
"""Pixels; the picture's size that the constants below are made for."""
_STROKE = 11  # pixels; wider strokes are no letters
_LEAST, _LEAST_DARK = 40, 70  # grey levels between a stroke and its ground
_SMALL, _LARGE = 4, 34  # pixels: 1.5% and 15% of the side
_MARGIN = 4  # pixels around a component that count as its ground
_SURE, _LIKELY = 3.0, 0.0  # scores: enough alone, enough beside others
_SURE_DARK = 6.0  # gaps between bones look like dark letters
_ROW = 3  # likely letters in a row that need no sure one among them
_EIGHT = np.ones((3, 3), bool)

FEATURES = ("log height", "log width", "fill", "contrast", "gap", "uneven ground", "steepness", "core", "holes",
            "solidity", "uneven ink")  # fmt: skip
# Of a logistic regression that tells letters drawn into chest X-rays (six fonts, 8..28 pixels) from the other
# components of real and drawn ones: benchmarks/markers.py.
_BIAS = 7.99
_WEIGHTS = np.array([-0.36, 0.32, 1.02, 6.23, 4.75, -4.72, 6.53, -14.5, 0.68, -14.42, -19.44])


class Mark(NamedTuple):
    """A letter, or several in a group."""

    box: tuple[int, int, int, int]
    """left, top, right, bottom in pixels, right and bottom exclusive."""
    score: float
    """Log odds of the surest letter."""
    dark: bool
    """Dark on bright ground."""


def marks(picture: UInt8Array) -> list[Mark]:
    """What looks written.

    Args:
        picture: uint8 (H, W), of about 224 pixels a side.

    Returns:
        The surest first.
    """
    found = []
    for dark in (False, True):
        values, boxes = components(255 - picture if dark else picture, _LEAST_DARK if dark else _LEAST)
        if len(boxes):
            found += _grouped(boxes, values @ _WEIGHTS + _BIAS, dark)
    return sorted(found, key=lambda m: -m.score)


def components(picture: UInt8Array, least: int = _LEAST) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Bright components of the size of letters, of at least `least` grey levels of contrast.

    Returns:
        (n, len(FEATURES)) features, and (n, 4) boxes: left, top, right, bottom.
    """
    hat = picture - _dilate(_erode(picture, _STROKE), _STROKE)
    peak = _dilate(hat, _STROKE + 2)
    labels, count = ndimage.label((hat >= 0.7 * least) & (hat >= peak >> 1) & (peak >= least), _EIGHT)
    if not count:
        return np.empty((0, len(FEATURES))), np.empty((0, 4), np.int64)
    flat = labels.ravel()
    area = np.bincount(flat, minlength=count + 1)
    mean = np.bincount(flat, weights=hat.ravel(), minlength=count + 1) / np.maximum(area, 1)
    fall = picture - _erode(picture, 5)
    # Room around everything, which belongs to no component's ground.
    labels, values, fall = _framed(labels), _framed(picture), _framed(fall)
    valid = _framed(np.ones(picture.shape, bool))
    objects = ndimage.find_objects(labels)
    rows, boxes = [], []
    for number in np.flatnonzero((area >= 7) & (area <= 400) & (mean >= 0.9 * least)):
        if number == 0:
            continue
        down, across = objects[number - 1]
        height, width = down.stop - down.start, across.stop - across.start
        if not (_SMALL <= max(height, width) <= _LARGE and min(height, width) >= 2):
            continue
        if max(height, width) >= 20 and area[number] < 0.25 * height * width:  # a cable
            continue
        part = (slice(down.start - _MARGIN, down.stop + _MARGIN), slice(across.start - _MARGIN, across.stop + _MARGIN))
        row = _features(labels[part] == number, values[part], fall[part], valid[part], height, width, least)
        if row is not None:
            rows.append(row)
            boxes.append([across.start, down.start, across.stop, down.stop])
    corners = np.array(boxes, np.int64).reshape(-1, 4) - _MARGIN
    return np.array(rows, np.float64).reshape(-1, len(FEATURES)), corners


def _features(
    mask: Bools, values: UInt8Array, fall: UInt8Array, valid: Bools, height: int, width: int, least: int
) -> list[float] | None:
    """The numbers that FEATURES names; None where the contrast is too small for a letter."""
    near = _grow(mask, 1)
    ring = values[_grow(near, 3) & ~near & valid].astype(np.float64)
    if len(ring) < 8:
        return None
    ring.sort()
    ink = values[mask].astype(np.float64)
    ink.sort()
    ground = ring[len(ring) // 2]
    contrast = ink[int(0.8 * len(ink))] - ground
    gap = ink[len(ink) // 4] - ring[int(0.75 * len(ring))]
    if contrast < least or gap < 0.1 * contrast:
        return None
    rim = mask & _grow(~mask, 1)
    hull = _between(mask) & _between(mask.T).T
    area = len(ink)
    return [
        float(np.log(height)),
        float(np.log(width)),
        area / (height * width),
        min(float(contrast), 120) / 100,
        float(gap / contrast),
        min(_spread(ring) / float(contrast), 1.5),
        min(float(fall[rim].mean() / contrast), 1.5),
        1 - np.count_nonzero(rim) / area,
        float(_holes(mask) > 0),
        area / np.count_nonzero(hull),
        _spread(ink) / float(contrast),
    ]


def _spread(values: Floats) -> float:
    """Standard deviation, without the overhead that NumPy's has on few numbers."""
    off = values - values.sum() / len(values)
    return float(np.sqrt(off @ off / len(values)))


def _framed(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    height, width = values.shape
    framed = np.zeros((height + 2 * _MARGIN, width + 2 * _MARGIN), values.dtype)
    framed[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN] = values
    return framed


def _between(mask: Bools) -> Bools:
    """What has a set pixel both above (or at) and below (or at) itself."""
    above: Bools = np.logical_or.accumulate(mask, 0)
    return above & np.logical_or.accumulate(mask[::-1], 0)[::-1]


def _holes(mask: Bools) -> int:
    """Of one 8-connected component: 1 - Euler number, counted from 2x2 blocks (Gray, IEEE Trans. Comput. 20, 1971)."""
    m = mask.view(np.uint8)
    a, b, c, d = m[:-1, :-1], m[:-1, 1:], m[1:, :-1], m[1:, 1:]
    total = a + b + c + d
    diagonal = (total == 2) & (a == d)
    euler = (np.count_nonzero(total == 1) - np.count_nonzero(total == 3) - 2 * np.count_nonzero(diagonal)) / 4
    return round(1 - euler)


def _grouped(boxes: npt.NDArray[np.int64], scores: Floats, dark: bool) -> list[Mark]:
    """Joins neighbours among the likely letters; keeps groups with a sure letter, and rows."""
    sure = _SURE_DARK if dark else _SURE
    chosen = np.flatnonzero(scores >= _LIKELY)
    if not len(chosen) or (scores[chosen].max() < sure and len(chosen) < _ROW):
        return []
    left, top, right, bottom = boxes[chosen].T
    tall = bottom - top
    # Side by side: less than a letter's height apart, and of like height.
    apart_x = np.maximum(left[:, None], left) - np.minimum(right[:, None], right)
    apart_y = np.maximum(top[:, None], top) - np.minimum(bottom[:, None], bottom)
    reach = np.minimum(tall[:, None], tall)
    alike = np.maximum(tall[:, None], tall) <= 2 * reach + 2
    joined = (apart_x <= 0.8 * reach) & (apart_y <= 0.4 * reach) & alike
    joined |= (apart_x <= 2) & (apart_y <= 2)  # pieces of one letter
    group = np.arange(len(chosen))
    while True:
        spread = np.where(joined, group[None, :], len(group)).min(1)
        if (spread == group).all():
            break
        group = spread
    result = []
    for number in np.unique(group):
        members = group == number
        best = float(scores[chosen[members]].max())
        if best < sure and members.sum() < _ROW:
            continue
        box = (left[members].min(), top[members].min(), right[members].max(), bottom[members].max())
        result.append(Mark((int(box[0]), int(box[1]), int(box[2]), int(box[3])), best, dark))
    return result


def _grow(mask: Bools, pixels: int) -> Bools:
    """Dilation by a square of 2 * pixels + 1, within the array."""
    for _ in range(pixels):
        wide = mask.copy()
        wide[1:] |= mask[:-1]
        wide[:-1] |= mask[1:]
        mask = wide.copy()
        mask[:, 1:] |= wide[:, :-1]
        mask[:, :-1] |= wide[:, 1:]
    return mask


def _dilate(picture: UInt8Array, size: int) -> UInt8Array:
    """Maximum over size x size pixels (odd), of those within the picture."""
    return _window(_window(picture, size).T, size).T


def _erode(picture: UInt8Array, size: int) -> UInt8Array:
    return 255 - _dilate(255 - picture, size)


def _window(picture: UInt8Array, size: int) -> UInt8Array:
    """Maximum over `size` rows. Windows of 1, 2, 4, ... rows by doubling: many times as fast as scipy's filters."""
    tall = np.zeros((len(picture) + size - 1, picture.shape[1]), np.uint8)
    tall[size // 2 : size // 2 + len(picture)] = picture
    done = 1
    while done < size:
        step = min(done, size - done)
        tall = np.maximum(tall[:-step], tall[step:])
        done += step
    return tall
