"""Decoded images on disk, memory-mapped: built once, checked on opening, never half-written.

    <cache>/manifests/<key>.jsonl + .json     manifest of a folder, and the fingerprint of the folder it was read from
    <cache>/arrays/<name>.npy + .json         uint8 pixels, and their size and hash

A file appears under its name by renaming, complete. Two processes that build the same array write the same bytes, so it
does not matter which renames last.
"""

import hashlib
import json
import os
import time
import uuid
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs

from expressivegan.data.layout import Listing
from expressivegan.data.manifest import Manifest, write_atomically
from expressivegan.errors import DataError

UInt8Array = npt.NDArray[np.uint8]
VERSION = 1  # raise when the same file shall give other pixels
_STALE_SECONDS = 24 * 3600.0
_CHUNK = 1 << 22


def cache_root(cache_dir: Path | str | None = None) -> Path:
    """The cache folder: the argument, else $EXPRESSIVEGAN_CACHE, else the user's cache folder. Made if missing.

    Raises:
        DataError: it cannot be made or written.
    """
    given = cache_dir or os.environ.get("EXPRESSIVEGAN_CACHE") or platformdirs.user_cache_dir("expressivegan")
    root = Path(given).expanduser()
    try:
        for name in ("manifests", "arrays"):
            (root / name).mkdir(parents=True, exist_ok=True)
            if not os.access(root / name, os.W_OK):
                raise PermissionError(13, "no permission to write", str(root / name))
    except OSError as error:
        raise _unwritable(root, error) from error
    return root


def _unwritable(root: Path, error: OSError) -> DataError:
    return DataError(
        f"cache_dir (={str(root)!r}) cannot be written: {error}; pass another cache_dir or set EXPRESSIVEGAN_CACHE"
    )


def fingerprint(listing: Listing) -> str:
    """SHA-256 over path, size and time of change of every file, and over the folders' names."""
    rows: list[Any] = [sorted((path, *status) for path, status in listing.files.items()), sorted(listing.folders)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def remembered(root: Path, key: tuple[object, ...], mark: str, read: Callable[[], Manifest]) -> Manifest:
    """The manifest stored for `key` if it still has the fingerprint `mark`, else what `read` returns, stored."""
    name = hashlib.sha256(json.dumps([VERSION, *map(str, key)]).encode()).hexdigest()[:24]
    path = root / "manifests" / f"{name}.jsonl"
    side = path.with_suffix(".json")
    with suppress(OSError, ValueError, DataError):  # anything wrong with it: read the folder again
        if json.loads(side.read_text()) == {"fingerprint": mark}:
            return Manifest.read(path)
    manifest = read()
    try:
        side.unlink(missing_ok=True)  # a manifest must never stand beside the fingerprint of another one
        manifest.write(path)
        write_atomically(side, json.dumps({"fingerprint": mark}).encode())
    except OSError as error:
        raise _unwritable(root, error) from error
    return manifest


def array(
    root: Path, name: str, shape: tuple[int, ...], rows: Callable[[], Iterable[UInt8Array]], check: bool = True
) -> UInt8Array:
    """The stored array of that name, memory-mapped and read-only; built from `rows` if missing or damaged.

    Args:
        root: what `cache_root` returned.
        name: says all that the pixels depend on.
        shape: (N, ...) of the array.
        rows: yields the array in pieces along the first axis; called only if it must be built.
        check: compare the stored hash, beside the size.

    Raises:
        DataError: the cache cannot be written, for example since the disk is full.
    """
    path = root / "arrays" / f"{name}.npy"
    problem = _problem(path, shape, check)
    if problem == "missing" or problem is None:
        pass
    else:
        warnings.warn(f"the cache {path} is {problem}; it is built anew", stacklevel=2)
    if problem is not None:
        _sweep(path.parent)
        _build(root, path, shape, rows())
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    return np.asarray(mapped)  # np.memmap's own indexing is slow


def _problem(path: Path, shape: tuple[int, ...], check: bool) -> str | None:
    side = path.with_suffix(".json")
    if not path.exists() or not side.exists():
        return "missing"
    try:
        said = json.loads(side.read_text())
        if path.stat().st_size != said["bytes"]:
            return "truncated"
        if tuple(said["shape"]) != shape:
            return "of another shape"
        if check and _hash_file(path) != said["sha256"]:
            return "damaged"
    except (OSError, ValueError, KeyError, TypeError):
        return "unreadable"
    return None


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def _build(root: Path, path: Path, shape: tuple[int, ...], rows: Iterable[UInt8Array]) -> None:
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("w+b") as file:  # plain writes, since a full disk kills whoever writes through a map
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            written = 0
            for piece in rows:
                file.write(np.ascontiguousarray(piece, dtype=np.uint8).tobytes())
                written += len(piece)
            assert written == shape[0], (written, shape)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        said = {"version": VERSION, "bytes": size, "shape": list(shape), "sha256": _hash_file(temporary)}
        try:
            temporary.replace(path)
        except PermissionError:  # Windows: another process has just built it and maps it already
            if not path.exists() or path.stat().st_size != size:
                raise
        write_atomically(path.with_suffix(".json"), json.dumps(said).encode())
    except OSError as error:
        raise _unwritable(root, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Removes what killed processes left behind, if old enough to belong to none that is still building."""
    for left in folder.glob("*.tmp"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                left.unlink()
