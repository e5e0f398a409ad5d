"""Outlines of the lungs by dynamic programming over row intervals, without any learned weight.

On each side of the mid-line a stack of row intervals [medial border, lateral border) is sought that holds as much
darkness and as little brightness as it can, starts and ends on strong edges, and whose borders move little from row to
row: the optimal-path scheme of Felzenszwalb and Zabih (*Dynamic Programming and Graph Algorithms in Computer Vision*,
PAMI 33, 2011, section 3) with a pair of borders as state, and free ends as in local alignment. The stack begins at the
apex and ends at the diaphragm. A half-opaque lung keeps its outline, which a threshold alone would lose.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy import ndimage

Grey = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]

SIDE = 64
"""Everything is measured on copies of this size, whatever the size of the images."""
HALF = 31
"""Columns looked at on each side of the mid-line."""

_BACKGROUND = 0.5  # of the median grey of the middle: darker than that and joined to the edge is not body
_WINDOW = 21  # pixels over which brightness is made local
_RIM = 3.0  # pixels from the background within which soft tissue fades and looks like lung
_SLOPES = np.arange(-5, 6) * 0.08  # of the mid-line: up to 22 degrees
_SPINE_ROWS = np.arange(8, 52, 2)
_SPINE_COLUMNS = np.arange(18, 46)

_MEDIAL_MOVES, _MEDIAL_PRICE = (-1, 0, 1, 2), 0.4  # pixels that a border moves outwards from a row to the next below
_LATERAL_MOVES, _LATERAL_PRICE = (-1, 0, 1, 2), 0.6
_EDGE = 0.8  # worth of an edge against that of a pixel of darkness
_ROW = 2.5  # price of a row, which keeps slivers of soft tissue from counting as lung
_START = -1.0
_LEAST_WIDTH = 3


class Prepared(NamedTuple):
    """Images at 64 x 64, each (N, 64, 64)."""

    grey: Grey
    """0..1 of the image's own range."""
    body: Bools
    local: Grey
    """Brightness against the neighbourhood: < 0 is dark."""


class Line(NamedTuple):
    """Mid-lines: column at mid-height, and columns per row; each (N,)."""

    column: Grey
    slope: Grey


class Outline(NamedTuple):
    """One lung of each image: columns medial <= c < lateral beside the mid-line are lung; both 0 in rows without."""

    medial: Ints
    """(N, 64)"""
    lateral: Ints
    """(N, 64)"""
    score: Grey
    """(N,) evidence."""


def prepare(images: Pixels) -> Prepared:
    """uint8 (N, H, W) → what is measured."""
    x = torch.from_numpy(np.ascontiguousarray(images, np.float32))[:, None]
    if x.shape[-2:] != (SIDE, SIDE):
        x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
    grey = x[:, 0].numpy()
    low, high = np.percentile(grey.reshape(len(grey), -1), [1, 99], axis=1).astype(np.float32)[:, :, None, None]
    grey = np.clip((grey - low) / np.maximum(high - low, 1), 0, 1)
    soft = ndimage.gaussian_filter(grey, (0, 1, 1))
    body = _body(soft)
    weight = _average(body.astype(np.float32)) + 1e-3
    mean = _average(soft * body) / weight
    # The spread of the image as it is, not of the smoothed one: noise must not be blown up into lungs.
    spread = np.sqrt(np.maximum(_average(grey * grey * body) / weight - mean * mean, 0))
    local = (soft - mean) / (0.6 * spread + 0.4 * spread.mean((1, 2), keepdims=True) + 0.01)
    # Slices lie so far apart that one call measures all images; what lies beyond the picture is no background.
    padded = np.pad(body, ((0, 0), (3, 3), (3, 3)), constant_values=True)
    depth = np.minimum(ndimage.distance_transform_edt(padded, (1e3, 1, 1)), 100)[:, 3:-3, 3:-3]
    local = np.clip(local, -1.6, 1.6) + 1.5 * np.exp(-np.square(depth / _RIM))
    return Prepared(grey, body, local.astype(np.float32))


