"""Does training notice that it fails? Runs that must, beside one that must not.

    python benchmarks/planted.py --data DIR --teacher TEACHER [--kimg 40] [--out planted]

Trains short runs, each with one fault planted, and lists what was warned of and after how many images:

- `default`: the preset as it is, which must warn of nothing;
- `weak penalty`: gamma 0.5, every 8 steps, which collapsed before diversity was charged, and does not since
  (docs/benchmarks.md);
- `rate x 30`, which diverges or collapses;
- `labels shuffled`: the labels of all images permuted, with the teacher that was fitted on the right ones.

Exits with 1 if a planted fault went unnoticed, or the default warned. A finished run is not trained again.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from ending import leave
from rich.table import Table

from expressivegan.atomic import write_text
from expressivegan.checkpoint import read_json
from expressivegan.config import TrainConfig, preset
from expressivegan.console import console, figures_line, progress_bar
from expressivegan.data import ImageSet, load_images
from expressivegan.data.cache import cache_root
from expressivegan.errors import TrainingError
from expressivegan.health import health_check
from expressivegan.teacher import open_teacher
from expressivegan.training import Guide, train
from expressivegan.training.guidance import fold_norms


def arms(images: ImageSet, kimg: float) -> dict[str, tuple[ImageSet, TrainConfig]]:
    """Name → data and settings."""
    config = replace(preset("cpu-64").config, kimg=kimg, sample_every=5.0, checkpoint_every=10.0)
    shuffled = np.random.default_rng(0).permutation(images.labels)
    return {
        "rate x 30": (images, replace(config, rate=30 * config.rate, rate_end=30 * config.rate_end)),
        "labels shuffled": (replace(images, labels=shuffled), config),
        "weak penalty": (images, replace(config, gamma=0.5, gamma_end=0.5, penalty_every=8)),
        "default": (images, config),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="real images, as expressivegan train takes them")
    parser.add_argument("--teacher", required=True, help="model directory of a teacher (expressivegan teach)")
    parser.add_argument("--kimg", type=float, default=40.0, help="thousands of images for each run")
    parser.add_argument("--out", type=Path, default=Path("planted"))
    options = parser.parse_args()
    results = read_json(options.out / "planted.json")
    images = load_images(options.data, 64)
    teacher = open_teacher(options.teacher)
    fold_norms(teacher.backbone)
    guide = Guide(teacher, images.classes, images.reference)
    for name, (data, config) in arms(images, options.kimg).items():
        if name in results:
            continue
        run = options.out / name.replace(" ", "-")
        with progress_bar(name) as bar:

            def progress(seen: int, total: int, figures: Mapping[str, float]) -> None:
                bar(seen, total, figures_line(figures))

            try:
                with console.capture() as said:
                    check = health_check(data, guide)
                found = ["before: " + said.get().strip()] if said.get().strip() else []
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # the result lists them
                    result = train(
                        data, config, run, guide, device="cpu", evaluate=check, progress=progress,
                        resume=any((run / "checkpoints").glob("*.ckpt")), cache_dir=cache_root() / "cams",
                    )  # fmt: skip
                found += result.warnings
            except TrainingError as error:
                found = [str(error)]
        results[name] = found
        options.out.mkdir(parents=True, exist_ok=True)
        write_text(options.out / "planted.json", json.dumps(results, indent=1) + "\n")
    table = Table(title=f"warnings within {options.kimg:g} thousand images", show_lines=True)
    for column in ("run", "warnings", "first"):
        table.add_column(column)
    for name, found in results.items():
        table.add_row(name, str(len(found)), found[0] if found else "none")
    console.print(table)
    wrong = [name for name, found in results.items() if bool(found) == (name == "default")]
    for name in wrong:
        print(f"planted: {name} {'warned' if results[name] else 'went unnoticed'}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    leave(main)
