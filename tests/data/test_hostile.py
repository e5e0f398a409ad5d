"""Every bad file is handled or named in a list: none crashes, takes over five seconds, or fills a gigabyte."""

import io
import os
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_dicom import dataset, stored

from expressivegan.data import read_manifest

pytestmark = pytest.mark.filterwarnings("ignore:.*EVERY IMAGE COUNTS AS A PATIENT")
RAMP = np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1))
# Reads sources in a process of its own, one file at a time, and says what each cost beyond importing the package.
MEASURE = """
import os, resource, sys, time, warnings
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import pydicom
from expressivegan.data import read_manifest
from expressivegan.errors import ExpressiveGANError
warnings.simplefilter("ignore")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for source in sys.argv[1:]:
    start = time.monotonic()
    try:
        manifest = read_manifest(source, progress=False)
        for r in manifest.rejected:
            print(source, "rejected", r.path, r.reason, sep="\t")
        for r in manifest.records:
            print(source, "used", r.path, r.mode, sep="\t")
    except ExpressiveGANError as error:
        print(source, "refused", "", error, sep="\t")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(source, "cost", time.monotonic() - start, peak // 1024, sep="\t")
"""
Said = dict[str, tuple[str, str]]


def measured(sources: list[Path], mebibytes: int = 1024) -> dict[str, Said]:
    """Source's name → path → what became of it and why; each within five seconds, all within that much memory."""
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    said: dict[str, Said] = {source.name: {} for source in sources}
    for line in done.stdout.splitlines():
        source, what, path, why = line.split("\t")
        if what == "cost":
            assert float(path) < 5, line
            assert int(why) < mebibytes, line
        else:
            said[Path(source).name][path] = (what, why)
    return said


def fill(root: Path, count: int = 8) -> Path:
    for label in "ab":
        (root / label).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = np.random.default_rng([ord(label), i]).integers(0, 256, (24, 28), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{i}.png")
    return root


def png(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG of one and the same row, written without ever holding the picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(b"\0" + rows) for _ in range(height)) + packer.flush()
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def gif(frames: int) -> bytes:
    buffer = io.BytesIO()
    pictures = [Image.fromarray(np.roll(RAMP, i, 1)) for i in range(frames)]
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:])
    return buffer.getvalue()


def test_small_bad_files_are_all_named(tmp_path: Path) -> None:
    root = fill(tmp_path / "set")
    good = (root / "a" / "1.png").read_bytes()
    nan = np.full((32, 32), np.nan, np.float32)
    two, none = dataset(RAMP, NumberOfFrames=2), dataset(RAMP)
    two.PixelData = two.PixelData * 2
    del none.PixelData
    files = {
        "zero.png": b"",
        "truncated.png": good[:-200],
        "garbage.png": np.random.default_rng(0).bytes(5000),
        "garbage.jpg": b"\xff\xd8\xff\xe0" + np.random.default_rng(0).bytes(5000),
        "moving.gif": gif(3),
        "two.dcm": stored(two),
        "none.dcm": stored(none),
    }
    for name, content in files.items():
        (root / "a" / name).write_bytes(content)
    Image.fromarray(nan).save(root / "a" / "nan.tiff")
    os.mkfifo(root / "a" / "pipe.png")
    manifest = read_manifest(root, progress=False)
    reasons = {r.path.removeprefix("a/"): r.reason for r in manifest.rejected}
    assert reasons.keys() == files.keys() | {"nan.tiff", "pipe.png"}
    assert len(manifest.records) == 16
    assert "no known range" in reasons["nan.tiff"]
    assert "3 frames" in reasons["moving.gif"]
    assert "0 bytes" in reasons["zero.png"]


def test_sixteen_bits_and_exif_rotation_are_handled(tmp_path: Path) -> None:
    root = fill(tmp_path / "set")
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100).save(root / "a" / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RAMP).save(root / "a" / "turned.jpg", exif=exif)
    Image.fromarray(RAMP).save(root / "a" / "still.gif")
    manifest = read_manifest(root, progress=False)
    assert manifest.rejected == ()
    assert len(manifest.records) == 19


