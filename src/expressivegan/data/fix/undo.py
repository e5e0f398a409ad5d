"""Taking changes back."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace

from expressivegan.data.fix.edit import KINDS, POSITION, by_path, full_order, plain
from expressivegan.data.manifest import Change, Manifest, Record
from expressivegan.errors import DataError, InputError


def undo(manifest: Manifest, kinds: Collection[str] | None = None, paths: Collection[str] | None = None) -> Manifest:
    """Takes changes back, the last one first; the order of the images is restored, too.

    Args:
        manifest: stays as it is.
        kinds: only changes of these kinds ("duplicate", "leak", "marker", "border", "geometry"); default: all.
        paths: only changes of these images; default: all.

    Returns:
        The manifest without those changes. Without `kinds` and `paths` it is what it was before any `fix`.

    Raises:
        InputError: an unknown kind, an image that was not changed, or a later change that builds on one of these.
        DataError: the changes do not fit the records, since another program edited them.
    """
    for kind in kinds or ():
        if kind not in KINDS:
            raise InputError(f"kinds names {kind!r}, which must be one of {', '.join(KINDS)}")
    changed = {c.path for c in manifest.changes}
    for path in paths or ():
        if path not in changed:
            raise InputError(f"paths names {path!r}, which no change has touched; see the manifest's changes")
    order = full_order(manifest)
    records = by_path(manifest)
    kept: list[Change] = []
    later: dict[str, list[Change]] = defaultdict(list)  # path → changes after this one that stay
    restored: set[str] = set()
    for change in reversed(manifest.changes):
        if (kinds is None or change.kind in kinds) and (paths is None or change.path in paths):
            _check_free(change, later[change.path])
            records[change.path] = _without(change, records.get(change.path))
            restored.add(change.path)
        else:
            kept.append(change)
            later[change.path].append(change)
    _check_together(records, kept, restored)
    found = tuple(records[path] for path in order if path in records)
    return replace(manifest, records=found, changes=tuple(reversed(kept)))


def _without(change: Change, record: Record | None) -> Record:
    """The record as it was before a change."""
    before, after = change.before, change.after
    try:
        if before is None or (after is None) != (record is None):
            raise ValueError("one of them is missing")
        if record is None:
            return Record.from_json({name: value for name, value in before.items() if name != POSITION})
        if {name: plain(getattr(record, name)) for name in before} != after:
            raise ValueError("it holds other values")
        return Record.from_json({**plain(record.as_json()), **before})
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"the {change.kind} change of {change.path} does not fit its record ({error}); another program edited the "
            "manifest, so make a new one"
        ) from None


def _check_free(change: Change, later: list[Change]) -> None:
    for other in later:
        if other.after is None or set(other.after) & set(change.after or ()):
            raise InputError(
                f"the {change.kind} change of {change.path} cannot be undone alone, since its {other.kind} change came "
                f"later and builds on it; undo {other.kind} first, or both"
            )


def _check_together(records: dict[str, Record], kept: list[Change], restored: set[str]) -> None:
    """A patient whom a move has brought together is taken apart again wholly or not at all."""
    home: dict[str, tuple[str, str, str]] = {}  # patient, by the old name and the new → new name, split, group
    for change in kept:
        if change.kind == "leak" and change.path in records:
            r = records[change.path]
            for name in (r.patient, (change.before or {}).get("patient", r.patient)):
                home[name] = (r.patient, r.split, r.group)
    for path in sorted(restored):
        r = records[path]
        if home.get(r.patient, (r.patient, r.split, r.group)) != (r.patient, r.split, r.group):
            raise InputError(
                f"undoing the change of {path} would split patient {r.patient}, whose other images stay moved; undo "
                "leak for all of that patient's images first, or with it"
            )
