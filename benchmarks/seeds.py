"""Figures of arms that ran with several seeds: their means, and how far one arm is from another, paired by seed."""

import math
import statistics
from collections.abc import Mapping

from judging import FIGURES, SPACES
from rich.console import Console
from rich.table import Table
from scipy import stats

Seeds = dict[int, Mapping[str, float]]
"""Seed → figures of an arm."""


def against(found: Seeds, other: Seeds, name: str) -> str:
    """How far a figure is from another arm's, with its 95% interval over shared seeds (Student's t, paired).

    FID as a ratio, by its logarithm; anything else as a difference. Empty where there are not two seeds.
    """
    both = sorted(set(found) & set(other))
    ratio = name.endswith("fid")
    apart = [
        math.log(found[seed][name] / other[seed][name]) if ratio else found[seed][name] - other[seed][name]
        for seed in both
    ]
    if found is other or len(apart) < 2:
        return ""
    middle = statistics.mean(apart)
    half = stats.t.ppf(0.975, len(apart) - 1) * statistics.stdev(apart) / math.sqrt(len(apart))
    if ratio:
        return f"{math.exp(middle):.2f} [{math.exp(middle - half):.2f}, {math.exp(middle + half):.2f}]"
    return f"{middle:+.2f} ±{half:.2f}"


def mean_and_error(found: Seeds, name: str) -> str:
    """The mean over seeds with its standard error."""
    values = [figures[name] for figures in found.values()]
    error = f" ±{statistics.stdev(values) / math.sqrt(len(values)):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{error}"


def arms_of(rows: Mapping[str, Mapping[str, float]]) -> dict[str, Seeds]:
    """Figures of trials → arm → seed → figures, the arms by their mean score."""
    arms: dict[str, Seeds] = {}
    for key, figures in rows.items():
        name, _, seed = key.rpartition(", seed ")
        arms.setdefault(name, {})[int(seed)] = figures
    return dict(sorted(arms.items(), key=lambda item: statistics.mean(f["score"] for f in item[1].values())))


def show_arms(arms: Mapping[str, Seeds], screen: Console, title: str, measure: str) -> None:
    """Two tables: the figures of each arm, and how far they are from those of the arm `measure`."""
    table = Table(title=title, caption=f"over the floor, in the features of {SPACES}")
    apart = Table(title=f"against {measure}", caption="95% intervals over seeds; FID as a ratio")
    for column in ("arm", "seeds", "kimg", "FID", "recall", "coverage", "agreement", "score"):
        table.add_column(column, no_wrap=column != "arm")
    spread = [f"{space}/{figure}" for figure in FIGURES for space in SPACES] + ["agreement", "score"]
    for column in ("arm", *spread):
        apart.add_column(column, overflow="fold")
    for name, found in arms.items():
        both = [" · ".join(mean_and_error(found, f"{space}/{figure}") for space in SPACES) for figure in FIGURES]
        kimg = f"{statistics.mean(f['images'] for f in found.values()) / 1000:.0f}"
        last = (mean_and_error(found, "agreement"), mean_and_error(found, "score"))
        table.add_row(name, str(len(found)), kimg, *both, *last)
        cells = [against(found, arms.get(measure, {}), figure) for figure in spread]
        if any(cells):
            apart.add_row(name, *cells)
    screen.print(table)
    if apart.row_count:
        screen.print(apart)
