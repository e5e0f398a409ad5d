"""Loss curves of a run, as a picture."""

import json
from pathlib import Path

from matplotlib.figure import Figure

from expressivegan.atomic import replacing

PANELS = {
    "adversarial loss": ("d_adversarial", "g_adversarial", "c_adversarial"),
    "gradient penalties": ("d_r1", "d_r2"),
    "weighted terms": ("d_cam", "d_class", "g_cam", "g_logits", "g_flip", "g_steer", "g_diversity", "g_detail"),
    "diversity against real (1 is real)": ("diversity_ratio_min", "coverage_ratio_min"),
    "duplicates": ("duplicate_rate_max",),
    "area of maps": ("area_of_maps",),
}


def draw_curves(run: Path) -> Path | None:
    """Draws metrics.jsonl into curves.png; None where there is nothing to draw."""
    try:
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return None
    if not rows:
        return None
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    for axis, (title, names) in zip(figure.subplots(2, 3).flat, PANELS.items(), strict=True):
        for name in names:
            points = [(row["images"] / 1000, row[name]) for row in rows if name in row]
            if points:
                axis.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 20 else None)
        axis.set(title=title, xlabel="thousand images")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7)
    path = run / "curves.png"
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=90, format="png")
    return path
