"""Files, folders and archives that a user names → pictures as the networks take them, and a list of what is none."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from expressivegan.data import Fit
from expressivegan.data.decode import Facts, UnusableError, inspect_and_fit, read_bytes
from expressivegan.data.store import kind_of, open_store
from expressivegan.errors import DataError
from expressivegan.images import UInt8Array
from expressivegan.synthesis import read_provenance

SHOWN = 256  # side of the pictures in a montage
COLOURED = 0.05  # mean difference between a pixel's largest and smallest channel; grey JPEGs stay below 0.01
_SAMPLE = (64, 64)


@dataclass(frozen=True, eq=False)
class Picture:
    """One image to explain.

    Attributes:
        name: as the user will recognise it.
        pixels: uint8 (R, R) grey, what the networks see.
        shown: uint8 (S, S), the same in more detail where the file has it.
        facts: size, mode and digest of the file; None for a tensor.
        colour: 0..1, how colourful it is.
        made: what a synthetic image says about itself, or None.
    """

    name: str
    pixels: UInt8Array
    shown: UInt8Array
    facts: Facts | None = None
    colour: float = 0.0
    made: dict[str, Any] | None = None


@dataclass(frozen=True)
class Source:
    """A file to read: on disk, or within an archive."""

    name: str
    path: Path
    inside: str | None = None

    def read(self) -> bytes:
        """The bytes. Raises UnusableError with the reason."""
        return read_bytes(self.path) if self.inside is None else open_store(self.path).read(self.inside)


def list_sources(paths: Sequence[str | Path]) -> tuple[list[Source], list[tuple[str, str]]]:
    """Files as they are, folders and archives with all that is in them, in order of name; and what is not there."""
    found: list[Source] = []
    refused: list[tuple[str, str]] = []
    for given in paths:
        path = Path(given)
        try:
            if kind_of(path) not in ("folder", "zip"):
                found.append(Source(str(given), path))
                continue
            folder = path.is_dir()
            names = sorted(open_store(path).listing().files)
        except DataError as error:
            refused.append((str(given), str(error)))
            continue
        if not names:
            refused.append((str(given), "holds no file"))
        found += [Source(str(path / n), path / n) if folder else Source(str(path / n), path, n) for n in names]
    return found, refused


def read_pictures(sources: Sequence[Source], resolution: int, fit: Fit) -> Iterator[Picture | tuple[str, str]]:
    """One picture for each source, or its name and why it is none."""
    for source in sources:
        try:
            data = source.read()
            facts, (pixels, shown) = inspect_and_fit(data, [(resolution, fit), (SHOWN, fit)])
        except UnusableError as error:
            yield source.name, str(error)
            continue
        made = read_provenance(source.path) if source.inside is None else None
        yield Picture(source.name, pixels, shown, facts, _colour(data, facts.mode), made)


def _colour(data: bytes, mode: str) -> float:
    if mode not in ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV") or data[128:132] == b"DICM":
        return 0.0
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", _SAMPLE)
        channels = np.asarray(image.convert("RGB").resize(_SAMPLE, Image.Resampling.BOX)).astype(np.float64)
    return float((channels.max(2) - channels.min(2)).mean() / 255)
