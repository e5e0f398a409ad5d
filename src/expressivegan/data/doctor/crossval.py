"""How well something tells the label: cross-validated over patients, with intervals over patients."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from expressivegan.data.doctor.finding import Severity
from expressivegan.intervals import Interval, auc_interval

FOLDS = 5
LEAST_PATIENTS = 10  # of each class, below which nothing is said

Ints = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]


def large_classes(labels: Ints, patients: npt.NDArray[np.str_]) -> list[int]:
    """Numbers of the classes with patients enough for five folds; empty if fewer than two have."""
    found = [int(k) for k in np.unique(labels) if len(np.unique(patients[labels == k])) >= LEAST_PATIENTS]
    return found if len(found) > 1 else []


def out_of_fold(
    features: npt.NDArray[np.floating],
    labels: Ints,
    patients: npt.NDArray[np.str_],
    model: Literal["linear", "trees"] = "linear",
    strength: float = 0.003,
    seed: int = 0,
) -> tuple[Probabilities, Ints]:
    """Probabilities of the classes by a model that saw no image of the patient.

    Args:
        features: (N, d).
        labels: (N,) numbers 0..K-1; a class that does not occur has probability 0.
        patients: (N,) keys.
        model: logistic regression on standardised features, or boosted trees for a few odd numbers.
        strength: inverse regularisation of the logistic regression.
        seed: of the folds.

    Returns:
        (N, K), rows sum to 1; and (N,) the fold in which each image was judged.
    """
    found = np.zeros((len(labels), int(labels.max()) + 1))
    fold = np.zeros(len(labels), np.int64)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for number, (learn, judge) in enumerate(folds.split(features, labels, patients)):
        if model == "linear":
            estimator = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
        else:
            estimator = HistGradientBoostingClassifier(
                max_iter=60, max_leaf_nodes=8, min_samples_leaf=10, learning_rate=0.15, random_state=seed
            )
        if len(np.unique(labels[learn])) == 1:  # one patient holds nearly a whole class
            found[judge, labels[learn[0]]] = 1.0
        else:
            estimator.fit(features[learn], labels[learn])
            found[np.ix_(judge, estimator.classes_.astype(int))] = estimator.predict_proba(features[judge])
        fold[judge] = number
    return found, fold


def within_folds(score: npt.NDArray[np.float64], fold: Ints) -> npt.NDArray[np.float64]:
    """Scores (N,) as ranks within their fold, 0..1.

    A fold with many of a class leaves few for its model to learn from, so that its scores are low where they ought to
    be high; pooled as they are, scores without any information give an AUC below 0.5.
    """
    found = np.empty(len(score))
    for number in np.unique(fold):
        of = fold == number
        found[of] = rankdata(score[of]) / (of.sum() + 1)
    return found


def told_label(
    features: npt.NDArray[np.floating],
    labels: Ints,
    patients: npt.NDArray[np.str_],
    classes: Sequence[str],
    model: Literal["linear", "trees"] = "linear",
    strength: float = 0.003,
    seed: int = 0,
) -> dict[str, Interval]:
    """How well features tell each class: "A against the rest" → AUC, cross-validated over patients, with its interval.

    Classes with fewer than 10 patients are left out, and so is everything if fewer than two are left. For two classes
    there is one figure, not two.
    """
    large = large_classes(labels, patients)
    of = np.flatnonzero(np.isin(labels, large))
    if not large:
        return {}
    chance, fold = out_of_fold(features[of], labels[of], patients[of], model, strength, seed)
    return {
        f"{classes[k]} against the rest": auc_interval(
            labels[of] == k, within_folds(chance[:, k], fold), list(patients[of]), 300
        )
        for k in (large if len(large) > 2 else large[:1])
    }


def certain(figures: Sequence[Interval], two_sided: bool = False) -> float:
    """The AUC that the clearest of several has at least, with 95% certainty for all of them together (Bonferroni).

    Args:
        figures: AUCs with 95% intervals.
        two_sided: of raw attributes, of which small values may tell as much as large ones. A cross-validated score has
            a direction, and below 0.5 it tells nothing.

    Returns:
        at least 0.5.
    """
    told = [f for f in figures if not np.isnan(f.low)]
    if not told:
        return 0.5
    wider = float(norm.ppf(1 - 0.025 / len(told)) / norm.ppf(0.975))
    bounds = [f.value - wider * (f.value - f.low) for f in told]
    if two_sided:
        bounds += [1 - f.value - wider * (f.high - f.value) for f in told]
    return max(0.5, *bounds)


def shortcut_severity(sure: float, high: float = 0.70, medium: float = 0.60) -> Severity:
    """Severity of an AUC that is certain."""
    return "high" if sure >= high else "medium" if sure >= medium else "low" if sure >= 0.55 else "ok"
