"""All figures of fidelity together, overall and per class, each with its interval and a note where it says little.

No figure stands alone. KID is blind to repetition, FID mixes fidelity with diversity, precision with repetition is
perfect; so they are reported together, each beside what real images of other patients get at equal n.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from expressivegan.errors import InputError
from expressivegan.evaluation.distances import (
    Array,
    Index,
    check_features,
    check_labels,
    check_patients,
    check_widths,
)
from expressivegan.evaluation.frechet import fid_interval
from expressivegan.evaluation.kernel import KernelSums, kid_interval
from expressivegan.evaluation.manifolds import check_k, depth_for, prdc_intervals
from expressivegan.evaluation.neighbours import Neighbours, within
from expressivegan.intervals import Interval, draw_weights
from expressivegan.streams import derive_seed

FIGURES = ("fid", "kid", "precision", "recall", "density", "coverage")
LEAST_OF_A_CLASS = 50


class Reference:
    """Real images of held-out patients in one feature space, kept so that every set is held against them cheaply.

    Args:
        features: (n, d) finite.
        patients: (n,) names; None takes every image for a patient of its own.
        labels: (n,) indices into `classes`; None for overall figures alone.
        classes: names.
        k: neighbour of precision, recall, density and coverage; smaller where a class has no more than k images.
        rounds: bootstrap draws of KID's interval.
        seed: of draws and groups.

    Raises:
        InputError: too few rows, NaN, labels or patients that do not fit, k or rounds out of range.
    """

    def __init__(
        self,
        features: npt.ArrayLike,
        patients: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        classes: Sequence[str] = (),
        *,
        k: int = 5,
        rounds: int = 200,
        seed: int = 0,
    ) -> None:
        self.rows = check_features(features, "real features")
        self.patients = check_patients(patients, len(self.rows))
        self.classes = tuple(classes)
        self.labels = None
        if labels is not None:
            self.labels = check_labels(labels, len(self.rows), len(self.classes), "real_labels")
        if rounds < 40:
            raise InputError(f"rounds (={rounds}) must be at least 40: 95% intervals need both of their ends")
        self.k, self.rounds, self.seed = k, rounds, seed
        self._parts: dict[str, _Part] = {}

    def report(self, fake: npt.ArrayLike, labels: npt.ArrayLike | None = None) -> dict[str, Any]:
        """See `fidelity_report`."""
        rows = check_features(fake, "fake features")
        check_widths(self.rows, rows)
        check_k(self.k, len(self.rows), len(rows))
        found: dict[str, Any] = {"overall": self._part("", np.arange(len(self.rows))).report(rows), "classes": {}}
        if labels is None:
            return found
        if self.labels is None:
            raise InputError("fake_labels are given but real_labels are not; give both, or neither")
        given = check_labels(labels, len(rows), len(self.classes), "fake_labels")
        for label, name in enumerate(self.classes):
            ours, theirs = np.flatnonzero(self.labels == label), np.flatnonzero(given == label)
            if min(len(ours), len(theirs)) < 3:
                found["classes"][name] = _nothing(len(ours), len(theirs))
            else:
                found["classes"][name] = self._part(name, ours).report(rows[theirs])
        return found

    def _part(self, name: str, rows: Index) -> "_Part":
        if name not in self._parts:
            seed = derive_seed(self.seed, "evaluation.fidelity", name)
            self._parts[name] = _Part(self.rows[rows], self.patients[rows], self.k, self.rounds, seed)
        return self._parts[name]


class _Part:
    """The reference as a whole, or one class of it."""

    def __init__(self, rows: Array, patients: Index, k: int, rounds: int, seed: int) -> None:
        self.k, self.rounds, self.seed = min(k, len(rows) - 1), rounds, seed
        self.patients = np.unique(patients, return_inverse=True)[1].astype(np.int64)
        self.weights = np.ascontiguousarray(draw_weights(self.patients, rounds, seed).T)
        self.real = Neighbours(rows, self.patients, depth=depth_for(k), weights=self.weights)

    def report(self, rows: Array) -> dict[str, Any]:
        n, m = len(self.real), len(rows)
        count = int(self.patients.max()) + 1
        k = min(self.k, m - 1)
        weights = np.ascontiguousarray(draw_weights(np.arange(m), self.rounds, derive_seed(self.seed, "generated")).T)
        fake = Neighbours(rows, depth=depth_for(self.k), weights=weights)
        cross = KernelSums.empty(weights)
        # The kernel's block comes for free with the distances, so both are computed in one pass.
        in_real, in_fake = within(
            self.real.rows,
            rows,
            self.real.distance[:, -1],
            fake.distance[:, -1],
            sums=cross,
            x_weights=self.weights,
            y_weights=weights,
        )
        assert in_fake is not None
        figures = {"kid": kid_interval(self.real.kernel, fake.kernel, cross, self.weights, weights, self.patients)}
        figures |= prdc_intervals(self.real, fake, in_real, in_fake, k, derive_seed(self.seed, "groups"))
        least, d = min(n, m), rows.shape[1]
        notes: dict[str, str] = {}
        figures["fid"] = fid_interval(self.real.rows, rows, self.patients)
        few = None
        if least < 2 * d:
            # Simulated with spectra as features have: at n = 2 d the value is 4 (d = 512) to 11 (d = 64) times that of
            # the populations where these differ by 10% in scale, at n = d / 2 it is 13 to 35 times. The interval is
            # still right about FID at this n.
            notes["fid"] = (
                f"too small to say on its own: {least} images in {d} dimensions, at least {2 * d} are needed; mostly "
                "bias, to be read against the floor at equal n alone"
            )
        if least < LEAST_OF_A_CLASS:
            few = f"too small to say: {least} images, at least {LEAST_OF_A_CLASS} are needed"
        elif count < LEAST_OF_A_CLASS // 2:
            few = f"too small to say: {count} patients, at least {LEAST_OF_A_CLASS // 2} are needed"
        return {
            "n_real": n,
            "n_generated": m,
            "patients": count,
            "k": k,
            "figures": {name: _entry(figures[name], few or notes.get(name), few is None) for name in FIGURES},
        }


def _entry(figure: Interval, note: str | None, enough: bool) -> dict[str, Any]:
    sure = bool(np.isfinite(figure.low)) and enough
    return {
        "value": figure.value,
        "low": figure.low if sure else None,
        "high": figure.high if sure else None,
        "note": note,
    }


def _nothing(n: int, m: int) -> dict[str, Any]:
    note = f"too small to say: {n} real and {m} generated images, at least {LEAST_OF_A_CLASS} of each are needed"
    entry = {"value": None, "low": None, "high": None, "note": note}
    return {"n_real": n, "n_generated": m, "patients": None, "k": None, "figures": {f: dict(entry) for f in FIGURES}}


def fidelity_report(
    real: npt.ArrayLike,
    fake: npt.ArrayLike,
    *,
    real_patients: npt.ArrayLike | None = None,
    fake_labels: npt.ArrayLike | None = None,
    real_labels: npt.ArrayLike | None = None,
    classes: Sequence[str] = (),
    k: int = 5,
    rounds: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """FID, KID, precision, recall, density and coverage, overall and per class, with 95% intervals.

    An interval says how far the figure would move with other reference patients of the same population and other
    images of the same generator, at the same n. It does not cover what n itself does (FID is biased upwards, and KID
    where patients have several images; all but KID of one image a patient depend on it), nor another fit of the feature
    space, nor another training run of the generator. KID: see `kid_interval`; precision to coverage: `prdc_intervals`;
    FID: `fid_interval`.

    Against several generated sets use one `Reference`, which keeps what it knows of the real images.

    Args:
        real: (n, d) finite, of patients that neither the generator nor the feature space has seen.
        fake: (m, d) generated images.
        real_patients: (n,) names; None takes every real image for a patient of its own: intervals come out too narrow.
        fake_labels: (m,) indices into `classes`; None for unlabelled images, which have overall figures alone.
        real_labels: (n,) indices into `classes`.
        classes: names.
        k: see `prdc`.
        rounds: bootstrap draws of KID, at least 40.
        seed: of draws and groups; equal seeds give equal reports.

    Returns:
        {"overall": part, "classes": {name: part}}; a part holds n_real, n_generated, patients, k and figures: {name:
        {"value", "low", "high", "note"}}. Under 50 images on a side, or 25 patients, each figure has a note and neither
        low nor high; a class of fewer than 3 images on a side has no values either. FID of fewer than 2 d images has a
        note and an interval: it is mostly bias, and comparable at equal n alone.

    Raises:
        InputError: as of `Reference`, or different d, or labels on one side only.
    """
    reference = Reference(real, real_patients, real_labels, classes, k=k, rounds=rounds, seed=seed)
    return reference.report(fake, fake_labels)
