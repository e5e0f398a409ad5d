"""Whether the label can be told from the file rather than from the picture: size, shape, mode, compression."""

import numpy as np
import numpy.typing as npt

from expressivegan.data.doctor.case import Case
from expressivegan.data.doctor.crossval import certain, large_classes, shortcut_severity, told_label
from expressivegan.data.doctor.finding import Figure, Finding, Table
from expressivegan.intervals import Interval, auc_interval

CHECK = "geometry-shortcut"
Floats = npt.NDArray[np.float64]


def check(case: Case) -> Finding:
    """AUC of each class from area, aspect ratio, mode, JPEG quality and file size, each alone and all together."""
    labels, patients = case.labels, case.patients
    if case.manifest.source == "phantom":
        return Finding(CHECK, "skipped", "Phantoms are drawn, not read from files: they have no geometry")
    if not large_classes(labels, patients):
        return Finding(CHECK, "skipped", "Fewer than 10 patients in a class: whether geometry tells it cannot be said")
    classes = case.manifest.classes
    columns, modes = attributes(case)
    rows, figures = [], []
    raw: list[Interval] = []
    sizes: list[Interval] = []
    judged: list[Interval] = []
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
        # The size in bytes tells of the content as well, once all pictures have one geometry
        (sizes if name == "file size" else raw).extend(found.values())
    names = sorted(set(modes))
    counts = "; ".join(
        f"{m}: " + ", ".join(f"{int(((modes == m) & (labels == k)).sum())} {c}" for k, c in enumerate(classes))
        for m in names
    )
    if len(names) == 2:  # a number like the others
        found = {t: auc_interval(mask, modes == names[1], list(patients), 300) for t, mask in targets.items()}
        rows.append(("mode", counts, *(str(i) for i in found.values())))
        figures += [Figure.of(f"AUC of mode: {t}", i, 0.5) for t, i in found.items()]
        raw += list(found.values())
    elif len(names) > 2:
        found = told_label(_one_hot(modes), labels, patients, classes, strength=1.0)
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
        found = told_label(both, labels, patients, classes, "trees")
        rows.append((name, "cross-validated over patients", *(_cell(found, t) for t in targets)))
        figures += [Figure.of(f"AUC of {name}: {t}", i, 0.5) for t, i in found.items()]
        if left_out:
            judged += list(found.values())
    severity = shortcut_severity(max(certain(raw, two_sided=True), certain(judged)))
    order = list(targets)
    figures.sort(key=lambda f: order.index(f.name.split(": ")[1]))
    table = Table(("what", "seen", *targets), tuple(rows))
    size = max((f for f in figures if f.name.startswith("AUC of file size")), key=_strength, default=None)
    if severity == "ok" and size is not None and certain(sizes, two_sided=True) >= 0.6:
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
        "Report a classifier of geometry alone beside every result. One aspect ratio for all, so that stretching "
        "distorts all alike: `expressivegan data fix DATA --out fixed.jsonl --geometry`. Differences of sharpness and "
        "compression stay",
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
    large = large_classes(case.labels, case.patients)
    chosen = large if len(large) > 2 else large[:1]
    return {f"{case.manifest.classes[k]} against the rest": case.labels == k for k in chosen}


def _one_hot(values: npt.NDArray[np.str_]) -> Floats:
    names = np.unique(values)
    return np.asarray(values[:, None] == names[None, :], np.float64)


def _cell(found: dict[str, Interval], name: str) -> str:
    return str(found[name]) if name in found else ""
