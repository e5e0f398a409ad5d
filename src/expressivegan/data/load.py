"""A source → images in memory, or rather: in a memory map that several processes share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from expressivegan.data import cache, decode, phantom
from expressivegan.data.decode import Fit
from expressivegan.data.examine import chunks, parallel
from expressivegan.data.manifest import GROUPS, Manifest, Record
from expressivegan.data.onepass import Target, array_name, read_once
from expressivegan.data.scan import manifest_of
from expressivegan.data.store import kind_of, open_store
from expressivegan.errors import DataError, InputError
from expressivegan.images import from_uint8

UInt8Array = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64] | Tensor | Sequence[int]
# One float per grey level: a look-up runs in this thread alone, while converting a batch with torch wakes its thread
# pool, which on a machine that is busy anyway was measured to cost 50 times as much.
_LEVELS: npt.NDArray[np.float32] = from_uint8(np.arange(256, dtype=np.uint8)).numpy()
_FRACTIONS = (0.7, 0.15, 0.15)
_CHECKED_BYTES = 1 << 30  # hashing more than that on every start would be felt; the size is compared in any case


@dataclass(frozen=True, eq=False)
class ImageSet:
    """All images of a source at one size. Index i means the same image everywhere: pixels, label, patient, record."""

    images: UInt8Array
    """uint8 (N, H, W) grey, read-only, memory-mapped."""
    labels: npt.NDArray[np.int64]
    """int64 (N,); labels[i] indexes `classes`."""
    patients: npt.NDArray[np.str_]
    """(N,) keys."""
    groups: npt.NDArray[np.str_]
    """(N,) "train", "judge", "reference" or "test"."""
    masks: UInt8Array | None
    """uint8 (N, H, W), 1 where the lesion changed the image; phantoms only."""
    resolution: int
    fit: Fit
    manifest: Manifest

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the label numbers."""
        return self.manifest.classes

    @property
    def reference(self) -> int | None:
        """Label number of the class without disease, or None."""
        name = self.manifest.reference_class
        return None if name is None else self.classes.index(name)

    @property
    def data_hash(self) -> str:
        """Of the manifest: classes, labels, patients, groups and contents of the files."""
        return self.manifest.data_hash

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def _indices(self) -> dict[str, npt.NDArray[np.int64]]:
        return {group: np.flatnonzero(self.groups == group).astype(np.int64) for group in GROUPS}

    def indices(self, group: str) -> npt.NDArray[np.int64]:
        """Ascending int64 (n,) indices of a group.

        Raises:
            InputError: no such group.
        """
        if group not in GROUPS:
            raise InputError(f"group (={group!r}) must be one of {', '.join(GROUPS)}")
        return self._indices[group].copy()

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Images and labels.

        Args:
            indices: B integers in [0, N), in any order.

        Returns:
            float32 (B, 1, H, W) in [-1, 1], and int64 (B,).

        Raises:
            InputError: an index out of range, or not integers.
        """
        chosen = np.asarray(indices)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
            raise InputError(f"indices must be integers of shape (B,), not {chosen.dtype} {chosen.shape}")
        if len(chosen) and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise InputError(f"indices span {chosen.min()}..{chosen.max()}, allowed is 0..{len(self) - 1}")
        pixels = np.take(_LEVELS, self.images[chosen], mode="clip")[:, None]
        return torch.from_numpy(pixels), torch.from_numpy(self.labels[chosen])


def load_images(
    source: str | Path,
    resolution: int,
    *,
    fit: Fit = "stretch",
    seed: int = 0,
    cache_dir: Path | None = None,
    progress: bool = True,
    patient_regex: str | None = None,
    classes: str | None = None,
) -> ImageSet:
    """Loads a data set at one size; decodes it the first time only.

    Args:
        source: a folder, an archive or a table (see `read_manifest`), a file that `Manifest.write` wrote, "phantom" or
            "phantom:COUNT".
        resolution: side of the square images in pixels, 16..2048.
        fit: "stretch" to the square, "pad" with black, or "crop" the centre. Stretching writes the aspect ratio, which
            in Kermany's set tells the label, into the anatomy.
        seed: of the deal into groups, and of the phantoms. A saved manifest keeps its own groups.
        cache_dir: where decoded images are kept; default $EXPRESSIVEGAN_CACHE, else the user's cache folder.
        progress: show bars on standard error (if that is a terminal).
        patient_regex: see `read_manifest`.
        classes: see `read_manifest`.

    Raises:
        DataError: missing or unusable data, an unwritable cache, or files that changed after the manifest was written.
        InputError: an argument out of range.
    """
    decode.check_fit(fit)
    check_resolution(resolution)
    root = cache.cache_root(cache_dir)
    known = manifest_for(source, root, [(resolution, fit)], seed, patient_regex, classes, progress)
    return _assemble(known, root, resolution, fit, progress)


def check_resolution(resolution: int) -> None:
    """Raises InputError unless it is an integer from 16 to 2048."""
    if isinstance(resolution, bool) or not isinstance(resolution, int) or not 16 <= resolution <= 2048:
        raise InputError(f"resolution (={resolution!r}) must be an integer from 16 to 2048")


def check_told(source: str | Path, patient_regex: str | None, classes: str | None) -> None:
    """Raises InputError where patients or classes are asked of a source that has told them already."""
    for name, value in (("patient_regex", patient_regex), ("classes", classes)):
        if value is not None:
            raise InputError(
                f"{name} (={value!r}) changes nothing: {source} says itself which patients and classes there are; give "
                "it with the folder or table that a manifest is made of"
            )


def manifest_for(
    source: str | Path,
    root: Path,
    targets: Sequence[Target],
    seed: int,
    patient_regex: str | None,
    classes: str | None,
    progress: bool,
) -> Manifest:
    """The manifest of any source; if it must be read, the arrays of `targets` are made in the same reading.

    Raises:
        DataError: missing or unusable data, or an unwritable cache.
        InputError: an argument out of range.
    """
    count, path = phantom.parse_source(source), Path(source)
    if count is not None:
        check_told(source, patient_regex, classes)
        return phantom.manifest(count, seed)
    if path.is_file() and kind_of(path) is None:
        check_told(source, patient_regex, classes)
        return Manifest.read(path)
    listing = open_store(path).listing()

    def read() -> Manifest:
        made = manifest_of(path, listing, seed, _FRACTIONS, patient_regex, progress, classes=classes)
        listing.files.clear()  # as large as the manifest, and of no use any more
        return made

    return read_once(root, path, listing, (path.resolve(), seed, _FRACTIONS, patient_regex, classes), targets, read)


def pixels_of(
    known: Manifest, root: Path, resolution: int, fit: Fit, progress: bool
) -> tuple[UInt8Array, UInt8Array | None]:
    """uint8 (N, H, W) images of a manifest from the cache at `root`, and of phantoms the masks; made if missing."""
    shape = (len(known.records), resolution, resolution)
    check = shape[0] * resolution**2 <= _CHECKED_BYTES
    if known.source == "phantom":
        name = f"phantom-{known.content_hash[:20]}-{resolution}"
        both = cache.array(
            root,
            name,
            (shape[0], 2, *shape[1:]),
            lambda start: phantom.rows(replace(known, records=known.records[start:]), resolution, progress),
            check,
        )
        return both[:, 0], both[:, 1]
    name = array_name(known, (resolution, fit))
    return cache.array(root, name, shape, lambda start: _decoded(known, start, resolution, fit, progress), check), None


def _assemble(known: Manifest, root: Path, resolution: int, fit: Fit, progress: bool) -> ImageSet:
    images, masks = pixels_of(known, root, resolution, fit, progress)
    number = {label: i for i, label in enumerate(known.classes)}
    return ImageSet(
        images=images,
        labels=np.array([number[r.label] for r in known.records], np.int64),
        patients=np.array([r.patient for r in known.records]),
        groups=np.array([r.group for r in known.records]),
        masks=masks,
        resolution=resolution,
        fit=fit,
        manifest=known,
    )


def _decoded(known: Manifest, start: int, resolution: int, fit: Fit, progress: bool) -> Iterator[UInt8Array]:
    store = open_store(known.root)

    def one(records: Sequence[Record]) -> UInt8Array:
        return np.stack([pixels(record) for record in records])

    def pixels(record: Record) -> UInt8Array:
        try:
            data = store.read(record.path)
            if decode.sha256(data) != record.sha256:
                raise decode.UnusableError("its contents changed after the manifest was written")
            return decode.load_pixels(data, resolution, fit, record.crop, record.masks)
        except decode.UnusableError as error:
            where = known.root / record.path
            raise DataError(f"{where}: {error}; read the folder again, or make a new manifest") from None

    pieces = chunks(known.records[start:], resolution * resolution)
    return parallel(one, pieces, f"Decoding to {resolution} px", progress, len)
