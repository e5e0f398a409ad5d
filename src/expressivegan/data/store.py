"""Where the files of a data set are: a folder, or a file that holds many. The rest of the package reads bytes.

A manifest's `root` is the folder or the file, and its records' paths are names within. Whatever is no picture in itself
(a row of an array) is handed out as the bytes of one, so that hashing, decoding and caching know no exceptions.
"""

import zipfile
from pathlib import Path
from typing import Literal, Protocol

from expressivegan.data import decode, tables
from expressivegan.data.archive import ZipStore
from expressivegan.data.arrays import NpzStore
from expressivegan.data.layout import Listing, look, nih, rsna
from expressivegan.data.layout.plan import folder_of
from expressivegan.data.layout.table import rows_of, safe_path
from expressivegan.errors import DataError

Kind = Literal["folder", "zip", "npz", "table"]


class Store(Protocol):
    """A folder or a file full of pictures. Reading is safe from several threads."""

    root: Path

    def listing(self) -> Listing:
        """All names, with what tells that a file changed. Raises DataError if it cannot be listed."""
        ...

    def read(self, name: str) -> bytes:
        """The bytes of one file. Raises `decode.UnusableError` with the reason."""
        ...


class FolderStore:
    """Files in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def listing(self) -> Listing:
        return look(self.root)

    def read(self, name: str) -> bytes:
        return decode.read_bytes(self.root / name)


class TableStore(FolderStore):
    """The files that a table names, in the table's folder."""

    def __init__(self, table: Path) -> None:
        super().__init__(table.parent)
        self.table = table.name

    def listing(self) -> Listing:
        paths = {safe_path(spelt) for row in rows_of(self.table, self.read) for spelt in _spellings(row.path)}
        named = {p for p in paths if p is not None} | {self.table}
        folders = {f for p in named for f in _parents(p)}
        seen = look(self.root, folders)
        return Listing(
            {p: status for p, status in seen.files.items() if p in named},
            seen.folders & folders,
            {p: reason for p, reason in seen.refused.items() if p in named},
        )


def _spellings(path: str) -> tuple[str, ...]:
    return (path, path.replace("\\", "/")) if "\\" in path else (path,)


def _parents(path: str) -> list[str]:
    parents = []
    while path := folder_of(path):
        parents.append(path)
    return parents


def kind_of(path: Path) -> Kind | None:
    """What a source is, from a look at its first bytes and at its name; None for other files, such as manifests.

    >>> kind_of(Path("/"))
    'folder'
    """
    if path.is_dir():
        return "folder"
    if not path.is_file():
        return None
    suffix = path.suffix.lower()
    if suffix in (".npz", ".zip"):
        return "npz" if suffix == ".npz" else "zip"
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if start in (b"PK\x03\x04", b"PK\x05\x06"):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except Exception:  # whatever is wrong with it is said when it is opened
            names = []
        return "npz" if names and all(n.endswith(".npy") for n in names) else "zip"
    if tables.is_table(path.name) and not start.startswith(b'{"'):
        return "table"
    return None


def open_store(root: Path) -> Store:
    """The store of a source: a folder, a `.zip` or `.npz` archive, or a table beside the images.

    Raises:
        DataError: nothing there, or nothing that can be read.
    """
    if not root.exists():
        raise DataError(f"{root} does not exist; give the folder, archive or table that tells of the images")
    kind = kind_of(root)
    if kind == "folder":
        return FolderStore(root)
    if kind == "zip":
        return ZipStore(root)
    if kind == "npz":
        return NpzStore(root)
    if kind == "table":
        # The public sets' own tables say nothing without the files beside them.
        if nih.TABLE.fullmatch(root.name) or root.name.lower() in (rsna.LABELS, rsna.DETAILS):
            return FolderStore(root.parent)
        return TableStore(root)
    raise DataError(f"{root} is no folder, no .zip or .npz archive and no table; give one of these")
