"""What does preparing a set cost beside decoding it? Run: python benchmarks/prepare.py [folder of images]

Prints, at the sizes asked for, images per second and microseconds of processor time per image of

- decoding alone: list the folder, read each file, decode it to grey and bring it to size, in the same threads; discard;
- the same by Pillow alone;
- preparing from an empty cache: manifest with facts and hashes of all files, journal, pixels on disk, checksums.

The ratio of the first to the last is the share of the time that goes into decoding. Wall time counts what a user waits,
processor time what does not depend on other people's jobs. The repetitions of the three are interleaved, and of each
the median counts. With --scale it measures instead how memory and speed behave as the set grows: small JPEG files are
written, prepared in a process of its own, and the slope of its peak memory over two sizes is printed.
"""

import argparse
import io
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ending import leave
from PIL import Image

from expressivegan.data import decode
from expressivegan.data.examine import chunks, parallel, workers
from expressivegan.data.phantom import CLASSES, draw_batch
from expressivegan.data.prepare import prepare


def by_pillow(data: bytes, side: int) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    image.draft("L", (2 * side, 2 * side))
    image = image.convert("L")
    return np.asarray(image if image.size == (side, side) else image.resize((side, side), decode.RESAMPLING))


def by_us(data: bytes, side: int) -> np.ndarray:
    return decode.load_pixels(data, side, "stretch")


def decode_all(folder: Path, side: int, decoder: Callable[[bytes, int], np.ndarray]) -> int:
    """Lists, reads, decodes and discards; returns how many files."""

    def one(names: Sequence[Path]) -> int:
        for name in names:
            decoder(decode.read_bytes(name), side)
        return len(names)

    files = [path for path in folder.rglob("*") if path.suffix.lower() in (".jpeg", ".jpg", ".png")]
    return sum(parallel(one, chunks(files, side * side), "", progress=False))


def prepare_cold(folder: Path, side: int) -> int:
    with tempfile.TemporaryDirectory() as cache:
        done = prepare(folder, (side,), cache_dir=Path(cache), progress=False)
        return done.images + done.rejected


def costs(folder: Path, side: int, repetitions: int) -> dict[str, object]:
    """Median rates of the three ways."""
    ways: dict[str, Callable[[], int]] = {
        "decode": lambda: decode_all(folder, side, by_us),
        "pillow": lambda: decode_all(folder, side, by_pillow),
        "prepare": lambda: prepare_cold(folder, side),
    }
    wall: dict[str, list[float]] = {name: [] for name in ways}
    busy: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repetitions + 1):
        for name, way in ways.items():
            start, used = time.perf_counter(), time.process_time()
            count = way()
            if turn:  # the first fills the system's cache of files
                wall[name].append((time.perf_counter() - start) / count)
                busy[name].append((time.process_time() - used) / count)
    per_image = {name: statistics.median(times) for name, times in wall.items()}
    used_up = {name: statistics.median(times) for name, times in busy.items()}
    return {
        "images_per_second": {name: round(1 / seconds) for name, seconds in per_image.items()},
        "processor_microseconds_per_image": {name: round(1e6 * seconds, 1) for name, seconds in used_up.items()},
        "ratio_wall": round(per_image["decode"] / per_image["prepare"], 2),
        "ratio_processor": round(used_up["decode"] / used_up["prepare"], 2),
        "ratio_wall_to_pillow": round(per_image["pillow"] / per_image["prepare"], 2),
    }


def write_phantoms(folder: Path, count: int, side: int) -> None:
    for start in range(0, count, 100):
        numbers = range(start, min(start + 100, count))
        pictures, _ = draw_batch(list(numbers), [CLASSES[i % 3] for i in numbers], side)
        for i, picture in zip(numbers, pictures, strict=True):
            path = folder / CLASSES[i % 3] / f"{i}.jpeg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(picture)).save(path)


def write_small(folder: Path, count: int, side: int = 28) -> None:
    """Different noise in each, a thousand files in a folder."""
    random = np.random.default_rng(0)
    for i in range(count):
        path = folder / "ab"[i % 2] / f"{i // 1000:04}" / f"patient{i // 3:07}-{i % 3}.jpeg"
        if i % 1000 < 2:
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (side, side), dtype=np.uint8)).save(path)


def peak(folder: str, side: int) -> None:
    """Prepares, and prints what it took; to be run in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as cache, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start, used = time.perf_counter(), time.process_time()
        done = prepare(folder, (side,), cache_dir=Path(cache), patient_regex=r"(patient\d+)", progress=False)
        seconds, busy = time.perf_counter() - start, time.process_time() - used
        start = time.perf_counter()
        prepare(folder, (side,), cache_dir=Path(cache), patient_regex=r"(patient\d+)", progress=False)
        again = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"images": done.images, "seconds": round(seconds, 1), "processor_seconds": round(busy, 1),
                      "images_per_second": round(done.images / seconds), "seconds_to_open_again": round(again, 2),
                      "peak_mb": after // 1024, "peak_mb_before": before // 1024}))  # fmt: skip


def growth(count: int, side: int) -> dict[str, object]:
    """Peak memory and speed at a quarter of `count` and at `count`."""
    runs = []
    for n in (count // 4, count):
        with tempfile.TemporaryDirectory() as temporary:
            write_small(Path(temporary), n)
            command = [sys.executable, __file__, "--peak", temporary, "--resolutions", str(side)]
            runs.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    slope = (runs[1]["peak_mb"] - runs[0]["peak_mb"]) * 2**20 / (runs[1]["images"] - runs[0]["images"])
    return {"runs": runs, "peak_bytes_per_image": round(slope)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="folder of JPEG or PNG files that prepare understands")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[64, 224])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--scale", type=int, help="measure memory with so many small files instead")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        peak(options.peak, options.resolutions[0])
        return
    if options.scale:
        print(json.dumps(growth(options.scale, min(options.resolutions)), indent=2))
        return
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if options.folder is None:
            write_phantoms(folder, 1500, 224)
        result = {f"{side} px": costs(folder, side, options.repetitions) for side in options.resolutions}
    print(json.dumps({"threads": workers(), **result}, indent=2))


if __name__ == "__main__":
    leave(main)
