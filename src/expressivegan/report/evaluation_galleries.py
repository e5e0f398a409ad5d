"""Pictures of an evaluation: images beside real ones, the closest pairs, and anatomy that is unlike real chests."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from expressivegan.evaluation.anatomy import draw_landmarks
from expressivegan.evaluation.comparison import Comparison
from expressivegan.evaluation.memorisation import ClosePair, draw_gallery
from expressivegan.images import UInt8Array, grid, save_png
from expressivegan.report.evaluation import Json
from expressivegan.streams import derive_seed

GALLERIES = ("contact-sheet", "closest-pairs", "anatomy-violations")
_ACROSS = 10  # images of a row of the contact sheet
_VIOLATIONS = 24
_TILE = 112  # pixels that an image is shown at, about
_MARGIN, _STRIP = 150, 22


def write_galleries(results: Json, of: Comparison, out: Path) -> list[Path]:
    """Writes contact-sheet.png, and closest-pairs.png and anatomy-violations.png where those sections were measured,
    and takes away those that stood there.

    Training and held-out images of patients stand in them: treat them like the data.

    Args:
        results: as results.schema.json says.
        of: what they are the results of.
        out: an existing folder.

    Returns:
        The files.
    """
    remove_galleries(out)
    sections, pictures = results["sections"], {"contact-sheet": contact_sheet(of)}
    pairs = [ClosePair(**pair) for pair in sections.get("memorisation", {}).get("gallery", ())]
    if pairs:
        heldout = np.asarray(of.data.images[of.heldout])
        drawn = _enlarged(draw_gallery(pairs, of.made.images, of.pixels("train"), heldout), of.data.resolution)
        pictures["closest-pairs"] = _titled(drawn, "in threes: synthetic, nearest training, nearest held-out image")
    worst = sections.get("anatomy", {}).get("worst", ())[:_VIOLATIONS]
    if worst:
        chosen = of.made.images[[row["index"] for row in worst]]
        drawn = draw_landmarks(chosen, [f"{row['index']} {row['reason']}" for row in worst], columns=min(6, len(worst)))
        pictures["anatomy-violations"] = _titled(drawn, "synthetic images most unlike real chests, and why")
    paths = []
    for name, picture in pictures.items():
        paths.append(out / f"{name}.png")
        save_png(paths[-1], picture)
    return paths


def remove_galleries(out: Path) -> None:
    """Takes away the galleries of another evaluation."""
    for name in GALLERIES:
        (out / f"{name}.png").unlink(missing_ok=True)


def contact_sheet(of: Comparison) -> UInt8Array:
    """Random synthetic images of each class above random real ones of the group, uint8 (H, W); never chosen ones."""
    draw = np.random.default_rng(derive_seed(of.seed, "report.contact-sheet"))
    sides = (("synthetic", of.made.images, of.made.labels), ("real", of.pixels(), of.labels()))
    rows: list[tuple[str, UInt8Array]] = []
    for label, name in enumerate(of.data.classes) if of.made.labels is not None else ((None, ""),):
        for side, images, labels in sides:
            pool = np.arange(len(images)) if label is None or labels is None else np.flatnonzero(labels == label)
            chosen = draw.permutation(pool)[:_ACROSS]
            if len(chosen):
                rows.append((f"{name} {side}".strip(), images[chosen]))
    return _sheet(rows)


def _sheet(rows: Sequence[tuple[str, UInt8Array]]) -> UInt8Array:
    """Rows of images, each with its name at the left."""
    parts = []
    for name, images in rows:
        tiles = grid(np.stack([_enlarged(image, len(image)) for image in images]), _ACROSS, pad=3)
        margin = Image.new("L", (_MARGIN, len(tiles)), "white")
        ImageDraw.Draw(margin).text((6, len(tiles) // 2 - 8), name, fill="black", font=ImageFont.load_default(14))
        parts += [np.concatenate([np.asarray(margin), tiles], 1), np.full((3, _MARGIN + tiles.shape[1]), 255, np.uint8)]
    return np.concatenate(parts[:-1])


def _enlarged(picture: UInt8Array, side: int) -> UInt8Array:
    """A picture of small images by a whole factor, so that those of that side can be seen."""
    factor = max(1, round(_TILE / side))
    return np.repeat(np.repeat(picture, factor, 0), factor, 1)


def _titled(picture: UInt8Array, title: str) -> UInt8Array:
    """A picture under a line of text."""
    strip = Image.new("L" if picture.ndim == 2 else "RGB", (picture.shape[1], _STRIP), "white")
    ImageDraw.Draw(strip).text((6, 3), title, fill="black", font=ImageFont.load_default(13))
    return np.concatenate([np.asarray(strip), picture])
