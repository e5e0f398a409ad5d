import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from expressivegan.data import decode
from expressivegan.data.decode import UnusableError, load_pixels

RAMP = np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1))


def stored(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes, resolution: int = 32, fit: decode.Fit = "stretch") -> np.ndarray:
    return load_pixels(data, resolution, fit).astype(int)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [(m, "PNG") for m in ("L", "RGB", "RGBA", "LA")]
    + [(m, "TIFF") for m in ("L", "RGB", "RGBA", "LA", "CMYK")]
    + [(m, "JPEG") for m in ("L", "RGB", "CMYK")],
)
def test_every_mode_becomes_the_same_grey(mode: str, kind: str) -> None:
    ramp = Image.fromarray(RAMP)
    image = ramp.convert("RGB").convert("CMYK") if mode == "CMYK" else ramp.convert(mode)
    options = {"quality": 100} if kind == "JPEG" else {}
    assert np.abs(pixels(stored(image, kind, **options)) - RAMP).max() <= (3 if kind == "JPEG" else 0)


def test_sixteen_bits_use_their_full_range() -> None:
    wide = RAMP.astype(np.uint16) * 257
    wide[0, 0], wide[0, 1] = 65535, 128  # 128/257 rounds to 0, and nothing overflows at the top
    for kind in ("PNG", "TIFF", "PPM"):
        got = pixels(stored(Image.fromarray(wide), kind))
        assert got[0, 0] == 255
        assert got[0, 1] == 0
        assert (got[1:] == RAMP[1:]).all()
    swapped = stored(Image.frombytes("I;16B", (32, 32), wide.astype(">u2").tobytes()), "TIFF")
    assert (pixels(swapped)[1:] == RAMP[1:]).all()


def test_white_is_zero() -> None:
    inverted = {262: 0}  # Pillow turns 8-bit pixels round when it writes this tag, and 16-bit pixels not
    assert (pixels(stored(Image.fromarray(RAMP), "TIFF", tiffinfo=inverted)) == RAMP).all()
    wide = Image.fromarray((255 - RAMP).astype(np.uint16) * 257)
    assert (pixels(stored(wide, "TIFF", tiffinfo=inverted)) == RAMP).all()


def test_palette_and_one_bit() -> None:
    palette = Image.fromarray(255 - RAMP, "L").convert("P")
    palette.putpalette([v for i in range(256) for v in (255 - i,) * 3])
    assert (pixels(stored(palette)) == RAMP).all()
    assert set(np.unique(pixels(stored(Image.fromarray(RAMP > 100))))) == {0, 255}


def test_transparent_is_black() -> None:
    rgba = np.dstack([RAMP, RAMP, RAMP, np.full_like(RAMP, 255)])
    rgba[:, 16:, 3] = 0
    expected = RAMP.copy()
    expected[:, 16:] = 0
    assert (pixels(stored(Image.fromarray(rgba))) == expected).all()
    assert (pixels(stored(Image.fromarray(RAMP), transparency=248))[:, 31] == 0).all()


def test_exif_rotation_is_undone() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90° clockwise to show"
    assert (pixels(stored(Image.fromarray(RAMP), exif=exif)) == np.rot90(RAMP, -1)).all()


def test_fit() -> None:
    wide = np.zeros((40, 80), np.uint8)
    wide[:, 20:60] = 200  # the centre square
    data = stored(Image.fromarray(wide))
    assert (pixels(data, 40, "crop") == 200).mean() > 0.9
    padded = pixels(data, 40, "pad")
    assert padded[:9].max() == padded[-9:].max() == 0
    assert (padded[12:28, 12:28] == 200).all()
    stretched = pixels(data, 40)
    assert (stretched[:, 12:28] == 200).all()
    assert stretched[:, :8].max() == 0


def test_shrinking_antialiases() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (640, 320))
    for data in (stored(Image.fromarray(stripes)), stored(Image.fromarray(stripes), "JPEG", quality=98)):
        inside = pixels(data, 64)[8:-8, 8:-8]
        assert np.abs(inside - 127).max() <= 3


def test_draft_agrees_with_full_decoding() -> None:
    y, x = np.mgrid[:900, :1200]
    smooth = (127 + 100 * np.sin(x / 70) * np.cos(y / 50)).astype(np.uint8)
    fast = pixels(stored(Image.fromarray(smooth), "JPEG", quality=95), 64)
    assert np.abs(fast - pixels(stored(Image.fromarray(smooth)), 64)).max() <= 3


def damaged() -> dict[str, tuple[bytes, str]]:
    jpeg = stored(Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300), dtype=np.uint8)), "JPEG")
    png = stored(Image.fromarray(RAMP))
    header = b"IHDR" + (20000).to_bytes(4, "big") * 2 + png[24:29]  # says 400 megapixels
    huge = png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:]
    large = stored(Image.new("1", (8001, 8000)))
    frames = [Image.fromarray(RAMP), Image.fromarray(255 - RAMP)]
    many = stored(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    return {
        "empty": (b"", "empty file"),
        "text": (b"patient,label\n1,NORMAL\n", "not an image"),
        "truncated JPEG": (jpeg[: len(jpeg) // 2], "truncated"),
        "JPEG header": (jpeg[:300], "truncated|header|not an image"),
        "truncated PNG": (png[:-30], "truncated|damaged"),
        "one pixel": (stored(Image.new("L", (1, 1))), "1x1"),
        "thin": (stored(Image.new("L", (15, 400))), "15x400"),
        "bomb": (huge, "megapixels"),
        "large": (large, "64 megapixels, more than 64"),
        "black": (stored(Image.new("L", (64, 64))), "constant: every pixel is 0"),
        "float": (stored(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), "no known range"),
        "32 bits": (stored(Image.fromarray(RAMP.astype(np.int32)), "TIFF"), "no known range"),
        "frames": (many, "2 frames"),
    }


@pytest.mark.parametrize("name", damaged())
@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.filterwarnings("ignore:Image size:PIL.Image.DecompressionBombWarning")
def test_unusable_files_say_why(name: str, lenient: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)  # as another library may have left it
    data, reason = damaged()[name]
    (tmp_path / "file").write_bytes(data)
    with decode.strict_decoding(), pytest.raises(UnusableError, match=reason):
        decode.inspect(decode.read_bytes(tmp_path / "file"))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is lenient


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match="cannot be read"):
        decode.inspect(decode.read_bytes(tmp_path / "none.png"))


def test_a_single_dot_is_not_constant(tmp_path: Path) -> None:
    dot = np.zeros((800, 800), np.uint8)
    dot[401, 399] = 255
    (tmp_path / "dot.jpg").write_bytes(stored(Image.fromarray(dot), "JPEG", quality=95))
    facts = decode.inspect(decode.read_bytes(tmp_path / "dot.jpg"))
    assert (facts.width, facts.height, facts.mode) == (800, 800, "L")
