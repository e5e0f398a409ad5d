"""Decoded images on disk, memory-mapped: built once, checked on opening, never half-written, gone on with after a kill.

    <cache>/manifests/<key>.jsonl + .json     manifest of a folder; its checksum, and the fingerprint of that folder
    <cache>/arrays/<name>.npy + .json         uint8 pixels, and their size and checksum
    <cache>/arrays/<name>.part + .rows        pixels under construction, and how many rows of them are certain
    <cache>/passes/<key>/                     what a reading of a folder has found so far, see `onepass`
    <cache>/locks/                            whoever builds a thing holds its lock; the others wait

A file appears under its name by renaming, complete.
"""

import hashlib
import json
import mmap
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs
from filelock import FileLock, Timeout

from expressivegan.atomic import replacing, write_bytes
from expressivegan.data.growing import VERSION, Growing, problem
from expressivegan.data.layout import Listing
from expressivegan.data.layout.listing import VERSION as LAYOUT_VERSION
from expressivegan.data.manifest import Manifest
from expressivegan.errors import DataError

UInt8Array = npt.NDArray[np.uint8]
_STALE_SECONDS = 24 * 3600.0  # what nobody can go on with
_KEPT_SECONDS = 14 * 24 * 3600.0  # what somebody may: two weeks without a word
_NOTE_BYTES = 1 << 24


def cache_root(cache_dir: Path | str | None = None) -> Path:
    """The cache folder: the argument, else $EXPRESSIVEGAN_CACHE, else the user's cache folder. Made if missing.

    Raises:
        DataError: it cannot be made or written.
    """
    given = cache_dir or os.environ.get("EXPRESSIVEGAN_CACHE") or platformdirs.user_cache_dir("expressivegan")
    root = Path(given).expanduser()
    try:
        for name in ("manifests", "arrays", "passes", "locks"):
            (root / name).mkdir(parents=True, exist_ok=True)
            if not os.access(root / name, os.W_OK):
                raise PermissionError(13, "no permission to write", str(root / name))
    except OSError as error:
        raise unwritable(root, error) from error
    return root


def unwritable(root: Path, error: OSError) -> DataError:
    """The sentence for a cache that cannot be written."""
    return DataError(
        f"cache_dir (={str(root)!r}) cannot be written: {error}; pass another cache_dir or set EXPRESSIVEGAN_CACHE"
    )


@contextmanager
def locked(root: Path, name: str, wait: bool = True) -> Iterator[bool]:
    """Holds the lock of that name, which the system takes back from a process that dies.

    Yields:
        True, or with `wait` off False where another process or thread holds it.
    """
    lock = FileLock(root / "locks" / f"{name}.lock", timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    except OSError as error:
        raise unwritable(root, error) from error
    try:
        yield True
    finally:
        lock.release()


def check_space(root: Path, needed: int, what: str) -> None:
    """Raises DataError unless the disk of the cache has room for `needed` more bytes."""
    free = shutil.disk_usage(root).free
    if needed > free:
        raise DataError(
            f"cache_dir (={str(root)!r}) has {free / 1e9:.2f} GB free and {what} takes {needed / 1e9:.2f} GB; "
            "free some, pass another cache_dir, or set EXPRESSIVEGAN_CACHE"
        )


def release(array: UInt8Array) -> None:
    """Lets go of the memory of a mapped array; whatever is read again comes from the file.

    Pages of a map count as the process's own memory as long as they are not released, so that reading a large set once
    looks, and on a small machine is, as if it were all held.
    """
    base: Any = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "_mmap" if isinstance(base, np.memmap) else "base", None)
    if base is not None and hasattr(base, "madvise"):
        base.madvise(mmap.MADV_DONTNEED)


def fingerprint(listing: Listing) -> str:
    """SHA-256 over path, size and time of change of every file, the folders' names, and what is refused and why."""
    digest = hashlib.sha256()
    for path in sorted(listing.files):
        size, time_or_sum = listing.files[path]
        digest.update(f"{path}\0{size}\0{time_or_sum}\n".encode("utf-8", "surrogateescape"))
    digest.update(json.dumps([sorted(listing.folders), sorted(listing.refused.items())]).encode())
    return digest.hexdigest()


def name_of(key: tuple[object, ...]) -> str:
    """A file name for whatever a thing depends on."""
    return hashlib.sha256(json.dumps([VERSION, *map(str, key)]).encode()).hexdigest()[:24]


def recall(root: Path, key: tuple[object, ...], mark: str) -> Manifest | None:
    """The manifest stored for `key`, if it still has the fingerprint `mark`."""
    path = _manifest_path(root, key)
    with suppress(OSError, ValueError, DataError):  # anything wrong with it: read the folder again
        before = _identity(path)
        if json.loads(path.with_suffix(".json").read_text()) == _beside(path, mark):
            known = Manifest.read(path)
            if _identity(path) == before:  # else another process has put one of its own there in between
                return known
    return None


