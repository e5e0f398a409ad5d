"""Do synthetic images look like their labels? An independent classifier on them, beside its figures on real images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from expressivegan.errors import InputError
from expressivegan.intervals import Floats, Interval, Ints, draw_weights, plain

_FAR = 0.05  # by which accuracy must surely differ from that on real images to be worth a sentence
QUIET = f"no class is surely more than {100 * _FAR:.0f} points from real images"
"""What no warning means."""
_LEAST = 10  # real images of a class
_LEAST_MADE = 30  # with fewer, intervals are too narrow: one honest set in three would be accused


@dataclass(frozen=True, eq=False)
class AgreementReport:
    """What `agreement_report` found."""

    figures: dict[str, dict[str, Any]]
    """"all" or a class → n_real, n_fake, share_real, share_fake; accuracy_real, accuracy_fake, accuracy_difference,
    accuracy_ratio, auc_real, auc_fake, auc_difference as `Interval`. For a class, accuracy is the share of its images
    that are called so, and AUC is against the rest; for "all" both are the mean over the classes that have fakes."""
    confusion_real: Ints
    """(K, K) counts; rows are labels, columns what the classifier says."""
    confusion_fake: Ints
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Ready for `json.dumps`; NaN as null."""
        return {
            "figures": plain(self.figures),
            "confusion_real": self.confusion_real.tolist(),
            "confusion_fake": self.confusion_fake.tolist(),
            "warnings": list(self.warnings),
        }


def agreement_report(
    judge_probabilities_real: npt.ArrayLike,
    labels_real: npt.ArrayLike,
    patients_real: npt.ArrayLike,
    judge_probabilities_fake: npt.ArrayLike,
    labels_fake: npt.ArrayLike,
    classes: Sequence[str],
    *,
    patients_fake: npt.ArrayLike | None = None,
    rounds: int = 1000,
    seed: int = 0,
) -> AgreementReport:
    """Accuracy and AUC of an independent classifier on synthetic images, beside those on real reference images.

    Both directions are faults. Below real: labels that the images do not show. Far above real: images that are easier
    than disease is, such as a few prototypes per class, repeated, which agree in 100%.

    Args:
        judge_probabilities_real: (N, K) of a classifier fitted on other patients than these and the generator's.
        labels_real: (N,) indices into `classes`.
        patients_real: (N,) names; they are drawn for the intervals.
        judge_probabilities_fake: (M, K).
        labels_fake: (M,) the labels asked for.
        classes: K names.
        patients_fake: (M,) names of latents that repeat; None takes every image for its own.
        rounds: bootstrap draws.
        seed: of the draws.

    Raises:
        InputError: wrong shapes, probabilities that are not finite or do not sum to 1, labels out of range, rounds < 1,
            or a class with fakes but fewer than 10 real images.
    """
    if len(classes) < 2:
        raise InputError(f"classes (={list(classes)}) must name 2 classes at least")
    if rounds < 1:
        raise InputError(f"rounds (={rounds}) must be at least 1")
    real = Judged(judge_probabilities_real, labels_real, patients_real, len(classes), rounds, seed, "real")
    fake = Judged(judge_probabilities_fake, labels_fake, patients_fake, len(classes), rounds, seed + 1, "fake")
    kept = [k for k in range(len(classes)) if (fake.labels == k).any()]
    for k in kept:
        if (real.labels == k).sum() < _LEAST:
            raise InputError(f"class {classes[k]} has {(real.labels == k).sum()} real images; {_LEAST} are needed")
    figures: dict[str, dict[str, Any]] = {"all": {"n_real": len(real.labels), "n_fake": len(fake.labels)}}
    draws: dict[str, list[tuple[Floats, Floats]]] = {"accuracy": [], "auc": []}
    for k in kept:
        mine = {"accuracy": (real.accuracy(k), fake.accuracy(k)), "auc": (real.auc(k), fake.auc(k))}
        for name, pair in mine.items():
            draws[name].append(pair)
        figures[classes[k]] = _row(real, fake, k) | _compared(mine)
    means = {
        name: (np.mean([p[0] for p in pairs], axis=0), np.mean([p[1] for p in pairs], axis=0))
        for name, pairs in draws.items()
    }
    figures["all"] |= _compared(means)
    warnings = [f"{name} has no synthetic image" for k, name in enumerate(classes) if k not in kept]
    for k in kept:
        warnings += _sentences(classes[k], figures[classes[k]])
    return AgreementReport(
        figures,
        _confusion(real, len(classes)),
        _confusion(fake, len(classes)),
        tuple(warnings + _sentences("all", figures["all"])),
    )


