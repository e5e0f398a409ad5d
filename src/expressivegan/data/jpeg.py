"""JPEG → grey through libjpeg-turbo's own interface, for the files that make up most data sets.

Pillow decodes the same pixels, at half the speed. What is unusual in any way (CMYK, twelve bits, an orientation in EXIF
or XMP, several pictures in a file, a warning from the decoder) is left to Pillow, and so is the verdict
on what is damaged.
"""

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg  # type: ignore[import-untyped]

_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_OTHER_FRAMES = frozenset(range(0xC3, 0xD0)) - {0xC4, 0xC8}  # lossless, arithmetic, hierarchical; C4 holds tables
_APP0, _APP1, _APP2, _APP14, _TABLES, _SCAN = 0xE0, 0xE1, 0xE2, 0xEE, 0xDB, 0xDA
_NAMED_YCBCR = bytes((1, 2, 3))
_MODES = {1: "L", 3: "RGB"}
_SCALES = (8, 4, 2)


@dataclass(frozen=True, slots=True)
class Header:
    """Of an ordinary JPEG: upright, 8 bits, grey or YCbCr."""

    width: int
    height: int
    mode: str
    """As Pillow calls it: "L" or "RGB"."""
    luminance: int
    """Sum of the first quantisation table."""


def peek(data: bytes) -> Header | None:
    """Reads the segments before the pixels; None for anything that is not ordinary, or no JPEG at all."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    frame: tuple[int, int, bytes] | None = None
    luminance = 0
    jfif, ycbcr = False, False
    at, end = 2, len(data) - 4
    while at < end:
        if data[at] != 0xFF:
            return None
        marker, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
        body = at + 4
        at += 2 + length
        if at > len(data):
            return None  # cut short
        if marker == _SCAN:
            break
        if marker == _TABLES:
            while body < at:
                wide, number = divmod(data[body], 16)
                size = 128 if wide else 64
                if body + 1 + size > at:
                    return None
                if number == 0:
                    table = data[body + 1 : body + 1 + size]
                    luminance = sum(struct.unpack(f">{len(table) // 2}H", table) if wide else table)
                body += 1 + size
        elif _BASELINE <= marker <= _PROGRESSIVE:
            if frame is not None or length < 8 or data[body] != 8 or length != 8 + 3 * data[body + 5]:
                return None
            height, width = struct.unpack_from(">HH", data, body + 1)
            frame = width, height, data[body + 6 : at : 3]
        elif marker == _APP0:
            jfif = jfif or data[body : body + 5] == b"JFIF\0"
        elif marker == _APP14:
            if data[body : body + 5] == b"Adobe":
                if length < 14 or data[body + 11] > 1:
                    return None
                ycbcr = data[body + 11] == 1
                if not ycbcr and not jfif:
                    return None
        elif marker == _APP1:
            if _may_turn(data[body:at]):
                return None
        elif marker == _APP2:
            if data[body : body + 4] == b"MPF\0":
                return None
        elif marker in _OTHER_FRAMES or not 0xC0 <= marker <= 0xFE or 0xD0 <= marker <= 0xD9:
            return None
    else:
        return None
    if frame is None or not luminance:
        return None
    width, height, names = frame
    if len(names) not in _MODES or not (len(names) == 1 or jfif or ycbcr or names == _NAMED_YCBCR):
        return None
    return Header(width, height, _MODES[len(names)], luminance)


def _may_turn(tags: bytes) -> bool:
    """Whether EXIF (tag 0x0112, in either byte order) or XMP could hold an orientation; errs on the side of yes."""
    return b"\x01\x12" in tags or b"\x12\x01" in tags or b"Orientation" in tags


def scale(size: tuple[int, int], side: int | None) -> int:
    """What a picture of that size is divided by in decoding, 1, 2, 4 or 8, so that no side falls below `side`."""
    if side is None:
        return 1
    room = min(size[0] // side, size[1] // side)
    return next((s for s in _SCALES if room >= s), 1)


def grey(data: bytes, header: Header, divisor: int = 1) -> npt.NDArray[np.uint8] | None:
    """uint8 (ceil(height / divisor), ceil(width / divisor)) luminance; None if the decoder has the least complaint."""
    height, width = -(-header.height // divisor), -(-header.width // divisor)
    try:
        if divisor == 1:
            pixels = simplejpeg.decode_jpeg(data, "GRAY", strict=True)
        else:
            pixels = simplejpeg.decode_jpeg(data, "GRAY", min_height=height, min_width=width, strict=True)
    except ValueError:
        return None
    picture: npt.NDArray[np.uint8] = pixels[:, :, 0]
    return picture if picture.shape == (height, width) else None
