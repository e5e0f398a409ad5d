"""MedMNIST's `.npz`: the rows of its arrays as picture files, streamed, since the largest unpack to gigabytes."""

import io
import os
import threading
import zipfile
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from expressivegan.data.archive import File, members_of, start_of
from expressivegan.data.decode import MAX_PIXELS, UnusableError
from expressivegan.data.layout.listing import Listing
from expressivegan.data.layout.medmnist import SPLITS
from expressivegan.errors import DataError

MAX_ROWS = 2_000_000
_CHUNK_BYTES = 1 << 21  # rows are unpacked and kept in chunks of about this size
_KEPT_CHUNKS = 4 + 2 * min(32, os.cpu_count() or 1)  # threads ask slightly out of order
_MARK_EVERY = 16  # chunks between two places to go on from, each of about 40 KiB
_INPUT = 1 << 16
_MAX_LABEL_BYTES = 1 << 28
_MAX_HEADER = 1 << 14


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    dtype: "np.dtype[np.generic]"
    length: int
    """Bytes before the data."""


class _Unpacking:
    """A place in a member: what has been read of it, and the state to go on from."""

    def __init__(self, deflated: bool) -> None:
        self.read = 0  # compressed bytes
        self.tail = b""
        self.engine = zlib.decompressobj(-zlib.MAX_WBITS) if deflated else None
        self.crc = 0

    def copy(self) -> "_Unpacking":
        other = _Unpacking(False)
        other.read, other.crc = self.read - len(self.tail), self.crc  # what waits is read again
        other.engine = None if self.engine is None else self.engine.copy()
        return other


class Member:
    """Pieces of a packed file of any size, in any order; cheap where the order is about ascending.

    Memory is bounded: a few unpacked chunks, and a place to go on from every so often.
    """

    def __init__(self, file: File, info: zipfile.ZipInfo, chunk: int) -> None:
        self._file, self._info, self._chunk = file, info, chunk
        self._start = start_of(file, info)
        self._deflated = info.compress_type == zipfile.ZIP_DEFLATED
        self._marks: dict[int, _Unpacking] = {0: _Unpacking(self._deflated)}
        self._now, self._next = self._marks[0].copy(), 0
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def piece(self, start: int, length: int) -> bytes:
        """Exactly those unpacked bytes. Raises UnusableError where the archive is damaged."""
        parts = []
        while length:
            number, offset = divmod(start, self._chunk)
            part = self._unpacked(number)[offset : offset + length]
            if not part:
                raise UnusableError("damaged in the archive: it ends too early")
            parts.append(part)
            start, length = start + len(part), length - len(part)
        return b"".join(parts)

    def _unpacked(self, number: int) -> bytes:
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
            mark = max(m for m in self._marks if m <= number)
            if not mark <= self._next <= number:
                self._now, self._next = self._marks[mark].copy(), mark
            while self._next <= number:
                data = self._advance()
            return data

    def _advance(self) -> bytes:
        at, now = self._next, self._now
        left = self._info.file_size - at * self._chunk
        wanted = min(self._chunk, max(left, 0))
        pieces, have = [], 0
        while have < wanted:
            if not now.tail:
                now.tail = self._compressed(now.read, min(_INPUT, self._info.compress_size - now.read))
                now.read += len(now.tail)
                if not now.tail:
                    break
            if now.engine is None:
                piece, now.tail = now.tail[: wanted - have], now.tail[wanted - have :]
            else:
                try:
                    piece = now.engine.decompress(now.tail, wanted - have)
                except zlib.error as error:
                    raise UnusableError(f"damaged in the archive: {error}") from None
                now.tail = now.engine.unconsumed_tail
                if not piece and now.engine.eof:
                    break
            pieces.append(piece)
            have += len(piece)
        data = b"".join(pieces)
        now.crc = zlib.crc32(data, now.crc)
        if wanted == left and (len(data) != wanted or now.crc != self._info.CRC):
            raise DataError(f"{self._info.filename} is damaged in the archive (CRC); download or pack it again")
        self._next += 1
        if self._next % _MARK_EVERY == 0 and self._next not in self._marks:
            self._marks[self._next] = now.copy()
        self._kept[at] = data
        while len(self._kept) > _KEPT_CHUNKS:
            self._kept.popitem(last=False)
        return data

    def _compressed(self, start: int, length: int) -> bytes:
        try:
            return self._file.piece(self._start + start, length)
        except OSError as error:
            raise UnusableError(f"cannot be read: {error.strerror}") from None


