"""DICOM files → 8-bit grey as a viewer shows them, and what their headers say about the patient.

The pixels go through the modality LUT (or rescale), then through the VOI LUT or the window. Without the latter, 8-bit
pixels are taken as they are, since that is how files for display were exported; deeper ones are spread from the darkest
to the brightest, so that nothing is clipped and no share of the pixels has to be chosen. MONOCHROME1 is turned round.

All of this is a function of the single pixel, and no pixel has more than 16 bits; so it is worked out for every value
that occurs, and the picture is one look-up.
"""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from expressivegan.data import dicom_jpeg
from expressivegan.data.decode import MAX_PIXELS, MIN_SIDE, UnusableError
from expressivegan.data.people import age_of, sex_of

if TYPE_CHECKING:
    from pydicom import Dataset

FloatArray = npt.NDArray[np.float64]
_EXTRA = "pip install 'expressivegan[dicom]'"
_ROWS = 256
_MAX_BYTES = 1 << 28
_META_BYTES = 1 << 16  # for the group before the data set, which takes a few hundred
_MAX_COMPONENTS = 4
# Nothing else is parsed: private elements may be as many and as odd as they like.
_WANTED = [
    "SpecificCharacterSet", "SOPClassUID", "Modality", "PatientID", "PatientSex", "PatientAge", "SamplesPerPixel",
    "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope",
    "RescaleIntercept", "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
    "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData", "PixelData", "FloatPixelData", "DoubleFloatPixelData",
]  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What a DICOM file says about its picture and its patient."""

    width: int
    height: int
    mode: str
    """Photometric interpretation and bits, such as "MONOCHROME2/12"."""
    patient: str | None
    sex: str | None
    """"F" or "M"."""
    age: float | None
    """Years."""


def read(data: bytes) -> tuple[Image.Image, Header]:
    """Decodes a DICOM file once.

    Returns:
        The picture, 8-bit grey at its full size, and its header.

    Raises:
        UnusableError: without pixels, with several frames, too small, too large, damaged, or packed in a way that
            nothing installed unpacks.
    """
    with _quietly():
        dataset = _parsed(data)
        header = _header(dataset)
        try:
            return Image.fromarray(_grey(dataset)), header
        except UnusableError:
            raise
        except Exception as error:  # decoders of hostile bytes raise anything
            plugin = "available plugins" in str(error) and find_spec("imagecodecs") is None
            hint = f"; {_EXTRA} may read it" if plugin else ""
            raise UnusableError(f"truncated or damaged DICOM: {_told(error)}{hint}") from None


def _parsed(data: bytes) -> "Dataset":
    import pydicom

    if len(data) > _MAX_BYTES:  # it is held twice while it is parsed
        raise UnusableError(f"DICOM larger than {_MAX_BYTES >> 20} MiB")
    try:
        if _deflated(data):  # it would be unpacked whole, of any size
            raise UnusableError("deflated DICOM; save it without deflation of the whole data set")
        return pydicom.dcmread(io.BytesIO(data), specific_tags=list(_WANTED))
    except UnusableError:
        raise
    except Exception as error:  # decoders of hostile bytes raise anything
        raise UnusableError(f"unreadable DICOM header: {_told(error)}") from None


def _deflated(data: bytes) -> bool:
    """Asks pydicom's own parser, so that no file can show this check one syntax and `dcmread` another."""
    from pydicom.filereader import _read_file_meta_info, read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    head = io.BytesIO(data[:_META_BYTES])
    read_preamble(head, force=False)
    meta = _read_file_meta_info(head)
    if head.tell() == _META_BYTES:  # the group does not end here, and what follows may say anything
        raise UnusableError(f"DICOM with more than {_META_BYTES >> 10} KiB of file meta information")
    return bool(meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian)


def _header(dataset: "Dataset") -> Header:
    try:
        kind = str(dataset.get("Modality", "") or "unknown")
        if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
            raise UnusableError("DICOM with floating-point pixels, which have no known range")
        if "PixelData" not in dataset or not dataset.get("Rows") or not dataset.get("Columns"):
            raise UnusableError(f"DICOM without pixels (modality {kind})")
        frames = int(dataset.get("NumberOfFrames", 1) or 1)
        if frames > 1:
            raise UnusableError(f"{frames} frames in one file; save each as a file of its own")
        width, height = int(dataset.Columns), int(dataset.Rows)
        if min(width, height) < MIN_SIDE:
            raise UnusableError(f"{width}x{height} pixels, smaller than {MIN_SIDE}x{MIN_SIDE}")
        if width * height > MAX_PIXELS:
            raise UnusableError(f"{width * height / 1e6:.0f} megapixels, more than {MAX_PIXELS / 1e6:.0f}")
        if dataset.get("BitsAllocated") not in (8, 16):
            raise UnusableError(f"DICOM with {dataset.get('BitsAllocated')} bits a pixel; 8 and 16 are read")
        return Header(
            width,
            height,
            f"{dataset.PhotometricInterpretation}/{dataset.get('BitsStored', dataset.BitsAllocated)}",
            str(dataset.get("PatientID", "") or "").strip() or None,
            sex_of(str(dataset.get("PatientSex", "") or "")),
            age_of(str(dataset.get("PatientAge", "") or "")),
        )
    except UnusableError:
        raise
    except Exception as error:  # values are parsed when they are asked for
        raise UnusableError(f"unreadable DICOM header: {_told(error)}") from None


