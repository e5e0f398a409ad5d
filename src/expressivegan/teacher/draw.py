"""Pictures of a fitted teacher: what it confuses, and where it looks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont

from expressivegan.atomic import replacing
from expressivegan.data import ImageSet
from expressivegan.images import from_uint8, grid, overlay, save_png
from expressivegan.teacher.cam import CXR_CAM_Teacher
from expressivegan.teacher.focus import FIGURES, UInt8Array, donors, with_frames_of

_LINE = 14  # pixels of a line of text


def draw_confusion(matrices: Mapping[str, npt.NDArray[np.int64]], classes: Sequence[str], path: Path) -> None:
    """Confusion matrices (K, K) side by side, by the name of the patients; nothing without any."""
    from matplotlib.figure import Figure  # slow to import

    if not matrices:
        return
    figure = Figure(figsize=(4.2 * len(matrices), 3.8), layout="constrained")
    for axis, (group, counts) in zip(
        figure.subplots(1, len(matrices), squeeze=False)[0], matrices.items(), strict=True
    ):
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for i in range(len(classes)):
            for j in range(len(classes)):
                axis.text(j, i, f"{counts[i, j]}\n{share[i, j]:.0%}", ha="center", va="center",
                          color="white" if share[i, j] > 0.5 else "black", fontsize=8)  # fmt: skip
        axis.set(title=f"{group} patients", xlabel="predicted", ylabel="true")
        axis.set_xticks(range(len(classes)), classes, fontsize=7)
        axis.set_yticks(range(len(classes)), classes, fontsize=7)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


@torch.no_grad()
def draw_cams(
    teacher: CXR_CAM_Teacher,
    images: ImageSet,
    found: Mapping[str, Sequence[float | None]],
    path: Path,
    per_class: int = 6,
) -> None:
    """Validation patients: for each class a row of images, a row of their maps, and a row of maps of the same images
    with the frame of another class, where nothing but the frame may differ; above them the figures of `focus`."""
    judged = images.indices("judge")
    labels = images.labels[judged]
    source = donors(labels, other=True)
    rows = []
    for k in range(len(images.classes)):
        chosen = np.flatnonzero((labels == k) & (source >= 0))[:per_class]
        if len(chosen) < per_class:
            continue
        pixels = np.asarray(images.images[judged[chosen]])
        swapped = with_frames_of(pixels, np.asarray(images.images[judged[source[chosen]]]))
        for picture, painted in ((pixels, False), (pixels, True), (swapped, True)):
            x = from_uint8(np.ascontiguousarray(picture)[:, None])
            cams = teacher(x).cams
            rows.append(overlay(x, cams if painted else torch.zeros_like(cams)))
    if rows:
        tiles = grid(np.concatenate(rows), columns=per_class)
        save_png(path, np.concatenate([_words(found, tiles.shape[1]), tiles]))


def _words(found: Mapping[str, Sequence[float | None]], width: int) -> UInt8Array:
    said = [f"{FIGURES[name]}: {value[0]:.3f}" for name, value in found.items() if value[0] is not None]
    said = ["per class: image, map, map under another class's frame", *said]
    strip = Image.new("RGB", (width, _LINE * len(said) + 4), "white")
    pen = ImageDraw.Draw(strip)
    for i, text in enumerate(said):
        pen.text((4, 2 + _LINE * i), text, fill="black", font=ImageFont.load_default(10))
    return np.asarray(strip)
