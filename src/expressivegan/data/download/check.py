"""Files that came: whether they are what was published, and the licence beside them."""

import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from expressivegan.atomic import write_bytes
from expressivegan.data.download.homes import Home
from expressivegan.data.download.talk import MB
from expressivegan.errors import DataError

_PIECE = 1 << 16
_LICENCE_HEAD = "The files named below were made by others, and are theirs."


@contextmanager
def writing(where: Path) -> Iterator[None]:
    """Turns what goes wrong on disk into a DataError that names the place."""
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot write to {where}: {error.strerror or error}; choose another folder") from error


def introduction(home: Home) -> Iterator[str]:
    """Lines: what it is, its licence, and whom to cite."""
    yield f"{home.title}: {home.size / MB:,.1f} MB from {home.page}"
    yield f"Licence: {home.licence}"
    yield f"Please cite: {home.citation}"


def keep_licence(home: Home, out: Path) -> None:
    """Writes them to LICENSE.txt, beside what stands there; next to the file where that is somebody else's."""
    text = "\n\n".join([f"{home.file}\n{'-' * len(home.file)}", *introduction(home)]) + "\n"
    path = out / "LICENSE.txt"
    with writing(out):
        known = path.read_text("utf-8", "replace") if path.exists() else _LICENCE_HEAD + "\n"
        if not known.startswith(_LICENCE_HEAD):  # somebody else's: a project's own, perhaps
            path, known = out / f"{home.file}.LICENSE.txt", _LICENCE_HEAD + "\n"
        if text not in known:
            write_bytes(path, f"{known}\n{text}".encode())


def _digest(path: Path, kind: str) -> str:
    summed = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            summed.update(piece)
    return summed.hexdigest()


def fault(file: Path, final: Path, home: Home) -> str | None:
    """What is wrong with a complete file that is or shall become `final`, or None. Records what it found to be right.

    Raises:
        DataError: it cannot be read, or the record of its checksum cannot be written.
    """
    record = final.with_name(f"{final.name}.sha256")
    try:
        if home.md5 is not None:
            found = _digest(file, "md5")
            return None if found == home.md5 else f"has the MD5 {found}, not the published {home.md5}"
        found = _digest(file, "sha256")
        known = record.read_text("utf-8", "replace").split() if record.exists() else []
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from error
    if known:
        if found == known[0]:
            return None
        return f"has the SHA-256 {found}, not {known[0]} as before (recorded in {record})"
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except Exception as error:  # zipfile and zlib raise anything over damaged bytes
        return f"is no sound ZIP file ({error})"
    if damaged is not None:
        return f"is a ZIP file with a damaged member ({damaged})"
    with writing(record):
        write_bytes(record, f"{found}  {final.name}\n".encode())
    return None
