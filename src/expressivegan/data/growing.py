"""An array file that grows row by row, can be taken up again after a kill, and is checked by a running CRC-32.

A power cut may lose what a kill does not: rows that were written and not yet on the disk. Whoever resumes therefore
says how many rows there should be and with which checksum, and the rows are read once to compare.
"""

import io
import json
import os
import zlib
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from expressivegan.atomic import write_bytes

UInt8Array = npt.NDArray[np.uint8]
VERSION = 1  # raise when the same file shall give other pixels
_HEADER = 128  # what NumPy's header takes whatever the number of rows, so that it can be written last
_CHUNK = 1 << 22


class Growing:
    """uint8 (rows, *row), open for appending. Nobody else may write the file: hold a lock."""

    def __init__(self, path: Path, row: tuple[int, ...]) -> None:
        self.path = path
        self.rows = 0
        self.crc = 0
        self._row = row
        self._row_bytes = int(np.prod(row))
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        self._size = self._file.seek(0, os.SEEK_END)
        self._file.seek(_HEADER)

    def __enter__(self) -> "Growing":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Writes nothing more; the file stays as it is."""
        self._file.close()

    def accept(self, rows: int, crc: int) -> bool:
        """Takes rows that an earlier process wrote: up to `rows` in all, if they are there and give the checksum."""
        if rows == self.rows:
            return crc == self.crc
        if rows < self.rows or _HEADER + rows * self._row_bytes > self._size:
            return False
        left, found = (rows - self.rows) * self._row_bytes, self.crc
        while left:
            block = self._file.read(min(left, _CHUNK))
            left -= len(block)
            found = zlib.crc32(block, found)
        if found != crc:
            self.back_to(self.rows, self.crc)
            return False
        self.rows, self.crc = rows, crc
        return True

    def back_to(self, rows: int, crc: int) -> None:
        """Takes back what was accepted since there were so many rows with that checksum."""
        self.rows, self.crc = rows, crc
        self._file.seek(_HEADER + rows * self._row_bytes)

    def append(self, rows: UInt8Array) -> None:
        """Writes rows behind those there are. Raises OSError, for example where the disk is full."""
        data = np.ascontiguousarray(rows, dtype=np.uint8).reshape(-1).data
        self.crc = zlib.crc32(data, self.crc)
        self.rows += len(rows)
        while data:
            data = data[self._file.write(data) :]

    def cut(self) -> None:
        """Forgets whatever stands in the file behind the rows that were accepted."""
        self._size = _HEADER + self.rows * self._row_bytes
        self._file.truncate(self._size)
        self._file.seek(self._size)

    def finish(self, final: Path) -> None:
        """Renames the file to `final`, complete and on the disk, and writes its checksum beside it."""
        shape = (self.rows, *self._row)
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
        assert len(header.getvalue()) == _HEADER, len(header.getvalue())
        self._file.seek(0)
        self._file.write(header.getvalue())
        self.cut()
        os.fsync(self._file.fileno())
        self._file.close()
        said = {"version": VERSION, "bytes": self._size, "shape": list(shape), "crc32": self.crc}
        final.with_suffix(".json").unlink(missing_ok=True)  # never beside the pixels of another
        self.path.replace(final)
        write_bytes(final.with_suffix(".json"), json.dumps(said).encode())


def problem(path: Path, shape: tuple[int, ...], check: bool) -> str | None:
    """What is wrong with a finished array, or None; `check` compares the checksum too."""
    side = path.with_suffix(".json")
    if not path.exists() or not side.exists():
        return "missing"
    try:
        said = json.loads(side.read_text())
        if said.get("version") != VERSION:
            return "of another version"
        if path.stat().st_size != said["bytes"]:
            return "truncated"
        if tuple(said["shape"]) != shape:
            return "of another shape"
        if check and _checksum(path) != said["crc32"]:
            return "damaged"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "unreadable"
    return None


def _checksum(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        file.seek(_HEADER)
        while block := file.read(_CHUNK):
            crc = zlib.crc32(block, crc)
    return crc
