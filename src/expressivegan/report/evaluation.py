"""Figures of an evaluation, drawn from its results alone: the same results.json gives the same pictures."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from expressivegan.atomic import replacing
from expressivegan.report.faithfulness import draw_faithfulness
from expressivegan.report.marks import MADE, REAL, WRONG, box, dot, name_rows

Json = Mapping[str, Any]

FIGURES = ("ladder-*", "agreement", "anatomy", "shortcuts", "memorisation", "faithfulness")
_DPI = 100
_FLOOR = "real, other patients"
_SHARES = ("precision", "recall", "density", "coverage")


@rc_context({"text.parse_math": False})  # dollars in names are dollars
def write_figures(results: Json, out: Path) -> list[Path]:
    """Draws what the sections hold into `out/figures`: ladder-SPACE, agreement, anatomy, shortcuts, memorisation,
    faithfulness (PNG), and takes away those that stood there.

    Args:
        results: as results.schema.json says.
        out: an existing folder.

    Returns:
        The files.
    """
    sections, against = results["sections"], results["data"]["held_against"]
    figures: dict[str, Figure] = {}
    for name, space in sections.get("fidelity", {}).get("spaces", {}).items():
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
        figures[f"ladder-{slug}"] = draw_ladder(name, space, sections["fidelity"]["n"])
    drawn: dict[str, Callable[[Json], Figure]] = {
        "agreement": lambda found: draw_agreement(found, results["data"]["classes"]),
        "anatomy": draw_anatomy,
        "shortcuts": draw_shortcuts,
        "memorisation": draw_memorisation,
        "faithfulness": draw_faithfulness,
    }
    figures |= {name: draw(sections[name]) for name, draw in drawn.items() if name in sections}
    remove_figures(out)
    folder = out / "figures"
    folder.mkdir(exist_ok=True)
    paths = []
    for name, figure in figures.items():
        if name != "memorisation":  # there they are training and held-out patients whatever the group
            figure.supxlabel(f"real: {against} patients", x=0.01, ha="left", fontsize=7, color=REAL)
        paths.append(folder / f"{name}.png")
        with replacing(paths[-1]) as temporary:
            figure.savefig(temporary, dpi=_DPI, format="png")
    return paths


def remove_figures(out: Path) -> None:
    """Takes away the figures of another evaluation."""
    for pattern in FIGURES:
        for path in (out / "figures").glob(f"{pattern}.png"):
            path.unlink()


def draw_ladder(name: str, space: Json, n: int) -> Figure:
    """FID among rungs and floor on a logarithmic axis; precision, recall, density and coverage beside their floor."""
    figures = space["generated"]["overall"]["figures"]
    fid = figures["fid"]
    rows = {_FLOOR: space["floor"]["fid"], **{rung: values["fid"] for rung, values in space["ladder"].items()}}
    rows = {rung: value for rung, value in rows.items() if value is not None and value > 0}
    order = sorted([*rows.items(), ("synthetic images", fid["value"] or math.inf)], key=lambda row: row[1])
    figure = Figure(figsize=(10, 0.5 + 0.3 * max(len(order), 8)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for y, (rung, value) in enumerate(order):
        if rung == "synthetic images":
            dot(left, y, fid, MADE, "o")
        else:
            left.plot(value, y, "s" if rung == _FLOOR else "|", color=REAL, markersize=6 if rung == _FLOOR else 11)
    name_rows(left, [rung for rung, _ in order], bold="synthetic images")
    left.set_xscale("log")
    left.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    left.xaxis.set_minor_formatter(NullFormatter())
    left.set(xlabel="FID (logarithmic; low is better)", title=f"in the features of {name}, {n} images")
    for y, label in enumerate(_SHARES):
        dot(right, y, figures[label], MADE, "o")
        floor = space["floor"][label]
        if floor is not None:
            right.plot(floor, y, "s", color=REAL)
    name_rows(right, _SHARES)
    right.set(xlabel="high is better", title="circle: synthetic, square: real, other patients")
    right.set_xlim(left=0)
    for axis in (left, right):
        axis.title.set_fontsize(9)
    return figure


def draw_agreement(found: Json, classes: Sequence[str]) -> Figure:
    """What an independent classifier says of real and of synthetic images, and its accuracy on either; beside
    them that on real images of the training patients."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=(1, 1, 1.4))
    for axis, side, title in zip(axes, ("real", "fake"), ("real images", "synthetic images"), strict=False):
        counts = found[f"confusion_{side}"]
        shares = [[value / max(1, sum(row)) for value in row] for row in counts]
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for i, row in enumerate(shares):
            for j, share in enumerate(row):
                text = f"{share:.0%}\n({counts[i][j]})"
                axis.text(j, i, text, ha="center", va="center", color="white" if share > 0.5 else "black", fontsize=8)
        axis.set_xticks(range(len(classes)), classes, fontsize=8)
        axis.set_yticks(range(len(classes)), classes, fontsize=8)
        axis.set(title=title, xlabel="the classifier says", ylabel="label" if side == "real" else "label asked for")
    scopes = [name for name in (*classes, "all") if name in found["figures"]]
    for y, scope in enumerate(scopes):
        row = found["figures"][scope]
        dot(axes[2], y - 0.2, row["accuracy_real"], REAL, "s")
        dot(axes[2], y + 0.2, row["accuracy_fake"], MADE, "o")
        if "floor" in found:  # results of earlier versions have none
            dot(axes[2], y, found["floor"][scope]["accuracy"], REAL, "^")
    name_rows(axes[2], scopes)
    axes[2].set(xlabel="accuracy of the classifier", xlim=(0, 1))
    axes[2].set(title="circle: synthetic, square: real, triangle: training")
    axes[2].title.set_fontsize(9)
    return figure


