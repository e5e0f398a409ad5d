"""Pictures that exist twice: the same file, the same pixels, or a copy that was changed a little."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from expressivegan.data.cache import release
from expressivegan.data.doctor.case import Case
from expressivegan.data.doctor.finding import Figure, Finding, Picture, Severity, Table
from expressivegan.data.doctor.pictures import montage
from expressivegan.data.doctor.similarity import SIDE, Alike, compare, copy_line
from expressivegan.data.split import join

_SHOWN = 8


def exact(case: Case) -> Finding:
    """The same file, or another that is equal to it at `SIDE` pixels."""
    images = case.images(SIDE)
    by_content: dict[Any, list[int]] = defaultdict(list)
    for i, record in enumerate(case.records):
        by_content[record.pixel_key].append(i)
    files = [group for group in by_content.values() if len(group) > 1]
    first = [group[0] for group in by_content.values()]
    by_pixels: dict[bytes, list[int]] = defaultdict(list)
    for n, i in enumerate(first):
        by_pixels[hashlib.sha256(images[i].tobytes()).digest()].append(i)
        if n % 1000 == 0:
            release(images)
    joined = join((str(i), name) for name, group in _named(files, by_pixels.values()) for i in group)
    groups: dict[str, list[int]] = defaultdict(list)
    for member, leader in joined.items():
        groups[leader].append(int(member))
    found = sorted(sorted(group) for group in groups.values() if len(group) > 1)
    return _finding(case, "exact-duplicates", "exact duplicates", found, [])


def _named(*kinds: Iterable[list[int]]) -> Iterable[tuple[tuple[int, int], list[int]]]:
    for number, groups in enumerate(kinds):
        for which, group in enumerate(groups):
            yield (number, which), group


def near(case: Case) -> Finding:
    """Copies that were shifted, mirrored, re-compressed, resized or slightly changed."""
    images = case.images(SIDE)
    pairs = compare(images)
    line = copy_line(pairs.likeness)
    is_copy = pairs.likeness >= line
    identical = np.zeros(len(is_copy), bool)
    for p in np.flatnonzero(is_copy):
        identical[p] = np.array_equal(images[pairs.first[p]], images[pairs.second[p]])
    is_copy &= ~identical
    chosen = np.flatnonzero(is_copy)
    groups = [[int(pairs.first[p]), int(pairs.second[p])] for p in chosen]
    details = [{"likeness": round(float(pairs.likeness[p]), 4), "mirrored": bool(pairs.mirrored[p])} for p in chosen]
    finding = _finding(case, "near-duplicates", "near-duplicates", groups, details)
    return finding if groups else _with_closest(case, finding, pairs, ~is_copy & ~identical, line)


def _with_closest(case: Case, finding: Finding, pairs: Alike, others: np.ndarray, line: float) -> Finding:
    """The closest pairs that are no copies, so that one sees where the line runs."""
    strangers = case.patients[pairs.first] != case.patients[pairs.second]
    chosen = np.flatnonzero(others & strangers)[:_SHOWN]
    if not len(chosen):
        return finding
    picture = _pairs_picture(case, [(int(pairs.first[p]), int(pairs.second[p])) for p in chosen])
    figure = Figure("likeness of the closest pair of different patients", float(pairs.likeness[chosen[0]]))
    caption = f"The closest pairs that are not copies (likeness at most {figure.value:.2f}, copies from {line:.2f} on)"
    return Finding(
        finding.check,
        finding.severity,
        finding.title,
        (*finding.figures, figure),
        pictures=(Picture(caption, picture),),
    )


def _finding(case: Case, check: str, what: str, groups: list[list[int]], details: list[dict[str, Any]]) -> Finding:
    records, patients, labels, splits = case.records, case.patients, case.labels, case.splits

    def differ(values: np.ndarray, group: list[int]) -> bool:
        return len(set(values[group])) > 1

    across = {
        "splits": [g for g in groups if differ(splits, g)],
        "classes": [g for g in groups if differ(labels, g)],
        "patients": [g for g in groups if differ(patients, g)],
    }
    files = len({i for g in groups for i in g})
    figures = [Figure("groups", len(groups), expected=0), Figure("files in them", files, expected=0)]
    figures += [Figure(f"groups across {name}", len(found), expected=0) for name, found in across.items()]
    if not groups:
        return Finding(check, "ok", f"No {what} among {len(records)} images", tuple(figures))
    known = case.manifest.patients_known
    severity: Severity = "low"
    if across["splits"] or across["classes"]:
        severity = "high"
    elif across["patients"] and known:
        severity = "medium"
    words = ", ".join(f"{len(found) or 'none'} across {name}" for name, found in across.items())
    items: list[dict[str, Any]] = [
        {"paths": [records[i].path for i in g], "sha256": [records[i].sha256 for i in g]} for g in groups
    ]
    for item, detail in zip(items, details, strict=False):
        item.update(detail)
    for item, group in zip(items, groups, strict=True):
        for name, values in (("patients", patients), ("splits", splits)):
            if differ(values, group):
                item[name] = [str(v) for v in values[group]]
        if differ(labels, group):
            item["classes"] = [records[i].label for i in group]
    worst_first = sorted(groups, key=lambda g: -(4 * differ(splits, g) + 2 * differ(labels, g) + differ(patients, g)))
    rows = tuple(
        (", ".join(records[i].path for i in g), *("yes" if g in found else "" for found in across.values()))
        for g in worst_first[:50]
    )
    return Finding(
        check,
        severity,
        f"{len(groups)} groups of {what} ({files} files): {words}",
        tuple(figures),
        "A copy in another split is a test question that was practised; under another label it is a contradiction; "
        "under another patient it defeats splits by patient; within a class it is an image that counts twice.",
        "Keep one of each group, and count near-duplicates as one patient: "
        "`expressivegan data fix DATA --out fixed.jsonl --report doctor.json`",
        Table(("files", *(f"across {name}" for name in across)), rows),
        (Picture("Copies, one above the other", _pairs_picture(case, [(g[0], g[1]) for g in worst_first[:_SHOWN]])),),
        tuple(items),
    )


def _pairs_picture(case: Case, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    images = case.images(SIDE)
    return montage([[images[i] for i, _ in pairs], [images[j] for _, j in pairs]])
