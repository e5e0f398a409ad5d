"""Pictures exposed unlike the rest: black, white, flat, blurred, noisy, inverted, or of something else."""

from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from expressivegan.data.doctor.case import Case
from expressivegan.data.doctor.finding import Figure, Finding, Picture, Severity, Table
from expressivegan.intervals import share_interval

UInt8Array = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

CHECK = "exposure"
SIDE = 64
"""Pixels that the pictures are looked at with."""
LIMIT = 4.5
"""Robust standard deviations from the median of the class: of 4,732 X-rays fewer than 1% lie outside by any measure."""
INVERTED = -0.1
"""Correlation with the mean picture at which a picture counts as a negative; below its opposite it is unlike the
others. Of 4,732 X-rays the lowest is 0.2."""
MANY_INVERTED, MANY = 0.005, 0.02
"""Shares of images from which on inverted ones are grave, and any outliers are more than worth knowing."""
_PIECE = 2048  # images that are in memory as floats at a time
_FEW = 30  # images; a smaller class is measured by the whole set
_SHOWN, _COLUMNS = 18, 6
_REASONS = ("inverted", "nearly all black", "over-exposed", "flat", "too dark", "too bright", "blurred", "noisy",
            "unlike the others")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Measures:
    """Of N pictures; each (N,)."""

    mean: Floats
    """Grey levels, 0..255."""
    spread: Floats
    """Standard deviation in grey levels."""
    black: Floats
    """Share of pixels of at most 8."""
    white: Floats
    """Share of pixels of at least 250."""
    sharpness: Floats
    """Mean absolute Laplacian over spread, of the middle."""
    centre: Floats
    """Mean of the middle less that of the frame, grey levels."""
    likeness: Floats
    """Correlation with the mean picture."""


def check(case: Case) -> Finding:
    """Looks at brightness, contrast, sharpness and likeness to the mean picture, at 64 px."""
    images = case.images(SIDE)
    measured = measure(images)
    reasons = outliers(measured, case.labels)
    count = len(images)
    odd = np.zeros(count, bool)
    figures, rows, items = [], [], []
    for reason in _REASONS:
        number = int(reasons[reason].sum())
        odd |= reasons[reason]
        figures.append(Figure.of(f"share {reason}", share_interval(number, count), 0.0))
        if number:
            rows.append((reason, str(number), f"{number / count:.2%}"))
    figures.insert(0, Figure.of("share exposed unlike the rest", share_interval(int(odd.sum()), count), 0.0))
    order = _worst_first(measured, reasons, odd)
    for i in order:
        why = [_said(reason, measured, i) for reason in _REASONS if reasons[reason][i]]
        items.append({"paths": [case.records[i].path], "reasons": why})
    negatives = int(reasons["inverted"].sum())
    severity = _severity(negatives, int(odd.sum()), count)
    if severity == "ok":
        return Finding(CHECK, "ok", f"No picture among {count:,} is exposed unlike the rest", figures=tuple(figures))
    named = ", ".join(f"{number} {reason}" for reason, number, _ in rows)
    return Finding(
        CHECK,
        severity,
        f"{int(odd.sum()):,} of {count:,} pictures are exposed unlike the rest of their class ({named})",
        figures=tuple(figures),
        consequence="A negative shows the network the opposite of every density; black, flat or blurred pictures hold "
        "nothing to learn but their label.",
        remedy="Look at them; invert the negatives in the source, and leave out what shows no chest.",
        table=Table(("reason", "images", "share"), tuple(rows)),
        pictures=(_montage(case, images, order[:_SHOWN]),),
        items=tuple(items),
    )


