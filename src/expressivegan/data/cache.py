"""Decoded images on disk, memory-mapped: built once, checked on opening, never half-written, gone on with after a kill.

    <cache>/manifests/<key>.jsonl + .json     manifest of a folder, and the fingerprint of the folder it was read from
    <cache>/arrays/<name>.npy + .json         uint8 pixels, and their size and checksum
    <cache>/arrays/<name>.part + .rows        pixels under construction, and how many rows of them are certain
    <cache>/passes/<key>/                     what a reading of a folder has found so far, see `onepass`
    <cache>/locks/                            whoever builds a thing holds its lock; the others wait

A file appears under its name by renaming, complete.
"""

import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import platformdirs
from filelock import FileLock, Timeout

from expressivegan.atomic import write_bytes
from expressivegan.data.growing import VERSION, Growing, problem
from expressivegan.data.layout import Listing
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


def fingerprint(listing: Listing) -> str:
    """SHA-256 over path, size and time of change of every file, and over the folders' names."""
    digest = hashlib.sha256()
    for path in sorted(listing.files):
        size, time_or_sum = listing.files[path]
        digest.update(f"{path}\0{size}\0{time_or_sum}\n".encode("utf-8", "surrogateescape"))
    digest.update(json.dumps(sorted(listing.folders)).encode())
    return digest.hexdigest()


def name_of(key: tuple[object, ...]) -> str:
    """A file name for whatever a thing depends on."""
    return hashlib.sha256(json.dumps([VERSION, *map(str, key)]).encode()).hexdigest()[:24]


def recall(root: Path, key: tuple[object, ...], mark: str) -> Manifest | None:
    """The manifest stored for `key`, if it still has the fingerprint `mark`."""
    path = root / "manifests" / f"{name_of(key)}.jsonl"
    with suppress(OSError, ValueError, DataError):  # anything wrong with it: read the folder again
        if json.loads(path.with_suffix(".json").read_text()) == {"fingerprint": mark}:
            return Manifest.read(path)
    return None


def remember(root: Path, key: tuple[object, ...], mark: str, manifest: Manifest) -> None:
    """Stores a manifest for `recall`. Raises DataError if the cache cannot be written."""
    path = root / "manifests" / f"{name_of(key)}.jsonl"
    side = path.with_suffix(".json")
    try:
        side.unlink(missing_ok=True)  # a manifest must never stand beside the fingerprint of another one
        manifest.write(path)
        write_bytes(side, json.dumps({"fingerprint": mark}).encode())
    except OSError as error:
        raise unwritable(root, error) from error


def remembered(root: Path, key: tuple[object, ...], mark: str, read: Callable[[], Manifest]) -> Manifest:
    """The manifest stored for `key` if it still has the fingerprint `mark`, else what `read` returns, stored."""
    known = recall(root, key, mark)
    if known is None:
        known = read()
        remember(root, key, mark, known)
    return known


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
                        file.write(json.dumps([growing.rows, growing.crc]) + "\n")
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
                rows, crc = json.loads(line)
                yield int(rows), int(crc)


def sweep(root: Path) -> None:
    """Removes what killed processes left behind, if nobody is building on it and it is so old that nobody will."""
    for left in (root / "arrays").iterdir():
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
