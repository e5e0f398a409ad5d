import io
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from data_trees import Tree
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from expressivegan.data import decode, dicom, read_manifest
from expressivegan.data.decode import UnusableError

RAMP = np.add.outer(np.arange(24) * 40, np.arange(32) * 90)  # 0..3710
EIGHT = (RAMP // 15).astype(np.uint8)


def dataset(pixels: np.ndarray, bits: int | None = None, syntax: UID = ExplicitVRLittleEndian, **tags: Any) -> Any:
    made = pydicom.Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = "1.2.3"
    made.Modality, made.PatientID, made.PatientSex, made.PatientAge = "CR", "child 7", "F", "004Y"
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        made.PlanarConfiguration = 0
    made.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    made.BitsAllocated = 8 * pixels.dtype.itemsize
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    made.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    made["PixelData"].VR = "OW"
    for tag, value in tags.items():
        setattr(made, tag, value)
    return made


def stored(made: Any) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, made, enforce_file_format=True)
    return buffer.getvalue()


def shown(made: Any) -> np.ndarray:
    return np.asarray(dicom.read(stored(made))[0]).astype(int)


def stretched(values: np.ndarray) -> np.ndarray:
    values = values.astype(float)
    return np.rint((values - values.min()) / (values.max() - values.min()) * 255).astype(int)


# --- what is shown ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize(("kind", "bits", "less"), [("u2", 12, 0), ("u2", 16, 0), ("i2", 16, 2000), ("i2", 12, 2000)])
def test_deep_pixels_are_spread_from_the_darkest_to_the_brightest(syntax: UID, kind: str, bits: int, less: int) -> None:
    pixels = (RAMP - less).astype(kind)
    assert (shown(dataset(pixels, bits, syntax)) == stretched(RAMP)).all()


