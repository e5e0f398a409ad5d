"""How well are burnt-in letters found? Run: python benchmarks/markers.py [chest_xray] [--fit]

Draws letters, words and dates into chest X-rays (phantoms without their own marker; with a folder, real ones too), and
prints which share is found, how many other boxes a phantom gets, and the speed. `--fit` needs the folder and prints the
weights that stand in expressivegan/data/doctor/letters.py: its positives are components of drawn letters, its negatives
those of phantoms and of the parts of real pictures where markers hardly ever stand (the middle, and the sides below).
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ending import leave
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont
from sklearn.linear_model import LogisticRegression

from expressivegan.data import phantom
from expressivegan.data.doctor import letters
from expressivegan.data.doctor.case import open_case
from expressivegan.data.phantom import film

UInt8Array = npt.NDArray[np.uint8]
TEXTS = ("R", "L", "R", "L", "R", "L", "A-P", "PA", "AP", "KV59", "12:34:56", "2015-03-04", "mAs 3.2", "SUPINE", "->")
FONTS = [
    font_manager.findfont(font_manager.FontProperties(family=family, weight=weight))
    for family in ("DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono")
    for weight in ("normal", "bold")
]


def bare_phantoms(count: int, first: int = 0) -> UInt8Array:
    """Phantoms whose own marker is left out: (count, 224, 224)."""
    stamps = film.stamps
    film.stamps = lambda shot, size: np.zeros((len(shot()), size, size), np.float32)
    try:
        labels = [phantom.CLASSES[i % 3] for i in range(count)]
        return phantom.draw_batch(range(first, first + count), labels, letters.SIDE)[0]
    finally:
        film.stamps = stamps


def write_on(picture: UInt8Array, rng: np.random.Generator) -> tuple[UInt8Array, npt.NDArray[np.bool_]]:
    """The picture with a text somewhere, at least 60 grey levels brighter than what it covers; and where its ink is."""
    side = len(picture)
    while True:
        text = TEXTS[rng.integers(len(TEXTS))]
        font = ImageFont.truetype(
            FONTS[rng.integers(len(FONTS))], 4 * int(rng.integers(8, 28 if len(text) < 3 else 16))
        )
        left, top, right, bottom = font.getbbox(text)
        drawn = Image.new("L", (int(right - left) + 8, int(bottom - top) + 8))
        ImageDraw.Draw(drawn).text((4 - left, 4 - top), text, fill=255, font=font)
        width, height = max(3, int(drawn.width / 4 * rng.uniform(0.6, 1.2))), max(4, drawn.height // 4)
        x, y = (int(v) for v in rng.integers(0, side - 16, 2))
        if x + width > side or y + height > side:
            continue
        where = np.s_[y : y + height, x : x + width]
        ground = float(np.median(picture[where]))
        if ground > 190:
            continue
        ink = np.zeros(picture.shape)
        ink[where] = np.asarray(drawn.resize((width, height), Image.Resampling.BOX)) / 255
        grey = rng.uniform(ground + 60, 255)
        written = np.clip(np.rint(picture + (grey - picture) * ink), 0, 255).astype(np.uint8)
        return written, ink > 0.5


def rates(pictures: UInt8Array, seed: int) -> dict[str, float]:
    """How many of the texts written into the pictures are found, and how well the boxes cover their ink."""
    rng = np.random.default_rng(seed)
    found, covered = [], []
    for picture in pictures:
        written, ink = write_on(picture, rng)
        boxed = np.zeros(ink.shape, bool)
        for mark in letters.marks(written):
            left, top, right, bottom = mark.box
            boxed[top:bottom, left:right] = True
        share = float((boxed & ink).sum() / max(ink.sum(), 1))
        found.append(share > 0.3)
        if share > 0.3:
            covered.append(share)
    return {"texts found": round(float(np.mean(found)), 3), "their ink in boxes": round(float(np.mean(covered)), 3)}


def examples(pictures: UInt8Array, bare: UInt8Array, seed: int) -> Iterator[tuple[npt.NDArray[np.float64], bool]]:
    """Components, and whether they are letters."""
    rng = np.random.default_rng(seed)
    for picture in bare:
        for row in letters.components(picture)[0]:
            yield row, False
    for picture in pictures:
        for row, (left, top, right, bottom) in zip(*letters.components(picture), strict=True):
            middle = left > 60 and right < 165 and top > 45 and bottom < 190
            beside = top > 45 and bottom < 180 and left > 130
            below = top > 135 and bottom < 190 and right < 80
            if middle or beside or below:
                yield row, False
        written, ink = write_on(picture, rng)
        for row, (left, top, right, bottom) in zip(*letters.components(written), strict=True):
            filled = row[letters.FEATURES.index("fill")] * (right - left) * (bottom - top)
            if ink[top:bottom, left:right].sum() > 0.35 * filled:
                yield row, True


def fit(pictures: UInt8Array) -> tuple[float, list[float]]:
    """Bias and weights. Fitted twice: the few letters that stand among the negatives are left out of the second."""
    found = list(examples(pictures, bare_phantoms(60), 0))
    values, truth = np.array([row for row, _ in found]), np.array([letter for _, letter in found])
    middle, scale = values.mean(0), values.std(0)
    model = LogisticRegression(max_iter=1000).fit((values - middle) / scale, truth)
    scores = model.decision_function((values - middle) / scale)
    keep = truth | (scores < 6)
    model.fit((values - middle)[keep] / scale, truth[keep])
    weights = model.coef_[0] / scale
    scores = values @ weights + float(model.intercept_[0] - weights @ middle)
    for limit in (-1, 0, 1, 2, 3):
        print(limit, round(float((scores[truth] > limit).mean()), 3), round(float((scores[~truth] > limit).mean()), 4))
    return float(model.intercept_[0] - weights @ middle), [round(float(w), 2) for w in weights]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="the real chest X-rays")
    parser.add_argument("--fit", action="store_true", help="print weights instead")
    parser.add_argument("--images", type=int, default=300)
    options = parser.parse_args()
    real = None if options.folder is None else open_case(options.folder).images(letters.SIDE)
    if options.fit:
        if real is None:
            parser.error("--fit needs the folder")
        chosen = np.random.default_rng(0).choice(len(real), min(2500, len(real)), replace=False)
        print(fit(real[np.sort(chosen)]))
        return
    bare = bare_phantoms(options.images, 10_000)
    start = time.process_time()
    boxes = sum(len(letters.marks(picture)) for picture in bare)
    result: dict[str, object] = {
        "images per second of one core": round(len(bare) / (time.process_time() - start)),
        "boxes in phantoms without marker": f"{boxes} in {len(bare)}",
        "written into phantoms": rates(bare, 1),
    }
    if real is not None:
        chosen = np.random.default_rng(1).choice(len(real), min(options.images, len(real)), replace=False)
        result["written into real pictures"] = rates(real[np.sort(chosen)], 2)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    leave(main)
