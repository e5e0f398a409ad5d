"""From the doctor's report to remedies, and from changes to a table."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from expressivegan.data.fix.edit import KINDS
from expressivegan.data.fix.remedies import area_of
from expressivegan.data.manifest import Box, Change, Manifest
from expressivegan.errors import DataError, InputError

_COSTLY = {
    "geometry-shortcut": "not repaired unasked, since it costs area; give --geometry",
    "border-shortcut": "not repaired unasked, since it costs area; give --border with a share such as 0.05",
}


@dataclass(frozen=True)
class Plan:
    """What a report says can be repaired: arguments of `fix`, and what else is worth knowing."""

    duplicates: tuple[tuple[str, ...], ...] = ()
    same_patient: tuple[tuple[str, ...], ...] = ()
    leaks: bool = False
    markers: Mapping[str, tuple[Box, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What cannot be repaired from the report alone, one sentence each."""
    contents: Mapping[str, str] = field(default_factory=dict)
    """Path → SHA-256 of the files that the report spoke of."""

    def arguments(self) -> dict[str, Any]:
        """For `fix(manifest, **plan.arguments())`."""
        names = ("duplicates", "same_patient", "leaks", "markers")
        return {name: getattr(self, name) for name in names}

    def for_manifest(self, manifest: Manifest) -> "Plan":
        """Without images that the manifest does not have, such as those that were rejected; a note counts them.

        Raises:
            InputError: a file has other contents than when the report was written.
        """
        known = {r.path for r in manifest.records}
        for r in manifest.records:
            if self.contents.get(r.path, r.sha256) != r.sha256:
                raise InputError(
                    f"report speaks of another {r.path} than the data set holds; run the doctor on these data again"
                )
        named = {path for group in (*self.duplicates, *self.same_patient) for path in group} | set(self.markers)
        if named <= known:
            return self
        note = f"{len(named - known)} images of the report are not in the manifest, such as {min(named - known)}"
        return replace(
            self,
            duplicates=_within(self.duplicates, known),
            same_patient=_within(self.same_patient, known),
            markers={path: boxes for path, boxes in self.markers.items() if path in known},
            notes=(*self.notes, note),
        )


def _within(groups: Iterable[Sequence[str]], known: set[str]) -> tuple[tuple[str, ...], ...]:
    cut = (tuple(path for path in group if path in known) for group in groups)
    return tuple(group for group in cut if len(group) > 1)


def read_report(path: Path | str) -> dict[str, Any]:
    """Reads a report of the doctor.

    Raises:
        DataError: it cannot be read, or is no JSON object.
    """
    try:
        report = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise DataError(
            f"cannot read the report {path} ({why}); give the doctor.json that data doctor wrote"
        ) from error
    if not isinstance(report, dict):
        raise DataError(f"the report {path} is no JSON object; give the doctor.json that data doctor wrote")
    return report


def plan_from_report(report: Mapping[str, Any], near: Literal["join", "drop", "keep"] = "join") -> Plan:
    """What `fix` can do about the doctor's findings.

    Args:
        report: the doctor's JSON: "findings" is a list of objects with "check" and "items"; an item has "paths", and
            one of "markers" also "boxes" ([left, top, right, bottom] each, in shares of the whole upright picture).
        near: near-duplicates are joined to one patient ("join"), dropped like exact ones ("drop"), or left ("keep").

    Raises:
        InputError: it is not laid out like that.
    """
    if near not in ("join", "drop", "keep"):
        raise InputError(f"near (={near!r}) must be 'join', 'drop' or 'keep'")
    found: dict[str, list[tuple[str, ...]]] = {"exact-duplicates": [], "near-duplicates": []}
    markers: dict[str, tuple[Box, ...]] = {}
    contents: dict[str, str] = {}
    leaks, notes = False, []
    try:
        for finding in report["findings"]:
            check, items = str(finding["check"]), list(finding.get("items") or ())
            for item in items:
                contents |= zip(item["paths"], item.get("sha256", ()), strict=False)
            if check in found:
                found[check] += [tuple(str(path) for path in item["paths"]) for item in items]
            elif check == "patients-across-splits":
                leaks = leaks or bool(items)
            elif check == "markers":
                for item in items:
                    boxes = tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in item["boxes"])
                    markers |= {str(path): (*markers.get(str(path), ()), *boxes) for path in item["paths"]}
            elif finding.get("severity") in ("high", "medium", "low"):
                advice = finding.get("remedy")
                notes.append(
                    f"{check}: " + _COSTLY.get(check, f"not repaired automatically; {advice or 'see the report'}")
                )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"report is not laid out as data doctor writes it ({type(error).__name__}: {error}); write it anew"
        ) from None
    exact, alike = found["exact-duplicates"], found["near-duplicates"]
    return Plan(
        duplicates=tuple(exact + (alike if near == "drop" else [])),
        same_patient=tuple(alike if near == "join" else []),
        leaks=leaks,
        markers=markers,
        notes=tuple(notes),
        contents=contents,
    )


class Row(NamedTuple):
    """One kind of change, for a table."""

    kind: str
    images: int
    """How many were changed."""
    example: str
    """The first image's path, and why it was changed."""
    why: str
    """What it comes to, over all images."""


def describe(changes: Sequence[Change]) -> list[Row]:
    """One row per kind of change that occurs, in the order of `KINDS`."""
    rows = []
    for kind in KINDS:
        of = [c for c in changes if c.kind == kind]
        if of:
            count = len({c.path for c in of})
            rows.append(Row(kind, count, f"{of[0].path}: {of[0].why}", _summary(kind, of)))
    return rows


def _summary(kind: str, changes: Sequence[Change]) -> str:
    if kind == "duplicate":
        return "copies dropped; one of each group stays"
    if kind == "leak":
        pairs = [(c.before or {}, c.after or {}) for c in changes]
        joined = len({before["patient"] for before, _ in pairs if "patient" in before})
        moved = sum("group" in after or "split" in after for _, after in pairs)
        return f"{moved} images moved, {joined} patients joined to another"
    if kind == "marker":
        boxes = sum(len((c.after or {})["masks"]) - len((c.before or {})["masks"]) for c in changes)
        return f"{boxes} boxes painted over with the grey around them"
    lost = [1 - area_of((c.after or {})["crop"]) / area_of((c.before or {})["crop"]) for c in changes]
    what = "cropped on all sides" if kind == "border" else "cut to one aspect ratio"
    return f"{what}: {np.mean(lost):.1%} of their area lost on average, at most {max(lost):.1%}"