def _body(soft: Grey) -> Bools:
    """All but the dark regions that touch the left, right or upper edge."""
    middle = np.median(soft[:, 12:56, 14:50].reshape(len(soft), -1), axis=1)[:, None, None]
    plane = np.zeros((3, 3, 3), bool)
    plane[1] = ndimage.generate_binary_structure(2, 1)
    parts, count = ndimage.label(soft < _BACKGROUND * middle, plane)
    outside = np.zeros(count + 1, bool)
    for edge in (parts[:, 0], parts[:, :, 0], parts[:, :, -1]):
        outside[np.unique(edge)] = True
    outside[np.unique(parts[:, 16:50, 14:50])] = False  # a lung that reaches the edge of a narrow picture
    outside[0] = False
    body: Bools = ~outside[parts]
    return body


def _average(x: Grey) -> Grey:
    smooth: Grey = ndimage.uniform_filter(x, (0, _WINDOW, _WINDOW), mode="nearest")
    return smooth


def midlines(local: Grey) -> Line:
    """The straight line that is brightest against both its flanks; (N, 64, 64) → (N,) each."""
    n = len(local)
    best, column, slope = np.full(n, -np.inf), np.zeros(n, np.float32), np.zeros(n, np.float32)
    for tried in _SLOPES:
        where = np.arange(SIDE)[None] + np.rint(tried * (_SPINE_ROWS[:, None] - 31.5)).astype(int)
        sheared = local[:, _SPINE_ROWS[:, None], np.clip(where, 0, SIDE - 1)]
        total = np.concatenate([np.zeros((n, len(_SPINE_ROWS), 1), np.float32), np.cumsum(sheared, 2)], 2)

        def mean(first: int, last: int, total: Grey = total) -> Grey:
            summed: Grey = total[:, :, _SPINE_COLUMNS + last + 1] - total[:, :, _SPINE_COLUMNS + first]
            return np.asarray(summed / (last - first + 1), np.float32)

        left, right = mean(-13, -5), mean(5, 13)
        contrast = mean(-2, 2) - 0.7 * np.maximum(left, right) - 0.15 * (left + right)
        score = contrast.mean(1) - 0.3 * abs(tried) - 0.006 * np.abs(_SPINE_COLUMNS - 31.5)
        at = score.argmax(1)
        value = score[np.arange(n), at]
        better = value > best
        best[better], column[better], slope[better] = value[better], _SPINE_COLUMNS[at[better]], tried
    return Line(column, slope)


def unfold(x: Grey, line: Line, sign: int, outside: float) -> Grey:
    """(N, 64, 64) → (N, 64, HALF): what lies 0, 1, … columns beside the mid-line, towards `sign`."""
    rows = np.arange(SIDE, dtype=np.float32)[:, None] - 31.5
    beside = sign * np.arange(HALF, dtype=np.float32)
    at = line.column[:, None, None] + line.slope[:, None, None] * rows + beside
    low = np.floor(at).astype(int)
    share = at - low
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1)), constant_values=outside)
    first = np.take_along_axis(padded, np.clip(low + 1, 0, SIDE + 1), 2)
    second = np.take_along_axis(padded, np.clip(low + 2, 0, SIDE + 1), 2)
    mixed: Grey = (first * (1 - share) + second * share).astype(np.float32)
    return mixed


def _prior() -> Grey:
    """Where lungs are expected, (64, HALF), added to darkness; against the fringe of the body and gas in the belly."""
    y, x = np.arange(SIDE)[:, None], np.arange(HALF)[None]
    near = np.exp(-(((x - 13) / 11.0) ** 2) - ((y - 32) / 20.0) ** 2)
    prior = 0.5 * near - 0.35 - 0.05 * np.maximum(x - 23, 0) - 0.6 * ((y > 50) & (x < 14))
    return prior.astype(np.float32)


_PRIOR = _prior()


