"""One file → 8-bit grey pixels, or the reason why not."""

import hashlib
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from expressivegan.data.manifest import Box
from expressivegan.errors import InputError

Fit = Literal["stretch", "pad", "crop"]
MIN_SIDE = 16
MAX_PIXELS = 64_000_000
MAX_BYTES = 1 << 30
RESAMPLING = Image.Resampling.BICUBIC  # Pillow widens the kernel when it shrinks, that is, it antialiases
_DRAFT_MARGIN = 2  # libjpeg may halve as long as this many times the wanted size remains for the antialiased step


class UnusableError(Exception):
    """Why a file cannot be used; ends in the list of rejected files, never at the user."""


@dataclass(frozen=True)
class Facts:
    """What the manifest says about a file."""

    width: int
    height: int
    mode: str
    sha256: str
    bytes: int
    quality: int | None
    """Of a JPEG, 1..100."""


def check_fit(fit: str) -> None:
    """Raises InputError unless `fit` is "stretch", "pad" or "crop"."""
    if fit not in get_args(Fit):
        raise InputError(f"fit (={fit!r}) must be 'stretch', 'pad' or 'crop'")


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


@contextmanager
def strict_decoding() -> Iterator[None]:
    """Makes Pillow refuse truncated files, though another library may have told it to fill them up with grey."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _open(data: bytes) -> Image.Image:
    """Reads the header alone, and refuses what must not be decoded."""
    if not data:
        raise UnusableError("empty file (0 bytes)")
    try:
        image = Image.open(io.BytesIO(data))
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # an MPO's further frames are previews
    except UnidentifiedImageError:
        raise UnusableError("not an image that Pillow can read") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnusableError(f"more than {MAX_PIXELS / 1e6:.0f} megapixels") from None
    except Exception as error:  # decoders of hostile bytes raise anything
        raise UnusableError(f"unreadable header: {error}") from None
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise UnusableError(f"{width}x{height} pixels, smaller than {MIN_SIDE}x{MIN_SIDE}")
    if width * height > MAX_PIXELS:
        raise UnusableError(f"{width * height / 1e6:.0f} megapixels, more than {MAX_PIXELS / 1e6:.0f}")
    if frames > 1:
        raise UnusableError(f"{frames} frames in one file; save each as a file of its own")
    return image


def to_grey(image: Image.Image) -> Image.Image:
    """Any Pillow mode → 8-bit grey ("L"), the full range of the mode mapped to 0..255; transparent means black.

    Raises:
        UnusableError: 32-bit integer or floating-point pixels, whose range nobody knows.
    """
    mode = image.mode
    if mode == "L" and "transparency" not in image.info:
        return image
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):  # older Pillows open those as "I"
        wide = np.asarray(image).astype(np.uint32)
        tags = getattr(image, "tag_v2", None)
        if tags is not None and tags.get(262) == 0:  # TIFF "white is zero", which Pillow honours at 8 bits only
            wide = 65535 - wide
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if mode in ("I", "F"):
        raise UnusableError(f"pixels of mode {mode!r} (32 bits) have no known range; save as 8 or 16 bits")
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(opaque, image.convert("RGBA")).convert("L")
    if mode in ("1", "L"):
        return image.convert("L")
    return image.convert("RGB").convert("L")


def _decode(data: bytes, side: int | None) -> Image.Image:
    """Bytes → upright 8-bit grey; a JPEG may come smaller than it is, yet not below `side` in either direction."""
    image = _open(data)
    try:
        if side is not None and image.format == "JPEG":
            image.draft("L", (side, side))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)  # a copy would forget its format and its tags
        return to_grey(image)
    except UnusableError:
        raise
    except Exception as error:  # decoders of hostile bytes raise anything
        raise UnusableError(f"truncated or damaged: {error}") from None


def read_bytes(path: Path) -> bytes:
    """The file's bytes. Raises UnusableError if it cannot be read or is absurdly large."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UnusableError(f"larger than {MAX_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise UnusableError(f"cannot be read: {error.strerror}") from None


def inspect(data: bytes) -> Facts:
    """Decodes a file's bytes to the end, as cheaply as possible, and hashes them.

    Raises:
        UnusableError: it is no image, damaged, too small, too large, or constant.
    """
    header = _open(data)
    low, high = _decode(data, side=1).getextrema()
    if low == high:  # an eighth of the resolution may hide a difference
        low, high = _decode(data, side=None).getextrema()
    if low == high:
        raise UnusableError(f"constant: every pixel is {low}")
    return Facts(header.width, header.height, header.mode, sha256(data), len(data), jpeg_quality(header))


# Annex K of ITU-T T.81: the luminance table that libjpeg scales by quality.
_LUMINANCE = np.frombuffer(
    bytes.fromhex(
        "100b0a101828333d0c0c0e131a3a3c370e0d1018283945380e11161d3357503e"
        "12162538446d674d182337405168715c31404e5767797865485c5f6270646763"
    ),
    np.uint8,
).astype(np.int64)


def _scaled_sum(quality: int) -> int:
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return int(np.clip((_LUMINANCE * scale + 50) // 100, 1, 255).sum())


_SUMS = np.array([_scaled_sum(q) for q in range(1, 101)])


def jpeg_quality(image: Image.Image) -> int | None:
    """The libjpeg quality, 1..100, whose luminance table has the sum nearest to a JPEG's; None for other formats."""
    tables = getattr(image, "quantization", None)
    if not tables or 0 not in tables:
        return None
    return int(np.abs(_SUMS - sum(tables[0])).argmin()) + 1


def load_pixels(
    data: bytes, resolution: int, fit: Fit, crop: Box | None = None, masks: Sequence[Box] = ()
) -> npt.NDArray[np.uint8]:
    """Bytes of a file → uint8 (resolution, resolution) grey.

    "stretch" ignores the aspect ratio, "pad" keeps it and adds black borders, "crop" keeps it and cuts the centre out.
    Before that, `masks` are painted over with the median grey around them, and `crop` is cut out.

    Raises:
        UnusableError: the bytes are no usable image.
    """
    enlarged = 1.0 if crop is None else min(crop[2] - crop[0], crop[3] - crop[1])
    image = _decode(data, side=math.ceil(_DRAFT_MARGIN * resolution / enlarged))
    for box in masks:
        _paint_over(image, box)
    if crop is not None:
        image = image.crop(_in_pixels(crop, image.size))
    size = (resolution, resolution)
    if fit == "pad":
        image = ImageOps.pad(image, size, RESAMPLING, color=0)
    elif fit == "crop":
        image = ImageOps.fit(image, size, RESAMPLING)
    elif image.size != size:
        image = image.resize(size, RESAMPLING)
    return np.asarray(image)


def _in_pixels(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Outward to whole pixels, so that a mask never leaves a rim; at least one pixel."""
    width, height = size
    left, top = math.floor(box[0] * width), math.floor(box[1] * height)
    return left, top, max(left + 1, math.ceil(box[2] * width)), max(top + 1, math.ceil(box[3] * height))


def _paint_over(image: Image.Image, box: Box) -> None:
    left, top, right, bottom = _in_pixels(box, image.size)
    rim = max(1, round(0.01 * max(image.size)))
    around = np.asarray(image)[max(0, top - rim) : bottom + rim, max(0, left - rim) : right + rim].astype(np.int64)
    outside = np.ones(around.shape, bool)
    y, x = min(top, rim), min(left, rim)
    outside[y : y + bottom - top, x : x + right - left] = False
    grey = int(np.median(around[outside])) if outside.any() else 0
    image.paste(grey, (left, top, right, bottom))
