"""Files that appear under their names complete, or not at all."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write a file to, which takes its place when the block ends well.

    Readers see the old file or the new one, never half of one; after a power cut, too. If the block fails, the old
    file stays and nothing else is left.
    """
    temporary = path.with_name(f".{path.name[:200]}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_directory(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` to fill, which takes its place when the block ends well.

    If the block fails, what stood there stays, and nothing else is left.
    """
    folder = folder.resolve()  # "." has no name, and a link shall go on leading there
    name = f".{folder.name}.{os.getpid()}"
    temporary, old = folder.with_name(f"{name}.tmp"), folder.with_name(f"{name}.old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)  # the new one did not get there: keep what was
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file, or replaces what stood there."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file, or replaces what stood there."""
    write_bytes(path, text.encode("utf-8"))