def _grey(dataset: "Dataset") -> npt.NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    _check_decoder(dataset)
    pixels = pixel_array(dataset, index=0)  # the frame that was looked at; pydicom would unpack further ones, too
    del dataset.PixelData  # the pixels are large enough without it
    kind = str(dataset.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
    if pixels.ndim == 3:
        if pixels.dtype != np.uint8:
            bits = 16 if kind == "PALETTE COLOR" else int(dataset.BitsStored)
            pixels = (pixels >> max(0, bits - 8)).clip(0, 255).astype(np.uint8)
        return np.asarray(Image.fromarray(pixels[..., :3]).convert("L"))
    if not kind.startswith("MONOCHROME"):
        raise UnusableError(f"DICOM with pixels of the kind {kind!r}; save it as MONOCHROME2")
    if pixels.dtype.itemsize > 2 or pixels.dtype.kind not in "iu":
        raise UnusableError(f"DICOM with pixels of type {pixels.dtype}; 8 and 16 bits are read")
    pixels = _without_spare_bits(pixels, dataset)
    low, high = int(pixels.min()), int(pixels.max())
    values = np.arange(low, high + 1, dtype=np.int64)
    shown = _displayed(values, _exposed(pixels, dataset), dataset)
    grey = np.empty(pixels.shape, np.uint8)
    for top in range(0, len(pixels), _ROWS):  # the numbers of the places take eight bytes each
        grey[top : top + _ROWS] = shown[pixels[top : top + _ROWS].astype(np.intp) - low]
    return grey


def _check_decoder(dataset: "Dataset") -> None:
    """Refuses what nothing unpacks, and a packed picture that is larger than the header admits."""
    from pydicom.encaps import generate_frames
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import RLELossless

    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return
    with _lock:
        dicom_jpeg.add_to_pydicom()
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise UnusableError(
            f"DICOM packed as {syntax.name}, which is not read; unpack it, for example by dcmtk"
        ) from None
    if not decoder.is_available:
        raise UnusableError(f"DICOM packed as {syntax.name}; {_EXTRA} to read it")
    frame = next(iter(generate_frames(dataset.PixelData, number_of_frames=1)))
    if syntax == RLELossless:  # says no size of its own; runs that are no runs cost one byte in 128
        raw = dataset.Rows * dataset.Columns * dataset.get("SamplesPerPixel", 1) * dataset.BitsAllocated // 8
        if len(frame) > 2 * raw + 1024:
            raise UnusableError("DICOM whose run-length packed picture is larger than the unpacked one can be")
        return
    size = codestream_size(frame)
    if size is None:  # a decoder may find one all the same, in a JP2 box for example
        raise UnusableError(
            f"DICOM packed as {syntax.name}, and its pixels do not begin as such a picture that says its size"
        )
    if size != (dataset.Columns, dataset.Rows):
        raise UnusableError(
            f"DICOM whose packed picture has {size[0]}x{size[1]} pixels, and its header says "
            f"{dataset.Columns}x{dataset.Rows}"
        )


def codestream_size(frame: bytes) -> tuple[int, int] | None:
    """(width, height) that a JPEG, JPEG-LS or JPEG 2000 picture says it has; None for others, and for JP2 files."""
    if frame[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000: SIZ comes first, and tells extent and offset
        x, y, left, top = (int.from_bytes(frame[8 + 4 * i : 12 + 4 * i], "big") for i in range(4))
        if int.from_bytes(frame[40:42], "big") > _MAX_COMPONENTS:
            return None
        return x - left, y - top
    if frame[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # fill bytes
            at += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return int.from_bytes(frame[at + 7 : at + 9], "big"), int.from_bytes(frame[at + 5 : at + 7], "big")
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None


def _without_spare_bits(pixels: npt.NDArray[Any], dataset: "Dataset") -> npt.NDArray[Any]:
    """Overlays may live in the bits above the stored ones."""
    spare = 8 * pixels.dtype.itemsize - int(dataset.get("BitsStored", 0) or 8 * pixels.dtype.itemsize)
    native = not dataset.file_meta.TransferSyntaxUID.is_encapsulated
    if native and 0 < spare < 8 * pixels.dtype.itemsize and dataset.get("HighBit") == dataset.BitsStored - 1:
        pixels = pixels << spare
        pixels >>= spare  # keeps the sign of signed ones
    return pixels


def _displayed(values: npt.NDArray[np.int64], exposed: tuple[int, int], dataset: "Dataset") -> npt.NDArray[np.uint8]:
    """Stored values, ascending, → 0..255 on the screen; `exposed` are the lowest and the highest that matter."""
    grey = _windowed(_modality(values, dataset), (values >= exposed[0]) & (values <= exposed[1]), dataset)
    if str(dataset.PhotometricInterpretation) == "MONOCHROME1":
        grey = 1 - grey
    shown = np.rint(np.clip(np.nan_to_num(grey), 0, 1) * 255).astype(np.uint8)
    padding = _padding(dataset)
    if padding is not None:
        shown[(values >= padding[0]) & (values <= padding[1])] = 0
    return shown


def _modality(values: npt.NDArray[np.int64], dataset: "Dataset") -> FloatArray:
    if dataset.get("ModalityLUTSequence"):
        table, first, _ = _table(dataset.ModalityLUTSequence[0])
        return np.asarray(table[np.clip(values - first, 0, len(table) - 1)])
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    if slope is None or intercept is None:
        return values.astype(np.float64)
    return np.asarray(values * float(slope) + float(intercept), np.float64)


def _windowed(values: FloatArray, real: npt.NDArray[np.bool_], dataset: "Dataset") -> FloatArray:
    """Values after the modality LUT → 0..1; `real` are those that are no padding."""
    if dataset.get("VOILUTSequence"):
        table, first, bits = _table(dataset.VOILUTSequence[0])
        places = np.clip(np.rint(values).astype(np.int64) - first, 0, len(table) - 1)
        top = max(float(2**bits - 1), 1.0)
        # Some files announce 16 bits and fill 12 of them, or the reverse.
        full = top if top / 2 <= table.max() <= top else max(float(table.max()), 1.0)
        return np.asarray(table[places] / full, np.float64)
    window = _window(dataset)
    if window is not None:
        return _through(values, *window, str(dataset.get("VOILUTFunction") or "LINEAR"))
    bits = int(dataset.get("BitsStored", 0) or dataset.BitsAllocated)
    plain = "RescaleSlope" not in dataset and not dataset.get("ModalityLUTSequence")
    neutral = not plain and (dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")) == (1, 0)
    if bits <= 8 and (plain or neutral) and not dataset.get("PixelRepresentation"):
        return np.asarray(values / (2**bits - 1), np.float64)
    low, high = float(values[real].min()), float(values[real].max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _through(values: FloatArray, centre: float, width: float, function: str) -> FloatArray:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3, with an output of 0..1."""
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700))), np.float64)
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if width <= 1:  # a step
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def _window(dataset: "Dataset") -> tuple[float, float] | None:
    """Centre and width of the first window, or None where there is no sensible one."""
    with suppress(TypeError, ValueError, IndexError):
        both = [dataset.get("WindowCenter"), dataset.get("WindowWidth")]
        centre, width = (float(v if not hasattr(v, "__len__") or isinstance(v, str) else v[0]) for v in both)
        if np.isfinite(centre) and np.isfinite(width) and width > 0:
            return centre, width
    return None


def _table(item: "Dataset") -> tuple[FloatArray, int, int]:
    """Entries of a look-up table, the value that the first is for, and its bits."""
    count, first, bits = (int(v) for v in item.LUTDescriptor)
    data = item.LUTData
    if isinstance(data, bytes):  # of an unsure type, then always of 16 bits
        data = np.frombuffer(data, "<u2")
    table = np.atleast_1d(np.asarray(data, np.float64))[: count or 1 << 16]
    if not len(table):
        raise UnusableError("DICOM with an empty look-up table")
    return table, first, bits


def _padding(dataset: "Dataset") -> tuple[int, int] | None:
    """Between which values a pixel says that nothing was exposed there."""
    edge = dataset.get("PixelPaddingValue")
    if not isinstance(edge, int):
        return None
    other = dataset.get("PixelPaddingRangeLimit")
    return min(edge, other) if isinstance(other, int) else edge, max(edge, other) if isinstance(other, int) else edge


def _exposed(pixels: npt.NDArray[Any], dataset: "Dataset") -> tuple[int, int]:
    """The lowest and the highest stored value, apart from padding."""
    padding = _padding(dataset)
    if padding is not None:
        inside = pixels[(pixels < padding[0]) | (pixels > padding[1])]
        if inside.size:
            pixels = inside
    return int(pixels.min()), int(pixels.max())


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


_reading = 0
_lock = threading.Lock()
_filters: "warnings.catch_warnings[None] | None" = None


@contextmanager
def _quietly() -> Iterator[None]:
    """Silences pydicom's remarks on odd values. Counted, since filters belong to all threads at once."""
    global _reading, _filters
    with _lock:
        _reading += 1
        if _reading == 1:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            warnings.filterwarnings("ignore", module=r"pydicom\b")
    try:
        yield
    finally:
        with _lock:
            _reading -= 1
            if _reading == 0 and _filters is not None:
                _filters.__exit__(None, None, None)
                _filters = None
