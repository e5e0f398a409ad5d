"""Is the training pool nearer to the generated images than held-out patients of the same source are?

Under the null hypothesis the generator knows training patients no better than held-out ones: which of the two pools a
patient stands in is then a matter of chance. So patients' labels are permuted, as often as wanted; whole patients, thus
neither several exposures of one child nor many generated images with one neighbour, nor pools of unequal size, make the
test wrong. The statistic looks for an excess of nearest neighbours in the training pool among the closest 0.5% to 100%
of generated images, and of pairs of parents of a blend that both stand in it, and takes the largest excess in standard
deviations (Westfall and Young, *Resampling-based multiple testing*, 1993, section 2.5).

A permutation of patients cannot see that a *single* patient is replayed, and sees little where the held-out pool is
small. Near-duplicates, which strangers never are, are therefore counted as well: against those of held-out images
(binomial), and against how many of real held-out images are near-duplicates of training images (Fisher's exact test).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binom, hypergeom

from expressivegan.evaluation.memorisation.distances import Bools, Ints
from expressivegan.intervals import Interval

Values = npt.NDArray[np.floating]
ALPHA = 0.05
_LEAN, _COPIES = 0.8, 0.2  # how the error is shared out between the two tests
_TOP = (1.0, 0.5, 0.25, 0.1, 0.05, 0.02, 0.01, 0.005)
_CHUNK = 500
_GATE = 0.1


@dataclass(frozen=True)
class Evidence:
    """What the test needs to know of each of N generated images, blind to the pools."""

    owner: Ints
    """(N,) number of the patient whose picture is nearest."""
    likeness: Values
    """(N,) to that picture."""
    parents: Ints
    """(N, 2) numbers of the patients of two pictures that explain the image best; -1 where there are none."""
    blend: Values
    """(N,) how well they do."""


@dataclass(frozen=True)
class Excess:
    """Result of `test_excess`."""

    p_value: float
    """Of both tests together: min(p_lean / 0.8, p_copies / 0.2), at most 1. Below 0.05 means memorisation."""
    p_lean: float
    """That the training pool is nearer, by permutation of patients."""
    p_copies: float
    """That there are more near-duplicates of training images than chance gives."""


def test_excess(
    evidence: Evidence,
    in_training: Bools,
    strata: Ints,
    p_copies: float,
    rounds: int,
    rng: np.random.Generator,
) -> Excess:
    """One-sided test of memorisation.

    Args:
        evidence: of the generated images.
        in_training: (P,) the pool of each patient.
        strata: (P,) labels are permuted within these: class, number of images.
        p_copies: of `copies_p_value`.
        rounds: permutations; the least p-value is 1 / (rounds + 1), over 0.8.
        rng: of the permutations.
    """
    columns = _columns(evidence, len(in_training))
    observed = columns.excess(in_training[None].astype(np.float32))[0]
    drawn = []
    for start in range(0, rounds, _CHUNK):
        labels = _permuted(in_training, strata, min(_CHUNK, rounds - start), rng)
        drawn.append(columns.excess(labels))
    null = np.concatenate(drawn)
    spread = null.std(0)
    spread = np.where(spread > 1e-6, spread, np.inf)
    largest = ((null - null.mean(0)) / spread).max(1)
    p_lean = (1 + int((largest >= ((observed - null.mean(0)) / spread).max() - 1e-6).sum())) / (rounds + 1)
    return Excess(min(1.0, p_lean / _LEAN, p_copies / _COPIES), p_lean, p_copies)


def copies_p_value(copies: tuple[int, int], odds: float, generated: int, strangers: tuple[int, int]) -> float:
    """Are there more near-duplicates of training images than chance gives?

    Twice the smaller of two p-values; but of the first alone where it exceeds 0.1, so that images that are like
    everybody's, blurred ones for example, accuse nobody.

    Args:
        copies: generated images that are near-duplicates of training and of held-out pictures. Binomial test.
        odds: share of training pictures among both pools'.
        generated: number of generated images.
        strangers: real held-out images that are near-duplicates of training pictures, and of how many. Fisher's test.
    """
    if not copies[0]:
        return 1.0
    against_heldout = float(binom.sf(copies[0] - 1, sum(copies), odds))
    found, of = strangers
    against_real = float(hypergeom.sf(copies[0] - 1, generated + of, copies[0] + found, generated))
    return against_heldout if against_heldout > _GATE else 2 * min(against_heldout, against_real)


test_excess.__test__ = False  # type: ignore[attr-defined]  # no test of pytest's


@dataclass(frozen=True)
class _Columns:
    by_owner: npt.NDArray[np.float32]
    """(P, C) nearest neighbours that each patient provides, in each share of closest images."""
    first: Ints
    second: Ints
    by_pair: npt.NDArray[np.float32]
    """(B, D) whether a pair of parents is among the closest."""

    def excess(self, labels: npt.NDArray[np.float32]) -> Values:
        """(R, P) labels → (R, C + D) counts in the training pool."""
        both = labels[:, self.first] * labels[:, self.second] - (1 - labels[:, self.first]) * (
            1 - labels[:, self.second]
        )
        return np.concatenate([labels @ self.by_owner, both @ self.by_pair], axis=1)


def _columns(evidence: Evidence, patients: int) -> _Columns:
    by_owner = np.zeros((patients, len(_TOP)), np.float32)
    for c, inside in enumerate(_closest(evidence.likeness)):
        by_owner[:, c] = np.bincount(evidence.owner[inside], minlength=patients)
    pairs = (evidence.parents[:, 0] >= 0) & (evidence.parents[:, 0] != evidence.parents[:, 1])
    first, second = evidence.parents[pairs].T
    by_pair = np.stack([i.astype(np.float32) for i in _closest(np.where(pairs, evidence.blend, -1))], axis=1)[pairs]
    return _Columns(by_owner, first, second, by_pair)


def _closest(values: Values) -> list[Bools]:
    """Masks of the closest 100%, 50%, … of the images."""
    ranked = np.empty(len(values), np.int64)
    ranked[np.argsort(-values, kind="stable")] = np.arange(len(values))
    return [ranked < max(1, round(share * len(values))) for share in _TOP]


def _permuted(labels: Bools, strata: Ints, rounds: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    made = np.empty((rounds, len(labels)), np.float32)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        made[:, members] = rng.permuted(np.tile(labels[members], (rounds, 1)), axis=1)
    return made


@dataclass(frozen=True)
class EqualPools:
    """Shares with pools of one size."""

    share: Interval
    """Of generated images whose nearest picture is a training one; 0.5 without memorisation."""
    excess: Interval
    """Share of near-duplicates of training images less that of held-out ones."""


def at_equal_pools(
    neighbour: Ints,
    likeness: Values,
    owner: Ints,
    in_training: Bools,
    threshold: float,
    rounds: int,
    rng: np.random.Generator,
) -> EqualPools:
    """What the shares would be with pools of one size, with intervals over patients.

    In each round the larger pool is cut to the size of the smaller, patient by patient, and patients count as often as
    a draw with replacement says.

    Args:
        neighbour: (N, K) pictures, likeliest first; -1 for none.
        likeness: (N, K).
        owner: (M,) patient number of each picture.
        in_training: (P,) the pool of each patient.
        threshold: of near-duplicates.
        rounds: draws.
        rng: of the draws.
    """
    sizes = np.bincount(owner, minlength=len(in_training))
    goal = min(int(sizes[in_training].sum()), int(sizes[~in_training].sum()))
    found = np.where(neighbour >= 0, owner[neighbour], -1)
    shares, excesses = [], []
    for round_ in range(2 * rounds):
        keep = np.zeros(len(in_training) + 1, bool)  # the last stands for "none"
        for pool in (True, False):
            order = rng.permutation(np.flatnonzero(in_training == pool))
            keep[order[: int(np.searchsorted(np.cumsum(sizes[order]), goal, "right"))]] = True
        inside = keep[found]
        has = inside.any(1)
        nearest = inside.argmax(1)
        rows = np.arange(len(found))
        who, close = found[rows, nearest][has], likeness[rows, nearest][has] >= threshold
        train = in_training[who]
        # the first half of the rounds gives the value, the second, with drawn patients, the interval
        weight = np.ones(len(who)) if round_ < rounds else rng.poisson(1, len(in_training))[who]
        total = max(float(weight.sum()), 1.0)
        shares.append(float((weight * train).sum()) / total)
        excesses.append(float((weight * close * np.where(train, 1, -1)).sum()) / total)
    return EqualPools(_interval(shares, rounds), _interval(excesses, rounds))


def _interval(values: list[float], rounds: int) -> Interval:
    low, high = np.percentile(values[rounds:], [2.5, 97.5])
    return Interval(float(np.mean(values[:rounds])), float(low), float(high))
