"""Does training notice that it fails? Runs with a planted fault, and what networks that know nothing of it see.

    python benchmarks/planted.py --data DIR --teacher TEACHER [--kimg 20] [--only NAME ...] [--out planted]

Trains short runs and lists what was warned of and after how many images:

- `default`: the preset as it is;
- `rate x 30`;
- `labels shuffled`: the labels of all images permuted, with the teacher that was fitted on the right ones;
- `weak penalty`: gamma 0.5, every 8 steps;
- `weak penalty, diversity free`: the same, and lost diversity costs nothing.

Whether a run failed is not assumed: its images are judged as in search.py, against reference patients, by networks that
took no part in training. It failed if it stopped with an error, if its recall is below half that of real images in
either feature space, or if the label is seen in 25 points fewer images than in real ones. Exits with 1 if a failed run
went unnoticed, one that did not fail was warned of, or nothing failed. A finished run is not trained again.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from asked import among, claim
from ending import leave
from judging import SPACES, Judging, line
from rich.table import Table

from expressivegan.atomic import write_text
from expressivegan.checkpoint import make_directory, read_json, state_hash
from expressivegan.config import TrainConfig, preset
from expressivegan.console import console, figures_line, progress_bar
from expressivegan.data import ImageSet, load_images
from expressivegan.data.cache import cache_root
from expressivegan.errors import TrainingError
from expressivegan.health import health_check
from expressivegan.intervals import plain
from expressivegan.teacher import open_teacher
from expressivegan.training import Guide, train

LEAST_RECALL = 0.5  # over that of real images
LEAST_AGREEMENT = -0.25  # less that on real images


def arms(images: ImageSet, kimg: float) -> dict[str, tuple[ImageSet, TrainConfig]]:
    """Name → data and settings."""
    # Guided from the start, or a short run would be over before guidance could hide a fault
    config = replace(preset("cpu-64").config, kimg=kimg, sample_every=5.0, checkpoint_every=10.0, guided_after=0.0)
    weak = replace(config, gamma=0.5, gamma_end=0.5, penalty_every=8)
    shuffled = np.random.default_rng(0).permutation(images.labels)
    return {
        "rate x 30": (images, replace(config, rate=30 * config.rate, rate_end=30 * config.rate_end)),
        "labels shuffled": (replace(images, labels=shuffled), config),
        "weak penalty": (images, weak),
        "weak penalty, diversity free": (images, replace(weak, diversity_weight=0.0)),
        "default": (images, config),
    }


def failed(figures: Mapping[str, float]) -> bool:
    """Whether images are as bad as this benchmark's opening says; `figures` are those of `Judging.score`."""
    return min(figures[f"{space}/recall"] for space in SPACES) < LEAST_RECALL or figures["agreement"] < LEAST_AGREEMENT


def mistakes(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is wrong with the warnings of runs (name → warnings, failed), a sentence each."""
    wrong = [
        f"{name} {'went unnoticed' if result['failed'] else 'warned'}"
        for name, result in results.items()
        if bool(result["warnings"]) != result["failed"]
    ]
    if not any(result["failed"] for result in results.values()):
        wrong.append("nothing failed, so nothing could be noticed")
    return wrong


class Watched(NamedTuple):
    """What a run was warned of, and whether an error stopped it."""

    warnings: list[str]
    stopped: bool


def watched(name: str, data: ImageSet, config: TrainConfig, guide: Guide, run: Path) -> Watched:
    """Trains as `expressivegan train` does, its health checks included."""
    with progress_bar(name) as bar:

        def progress(seen: int, total: int, figures: Mapping[str, float]) -> None:
            bar(seen, total, figures_line(figures))

        with console.capture() as said:
            check = health_check(data, guide)
        before = ["before: " + said.get().strip()] if said.get().strip() else []
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the result lists them
                result = train(
                    data, config, run, guide, device="cpu", evaluate=check, progress=progress,
                    resume=any((run / "checkpoints").glob("*.ckpt")), cache_dir=cache_root() / "cams",
                )  # fmt: skip
        except TrainingError as error:
            return Watched([*before, str(error)], stopped=True)
    if result.stopped:
        raise KeyboardInterrupt
    return Watched([*before, *result.warnings], stopped=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="real images, as expressivegan train takes them")
    parser.add_argument("--teacher", required=True, help="model directory of a teacher (expressivegan teach)")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="some of the runs")
    parser.add_argument("--kimg", type=float, default=20.0, help="thousands of images for each run")
    parser.add_argument("--out", type=Path, default=Path("planted"))
    options = parser.parse_args()
    kept = read_json(make_directory(options.out, "--out") / "planted.json")
    images = load_images(options.data, 64)
    teacher = open_teacher(options.teacher)
    asked = {"kimg": options.kimg, "data": images.data_hash, "teacher": state_hash(teacher)}
    claim(kept, "asked", asked, options.out)
    results = kept.setdefault("runs", {})
    guide = Guide(teacher, images.classes, images.reference)
    table = arms(images, options.kimg)
    among("--only", options.only, table)
    judging = Judging(images)
    for name in options.only or table:
        if name in results:
            continue
        run = options.out / name.replace(",", "").replace(" ", "-")
        found = watched(name, *table[name], guide, run)
        figures = None if found.stopped else judging.score(run)
        results[name] = {"warnings": found.warnings, "figures": figures, "failed": figures is None or failed(figures)}
        write_text(options.out / "planted.json", json.dumps(plain(kept), indent=1) + "\n")
    shown = Table(title=f"runs of {options.kimg:g} thousand images", show_lines=True)
    for column in ("run", "judged afterwards", "failed", "warnings", "the first"):
        shown.add_column(column)
    for name, result in results.items():
        judged = "stopped" if result["figures"] is None else line(result["figures"])
        first = next(iter(result["warnings"]), "none")
        shown.add_row(name, judged, "yes" if result["failed"] else "no", str(len(result["warnings"])), first)
    console.print(shown)
    wrong = mistakes(results)
    for sentence in wrong:
        print(f"planted: {sentence}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    leave(main)