def draw_anatomy(found: Json) -> Figure:
    """Quantiles of each landmark, in units of the spread of real images, and shares of violations."""
    whole = found["figures"].get("all", {"landmarks": {}, "violations": {}})
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    names: list[str] = []
    for name, row in whole["landmarks"].items():
        real, fake = row["real_quantiles"], row["fake_quantiles"]
        if None in real or None in fake or not real[5] > real[1]:
            continue  # nothing was measured, or every real image has one value
        scaled = [[(value - real[3]) / (real[5] - real[1]) for value in side] for side in (real, fake)]
        box(left, len(names) - 0.16, scaled[0][1:6], REAL)
        box(left, len(names) + 0.16, scaled[1][1:6], WRONG if row["differs"] else MADE)
        names.append(f"{name.replace('_', ' ')}{' (differs)' if row['differs'] else ''}")
    name_rows(left, names)
    left.set(xlabel="0: median of real images; 1: their 5% to 95% range", title="landmarks: 5, 25, 50, 75, 95%")
    for y, row in enumerate(whole["violations"].values()):
        dot(right, y - 0.12, row["real"], REAL, "s")
        dot(right, y + 0.12, row["fake"], WRONG if row["differs"] else MADE, "o")
    name_rows(right, [name.replace("_", " ") for name in whole["violations"]])
    right.set(xlabel="share of images", title="violations; circle: synthetic, square: real")
    right.set_xlim(left=0)
    figure.suptitle("grey: real, blue: synthetic, orange: synthetic and unlike real", fontsize=9)
    return figure


def draw_shortcuts(found: Json) -> Figure:
    """How well the label can be told from what is not disease."""
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    axis = figure.subplots()
    words = {"frame": "outer 10% of the frame", "geometry": "framing and proportions"}
    for y, kind in enumerate(words):
        row = found["figures"][kind]
        dot(axis, y - 0.12, row["real"], REAL, "s")
        dot(axis, y + 0.12, row["fake"], MADE, "o")
    name_rows(axis, list(words.values()))
    axis.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    axis.set(xlabel="AUC of the label (0.5: chance)", title="shortcuts; circle: synthetic, square: real")
    return figure


def draw_memorisation(found: Json) -> Figure:
    """Likeness of synthetic images to training and held-out ones, beside that of real images, and the threshold."""
    rows = {
        "synthetic to nearest training": (found["likeness_training"], MADE),
        "synthetic to nearest held-out": (found["likeness_heldout"], MADE),
        "held-out to nearest training": (found["strangers"]["likeness"], REAL),
        "two images of one patient": (found["repeats"]["likeness"], REAL),
    }
    figure = Figure(figsize=(9, 3), layout="constrained")
    axis = figure.subplots()
    for y, (quantiles, colour) in enumerate(rows.values()):
        if None in quantiles.values():
            continue
        box(axis, y, [quantiles[q] for q in ("0.05", "0.25", "0.5", "0.75", "0.95")], colour)
        axis.plot([quantiles["0.99"], quantiles["1"]], [y, y], linestyle="none", marker="|", color=colour, markersize=9)
    name_rows(axis, list(rows))
    axis.axvline(found["threshold"], color=WRONG, linestyle="--")
    axis.text(found["threshold"], -0.62, "near-duplicates ", color=WRONG, fontsize=8, ha="right", va="top")
    title = f"{found['copies']} of {found['generated']} near a training image, {found['copies_heldout']} a held-out one"
    axis.set(xlabel="likeness (bars: 5 to 95%; marks: 99% and the largest)", title=title)
    axis.title.set_fontsize(9)
    return figure
