"""A table that names each image and its label, beside the images."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from expressivegan.data import tables
from expressivegan.data.decode import UnusableError
from expressivegan.data.layout.listing import Listing
from expressivegan.data.layout.plan import (
    NO_PATIENT,
    UNNAMED,
    Found,
    Layout,
    Reader,
    folder_of,
    in_order,
    own_patient,
    patient_in,
    shallowest,
    split_named,
)
from expressivegan.data.manifest import Rejected
from expressivegan.data.people import age_of, sex_of
from expressivegan.errors import DataError

_COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "image_path"),
    "label": ("label", "labels", "class", "finding", "findings"),
    "patient": ("patient", "patient_id", "patientid", "subject", "subject_id"),
    "split": ("split", "fold", "subset"),
    "sex": ("sex", "gender"),
    "age": ("age",),
}
_MANY = re.compile(r"[|;]")
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class Row:
    """One line of the table, as it stands there."""

    number: int
    """Of the line, counted from 2: the first below the header."""
    path: str
    label: str
    patient: str | None
    """None without such a column."""
    split: str | None
    sex: str
    age: str


def content(read: Reader, name: str) -> bytes:
    """The bytes of a table. Raises DataError."""
    try:
        return read(name)
    except UnusableError as error:
        raise DataError(f"the table {name} is unusable: {error}") from None


def tables_in(listing: Listing, read: Reader) -> list[str]:
    """The tables with the columns path and label, of the shallowest folder that holds any."""
    fit: list[str] = []
    for name in sorted((f for f in listing.files if tables.is_table(f)), key=lambda f: (f.count("/"), f)):
        if fit and name.count("/") > fit[0].count("/"):
            break
        if name not in listing.refused and 0 < listing.files[name][0] <= tables.MAX_BYTES:
            try:
                columns = _places(tables.columns_of(content(read, name), name))
            except DataError:
                if name.lower().endswith(".parquet"):
                    raise  # the one thing that is missing may be pyarrow
                continue
            if {"path", "label"} <= columns.keys():
                fit.append(name)
    return fit


def rows_of(name: str, read: Reader) -> list[Row]:
    """All lines of a table.

    Raises:
        DataError: unreadable, or without the columns path and label.
    """
    table = tables.parse(content(read, name), name)
    places = _places(table.columns)
    missing = [c for c in ("path", "label") if c not in places]
    if missing:
        raise DataError(
            f"the table {name} has no column {' and no column '.join(missing)} (its columns: "
            f"{', '.join(table.columns[:20]) or 'none'}); name them path, label and, if known, patient, split, sex, age"
        )

    def cell(row: Sequence[str], column: str) -> str | None:
        return row[places[column]] if column in places else None

    return [
        Row(
            number,
            row[places["path"]],
            row[places["label"]],
            cell(row, "patient"),
            cell(row, "split"),
            cell(row, "sex") or "",
            cell(row, "age") or "",
        )
        for number, row in enumerate(table.rows, start=2)
    ]


def _places(columns: Sequence[str]) -> dict[str, int]:
    """Meaning → number of the column; the first of the names that a meaning goes by wins."""
    lower = [c.strip().lower().replace(" ", "_") for c in columns]
    found = {}
    for meaning, names in _COLUMNS.items():
        name = next((n for n in names if n in lower), None)
        if name is not None:
            found[meaning] = lower.index(name)
    return found


def safe_path(text: str) -> str | None:
    """A path with forward slashes and without "./", or None if it is absolute or climbs out of the folder.

    >>> safe_path("./a/b.png"), safe_path("a/../../b.png"), safe_path("/etc/passwd"), safe_path("C:/x.png")
    ('a/b.png', None, None, None)
    """
    pure = PurePosixPath(text)
    if pure.is_absolute() or ".." in pure.parts or _DRIVE.match(text) or text.startswith("\\"):
        return None
    return str(pure)


def read(listing: Listing, name: str, reader: Reader, pattern: "re.Pattern[str] | None", all_files: bool) -> Layout:
    """Everything from the table, apart from what a pattern finds.

    Args:
        listing: of the folder, at least of what the table names.
        name: of the table.
        reader: of files of the listing.
        pattern: of the patient; goes before a column.
        all_files: list images that the table does not name, too.
    """
    base = folder_of(name)
    prefix = f"{base}/" if base else ""
    here = name[len(prefix) :]
    layout = Layout("table", base, (), pattern is not None)
    lines: dict[str, list[Row]] = defaultdict(list)
    rows = rows_of(name, reader)
    for row in rows:
        path = safe_path(row.path)
        if path is not None and prefix + path not in listing.files and "\\" in path:
            path = safe_path(path.replace("\\", "/"))  # written on Windows
        if not row.path:
            layout.rejected.append(Rejected(f"{here}, line {row.number}", "names no file"))
        elif path is None:
            layout.rejected.append(Rejected(row.path, f"line {row.number} of {here} leads out of the folder"))
        elif prefix + path not in listing.files:
            layout.rejected.append(Rejected(path, f"line {row.number} of {here} names it, but there is no such file"))
        else:
            lines[path].append(row)
    for path, same in lines.items():
        found = _image(path, same, pattern, here)
        if isinstance(found, Found):
            layout.found.append(found)
            layout.rejected += [
                Rejected(f"{here}, line {r.number}", f"repeats line {same[0].number} ({path}), which is used once")
                for r in same[1:]
            ]
        else:
            layout.rejected.append(found)
    layout.patients_known = pattern is not None or any(r.patient is not None for r in rows)
    layout.classes = in_order({finding for f in layout.found for finding in f.findings})
    if not layout.found:
        why = f": {layout.rejected[0].path}: {layout.rejected[0].reason}" if layout.rejected else ""
        raise DataError(f"the table {name} names no image that can be used{why}; paths are relative to its folder")
    if all_files:
        layout.rejected += [
            Rejected(f, f"{here} {UNNAMED}") for f in listing.below(base) if f not in lines and f != here
        ]
    return layout


def _image(path: str, lines: list[Row], pattern: "re.Pattern[str] | None", table: str) -> Found | Rejected:
    first = lines[0]
    for other in lines[1:]:
        for column in ("label", "patient", "split"):
            one, two = getattr(first, column), getattr(other, column)
            if one != two:
                return Rejected(
                    path, f"lines {first.number} and {other.number} of {table} give it the {column} {one!r} and {two!r}"
                )
    labels = tuple(dict.fromkeys(part.strip() for part in _MANY.split(first.label) if part.strip()))
    if not labels:
        return Rejected(path, f"line {first.number} of {table} gives it no label")
    official = None
    if first.split is not None:
        official = split_named(first.split)
        if official is None:
            what = f"the unknown split {first.split!r}; known are train, val and test" if first.split else "no split"
            return Rejected(path, f"line {first.number} of {table} gives it {what}")
    if pattern is not None:
        patient = patient_in(path, pattern)
        if patient is None:
            return Rejected(path, NO_PATIENT)
    elif first.patient == "":
        return Rejected(path, f"line {first.number} of {table} gives it no patient")
    else:
        patient = first.patient or own_patient(path)
    label = labels[0] if len(labels) == 1 else ""
    split = "test" if official == "test" else "train"
    return Found(path, label, patient, split, official, labels, sex_of(first.sex), age_of(first.age))


def choose_table(listing: Listing, reader: Reader, name: str) -> str | None:
    """The one table of a folder that tells of its images, or None.

    Raises:
        DataError: there are several.
    """
    fitting = [t for t in tables_in(listing, reader) if _names_a_file(listing, t, reader)]
    if len(fitting) > 1:
        raise DataError(f"{name} holds several tables of images ({', '.join(shallowest(fitting))}); give one of them")
    return fitting[0] if fitting else None


def _names_a_file(listing: Listing, table: str, reader: Reader) -> bool:
    prefix = f"{folder_of(table)}/".lstrip("/")
    paths = (safe_path(row.path.replace("\\", "/")) for row in rows_of(table, reader) if row.path)
    return any(path is not None and prefix + path in listing.files for path in paths)
