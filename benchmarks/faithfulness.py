"""Do the maps of a run show what they claim to? Every figure beside four controls that know nothing.

    python benchmarks/faithfulness.py --data DIR --model RUN [--phantom N] [--teacher DIR ...] [--out results.json]

Teacher's CAM, the discriminator's class CAM and evidence, and the generator's M, on reference patients with a disease:
deletion, insertion and ROAD in the eyes of a classifier fitted on judge patients, share inside the lungs, parameter
randomisation, random logit, repeatability over the teachers given; M against the true change. With --phantom N a
compact teacher is fitted on N phantoms and held against the focal lesions that were drawn. See docs/faithfulness.md.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from asked import data_of_model, results_file
from ending import leave
from rich.console import Console

from expressivegan.atomic import write_text
from expressivegan.console import progress_bar
from expressivegan.data import ImageSet, load_images
from expressivegan.data.cache import cache_root
from expressivegan.evaluate_command import open_networks
from expressivegan.evaluation import JudgeClassifier, open_for_evaluation
from expressivegan.evaluation.faithfulness import Networks, faithfulness_section
from expressivegan.evaluation.faithfulness.section import COUNT
from expressivegan.report.faithfulness import tables
from expressivegan.teacher import open_teacher
from expressivegan.teacher.fit import fit_teacher

console = Console(width=132)


def judge_of(data: ImageSet) -> JudgeClassifier:
    rows = data.indices("judge")
    pixels = np.asarray(data.images[rows])
    return JudgeClassifier.fit(pixels, data.labels[rows], data.classes, cache=cache_root() / "features")


def show(found: dict[str, Any]) -> None:
    for table in tables(found):
        console.print(table)
    for sentence in found["warnings"]:
        console.print(f"- {sentence}")
    for part, why in found["left_out"].items():
        console.print(f"left out: {part}: {why}", style="yellow")


def on_phantoms(count: int, resolution: int, arguments: argparse.Namespace) -> dict[str, Any]:
    data = load_images(f"phantom:{count}", resolution)
    if arguments.phantom_teacher is not None:
        teacher = open_teacher(str(arguments.phantom_teacher))
    else:
        with progress_bar("fitting a teacher on phantoms") as bar:
            teacher = fit_teacher(data, progress=bar)
    with progress_bar("faithfulness, phantoms") as bar:
        networks = Networks(teacher)
        return faithfulness_section(networks, data, None, count=arguments.count, seed=arguments.seed, progress=bar)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", type=Path, required=True, help="folder of a run")
    parser.add_argument("--phantom", type=int, help="fit a teacher on so many phantoms, and hold it against the truth")
    parser.add_argument("--phantom-teacher", type=Path, help="a teacher fitted on them already")
    parser.add_argument(
        "--teacher", type=Path, nargs="*", default=[], help="teachers of other seeds, for repeatability"
    )
    parser.add_argument(
        "--count", type=int, default=COUNT, help="images with a disease, and generated images of a class"
    )
    parser.add_argument("--other-data", action="store_true", help="the run was trained on others, as in evaluate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.out is not None:
        results_file(arguments.out)
    results: dict[str, Any] = {}
    model = open_for_evaluation(arguments.model)
    side, classes = model.network.resolution, model.network.class_set.names
    data = data_of_model(model.path, classes, side, arguments.data, arguments.other_data)
    networks = open_networks(model, arguments.teacher)
    if arguments.phantom is not None:
        results["phantoms"] = on_phantoms(arguments.phantom, side, arguments)
        show(results["phantoms"])
    judge = judge_of(data)
    with progress_bar("faithfulness") as bar:
        results["run"] = faithfulness_section(
            networks, data, judge, count=arguments.count, seed=arguments.seed, progress=bar
        )
    show(results["run"])
    if arguments.out is not None:
        write_text(arguments.out, json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    leave(main)
