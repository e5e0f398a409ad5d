"""NIH ChestX-ray14: `Data_Entry_2017*.csv` beside `images*` folders, patients and findings from the table."""

import re
from collections import defaultdict

from expressivegan.data import tables
from expressivegan.data.layout.listing import Listing
from expressivegan.data.layout.plan import (
    NO_PATIENT,
    UNNAMED,
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
from expressivegan.data.people import age_of, sex_of
from expressivegan.errors import DataError

TABLE = re.compile(r"(?:.*/)?Data_Entry_2017[^/]*\.csv", re.IGNORECASE)
_LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
_NEEDED = ("Image Index", "Finding Labels", "Patient ID")


def table_of(listing: Listing, name: str) -> str | None:
    """The set's table, or None if there is none.

    Raises:
        DataError: there are several.
    """
    found = shallowest([f for f in listing.files if TABLE.fullmatch(f)])
    if len(found) > 1:
        raise DataError(f"{name} holds several tables of ChestX-ray14 ({', '.join(found)}); keep one")
    return found[0] if found else None


def read(listing: Listing, name: str, reader: Reader, pattern: "re.Pattern[str] | None") -> Layout:
    """Findings, patients, sex and age from the table; the split from the official lists, where these stand beside it.

    Raises:
        DataError: the table cannot be read, or names no image that is there.
    """
    base = folder_of(name)
    prefix = f"{base}/" if base else ""
    here = name[len(prefix) :]
    table = tables.parse(content(reader, name), name)
    place = {column: number for number, column in reversed(list(enumerate(table.columns)))}
    missing = [c for c in _NEEDED if c not in place]
    if missing:
        raise DataError(f"the table {name} has no column {missing[0]!r}; give ChestX-ray14's own table")
    sex, age = place.get("Patient Gender", place.get("Patient Sex")), place.get("Patient Age")
    files: dict[str, list[str]] = defaultdict(list)
    for path in listing.below(base):
        files[path.rpartition("/")[2]].append(path)
    official = _official(listing, prefix, reader)
    layout = Layout("nih", base, (), True)
    lines: dict[str, list[tuple[int, tuple[str, ...]]]] = defaultdict(list)
    for number, row in enumerate(table.rows, start=2):
        lines[row[place["Image Index"]]].append((number, row))
    taken = {here}
    for image, same in lines.items():
        number, row = same[0]
        if image not in files:
            layout.rejected.append(Rejected(image, f"line {number} of {here} names it, but there is no such file"))
            continue
        path, *copies = files[image]
        taken.update(files[image])
        layout.rejected += [Rejected(copy, f"a second file of the name; {path} is used") for copy in copies]
        if any(other != row for _, other in same[1:]):
            numbers = " and ".join(str(n) for n, _ in same)
            layout.rejected.append(Rejected(path, f"lines {numbers} of {here} contradict each other"))
            continue
        labels = tuple(dict.fromkeys(p.strip() for p in row[place["Finding Labels"]].split("|") if p.strip()))
        patient = patient_in(path, pattern) if pattern else row[place["Patient ID"]]
        splits = official.get(image, ())
        problem = None
        if not labels:
            problem = f"line {number} of {here} gives it no finding"
        elif not patient:
            problem = NO_PATIENT if pattern else f"line {number} of {here} gives it no patient"
        elif len(splits) > 1:
            problem = "stands in both lists of the official split"
        if problem or not patient:
            layout.rejected.append(Rejected(path, problem or NO_PATIENT))
            continue
        layout.found.append(
            Found(
                path,
                labels[0] if len(labels) == 1 else "",
                patient,
                "test" if splits == ("test",) else "train",
                splits[0] if splits else None,
                labels,
                sex_of(row[sex]) if sex is not None else None,
                age_of(row[age]) if age is not None else None,
            )
        )
    if not layout.found:
        raise DataError(f"none of the {len(lines)} images that {name} names can be used; put them beside it")
    taken.update(_LISTS.values())
    layout.rejected += [Rejected(f, f"{here} {UNNAMED}") for f in listing.below(base) if f not in taken]
    layout.classes = in_order({finding for f in layout.found for finding in f.findings})
    return layout


def _official(listing: Listing, prefix: str, reader: Reader) -> dict[str, tuple[str, ...]]:
    """Image → the official lists that name it."""
    named: dict[str, tuple[str, ...]] = {}
    for split, file in _LISTS.items():
        if prefix + file in listing.files:
            for line in content(reader, prefix + file).decode("utf-8-sig", "replace").splitlines():
                image = line.strip()
                if image and split not in named.get(image, ()):
                    named[image] = (*named.get(image, ()), split)
    return named
