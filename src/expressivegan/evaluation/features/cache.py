"""Features on disk, keyed by content: the same images in the same space are computed once, by whoever asks first.

One safetensors file a set: float32 (N, d), with identity, digest of the pixels and digest of the features. A long
computation leaves a `.part` file every half minute, from which the next one goes on.
"""

import hashlib
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from expressivegan.atomic import replacing
from expressivegan.errors import DataError
from expressivegan.evaluation.features.space import Count, FeatureSpace, FloatArray, check_features, check_pixels
from expressivegan.images import UInt8Array

_BLOCK = 64  # images between two calls of `progress`
_SAVE_SECONDS = 30.0


def cached_features(
    space: FeatureSpace, images: UInt8Array, cache: Path | None = None, *, progress: Count | None = None
) -> FloatArray:
    """The features of images, read from the cache where they stand there whole, else computed and kept.

    An image that occurs several times is computed once, so that equal images have equal features to the bit.

    Args:
        space: where to look; one whose `identity` is None is computed anew every time.
        images: uint8 (N, H, W).
        cache: folder, made if missing; None keeps nothing.
        progress: called with (done, total) distinct images, at last with done == total, however they were come by.

    Returns:
        float32 (N, d).

    Raises:
        InputError: unfit images, or features that are not finite or not one row an image.
        DataError: the folder cannot be written.
    """
    first, inverse, digest = _distinct(check_pixels(images))
    entry = None
    if cache is not None and space.identity is not None:
        entry = _Entry(cache, space.name, space.identity, digest)
    found = None if entry is None else entry.read(len(first))
    if found is None:
        found = _compute(space, images[first], entry, progress)
    if progress is not None:
        progress(len(first), len(first))
    return found[inverse]


@dataclass(frozen=True)
class _Entry:
    """One set of images in one space, complete or in part."""

    folder: Path
    name: str
    identity: str
    pixels: str
    """SHA-256 of the distinct images, in order."""

    @property
    def path(self) -> Path:
        tag = hashlib.sha256(f"{self.identity}\x1f{self.pixels}".encode()).hexdigest()[:32]
        return self.folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', self.name)[:60]}-{tag}.safetensors"

    @property
    def part(self) -> Path:
        return self.path.with_suffix(".part")

    def read(self, rows: int) -> FloatArray | None:
        return self._load(self.path, rows, rows)

    def read_part(self, rows: int) -> FloatArray | None:
        return self._load(self.part, 1, rows)

    def _load(self, path: Path, least: int, most: int) -> FloatArray | None:
        """None where the file is missing, damaged, or of something else: a cache is only a shortcut."""
        try:
            with safe_open(str(path), framework="np") as file:
                note = file.metadata() or {}
                features: FloatArray = file.get_tensor("features")
        except (OSError, SafetensorError, ValueError, TypeError):
            return None
        if features.dtype != np.float32 or features.ndim != 2 or not least <= len(features) <= most:
            return None
        return features if note == self._note(features) else None

    def _note(self, features: FloatArray) -> dict[str, str]:
        digest = hashlib.sha256(features.tobytes()).hexdigest()
        return {"identity": self.identity, "pixels": self.pixels, "sha256": digest}

    def write(self, features: FloatArray, complete: bool) -> None:
        path = self.path if complete else self.part
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                save_file({"features": torch.from_numpy(features)}, temporary, metadata=self._note(features))
            if complete:
                self.part.unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:
            raise DataError(
                f"cache (={str(self.folder)!r}) of features cannot be written: {error}; choose a folder that can"
            ) from error


def _compute(space: FeatureSpace, images: UInt8Array, entry: _Entry | None, progress: Count | None) -> FloatArray:
    begun = None if entry is None else entry.read_part(len(images))
    parts: list[FloatArray] = []
    if begun is not None:
        parts = [begun[: len(begun) // _BLOCK * _BLOCK]]  # whole blocks: the others are as if never interrupted
    done = sum(map(len, parts))
    if progress is not None:
        progress(done, len(images))
    saved = time.monotonic()
    try:
        for start in range(done, len(images), _BLOCK):
            block = images[start : start + _BLOCK]
            width = parts[0].shape[1] if parts and len(parts[0]) else None
            parts.append(check_features(space.features(block), len(block), space.name, width))
            done = start + len(block)
            if progress is not None and done < len(images):
                progress(done, len(images))
            if entry is not None and done < len(images) and time.monotonic() - saved > _SAVE_SECONDS:
                entry.write(np.concatenate(parts), complete=False)
                saved = time.monotonic()
    except KeyboardInterrupt:
        if entry is not None and any(map(len, parts)):
            with suppress(DataError):
                entry.write(np.concatenate(parts), complete=False)
        raise
    features = np.concatenate(parts)
    if entry is not None:
        entry.write(features, complete=True)
    return features


def _distinct(images: UInt8Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], str]:
    """Where each distinct image stands first; which of those each image is; and the hash of the distinct ones."""
    seen: dict[bytes, int] = {}
    first: list[int] = []
    inverse = np.empty(len(images), np.int64)
    for i, image in enumerate(images):
        key = hashlib.sha256(image.tobytes()).digest()
        if key not in seen:
            seen[key] = len(first)
            first.append(i)
        inverse[i] = seen[key]
    digest = hashlib.sha256(repr(images.shape[1:]).encode())
    for key in seen:
        digest.update(key)
    return np.array(first, np.int64), inverse, digest.hexdigest()