def measure(images: UInt8Array) -> Measures:
    """Measures pictures.

    Args:
        images: uint8 (N, H, W), N of at least 1; may be memory-mapped.
    """
    count, height, width = images.shape
    total = np.zeros((height, width))
    for start in range(0, count, _PIECE):
        total += _even(images[start : start + _PIECE]).sum(0)
    pattern = total / max(float(np.sqrt((total**2).mean())), 1e-9)
    frame = np.ones((height, width), bool)
    frame[height // 12 : -(height // 12), width // 12 : -(width // 12)] = False
    middle = np.s_[:, height // 8 : -(height // 8), width // 8 : -(width // 8)]
    heart = np.s_[:, height // 4 : -(height // 4), width // 4 : -(width // 4)]
    columns = []
    for start in range(0, count, _PIECE):
        piece = images[start : start + _PIECE].astype(np.float32)
        inner = piece[middle]
        bend = 4 * inner[:, 1:-1, 1:-1] - inner[:, :-2, 1:-1] - inner[:, 2:, 1:-1]
        bend -= inner[:, 1:-1, :-2] + inner[:, 1:-1, 2:]
        columns.append(
            np.stack(
                [
                    piece.mean((1, 2)),
                    piece.std((1, 2)),
                    (piece <= 8).mean((1, 2)),
                    (piece >= 250).mean((1, 2)),
                    np.abs(bend).mean((1, 2)) / np.maximum(inner.std((1, 2)), 1),
                    piece[heart].mean((1, 2)) - piece[:, frame].mean(1),
                    (_even(images[start : start + _PIECE]) * pattern).mean((1, 2)),
                ]
            ).astype(np.float64)
        )
    return Measures(*np.concatenate(columns, 1))


def outliers(measured: Measures, labels: npt.NDArray[np.int64]) -> dict[str, Bools]:
    """Reason → (N,) whether it holds for each picture. A class is measured by itself: disease may brighten."""
    grey = _robust(measured.mean, labels, 4.0)
    contrast = _robust(np.log(measured.spread + 1), labels, 0.05)
    sharp = _robust(np.log(measured.sharpness + 1e-3), labels, 0.05)
    usual_white = float(np.percentile(measured.white, 95))
    black = (measured.black >= 0.8) | (measured.mean < 16)
    white = (measured.white >= max(0.05, 5 * usual_white)) | (measured.mean > 239)
    flat = (contrast < -LIMIT) | (measured.spread < 6)
    inverted = (measured.likeness < INVERTED) & ~black & ~white
    empty = black | white | flat
    return {
        "inverted": inverted,
        "nearly all black": black,
        "over-exposed": white,
        "flat": flat & ~black & ~white,
        "too dark": (grey < -LIMIT) & ~black,
        "too bright": (grey > LIMIT) & ~white,
        "blurred": (sharp < -LIMIT) & ~empty,
        "noisy": (sharp > LIMIT) & ~empty,
        "unlike the others": (np.abs(measured.likeness) <= -INVERTED) & ~empty,
    }


def _even(images: UInt8Array) -> npt.NDArray[np.float32]:
    """Each picture with mean 0 and standard deviation 1 (0 everywhere where it is of one grey)."""
    values = images.astype(np.float32)
    values -= values.mean((1, 2), keepdims=True)
    even: npt.NDArray[np.float32] = values / np.maximum(values.std((1, 2), keepdims=True), 1e-3)
    return even


def _robust(values: Floats, labels: npt.NDArray[np.int64], least: float) -> Floats:
    """Distance from the median of the class, in MADs scaled to standard deviations, of at least `least`."""
    scores = np.empty(len(values))
    for label in np.unique(labels):
        own = labels == label
        peers = values[own] if own.sum() >= _FEW else values
        middle = np.median(peers)
        scores[own] = (values[own] - middle) / max(1.4826 * float(np.median(np.abs(peers - middle))), least)
    return scores


def _said(reason: str, measured: Measures, i: int) -> str:
    number = {
        "inverted": f"correlation with the mean picture {measured.likeness[i]:.2f}"
        + (", the frame brighter than the chest" if measured.centre[i] < 0 else ""),
        "nearly all black": f"{measured.black[i]:.0%} of the pixels black, mean grey {measured.mean[i]:.0f}",
        "over-exposed": f"{measured.white[i]:.0%} of the pixels white, mean grey {measured.mean[i]:.0f}",
        "flat": f"standard deviation {measured.spread[i]:.0f} grey levels",
        "too dark": f"mean grey {measured.mean[i]:.0f}",
        "too bright": f"mean grey {measured.mean[i]:.0f}",
        "blurred": f"sharpness {measured.sharpness[i]:.2f}",
        "noisy": f"sharpness {measured.sharpness[i]:.2f}",
        "unlike the others": f"correlation with the mean picture {measured.likeness[i]:.2f}",
    }[reason]
    return f"{reason}: {number}"


def _worst_first(measured: Measures, reasons: dict[str, Bools], odd: Bools) -> list[int]:
    """Outliers in the order of their first reason, within it the least like the mean picture first."""
    first = np.argmax(np.stack([reasons[r] for r in _REASONS]), 0)
    return sorted((int(i) for i in np.flatnonzero(odd)), key=lambda i: (int(first[i]), float(measured.likeness[i])))


def _severity(negatives: int, odd: int, count: int) -> Severity:
    if negatives > MANY_INVERTED * count:
        return "high"
    if negatives or odd > MANY * count:
        return "medium"
    return "low" if odd else "ok"


def _montage(case: Case, images: UInt8Array, chosen: list[int]) -> Picture:
    """The pictures at twice their size, each over its file's name."""
    side, line = 2 * SIDE, 14
    columns = min(_COLUMNS, len(chosen))
    sheet = Image.new("L", (columns * side, -(-len(chosen) // columns) * (side + line)))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for place, i in enumerate(chosen):
        x, y = place % columns * side, place // columns * (side + line)
        sheet.paste(Image.fromarray(np.asarray(images[i])).resize((side, side)), (x, y))
        name = PurePosixPath(case.records[i].path).name
        while pen.textlength(name, font) > side - 4:
            name = name[1:]  # the end of a name tells more
        pen.text((x + 2, y + side + 1), name, fill=255, font=font)
    return Picture("The least like the rest, with their files' names", np.asarray(sheet))
