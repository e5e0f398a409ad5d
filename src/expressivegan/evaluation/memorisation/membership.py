"""Can an attacker who holds the generated images tell whose pictures the generator has learnt from?"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from expressivegan.evaluation.memorisation.distances import Bools, Floats
from expressivegan.intervals import Interval, auc_interval

_LEAST_OUTSIDERS = 100
_FALSE = 0.01
_SURELY = 2 * _FALSE  # at 0.01 itself 3 to 4% of honest sets would be accused for this alone


@dataclass(frozen=True)
class Membership:
    """How well the attack tells training pictures from held-out ones."""

    auc: Interval
    """0.5: not at all. 95% interval over patients."""
    tpr: Interval
    """Share of training pictures recognised while 1% of held-out ones are taken for training pictures (Carlini et al.
    2022, section 3); 0.01 means not at all. NaN with fewer than 100 held-out pictures."""
    leaks: bool
    """The whole interval of the AUC lies above 0.5, or that of `tpr` above 0.02: a generator that knows a few patients
    by heart hardly moves the AUC."""


def equal_mix(labels: npt.NDArray[np.int64], member: Bools, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Rows at which training and held-out pictures have one class mix, as many as there can be.

    Else the attack tells the classes: pictures of a class that is made more often lie nearer to made ones.

    Args:
        labels: (R,) classes.
        member: (R,) whether a picture was trained on.
        rng: of the rows that are left out.

    >>> rows = equal_mix(np.repeat([0, 1], 50), np.tile([1, 1, 1, 1, 0], 20) > 0, np.random.default_rng(0))
    >>> len(rows)
    100
    """
    odds = member.sum() / max((~member).sum(), 1)
    kept = []
    for k in np.unique(labels):
        inside, outside = np.flatnonzero((labels == k) & member), np.flatnonzero((labels == k) & ~member)
        n = min(len(inside), round(odds * len(outside)))
        m = min(len(outside), round(len(inside) / odds)) if odds > 0 else len(outside)
        kept += [rng.permutation(inside)[:n], rng.permutation(outside)[:m]]
    return np.sort(np.concatenate(kept))


def attack(
    score: Floats, member: Bools, patients: npt.NDArray[np.str_], seed: int = 0, rounds: int = 500
) -> Membership:
    """Attack by the closest generated image: the full black-box attack of Chen et al. 2020 (GAN-Leaks, section 5.2).

    Args:
        score: (R,) likeness of each real picture to its nearest generated one.
        member: (R,) whether it was trained on.
        patients: (R,) names; they are drawn for the intervals, not pictures.
        seed: of the draws.
        rounds: draws.
    """
    auc = auc_interval(member, score, patients.tolist(), rounds=rounds, seed=seed)
    if (~member).sum() < _LEAST_OUTSIDERS:
        tpr = Interval(float("nan"), float("nan"), float("nan"))
    else:
        tpr = _tpr(score, member, patients, seed, rounds)
    return Membership(auc, tpr, bool(auc.low > 0.5 or tpr.low > _SURELY))


def _tpr(score: Floats, member: Bools, patients: npt.NDArray[np.str_], seed: int, rounds: int) -> Interval:
    names, owner = np.unique(patients, return_inverse=True)
    order = np.argsort(-score, kind="stable")
    ranked, inside, owner = score[order], member[order], owner[order]
    last = np.append(ranked[1:] != ranked[:-1], True)  # equal scores are accepted together

    def rate(weight: npt.NDArray[np.floating]) -> float:
        outside, right = np.cumsum(weight * ~inside), np.cumsum(weight * inside)
        allowed = last & (outside <= _FALSE * outside[-1])
        return float(right[allowed].max() / right[-1]) if allowed.any() and right[-1] else 0.0

    rng = np.random.default_rng(seed)
    drawn = [
        rate(np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))[owner].astype(float))
        for _ in range(rounds)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(rate(np.ones(len(owner))), float(low), float(high))
