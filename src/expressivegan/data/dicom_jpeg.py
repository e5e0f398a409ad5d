"""Lossless and 12-bit JPEG for pydicom, by imagecodecs: all other decoders of these that it knows are GPL or refuse.

The names below are those that pydicom asks a plugin for.
"""

from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner

EXTENDED, LOSSLESS, LOSSLESS_FIRST_ORDER = (f"1.2.840.10008.1.2.4.{end}" for end in ("51", "57", "70"))
DECODER_DEPENDENCIES = dict.fromkeys((EXTENDED, LOSSLESS, LOSSLESS_FIRST_ORDER), ("imagecodecs",))


def is_available(uid: str) -> bool:
    """Whether pictures of that transfer syntax can be decoded here."""
    return uid in DECODER_DEPENDENCIES and find_spec("imagecodecs") is not None


def decode_frame(src: bytes, runner: "DecodeRunner") -> bytes:
    """One grey frame → its pixels, row by row."""
    from imagecodecs import jpeg_decode

    if runner.samples_per_pixel != 1:
        raise NotImplementedError("colours are left to other decoders")
    pixels = jpeg_decode(src)
    if pixels.shape != (runner.rows, runner.columns):
        raise ValueError(f"the packed picture has the shape {pixels.shape}")
    runner.set_option("bits_allocated", 8 * pixels.dtype.itemsize)
    return bytes(pixels.tobytes())


def add_to_pydicom() -> None:
    """Makes pydicom ask this module where its own decoders do not answer; again is harmless."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    for uid in DECODER_DEPENDENCIES:
        with suppress(ValueError):  # it is there already
            get_decoder(UID(uid)).add_plugin("imagecodecs", (__name__, "decode_frame"))
