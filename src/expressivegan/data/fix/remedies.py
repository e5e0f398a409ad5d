"""One pure function per remedy: manifest in, manifest out."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from expressivegan.data import decode, split
from expressivegan.data.fix.edit import by_path, check_known, dropped, updated
from expressivegan.data.manifest import GROUPS, Box, Manifest, Record
from expressivegan.errors import DataError, InputError

Groups = Sequence[Sequence[str]]
_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def _rank(record: Record) -> int:
    """How far from training: test images are last to be given up."""
    return GROUPS.index("test") if record.split == "test" else GROUPS.index(record.group)


def _merged(groups: Groups) -> list[list[str]]:
    """Groups that share a path become one; sorted, without repetition."""
    joined = split.join((path, number) for number, group in enumerate(groups) for path in group)
    merged: dict[str, list[str]] = defaultdict(list)
    for path, first in joined.items():
        merged[first].append(path)
    return [sorted(merged[first]) for first in sorted(merged)]


def same_files(manifest: Manifest) -> list[list[str]]:
    """Groups of paths whose files are equal to the byte, for `drop_duplicates`."""
    of: dict[str, list[str]] = defaultdict(list)
    for record in manifest.records:
        of[record.sha256].append(record.path)
    return [group for group in of.values() if len(group) > 1]


def drop_duplicates(manifest: Manifest, groups: Groups) -> Manifest:
    """Keeps one image of each group of copies.

    It keeps the copy furthest from training (test, reference, judge, train: so a published test set stays as it is),
    among those the one with most pixels, then the least compressed, then the first by path. Of copies that stand under
    several classes none is kept, since nobody knows which class is right.

    Args:
        manifest: stays as it is.
        groups: of paths; groups that share one count as one group.

    Raises:
        InputError: an unknown path.
    """
    records = by_path(manifest)
    check_known(manifest, (path for group in groups for path in group), "duplicates")
    why: dict[str, str] = {}
    for group in _merged(groups):
        copies = [records[path] for path in group]
        labels = sorted({r.label for r in copies})
        if len(labels) > 1:
            why |= dict.fromkeys(group, f"the same picture stands under {' and '.join(labels)}")
            continue
        best = min(copies, key=lambda r: (-_rank(r), -r.width * r.height, -(r.quality or 101), -r.bytes, r.path))
        why |= {r.path: f"a copy of {best.path}" for r in copies if r is not best}
    return dropped(manifest, "duplicate", why)


def keep_patients_together(manifest: Manifest, same: Groups = (), to: Literal["test", "train"] = "test") -> Manifest:
    """Puts every patient wholly into one split and group.

    Args:
        manifest: stays as it is.
        same: groups of patients who are one, since they share a picture or nearly so; each becomes one patient, under
            the first of their names, so that a later deal keeps them together, too.
        to: "test" moves a patient to the place furthest from training that it has images in, "train" to the nearest.

    Raises:
        InputError: `to` is neither.
    """
    if to not in ("test", "train"):
        raise InputError(f"leaks_to (={to!r}) must be 'test' or 'train'")
    pairs = [(patient, ("same", number)) for number, group in enumerate(same) for patient in group]
    joined = split.join([*pairs, *((r.patient, ("self", r.patient)) for r in manifest.records)])
    of: dict[str, list[Record]] = defaultdict(list)
    for record in manifest.records:
        of[joined[record.patient]].append(record)
    updates = {}
    for images in of.values():
        names = sorted({r.patient for r in images})
        home = max(images, key=_rank) if to == "test" else min(images, key=_rank)
        places = sorted({r.split if r.group == r.split else f"{r.split} ({r.group})" for r in images})
        for r in images:
            reasons = []
            if r.patient != names[0]:
                reasons.append(f"patient {r.patient} shares a picture with {names[0]}")
            if (r.split, r.group) != (home.split, home.group):
                reasons.append(f"patient {names[0]} is in {' and '.join(places)}")
            fields = {"patient": names[0], "split": home.split, "group": home.group}
            updates[r.path] = (fields, "; ".join(reasons))
    return updated(manifest, "leak", updates)


def _check_pixels(manifest: Manifest, remedy: str) -> None:
    if manifest.source == "phantom":
        raise InputError(f"{remedy} cannot be applied to phantoms, which are drawn anew each time; use files")


def mask_markers(manifest: Manifest, boxes: Mapping[str, Sequence[Box]]) -> Manifest:
    """Has boxes painted over with the grey around them when the images are loaded.

    Args:
        manifest: stays as it is.
        boxes: path → boxes in shares of the whole upright picture, before any crop.

    Raises:
        InputError: an unknown path, a box that is empty or leaves the picture, or phantoms.
    """
    if boxes:
        _check_pixels(manifest, "markers")
    check_known(manifest, boxes, "markers")
    records = by_path(manifest)
    updates = {}
    for path, given in boxes.items():
        checked = [_checked(box, f"markers[{path!r}]") for box in given]
        new = [box for box in dict.fromkeys(checked) if box not in records[path].masks]
        why = "1 marker is painted over" if len(new) == 1 else f"{len(new)} markers are painted over"
        updates[path] = ({"masks": (*records[path].masks, *new)}, why)
    return updated(manifest, "marker", updates)


def _checked(box: Sequence[float], name: str) -> Box:
    values = tuple(float(v) for v in box)
    if len(values) == 4:
        left, top, right, bottom = values
        if 0 <= left < right <= 1 and 0 <= top < bottom <= 1:
            return left, top, right, bottom
    raise InputError(f"{name} (={list(box)}) must be [left, top, right, bottom], growing, in 0..1")


def within(crop: Box | None, box: Box) -> Box:
    """A box in shares of a cropped picture → the same in shares of the whole picture.

    >>> within((0.5, 0.0, 1.0, 1.0), (0.0, 0.25, 0.5, 1.0))
    (0.5, 0.25, 0.75, 1.0)
    """
    left, top, right, bottom = crop or _WHOLE
    width, height = right - left, bottom - top
    x0, y0, x1, y1 = left + box[0] * width, top + box[1] * height, left + box[2] * width, top + box[3] * height
    return max(left, x0), max(top, y0), min(right, x1), min(bottom, y1)


def area_of(crop: Sequence[float] | None) -> float:
    """Share of the whole picture's area, 0..1, that a crop keeps."""
    left, top, right, bottom = crop or _WHOLE
    return (right - left) * (bottom - top)


