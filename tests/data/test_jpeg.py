"""Pillow is the measure: whatever goes the fast way must come out bit for bit as it does there."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from expressivegan.data import decode, jpeg


def picture(width: int, height: int, mode: str = "L", seed: int = 0) -> Image.Image:
    """Soft noise, so that a JPEG of it has coefficients of all sizes."""
    shape = (height // 4 + 1, width // 4 + 1) + ((3,) if mode == "RGB" else ())
    noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def saved(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)  # type: ignore[arg-type]
    return file.getvalue()


def by_pillow(data: bytes, side: int) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    image.draft("L", (side, side))
    return np.asarray(image.convert("L"))


def expect_equal(data: bytes) -> None:
    header = jpeg.peek(data)
    assert header is not None
    image = Image.open(io.BytesIO(data))
    assert (header.width, header.height, header.mode) == (*image.size, image.mode)
    assert header.luminance == sum(image.quantization[0])  # type: ignore[attr-defined]
    for side in (1, 16, 33, 64, 128):
        scale = jpeg.scale((header.width, header.height), side)
        fast, slow = jpeg.grey(data, header, scale), by_pillow(data, side)
        assert fast is not None
        assert np.array_equal(fast, slow)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_cut_anywhere_it_is_no_header_or_the_same(mode: str) -> None:
    whole = saved(picture(64, 64, "RGB" if mode == "CMYK" else mode).convert(mode))
    header = jpeg.peek(whole)
    for end in range(len(whole)):
        assert jpeg.peek(whole[:end]) in (None, header)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(16, 300), st.integers(16, 300)),
    st.sampled_from(["L", "RGB"]),
    st.integers(1, 100),
    st.sampled_from([0, 1, 2]),
    st.booleans(),
    st.integers(0, 20),
)
def test_the_same_pixels_as_pillow(
    size: tuple[int, int], mode: str, quality: int, subsampling: int, progressive: bool, restart: int
) -> None:
    expect_equal(
        saved(
            picture(*size, mode),
            quality=quality,
            subsampling=subsampling,
            progressive=progressive,
            restart_marker_blocks=restart,
        )
    )


def test_the_same_pixels_of_real_files(kermany_dir: Path) -> None:
    files = sorted((kermany_dir / "originals").rglob("*.jpeg"))[::8]
    files += sorted((kermany_dir / "chest_xray" / "test").rglob("*.jpeg"))[::20]
    ordinary = [data for data in map(Path.read_bytes, files) if jpeg.peek(data) is not None]
    assert len(ordinary) > 0.8 * len(files) > 16  # a few carry an orientation
    for data in ordinary:
        expect_equal(data)


def with_segment(data: bytes, marker: int, body: bytes) -> bytes:
    return data[:2] + bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body + data[2:]


def exif(orientation: int | None) -> bytes:
    tags = Image.Exif()
    tags[0x010E] = "an X-ray"
    if orientation is not None:
        tags[0x0112] = orientation
    return tags.tobytes()


def unusual() -> dict[str, bytes]:
    grey = picture(40, 56)
    plain = saved(grey)
    adobe = b"Adobe\0\x64\0\0\0\0"
    rgb = saved(picture(40, 56, "RGB"), keep_rgb=True)
    previews = io.BytesIO()
    grey.save(previews, "MPO", save_all=True, append_images=[picture(20, 28)])
    return {
        "cmyk": saved(picture(40, 56, "RGB").convert("CMYK")),
        "rgb": rgb,
        "ycck": with_segment(saved(picture(40, 56, "RGB").convert("CMYK")), 0xEE, adobe + b"\2"),
        "turned": saved(grey, exif=exif(6)),
        "turned by xmp": with_segment(plain, 0xE1, b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="8"/>'),
        "previews": previews.getvalue(),
        "twelve bits": plain.replace(b"\xff\xc0\x00\x0b\x08", b"\xff\xc0\x00\x0b\x0c"),
        "arithmetic": plain.replace(b"\xff\xc0\x00\x0b", b"\xff\xc9\x00\x0b"),
        "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "headers only": plain[: plain.index(b"\xff\xda")],
        "nothing": b"",
        "start alone": b"\xff\xd8\xff",
        "zero length": b"\xff\xd8\xff\xe0\0\0" + bytes(40),
    }


@pytest.mark.parametrize("name", unusual())
def test_what_is_unusual_is_left_to_pillow(name: str) -> None:
    assert jpeg.peek(unusual()[name]) is None


@pytest.mark.parametrize("name", ["cmyk", "rgb", "turned", "turned by xmp", "previews"])
def test_what_pillow_reads_of_it_comes_as_ever(name: str) -> None:
    data = unusual()[name]
    pixels = decode.load_pixels(data, 16, "stretch")
    facts, (fitted,) = decode.inspect_and_fit(data, [(16, "stretch")])
    assert (pixels == fitted).all()
    assert (facts.width, facts.height) == ImageOps.exif_transpose(Image.open(io.BytesIO(data))).size


def test_tags_that_turn_nothing_are_no_hindrance() -> None:
    data = saved(picture(70, 50), exif=exif(None), icc_profile=b"x" * 500, comment=b"hello")
    assert b"Exif" in data
    expect_equal(data)


@pytest.mark.parametrize("cut", [1, 2, 3, 30, 300, 1500])
@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_files_are_refused_as_ever(cut: int, progressive: bool) -> None:
    data = saved(picture(200, 200), progressive=progressive)[:-cut]
    with pytest.raises(OSError, match="truncated"):
        by_pillow(data, 200)
    with pytest.raises(decode.UnusableError, match="truncated or damaged"), decode.strict_decoding():
        decode.inspect(data)


def test_what_pillow_forgives_is_still_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(picture(100, 100)) + b"rubbish behind the end"
    spoilt = bytearray(data)
    spoilt[len(spoilt) // 2] ^= 0x55
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    for given_data in (data, bytes(spoilt)):
        try:
            expected = by_pillow(given_data, 100)
        except OSError:
            with pytest.raises(decode.UnusableError):
                decode.load_pixels(given_data, 100, "stretch")
        else:
            assert (decode.load_pixels(given_data, 100, "stretch") == expected).all()


def test_small_and_large_are_refused_by_their_headers() -> None:
    with pytest.raises(decode.UnusableError, match="15x40 pixels, smaller than 16x16"):
        decode.inspect(saved(picture(15, 40)))
    data = bytearray(saved(picture(64, 64)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 20_000, 20_000)
    with pytest.raises(decode.UnusableError, match="400 megapixels, more than 64"):
        decode.inspect(bytes(data))


@pytest.mark.parametrize("side", [16, 300])
def test_a_constant_picture_is_refused_and_a_hidden_dot_is_seen(side: int) -> None:
    with pytest.raises(decode.UnusableError, match="constant: every pixel is 77"):
        decode.inspect(saved(Image.new("L", (side, side), 77)))
    pixels = np.full((side, side), 77, np.uint8)
    pixels[side // 2, side // 2] = 90
    assert decode.inspect(saved(Image.fromarray(pixels), quality=95)).quality == 95
