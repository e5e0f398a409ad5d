"""What the checks of the doctor look at: the records as they lie there, and their pixels at one size or another."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from expressivegan.data import cache, phantom
from expressivegan.data.doctor.features import SIDE, patch_features
from expressivegan.data.load import check_told, pixels_of
from expressivegan.data.manifest import Manifest, Record
from expressivegan.data.onepass import read_once
from expressivegan.data.scan import survey
from expressivegan.data.store import kind_of, open_store

UInt8Array = npt.NDArray[np.uint8]
BASE = 96  # every file is decoded to this once; what is smaller is made from that


@dataclass(frozen=True, eq=False)
class Case:
    """A data set under examination. Index i means the same image in every array."""

    source: str
    """As the user named it."""
    manifest: Manifest
    """Undealt: every readable image in the split where it lies."""
    cache: Path
    seed: int = 0
    progress: bool = True
    dealt: bool = False
    """Whether the groups of a manifest count as splits, rather than those that the data set brought."""

    @property
    def records(self) -> tuple[Record, ...]:
        """One per image."""
        return self.manifest.records

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,) number of the class."""
        number = {name: i for i, name in enumerate(self.manifest.classes)}
        return np.array([number[r.label] for r in self.records], np.int64)

    @cached_property
    def patients(self) -> npt.NDArray[np.str_]:
        """(N,) keys."""
        return np.array([r.patient for r in self.records])

    @cached_property
    def splits(self) -> npt.NDArray[np.str_]:
        """(N,) the data set's own split, "train", "val" or "test"; of a dealt manifest its group."""
        return np.array([r.group if self.dealt or r.official is None else r.official for r in self.records])

    @cached_property
    def _opened(self) -> dict[int, UInt8Array]:
        return {}

    def images(self, resolution: int) -> UInt8Array:
        """uint8 (N, resolution, resolution), stretched, from the cache (memory-mapped; made on first use)."""
        if resolution not in self._opened:
            self._opened[resolution] = self._open(resolution)
        return self._opened[resolution]

    def _open(self, resolution: int) -> UInt8Array:
        if resolution >= BASE:
            return pixels_of(self.manifest, self.cache, resolution, "stretch", self.progress)[0]
        name = f"{self.manifest.content_hash[:20]}-{resolution}-from-{BASE}"
        shape = (len(self.records), resolution, resolution)
        base = self.images(BASE)
        return cache.array(self.cache, name, shape, lambda start: _smaller(base[start:], resolution), check=False)

    @cached_property
    def features(self) -> npt.NDArray[np.float32]:
        """float32 (N, d) that describe what the pictures show, learned without labels."""
        return patch_features(self.images(SIDE), self.seed)

    def release(self) -> None:
        """Lets go of the memory that reading the pictures took."""
        for images in self._opened.values():
            cache.release(images)

    def sample(self, most: int) -> npt.NDArray[np.int64]:
        """Ascending indices of all images, or of `most` drawn ones where there are more."""
        n = len(self.records)
        if n <= most:
            return np.arange(n)
        return np.sort(np.random.default_rng(self.seed).choice(n, most, replace=False))


def _smaller(images: UInt8Array, resolution: int) -> Iterator[UInt8Array]:
    for start in range(0, len(images), 256):
        part = torch.from_numpy(images[start : start + 256].copy())[:, None]  # torch wants memory it may write to
        cache.release(images)
        yield F.interpolate(part, (resolution, resolution), mode="bilinear", antialias=True)[:, 0].numpy()


def open_case(
    source: str | Path,
    *,
    patient_regex: str | None = None,
    classes: str | None = None,
    seed: int = 0,
    cache_dir: Path | None = None,
    progress: bool = True,
) -> Case:
    """Reads a source as it lies there.

    Args:
        source: as for `load_images`. A saved manifest is examined with its own groups as splits.
        patient_regex: see `read_manifest`.
        classes: see `read_manifest`.
        seed: of phantoms, and of whatever the checks draw.
        cache_dir: see `load_images`.
        progress: show bars.

    Raises:
        DataError: missing or unusable data.
        InputError: an argument out of range.
    """
    root = cache.cache_root(cache_dir)
    count = phantom.parse_source(source)
    path = Path(source)
    if count is not None:
        check_told(source, patient_regex, classes)
        found = phantom.manifest(count, seed)
        dealt = True
    elif path.is_file() and kind_of(path) is None:
        check_told(source, patient_regex, classes)
        found = Manifest.read(path)
        dealt = True
    else:
        dealt = False
        listing = open_store(path).listing()
        key = (path.resolve(), "survey", patient_regex, classes)

        def read() -> Manifest:
            return survey(path, listing, patient_regex, progress, classes=classes)

        found = read_once(root, path, listing, key, [(BASE, "stretch")], read)
    return Case(str(source), found, root, seed, progress, dealt)
