"""One reading of a folder that yields facts and pixels of every file, and can be interrupted at any moment.

    <cache>/passes/<key>/journal.jsonl              what each file turned out to be, a line per chunk of files
    <cache>/passes/<key>/<size>-<fit>.<n>.part      the pixels, in the order of the journal

The key is of the folder and the sizes. A chunk counts once its line stands in the journal and the pixels it speaks of
are there; whoever comes after a kill goes on behind the last such chunk. A file is known again by path, size and times
of change, so that a folder which has grown is examined for its new files only. When all is read, the pixels become the
cache's array by renaming; where files were dropped, changed or added in between, by copying the rows that are wanted.
"""

import json
import os
import sys
import uuid
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from expressivegan.data import cache
from expressivegan.data.decode import Facts, Fit
from expressivegan.data.growing import VERSION, Growing, problem
from expressivegan.data.layout import Listing
from expressivegan.data.manifest import Manifest

UInt8Array = npt.NDArray[np.uint8]
Target = tuple[int, Fit]
Status = tuple[int, int]
_FIELDS = [f.name for f in fields(Facts)]
_COPIED_ROWS = 256
_OPTIONAL = ("imagecodecs",)
"""Decoders that may be missing: what was refused for lack of one is read again when it is there."""


def array_name(known: Manifest, target: Target) -> str:
    """What the pixels of a manifest at one size are called in the cache."""
    return f"{known.content_hash[:20]}-{target[0]}-{target[1]}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that was examined before."""

    path: str
    status: Status
    row: int
    """Of its pixels; -1 if it was rejected."""
    facts: Facts | str
    """Or the reason why it cannot be used."""


