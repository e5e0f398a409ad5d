"""Files that appear under their names complete, or not at all."""

import os
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


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file, or replaces what stood there."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file, or replaces what stood there."""
    write_bytes(path, text.encode("utf-8"))
