"""Whether the splits are alike: how frequent each class is, and what the pictures look like."""

import numpy as np
import numpy.typing as npt

from expressivegan.data.doctor.case import Case
from expressivegan.data.doctor.crossval import LEAST_PATIENTS, certain, out_of_fold, within_folds
from expressivegan.data.doctor.finding import Figure, Finding, Picture, Table
from expressivegan.data.doctor.pictures import montage
from expressivegan.intervals import Interval, auc_interval, mean_interval

_NOTABLE = 0.05  # difference of shares


def _split_names(case: Case) -> list[str]:
    return [s for s in ("train", "val", "judge", "reference", "test") if (case.splits == s).sum() >= 30]


def prevalence(case: Case) -> Finding:
    """Share of each class by split."""
    check = "prevalence-shift"
    names, classes = _split_names(case), case.manifest.classes
    if len(names) < 2:
        return Finding(check, "skipped", "There are no two splits of 30 images to compare")
    shares: dict[str, list[Interval]] = {}
    for k, name in enumerate(classes):
        shares[name] = _shares(case, case.labels == k, names)
    reference = case.manifest.reference_class
    if reference is not None and len(classes) > 2:
        at = classes.index(reference)
        shares[f"all but {reference}"] = _shares(case, case.labels != at, names)
    figures = tuple(
        Figure.of(f"share of {c} in {s}", i) for c, found in shares.items() for s, i in zip(names, found, strict=True)
    )
    table = Table(("class", *names), tuple((c, *(str(i) for i in found)) for c, found in shares.items()))
    gaps = {
        c: max(abs(a.value - b.value) for a in found for b in found if a.low > b.high or a is b)
        for c, found in shares.items()
    }
    widest = max(gaps, key=lambda c: gaps[c])
    if gaps[widest] < _NOTABLE:
        return Finding(check, "ok", "The classes are equally frequent in all splits", figures, table=table)
    told = ", ".join(f"{i.value:.1%} in {s}" for s, i in zip(names, shares[widest], strict=True))
    return Finding(
        check,
        "medium",
        f"The classes are not equally frequent in the splits: {widest} is {told}",
        figures,
        "Accuracy, predictive values and calibration from one split do not hold in the other.",
        "Report AUC, sensitivity and specificity rather than accuracy; recalibrate for the prevalence of use",
        table,
    )


def _shares(case: Case, chosen: npt.NDArray[np.bool_], names: list[str]) -> list[Interval]:
    """Share of the chosen images in each split, with intervals over patients: one may have thirty images."""
    return [mean_interval(chosen[case.splits == s], case.patients[case.splits == s].tolist()) for s in names]


def covariate(case: Case) -> Finding:
    """Whether a classifier can tell the splits apart by the pictures, class by class."""
    check = "covariate-shift"
    train = np.isin(case.splits, ("train", "val"))
    test = case.splits == "test"
    figures, chances = [], np.full(len(case.labels), np.nan)
    for k, name in enumerate(case.manifest.classes):
        within = np.flatnonzero((case.labels == k) & (train | test))
        where, patients = test[within].astype(np.int64), case.patients[within]
        if min(len(set(patients[where == side])) for side in (0, 1)) < LEAST_PATIENTS:
            continue
        chance, fold = out_of_fold(case.features[within], where, patients, strength=1e-3)
        chances[within] = within_folds(chance[:, 1], fold)
        found = auc_interval(where == 1, chances[within], list(patients), 300)
        figures.append(Figure.of(f"AUC of test against train among {name}", found, 0.5))
    if not figures:
        return Finding(check, "skipped", "There are no train and test splits with 10 patients of one class in both")
    worst = max(figures, key=lambda f: f.value)
    low = certain([Interval(f.value, f.low or 0.0, f.high or 1.0) for f in figures])
    if low < 0.55:
        return Finding(check, "ok", f"Train and test pictures look alike ({_line(worst)})", tuple(figures))
    images = case.images(64)
    rows = []
    for side in (train, test):
        scored = np.flatnonzero(side & ~np.isnan(chances))
        order = scored[np.argsort(chances[scored] if side is train else -chances[scored], kind="stable")]
        rows.append([images[i] for i in order[:8]])
    return Finding(
        check,
        "high" if low >= 0.75 else "medium" if low >= 0.60 else "low",
        f"Test pictures can be told from training pictures of the same class ({_line(worst)})",
        tuple(figures),
        "They were taken or prepared differently: what is chosen on training patients is not what is best on the test, "
        "and a gain on one may be a loss on the other.",
        "Report both: held-out patients of the training distribution, and the official test",
        pictures=(Picture("Above: most typical of train; below: most typical of test", montage(rows)),),
    )


def _line(figure: Figure) -> str:
    return f"{figure.name}: {figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}]"
