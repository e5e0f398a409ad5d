"""Marks that the figures of an evaluation share."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

Json = Mapping[str, Any]

# Okabe and Ito 2008: told apart by all kinds of colour vision; marks differ in shape as well
MADE, REAL, WRONG = "#0072B2", "#767676", "#D55E00"


def dot(axis: Axes, y: float, entry: Json, colour: str, marker: str) -> None:
    """A figure with its interval, if it has one."""
    value, low, high = entry["value"], entry["low"], entry["high"]
    if value is None:
        axis.text(0.02, y, "too small to say", transform=axis.get_yaxis_transform(), va="center", fontsize=7)
        return
    if low is not None and high is not None:
        axis.plot([low, high], [y, y], color=colour, linewidth=2)
    axis.plot(value, y, marker, color=colour, markersize=7, clip_on=False)


def box(axis: Axes, y: float, quantiles: Sequence[float], colour: str) -> None:
    """5 to 95% thin, 25 to 75% thick, the median as a white mark."""
    axis.plot([quantiles[0], quantiles[4]], [y, y], color=colour, linewidth=1.2)
    axis.plot([quantiles[1], quantiles[3]], [y, y], color=colour, linewidth=6, solid_capstyle="butt")
    axis.plot(quantiles[2], y, "|", color="white", markersize=6, markeredgewidth=1.6)


def name_rows(axis: Axes, names: Sequence[str], bold: str = "") -> None:
    """Names at the left, the first at the top."""
    axis.set_yticks(range(len(names)), names, fontsize=8)
    for label in axis.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() == bold else "normal")
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(axis="x", linewidth=0.4)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
