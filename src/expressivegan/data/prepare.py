"""Manifest and cache made once, for sets of any size, at one size or several."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from expressivegan.data import cache, decode
from expressivegan.data.decode import Fit
from expressivegan.data.load import check_resolution, manifest_for, pixels_of
from expressivegan.data.manifest import Manifest
from expressivegan.errors import InputError


@dataclass(frozen=True)
class Prepared:
    """What there is now, so that `load_images` with the same arguments opens it at once."""

    manifest: Manifest
    resolutions: tuple[int, ...]
    fit: Fit
    bytes: int
    """Of pixels in the cache."""
    seconds: float

    @property
    def images(self) -> int:
        """Images that can be used."""
        return len(self.manifest.records)

    @property
    def rejected(self) -> int:
        """Files that cannot; the manifest says why."""
        return len(self.manifest.rejected)

    def __str__(self) -> str:
        sizes = ", ".join(f"{r} px" for r in self.resolutions)
        rate = f"{self.images / self.seconds:,.0f} images/s" if self.seconds else "at once"
        return (
            f"{self.images:,} images at {sizes} ({self.fit}), {self.rejected:,} files rejected, "
            f"{self.bytes / 1e6:,.1f} MB of pixels, {self.seconds:.1f} s ({rate})"
        )


def prepare(
    source: str | Path,
    resolutions: Sequence[int] = (64,),
    *,
    fit: Fit = "stretch",
    seed: int = 0,
    patient_regex: str | None = None,
    classes: str | None = None,
    cache_dir: Path | None = None,
    progress: bool = True,
) -> Prepared:
    """Reads, hashes and decodes each file once, and stores manifest and pixels for `load_images`.

    The memory it takes is that of the manifest, about a kilobyte per image, whatever the size of the pictures. An
    interrupted run goes on where it stopped; of a folder that has grown only the new files are read.

    Args:
        source: as for `load_images`.
        resolutions: sides of the square images in pixels, each 16..2048.
        fit: "stretch", "pad" or "crop", for all of them.
        seed: of the deal into groups, and of phantoms.
        patient_regex: see `read_manifest`.
        classes: see `read_manifest`.
        cache_dir: see `load_images`.
        progress: show a bar with rate and remaining time on standard error (if that is a terminal).

    Raises:
        DataError: missing or unusable data; a cache that cannot be written or lacks space.
        InputError: an argument out of range.
    """
    start = time.perf_counter()
    decode.check_fit(fit)
    if isinstance(resolutions, str) or not isinstance(resolutions, Sequence) or not resolutions:
        raise InputError(f"resolutions (={resolutions!r}) must be one or several integers from 16 to 2048, as in (64,)")
    for resolution in resolutions:
        check_resolution(resolution)
    wanted = tuple(sorted(set(resolutions)))
    root = cache.cache_root(cache_dir)
    known = manifest_for(source, root, [(r, fit) for r in wanted], seed, patient_regex, classes, progress)
    size = 0
    for resolution in wanted:
        images, masks = pixels_of(known, root, resolution, fit, progress)
        size += images.nbytes + (0 if masks is None else masks.nbytes)
    return Prepared(known, wanted, fit, size, time.perf_counter() - start)
