"""All remedies in one go, or none."""

from collections.abc import Mapping, Sequence
from typing import Literal

from expressivegan.data.fix.edit import by_path, check_known
from expressivegan.data.fix.remedies import (
    Groups,
    crop_border,
    drop_duplicates,
    equalise_geometry,
    keep_patients_together,
    mask_markers,
)
from expressivegan.data.manifest import Box, Manifest, Record
from expressivegan.errors import DataError


def fix(
    manifest: Manifest,
    *,
    duplicates: Groups = (),
    same_patient: Groups = (),
    leaks: bool = False,
    leaks_to: Literal["test", "train"] = "test",
    markers: Mapping[str, Sequence[Box]] | None = None,
    border: float = 0.0,
    geometry: bool = False,
    aspect: float | None = None,
) -> Manifest:
    """Repairs a manifest. No image is touched; `undo` takes back every change or some of them.

    The remedies work in the order of the arguments. Markers of images that were dropped as copies are passed over.

    Args:
        manifest: as `read_manifest` or an earlier `fix` gave it; stays as it is.
        duplicates: groups of paths that show the same picture; see `drop_duplicates`.
        same_patient: groups of paths that show the same patient, such as near-duplicates: their patients become one.
            Implies `leaks`.
        leaks: move every patient with images in several splits or groups wholly into one of them, and count patients
            who share a duplicate as one; see `keep_patients_together`.
        leaks_to: "test" or "train".
        markers: path → boxes to paint over, in shares of the whole upright picture, before any crop.
        border: share of width and height to cut off each side, 0 <= border < 0.5.
        geometry: cut every picture to one aspect ratio; see `equalise_geometry`.
        aspect: width / height for that; default: that which costs the least area. Implies `geometry`.

    Returns:
        The repaired manifest; what was done to it is added to its `changes`.

    Raises:
        InputError: an argument out of range, or a path that is not in the manifest.
        DataError: a class, a group or a split would become empty, or an image too small.
    """
    patient = {path: record.patient for path, record in by_path(manifest).items()}
    groups = [*duplicates, *same_patient]
    check_known(manifest, (path for group in groups for path in group), "duplicates or same_patient")
    check_known(manifest, markers or (), "markers")
    fixed = drop_duplicates(manifest, duplicates)
    if leaks or same_patient:
        same = [sorted({patient[path] for path in group}) for group in groups]
        fixed = keep_patients_together(fixed, same, leaks_to)
    left = {r.path for r in fixed.records}
    fixed = mask_markers(fixed, {path: boxes for path, boxes in (markers or {}).items() if path in left})
    fixed = crop_border(fixed, border)
    if geometry or aspect is not None:
        fixed = equalise_geometry(fixed, aspect)
    _check_nothing_emptied(manifest, fixed)
    return fixed


def _check_nothing_emptied(before: Manifest, after: Manifest) -> None:
    def parts(records: Sequence[Record]) -> dict[str, None]:
        names = [(f"class {r.label}", f"group {r.group}", f"split {r.split}") for r in records]
        train = [f"class {r.label} of the training images" for r in records if r.split == r.group == "train"]
        return dict.fromkeys([name for row in names for name in row] + train)

    left = parts(after.records)
    for part in parts(before.records):
        if part not in left:
            raise DataError(f"{part} would have no image left; drop or move less, or put leaking patients elsewhere")
