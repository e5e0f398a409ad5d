"""One file → 8-bit grey pixels, or the reason why not."""

import hashlib
import io
import math
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from expressivegan.data import jpeg
from expressivegan.data.manifest import Box
from expressivegan.errors import InputError

Fit = Literal["stretch", "pad", "crop"]
MIN_SIDE = 16
MAX_PIXELS = 64_000_000
MAX_BYTES = 1 << 29  # 64 megapixels of 16-bit RGB take 366 MiB
_STRIP_PIXELS = 1 << 22  # converting goes through several copies, which for the largest pictures would fill gigabytes
RESAMPLING = Image.Resampling.BICUBIC  # Pillow widens the kernel when it shrinks, that is, it antialiases
_ORIENTATION = 0x0112
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
    patient: str | None = None
    """From the header of a DICOM file, as are sex and age."""
    sex: str | None = None
    age: float | None = None


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
    _check_size(*image.size)
    if frames > 1:
        raise UnusableError(f"{frames} frames in one file; save each as a file of its own")
    return image


def _is_dicom(data: bytes) -> bool:
    return data[128:132] == b"DICM"  # whatever the file is called


def _check_size(width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise UnusableError(f"{width}x{height} pixels, smaller than {MIN_SIDE}x{MIN_SIDE}")
    if width * height > MAX_PIXELS:
        raise UnusableError(f"{width * height / 1e6:.0f} megapixels, more than {MAX_PIXELS / 1e6:.0f}")


def to_grey(image: Image.Image) -> Image.Image:
    """Any Pillow mode → 8-bit grey ("L"), the full range of the mode mapped to 0..255; transparent means black.

    Raises:
        UnusableError: 32-bit integer or floating-point pixels, whose range nobody knows.
    """
    mode = image.mode
    if mode == "L" and "transparency" not in image.info:
        return image
    # Older Pillows open 16 bits of a PNG or PPM as "I".
    wide = mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM"))
    if mode in ("I", "F") and not wide:
        raise UnusableError(f"pixels of mode {mode!r} (32 bits) have no known range; save as 8 or 16 bits")
    tags = getattr(image, "tag_v2", None)
    white_is_zero = tags is not None and tags.get(262) == 0  # which Pillow honours at 8 bits only
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // width)
    if rows >= height:
        return _strip_to_grey(image, wide, white_is_zero)
    grey = Image.new("L", image.size)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        grey.paste(_strip_to_grey(strip, wide, white_is_zero), (0, top))
    return grey


def _strip_to_grey(image: Image.Image, wide: bool, white_is_zero: bool) -> Image.Image:
    mode = image.mode
    if wide:
        pixels = np.asarray(image).astype(np.uint32)
        if white_is_zero:
            pixels = 65535 - pixels
        return Image.fromarray(((pixels + 128) // 257).astype(np.uint8))
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(opaque, image.convert("RGBA")).convert("L")
    if mode in ("1", "L", "RGB"):
        return image.convert("L")
    return image.convert("RGB").convert("L")


def _decode_jpeg(data: bytes, header: jpeg.Header | None, side: int | None) -> npt.NDArray[np.uint8] | None:
    """The same pixels as `_decode` gives, of an ordinary JPEG; None for any other file."""
    if header is None or (side is None and header.mode != "L"):  # undrafted colours become grey by Pillow's weights
        return None
    _check_size(header.width, header.height)
    return jpeg.grey(data, header, jpeg.scale((header.width, header.height), side))


def _decode(data: bytes, side: int | None) -> Image.Image:
    """Bytes → upright 8-bit grey; a JPEG may come smaller than it is, yet not below `side` in either direction."""
    fast = _decode_jpeg(data, jpeg.peek(data), side)
    if fast is not None:
        return Image.fromarray(fast)
    if _is_dicom(data):
        from expressivegan.data import dicom

        return dicom.read(data)[0]
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
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe may wait for ever
            raise UnusableError("a folder, pipe, socket or device, not a file")
        if status.st_size > MAX_BYTES:
            raise UnusableError(f"larger than {MAX_BYTES >> 20} MiB")
        with path.open("rb", buffering=0) as file:  # half the time that Path.read_bytes takes over a small file
            return file.read()
    except OSError as error:
        raise UnusableError(f"cannot be read: {error.strerror}") from None


def inspect(data: bytes) -> Facts:
    """Decodes a file's bytes to the end, as cheaply as possible, and hashes them.

    Raises:
        UnusableError: it is no image, damaged, too small, too large, or constant.
    """
    return inspect_and_fit(data, ())[0]


def inspect_and_fit(data: bytes, wanted: Sequence[tuple[int, Fit]]) -> tuple[Facts, list[npt.NDArray[np.uint8]]]:
    """What `inspect` says, and what `load_pixels` makes of the same bytes at each (resolution, fit).

    Sizes that are decoded at the same scale, as all are unless they lie far below the file's own, share the decoding.

    Raises:
        UnusableError: as `inspect`.
    """
    sides = [_DRAFT_MARGIN * resolution for resolution, _ in wanted] or [1]
    header = jpeg.peek(data)
    if header is None:
        return _inspect_and_fit_any(data, wanted, sides)
    size = header.width, header.height
    decoded: dict[int, npt.NDArray[np.uint8]] = {}
    for side in sides:
        scale = jpeg.scale(size, side)
        if scale not in decoded:
            pixels = _decode_jpeg(data, header, side)
            if pixels is None:
                return _inspect_and_fit_any(data, wanted, sides)
            decoded[scale] = pixels
    sample = decoded[max(decoded)]
    if sample[0, 0] == sample[-1, -1] and sample.min() == sample.max():  # the corners nearly always differ
        _refuse_constant(data)
    fitted = []
    for side, (resolution, fit) in zip(sides, wanted, strict=False):
        pixels = decoded[jpeg.scale(size, side)]
        if pixels.shape != (resolution, resolution):
            pixels = _fitted(Image.fromarray(pixels), resolution, fit)
        fitted.append(pixels)
    quality = _quality(header.luminance)
    return Facts(header.width, header.height, header.mode, sha256(data), len(data), quality), fitted


def _inspect_and_fit_any(
    data: bytes, wanted: Sequence[tuple[int, Fit]], sides: Sequence[int]
) -> tuple[Facts, list[npt.NDArray[np.uint8]]]:
    if _is_dicom(data):
        return _inspect_and_fit_dicom(data, wanted)
    header = _open(data)
    scales = [jpeg.scale(header.size, side) if header.format == "JPEG" else 1 for side in sides]
    decoded: dict[int, Image.Image] = {}
    for side, scale in zip(sides, scales, strict=True):
        if scale not in decoded:
            decoded[scale] = _decode(data, side)
    low, high = decoded[max(decoded)].getextrema()
    if low == high:
        _refuse_constant(data)
    facts = Facts(*_upright(header), header.mode, sha256(data), len(data), jpeg_quality(header))
    return facts, [_fitted(decoded[s], r, fit) for s, (r, fit) in zip(scales, wanted, strict=False)]


def _upright(header: Image.Image) -> tuple[int, int]:
    """Width and height as they will be seen: EXIF may turn a picture by a quarter."""
    try:
        turned = header.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    except Exception:  # hostile tags raise anything, and then turn nothing
        turned = False
    return (header.height, header.width) if turned else header.size


def _inspect_and_fit_dicom(data: bytes, wanted: Sequence[tuple[int, Fit]]) -> tuple[Facts, list[npt.NDArray[np.uint8]]]:
    from expressivegan.data import dicom

    image, header = dicom.read(data)
    low, high = image.getextrema()
    if low == high:
        raise UnusableError(f"constant: every pixel is {low}")
    person = (header.patient, header.sex, header.age)
    facts = Facts(header.width, header.height, header.mode, sha256(data), len(data), None, *person)
    return facts, [_fitted(image, resolution, fit) for resolution, fit in wanted]


def _refuse_constant(data: bytes) -> None:
    """A scaled picture may hide a difference: looks at the whole one."""
    low, high = _decode(data, side=None).getextrema()
    if low == high:
        raise UnusableError(f"constant: every pixel is {low}")


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
    return _quality(sum(tables[0]))


@lru_cache
def _quality(luminance: int) -> int:
    return int(np.abs(_SUMS - luminance).argmin()) + 1


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
    return _fitted(image, resolution, fit)


def _fitted(image: Image.Image, resolution: int, fit: Fit) -> npt.NDArray[np.uint8]:
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
