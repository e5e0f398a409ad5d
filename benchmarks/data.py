"""How fast is the data layer? Run: python benchmarks/data.py [folder of images]

Prints images per second of drawing phantoms (one core), and of feeding a training loop from the warm cache against
torchvision's ImageFolder with a DataLoader on the same files. Without a folder the files are phantoms written as JPEG.
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from ending import leave
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from expressivegan.data import ImageSet, load_images
from expressivegan.data.examine import workers
from expressivegan.data.phantom import CLASSES, draw_batch


def phantom_rate(resolution: int, count: int) -> float:
    """Phantoms drawn per second of one core's time."""
    labels = [CLASSES[i % 3] for i in range(count)]
    draw_batch(range(4), labels[:4], resolution)
    start = time.process_time()
    draw_batch(range(count), labels, resolution)
    return count / (time.process_time() - start)


def feed_rate(batches: Callable[[], Iterator[torch.Tensor]], seconds: float) -> float:
    """Images per second, over whole passes of at least `seconds` in all."""
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for images in batches():
            count += len(images)
            if time.perf_counter() - start > 3 * seconds:
                break
    return count / (time.perf_counter() - start)


def ours(images: ImageSet, batch: int) -> Iterator[torch.Tensor]:
    order = torch.randperm(len(images))
    for start in range(0, len(order), batch):
        yield images.batch(order[start : start + batch])[0]


def theirs(folder: Path, resolution: int, batch: int, processes: int) -> Callable[[], Iterator[torch.Tensor]]:
    chain = [
        transforms.Grayscale(),
        transforms.Resize((resolution, resolution)),
        transforms.ToTensor(),
        transforms.Normalize(0.5, 0.5),
    ]
    loader = DataLoader(
        datasets.ImageFolder(str(folder), transforms.Compose(chain)),
        batch_size=batch,
        shuffle=True,
        num_workers=processes,
        persistent_workers=processes > 0,
    )

    def batches() -> Iterator[torch.Tensor]:
        for images, _ in loader:
            yield images

    return batches


def write_phantoms(folder: Path, count: int, side: int) -> None:
    pictures, _ = draw_batch(range(count), [CLASSES[i % 3] for i in range(count)], side)
    for i, picture in enumerate(pictures):
        path = folder / CLASSES[i % 3] / f"{i}.jpeg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(picture)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="folder with class folders, or train/class folders")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    result: dict[str, object] = {
        f"phantoms_per_second_{r}px": round(phantom_rate(r, n)) for r, n in ((64, 300), (224, 40))
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "set"
        if options.folder is None:
            write_phantoms(folder, 300, 256)
        cache = Path(temporary) / "cache"
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                images = load_images(folder, options.resolution, cache_dir=cache)
            seconds.append(time.perf_counter() - start)
        flat = (images.manifest.root / images.manifest.records[0].path).parents[1]  # ImageFolder knows no splits
        fast = feed_rate(lambda: ours(images, options.batch), options.seconds)
        slow = {
            n: feed_rate(theirs(flat, options.resolution, options.batch, n), options.seconds) for n in (0, workers())
        }
        best = max(slow.values())
        result |= {
            "images": len(images),
            "resolution": options.resolution,
            "cold_start_seconds": round(seconds[0], 2),
            "warm_start_seconds": round(seconds[1], 3),
            "cache_images_per_second": round(fast),
            "imagefolder_images_per_second": {f"{n} workers": round(rate) for n, rate in slow.items()},
            "ratio": round(fast / best, 1),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    leave(main)
