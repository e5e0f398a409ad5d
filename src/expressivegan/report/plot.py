"""Where the marks of small horizontal interval plots go. Positions are percent of the plot's width."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from expressivegan.data.doctor.finding import Figure
from expressivegan.report.text import figure_text, finite, is_auc


class Row(NamedTuple):
    """One figure. Positions are None where there is nothing to draw."""

    name: str
    text: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    expected: float | None = None


class Panel(NamedTuple):
    """Figures that share an axis; those that need no plot have none."""

    rows: tuple[Row, ...]
    ticks: tuple[tuple[float, str], ...] = ()
    """Position and label, from left to right; empty: no plot."""


def panels(figures: Sequence[Figure]) -> list[Panel]:
    """Groups figures so that what can be compared stands on one axis, in order of first appearance.

    AUCs share the axis 0.5..1, which grows to the left only if an interval does; other figures within 0..1 share one
    that fits them; any other has its own. Counts and undefined values are given in words alone.
    """
    groups: dict[str, list[Figure]] = {}
    for i, figure in enumerate(figures):
        groups.setdefault(_kind(figure) or f"own {i}", []).append(figure)
    return [_panel(group, name) for name, group in groups.items()]


def _numbers(figure: Figure) -> list[float]:
    return finite(figure.value, figure.low, figure.high, figure.expected)


def _kind(figure: Figure) -> str | None:
    numbers = _numbers(figure)
    interval = finite(figure.low, figure.high)
    if not finite(figure.value) or max(map(abs, numbers)) > 1e12:
        return "words"
    if not interval and not is_auc(figure) and (figure.expected is None or all(v == round(v) for v in numbers)):
        return "words"
    within = min(numbers) >= 0 and max(numbers) <= 1
    if is_auc(figure) and within:
        return "auc"
    return "share" if within else None


def _panel(figures: Sequence[Figure], kind: str) -> Panel:
    if kind == "words":
        return Panel(tuple(Row(f.name, figure_text(f)) for f in figures))
    numbers = [v for f in figures for v in _numbers(f)]
    ticks = _auc_axis(min(numbers)) if kind == "auc" else axis(min(numbers), max(numbers))
    start, end = ticks[0], ticks[-1]

    def place(value: float | None) -> float | None:
        return round(100 * (value - start) / (end - start), 2) if value is not None and finite(value) else None

    rows = tuple(Row(f.name, figure_text(f), *(place(v) for v in f[1:])) for f in figures)
    return Panel(rows, tuple((round(100 * (t - start) / (end - start), 2), _label(t, ticks)) for t in ticks))


def _auc_axis(least: float) -> list[float]:
    start = math.floor(min(least, 0.5) * 10 + 1e-9)
    return [tenth / 10 for tenth in range(start, 11)] if start > 2 else [0.0, 0.25, 0.5, 0.75, 1.0]


def axis(low: float, high: float) -> list[float]:
    """3 to 6 round ticks that hold low..high, and zero if it is near.

    >>> axis(0.55, 0.81)
    [0.5, 0.6, 0.7, 0.8, 0.9]
    >>> axis(3, 3)
    [2.0, 2.5, 3.0, 3.5, 4.0]
    """
    if 0 < low <= 0.5 * high:
        low = 0.0
    elif 0.5 * low <= high < 0:
        high = 0.0
    if high - low <= 1e-9 * max(1e-3, -low, high):
        low, high = (0.0, 1.0) if abs(low) < 1e-9 else (low - abs(low) / 3, high + abs(high) / 3)
    rough = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = size * next(m for m in (1, 2, 5, 10) if m * size >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _label(tick: float, ticks: Sequence[float]) -> str:
    step = ticks[1] - ticks[0]
    return f"{tick:,.{min(max(0, math.ceil(-math.log10(step) - 1e-9)) + (step == 0.25), 9)}f}"
