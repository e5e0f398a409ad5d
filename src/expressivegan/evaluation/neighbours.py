"""One set of images and who lies near whom in it: each distance is computed once for all the figures that need it."""

from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from expressivegan.errors import InputError
from expressivegan.evaluation.distances import (
    Array,
    Block,
    Index,
    Keys,
    blocks,
    check_features,
    check_patients,
    exact,
    row_keys,
    where,
)
from expressivegan.evaluation.kernel import KernelSums

_TILE = 16  # columns of which only the nearest is looked at first


class Neighbours:
    """Nearest neighbours, mean distance and kernel sums of one set, in a single pass at the first question.

    Keep it: against a second set of generated images, nothing of the real ones is computed again. Copies count as
    neighbours at distance 0. Values are those of direct subtraction, to rounding.

    Args:
        features: (n, d) finite, n ≥ 2.
        patients: (n,) names; None takes every row for a patient of its own.
        depth: how many neighbours of each row to know, cut to n - 1.
        precise: also mean distance and kernel sums, in float64; without, half the time.
        weights: (n, R) how often each row occurs in each of R bootstrap rounds, for the kernel sums.
        name: of the features, for errors.

    Raises:
        InputError: too few rows, NaN, or another number of patients than rows.
    """

    def __init__(
        self,
        features: npt.ArrayLike,
        patients: npt.ArrayLike | None = None,
        *,
        depth: int = 5,
        precise: bool = True,
        weights: Array | None = None,
        name: str = "features",
    ) -> None:
        self.rows = check_features(features, name)
        self.patients = check_patients(patients, len(self.rows))
        self.several = len(np.unique(self.patients)) < len(self.rows)  # some patient has several images
        self.depth = min(depth, len(self.rows) - 1)
        self.precise = precise
        self.weights = weights

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def keys(self) -> Keys:
        """(n,) equal for equal rows."""
        return row_keys(self.rows)

    @cached_property
    def _scan(self) -> "_Scan":
        n = len(self)
        distance, index = np.empty((n, self.depth)), np.empty((n, self.depth), np.int64)
        foreign = np.empty(n)
        total = 0.0
        sums = KernelSums.empty(self.weights) if self.precise else None
        for block in blocks(self.rows, self.rows, products=self.precise, precise=self.precise):
            part = np.arange(block.start, block.stop)
            if sums is not None and block.products is not None:
                sums.add(block.products, part, self.rows.shape[1], self.patients, self.weights)
                total += _mean_part(block)
            squared = block.squared
            squared[np.arange(len(part)), part] = np.inf
            distance[part], index[part] = self._nearest(squared, block, part, self.depth)
            if self.several:
                squared[self.patients[part, None] == self.patients] = np.inf
                foreign[part] = self._nearest(squared, block, part, 1)[0][:, 0]
        if not self.several:
            foreign = distance[:, 0]
        return _Scan(distance, index, foreign, total / (n * (n - 1)), sums)

    def _nearest(self, squared: npt.NDArray[np.float64], block: Block, part: Index, depth: int) -> tuple[Array, Index]:
        """The `depth` smallest of each row, in order; infinite where there are fewer."""
        low = _bound(squared, depth) + 2 * block.slack
        i, j = where(squared <= low[:, None])
        finite = np.isfinite(squared[i, j])
        i, j = i[finite], j[finite]
        far = exact(self.rows, part[i], self.rows, j, self.keys[part[i]] == self.keys[j])
        order = np.lexsort((far, i))
        i, j, far = i[order], j[order], far[order]
        place = np.arange(len(i)) - np.searchsorted(i, i)
        kept = place < depth
        distance, index = np.full((len(part), depth), np.inf), np.zeros((len(part), depth), np.int64)
        distance[i[kept], place[kept]], index[i[kept], place[kept]] = far[kept], j[kept]
        return distance, index

    @property
    def distance(self) -> Array:
        """(n, depth) distances to the nearest other rows, ascending."""
        return self._scan.distance

    @property
    def index(self) -> Index:
        """(n, depth) which rows these are."""
        return self._scan.which

    @property
    def nearest(self) -> Array:
        """(n,) distance to the nearest row of another patient.

        Raises:
            InputError: there is a single patient.
        """
        if np.isinf(self._scan.foreign).any():
            raise InputError("patients name a single patient: the nearest other patient does not exist")
        return self._scan.foreign

    @property
    def mean_distance(self) -> float:
        """Mean Euclidean distance over all pairs of rows; needs `precise`."""
        return self._scan.mean_distance

    @property
    def kernel(self) -> KernelSums:
        """Sums of the kernel of `kid` over pairs of rows; needs `precise`."""
        sums = self._scan.sums
        assert sums is not None, "made without precise"
        return sums

    def radius(self, k: int) -> Array:
        """(n,) distance of each row to its k-th nearest other row.

        Raises:
            InputError: k is not in 1..depth.
        """
        if not 1 <= k <= self.depth:
            raise InputError(f"k (={k}) must be at least 1 and at most depth (={self.depth}); ask for a greater depth")
        return self.distance[:, k - 1]

    def distinct(self, threshold: float) -> int:
        """Components of the graph that joins rows nearer than `threshold` (> 0)."""
        single = np.unique(self.keys, return_index=True)[1]
        if len(single) == 1:
            return 1
        rows = self.rows[np.sort(single)]
        near = within(rows, rows, np.full(len(rows), threshold))[0]
        graph = coo_array((np.ones(len(near.i), np.bool_), (near.i, near.j)), shape=(len(rows), len(rows)))
        return int(connected_components(graph, directed=False, return_labels=False))


