"""Named random numbers, and the curves that a phantom is drawn with; all of batches of pictures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from expressivegan.streams import derive_seed

Array = npt.NDArray[Any]  # float32 throughout
UInt8Array = npt.NDArray[np.uint8]


class Numbers:
    """Named random numbers of a batch: the same name is the same number for one key, whatever else is drawn."""

    def __init__(self, keys: Sequence[tuple[Any, ...]], size: int = 96) -> None:
        streams = [np.random.Generator(np.random.PCG64(derive_seed("phantom", *key))) for key in keys]
        self._table = np.stack([s.random(size, dtype=np.float32) for s in streams])
        self._next = 0

    def __call__(self, low: float = 0.0, high: float = 1.0) -> Array:
        """(B, 1, 1), uniform."""
        column = self._table[:, self._next]
        self._next += 1
        return (low + (high - low) * column)[:, None, None].astype(np.float32)

    def chance(self, probability: float) -> Array:
        """(B, 1, 1), 1 with that probability, else 0."""
        return (self(0, 1) < probability).astype(np.float32)

    def field(self, cells: int) -> Array:
        """(B, cells, cells), uniform in -1..1."""
        count = cells * cells
        block = self._table[:, self._next : self._next + count]
        self._next += count
        return block.reshape(-1, cells, cells) * 2 - 1


def rise(distance: Array, width: Array | float) -> Array:
    """0 below -width, 1 above +width, smooth between."""
    t = distance * (0.5 / width)
    t += 0.5
    np.maximum(t, 0, out=t)
    np.minimum(t, 1, out=t)
    curve = 3 - 2 * t
    curve *= t
    curve *= t
    return curve


def bump(distance: Array, width: Array | float) -> Array:
    """1 at 0, falling smoothly to 0 at ±width."""
    t = distance * (1 / width)
    t *= t
    np.subtract(1, t, out=t)
    np.maximum(t, 0, out=t)
    t *= t
    return t


def wave(phase: Array, width: Array | float) -> Array:
    """A bump around every whole number."""
    return bump(phase - np.rint(phase), width)


def ridge(phase: Array) -> Array:
    """Thin bright lines where the phase (in radians) is a multiple of π."""
    t = np.cos(phase)
    for _ in range(3):
        t *= t
    return t


def spread(field: Array, size: int) -> Array:
    """Random (B, k, k) → smooth (B, size, size)."""
    cells = field.shape[-1]
    at = (np.arange(size, dtype=np.float32) + 0.5) / size * (cells - 1)
    weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(cells, dtype=np.float32)))
    weights = weights * weights * (3 - 2 * weights)  # rounds the corners off; rows still sum to 1
    spread: Array = np.einsum("ik,bkj->bij", weights, np.einsum("bkl,jl->bkj", field, weights))
    return spread


def average(cells: int, size: int) -> Array:
    """(size, cells): what share of each of `size` pixels each of `cells` cells covers."""
    low = np.arange(size)[:, None] * cells / size
    high = low + cells / size
    cell = np.arange(cells)[None, :]
    cover = np.clip(np.minimum(high, cell + 1) - np.maximum(low, cell), 0, None) * size / cells
    return np.asarray(cover, np.float32)
