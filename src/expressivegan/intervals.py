"""Figures with their 95% intervals, by drawing patients with replacement."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Interval(NamedTuple):
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(
    statistic: Callable[[Ints], float], patients: Sequence[str], rounds: int = 1000, seed: int = 0
) -> Interval:
    """Percentile interval of a statistic of image indices, by drawing patients with replacement.

    Args:
        statistic: image indices → value; NaN where a draw does not define it.
        patients: the patient of each image.
        rounds: number of draws.
        seed: of the draws.
    """
    names, inverse = np.unique(np.asarray(patients), return_inverse=True)
    images_of = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(rounds):
        drawn = rng.integers(len(names), size=len(names))
        values.append(statistic(np.concatenate([images_of[i] for i in drawn])))
    found = np.asarray(values, dtype=np.float64)
    low, high = np.nanpercentile(found, [2.5, 97.5]) if np.isfinite(found).any() else (np.nan, np.nan)
    return Interval(statistic(np.arange(len(inverse))), float(low), float(high))
