"""Where the files of a data set are: a folder, or a file that holds many. The rest of the package reads bytes.

A manifest's `root` is the folder or the file, and its records' paths are names within. Whatever is no picture in itself
(a row of an array) is handed out as the bytes of one, so that hashing, decoding and caching know no exceptions.
"""

from pathlib import Path
from typing import Protocol

from expressivegan.data import decode
from expressivegan.data.layout import Listing, look
from expressivegan.errors import DataError


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


def open_store(root: Path) -> Store:
    """The store of a folder or an archive.

    Raises:
        DataError: nothing there, or nothing that can be read.
    """
    if not root.exists():
        raise DataError(f"{root} does not exist; give the folder that holds the images")
    return FolderStore(root)