@dataclass
class OnePass:
    """What `examine` asks and tells while it reads a folder."""

    root: Path
    folder: Path
    listing: Listing
    targets: tuple[Target, ...]
    rows: int = 0
    """Rows of pixels so far."""
    _moved: tuple[list[str], int] | None = None
    """Names of the cache's arrays that hold the first rows, and how many they hold."""
    _growing: list[Growing] = field(default_factory=list)
    _opened: ExitStack = field(default_factory=ExitStack)
    _paths: list[str] = field(default_factory=list)
    _rows_of: "array[int]" = field(default_factory=lambda: array("q"))

    # --- what was known -----------------------------------------------------------------------------------------------

    @property
    def _journal(self) -> Path:
        return self.folder / "journal.jsonl"

    def _part(self, target: Target) -> Path:
        return self.folder / f"{target[0]}-{target[1]}.{int(self._moved is not None)}.part"

    def _open(self) -> None:
        self.folder.mkdir(exist_ok=True)
        for left in self.folder.glob("*.copy"):  # of a process that was killed while it copied
            left.unlink()
        good = self._resume()
        if good is None:
            self._opened.close()
            self._moved, self.rows, self._growing = None, 0, []
            for left in self.folder.iterdir():
                left.unlink()
            self._open_parts()
            header = {"version": VERSION, "fields": _FIELDS, "targets": self.targets}
            self._journal.write_text(json.dumps(header) + "\n", encoding="utf-8")
        else:
            os.truncate(self._journal, good)
        for growing in self._growing:
            growing.cut()
        self._file = self._opened.enter_context(self._journal.open("ab", buffering=0))

    def _open_parts(self) -> None:
        self._growing = [
            self._opened.enter_context(Growing(self._part(target), (target[0], target[0]))) for target in self.targets
        ]

    def _resume(self) -> int | None:
        """Takes over what stands in the folder; returns how many bytes of the journal count, None for nothing."""
        header = {"version": VERSION, "fields": _FIELDS, "targets": [list(target) for target in self.targets]}
        good, moved = 0, False
        try:
            with self._journal.open("rb") as file:
                moved = sum(line.startswith(b'{"moved"') for line in file) > 0
                file.seek(0)
                for line in file:
                    row = json.loads(line)
                    if not line.endswith(b"\n"):
                        break
                    if good == 0:
                        if row != header:
                            return None
                        self._open_parts()
                        crcs = [0] * len(self.targets)
                    elif "moved" in row:
                        if not self._complete_move(row["moved"], row["rows"], crcs):
                            return None
                        moved = False
                    elif moved:  # its pixels are judged when their move is
                        crcs = row["crc"]
                    elif not self._accept(row["rows"], row["crc"]):
                        break
                    good += len(line)
        except (OSError, ValueError, KeyError, TypeError):
            if moved:
                return None
        return good or None

    def _accept(self, rows: int, crcs: list[int]) -> bool:
        first = self._moved[1] if self._moved else 0
        before = [(g, g.rows, g.crc) for g in self._growing]
        good = rows >= first and all(g.accept(rows - first, crc) for g, crc in zip(self._growing, crcs, strict=True))
        if good:
            self.rows = rows
        else:
            for growing, had, crc in before:
                growing.back_to(had, crc)
        return good

    def _complete_move(self, names: list[str], rows: int, crcs: list[int]) -> bool:
        """Renames the pixels to arrays of the cache, except those that were before a kill; False if they are lost."""
        for name, target, growing, crc in zip(names, self.targets, self._growing, crcs, strict=True):
            path = self.root / "arrays" / f"{name}.npy"
            if problem(path, (rows, target[0], target[0]), check=False) is not None:
                if not growing.accept(rows, crc):
                    return False
                growing.finish(path)
            growing.close()
            growing.path.unlink(missing_ok=True)
        self._opened.close()
        self._moved, self.rows = (names, rows), rows
        self._open_parts()
        return True

    def entries(self) -> Iterator[Entry]:
        """All files examined before, in the order in which they were; a later entry replaces an earlier one."""
        with self._journal.open(encoding="utf-8") as file:
            next(file)
            for line in file:
                for path, size, time, row, said in json.loads(line).get("files", ()):
                    facts = said if isinstance(said, str) else Facts(*map(_shared, said))
                    yield Entry(path, (size, time), row, facts)

    # --- what is new --------------------------------------------------------------------------------------------------

    def check_space(self, images: int) -> None:
        """Raises DataError unless the pixels of that many more images fit on the disk."""
        pixels = sum(resolution * resolution for resolution, _ in self.targets)
        cache.check_space(self.root, images * pixels, f"an array of {images} images")

    def commit(
        self, found: Sequence[tuple[str, Status]], facts: Sequence[Facts | str], pixels: Sequence[UInt8Array]
    ) -> list[int]:
        """Adds a chunk of files: their names, what they are, and per target the pixels of those that can be used.

        Returns:
            the row of each, -1 for a rejected one.
        """
        given, files = [], []
        for (path, status), said in zip(found, facts, strict=True):
            row = -1 if isinstance(said, str) else self.rows
            self.rows += row >= 0
            given.append(row)
            told = said if isinstance(said, str) else [getattr(said, name) for name in _FIELDS]
            files.append((path, *status, row, told))
        try:
            for growing, rows in zip(self._growing, pixels, strict=True):
                growing.append(rows)
            line = {"rows": self.rows, "crc": [g.crc for g in self._growing], "files": files}
            self._file.write(json.dumps(line).encode() + b"\n")
        except OSError as error:
            raise cache.unwritable(self.root, error) from error
        return given

    def keep(self, path: str, row: int) -> None:
        """Says, file by file in the order of the records, which row holds its pixels."""
        self._paths.append(path)
        self._rows_of.append(row)

    # --- the end ------------------------------------------------------------------------------------------------------

    def finish(self, known: Manifest) -> None:
        """Makes the cache's arrays of a manifest whose records are among those that were kept, in the same order."""
        order = self._order(known)
        if order is None:
            return
        names = [array_name(known, target) for target in self.targets]
        in_place = len(order) == self.rows and bool((order == np.arange(self.rows)).all())
        try:
            if self._moved is None and in_place:
                self._file.write(json.dumps({"moved": names, "rows": self.rows}).encode() + b"\n")
                self._complete_move(names, self.rows, [growing.crc for growing in self._growing])
            elif not (in_place and self._moved is not None and self._moved[0] == names):
                self._copy(names, order)
        except OSError as error:
            raise cache.unwritable(self.root, error) from error
        for growing in self._growing:
            if growing.rows == 0:  # opened behind the arrays for files that did not come
                growing.close()
                growing.path.unlink(missing_ok=True)

    def _order(self, known: Manifest) -> npt.NDArray[np.int64] | None:
        order = np.empty(len(known.records), np.int64)
        at = iter(range(len(self._paths)))
        for i, record in enumerate(known.records):
            row = next((j for j in at if self._paths[j] == record.path), None)
            if row is None or record.crop is not None or record.masks:
                return None
            order[i] = self._rows_of[row]
        return order

    def _copy(self, names: list[str], order: npt.NDArray[np.int64]) -> None:
        missing = [
            (name, target, growing)
            for name, target, growing in zip(names, self.targets, self._growing, strict=True)
            if problem(self.root / "arrays" / f"{name}.npy", (len(order), target[0], target[0]), False) is not None
        ]
        cache.check_space(self.root, sum(len(order) * t[0] * t[0] for _, t, _ in missing), "copying its arrays")
        first = self._moved[1] if self._moved else 0
        for name, target, growing in missing:
            shape = (target[0], target[0])
            moved = self._moved[0][self.targets.index(target)] if self._moved else None
            old = _mapped(self.root / "arrays" / f"{moved}.npy", (first, *shape)) if first else None
            new = _mapped(growing.path, (growing.rows, *shape)) if growing.rows else None
            path = self.folder / f"{name}.{uuid.uuid4().hex[:8]}.copy"
            with Growing(path, shape) as made:
                for start in range(0, len(order), _COPIED_ROWS):
                    rows = order[start : start + _COPIED_ROWS]
                    piece = np.empty((len(rows), *shape), np.uint8)
                    if old is not None:
                        piece[rows < first] = old[rows[rows < first]]
                    if new is not None:
                        piece[rows >= first] = new[rows[rows >= first] - first]
                    made.append(piece)
                made.finish(self.root / "arrays" / f"{name}.npy")
            old = new = None  # a file that is mapped cannot be removed everywhere
        self._rewrite_journal(names, order)

    def _rewrite_journal(self, names: list[str], order: npt.NDArray[np.int64]) -> None:
        """As if the arrays had been made in one go; files that were dropped are forgotten."""
        place = np.full(self.rows + 1, -1, np.int64)
        place[order] = np.arange(len(order))
        temporary = self.folder / "journal.copy"
        with temporary.open("w", encoding="utf-8") as file, self._journal.open(encoding="utf-8") as old:
            file.write(next(old))
            file.write(json.dumps({"moved": names, "rows": len(order)}) + "\n")
            for line in old:
                files = [
                    (path, size, time, int(place[row]), said)
                    for path, size, time, row, said in json.loads(line).get("files", ())
                    if row < 0 or place[row] >= 0
                ]
                crc = [0] * len(names)
                file.write(json.dumps({"rows": len(order), "crc": crc, "files": files}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._opened.close()
        temporary.replace(self._journal)
        for left in self.folder.glob("*.part"):
            left.unlink()


def _shared(value: Any) -> Any:
    """One object for all short strings that are equal, such as modes."""
    return sys.intern(value) if isinstance(value, str) and len(value) < 16 else value


def _mapped(part: Path, shape: tuple[int, ...]) -> UInt8Array:
    return np.memmap(part, np.uint8, "r", offset=128, shape=shape)


_CURRENT: ContextVar[OnePass | None] = ContextVar("pass", default=None)


def current() -> OnePass | None:
    """The pass that the caller of `examine` has begun, if any."""
    return _CURRENT.get()


@contextmanager
def _begun(root: Path, name: str, listing: Listing, targets: tuple[Target, ...]) -> Iterator[OnePass]:
    begun = OnePass(root, root / "passes" / name, listing, targets)
    with begun._opened:
        try:
            begun._open()
        except OSError as error:
            raise cache.unwritable(root, error) from error
        token = _CURRENT.set(begun)
        try:
            yield begun
        finally:
            _CURRENT.reset(token)


def read_once(
    root: Path,
    path: Path,
    listing: Listing,
    key: tuple[object, ...],
    targets: Sequence[Target],
    read: Callable[[], Manifest],
) -> Manifest:
    """The manifest of a folder from the cache; or else `read` it, and make the arrays of all targets on the way.

    Of several processes that want the same one reads, the others wait for it.

    Args:
        root: what `cache_root` returned.
        path: the folder.
        listing: of the folder.
        key: all that the manifest depends on, beside the folder's contents.
        targets: (resolution, fit) of the arrays that will be wanted.
        read: calls `examine` once, in this thread.

    Raises:
        DataError: the cache cannot be written, or lacks space; and what `read` raises.
    """
    mark = cache.fingerprint(listing)
    decoders = tuple(name for name in _OPTIONAL if find_spec(name) is not None)  # what one lacks, it refuses
    key = (*key, decoders)
    known = cache.recall(root, key, mark)
    if known is not None:
        return known
    wanted = tuple(sorted(set(targets)))
    name = cache.name_of((path.resolve(), wanted, decoders))
    with cache.locked(root, name):
        known = cache.recall(root, key, mark)
        if known is None:
            cache.sweep(root)
            with _begun(root, name, listing, wanted) as begun:
                known = read()
                begun.finish(known)
            cache.remember(root, key, mark, known)
    return known