class _Scan(NamedTuple):
    distance: Array
    which: Index
    foreign: Array
    mean_distance: float
    sums: KernelSums | None


class Pairs(NamedTuple):
    """Rows i of the one set whose ball holds row j of the other, at which distance."""

    i: Index
    j: Index
    distance: Array


def within(
    x: Array,
    y: Array,
    x_radius: Array,
    y_radius: Array | None = None,
    *,
    precise: bool = True,
    sums: KernelSums | None = None,
    x_weights: Array | None = None,
    y_weights: Array | None = None,
) -> tuple[Pairs, Pairs | None]:
    """Who lies strictly inside whose ball, in one pass over x (n, d) against y (m, d).

    Args:
        x: finite.
        y: finite.
        x_radius: (n,) of the balls around x.
        y_radius: (m,) of the balls around y, if these are wanted too.
        precise: see `blocks`; neither changes who is inside.
        sums: kernel sums to fill on the way.
        x_weights: (n, R) of the kernel sums.
        y_weights: (m, R) of the kernel sums.

    Returns:
        pairs (i, j) with |x_i - y_j| < x_radius_i, and those with |x_i - y_j| < y_radius_j.
    """
    keys: tuple[Keys, Keys] | None = None
    found: tuple[list[Pairs], list[Pairs]] = ([], [])
    for block in blocks(x, y, products=sums is not None, precise=precise):
        part = slice(block.start, block.stop)
        if sums is not None and block.products is not None:
            sums.add_cross(block.products, part, x.shape[1], x_weights, y_weights)
        for radius, out in ((x_radius[part, None], found[0]), (None if y_radius is None else y_radius[None], found[1])):
            if radius is None:
                continue
            limit = np.square(radius / block.scale)
            i, j = where(block.squared < (limit + block.slack[:, None]).astype(block.squared.dtype) * _UP)
            rim = np.broadcast_to(radius, block.squared.shape)[i, j]
            squared = block.squared[i, j].astype(np.float64)
            distance = np.sqrt(np.maximum(squared, 0)) * block.scale
            unsure = np.flatnonzero(np.abs(squared - np.square(rim / block.scale)) <= 1.1 * block.slack[i])
            a, b = i[unsure] + block.start, j[unsure]
            if keys is None and len(unsure) > len(x) + len(y):  # many copies: fewer keys than pairs
                keys = row_keys(x), row_keys(y)
            distance[unsure] = exact(x, a, y, b, None if keys is None else keys[0][a] == keys[1][b])
            inside = distance < rim
            out.append(Pairs(i[inside] + block.start, j[inside], distance[inside]))
    first, second = (Pairs(*(np.concatenate(c) for c in zip(*out, strict=True))) if out else None for out in found)
    assert first is not None
    return first, second


_UP = np.float32(1 + 1e-6)  # more than a limit loses when it becomes float32


def _bound(squared: npt.NDArray[np.float64], depth: int) -> Array:
    """(b,) values that at least `depth` entries of each row do not exceed; the depth-th smallest, or a little more."""
    width = squared.shape[1]
    tiles = width // _TILE
    if tiles < 4 * depth:
        return np.partition(squared, depth - 1, axis=1)[:, depth - 1].astype(np.float64)
    # The depth-th smallest of the tiles' minima is no smaller than the depth-th smallest of all; strided, so that
    # images of one patient, which lie side by side, fall into different tiles.
    least = squared[:, :tiles].copy()
    for k in range(1, _TILE):
        np.minimum(least, squared[:, k * tiles : (k + 1) * tiles], out=least)
    return np.partition(least, depth - 1, axis=1)[:, depth - 1].astype(np.float64)


def _mean_part(block: Block) -> float:
    """Sum of a block's distances; what is not told from 0 counts as 0, at most 1e-6 of the widest distance."""
    squared = np.where(block.squared > block.slack[:, None], block.squared, 0)
    return float(np.sqrt(squared, out=squared).sum()) * block.scale
