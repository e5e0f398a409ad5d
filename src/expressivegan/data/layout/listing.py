"""What stands in a folder or an archive: names, and what tells that a file changed."""

import os
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

from expressivegan.errors import DataError

VERSION = 1  # raise when the same names and tables shall give other classes, patients or splits
_JUNK = ("thumbs.db", "desktop.ini", "__macosx")
LINK = "a link that leads out of the data set's folder; copy the file, or give the folder that holds both"


@dataclass(frozen=True)
class Listing:
    """Contents: file → (bytes, what changes when the file does), and all folders; paths relative, forward slashes.

    What changes is the sum of the times of content and status in ns, or in an archive a checksum.
    """

    files: dict[str, tuple[int, int]]
    folders: set[str]
    refused: dict[str, str] = field(default_factory=dict)
    """What must not be opened → why. Links and pipes stand in `files` too, names that leave the archive do not."""

    def within(self, folder: str) -> list[str]:
        """Names of the folders that stand in `folder` ("" is the top), sorted."""
        prefix = f"{folder}/" if folder else ""
        rest = (f[len(prefix) :] for f in self.folders if f.startswith(prefix) and f != folder)
        return sorted(name for name in rest if name and "/" not in name)

    def below(self, folder: str) -> list[str]:
        """All files below `folder`, relative to it, sorted."""
        prefix = f"{folder}/" if folder else ""
        return sorted(f[len(prefix) :] for f in self.files if f.startswith(prefix))


def is_junk(name: str) -> bool:
    """Whether a file or folder of that name is hidden, or left behind by an operating system."""
    return name.startswith(".") or name.lower() in _JUNK


def look(directory: Path, folders: AbstractSet[str] | None = None) -> Listing:
    """Lists a folder and everything below it, without hidden files and what operating systems leave behind.

    Links are followed as long as they stay within the folder; one that leaves it is refused, since a data set that was
    handed on could otherwise name any file of this machine.

    Args:
        directory: the folder.
        folders: if given, only these are opened (relative, forward slashes), beside the top.

    Raises:
        DataError: it does not exist, is no folder, or cannot be listed.
    """
    if not directory.exists():
        raise DataError(f"directory (={str(directory)!r}) does not exist; give the folder that holds the images")
    if not directory.is_dir():
        raise DataError(f"directory (={str(directory)!r}) is not a folder")
    listing = Listing({}, set())
    visited: set[str] = set()
    home = os.path.realpath(directory)
    inside = home.rstrip(os.sep) + os.sep

    def refuse(relative: str, reason: str) -> None:
        listing.files[relative] = (-1, 0)
        listing.refused[relative] = reason

    def walk(folder: str, prefix: str) -> None:
        real = os.path.realpath(folder)
        if real in visited:  # a link that leads back up
            return
        visited.add(real)
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                if is_junk(entry.name):
                    continue
                relative = prefix + entry.name
                if entry.is_symlink():
                    target = os.path.realpath(entry.path)
                    if target != home and not target.startswith(inside):
                        refuse(relative, LINK)
                        continue
                if entry.is_dir():
                    listing.folders.add(relative)
                    if folders is None or relative in folders:
                        walk(entry.path, relative + "/")
                elif entry.is_file():
                    status = entry.stat()
                    # Copying tools set the one time to that of the original; the other nobody sets at will.
                    listing.files[relative] = (status.st_size, status.st_mtime_ns + status.st_ctime_ns)
                elif entry.is_symlink():
                    refuse(relative, "a link to nothing")
                else:  # never opened: reading a pipe may wait for ever
                    refuse(relative, "a pipe, socket or device, not a file")

    try:
        walk(str(directory), "")
    except OSError as error:
        raise DataError(f"directory (={str(directory)!r}) cannot be listed: {error}") from error
    return listing
