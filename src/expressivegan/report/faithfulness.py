"""The faithfulness of maps as tables for a terminal and as one figure, from results alone."""

from collections.abc import Iterator, Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from expressivegan.report.marks import MADE, REAL, WRONG, dot, name_rows

Json = Mapping[str, Any]
_MARKS = {"random": "x", "centre": "+", "edges": "|", "blurred image": "s"}
_DRAWN = (
    ("truth", "pointing_game", "known lesion: pointing game"),
    ("truth", "iou_at_area", "known lesion: IoU at its area"),
    ("removal", "road_combined", "ROAD, combined"),
    ("removal", "insertion", "insertion"),
    ("removal", "deletion", "deletion"),
    ("in_lungs", "in_lungs", "share inside the lungs"),
)


def parts_of(found: Json) -> Iterator[tuple[str, Json]]:
    """Every part that holds maps beside controls, with its title."""
    for name in ("truth", "removal", "in_lungs"):
        if name in found:
            yield name, found[name]
    for label, row in found.get("generator", {}).items():
        for kind in ("region", "energy"):
            if kind in row:
                yield f"change of {label}, {kind} ({row[kind]['area']:.0%} of the picture)", row[kind]


def tables(found: Json) -> list[Table]:
    """A table for each map and part, one for each network's sanity, one for the evidence.

    Args:
        found: the section faithfulness of results.json, or an empty one.
    """
    made = [_table(title, name, part) for title, part in parts_of(found) for name in part["maps"]]
    made += [_sanity_table(name, row) for name, row in found.get("sanity", {}).items()]
    if "evidence" in found:
        row = found["evidence"]
        chosen, cells = row["cells"]
        table = Table("cells covered", "the score moves by", title="the discriminator's evidence")
        for name in ("top", "random", "lowest", "ratio"):
            table.add_row({"ratio": "top / random"}.get(name, f"{name} {chosen} of {cells}"), _words(row[name]))
        table.add_row("|mean - score|, at most", f"{row['decomposition_error']:.1e}")
        made.append(table)
    return made


def _words(entry: Json) -> str:
    if entry["value"] is None:
        return "-"
    ends = "" if entry["low"] is None else f" [{entry['low']:.3f}, {entry['high']:.3f}]"
    return f"{entry['value']:.3f}{ends}"


def _table(title: str, name: str, part: Json) -> Table:
    row = part["maps"][name]
    controls = next(iter(row["figures"].values()))["controls"]
    table = Table(title=f"{title}: {name} ({part['n']} images, {row['constant']} constant maps)")
    for column in ("figure", "better", "map", "less best control", "map, blurred", *controls):
        table.add_column(column)
    for figure, values in row["figures"].items():
        others = [f"{entry['value']:.3f}" for entry in values["controls"].values()]
        cells = (_words(values["map"]), _words(values["difference"]), f"{values['blurred']['value']:.3f}")
        table.add_row(figure.replace("_", " "), values["better"], *cells, *others)
    return table


def _sanity_table(name: str, found: Json) -> Table:
    table = Table("check", "SSIM", "Spearman", "passes", title=f"sanity: {name}")
    for check, row in found.items():
        words = check.replace("_", " ")
        for stage in row.get("stages", [row]):
            table.add_row(f"{words} {stage.get('part', '')}", _words(stage["ssim"]), _words(stage["spearman"]))
        pairs, passes = row["random_pairs"], {True: "yes", False: "no", None: ""}[row.get("passes")]
        table.add_row(f"{words}: random pairs", _words(pairs["ssim"]), _words(pairs["spearman"]), passes,
                      end_section=True)  # fmt: skip
    return table


def draw_faithfulness(found: Json) -> Figure:
    """Maps less their best control; M against the true change; maps of networks drawn anew; covered evidence."""
    rows = [
        (f"{title}, {name}", part["maps"][name]["figures"][figure])
        for part_name, figure, title in _DRAWN
        if (part := found.get(part_name)) is not None
        for name in part["maps"]
    ]
    change = [
        (
            f"{label}: {figure.replace('_', ' ')}, {kind} ({row[kind]['area']:.0%})",
            row[kind]["maps"]["M"]["figures"][figure],
        )
        for label, row in found.get("generator", {}).items()
        for kind, figure in (
            ("region", "relevance_mass"), ("energy", "relevance_mass"), ("energy", "change_captured"),
            ("energy", "correlation"),
        )
        if kind in row
    ]  # fmt: skip
    height = 2.4 + 0.24 * max(8, len(rows) + len(change))
    figure = Figure(figsize=(13, height), layout="constrained")
    heights = (max(3, len(rows)), max(3, len(change)))
    (upper, stages), (lower, covered) = figure.subplots(2, 2, width_ratios=(3, 2), height_ratios=heights)
    _over_controls(upper, rows)
    _beside_controls(lower, change)
    _stages(stages, found.get("sanity", {}))
    _covered(covered, found.get("evidence"))
    return figure


def _over_controls(axis: Axes, rows: list[tuple[str, Json]]) -> None:
    for y, (_, row) in enumerate(rows):
        dot(axis, y, row["difference"], _colour(row), "o")
    name_rows(axis, [name for name, _ in rows])
    axis.axvline(0, color=REAL, linewidth=1)
    axis.set_title("better than the best map that knows nothing by (blue: beyond chance)", fontsize=9)


def _beside_controls(axis: Axes, rows: list[tuple[str, Json]]) -> None:
    for y, (_, row) in enumerate(rows):
        for name, entry in row["controls"].items():
            axis.plot(entry["value"], y, _MARKS[name], color=REAL, markersize=5, label=name if y == 0 else None)
        dot(axis, y, row["map"], _colour(row), "o")
    name_rows(axis, [name for name, _ in rows])
    axis.set_title("the generator's M against the true change (in brackets: area, which is chance)", fontsize=9)
    if rows:
        axis.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False)


def _colour(row: Json) -> str:
    low = row["difference"]["low"]
    return MADE if low is not None and low > 0 else WRONG


def _stages(axis: Axes, sanity: Json) -> None:
    styles = {"parameter_randomisation": ("teacher", "o-"), "class_cam": ("D's class CAM", "s-"),
              "evidence": ("D's evidence", "^-")}  # fmt: skip
    for network in sanity.values():
        for check, (name, style) in styles.items():
            if check in network:
                values = [1.0, *(stage["ssim"]["value"] for stage in network[check]["stages"])]
                x = [i / (len(values) - 1) for i in range(len(values))]
                line = axis.plot(x, values, style, markersize=4, label=name)[0]
                axis.axhline(network[check]["random_pairs"]["ssim"]["value"], color=line.get_color(), linestyle=":")
    axis.set(xlabel="share of the network drawn anew, from the output", ylabel="SSIM to its map")
    axis.set_title("sanity: must end below its dotted line (maps of two patients)", fontsize=9)
    if axis.has_data():
        axis.legend(fontsize=7)


def _covered(axis: Axes, evidence: Json | None) -> None:
    axis.set_title("how far D's score moves when evidence is covered", fontsize=9)
    if evidence is None:
        return
    for y, name in enumerate(("top", "random", "lowest")):
        dot(axis, y, evidence[name], MADE if name == "top" else REAL, "o")
    name_rows(axis, ["highest", "random", "lowest"])
    axis.set_xlim(left=0)
