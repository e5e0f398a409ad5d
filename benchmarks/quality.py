"""How good are synthetic images? Scored against reference patients, beside a floor of real images and a ladder.

    python benchmarks/quality.py --data DIR --images DIR_WITH_labels.csv [DIR ...] --npz FILE [...] --out results.json

Every set is cut to one n and one class mix, those of the reference group (less where a set has fewer images). The
floor is train-group images of other patients, cut the same way, averaged over draws; the ladder spoils one such draw in
known ways. Two feature spaces, both fitted on the judge group and cached: an independent classifier of border-masked
images (`judge`) and a self-supervised network of whole frames (`selfsup`).

Fidelity does not see copying: the rung of copied training images scores like the floor. Memorisation is another
benchmark.
"""

import argparse
import csv
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from expressivegan.data import load_images
from expressivegan.data.cache import cache_root
from expressivegan.errors import DataError, ExpressiveGANError, InputError
from expressivegan.evaluation import (
    FeatureSpace,
    JudgeClassifier,
    SelfSupervisedFeatures,
    diversity_report,
    draw_mix,
    fid,
    floor_draws,
    kid,
    make_ladder,
    place_on_ladder,
    prdc,
)

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Set = tuple[Pixels, Labels]
RESOLUTION = 64
PLACED = ("fid", "kid", "precision", "recall", "coverage")


def read_npz(path: Path) -> Set:
    with np.load(path, allow_pickle=False) as stored:
        if not {"images", "labels"} <= set(stored.files):
            raise DataError(f"{path} holds {stored.files}, not images and labels")
        return check_set(path, stored["images"], stored["labels"])


def read_folder(folder: Path, classes: Sequence[str]) -> Set:
    """Images named in `labels.csv` (columns file, label: a class name or its index)."""
    try:
        with (folder / "labels.csv").open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except OSError as error:
        raise DataError(f"{folder}: labels.csv cannot be read ({error.strerror})") from error
    if not rows or not {"file", "label"} <= set(rows[0]):
        raise DataError(f"{folder}/labels.csv needs rows with the columns file and label")
    index = {name: k for k, name in enumerate(classes)} | {str(k): k for k in range(len(classes))}
    images = []
    for row in rows:
        if row["label"] not in index:
            raise DataError(f"{folder}/labels.csv: label {row['label']!r} is none of {', '.join(classes)}")
        try:
            with Image.open(folder / row["file"]) as image:
                images.append(np.asarray(image.convert("L")))
        except (OSError, ValueError) as error:
            raise DataError(f"{folder / row['file']} cannot be read: {error}") from error
    if len({image.shape for image in images}) > 1:
        raise DataError(f"{folder}: images must have one size")
    return check_set(folder, np.stack(images), np.array([index[row["label"]] for row in rows]))