def test_names_of_any_kind(tmp_path: Path) -> None:
    root = fill(tmp_path / "Röntgen 胸部 \N{LUNGS}")
    pixels = np.random.default_rng(9).integers(0, 256, (24, 28), dtype=np.uint8)
    names = [
        "x" * 196 + ".png",
        "胸部.png",
        "a b'c\"d$(e)\t.png",
        "-rf.png",
        "²³.png",
        "e\u0301.png",
        "\N{LUNGS}.png",
        "%s{0}.png",
    ]
    for i, name in enumerate(names):
        pixels[0, 0] = i
        Image.fromarray(pixels).save(root / "a" / name)
    for bad in (b"\xff\xfe.png", b"line\nbreak.png"):
        with open(os.path.join(os.fsencode(root), b"b", bad), "wb") as file:  # noqa: PTH118, PTH123 - not a str
            pixels[1, 1] = len(bad)
            Image.fromarray(pixels).save(file, "PNG")
    manifest = read_manifest(root, progress=False)
    assert manifest.rejected == ()
    assert {f"a/{n}" for n in names} < {r.path for r in manifest.records}
    assert len(manifest.records) == 26
    manifest.write(tmp_path / "out.jsonl")
    assert type(manifest).read(tmp_path / "out.jsonl") == manifest


def test_a_class_named_by_digits_of_another_kind(tmp_path: Path) -> None:
    root = fill(tmp_path / "set")
    (root / "a").rename(root / "grade²")
    assert read_manifest(root, progress=False).classes == ("b", "grade²")


KINDS = {
    "grey": (0, 1, 8),
    "grey16": (0, 1, 16),
    "rgb": (2, 3, 8),
    "rgb16": (2, 3, 16),
    "rgba": (6, 4, 8),
    "la": (4, 2, 8),
}


@pytest.mark.slow
def test_the_largest_pictures_that_are_taken(tmp_path: Path) -> None:
    """64 megapixels of every kind, which in one piece would fill up to four gigabytes while they become grey."""
    for name, (colour, channels, depth) in KINDS.items():
        levels = np.arange(8000 * channels) % 251
        row = levels.astype("u1") if depth == 8 else (levels * 257).astype(">u2")
        root = fill(tmp_path / name)
        (root / "a" / "large").write_bytes(png(8000, 8000, row.tobytes(), depth, colour))
    root = fill(tmp_path / "dicom")
    line = np.arange(8000, dtype=np.uint16) // 2
    (root / "a" / "large").write_bytes(stored(dataset(np.tile(line, (8000, 1)), 12)))
    names = [*KINDS, "dicom"]
    said = measured([tmp_path / name for name in names])
    assert {name: said[name]["a/large"][0] for name in names} == dict.fromkeys(names, "used")


def test_bombs(tmp_path: Path) -> None:
    folder, archive, labels = tmp_path / "folder", tmp_path / "set.zip", tmp_path / "set.npz"
    fill(folder)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(folder.rglob("*.png")):
            packed.write(file, file.relative_to(folder).as_posix())
        with packed.open("a/zeros.png", "w", force_zip64=True) as member:
            for _ in range(300):
                member.write(bytes(1 << 20))
        packed.writestr("a/400megapixels.png", png(20_000, 20_000, bytes(20_000)))
    large = {
        "400megapixels.png": png(20_000, 20_000, bytes(20_000)),
        "100megapixels.png": png(10_000, 10_000, bytes(10_000)),
        "lies.png": png(40, 40, bytes(40)).replace(b"\0\0\0\x28", b"\x7f\xff\xff\xff"),
        "long.png": png(20_000_000, 3, bytes(20_000_000)),
        "film.gif": gif(1000),
    }
    for name, content in large.items():
        (folder / "a" / name).write_bytes(content)
    with (folder / "a" / "sparse.png").open("wb") as file:
        file.truncate((1 << 30) + 1)
    with zipfile.ZipFile(labels, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:  # says: ten million pictures
        for split in ("train", "val", "test"):
            for kind, shape in (("images", (10_000_000, 16, 1)), ("labels", (10_000_000, 1))):
                header = io.BytesIO()
                form = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(header, form)
                rows = shape[0] if split == "train" else 0
                packed.writestr(f"{split}_{kind}.npy", header.getvalue() + bytes(rows))
    said = measured([folder, archive, labels], mebibytes=400)
    rejected = {name: {p for p, (what, _) in s.items() if what == "rejected"} for name, s in said.items()}
    assert rejected["folder"] == {f"a/{name}" for name in (*large, "sparse.png")}
    assert rejected["set.zip"] == {"a/zeros.png", "a/400megapixels.png"}
    assert said["set.npz"][""][0] == "refused"
    assert "too large" in said["set.npz"][""][1]
