"""Labels that the pictures contradict: confident learning (Northcutt, Jiang and Chuang, JAIR 70, 2021, section 3)."""

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from expressivegan.data.doctor.case import Case
from expressivegan.data.doctor.crossval import large_classes, out_of_fold, within_folds
from expressivegan.data.doctor.finding import Figure, Finding, Picture, Severity, Table
from expressivegan.data.doctor.pictures import montage
from expressivegan.intervals import mean_interval

CHECK = "label-noise"
_SHOWN = 8
_NOTABLE = 0.02  # share of doubtful labels: clean phantom sets have up to that, sets with 5% of wrong labels more
_ABLE = 0.85  # balanced accuracy below which doubts may as well be the classifier's own
_LEAST_AUC = 0.7  # of the class that is hardest to tell: whoever sees nothing has no right to doubt


def check(case: Case) -> Finding:
    """Images whose out-of-fold prediction is confidently another class."""
    classes = case.manifest.classes
    large = large_classes(case.labels, case.patients)
    if not large:
        return Finding(CHECK, "skipped", "Fewer than two classes have 10 patients: labels cannot be checked")
    of = np.flatnonzero(np.isin(case.labels, large))
    labels, records = case.labels[of], [case.records[i] for i in of]
    chance, fold = out_of_fold(case.features[of], labels, case.patients[of], strength=0.01)
    weakest = _weakest_auc(chance, labels, fold)
    if weakest < _LEAST_AUC:
        return Finding(
            CHECK,
            "skipped",
            f"The classes cannot be told apart well enough to doubt a label (AUC {weakest:.2f}, needed {_LEAST_AUC})",
        )
    other = confident_issues(chance, labels)
    doubtful = np.flatnonzero(other >= 0)
    doubtful = doubtful[np.argsort(chance[doubtful, labels[doubtful]], kind="stable")]
    share = mean_interval(other >= 0, case.patients[of].tolist())
    figures = [Figure.of("share of labels in doubt", share)]
    accuracy = float(np.mean([(chance.argmax(1) == k)[labels == k].mean() for k in large]))
    figures.append(Figure("balanced accuracy of the classifier that doubts", accuracy))
    rows = []
    for k, name in enumerate(classes):
        for j, as_what in enumerate(classes):
            n = int(((labels == k) & (other == j)).sum())
            if n:
                rows.append((name, as_what, str(n), f"{n / max(1, int((labels == k).sum())):.1%}"))
    items = tuple(
        {
            "paths": [records[i].path],
            "label": classes[labels[i]],
            "looks_like": classes[other[i]],
            "probability_of_label": round(float(chance[i, labels[i]]), 4),
        }
        for i in doubtful
    )
    if not len(doubtful):
        return Finding(CHECK, "ok", "No label is clearly contradicted by its picture", tuple(figures))
    able = accuracy >= _ABLE
    severity: Severity = "medium" if share.low > _NOTABLE and able else "low"
    images = case.images(64)
    shown = [
        [images[of[i]] for i in doubtful[labels[doubtful] == k][:_SHOWN]]
        for k in range(len(classes))
        if (labels[doubtful] == k).any()
    ]
    names = ", ".join(c for k, c in enumerate(classes) if (labels[doubtful] == k).any())
    return Finding(
        CHECK,
        severity,
        f"{len(doubtful)} labels ({share.value:.1%}) are in doubt: a classifier that never saw the patient is sure of "
        "another class" + ("" if able else f", but it is right in {accuracy:.0%} of all only: the classes look alike"),
        tuple(figures),
        "Wrong labels teach wrong borders and put a ceiling on every score; where two classes look alike, doubt is no "
        "proof of an error.",
        "Have the listed images read again, the first ones first; do not drop them unseen",
        Table(("label", "looks like", "images", "of the class"), tuple(rows)),
        (Picture(f"Most doubtful of {names}, one row a class", montage(shown)),),
        items,
    )


def _weakest_auc(chance: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], fold: npt.NDArray[np.int64]) -> float:
    return min(float(roc_auc_score(labels == k, within_folds(chance[:, k], fold))) for k in np.unique(labels))


def confident_issues(chance: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The class that each image is confidently counted as, where that is not its label; else -1.

    Class j's threshold is the mean probability of j over the images labelled j; an image counts as the likeliest among
    the classes whose threshold it reaches.

    Args:
        chance: (N, K) out-of-fold probabilities.
        labels: (N,).

    >>> chance = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.95, 0.05]])
    >>> confident_issues(chance, np.array([0, 0, 1, 1, 1]))
    array([-1, -1, -1, -1,  0])
    """
    classes = chance.shape[1]
    threshold = np.array([chance[labels == k, k].mean() if (labels == k).any() else np.inf for k in range(classes)])
    reached = np.where(chance >= threshold, chance, -1.0)
    counted = np.where(reached.max(1) >= 0, reached.argmax(1), -1)
    return np.where(counted == labels, -1, counted)