def check_set(path: Path, images: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Set:
    if images.dtype != np.uint8 or images.ndim != 3 or labels.shape != images.shape[:1]:
        raise DataError(
            f"{path}: images must be uint8 (N, H, W) and labels (N,), "
            f"not {images.dtype} {images.shape} and {labels.shape}"
        )
    return images, labels.astype(np.int64)


def resized(images: Pixels) -> Pixels:
    """To the benchmark's side, as the data set's own images are: rungs in pixels mean the same for all sets."""
    if images.shape[1:] == (RESOLUTION, RESOLUTION):
        return images
    side = (RESOLUTION, RESOLUTION)
    return np.stack([np.asarray(Image.fromarray(i).resize(side, Image.Resampling.LANCZOS)) for i in images])


# ---------------------------------------------------------------------------------------------------------------------
# Scoring


class Scorer:
    """The reference at one n and class mix, in every space."""

    def __init__(
        self, spaces: Sequence[FeatureSpace], judge: JudgeClassifier, real: Set, patients: npt.NDArray[Any], k: int
    ) -> None:
        self.spaces, self.judge, self.k = spaces, judge, k
        self.classes = judge.classes
        self.real, self.patients = real, patients
        self.features = {space.name: space.features(real[0]) for space in spaces}
        self.counts = np.bincount(real[1], minlength=len(self.classes)).tolist()

    def score(self, fake: Set, seed: int) -> dict[str, float]:
        """One set of the right n → flat figures; a class that is absent has none."""
        images, labels = fake
        figures: dict[str, float] = {"n": float(len(images))}
        features = {space.name: space.features(images) for space in self.spaces}
        for space in self.spaces:
            real, made = self.features[space.name], features[space.name]
            figures[f"{space.name}/fid"] = fid(real, made)
            figures[f"{space.name}/kid"] = kid(real, made)
            figures |= {f"{space.name}/{name}": value for name, value in prdc(real, made, self.k)._asdict().items()}
            for label, name in enumerate(self.classes):
                rows, ours = labels == label, self.real[1] == label
                if not rows.any():
                    continue
                one = (np.zeros(int(ours.sum()), np.int64), np.zeros(int(rows.sum()), np.int64), [name])
                report = diversity_report(
                    real[ours], made[rows], *one, patients=self.patients[ours], k=self.k, repeats=3, seed=seed
                )[name]
                figures |= {f"{space.name}/{name}/{figure}": value for figure, value in report.items()}
        guess = self.judge.classify(features[self.judge.name]).argmax(1)
        figures["agreement"] = float((guess == labels).mean())
        for label, name in enumerate(self.classes):
            if (labels == label).any():
                figures[f"{name}/agreement"] = float((guess[labels == label] == label).mean())
        return figures


def average(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of every figure, and its standard deviation over draws as `<figure>:sd` where there are several."""
    mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    if len(rows) > 1:
        mean |= {f"{name}:sd": float(np.std([row[name] for row in rows], ddof=1)) for name in rows[0]}
    return mean


def with_ratios(row: dict[str, float], floor: dict[str, float]) -> dict[str, float]:
    """Adds each headline figure over the floor's."""
    out = dict(row)
    for name, value in row.items():
        if name.rsplit("/", 1)[-1] in ("fid", "precision", "recall", "density", "coverage") and name.count("/") == 1:
            out[f"{name}:ratio"] = value / floor[name] if floor[name] > 0 else math.nan
    return out


def tables(results: dict[str, dict[str, float]], spaces: Sequence[str], classes: Sequence[str]) -> list[Table]:
    def cell(row: dict[str, float], name: str, pattern: str = "{:.2f}") -> str:
        return pattern.format(row[name]) if name in row else "–"

    out = []
    for space in spaces:
        table = Table("set", "FID", "× floor", "KID ×10³", "prec.", "recall", "density", "cover.", title=f"in {space}")
        for name, row in results.items():
            spread = f" ± {row[f'{space}/fid:sd']:.2f}" if f"{space}/fid:sd" in row else ""
            table.add_row(
                name,
                cell(row, f"{space}/fid") + spread,
                cell(row, f"{space}/fid:ratio", "{:.1f}"),
                f"{row[f'{space}/kid'] * 1e3:.2f}",
                *(
                    f"{cell(row, f'{space}/{f}')} ({cell(row, f'{space}/{f}:ratio')})"
                    for f in ("precision", "recall", "density", "coverage")
                ),
            )
        out.append(table)
        table = Table("set", title=f"per class in {space}: diversity and coverage over real · near-twins (real)")
        for label in classes:
            table.add_column(label)
        for name, row in results.items():
            cells = [
                f"{cell(row, f'{space}/{c}/diversity_ratio')} · {cell(row, f'{space}/{c}/coverage_ratio')} · "
                f"{cell(row, f'{space}/{c}/duplicate_rate')} ({cell(row, f'{space}/{c}/duplicate_rate_real')})"
                for c in classes
            ]
            table.add_row(name, *cells)
        out.append(table)
    table = Table("set", "all", *classes, title="agreement of the independent classifier with the labels")
    for name, row in results.items():
        table.add_row(name, cell(row, "agreement"), *(cell(row, f"{c}/agreement") for c in classes))
    return [*out, table]


def run(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    data = load_images(arguments.data, RESOLUTION)
    classes, seed = data.classes, arguments.seed
    groups = {name: data.indices(name) for name in ("train", "judge", "reference")}
    patients = {name: set(data.patients[index].tolist()) for name, index in groups.items()}
    if any(patients[a] & patients[b] for a in groups for b in groups if a < b):
        raise DataError("train, judge and reference groups share patients: no figure would mean anything")
    sets = {path.stem: read_npz(path) for path in arguments.npz}
    sets |= {folder.name: read_folder(folder, classes) for folder in arguments.images}
    if len(sets) < len(arguments.npz) + len(arguments.images):
        raise InputError("two sets of images have the same name; rename one")

    cache = arguments.cache or cache_root() / "features"
    images, labels = np.asarray(data.images[groups["judge"]]), data.labels[groups["judge"]]
    with Progress(console=console, transient=True) as bar:

        def follow(title: str) -> Callable[[int, int, float], None]:
            task = bar.add_task(f"fitting {title}", total=None)
            return lambda step, of, loss: bar.update(task, completed=step, total=of)

        judge = JudgeClassifier.fit(images, labels, classes, cache=cache, progress=follow("the judge"))
        selfsup = SelfSupervisedFeatures.fit(images, cache=cache, progress=follow("self-supervised features"))

    # One n and one class mix for all, cut down to the smallest set.
    reference, train = groups["reference"], groups["train"]
    full = np.bincount(data.labels[reference], minlength=len(classes))
    pools = {**{name: made[1] for name, made in sets.items()}, "train group": data.labels[train]}
    share = 1.0
    for name, given in pools.items():
        least = float((np.bincount(given, minlength=len(classes))[: len(classes)] / full).min())
        if least < 1:
            console.print(f"{name} is too small for the reference's class counts: everything is cut to {least:.0%}")
            share = min(share, least)
    counts = [math.floor(c * share + 1e-9) for c in full]
    if min(counts) < 12:
        raise InputError(
            f"only {counts} images per class ({', '.join(classes)}) are comparable; at least 12 are needed"
        )
    reference = reference[draw_mix(data.labels[reference], counts, seed, "reference")]
    real = np.asarray(data.images[reference]), data.labels[reference]
    scorer = Scorer([judge, selfsup], judge, real, data.patients[reference], arguments.k)

    draws = [train[rows] for rows in floor_draws(data.labels[train], counts, arguments.draws, seed)]

    def take(index: Labels) -> Set:
        return np.asarray(data.images[index]), data.labels[index]

    results: dict[str, dict[str, float]] = {}
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("scoring", total=None)
        floor = average([scorer.score(take(draw), seed) for draw in draws])
        results["real, other patients (floor)"] = with_ratios(floor, floor)
        for name, (made, given) in sets.items():
            rows = []
            for i in range(arguments.draws):
                index = draw_mix(given, counts, seed, "generated", i)
                rows.append(scorer.score((resized(made[index]), given[index]), seed))
                if len(index) == len(given):
                    break  # every draw would be the same
            results[name] = with_ratios(average(rows), floor)
            bar.advance(task)
        if arguments.ladder:
            base = draws[0]
            more, more_labels = take(np.setdiff1d(train, base))
            rungs = make_ladder(*take(base), classes, extra_images=more, extra_labels=more_labels, seed=seed)
            for name, rung in rungs.items():
                results[name] = with_ratios(scorer.score(rung, seed), floor)
                bar.advance(task)
    places = {}
    if arguments.ladder:
        for name in sets:
            for figure in [f"{space.name}/{f}" for space in scorer.spaces for f in PLACED]:
                known = {rung: results[rung][figure] for rung in ("real, other patients (floor)", *rungs)}
                place = place_on_ladder(results[name][figure], known, higher_is_better=not figure.endswith("id"))
                places[f"{name}: {figure}"] = place
                console.print(f"{name}: {figure} {place}", highlight=False)
    guess = judge.predict(real[0]).argmax(1)
    accuracy = {"all": float((guess == real[1]).mean())}
    accuracy |= {name: float((guess[real[1] == c] == c).mean()) for c, name in enumerate(classes)}
    for table in tables(results, [space.name for space in scorer.spaces], classes):
        console.print(table)
    console.print("accuracy of the judge on real reference images:", {k: round(v, 3) for k, v in accuracy.items()})
    return {
        "data": data.data_hash,
        "resolution": RESOLUTION,
        "classes": list(classes),
        "counts": counts,
        "k": arguments.k,
        "draws": arguments.draws,
        "seed": seed,
        "judge_accuracy_on_reference": accuracy,
        "places": places,
        "results": {n: {f: (v if math.isfinite(v) else None) for f, v in r.items()} for n, r in results.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data", required=True, help="real images, as load_images takes them")
    parser.add_argument("--images", type=Path, nargs="+", default=[], help="folders with labels.csv")
    parser.add_argument("--npz", type=Path, nargs="+", default=[], help="files with images and labels")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--draws", type=int, default=5, help="subsamples of the floor and of larger sets")
    parser.add_argument("--k", type=int, default=5, help="neighbour of precision, recall, density and coverage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="folder of fitted feature networks")
    parser.add_argument("--no-ladder", dest="ladder", action="store_false", help="only the floor and the sets")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        if arguments.draws < 1:
            raise InputError(f"draws (={arguments.draws}) must be at least 1")
        results = run(arguments, console)
        if arguments.out is not None:
            arguments.out.write_text(json.dumps(results, indent=1, ensure_ascii=False), encoding="utf-8")
    except (ExpressiveGANError, OSError) as error:
        print(f"quality: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