def test_eight_bits_are_taken_as_they_are() -> None:
    assert (shown(dataset(EIGHT // 2)) == EIGHT // 2).all()
    assert (shown(dataset(EIGHT // 2, RescaleSlope=1, RescaleIntercept=0)) == EIGHT // 2).all()
    assert (shown(dataset(EIGHT // 4, 6)) == np.rint((EIGHT // 4) / 63 * 255)).all()


def test_monochrome1_is_turned_round() -> None:
    for pixels, bits in ((RAMP.astype(np.uint16), 12), (EIGHT, 8)):
        upright = shown(dataset(pixels, bits))
        turned = shown(dataset(pixels, bits, PhotometricInterpretation="MONOCHROME1"))
        assert (np.abs(upright + turned - 255) <= 1).all()  # halves are rounded to even


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("rescale", [(1, 0), (2.5, -1000)])
def test_the_window_is_pydicoms(function: str, rescale: tuple[float, float]) -> None:
    from pydicom.pixels.processing import apply_modality_lut, apply_windowing

    slope, intercept = rescale
    made = dataset(
        RAMP.astype(np.uint16), 12, WindowCenter=[1500 * slope + intercept, 7], WindowWidth=[1000 * slope, 7],
        VOILUTFunction=function, RescaleSlope=slope, RescaleIntercept=intercept,
    )  # fmt: skip
    peer = apply_windowing(apply_modality_lut(RAMP.astype(np.uint16), made), made).astype(float)
    low, high = intercept, 4095 * slope + intercept
    expected = (peer - low) / (high - low) * 255
    assert np.abs(shown(made) - expected).max() <= 1
    assert len(np.unique(shown(made))) > 20


@pytest.mark.parametrize("width", [0, -5, 1])
def test_odd_windows(width: float) -> None:
    made = dataset(RAMP.astype(np.uint16), 12, WindowCenter=1500, WindowWidth=width)
    expected = (RAMP > 1499.5) * 255 if width == 1 else stretched(RAMP)
    assert (shown(made) == expected).all()


def test_look_up_tables() -> None:
    def table(first: int, entries: np.ndarray, bits: int) -> pydicom.Sequence:
        item = pydicom.Dataset()
        item.LUTDescriptor, item.LUTData = [len(entries), first, bits], entries.astype("<u2").tobytes()
        item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "OW"
        return pydicom.Sequence([item])

    inverse = np.arange(4096)[::-1]
    voi = dataset(RAMP.astype(np.uint16), 12, VOILUTSequence=table(0, inverse, 12))
    assert (shown(voi) == np.rint((4095 - RAMP) / 4095 * 255)).all()
    shifted = dataset(RAMP.astype(np.uint16), 12, VOILUTSequence=table(1000, np.arange(2048), 11))
    assert (shown(shifted) == np.rint(np.clip(RAMP - 1000, 0, 2047) / 2047 * 255)).all()
    modality = dataset(RAMP.astype(np.uint16), 12, ModalityLUTSequence=table(0, inverse, 12))
    assert (shown(modality) == 255 - stretched(RAMP)).all()


def test_padding_is_black_and_does_not_count() -> None:
    pixels = (RAMP + 500).astype(np.int16)
    pixels[:, :4] = -2000
    expected = stretched(RAMP[:, 4:])
    for kind in ("MONOCHROME1", "MONOCHROME2"):
        got = shown(dataset(pixels, 16, PixelPaddingValue=-2000, PhotometricInterpretation=kind))
        assert got[:, :4].max() == 0
        assert (got[:, 4:] == (expected if kind == "MONOCHROME2" else 255 - expected)).all()


def test_bits_above_the_stored_ones_are_no_pixels() -> None:
    overlaid = RAMP.astype(np.uint16) | (np.arange(32) % 2 * 0xF000).astype(np.uint16)
    assert (shown(dataset(overlaid, 12)) == stretched(RAMP)).all()


def test_colour_becomes_grey() -> None:
    colour = np.dstack([EIGHT, EIGHT // 2, 255 - EIGHT])
    expected = np.asarray(Image.fromarray(colour).convert("L"))
    assert (shown(dataset(colour)) == expected).all()
    for name in ("SC_rgb_dcmtk_+eb+cy+s2.dcm", "examples_palette.dcm", "SC_ybr_full_422_uncompressed.dcm"):
        picture, header = dicom.read(bundled(name))
        assert (picture.mode, picture.size) == ("L", (header.width, header.height))
        assert np.asarray(picture).std() > 20


# --- how it is packed -------------------------------------------------------------------------------------------------


def bundled(name: str) -> bytes:
    path = get_testdata_file(name, download=False)
    assert path is not None
    return Path(str(path)).read_bytes()


def packed(pixels: np.ndarray, bits: int, syntax: UID) -> bytes:
    made = dataset(pixels, bits)
    if syntax == JPEGBaseline8Bit:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=100)
        frame = buffer.getvalue()
    elif syntax in (JPEGExtended12Bit, JPEGLosslessSV1):
        codecs = pytest.importorskip("imagecodecs")
        lossless = syntax == JPEGLosslessSV1
        frame = codecs.ljpeg_encode(pixels, bitspersample=bits) if lossless else codecs.jpeg8_encode(pixels, level=100)
    else:
        made.compress(syntax, generate_instance_uid=False)
        return stored(made)
    made.PixelData = encapsulate([frame])
    made["PixelData"].VR = "OB"
    made.file_meta.TransferSyntaxUID = syntax
    return stored(made)


@pytest.mark.parametrize(
    ("syntax", "bits", "error"),
    [
        (RLELossless, 8, 0), (RLELossless, 12, 0), (RLELossless, 16, 0), (JPEGBaseline8Bit, 8, 3),
        (JPEGLosslessSV1, 8, 0), (JPEGLosslessSV1, 12, 0), (JPEGLosslessSV1, 16, 0), (JPEGLSLossless, 8, 0),
        (JPEGLSLossless, 12, 0), (JPEGLSLossless, 16, 0), (JPEG2000Lossless, 8, 0), (JPEG2000Lossless, 12, 0),
        (JPEG2000Lossless, 16, 0),
    ],
)  # fmt: skip
def test_packed_pixels_are_the_same(syntax: UID, bits: int, error: int) -> None:
    for needed in ("imagecodecs", "jpeg_ls", "openjpeg"):
        pytest.importorskip(needed)
    ramp = np.tile(RAMP, (4, 4))  # JPEG 2000 halves it five times
    pixels = (ramp // 15).astype(np.uint8) if bits == 8 else (ramp * (15 if bits == 16 else 1)).astype(np.uint16)
    got = np.asarray(dicom.read(packed(pixels, bits, syntax))[0]).astype(int)
    plain = shown(dataset(pixels, bits))
    assert np.abs(got - plain).max() <= error


@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("MR_small_RLE.dcm", "MR_small.dcm"),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm"),
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"),
        ("MR_small_bigendian.dcm", "MR_small.dcm"),
        ("MR_small_implicit.dcm", "MR_small.dcm"),
    ],
)
def test_bundled_files_agree(name: str, like: str) -> None:
    for needed in ("imagecodecs", "jpeg_ls", "openjpeg"):
        pytest.importorskip(needed)
    one, other = (np.asarray(dicom.read(bundled(n))[0]).astype(int) for n in (name, like))
    assert (one == other).all()


def test_twelve_bits_in_lossy_jpeg() -> None:
    pytest.importorskip("imagecodecs")
    pytest.importorskip("openjpeg")
    one, other = (np.asarray(dicom.read(bundled(n))[0]).astype(float) for n in ("JPGExtended.dcm", "JPEG2000.dcm"))
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.9  # one scan, packed twice with loss


def test_a_missing_decoder_is_named_with_the_way_out() -> None:
    """In a process of its own, since pydicom looks for decoders once."""
    code = (
        "import sys\n"
        "for name in ('imagecodecs', 'jpeg_ls', 'gdcm', 'libjpeg'): sys.modules[name] = None\n"
        "from expressivegan.data import decode\n"
        "for path in sys.argv[1:]:\n"
        "    try: print(decode.inspect(open(path, 'rb').read()).mode)\n"
        "    except decode.UnusableError as error: print(error)\n"
    )
    names = ("MR_small_jpeg_ls_lossless.dcm", "JPGExtended.dcm", "MR_small_RLE.dcm")
    paths = [str(get_testdata_file(name, download=False)) for name in names]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    missing, extended, readable = done.stdout.splitlines()
    assert (
        missing == "DICOM packed as JPEG-LS Lossless Image Compression; pip install 'expressivegan[dicom]' to read it"
    )
    assert extended.endswith("pip install 'expressivegan[dicom]' may read it")
    assert readable == "MONOCHROME2/16"


# --- what is refused --------------------------------------------------------------------------------------------------


def jp2(width: int, height: int, plain: bool = False) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height), 9).save(buffer, "JPEG2000", no_jp2=plain)
    return buffer.getvalue()


def encapsulated(frame: bytes, syntax: UID) -> bytes:
    made = dataset(EIGHT)
    made.file_meta.TransferSyntaxUID = syntax
    made.PixelData = encapsulate([frame])
    made["PixelData"].VR = "OB"
    return stored(made)


def refused() -> dict[str, tuple[bytes, str]]:
    plain = stored(dataset(EIGHT))
    without = dataset(EIGHT)
    del without.PixelData
    frames = dataset(EIGHT)
    frames.PixelData, frames.NumberOfFrames = frames.PixelData * 2, 2
    huge = dataset(EIGHT, Rows=60000, Columns=60000)
    deep = dataset(EIGHT.astype(np.uint32), 32)
    lies = dataset(EIGHT)
    jpeg = io.BytesIO()
    Image.new("L", (4000, 4000), 9).save(jpeg, "JPEG")
    lies.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    lies.PixelData = encapsulate([jpeg.getvalue()])
    real = dataset(EIGHT)
    del real.PixelData
    real.FloatPixelData = EIGHT.astype("<f4").tobytes()
    flat = dataset(np.full((20, 20), 7, np.uint8))
    video = dataset(EIGHT)
    video.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.100")
    video.PixelData = encapsulate([b"\0" * 100])
    boxed, many = jp2(4000, 4000), bytearray(jp2(32, 24, plain=True))
    many[40:42] = b"\x40\x00"
    wrapped = encapsulated(boxed, JPEG2000Lossless)
    hidden = bundled("image_dfl.dcm")
    decoy = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0"  # as the value of (0002,0001)
    at = hidden.index(b"\x02\x00\x01\x00OB")
    ahead = b"\x02\x00\x01\x00OB\0\0" + len(decoy).to_bytes(4, "little") + decoy
    hidden = hidden[:at] + ahead + hidden[at + 14 :]
    padding = b"\x02\x00\x02\x01OB\0\0" + (70_000).to_bytes(4, "little") + bytes(70_000)
    return {
        "deflated behind a decoy": (hidden, "deflated DICOM"),
        "long meta": (plain[:132] + padding + plain[132:], "64 KiB of file meta"),
        "a JP2 file": (wrapped, "JPEG 2000.*do not begin as such a picture that says its size"),
        "a JP2 file in JPEG": (encapsulated(boxed, JPEGBaseline8Bit), "do not begin as such a picture"),
        "thousands of components": (encapsulated(bytes(many), JPEG2000Lossless), "do not begin as such a picture"),
        "runs without end": (encapsulated(bytes(64) + b"\x81\x07" * 10_000, RLELossless), "run-length packed picture"),
        "no pixels": (stored(without), r"DICOM without pixels \(modality CR\)"),
        "a report": (bundled("reportsi.dcm"), r"DICOM without pixels \(modality SR\)"),
        "frames": (stored(frames), "2 frames in one file"),
        "bundled frames": (bundled("SC_rgb_rle_2frame.dcm"), "2 frames in one file"),
        "huge": (stored(huge), "65535|megapixels, more than 64"),
        "32 bits": (stored(deep), "32 bits a pixel"),
        "lying": (stored(lies), "4000x4000 pixels, and its header says 32x24"),
        "float": (stored(real), "floating-point"),
        "flat": (stored(flat), "constant: every pixel is 7"),
        "video": (stored(video), "MPEG2.*is not read"),
        "deflated": (bundled("image_dfl.dcm"), "deflated"),
        "truncated": (bundled("MR_truncated.dcm"), "truncated or damaged DICOM: The number of bytes"),
        "cut in the header": (plain[:300], "without pixels|unreadable|truncated"),
        "cut in the pixels": (plain[:-100], "truncated"),
        "garbage": (bytes(128) + b"DICM" + np.random.default_rng(0).bytes(5000), "DICOM"),
        "nothing else": (bytes(128) + b"DICM", "DICOM"),
        "small": (stored(dataset(EIGHT[:10, :10])), "10x10 pixels, smaller"),
    }


@pytest.mark.parametrize("name", refused())
def test_what_cannot_be_used_says_why(name: str) -> None:
    data, reason = refused()[name]
    with pytest.raises(UnusableError, match=reason):
        decode.inspect(data)


def test_only_the_frame_that_was_looked_at_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a frame more than the header counts, nor one that an extended offset table points to."""
    frames = [io.BytesIO(), io.BytesIO()]
    Image.fromarray(EIGHT).save(frames[0], "JPEG", quality=100)
    Image.new("L", (4000, 4000), 9).save(frames[1], "JPEG")
    both = [f.getvalue() + b"\0" * (len(f.getvalue()) % 2) for f in frames]
    unpacked: list[tuple[int, int]] = []
    real = Image.open

    def noted(*arguments: Any, **options: Any) -> Image.Image:
        image = real(*arguments, **options)
        unpacked.append(image.size)
        return image

    monkeypatch.setattr(Image, "open", noted)
    for extended in (False, True):
        made = dataset(EIGHT)
        made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        made.PixelData = encapsulate(both, has_bot=not extended)
        made["PixelData"].VR = "OB"
        if extended:
            made.ExtendedOffsetTable = (8 + len(both[0])).to_bytes(8, "little")
            made.ExtendedOffsetTableLengths = len(both[1]).to_bytes(8, "little")
        picture, _ = dicom.read(stored(made))
        assert np.abs(np.asarray(picture).astype(int) - EIGHT).max() <= 3
    assert set(unpacked) == {(32, 24)}


def test_any_cut_and_any_flipped_byte_is_refused_or_read() -> None:
    whole = stored(dataset(RAMP.astype(np.uint16), 12, WindowCenter=1500, WindowWidth=900))
    draw = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole)
        for at in draw.integers(132, len(data), 3):
            data[at] = draw.integers(256)
        with suppress(UnusableError):
            decode.inspect(bytes(data[: draw.integers(132, len(data) + 1)]))


# --- in a data set ----------------------------------------------------------------------------------------------------


def folder_of(root: Path, patients: Any, suffix: str = ".dcm") -> Path:
    for label in "ab":
        for i in range(8):
            made = dataset(np.roll(RAMP, i + 8 * (label == "b"), axis=1).astype(np.uint16), 12)
            patient = patients(label, i)
            if patient is None:
                del made.PatientID
            else:
                made.PatientID = patient
            (root / label).mkdir(parents=True, exist_ok=True)
            (root / label / f"{i}{suffix}").write_bytes(stored(made))
    return root


@pytest.mark.parametrize("suffix", [".dcm", "", ".png"])
def test_patients_come_from_the_headers(tmp_path: Path, suffix: str) -> None:
    root = folder_of(tmp_path / "set", lambda label, i: f"{label}{i // 2}", suffix)
    manifest = read_manifest(root, progress=False)  # no warning that images count as patients
    assert manifest.patients_known
    assert manifest.rejected == ()
    assert {r.patient for r in manifest.records} == {f"{label}{i}" for label in "ab" for i in range(4)}
    assert {(r.sex, r.age, r.mode, r.width, r.height) for r in manifest.records} == {
        ("F", 4.0, "MONOCHROME2/12", 32, 24)
    }


@pytest.mark.parametrize(
    "patients", [lambda label, i: "ANONYMOUS", lambda label, i: None if (label, i) == ("a", 3) else f"{label}{i}"]
)
def test_patients_stay_unknown_where_headers_do_not_tell(tmp_path: Path, patients: Any) -> None:
    root = folder_of(tmp_path / "set", patients)
    with pytest.warns(UserWarning, match="EVERY IMAGE COUNTS AS A PATIENT"):
        manifest = read_manifest(root, progress=False)
    assert not manifest.patients_known
    assert {r.patient for r in manifest.records} == {f"{label}/{i}" for label in "ab" for i in range(8)}


def test_the_layouts_patients_go_first(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "set", lambda label, i: f"{label}{i}")
    manifest = read_manifest(root, patient_regex=r"([ab]/\d)", progress=False)
    assert {r.patient for r in manifest.records} == {f"{label}/{i}" for label in "ab" for i in range(8)}


def test_pixels_take_the_common_path() -> None:
    data = stored(dataset(RAMP.astype(np.uint16), 12))
    picture = dicom.read(data)[0]
    cut = decode.load_pixels(data, 16, "stretch", crop=(0.5, 0.5, 1, 1), masks=((0, 0, 0.25, 0.25),))
    assert np.abs(cut.astype(int) - np.asarray(picture.crop((16, 12, 32, 24)).resize((16, 16), 3))).max() == 0


def test_dicom_in_rsnas_layout(tree: Tree, tmp_path: Path) -> None:
    root = folder_of(tmp_path / "set", lambda label, i: f"{label}{i}")
    (root / "stage_2_train_images").mkdir()
    lines = ["patientId,class"]
    for file in sorted(root.glob("?/*.dcm")):
        patient = f"{file.parent.name}{file.stem}"
        file.rename(root / "stage_2_train_images" / f"{patient}.dcm")
        lines.append(f"{patient},{'Normal' if patient[0] == 'a' else 'Lung Opacity'}")
    (root / "stage_2_detailed_class_info.csv").write_text("\n".join(lines))
    manifest = read_manifest(root, progress=False)
    assert (manifest.source, len(manifest.records)) == ("rsna", 16)
    assert {(r.sex, r.age) for r in manifest.records} == {("F", 4.0)}
