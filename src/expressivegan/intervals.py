"""Figures with their 95% intervals, by drawing patients with replacement."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

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


def plain(value: Any) -> Any:
    """Nested figures as JSON knows them.

    An `Interval` becomes an object of value, low and high; arrays become lists, paths strings with forward slashes; a
    number that is not finite becomes null.

    Raises:
        TypeError: an object that JSON does not know.

    >>> plain({"auc": Interval(0.5, 0.25, float("nan")), 3: np.arange(2)})
    {'auc': {'value': 0.5, 'low': 0.25, 'high': None}, '3': [0, 1]}
    """
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, Interval):
        return plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return str(value)  # of a subclass, such as NumPy's, the string alone
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, PurePath):
        return value.as_posix()
    raise TypeError(f"{value!r}, of type {type(value).__name__}, is nothing that JSON knows")


def draw_weights(patients: npt.NDArray[Any], rounds: int, seed: int) -> Floats:
    """How often each image occurs when patients are drawn with replacement, (rounds, N).

    Args:
        patients: (N,) names or numbers.
        rounds: number of draws.
        seed: of the draws.
    """
    names, of = np.unique(patients, return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), rounds)
    return drawn[:, of].astype(np.float64)


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


def auc_interval(
    truth: npt.NDArray[np.bool_], score: npt.NDArray[Any], patients: Sequence[str], rounds: int = 500, seed: int = 0
) -> Interval:
    """Area under the ROC curve with its interval over patients.

    Equal to `bootstrap` of scikit-learn's `roc_auc_score`, without sorting anew in every round. Ties count half.

    Args:
        truth: (N,) whether each image is a positive.
        score: (N,) higher means rather positive.
        patients: N names; they are drawn, not images.
        rounds: number of draws.
        seed: of the draws.

    Returns:
        NaN where there are no positives or no negatives.

    >>> auc_interval(np.array([False, True, False, True]), np.array([1, 2, 2, 3]), "abcd", rounds=2).value
    0.875
    """
    names, of = np.unique(np.asarray(list(patients)), return_inverse=True)
    order = np.argsort(score, kind="stable")
    _, starts = np.unique(np.asarray(score)[order], return_index=True)
    positive = np.asarray(truth, bool)[order]
    of = of[order]

    def auc(weights: Floats) -> float:
        ups = np.add.reduceat(weights * positive, starts)
        downs = np.add.reduceat(weights * ~positive, starts)
        total = ups.sum() * downs.sum()
        return float((ups * (np.cumsum(downs) - downs / 2)).sum() / total) if total else float("nan")

    rng = np.random.default_rng(seed)
    drawn = [
        auc(np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))[of].astype(np.float64))
        for _ in range(rounds)
    ]
    found = np.asarray(drawn)
    low, high = np.nanpercentile(found, [2.5, 97.5]) if np.isfinite(found).any() else (np.nan, np.nan)
    return Interval(auc(np.ones(len(of))), float(low), float(high))


def mean_interval(values: npt.NDArray[Any], patients: Sequence[str], rounds: int = 1000, seed: int = 0) -> Interval:
    """Mean with its interval over patients; NaN for no values. The same as `bootstrap` of the mean, but fast."""
    if len(values) == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    _, of = np.unique(np.asarray(list(patients)), return_inverse=True)
    sums, counts = np.bincount(of, weights=values), np.bincount(of)
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(len(sums), size=len(sums)) for _ in range(rounds))
    low, high = np.percentile([sums[i].sum() / counts[i].sum() for i in drawn], [2.5, 97.5])
    return Interval(float(np.mean(values)), float(low), float(high))


def share_interval(successes: int, n: int) -> Interval:
    """Share with its 95% interval (Wilson, JASA 22, 1927); NaN for n = 0.

    >>> str(share_interval(8, 10))
    '0.800 [0.490, 0.943]'
    """
    if n == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    z, p = 1.959964, successes / n
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return Interval(p, max(0.0, float(middle - half) / scale), min(1.0, float(middle + half) / scale))