def crop_border(manifest: Manifest, share: float) -> Manifest:
    """Cuts the same share of width and height off each side; what is cropped already is cropped further.

    Args:
        manifest: stays as it is.
        share: of width off the left and off the right, of height off top and bottom; 0 <= share < 0.5.

    Raises:
        InputError: a share out of range, or phantoms.
        DataError: an image would have fewer pixels than can be used.
    """
    if not 0 <= share < 0.5:
        raise InputError(f"border (={share}) must be a share of each side from 0 to below 0.5; try 0.05")
    if share == 0:
        return manifest
    _check_pixels(manifest, "border")
    inner: Box = (share, share, 1 - share, 1 - share)
    updates = {}
    for r in manifest.records:
        crop = within(r.crop, inner)
        across, down = crop[2] - crop[0], crop[3] - crop[1]
        if min(r.width * across, r.height * down) < decode.MIN_SIDE:
            raise DataError(
                f"border (={share}) leaves less than {decode.MIN_SIDE} pixels of {r.path} ({r.width}x{r.height}); "
                "crop less, or take the image out"
            )
        updates[r.path] = ({"crop": crop}, f"{100 * share:g}% off each side")
    return updated(manifest, "border", updates)


def area_kept(ratio: float, aspect: float) -> float:
    """Share of the area, 0..1, that is left of a picture of width/height `ratio` when it is cut to `aspect`."""
    return min(ratio / aspect, aspect / ratio)


def best_aspect(ratios: Sequence[float]) -> float:
    """The aspect ratio that pictures of these ratios can be cut to with the least loss of area on average.

    The mean share that is kept is a * A + B / a between neighbouring ratios, so it has no maximum there: the best
    aspect is one of the ratios. O(n log n).

    Raises:
        InputError: no ratios.
    """
    if not len(ratios):
        raise InputError("ratios (=[]) must hold at least one ratio of width to height")
    r = np.sort(np.asarray(ratios, np.float64))
    narrower = np.cumsum(r)  # a picture of ratio r <= a keeps r / a
    wider = np.cumsum((1 / r)[::-1])[::-1] - 1 / r  # one of ratio r > a keeps a / r
    return float(r[np.argmax(narrower / r + wider * r)])


def equalise_geometry(manifest: Manifest, aspect: float | None = None) -> Manifest:
    """Cuts every picture to one ratio of width to height, out of its centre, so that stretching distorts all alike.

    Args:
        manifest: stays as it is.
        aspect: width / height; default: that which costs the least area on average.

    Raises:
        InputError: an aspect that is not in 0.1..10, or phantoms.
        DataError: an image would have fewer pixels than can be used.
    """
    _check_pixels(manifest, "geometry")
    if aspect is not None and not 0.1 <= aspect <= 10:
        raise InputError(f"aspect (={aspect}) must be width / height, from 0.1 to 10")
    if not manifest.records:
        return manifest
    ratio = {}
    for r in manifest.records:
        left, top, right, bottom = r.crop or _WHOLE
        ratio[r.path] = r.width * (right - left) / (r.height * (bottom - top))
    target = best_aspect(list(ratio.values())) if aspect is None else aspect
    updates = {}
    for r in manifest.records:
        width, height = r.width, r.height
        kept = area_kept(ratio[r.path], target)
        edge = (1 - kept) / 2
        inner: Box = (edge, 0.0, 1 - edge, 1.0) if ratio[r.path] > target else (0.0, edge, 1.0, 1 - edge)
        crop = within(r.crop, inner)
        across, down = width * (crop[2] - crop[0]), height * (crop[3] - crop[1])
        if (1 - kept) * max(across, down) < 1:  # less than a pixel
            continue
        if min(across, down) < decode.MIN_SIDE:
            raise DataError(
                f"an aspect of {target:.2f} leaves less than {decode.MIN_SIDE} pixels of {r.path} ({width}x{height}); "
                "give another aspect, or take the image out"
            )
        why = f"aspect {ratio[r.path]:.2f} cut to {target:.2f}, {100 * (1 - kept):.1f}% of the area lost"
        updates[r.path] = ({"crop": crop}, why)
    return updated(manifest, "geometry", updates)