def outline(local: Grey) -> Outline:
    """The best stack of row intervals of an unfolded side (N, 64, HALF)."""
    n, height, k = local.shape
    held = np.concatenate([np.zeros((n, height, 1), np.float32), np.cumsum(_PRIOR - local, 2)], 2)
    wide = np.pad(local, ((0, 0), (0, 0), (2, 2)), mode="edge")
    pairs = wide[:, :, :-1] + wide[:, :, 1:]
    edge = 0.5 * _EDGE * (pairs[:, :, : k + 1] - pairs[:, :, 2:])  # bright before the border, dark behind it
    enter, leave = edge - held, held - edge
    at = np.arange(k + 1)
    possible = (at[None] - at[:, None] >= _LEAST_WIDTH) & (at[:, None] >= 1)
    price = np.where(possible, -_ROW, -np.inf).astype(np.float32)
    value = np.empty((height, n, k + 1, k + 1), np.float32)  # of the best stack that ends here, by (medial, lateral)
    before = np.full((n, k + 1, k + 1), -np.inf, np.float32)
    for y in range(height):
        before = np.maximum(_reached(before), _START) + (enter[:, y, :, None] + leave[:, y, None, :] + price)
        value[y] = before
    return _trace(value)


def _reached(value: Grey) -> Grey:
    """(N, k, k) of one row → the best that each pair of borders of the next row can come from."""
    for moves, price, axis in ((_MEDIAL_MOVES, _MEDIAL_PRICE, 1), (_LATERAL_MOVES, _LATERAL_PRICE, 2)):
        best = value.copy()
        for move in moves:
            to: list[Any] = [slice(None)] * 3
            come: list[Any] = [slice(None)] * 3
            to[axis] = slice(max(move, 0), value.shape[axis] + min(move, 0))
            come[axis] = slice(max(-move, 0), value.shape[axis] + min(-move, 0))
            if move:
                target = best[tuple(to)]
                np.maximum(target, value[tuple(come)] - price * abs(move), out=target)
        value = best
    return value


def _trace(value: Grey) -> Outline:
    """Follows the best stack of each image upwards from its last row."""
    height, n, k = value.shape[:3]
    flat = value.reshape(height, n, -1)
    peak = flat.max(2)
    end, score = peak.argmax(0), peak.max(0)
    who = np.arange(n)
    medial, lateral = np.divmod(flat[end, who].argmax(1), k)
    found = np.zeros((2, n, height), np.int64)
    going = score > 0
    outwards, sideways = (m.ravel() for m in np.meshgrid(_MEDIAL_MOVES, _LATERAL_MOVES, indexing="ij"))
    price = _MEDIAL_PRICE * np.abs(outwards) + _LATERAL_PRICE * np.abs(sideways)
    for y in range(height - 1, -1, -1):
        here = going & (end >= y)
        found[0, here, y], found[1, here, y] = medial[here], lateral[here]
        if y == 0:
            break
        a, b = medial[:, None] - outwards, lateral[:, None] - sideways
        inside = (a >= 0) & (a < k) & (b >= 0) & (b < k)
        came = value[y - 1, who[:, None], np.clip(a, 0, k - 1), np.clip(b, 0, k - 1)] - price
        came = np.where(inside, came, -np.inf)
        best = came.argmax(1)
        on = here & (came[who, best] > _START)
        going &= on | (end < y)
        medial, lateral = np.where(on, a[who, best], medial), np.where(on, b[who, best], lateral)
    return Outline(found[0], found[1], score)


MaskSource = Callable[[Pixels], "Masks"]


class Masks(NamedTuple):
    """Masks of another source, bool (N, 64, 64); the patient's right is the image's left."""

    right_lung: Bools
    left_lung: Bools
    heart: Bools


def outline_of_mask(mask: Bools, line: Line, sign: int) -> Outline:
    """The outline of a given mask, (N, 64, 64), where it lies on the side `sign` of the mid-line."""
    beside = unfold(mask.astype(np.float32), line, sign, 0) > 0.5
    some = beside.any(2)
    medial = np.where(some, beside.argmax(2), 0)
    lateral = np.where(some, beside.shape[2] - beside[:, :, ::-1].argmax(2), 0)
    return Outline(medial.astype(np.int64), lateral.astype(np.int64), beside.sum((1, 2)).astype(np.float32))
