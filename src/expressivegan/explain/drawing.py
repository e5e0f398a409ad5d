"""Maps over images, each with a bar that says what its colours are, and all of them on one page."""

import math
import textwrap
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from expressivegan.explain.explainer import Explained
from expressivegan.explain.inputs import SHOWN, Picture
from expressivegan.explain.maps import Map
from expressivegan.images import UInt8Array

_OPACITY = 0.6
_COLUMNS = 5
_ONE_WAY, _BOTH_WAYS = "inferno", "coolwarm"
_SIDES = "R and L are the patient's sides, as in the usual view from the front."


def _paint(shown: UInt8Array, found: Map) -> npt.NDArray[np.float64]:
    """(S, S, 3) in [0, 1]: the image where the map says nothing, its colours where it says much."""
    grey = _larger(shown).astype(np.float64)[..., None] / 255
    values = torch.from_numpy(found.values)[None, None]
    level = F.interpolate(values, grey.shape[:2], mode="bilinear", align_corners=False)[0, 0].numpy()
    place = np.clip((level - found.low) / max(found.high - found.low, 1e-12), 0, 1)
    strength = np.abs(2 * place - 1) if found.signed else place
    colour = colormaps[_BOTH_WAYS if found.signed else _ONE_WAY](place)[..., :3]
    alpha = (_OPACITY * strength)[..., None]
    painted: npt.NDArray[np.float64] = (1 - alpha) * grey + alpha * colour
    return painted


def _larger(pixels: UInt8Array) -> UInt8Array:
    """About SHOWN wide; small tensors by repeating their pixels."""
    times = max(1, SHOWN // pixels.shape[0])
    return np.repeat(np.repeat(pixels, times, 0), times, 1)


def _panel(axes: Axes, figure: Figure, shown: UInt8Array, found: Map) -> None:
    axes.imshow(_paint(shown, found))
    axes.set_title("\n".join(textwrap.wrap(found.title, 34)), fontsize=8)
    unit = found.unit + ("; this image's own range" if found.own_range else "")
    _bar(axes, figure, found.low, found.high, _BOTH_WAYS if found.signed else _ONE_WAY, unit)


def _image(axes: Axes, figure: Figure, shown: UInt8Array) -> None:
    axes.imshow(_larger(shown), cmap="gray", vmin=0, vmax=255)
    axes.set_title("image", fontsize=8)
    axes.set_title("R", loc="left", fontsize=9, weight="bold")
    axes.set_title("L", loc="right", fontsize=9, weight="bold")
    _bar(axes, figure, 0, 255, "gray", "grey level")


def _bar(axes: Axes, figure: Figure, low: float, high: float, colours: str, unit: str) -> None:
    axes.axis("off")
    drawn = ScalarMappable(Normalize(low, high), colours)
    bar = figure.colorbar(drawn, ax=axes, orientation="horizontal", fraction=0.06, pad=0.03, shrink=0.9)
    ends = (low, (low + high) / 2, high)
    bar.set_ticks(ends, labels=[f"{v:.3g}" for v in ends])
    first, _, last = bar.ax.get_xticklabels()
    first.set_horizontalalignment("left")  # those of neighbours would run into each other
    last.set_horizontalalignment("right")
    bar.ax.tick_params(labelsize=7, length=2)
    bar.set_label("\n".join(textwrap.wrap(unit, 38)), fontsize=7)


def draw_overlay(picture: Picture, found: Map) -> UInt8Array:
    """One map over its image, with title and colour bar: uint8 (H, W, 3)."""
    figure = Figure(figsize=(3.2, 4.1), dpi=110)
    figure.subplots_adjust(left=0.06, right=0.94, top=0.9, bottom=0.14)
    _panel(figure.add_subplot(), figure, picture.shown, found)
    return _pixels(figure)


@rc_context({"text.parse_math": False})  # dollars in names are dollars
def draw_montage(explained: Explained) -> UInt8Array:
    """The image and all its maps on one page, with what was found and what to beware of: uint8 (H, W, 3)."""
    picture, maps = explained.picture, explained.maps
    rows = math.ceil((len(maps) + 1) / _COLUMNS)
    warned = ["\n".join(textwrap.wrap(f"WARNING: {sentence}", 125)) for sentence in explained.warnings]
    above = 0.72 + 0.2 * sum(w.count("\n") + 1 for w in warned)  # inches
    figure = Figure(figsize=(2.4 * _COLUMNS, 3.05 * rows + above + 0.3), dpi=100)
    height = figure.get_figheight()
    top = np.asarray(figure.subfigures(3, 1, height_ratios=[above, height - above - 0.3, 0.3], hspace=0))
    heading = f"{_short(picture.name)}    {_chances(explained.probabilities)}"
    top[0].text(0.012, 1 - 0.12 / above, heading, fontsize=11, weight="bold", va="top")
    top[0].text(0.012, 1 - 0.4 / above, _second_line(explained), fontsize=9, va="top")
    if warned:
        top[0].text(0.012, 1 - 0.64 / above, "\n".join(warned), fontsize=9, color="#b00020", weight="bold", va="top")
    body: Figure = top[1]
    grid = body.subplots(rows, _COLUMNS, squeeze=False)
    body.subplots_adjust(left=0.012, right=0.988, top=0.94, bottom=0.07, wspace=0.08, hspace=0.32)
    first, *others = grid.flat
    _image(first, body, picture.shown)
    for axes, found in zip(others, maps.values(), strict=False):
        _panel(axes, body, picture.shown, found)
    for axes in others[len(maps) :]:
        axes.axis("off")
    side = picture.pixels.shape[0]
    note = f"{_SIDES} The networks see {side}x{side} pixels; maps are smoothed up from their own, coarser grid. "
    top[2].text(0.012, 0.6, note + "Not for diagnosis.", fontsize=8, va="center")
    return _pixels(figure)


def _second_line(explained: Explained) -> str:
    said = [f"explained: {explained.label}" + ("" if explained.label == explained.likeliest else " (as asked)")]
    if explained.focus != explained.label:
        said.append(f"maps that need a disease show {explained.focus}")
    if (judged := explained.judged) is not None:
        if judged.referenced is None or judged.real_range is None:
            said.append(f"discriminator {judged.score:.3g} (unreferenced)")
        else:
            low, high = judged.real_range
            said.append(f"discriminator {judged.referenced:+.3g} (95% of real ones: {low:.3g} to {high:.3g})")
    if explained.verdict is not None:
        said.append(f"strangeness {explained.verdict.distance:.2f} of the threshold")
    if explained.picture.made is not None:
        said.append("SYNTHETIC")
    return "; ".join(said)


def _chances(probabilities: Mapping[str, float]) -> str:
    best = sorted(probabilities.items(), key=lambda item: -item[1])[:4]
    return "   ".join(f"{name} {chance:.2f}" for name, chance in best)


def _short(name: str) -> str:
    return name if len(name) <= 60 else f"...{name[-57:]}"


def _pixels(figure: Figure) -> UInt8Array:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
