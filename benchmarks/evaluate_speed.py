"""How long does the evaluation take once the real images' features are known, and with how much memory?

    python benchmarks/evaluate_speed.py [--n 4000] [--heldout 1000] [--threads 2] [--out evaluate_speed.json]

Phantoms stand for real and for generated images; the two feature networks have their real sizes and are fitted for a
moment only, since how good they are takes no time. Fitting and the real images' features are not counted. Processor
time is the figure to read on a machine that does other things too; peak memory is that of the whole process so far.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from ending import leave
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from expressivegan.data import load_images
from expressivegan.evaluation import (
    JudgeClassifier,
    JudgeRecipe,
    Reference,
    SelfSupervisedFeatures,
    SelfSupervisedRecipe,
    diversity_report,
    memorisation_report,
)

SIDE = 64
FITTED = 192  # phantoms that the feature networks see
FIDELITY = ("features of generated images", "fidelity", "diversity")
SECONDS, GIB = 60, 3.0  # allowed for fidelity and diversity together, and again for memorisation

T = TypeVar("T")


class Stages:
    """Wall time, processor time and peak memory of what is done, in order."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, float]] = {}

    def run(self, name: str, work: Callable[[], T]) -> T:
        wall, cpu = time.perf_counter(), time.process_time()
        found = work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        self.rows[name] = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "peak_gib": peak}
        print(f"{name}: {self.rows[name]['wall_s']:.1f} s", file=sys.stderr, flush=True)
        return found

    def total(self, names: tuple[str, ...]) -> dict[str, float]:
        rows = [self.rows[name] for name in names]
        return {k: sum(r[k] for r in rows) for k in ("wall_s", "cpu_s")} | {
            "peak_gib": max(r["peak_gib"] for r in rows)
        }


def run(n: int, heldout: int, stages: Stages) -> dict[str, int]:
    """Fills `stages`; returns the widths of the feature spaces."""
    data = stages.run("drawing phantoms", lambda: load_images(f"phantom:{FITTED + 2 * n + heldout}", SIDE))
    pixels, labels = np.asarray(data.images), np.asarray(data.labels)
    patients = np.asarray(data.patients)
    fit, real, fake, held = np.split(
        np.arange(len(pixels))[: FITTED + 2 * n + heldout], [FITTED, FITTED + n, FITTED + 2 * n]
    )
    spaces = stages.run(
        "fitting two networks",
        lambda: (
            JudgeClassifier.fit(pixels[fit], labels[fit], data.classes, recipe=JudgeRecipe(epochs=1)),
            SelfSupervisedFeatures.fit(pixels[fit], recipe=SelfSupervisedRecipe(epochs=1)),
        ),
    )
    known = stages.run("features of real images", lambda: [space.features(pixels[real]) for space in spaces])
    made = stages.run(FIDELITY[0], lambda: [space.features(pixels[fake]) for space in spaces])
    stages.run(
        FIDELITY[1],
        lambda: [
            Reference(a, patients[real], labels[real], data.classes).report(b, labels[fake])
            for a, b in zip(known, made, strict=True)
        ],
    )
    stages.run(
        FIDELITY[2],
        lambda: [
            diversity_report(a, b, labels[real], labels[fake], data.classes, patients=patients[real])
            for a, b in zip(known, made, strict=True)
        ],
    )
    stages.run(
        "memorisation",
        lambda: memorisation_report(
            pixels[fake],
            pixels[real],
            pixels[held],
            training_patients=patients[real],
            heldout_patients=patients[held],
            labels=(labels[real], labels[held]),
            generated_labels=labels[fake],
            classes=data.classes,
        ),
    )
    return {type(space).__name__: rows.shape[1] for space, rows in zip(spaces, known, strict=True)}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--n", type=int, default=4000, help="real images, and as many generated ones")
    parser.add_argument("--heldout", type=int, default=1000, help="further real images, for memorisation")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    stages = Stages()
    with threadpool_limits(arguments.threads):
        widths = run(arguments.n, arguments.heldout, stages)
    totals = {"fidelity and diversity": stages.total(FIDELITY), "memorisation": stages.total(("memorisation",))}
    title = f"{arguments.n} against {arguments.n} images at {SIDE} px, {arguments.threads} threads, {widths}"
    table = Table("stage", "wall s", "processor s", "peak GiB", title=title)
    for name, row in (stages.rows | {f"TOTAL {name}": row for name, row in totals.items()}).items():
        table.add_row(name, f"{row['wall_s']:.1f}", f"{row['cpu_s']:.1f}", f"{row['peak_gib']:.2f}")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    results: dict[str, Any] = {**vars(arguments), "widths": widths, "stages": stages.rows, "totals": totals}
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(results, indent=1, default=str), encoding="utf-8")
    good = all(row["wall_s"] <= SECONDS and row["peak_gib"] <= GIB for row in totals.values())
    print(f"{'within' if good else 'NOT within'} {SECONDS} s each and {GIB:g} GiB")
    return 0 if good else 1


if __name__ == "__main__":
    leave(main)
