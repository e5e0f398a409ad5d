"""A data set of phantoms: its manifest, with patients and groups, and its images."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from expressivegan.data import split
from expressivegan.data.examine import parallel
from expressivegan.data.manifest import Manifest, Record
from expressivegan.data.phantom.curves import UInt8Array
from expressivegan.data.phantom.drawing import CLASSES, draw_batch
from expressivegan.errors import DataError, InputError
from expressivegan.streams import derive_seed

DEFAULT_COUNT = 3000
VERSION = 3  # raise when the same seed shall give another picture


def parse_source(source: str | Path) -> int | None:
    """ "phantom" or "phantom:COUNT" → number of images; None for any other source.

    Raises:
        InputError: COUNT is no number, or fewer than 30.
    """
    name, colon, count = str(source).partition(":")
    if name != "phantom" or (isinstance(source, Path) and source.exists()):
        return None
    if not colon:
        return DEFAULT_COUNT
    if not count.isdecimal() or int(count) < 30:
        raise InputError(f"source (={str(source)!r}) must be 'phantom' or 'phantom:COUNT' with COUNT of at least 30")
    return int(count)


def manifest(count: int = DEFAULT_COUNT, seed: int = 0) -> Manifest:
    """A data set of `count` phantoms: labels in equal shares, one child in six with two or three views of itself."""
    rows: list[tuple[str, int, int]] = []
    child = 0
    while len(rows) < count:
        number = derive_seed("phantom-set", seed, child)
        views = {0: 2, 1: 2, 2: 3}.get(number // 3 % 18, 1)
        rows += [(CLASSES[child % 3], number, view) for view in range(min(views, count - len(rows)))]
        child += 1
    shares = split.group_fractions((0.7, 0.15, 0.15), carve_test=True)
    labels: dict[str, list[str]] = {}
    for label, number, _ in rows:
        labels.setdefault(f"phantom{number}", []).append(label)
    group_of = split.assign(labels, shares, seed)
    records = []
    for label, number, view in rows:
        patient = f"phantom{number}"
        group = group_of[patient]
        mark = hashlib.sha256(f"phantom {VERSION} {number} {label} {view}".encode()).hexdigest()
        side = "test" if group == "test" else "train"
        records.append(Record(f"{label}/{number}-{view}", label, patient, side, group, 1024, 1024, "L", mark))
    return Manifest("phantom", Path("phantom"), CLASSES, CLASSES[0], True, tuple(records))


def rows(known: Manifest, resolution: int, progress: bool) -> Iterator[UInt8Array]:
    """Draws the images of a phantom manifest, in pieces: uint8 (n, 2, H, W) of image and mask.

    Raises:
        DataError: the manifest was made by another version of this module.
    """
    pieces = [known.records[i : i + 32] for i in range(0, len(known.records), 32)]

    def one(piece: tuple[Record, ...]) -> UInt8Array:
        seeds, labels, views = [], [], []
        for record in piece:
            number, view = (int(part) for part in record.path.split("/")[-1].split("-"))
            mark = hashlib.sha256(f"phantom {VERSION} {number} {record.label} {view}".encode()).hexdigest()
            if mark != record.sha256:
                raise DataError(f"{record.path} comes from another version of the phantom; make the manifest anew")
            seeds.append(number)
            labels.append(record.label)
            views.append(view)
        return np.stack(draw_batch(seeds, labels, resolution, views), axis=1)

    return parallel(one, pieces, f"Drawing phantoms at {resolution} px", progress)
