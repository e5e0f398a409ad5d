"""Changing a manifest so that every change can be taken back: the only place that writes `Manifest.changes`."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from expressivegan.data.manifest import Change, Manifest, Record
from expressivegan.errors import DataError, InputError

KINDS = ("duplicate", "leak", "marker", "border", "geometry")
"""Kinds of change, in the order in which `fix` makes them."""

POSITION = "position"
"""Beside the fields of a dropped record: where it stood among all records, the dropped ones counted."""


def by_path(manifest: Manifest) -> dict[str, Record]:
    """path → record. Raises DataError if a path stands there twice, since changes name records by path."""
    found: dict[str, Record] = {}
    for record in manifest.records:
        if found.setdefault(record.path, record) is not record:
            raise DataError(f"{record.path} stands in the manifest more than once; read the folder again")
    return found


def check_known(manifest: Manifest, paths: Iterable[str], argument: str) -> None:
    """Raises InputError for a path that the manifest does not have."""
    known = {r.path for r in manifest.records}
    for path in paths:
        if path not in known:
            raise InputError(f"{argument} names {path!r}, which is not in the manifest; give paths as they stand there")


def plain(value: Any) -> Any:
    """As it will come back from the file: lists for tuples."""
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value


def updated(manifest: Manifest, kind: str, updates: Mapping[str, tuple[dict[str, Any], str]]) -> Manifest:
    """Sets fields of records.

    Args:
        manifest: stays as it is.
        kind: of the change.
        updates: path → (field → new value, why). Where no value differs from what is there, nothing is recorded.
    """
    records, changes = [], []
    for record in manifest.records:
        fields, why = updates.get(record.path, ({}, ""))
        new = {name: value for name, value in fields.items() if getattr(record, name) != value}
        if new:
            before = {name: plain(getattr(record, name)) for name in new}
            changes.append(Change(kind, record.path, before, plain(new), why))
            record = replace(record, **new)
        records.append(record)
    return replace(manifest, records=tuple(records), changes=(*manifest.changes, *changes))


def dropped(manifest: Manifest, kind: str, why: Mapping[str, str]) -> Manifest:
    """Takes records out; they stand whole in the changes."""
    position = {path: i for i, path in enumerate(full_order(manifest))}
    kept, changes = [], []
    for record in manifest.records:
        if record.path in why:
            whole = {**plain(record.as_json()), POSITION: position[record.path]}
            changes.append(Change(kind, record.path, whole, None, why[record.path]))
        else:
            kept.append(record)
    return replace(manifest, records=tuple(kept), changes=(*manifest.changes, *changes))


def full_order(manifest: Manifest) -> list[str]:
    """Paths of all records, with the dropped ones where they stood.

    Raises:
        DataError: the changes do not fit the records.
    """
    gone = {c.before[POSITION]: c.path for c in manifest.changes if c.after is None and c.before is not None}
    total = len(manifest.records) + sum(c.after is None for c in manifest.changes)
    rest = iter(r.path for r in manifest.records)
    try:
        order = [gone[i] if i in gone else next(rest) for i in range(total)]
    except StopIteration:
        order = []
    if len(order) != total or len(set(order)) != total or next(rest, None) is not None:
        raise DataError("the manifest's changes do not fit its images; it was edited by another program")
    return order
