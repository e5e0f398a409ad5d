"""The figures of a set of generated images, all of them or those of one class, from the neighbours that were found."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from expressivegan.evaluation.memorisation.calibration import Calibration
from expressivegan.evaluation.memorisation.distances import Bools, Floats, Ints, Neighbours
from expressivegan.evaluation.memorisation.inputs import LEAST_IMAGES, LEAST_PATIENTS
from expressivegan.evaluation.memorisation.membership import Membership, attack
from expressivegan.evaluation.memorisation.permutation import (
    ALPHA,
    EqualPools,
    Evidence,
    Excess,
    at_equal_pools,
    copies_p_value,
    test_excess,
)
from expressivegan.intervals import Interval, share_interval
from expressivegan.streams import derive_seed

_ROUNDS, _DRAWS = 1999, 200


@dataclass(frozen=True)
class Searched:
    """What is known of N generated images and M real ones, those of both pools in one random order."""

    found: Neighbours
    """(N, K) neighbours among the M."""
    owner: Ints
    """(M,) number of each picture's patient."""
    member: Bools
    """(M,) whether it is a training picture."""
    in_training: Bools
    """(P,) the same of each patient."""
    strata: Ints
    """(P,) patients are permuted within these."""
    calibration: Calibration

    @property
    def of_training(self) -> Bools:
        """(N, K) neighbours that are training pictures."""
        return (self.found.index >= 0) & self.member[self.found.index]

    @cached_property
    def nearest(self) -> tuple[Floats, Floats]:
        """(N,) likeness to the nearest training and held-out picture; -1 where none is among the neighbours."""
        masks = (self.of_training, (self.found.index >= 0) & ~self.of_training)
        train, held = (np.where(mask, self.found.likeness, -1).max(1).astype(np.float32) for mask in masks)
        return train, held


@dataclass(frozen=True)
class Findings:
    """Figures of a set of generated images. Shares lie in [0, 1]."""

    generated: int
    copies: int
    """Images that are near-duplicates of some training picture,"""
    copies_heldout: int
    """and of some held-out picture: what chance gives."""
    copies_share: Interval
    copied_patients: int
    """Training patients of whom there are near-duplicates."""
    excess: Excess
    equal_pools: EqualPools


def findings(searched: Searched, rows: Ints, odds: float, rng: np.random.Generator) -> Findings:
    """Tests a set of generated images.

    Args:
        searched: what is known of all of them.
        rows: (n,) which to test.
        odds: share of training pictures among the real ones.
        rng: of permutations and draws.
    """
    found, owner, calibration = searched.found, searched.owner, searched.calibration
    index, like = found.index[rows], found.likeness[rows]
    copies, by_chance = (int((n[rows] >= calibration.threshold).sum()) for n in searched.nearest)
    parents = found.parents[rows]
    evidence = Evidence(owner[index[:, 0]], like[:, 0], np.where(parents >= 0, owner[parents], -1), found.blend[rows])
    p_copies = copies_p_value((copies, by_chance), odds, len(rows), calibration.strangers_called_copies)
    excess = test_excess(evidence, searched.in_training, searched.strata, p_copies, _ROUNDS, rng)
    close = searched.of_training[rows] & (like >= calibration.threshold)
    return Findings(
        generated=len(rows),
        copies=copies,
        copies_heldout=by_chance,
        copies_share=share_interval(copies, len(rows)),
        copied_patients=len(np.unique(owner[index[close]])),
        excess=excess,
        equal_pools=at_equal_pools(
            index, like, owner, searched.in_training, calibration.threshold, _DRAWS, rng
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class ClassRow:
    """What is known of the generated images of one class."""

    generated: int
    """Numbers of images of the class."""
    training: int
    heldout: int
    flagged: bool
    """p_value < 0.05 over the number of classes that could be tested (Bonferroni), so that one honest generator in
    twenty at most has a row that is flagged."""
    findings: Findings | None
    """None where fewer than 20 images of the class were generated: too few to say."""
    membership: Membership | None
    """Of the class's real images; None with fewer than 20 images or 10 patients of it in either pool."""


def by_class(
    searched: Searched, labels: Ints, real_labels: Ints, score: Floats, names: dict[int, str], odds: float, seed: int
) -> dict[str, ClassRow]:
    """Each class by itself: the images of one may be copies where those of the others are not.

    A neighbour may be of any class. Held-out pictures of the class may be rarer than of the others; the test of
    near-duplicates takes the class's odds or those of all, whichever accuse less.

    Args:
        searched: what is known of all images.
        labels: (N,) of the generated images.
        real_labels: (M,).
        score: (M,) likeness of each real picture to its nearest generated one, of any class.
        names: of the labels.
        odds: share of training pictures among all real ones.
        seed: of draws.
    """
    tested = [k for k in names if (labels == k).sum() >= LEAST_IMAGES]
    rows = {}
    for k, name in names.items():
        ours, theirs = np.flatnonzero(labels == k), real_labels == k
        pools = [theirs & searched.member, theirs & ~searched.member]
        training, heldout = (int(pool.sum()) for pool in pools)
        own, membership = None, None
        if k in tested:
            rng = np.random.default_rng(derive_seed(seed, "evaluation.memorisation", name))
            own = findings(searched, ours, max(odds, training / max(1, training + heldout)), rng)
        if _enough(pools, searched.owner):
            among = searched.owner[theirs].astype(str)
            membership = attack(score[theirs], searched.member[theirs], among, derive_seed(seed, "attack", name))
        flagged = own is not None and own.excess.p_value < ALPHA / len(tested)
        rows[name] = ClassRow(len(ours), training, heldout, flagged, own, membership)
    return rows


def _enough(pools: Sequence[Bools], owner: Ints) -> bool:
    return all(p.sum() >= LEAST_IMAGES and len(np.unique(owner[p])) >= LEAST_PATIENTS for p in pools)