class NpzStore:
    """Rows of `train_images`, `val_images` and `test_images` as PGM or PPM files, and the labels as `.npy` files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        members = {m.filename.removesuffix(".npy"): m for m in members_of(root)}
        missing = [f"{s}_{k}" for s in SPLITS for k in ("images", "labels") if f"{s}_{k}" not in members]
        if missing:
            raise DataError(
                f"{root} has no array {', '.join(missing)} (it has {', '.join(sorted(members)[:10]) or 'none'}); "
                "MedMNIST's files hold images and labels of train, val and test"
            )
        try:
            self._file = File(root)
            self._open(members)
        except (OSError, UnusableError) as error:
            raise DataError(f"{root} cannot be read: {error}") from error

    def _open(self, members: dict[str, zipfile.ZipInfo]) -> None:
        self._images: dict[str, tuple[Member, _Header]] = {}
        self._labels: dict[str, tuple[Member, zipfile.ZipInfo]] = {}
        files: dict[str, tuple[int, int]] = {}
        for split in SPLITS:
            info = members[f"{split}_images"]
            header = self._header(info)
            shape = header.shape
            # (N, H, W) grey or (N, H, W, 3) colour; the latter's cousin (N, D, H, W) holds volumes.
            if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] != 3) or header.dtype != np.uint8:
                raise DataError(
                    f"{self.root}: {split}_images is {header.dtype} {shape}; it must be uint8 (N, H, W) or (N, H, W, 3)"
                )
            if shape[1] * shape[2] > MAX_PIXELS or shape[0] > MAX_ROWS:
                raise DataError(f"{self.root}: {split}_images is too large: {shape}")
            row = int(np.prod(shape[1:], dtype=np.int64))
            if info.file_size != header.length + shape[0] * row:
                raise DataError(f"{self.root}: {split}_images does not have the size that its shape {shape} asks for")
            # A chunk holds whole rows as nearly as the header lets it.
            member = Member(self._file, info, max(row, _CHUNK_BYTES))
            self._images[split] = (member, header)
            self._check_labels(split, members[f"{split}_labels"], shape[0], files)
            digits = max(6, len(str(shape[0])))
            suffix = "pgm" if len(shape) == 3 else "ppm"
            status = (row, info.CRC)
            files |= dict.fromkeys((f"{split}/{i:0{digits}}.{suffix}" for i in range(shape[0])), status)
        self._listing = Listing(files, {s for s in SPLITS if self._images[s][1].shape[0]})

    def _check_labels(self, split: str, info: zipfile.ZipInfo, images: int, files: dict[str, tuple[int, int]]) -> None:
        header = self._header(info)
        if header.dtype.kind not in "uib" or len(header.shape) not in (1, 2) or 0 in header.shape[1:]:
            raise DataError(
                f"{self.root}: {split}_labels is {header.dtype} {header.shape}; it must be integers (N, 1) or (N, L)"
            )
        if header.shape[0] != images:
            raise DataError(f"{self.root}: {split} has {images} images but {header.shape[0]} labels")
        size = header.length + int(np.prod(header.shape, dtype=np.int64)) * header.dtype.itemsize
        if size != info.file_size or size > _MAX_LABEL_BYTES:
            raise DataError(f"{self.root}: {split}_labels has {info.file_size} bytes, which its shape does not ask for")
        self._labels[split] = (Member(self._file, info, _CHUNK_BYTES), info)
        files[f"{split}_labels.npy"] = (info.file_size, info.CRC)

    def _header(self, info: zipfile.ZipInfo) -> _Header:
        name = info.filename
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{self.root}: {name} is packed in a way that NumPy does not write; save it with NumPy")
        head = Member(self._file, info, _MAX_HEADER).piece(0, min(_MAX_HEADER, info.file_size))
        stream = io.BytesIO(head)
        try:
            version = np.lib.format.read_magic(stream)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, fortran, dtype = read(stream)
        except Exception as error:  # the reader of a hostile header raises anything
            raise DataError(f"{self.root}: {name} is no readable array ({error})") from None
        if dtype.hasobject:
            raise DataError(f"{self.root}: {name} holds Python objects, which are never loaded; save it as integers")
        if fortran and len(shape) > 1:
            raise DataError(f"{self.root}: {name} is stored column by column; save it with np.ascontiguousarray")
        return _Header(tuple(shape), dtype, stream.tell())

    def listing(self) -> Listing:
        return self._listing

    def read(self, name: str) -> bytes:
        split, slash, file = name.partition("/")
        if not slash:
            member, info = self._labels[name.removesuffix("_labels.npy")]
            return member.piece(0, info.file_size)
        if name not in self._listing.files:
            raise UnusableError("not in the archive")
        images, header = self._images[split]
        row = self._listing.files[name][0]
        height, width = header.shape[1:3]
        magic = "P5" if len(header.shape) == 3 else "P6"
        number = int(file.partition(".")[0])
        return f"{magic}\n{width} {height}\n255\n".encode() + images.piece(header.length + number * row, row)
