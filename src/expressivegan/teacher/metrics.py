"""How good a classifier is, with bootstrap intervals over patients."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, roc_auc_score

from expressivegan.intervals import Floats, Interval, Ints, bootstrap


def expected_calibration_error(confidence: Floats, correct: npt.NDArray[np.bool_], bins: int = 10) -> float:
    """Mean gap between confidence and accuracy over equal-width bins (Guo et al., ICML 2017, section 2).

    >>> expected_calibration_error(np.array([0.95, 0.95]), np.array([True, False]))
    0.45
    """
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(confidence[which == b].mean() - correct[which == b].mean()) * (which == b).mean() for b in set(which)]
    return round(float(sum(gaps)), 12)


def _auc(truth: npt.NDArray[np.bool_], score: Floats) -> float:
    return float(roc_auc_score(truth, score)) if truth.any() and not truth.all() else float("nan")


def classification_report(
    probabilities: Floats,
    labels: Ints,
    patients: Sequence[str],
    classes: Sequence[str],
    reference: int | None,
    rounds: int = 1000,
) -> dict[str, Interval]:
    """AUC of every class against the rest, of disease against the reference, balanced accuracy and calibration.

    Args:
        probabilities: (N, K), rows sum to 1.
        labels: (N,).
        patients: N names; the intervals resample them.
        classes: K names.
        reference: label of the class without disease; without one the two-class AUC is left out.
        rounds: bootstrap draws.
    """
    report: dict[str, Interval] = {}

    def add(name: str, statistic: Callable[[Ints], float]) -> None:
        report[name] = bootstrap(statistic, patients, rounds)

    predicted = probabilities.argmax(1)
    if reference is not None:
        add("auc_2class", lambda i: _auc(labels[i] != reference, 1 - probabilities[i, reference]))
    for k, name in enumerate(classes):
        add(f"auc_{name}", lambda i, k=k: _auc(labels[i] == k, probabilities[i, k]))  # type: ignore[misc]
    add("accuracy", lambda i: float((predicted[i] == labels[i]).mean()))
    present = np.unique(labels)
    add(
        "balanced_accuracy",
        lambda i: float(
            np.mean([(predicted[i] == k)[labels[i] == k].mean() for k in present if (labels[i] == k).any()])
        ),
    )
    for k, name in enumerate(classes):
        add(
            f"calibration_error_{name}",
            lambda i, k=k: expected_calibration_error(probabilities[i, k], labels[i] == k),  # type: ignore[misc]
        )
    return report


def confusion(probabilities: Floats, labels: Ints, classes: int) -> Ints:
    """(K, K) counts; rows are the truth, columns the prediction."""
    found: Ints = confusion_matrix(labels, probabilities.argmax(1), labels=np.arange(classes)).astype(np.int64)
    return found


def as_json(report: Mapping[str, Interval]) -> dict[str, list[float | None]]:
    """A report as JSON: name → [value, low, high], NaN as null."""
    return {k: [None if np.isnan(x) else round(float(x), 5) for x in v] for k, v in report.items()}
