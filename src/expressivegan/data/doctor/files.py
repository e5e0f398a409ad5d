"""Files that could not be read, stand in the wrong place, or are of an odd kind; and what the splits hold."""

from collections import Counter

import numpy as np

from expressivegan.data.classes import AMBIGUOUS, NONE_SHOWN
from expressivegan.data.doctor.case import Case
from expressivegan.data.doctor.finding import Figure, Finding, Severity, Table
from expressivegan.intervals import share_interval

_SMALL_SPLIT = 100
NOT_CHOSEN = (NONE_SHOWN, AMBIGUOUS)
"""How the reasons begin of files that the user's choice of classes leaves out: nothing is wrong with those."""
_SPLITS = ("train", "val", "judge", "reference", "test")


def overview(case: Case) -> Table:
    """Images and patients by split and class."""
    rows = []
    for split in [s for s in _SPLITS if (case.splits == s).any()]:
        within = case.splits == split
        patients = case.patients[within]
        several = Counter(patients.tolist())
        cells = [
            f"{int((within & (case.labels == k)).sum())} ({len(set(case.patients[within & (case.labels == k)]))})"
            for k in range(len(case.manifest.classes))
        ]
        most = max(several.values())
        rows.append((split, str(int(within.sum())), str(len(several)),
                     str(sum(n > 1 for n in several.values())), str(most), *cells))  # fmt: skip
    named = (f"{c} (patients)" for c in case.manifest.classes)
    return Table(("split", "images", "patients", "with several", "most of one", *named), tuple(rows))


def unreadable(case: Case) -> Finding:
    """Files that were left out, by reason."""
    rejected = [r for r in case.manifest.rejected if not r.reason.startswith(NOT_CHOSEN)]
    total = len(rejected) + len(case.records)
    figure = Figure.of("share of files left out", share_interval(len(rejected), total), 0)
    if not rejected:
        return Finding("unreadable-files", "ok", f"All {total} files can be read", (figure,))
    reasons: dict[str, list[str]] = {}
    for item in rejected:
        reasons.setdefault(_kind(item.reason), []).append(item.path)
    rows = tuple((reason, str(len(paths)), paths[0]) for reason, paths in sorted(reasons.items(), key=_by_count))
    severity: Severity = "medium" if figure.value > 0.01 else "low"
    return Finding(
        "unreadable-files",
        severity,
        f"{len(rejected)} of {total} files are left out; the most frequent reason: {rows[0][0]}",
        (figure,),
        "Tools that skip or blacken such files silently train on other data than they say.",
        "Repair or remove them; the list names each with its reason",
        Table(("reason", "files", "for example"), rows),
        items=tuple({"paths": [r.path], "reason": r.reason} for r in rejected),
    )


def _kind(reason: str) -> str:
    """A reason without the numbers of the one file."""
    return reason.split(":")[0] if not reason[:1].isdigit() else "of a size or kind that is not taken"


def _by_count(pair: tuple[str, list[str]]) -> tuple[int, str]:
    return -len(pair[1]), pair[0]


def odd(case: Case) -> Finding:
    """Pixel formats that few files have."""
    counts = Counter(r.mode for r in case.records)
    usual, most = counts.most_common(1)[0]
    strange = [r for r in case.records if r.mode != usual]
    figures = tuple(Figure(f"files of mode {mode}", n) for mode, n in counts.most_common())
    if not strange:
        return Finding("odd-files", "ok", f"All files are of one mode ({usual})", figures)
    classes = case.manifest.classes
    by_class = Counter((r.mode, r.label) for r in case.records)
    rows = tuple((mode, str(n), *(str(by_class[mode, c]) for c in classes)) for mode, n in counts.most_common())
    return Finding(
        "odd-files",
        "low",
        f"{len(strange)} of {len(case.records)} files have another mode than the usual {usual} ({most}): "
        + ", ".join(
            f"{n} {mode}" + "".join(f", none of {c}" for c in classes if not by_class[mode, c])
            for mode, n in counts.most_common()[1:]
        ),
        figures,
        "Colour, palette and 16-bit files went another way through the hospital's systems; if they are more frequent "
        "in one class, they tell the label.",
        "All are converted to 8-bit grey here; see the check of geometry for whether the mode tells the label",
        Table(("mode", "files", *classes), rows),
        items=tuple({"paths": [r.path], "mode": r.mode} for r in strange),
    )


def small_splits(case: Case) -> Finding:
    """Splits too small to measure anything with, and classes that are missing in one."""
    brought = [s for s in _SPLITS if (case.splits == s).any()]
    figures, poor = [], []
    for split in brought:
        within = case.splits == split
        figures.append(Figure(f"images in {split}", int(within.sum())))
        missing = [c for k, c in enumerate(case.manifest.classes) if not (within & (case.labels == k)).any()]
        if missing:
            poor.append((f"{split} lacks {', '.join(missing)}", "high"))
        elif split != "train" and within.sum() < _SMALL_SPLIT:
            half = 0.98 / np.sqrt(within.sum())
            poor.append(
                (f"{split} holds {int(within.sum())} images, so that an accuracy is known to ±{half:.0%}", "medium")
            )
    if not poor:
        title = "Every split is large enough to measure with" if len(brought) > 1 else "The set brings no splits"
        return Finding("small-splits", "ok", title, tuple(figures))
    worst: Severity = "high" if any(s == "high" for _, s in poor) else "medium"
    return Finding(
        "small-splits",
        worst,
        "; ".join(text for text, _ in poor),
        tuple(figures),
        "Choosing a model by such a split is choosing by chance.",
        "Ignore it, and deal the training patients anew: expressivegan data prepare does so",
    )
