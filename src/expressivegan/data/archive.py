"""A ZIP archive read in place: what it holds, what of it must not be touched, and the bytes of one member.

Nothing is ever written to disk, so a hostile name has nowhere to go; it is refused all the same, and named.
"""

import os
import re
import stat
import threading
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from expressivegan.data.decode import MAX_BYTES, UnusableError
from expressivegan.data.layout.listing import Listing, is_junk
from expressivegan.errors import DataError

MAX_EXPANSION = 200  # a picture's pixels never shrink so far, blank ones apart
_HARMLESS_BYTES = 1 << 24  # whatever the ratio
_LOCAL_HEADER = 30
_DRIVE = re.compile(r"[A-Za-z]:")
_ARCHIVES = (".zip", ".npz", ".tar", ".gz", ".7z", ".rar")


class File:
    """A file that several threads read pieces of."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb")
        self._lock = threading.Lock()

    def piece(self, start: int, length: int) -> bytes:
        """Up to `length` bytes from `start`. Raises OSError."""
        with self._lock:
            self._file.seek(start)
            return self._file.read(length)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


def members_of(path: Path) -> list[zipfile.ZipInfo]:
    """The archive's table of contents.

    Raises:
        DataError: it cannot be opened, or is no archive, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # the reader of a hostile table raises anything
        raise DataError(f"{path} is no readable ZIP archive ({error}); download or pack it again") from error


def start_of(file: File, member: zipfile.ZipInfo) -> int:
    """Where the member's bytes begin. Raises UnusableError."""
    try:
        header = file.piece(member.header_offset, _LOCAL_HEADER)
    except (OSError, ValueError) as error:
        raise UnusableError(f"cannot be read: {error}") from None
    if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
        raise UnusableError("damaged archive: the member is not where the table of contents says")
    name, extra = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
    return member.header_offset + _LOCAL_HEADER + name + extra


class ZipStore:
    """The members of a ZIP archive."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._members, self._listing = _sorted_out(members_of(root))
        self._file = File(root)

    def listing(self) -> Listing:
        return self._listing

    def read(self, name: str) -> bytes:
        reason = self._listing.refused.get(name)
        if reason is not None:
            raise UnusableError(reason)
        member = self._members.get(name)
        if member is None:
            raise UnusableError("not in the archive")
        start = start_of(self._file, member)
        try:
            data = self._file.piece(start, member.compress_size)
        except OSError as error:
            raise UnusableError(f"cannot be read: {error.strerror}") from None
        if member.compress_type == zipfile.ZIP_DEFLATED:
            try:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.file_size + 1)
            except zlib.error as error:
                raise UnusableError(f"damaged in the archive: {error}") from None
        if len(data) != member.file_size or zlib.crc32(data) != member.CRC:
            raise UnusableError("damaged in the archive: its checksum (CRC) does not match")
        return data


def _sorted_out(members: list[zipfile.ZipInfo]) -> tuple[dict[str, zipfile.ZipInfo], Listing]:
    kept: dict[str, zipfile.ZipInfo] = {}
    listing = Listing({}, set())
    reached = 0
    overlapping: set[int] = set()
    for member in sorted(members, key=lambda m: m.header_offset):
        if member.header_offset < reached:
            overlapping.add(id(member))
        reached = max(reached, member.header_offset + _LOCAL_HEADER + member.compress_size)
    for member in members:
        name = member.orig_filename
        parts = PurePosixPath(name).parts
        if not parts or any(is_junk(part) for part in parts if part != ".."):
            continue
        problem = _bad_name(name)
        if problem is not None:
            listing.refused[name] = problem
            continue
        clean = "/".join(parts)
        folders = [str(p) for p in PurePosixPath(clean).parents][:-1]
        listing.folders.update(folders)
        if name.endswith("/"):
            listing.folders.add(clean)
            continue
        reason = "overlaps another member of the archive" if id(member) in overlapping else _refusal(member)
        if clean in listing.files:
            reason = "stands twice in the archive"
        if reason is not None:
            listing.refused[clean] = reason
        listing.files[clean] = (member.file_size, member.CRC)
        kept[clean] = member
    return kept, listing


def _bad_name(name: str) -> str | None:
    if "\\" in name:
        return "its name in the archive holds a backslash"
    if name.startswith("/") or _DRIVE.match(name):
        return "its name in the archive is absolute"
    if ".." in PurePosixPath(name).parts:
        return "its name in the archive leads out of it (..)"
    if any(ord(c) < 32 for c in name):
        return "its name in the archive holds control characters"
    return None


def _refusal(member: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "a link in the archive"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a pipe, socket or device in the archive"
    if member.flag_bits & 1:
        return "encrypted in the archive; pack it anew without a password"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"packed by method {member.compress_type} of ZIP; pack it anew with deflate"
    if member.file_size > MAX_BYTES:
        return f"would unpack to more than {MAX_BYTES >> 20} MiB"
    if member.file_size > _HARMLESS_BYTES and member.file_size > MAX_EXPANSION * member.compress_size:
        return f"would unpack to more than {MAX_EXPANSION} times its size, like a bomb"
    if member.compress_size > MAX_BYTES:
        return f"larger than {MAX_BYTES >> 20} MiB"
    if os.path.splitext(member.filename)[1].lower() in _ARCHIVES:  # noqa: PTH122 - a name within an archive
        return "an archive within the archive; unpack it, or give it alone"
    return None
