"""Do several independent classifiers see the label that was asked for? What one of them says, chance has a part in.

    python benchmarks/classes.py --data DIR --model RUN [RUN ...] [--judges 4] [--num 4500] [--out results.json]

`evaluate` asks one classifier, and holds what it says against real images of reference patients, of whom a class may
have few. Here classifiers of several seeds, each fitted on the judge group (five minutes of a core, then kept; a model
takes two), are held against real images of the training patients, whom they do not know either and of whom there are
more. A row is the mean over classifiers, in points, of how much more often than in those real images the label is seen,
by class, with the standard deviation over classifiers. Beside the models: real images of reference patients (the
floor), and the same with a wrong label for one in ten, which must be told from it.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from asked import data_of_model, results_file
from ending import leave
from rich.console import Console
from rich.progress import track
from rich.table import Table

from expressivegan.atomic import write_text
from expressivegan.data import ImageSet
from expressivegan.errors import InputError
from expressivegan.evaluation import Comparison, JudgeClassifier, from_model
from expressivegan.models import GeneratorWithCAMGuidance
from expressivegan.synthesis import open_generator

Labels = npt.NDArray[np.int64]
FLOOR, PLANTED = "real, reference patients", "the same, one label in ten wrong"


def says(of: Comparison, images: npt.NDArray[np.uint8]) -> Labels:
    """(N,): the class that the independent classifier of a comparison sees in each image."""
    judge = of.space("judge")
    assert isinstance(judge, JudgeClassifier)
    return judge.classify(of.features("judge", images)).argmax(1)


def seen(said: Labels, labels: Labels, classes: int) -> npt.NDArray[np.float64]:
    """(K,): by class, the share in percent of its images in which a classifier says the label."""
    return np.array([100 * (said[labels == k] == k).mean() for k in range(classes)])


def mislabelled(labels: Labels, classes: int) -> Labels:
    """The labels, every tenth of each class the next class's."""
    wrong = labels.copy()
    for k in range(classes):
        wrong[np.flatnonzero(labels == k)[::10]] = (k + 1) % classes
    return wrong


def open_data(models: list[Path], source: str, other_data: bool) -> ImageSet:
    """Real images as the models saw them. Raises InputError: they are of several sizes or data sets."""
    found: ImageSet | None = None
    for path in models:
        model = open_generator(path)
        if not isinstance(model, GeneratorWithCAMGuidance):
            raise InputError(f"--model (={path}) must be a CAM-guided generator")
        data = data_of_model(path, model.classes, model.resolution, source, other_data)
        if found is not None and (found.resolution, found.fit) != (data.resolution, data.fit):
            raise InputError(f"--model (={path}) is of another size than {models[0]}; give models of one size")
        found = data
    assert found is not None
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", type=Path, nargs="+", required=True)
    parser.add_argument("--other-data", action="store_true", help="the models were trained on others, as in evaluate")
    parser.add_argument("--judges", type=int, default=4, help="classifiers, from 2 on")
    parser.add_argument("--num", type=int, default=4500, help="images of each model")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.judges < 2 or options.num < 30:
        raise InputError(f"--judges (={options.judges}) must be at least 2, and --num (={options.num}) at least 30")
    if options.out is not None:
        results_file(options.out)
    data = open_data(options.model, options.data, options.other_data)

    sets = {str(path): from_model(path, data.classes, options.num) for path in options.model}
    K = len(data.classes)
    told: dict[str, list[list[float]]] = {}
    for seed in track(range(options.judges), "classifiers", transient=True):
        of = Comparison(data, next(iter(sets.values())), seed=seed, other_data=options.other_data)
        usual = seen(says(of, of.pixels("train")), of.labels("train"), K)
        real = says(of, of.pixels())
        shares = {FLOOR: seen(real, of.labels(), K), PLANTED: seen(real, mislabelled(of.labels(), K), K)}
        for name, made in sets.items():
            assert made.labels is not None
            shares[name] = seen(says(of, made.images), made.labels, K)
        for name, share in shares.items():
            told.setdefault(name, []).append((share - usual).tolist())

    table = Table(
        "images",
        *data.classes,
        title=f"points more than in real images of training patients, {options.judges} classifiers",
    )
    for name, rows in told.items():
        mean, spread = np.mean(rows, 0), np.std(rows, 0, ddof=1)
        table.add_row(name, *(f"{m:+.1f} (sd {s:.1f})" for m, s in zip(mean, spread, strict=True)))
    Console(width=110).print(table)
    if options.out is not None:
        write_text(options.out, json.dumps({"classes": data.classes, "points": told}, indent=1) + "\n")
    if not all(np.mean(told[PLANTED], 0) < np.mean(told[FLOOR], 0)):
        raise InputError("wrong labels are not told from right ones: the judge group is too small for this")


if __name__ == "__main__":
    leave(main)
