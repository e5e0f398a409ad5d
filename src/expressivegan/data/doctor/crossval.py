"""How well something tells the label: cross-validated over patients, with intervals over patients."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
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


def enough(labels: Ints, patients: npt.NDArray[np.str_]) -> bool:
    """Whether two classes at least have patients enough for five folds."""
    counts = [len(set(patients[labels == k])) for k in np.unique(labels)]
    return len(counts) > 1 and min(counts) >= LEAST_PATIENTS


def out_of_fold(
    features: npt.NDArray[np.floating],
    labels: Ints,
    patients: npt.NDArray[np.str_],
    model: Literal["linear", "trees"] = "linear",
    strength: float = 0.003,
    seed: int = 0,
) -> Probabilities:
    """Probabilities of the classes by a model that saw no image of the patient.

    Args:
        features: (N, d).
        labels: (N,) numbers 0..K-1, each present.
        patients: (N,) keys.
        model: logistic regression on standardised features, or boosted trees for a few odd numbers.
        strength: inverse regularisation of the logistic regression.
        seed: of the folds.

    Returns:
        (N, K), rows sum to 1.
    """
    found = np.zeros((len(labels), int(labels.max()) + 1))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for learn, judge in folds.split(features, labels, patients):
        if model == "linear":
            estimator = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
        else:
            estimator = HistGradientBoostingClassifier(
                max_iter=60, max_leaf_nodes=8, min_samples_leaf=10, learning_rate=0.15, random_state=seed
            )
        estimator.fit(features[learn], labels[learn])
        found[np.ix_(judge, estimator.classes_.astype(int))] = estimator.predict_proba(features[judge])
    return found


def class_aucs(
    probabilities: Probabilities,
    labels: Ints,
    patients: npt.NDArray[np.str_],
    classes: Sequence[str],
    rounds: int = 300,
) -> dict[str, Interval]:
    """ "A against the rest" → AUC with its interval; for two classes that is one figure, not two."""
    chosen = range(len(classes)) if len(classes) > 2 else range(1)
    return {
        f"{classes[k]} against the rest": auc_interval(labels == k, probabilities[:, k], list(patients), rounds)
        for k in chosen
        if (labels == k).any()
    }


def shortcut_severity(figures: Sequence[Interval], high: float = 0.70, medium: float = 0.60) -> Severity:
    """Severity of the clearest of several AUCs (either side of 0.5), by the end of its interval that is nearer 0.5."""
    sure = [max(low, 1 - top) for _, low, top in figures if not np.isnan(low)]
    strongest = max(sure, default=0.5)
    return "high" if strongest >= high else "medium" if strongest >= medium else "low" if strongest >= 0.55 else "ok"
