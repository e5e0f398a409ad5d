"""What the checks of the doctor look at: the records as they lie there, and their pixels at one size or another."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from expressivegan.data import cache, layout, phantom
from expressivegan.data.load import pixels_of
from expressivegan.data.manifest import Manifest, Record
from expressivegan.data.scan import survey

UInt8Array = npt.NDArray[np.uint8]


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
        return np.array([r.official or r.group for r in self.records])

    def images(self, resolution: int) -> UInt8Array:
        """uint8 (N, resolution, resolution), stretched, from the cache (memory-mapped; made on first use)."""
        return pixels_of(self.manifest, self.cache, resolution, "stretch", self.progress)[0]

    def sample(self, most: int) -> npt.NDArray[np.int64]:
        """Ascending indices of all images, or of `most` drawn ones where there are more."""
        n = len(self.records)
        if n <= most:
            return np.arange(n)
        return np.sort(np.random.default_rng(self.seed).choice(n, most, replace=False))


def open_case(
    source: str | Path,
    *,
    patient_regex: str | None = None,
    seed: int = 0,
    cache_dir: Path | None = None,
    progress: bool = True,
) -> Case:
    """Reads a source as it lies there.

    Args:
        source: as for `load_images`. A saved manifest is examined with its own groups as splits.
        patient_regex: see `read_manifest`.
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
        found = phantom.manifest(count, seed)
    elif path.is_file():
        found = Manifest.read(path)
    else:
        listing = layout.look(path)
        key = (path.resolve(), "survey", patient_regex)
        mark = cache.fingerprint(listing)
        found = cache.remembered(root, key, mark, lambda: survey(path, listing, patient_regex, progress))
    return Case(str(source), found, root, seed, progress)
