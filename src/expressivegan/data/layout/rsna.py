"""The RSNA pneumonia challenge: `stage_2_*.csv` beside a folder of images named after the patient ids."""

import re
from collections import defaultdict

from expressivegan.data import tables
from expressivegan.data.layout.listing import Listing
from expressivegan.data.layout.plan import (
    NO_PATIENT,
    Found,
    Layout,
    Reader,
    folder_of,
    in_order,
    patient_in,
    shallowest,
)
from expressivegan.data.layout.table import content
from expressivegan.data.manifest import Rejected
from expressivegan.errors import DataError

LABELS, DETAILS = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"
OPACITY, NO_OPACITY = "Lung Opacity", "No Lung Opacity"


def base_of(listing: Listing) -> str | None:
    """The shallowest folder that holds one of the challenge's tables, or None."""
    found = shallowest([f for f in listing.files if f.rpartition("/")[2].lower() in (LABELS, DETAILS)])
    return folder_of(found[0]) if found else None


def read(listing: Listing, base: str, reader: Reader, pattern: "re.Pattern[str] | None") -> Layout:
    """Classes from the detailed table where it is there, else from the target of the other; boxes are not read.

    A patient id stands for one image, and several lines of it for several boxes.

    Raises:
        DataError: a table cannot be read, or names no image that is there.
    """
    prefix = f"{base}/" if base else ""
    targets = _column(listing, prefix + LABELS, "Target", reader)
    details = _column(listing, prefix + DETAILS, "class", reader)
    files: dict[str, list[str]] = defaultdict(list)
    for path in listing.below(base):
        files[path.rpartition("/")[2].rpartition(".")[0]].append(path)
    layout = Layout("rsna", base, (), True)
    taken = {LABELS, DETAILS}
    for identity in sorted(targets.keys() | details.keys()):
        if identity not in files:
            layout.rejected.append(Rejected(identity, "a table names it, but there is no such image"))
            continue
        path, *copies = files[identity]
        taken.update(files[identity])
        layout.rejected += [Rejected(copy, f"a second file of the patient id; {path} is used") for copy in copies]
        label = _label(targets.get(identity, set()), details.get(identity, set()))
        patient = patient_in(path, pattern) if pattern else identity
        if label is None:
            layout.rejected.append(Rejected(path, "the tables contradict each other about it, or give it no class"))
        elif not patient:
            layout.rejected.append(Rejected(path, NO_PATIENT))
        else:
            layout.found.append(Found(path, label, patient, "train", None, (label,)))
    if not layout.found:
        raise DataError(f"none of the images that the tables in {base or 'the folder'} name can be used")
    layout.rejected += [Rejected(f, "no table names it") for f in listing.below(base) if f not in taken]
    layout.classes = in_order({f.label for f in layout.found})
    return layout


def _column(listing: Listing, name: str, column: str, reader: Reader) -> dict[str, set[str]]:
    """Patient id → all values of a column; empty without the table."""
    real = next((f for f in listing.files if f.lower() == name.lower()), None)
    values: dict[str, set[str]] = defaultdict(set)
    if real is None:
        return values
    table = tables.parse(content(reader, real), real)
    for needed in ("patientId", column):
        if needed not in table.columns:
            raise DataError(f"the table {real} has no column {needed!r}; give the challenge's own table")
    identity, value = table.columns.index("patientId"), table.columns.index(column)
    for row in table.rows:
        values[row[identity]].add(row[value])
    return values


def _label(targets: set[str], details: set[str]) -> str | None:
    if len(targets) > 1 or len(details) > 1 or not targets | details or not targets <= {"0", "1"}:
        return None
    if not details:
        return OPACITY if targets == {"1"} else NO_OPACITY
    label = next(iter(details))
    if targets and (label == OPACITY) != (targets == {"1"}):
        return None
    return label or None
