"""Whether the label can be told from the file rather than from the picture: size, shape, mode, compression."""

import numpy as np
import numpy.typing as npt

from expressivegan.data.doctor.case import Case
from expressivegan.data.doctor.crossval import class_aucs, enough, out_of_fold, shortcut_severity
from expressivegan.data.doctor.finding import Figure, Finding, Table
from expressivegan.intervals import Interval, auc_interval

CHECK = "geometry-shortcut"
Floats = npt.NDArray[np.float64]


def check(case: Case) -> Finding:
    """AUC of each class from area, aspect ratio, mode, JPEG quality and file size, each alone and all together."""
    labels, patients = case.labels, case.patients
    if case.manifest.source == "phantom":
        return Finding(CHECK, "skipped", "Phantoms are drawn, not read from files: they have no geometry")
    if not enough(labels, patients):
        return Finding(CHECK, "skipped", "Fewer than 10 patients in a class: whether geometry tells it cannot be said")
    classes = case.manifest.classes
    columns, modes = attributes(case)
    rows, figures, judged = [], [], []
    targets = _targets(case)
    for name, values in columns.items():
        if len(np.unique(values)) == 1:
            rows.append((name, f"the same in all files ({values[0]:g})", *([""] * len(targets))))
            continue
        found = {t: auc_interval(mask, values, list(patients), 300) for t, mask in targets.items()}
        medians = ", ".join(
            f"{c} {np.median(values[labels == k]):,.4g}" for k, c in enumerate(classes) if (labels == k).any()
        )
        rows.append((name, f"median: {medians}", *(str(i) for i in found.values())))
        figures += [Figure.of(f"AUC of {name}: {t}", i, 0.5) for t, i in found.items()]
        if name != "file size":  # which tells of the content as well, once all pictures have one size
            judged += list(found.values())
    if len(set(modes)) > 1:
        chance = out_of_fold(_one_hot(modes), labels, patients, strength=1.0)
        found = class_aucs(chance, labels, patients, classes)
        counts = "; ".join(
            f"{m}: " + ", ".join(f"{int(((modes == m) & (labels == k)).sum())} {c}" for k, c in enumerate(classes))
            for m in sorted(set(modes))
        )
        rows.append(("mode", counts, *(_cell(found, t) for t in targets)))
        figures += [Figure.of(f"AUC of mode: {t}", i, 0.5) for t, i in found.items()]
        judged += list(found.values())
    else:
        rows.append(("mode", f"the same in all files ({modes[0]})", *([""] * len(targets))))
    for name, left_out in (("all together", ()), ("all but file size", ("file size",))):
        used = [v for n, v in columns.items() if n not in left_out and len(np.unique(v)) > 1]
        both = np.column_stack([*used, _one_hot(modes)])
        if np.ptp(both, axis=0).max() == 0:
            continue
        found = class_aucs(out_of_fold(both, labels, patients, "trees"), labels, patients, classes)
        rows.append((name, "cross-validated over patients", *(_cell(found, t) for t in targets)))
        figures += [Figure.of(f"AUC of {name}: {t}", i, 0.5) for t, i in found.items()]
        if left_out:
            judged += list(found.values())
    severity = shortcut_severity(judged) if judged else "ok"
    table = Table(("what", "seen", *targets), tuple(rows))
    size = max((f for f in figures if f.name.startswith("AUC of file size")), key=_strength, default=None)
    if severity == "ok" and size is not None and _strength(size) >= 0.6:
        told = f"{size.name.removeprefix('AUC of ')} with AUC {_strength(size):.2f}"
        return Finding(
            CHECK,
            "low",
            f"All files have one geometry, but their sizes in bytes tell the label ({told})",
            tuple(figures),
            "What compresses better is smoother or darker: pictures of one class have another exposure or sharpness, "
            "beside their disease.",
            "Nothing to repair in the files; see the checks of border and exposure",
            table,
        )
    if severity == "ok":
        title = "Neither size, shape, mode nor compression of the files tells the label"
        return Finding(CHECK, "ok", title, tuple(figures), table=table)
    aucs: dict[str, float] = {}
    for f in figures:
        what = f.name.removeprefix("AUC of ").split(":")[0]
        if not np.isnan(f.value) and what not in ("file size", "all together"):
            aucs[what] = max(aucs.get(what, 0.5), _strength(f))
    told = ", ".join(f"{what} {auc:.2f}" for what, auc in sorted(aucs.items(), key=lambda pair: -pair[1]))
    return Finding(
        CHECK,
        severity,
        f"The files' geometry tells the label without looking at the lungs (AUC: {told})",
        tuple(figures),
        "Stretching pictures to a square writes the aspect ratio into the anatomy, and enlarging small ones blurs "
        "them: a network scores well by looking at that, and fails on any other hospital's images.",
        "Report a classifier of geometry alone beside every result. To cut all pictures to one aspect ratio: "
        "`expressivegan data fix DATA --out fixed.jsonl --geometry`",
        table,
    )


def _strength(figure: Figure) -> float:
    """How far an AUC is from chance, on the side above it."""
    return max(figure.value, 1 - figure.value)


def attributes(case: Case) -> tuple[dict[str, Floats], npt.NDArray[np.str_]]:
    """What can be known of the files without decoding: numbers (N,) by name, and modes (N,).

    Of an image that is cropped, area and aspect ratio are those of the crop.
    """
    records = case.records
    shares = [(1.0, 1.0) if r.crop is None else (r.crop[2] - r.crop[0], r.crop[3] - r.crop[1]) for r in records]
    width = np.array([r.width * s[0] for r, s in zip(records, shares, strict=True)])
    height = np.array([r.height * s[1] for r, s in zip(records, shares, strict=True)])
    columns = {
        "area": np.round(width * height),
        "aspect ratio": np.round(width / height, 4),
        "JPEG quality": np.array([-1 if r.quality is None else r.quality for r in records], np.float64),
        "file size": np.array([r.bytes for r in records], np.float64),
    }
    return columns, np.array([r.mode for r in records])


def _targets(case: Case) -> dict[str, npt.NDArray[np.bool_]]:
    classes = case.manifest.classes
    chosen = range(len(classes)) if len(classes) > 2 else range(1)
    return {f"{classes[k]} against the rest": case.labels == k for k in chosen if (case.labels == k).any()}


def _one_hot(values: npt.NDArray[np.str_]) -> Floats:
    names = np.unique(values)
    return np.asarray(values[:, None] == names[None, :], np.float64)


def _cell(found: dict[str, Interval], name: str) -> str:
    return str(found[name]) if name in found else ""
