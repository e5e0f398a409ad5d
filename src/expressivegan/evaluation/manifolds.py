"""Precision, recall, density and coverage, with intervals that cost next to nothing.

A figure is a count of balls and of images inside them. Only the pairs (image, ball) matter, a few per image: kept
sparse, they give the figure of every set that lacks some images, with radii as they would be without these.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from expressivegan.errors import InputError
from expressivegan.evaluation.distances import Array, Index, check_pair
from expressivegan.evaluation.neighbours import Neighbours, Pairs, within
from expressivegan.intervals import Interval

_GROUPS = 50  # left out one by one


class PRDC(NamedTuple):
    """Figures of `prdc`. Precision, recall and coverage lie in [0, 1]; density is ≥ 0 and about 1 for real images."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: npt.ArrayLike, fake: npt.ArrayLike, k: int = 5) -> PRDC:
    """Precision and recall (Kynkäänniemi et al. 2019, equation 2), density and coverage (Naeem et al. 2020, section 3).

    A ball around each image reaches to its k-th nearest neighbour in its own set. Precision: share of fakes inside some
    real ball. Recall: share of reals inside some fake ball. Density: real balls per fake, over k. Coverage: share of
    real balls that hold a fake.

    Args:
        real: (n, d) finite, n > k.
        fake: (m, d) finite, m > k.
        k: which neighbour, ≥ 1.

    Raises:
        InputError: k out of range, too few rows, NaN, or different d.
    """
    real, fake = check_pair(real, fake)
    check_k(k, len(real), len(fake))
    a, b = (Neighbours(x, depth=k, precise=False) for x in (real, fake))
    return compare(a, b, k)


def compare(real: Neighbours, fake: Neighbours, k: int) -> PRDC:
    """`prdc` of two sets whose neighbours are known to depth k, so that real ones are looked at only once."""
    real_radius, fake_radius = real.radius(k), fake.radius(k)
    in_real, in_fake = within(real.rows, fake.rows, real_radius, fake_radius, precise=False)
    assert in_fake is not None
    return _figures(in_real, in_fake, np.ones(len(real), np.bool_), np.ones(len(fake), np.bool_), k)


def check_k(k: int, real: int, fake: int) -> None:
    """
    Raises:
        InputError: k is not in 1..rows - 1.
    """
    if k < 1 or k >= min(real, fake):
        raise InputError(f"k (={k}) must be at least 1 and less than the number of rows ({real} and {fake})")


def depth_for(k: int) -> int:
    """Neighbours to know so that the k-th is known, too, when a group of images is left out."""
    return 3 * k + 5


def prdc_intervals(
    real: Neighbours, fake: Neighbours, in_real: Pairs, in_fake: Pairs, k: int, seed: int
) -> dict[str, Interval]:
    """The four figures with 95% intervals, by a delete-a-group jackknife (Shao and Tu 1995, section 2.3).

    Reference patients fall into 50 random groups (each its own where there are fewer), generated images likewise; the
    figures are computed anew without each group, radii included, and both variances are added. Drawing with replacement
    would not do: copies are their own neighbours and shrink every ball.

    The interval is about the figure at these n; all four depend on n and on its ratio. It is wide rather than narrow:
    in simulations 1.1 to 2.3 times the true standard deviation, at a coverage of 0.95 to 1.

    Args:
        real: with `patients`; both known to `depth_for(k)`.
        fake: generated images.
        in_real: fakes in real balls of the widest radius known.
        in_fake: reals in fake balls of the widest radius known, as (real, fake).
        k: which neighbour.
        seed: of the groups.
    """
    everyone = np.ones(len(real), np.bool_), np.ones(len(fake), np.bool_)
    inner = _inside(in_real, real.radius(k), True), _inside(in_fake, fake.radius(k), False)
    whole = np.array(_figures(inner[0], inner[1], everyone[0], everyone[1], k))
    draw = np.random.default_rng(seed)
    variance, freedom = np.zeros(4), []
    for side, rows in enumerate((real, fake)):
        group = _groups(rows.patients, draw)
        count = int(group.max()) + 1
        if count < 2:
            return {name: Interval(float(v), np.nan, np.nan) for name, v in zip(PRDC._fields, whole, strict=True)}
        figures = np.empty((count, 4))
        for left_out in range(count):
            radius = _radius_without(rows, k, group, left_out)
            there = group != left_out
            masks = (there, everyone[1]) if side == 0 else (everyone[0], there)
            if side == 0:
                pairs = _inside(in_real, radius, True), inner[1]
            else:
                pairs = inner[0], _inside(in_fake, radius, False)
            figures[left_out] = _figures(pairs[0], pairs[1], masks[0], masks[1], k)
        variance += (count - 1) / count * np.square(figures - figures.mean(0)).sum(0)
        freedom.append(count - 1)
    half = stats.t.ppf(0.975, min(freedom)) * np.sqrt(variance)
    top = np.array([1, 1, np.inf, 1])
    low, high = np.maximum(whole - half, 0), np.minimum(whole + half, top)
    return {
        name: Interval(float(v), float(a), float(b))
        for name, v, a, b in zip(PRDC._fields, whole, low, high, strict=True)
    }


def _figures(
    in_real: Pairs, in_fake: Pairs, reals: npt.NDArray[np.bool_], fakes: npt.NDArray[np.bool_], k: int
) -> PRDC:
    """Of those images alone; pairs of others are passed over."""
    i, j = _among(in_real, reals, fakes)
    a, _ = _among(in_fake, reals, fakes)
    n, m = int(reals.sum()), int(fakes.sum())
    return PRDC(
        precision=_different(j, len(fakes)) / m,
        recall=_different(a, len(reals)) / n,
        density=len(i) / (k * m),
        coverage=_different(i, len(reals)) / n,
    )


def _among(pairs: Pairs, reals: npt.NDArray[np.bool_], fakes: npt.NDArray[np.bool_]) -> tuple[Index, Index]:
    kept = reals[pairs.i] & fakes[pairs.j]
    return pairs.i[kept], pairs.j[kept]


def _different(rows: Index, count: int) -> int:
    seen = np.zeros(count, np.bool_)
    seen[rows] = True
    return int(seen.sum())


def _inside(pairs: Pairs, radius: Array, by_row: bool) -> Pairs:
    kept = pairs.distance < radius[pairs.i if by_row else pairs.j]
    return Pairs(pairs.i[kept], pairs.j[kept], pairs.distance[kept])


def _radius_without(rows: Neighbours, k: int, group: Index, left_out: int) -> Array:
    """Distance to the k-th neighbour outside the group; the last one known where there are fewer."""
    there = group[rows.index] != left_out
    place = np.where(there.sum(1) >= k, (there.cumsum(1) == k).argmax(1), rows.depth - 1)
    found: Array = rows.distance[np.arange(len(place)), place]
    return found


def _groups(patients: Index, draw: np.random.Generator) -> Index:
    """(n,) group of each image; patients are dealt evenly, in random order."""
    count = int(patients.max()) + 1
    order = draw.permutation(count)
    found: Index = (order % min(_GROUPS, count))[patients]
    return found