def remember(root: Path, key: tuple[object, ...], mark: str, manifest: Manifest) -> None:
    """Stores a manifest for `recall`. Raises DataError if the cache cannot be written."""
    path = _manifest_path(root, key)
    try:
        with replacing(path) as temporary:
            manifest.write(temporary)
            said = _beside(temporary, mark)  # of what this process wrote, whoever writes the same name meanwhile
        write_bytes(path.with_suffix(".json"), json.dumps(said).encode())
    except OSError as error:
        raise unwritable(root, error) from error


def _manifest_path(root: Path, key: tuple[object, ...]) -> Path:
    return root / "manifests" / f"{name_of((LAYOUT_VERSION, *key))}.jsonl"


def _beside(path: Path, mark: str) -> dict[str, str]:
    """What stands beside a manifest: processes that write the same one at once must not leave another's fingerprint."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {"fingerprint": mark, "sha256": digest.hexdigest()}


def _identity(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def array(
    root: Path, name: str, shape: tuple[int, ...], rows: Callable[[int], Iterable[UInt8Array]], check: bool = True
) -> UInt8Array:
    """The stored array of that name, memory-mapped and read-only; built from `rows` if missing or damaged.

    An interrupted building is gone on with. Of several processes that want the same array one builds, the others wait.

    Args:
        root: what `cache_root` returned.
        name: says all that the pixels depend on.
        shape: (N, ...) of the array.
        rows: given the first row that is wanted, yields the array from there on, in pieces along the first axis;
            called only if something must be built.
        check: compare the stored checksum, beside the size.

    Raises:
        DataError: the cache cannot be written, for example since the disk is full.
    """
    path = root / "arrays" / f"{name}.npy"
    found = problem(path, shape, check)
    if found is not None:
        if found != "missing":
            warnings.warn(f"the cache {path} is {found}; it is built anew", stacklevel=2)
        with locked(root, name):
            if problem(path, shape, check) is not None:  # else another process has built it while this one waited
                sweep(root)
                _build(root, path, shape, rows)
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    return np.asarray(mapped)  # np.memmap's own indexing is slow


def _build(root: Path, path: Path, shape: tuple[int, ...], rows: Callable[[int], Iterable[UInt8Array]]) -> None:
    part, notes = path.with_suffix(".part"), path.with_suffix(".rows")
    try:
        with Growing(part, shape[1:]) as growing:
            for note in _notes(notes):
                if note[0] > shape[0] or not growing.accept(*note):
                    break
            growing.cut()
            left = (shape[0] - growing.rows) * int(np.prod(shape[1:]))
            check_space(root, left, f"{path.stem} ({shape[0]} images)")
            certain = growing.rows
            with notes.open("w" if certain == 0 else "a", encoding="ascii") as file:
                if certain:
                    file.write("\n")  # the last line may be torn
                for piece in rows(growing.rows) if left else ():
                    growing.append(piece)
                    if (growing.rows - certain) * piece[0].size >= _NOTE_BYTES:
                        certain = growing.rows
                        file.write(json.dumps([VERSION, growing.rows, growing.crc]) + "\n")
                        file.flush()
            assert growing.rows == shape[0], (growing.rows, shape)
            growing.finish(path)
        notes.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(root, error) from error


def _notes(path: Path) -> Iterator[tuple[int, int]]:
    with suppress(FileNotFoundError), path.open(encoding="ascii", errors="replace") as file:
        for line in file:
            with suppress(ValueError, TypeError):
                version, rows, crc = json.loads(line)
                if version == VERSION:
                    yield int(rows), int(crc)


def sweep(root: Path) -> None:
    """Removes what killed processes left behind, if nobody is building on it and it is so old that nobody will."""
    for left in chain((root / "arrays").iterdir(), (root / "manifests").iterdir()):
        keep = {".tmp": _STALE_SECONDS, ".part": _KEPT_SECONDS, ".rows": _KEPT_SECONDS}.get(left.suffix)
        if keep is not None and _age(left) > keep:
            _remove_unless_locked(root, left.stem, left)
    for left in (root / "passes").iterdir():
        if any(left.glob("*.part")) and min(map(_age, left.iterdir()), default=0.0) > _KEPT_SECONDS:
            _remove_unless_locked(root, left.name, left)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _remove_unless_locked(root: Path, name: str, left: Path) -> None:
    with locked(root, name, wait=False) as mine, suppress(OSError):
        if mine and left.is_dir():
            shutil.rmtree(left)
        elif mine:
            left.unlink()