class Judged:
    """Probabilities with labels, and bootstrap draws over patients: entry 0 of each figure is that of all images."""

    def __init__(
        self,
        probabilities: npt.ArrayLike,
        labels: npt.ArrayLike,
        patients: npt.ArrayLike | None,
        classes: int,
        rounds: int,
        seed: int,
        name: str,
    ) -> None:
        p = np.asarray(probabilities, np.float64)
        self.labels: Ints = np.asarray(labels)
        if p.ndim != 2 or p.shape[1] != classes or len(p) == 0:
            raise InputError(f"judge_probabilities_{name} of shape {p.shape} must have shape (n, {classes}), n >= 1")
        if not np.isfinite(p).all() or (p < -1e-6).any() or np.abs(p.sum(1) - 1).max() > 1e-3:
            raise InputError(f"judge_probabilities_{name} must be finite, >= 0, and sum to 1 in each row")
        if self.labels.shape != (len(p),) or self.labels.dtype.kind not in "iu":
            raise InputError(f"labels_{name} of {self.labels.dtype} {self.labels.shape} must be {len(p)} integers")
        if self.labels.min() < 0 or self.labels.max() >= classes:
            raise InputError(
                f"labels_{name} span {self.labels.min()}..{self.labels.max()}, allowed is 0..{classes - 1}"
            )
        who = np.arange(len(p)).astype(str) if patients is None else np.asarray(patients).astype(str)
        if who.shape != (len(p),):
            raise InputError(f"patients_{name} of shape {who.shape} must name each of {len(p)} images")
        self.p = p
        self.said = p.argmax(1)
        self.weights = sample_and_draws(who, rounds, seed)

    def accuracy(self, k: int) -> Floats:
        """Share of the images of class k that are called so, (rounds + 1,)."""
        here = self.labels == k
        weights = self.weights[:, here]
        right = weights @ (self.said[here] == k)
        total = weights.sum(1)
        share: Floats = np.divide(right, total, out=np.full(len(total), np.nan), where=total > 0)
        return share

    def auc(self, k: int) -> Floats:
        """Class k against the rest, (rounds + 1,)."""
        return auc_draws(self.labels == k, self.p[:, k], self.weights)


def sample_and_draws(patients: npt.NDArray[np.str_], rounds: int, seed: int) -> Floats:
    """Weights (rounds + 1, N) of the images: first all ones, for the figure, then the draws, for its interval."""
    return np.concatenate([np.ones((1, len(patients))), draw_weights(patients, rounds, seed)])


def auc_draws(truth: npt.NDArray[np.bool_], score: Floats, weights: Floats) -> Floats:
    """Area under the ROC curve for each row of weights, ties count half; NaN where a side is empty.

    Args:
        truth: (N,).
        score: (N,).
        weights: (R, N).

    Returns:
        (R,).
    """
    order = np.argsort(score, kind="stable")
    _, starts = np.unique(score[order], return_index=True)
    sorted_weights = weights[:, order]
    positive = truth[order]
    ups = np.add.reduceat(sorted_weights * positive, starts, axis=1)
    downs = np.add.reduceat(sorted_weights * ~positive, starts, axis=1)
    won = (ups * (np.cumsum(downs, 1) - downs / 2)).sum(1)
    total = ups.sum(1) * downs.sum(1)
    area: Floats = np.divide(won, total, out=np.full(len(total), np.nan), where=total > 0)
    return area


def interval_of(draws: Floats) -> Interval:
    """The first draw with the 95% percentile interval of the others."""
    others = draws[1:]
    if not np.isfinite(others).any():
        return Interval(float(draws[0]), float("nan"), float("nan"))
    low, high = np.nanpercentile(others, [2.5, 97.5])
    return Interval(float(draws[0]), float(low), float(high))


def _row(real: Judged, fake: Judged, k: int) -> dict[str, Any]:
    ours, theirs = real.labels == k, fake.labels == k
    return {
        "n_real": int(ours.sum()),
        "n_fake": int(theirs.sum()),
        "share_real": float(ours.mean()),
        "share_fake": float(theirs.mean()),
    }


def _compared(figures: dict[str, tuple[Floats, Floats]]) -> dict[str, Interval]:
    found = {}
    for name, (real, fake) in figures.items():
        found[f"{name}_real"], found[f"{name}_fake"] = interval_of(real), interval_of(fake)
        found[f"{name}_difference"] = interval_of(fake - real)
        if name == "accuracy":
            ratio = np.divide(fake, real, out=np.full(len(real), np.nan), where=real > 0)
            found["accuracy_ratio"] = interval_of(ratio)
    return found


def _sentences(name: str, row: dict[str, Any]) -> list[str]:
    who = "synthetic images" if name == "all" else f"synthetic {name} images"
    if row["n_fake"] < _LEAST_MADE:
        return [f"{row['n_fake']} {who} are too few to say whether they show their label"]
    gap, real, fake = row["accuracy_difference"], row["accuracy_real"], row["accuracy_fake"]
    figures = f"the independent classifier agrees in {fake.value:.0%}, on real images in {real.value:.0%}"
    if gap.low > _FAR:
        return [f"{who} are easier than real ones ({figures}): prototypes rather than the variety of disease?"]
    if gap.high < -_FAR:
        return [f"{who} do not show their label as real ones do ({figures})"]
    return []


def _confusion(judged: Judged, classes: int) -> Ints:
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (judged.labels, judged.said), 1)
    return counts
