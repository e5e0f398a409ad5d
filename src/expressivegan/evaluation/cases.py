"""Methods and known cases, scored by one set of figures, and which of these tell a set from real images.

Each figure is fooled by something: KID by repetition, FID by copies, precision by a few good images, distances by a few
different ones. So a set passes for real only where it does in all of them: fidelity, diversity, agreement with its
labels, memorisation.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from expressivegan.errors import InputError
from expressivegan.evaluation.agreement import agreement_report
from expressivegan.evaluation.diversity import diversity_report
from expressivegan.evaluation.fidelity import Reference
from expressivegan.images import UInt8Array
from expressivegan.intervals import Interval

Figures = dict[str, Interval]
Look = Callable[[UInt8Array], npt.NDArray[np.floating]]

_SPREADS = 4.5  # of the floor's draws; with eight of them real images exceed it in one of 500 cases per figure


class Rule(NamedTuple):
    """When a figure is worse than that of real images."""

    family: str
    worse: int
    """1: larger is worse; -1: smaller; 0: both are faults."""
    relative: float
    """Least gap to the floor, as a share of it, that counts,"""
    absolute: float
    """and in the figure's own units."""


RULES = {
    "fid": Rule("fidelity", 1, 0.15, 0.0),
    "kid": Rule("fidelity", 1, 0.0, 0.0),
    "precision": Rule("fidelity", -1, 0.05, 0.0),
    "density": Rule("fidelity", -1, 0.10, 0.0),
    "recall": Rule("diversity", -1, 0.05, 0.0),
    "coverage": Rule("diversity", -1, 0.05, 0.0),
    "diversity": Rule("diversity", -1, 0.05, 0.0),
    "twins": Rule("diversity", 1, 0.0, 0.03),
    "agreement": Rule("agreement", 0, 0.0, 0.03),
    "absent": Rule("agreement", 1, 0.0, 0.5),
    "copies": Rule("memorisation", 1, 0.0, 0.5),
}
"""By the last part of a figure's name: `judge/fid` follows `fid`."""
FAMILIES = tuple(dict.fromkeys(rule.family for rule in RULES.values()))


class Yardstick:
    """Real images of the reference patients, which every set is held against.

    Args:
        spaces: name → function from images to features (n, d).
        classify: images → probabilities (n, K) of an independent classifier.
        images: uint8 (n, H, W).
        labels: (n,) indices into `classes`, at least 10 images of each class that is there.
        patients: (n,) names.
        classes: K names.
        k: neighbour of precision, recall, density and coverage.
        seed: of draws.

    Raises:
        InputError: what does not fit, as of `Reference`.
    """

    def __init__(
        self,
        spaces: Mapping[str, Look],
        classify: Look,
        images: UInt8Array,
        labels: npt.ArrayLike,
        patients: npt.ArrayLike,
        classes: Sequence[str],
        *,
        k: int = 5,
        seed: int = 0,
    ) -> None:
        self.spaces, self.classify, self.seed = dict(spaces), classify, seed
        self.labels, self.patients = np.asarray(labels, np.int64), np.asarray(patients)
        self.classes = tuple(classes)
        self.real = {
            name: Reference(look(images), self.patients, self.labels, classes, k=k, seed=seed)
            for name, look in self.spaces.items()
        }
        self._said = classify(images)

    def score(self, images: UInt8Array, labels: npt.ArrayLike) -> Figures:
        """All figures of a labelled set, best cut to the reference's number and class mix (`draw_mix`).

        Returns:
            For each space `space/fid`, `kid`, `precision`, `recall`, `density`, `coverage` with their 95% intervals;
            `space/diversity` (mean distance over that of real images, of the worst class) and `space/twins` (share of
            near-twins beyond that of real images, of the worst class); `agreement` (how much more often than on real
            images the classifier sees the label), `absent` (classes of the reference without an image). Ends that are
            not known are NaN.

        Raises:
            InputError: what does not fit, or a class with fewer than 3 images.
        """
        given = np.asarray(labels, np.int64)
        found: Figures = {}
        seen = np.unique(given)
        rows = np.isin(self.labels, seen)
        own, theirs = np.searchsorted(seen, self.labels[rows]), np.searchsorted(seen, given)
        names = [self.classes[label] for label in seen]
        for space, look in self.spaces.items():
            reference, fake = self.real[space], look(images)
            for name, entry in reference.report(fake)["overall"]["figures"].items():
                found[f"{space}/{name}"] = Interval(*(_number(entry[end]) for end in ("value", "low", "high")))
            report = diversity_report(
                reference.rows[rows],
                fake,
                own,
                theirs,
                names,
                patients=self.patients[rows],
                k=reference.k,
                repeats=3,
                seed=self.seed,
            ).values()
            found[f"{space}/diversity"] = _alone(min(r["diversity_ratio"] for r in report))
            found[f"{space}/twins"] = _alone(max(r["duplicate_rate"] - r["duplicate_rate_real"] for r in report))
        agreement = agreement_report(
            self._said, self.labels, self.patients, self.classify(images), given, self.classes, rounds=200
        )
        found["agreement"] = agreement.figures["all"]["accuracy_difference"]
        found["absent"] = _alone(float(len(np.setdiff1d(self.labels, seen))))
        return found


def exposing(figures: Mapping[str, Interval], floor: Sequence[Mapping[str, Interval]]) -> list[str]:
    """Names of the figures that tell a set from real images of other patients: the set looks good in all others.

    A figure exposes where it is worse than the mean of the floor's draws by more than 4.5 of their standard deviations
    and by more than its rule's least gap. What the floor does not have (`copies`) is held against 0; what is not
    finite exposes nothing.

    Args:
        figures: name → figure, as of `Yardstick.score`; the last part of a name is in `RULES`.
        floor: the same figures of several draws of real images, at least 3.

    Raises:
        InputError: too few draws.

    >>> floor = [{"judge/fid": Interval(value, 0, 9)} for value in (1.0, 1.1, 1.2)]
    >>> exposing({"judge/fid": Interval(1.3, 0, 9), "copies": Interval(1, 1, 1)}, floor)
    ['copies']
    >>> exposing({"judge/fid": Interval(1.6, 0, 9)}, floor)
    ['judge/fid']
    """
    if len(floor) < 3:
        raise InputError(f"floor holds {len(floor)} draws; at least 3 are needed to tell how far they spread")
    found = []
    for name, figure in figures.items():
        rule = RULES[name.rsplit("/", 1)[-1]]
        draws = np.array([draw[name].value for draw in floor if name in draw] or [0.0])
        least = max(
            rule.absolute, rule.relative * abs(draws.mean()), _SPREADS * draws.std(ddof=1) if len(draws) > 1 else 0.0
        )
        gap = figure.value - draws.mean()
        if (abs(gap) if rule.worse == 0 else rule.worse * gap) > least:
            found.append(name)
    return found


def families(names: Sequence[str]) -> list[str]:
    """Which of fidelity, diversity, agreement and memorisation some figures belong to, in this order.

    >>> families(["copies", "judge/recall", "selfsup/coverage"])
    ['diversity', 'memorisation']
    """
    held = {RULES[name.rsplit("/", 1)[-1]].family for name in names}
    return [family for family in FAMILIES if family in held]


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _alone(value: float) -> Interval:
    return Interval(value, math.nan, math.nan)
