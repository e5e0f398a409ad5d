"""Methods side by side on one split and budget, beside real images of other patients and a ladder of spoilt ones.

    python benchmarks/compare.py --data DIR --minutes 30 --out comparison       equal time, on a quiet machine
    python benchmarks/compare.py --data DIR --kimg 300 --out comparison         equal images
    python benchmarks/compare.py --data DIR --methods none --out comparison     the ladder alone
    … --run ours=RUN --run theirs=FOLDER     what is there already: runs, model directories, folders of images

Trains what is missing (ours: preset cpu-64; unguided: the same without a teacher; dcgan: the baseline of the original);
a killed benchmark goes on where it stopped. Every set is cut to the number and class mix of the reference patients and
held against them in two feature spaces that were fitted on the judge patients.

A set is *exposed* by a figure that is worse than on real images of other patients. Exits with 1 if a rung of the
ladder is exposed by nothing, or real images are by something.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ending import leave
from methods import METHODS, Budget, cpu_minutes, ensure_run
from rich.console import Console
from rich.table import Table

from expressivegan.atomic import write_text
from expressivegan.checkpoint import read_json
from expressivegan.console import progress_bar
from expressivegan.data import ImageSet, load_images
from expressivegan.errors import InputError
from expressivegan.evaluation import (
    Evaluation,
    Generated,
    draw_mix,
    fid,
    floor_draws,
    from_model,
    make_ladder,
    memorisation_report,
    open_for_evaluation,
    place_on_ladder,
    prdc,
    read_generated,
)
from expressivegan.evaluation.cases import Figures, Yardstick, exposing, families
from expressivegan.evaluation.paired import ratio_interval
from expressivegan.intervals import Interval, plain
from expressivegan.synthesis import open_generator
from expressivegan.synthesis.origin import check_data

RESOLUTION = 64
SPACES = ("judge", "selfsup")
DRAWS = 8
LEAST = 12  # images of a class, below which the judge's agreement says nothing
REAL = "real, other patients"
COPIES = "training images, copied"
COLUMNS = {
    "fid": "FID", "kid": "KID ×10³", "precision": "prec.", "recall": "recall", "density": "density",
    "coverage": "cover.", "diversity": "divers.", "twins": "twins +",
}  # fmt: skip
Step = Callable[[int, int, str], None]
Set = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


def collect(path: Path, data: ImageSet, num: int, step: Step) -> Generated:
    """Images of a run, a model directory, or a folder of labelled images."""
    if any((path / name).exists() for name in ("generator", "settings.json", "model.safetensors")):
        model = open_for_evaluation(path)
        check_data(model.origin, data)
        return from_model(model, data.classes, num, progress=step)
    made = read_generated(str(path), data.classes, data.resolution)
    if made.labels is None:
        raise InputError(f"--run (={path}) holds images without labels; give class folders or a labels.csv")
    return made


def background(run: Path) -> dict[str, Any]:
    """What is known of how a set came to be."""
    found: dict[str, Any] = {"source": str(run)}
    if (run / "settings.json").exists():
        settings = read_json(run / "settings.json")
        found |= {name: settings.get(name) for name in ("minutes", "teacher", "environment", "data_hash")}
        found |= {name: settings["config"][name] for name in ("method", "kimg", "seed", "precision")}
    if (run / "generator").is_dir():
        found["parameters_of_generator"] = sum(p.numel() for p in open_generator(run).parameters())
    return found


class Bench:
    """The real side: reference, floor and ladder, at one number and class mix for all."""

    def __init__(self, data: ImageSet, made: Mapping[str, Generated], out: Path, seed: int, **recipes: Any) -> None:
        self.data, self.out, self.seed, self.recipes = data, out, seed, recipes
        reference, train = data.indices("reference"), data.indices("train")
        own = Generated(REAL, np.asarray(data.images[reference]), data.labels[reference])
        self.judging = self.evaluation(own)
        full = np.bincount(data.labels[reference], minlength=len(data.classes))
        pools = [np.bincount(x, minlength=len(full)) for x in (data.labels[train], *(m.labels for m in made.values()))]
        share = min(1.0, *(float((pool[pool > 0] / np.maximum(full[pool > 0], 1)).min()) for pool in pools))
        self.counts = [int(count * share + 1e-9) for count in full]
        if min(self.counts) < LEAST:
            raise InputError(
                f"{self.counts} images per class ({', '.join(data.classes)}) are comparable; {LEAST} are needed"
            )
        rows = draw_mix(data.labels[reference], self.counts, seed, "reference")
        self.real = own.images[rows], data.labels[reference][rows]
        self.patients = data.patients[reference][rows]
        draws = [train[d] for d in floor_draws(data.labels[train], self.counts, DRAWS + 1, seed)]
        *self.floor, self.control = [self.take(draw) for draw in draws]
        extra, extra_labels = self.take(np.setdiff1d(train, draws[0]))
        self.rungs = make_ladder(*self.floor[0], data.classes, extra_images=extra, extra_labels=extra_labels, seed=seed)

    def take(self, rows: npt.NDArray[np.int64]) -> Set:
        return np.asarray(self.data.images[rows]), self.data.labels[rows]

    def evaluation(self, case: Generated) -> Evaluation:
        return Evaluation(self.data, case, spaces=SPACES, seed=self.seed, **self.recipes)

    def cut(self, case: Generated) -> Set:
        """A set at the common number and class mix; a class that it lacks is left out."""
        assert case.labels is not None
        there = np.bincount(case.labels, minlength=len(self.counts)) > 0
        counts = [count if here else 0 for count, here in zip(self.counts, there, strict=True)]
        rows = draw_mix(case.labels, counts, self.seed, "generated")
        return case.images[rows], case.labels[rows]

    def features(self, space: str) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
        return lambda images: self.judging.features(space, images)

    def yardstick(self, step: Step) -> Yardstick:
        for space in SPACES:
            self.judging.space(space, lambda done, of, _, space=space: step(done, of, f"fitting {space}"))  # type: ignore[misc]
        judge: Any = self.judging.space("judge")
        spaces = {space: self.features(space) for space in SPACES}
        return Yardstick(
            spaces, lambda x: judge.classify(spaces["judge"](x)), *self.real, self.patients, self.data.classes,
            seed=self.seed,
        )  # fmt: skip

    def memorisation(self, name: str, case: Generated, step: Step) -> dict[str, Any]:
        """Kept in a folder of its name, so that a second run need not ask again."""
        evaluation = self.evaluation(case)
        evaluation.progress = step
        folder = self.out / "memorisation" / name.replace(" ", "-").replace(",", "")
        folder.mkdir(parents=True, exist_ok=True)
        return dict(evaluation.run(folder, ["memorisation"])["sections"]["memorisation"])

    def honest(self) -> bool:
        """Whether memorisation suspects images of the reference patients, whom nobody has copied."""
        train, judge = self.data.indices("train"), self.data.indices("judge")
        return memorisation_report(
            self.judging.made.images,
            *(self.take(rows)[0] for rows in (train, judge)),
            training_patients=self.data.patients[train],
            heldout_patients=self.data.patients[judge],
            labels=(self.data.labels[train], self.data.labels[judge]),
            generated_labels=self.judging.made.labels,
            classes=self.data.classes,
            seed=self.seed,
        ).suspect

    def ratios(self, ours: Set, theirs: Set) -> dict[str, Interval]:
        """Ours over theirs, paired over the reference patients."""
        found = {}
        for space in SPACES:
            real, a, b = (self.features(space)(images) for images in (self.real[0], ours[0], theirs[0]))
            for name, figure in (
                ("fid", fid),
                ("recall", lambda x, y: prdc(x, y).recall),
                ("coverage", lambda x, y: prdc(x, y).coverage),
            ):
                found[f"{space}/{name}"] = ratio_interval(figure, real, a, b, self.patients, seed=self.seed)
        return found


def compare(data: ImageSet, runs: Mapping[str, Path], out: Path, num: int, seed: int, **recipes: Any) -> dict[str, Any]:
    """Scores methods and known cases.

    Args:
        data: real images.
        runs: name → run, model directory or folder of images.
        out: folder for what is kept.
        num: images of each model; 2,000 and more say something about memorisation.
        seed: of draws.
        recipes: `cache`, `judge_recipe`, `selfsup_recipe` of `Evaluation`.
    """
    with progress_bar("compare") as step:
        made = {name: collect(path, data, num, step) for name, path in runs.items()}
        all_of = Bench(data, made, out, seed, **recipes)
        yardstick = all_of.yardstick(step)
        sets = {name: all_of.cut(case) for name, case in made.items()}
        cases = {REAL: all_of.control, **sets, **all_of.rungs}
        floor: list[Figures] = []
        for images, labels in all_of.floor:
            step(len(floor), len(all_of.floor) + len(cases), "floor")
            floor.append(yardstick.score(images, labels))
        figures: dict[str, Figures] = {}
        for name, case in cases.items():
            step(len(floor) + len(figures), len(floor) + len(cases), name)
            figures[name] = yardstick.score(*case)
        # The rungs are made of training images, so memorisation would expose each of them; only the copies, which
        # nothing else exposes, are asked.
        copied = Generated(COPIES, *all_of.rungs[COPIES])
        reports = {name: all_of.memorisation(name, case, step) for name, case in {**made, COPIES: copied}.items()}
        flags = {name: report["suspect"] for name, report in reports.items()} | {REAL: all_of.honest()}
        for name, flagged in flags.items():
            figures[name]["copies"] = Interval(float(flagged), np.nan, np.nan)
        step(0, 1, "ratios")
        ratios = {
            f"ours/{name}": all_of.ratios(sets["ours"], sets[name])
            for name in sets
            if "ours" in sets and name != "ours"
        }
        step(1, 1, "")
    mean = {name: float(np.mean([draw[name].value for draw in floor])) for name in floor[0]}
    spread = {name: float(np.std([draw[name].value for draw in floor], ddof=1)) for name in floor[0]}
    known = {"floor": mean} | {rung: {f: v.value for f, v in figures[rung].items()} for rung in all_of.rungs}
    return {
        "data": data.data_hash,
        "resolution": data.resolution,
        "classes": list(data.classes),
        "counts": all_of.counts,
        "patients": len(np.unique(all_of.patients)),
        "seed": seed,
        "spaces": {space: all_of.judging.space(space).identity for space in SPACES},
        "methods": {name: background(path) for name, path in runs.items()},
        "floor": {name: {"mean": mean[name], "spread": spread[name]} for name in mean},
        "figures": figures,
        "exposed": {name: exposing(row, floor) for name, row in figures.items()},
        "place": {
            name: {
                f"{space}/fid": place_on_ladder(
                    figures[name][f"{space}/fid"].value, {rung: row[f"{space}/fid"] for rung, row in known.items()}
                )
                for space in SPACES
            }
            for name in sets
        },
        "memorisation": {name: report["verdict"] for name, report in reports.items()},
        "ratios": ratios,
        "rungs": list(all_of.rungs),
    }


def show(found: dict[str, Any], console: Console) -> list[str]:
    """Prints the table, the ratios and what exposes each set; returns the faults of the figures themselves."""

    def cell(row: Mapping[str, float], name: str) -> str:
        scale = 1000 if name == "kid" else 1
        return " · ".join(f"{row[f'{space}/{name}'] * scale:.2f}" for space in SPACES)

    def line(name: str, row: Mapping[str, float], copies: str) -> list[str]:
        return [name, *(cell(row, figure) for figure in COLUMNS), f"{row['agreement']:+.2f}", copies]

    mean = {name: entry["mean"] for name, entry in found["floor"].items()}
    table = Table(
        title=f"{sum(found['counts'])} images against {found['patients']} reference patients",
        caption=f"in the features of {' · '.join(SPACES)}; agreement: over that on real images; divers., twins: of the "
        "worst class, beside real images",
    )
    for column in ("set", *COLUMNS.values(), "agree", "copies"):
        table.add_column(column, no_wrap=column != "set")
    table.add_row(*line(f"floor, mean of {DRAWS}", mean, ""), end_section=True)
    for name, row in found["figures"].items():
        copies = {1.0: "yes", 0.0: "no"}.get(row["copies"].value, "") if "copies" in row else ""
        table.add_row(*line(name, {f: v.value for f, v in row.items()}, copies))
    console.print(table)
    for pair, row in found["ratios"].items():
        said = "; ".join(f"{name} {value}" for name, value in row.items())
        console.print(f"{pair} [95% interval, paired over patients]: {said}", highlight=False, markup=False)
    faults = []
    for name, seen in found["exposed"].items():
        said = f"exposed in {', '.join(families(seen))} ({', '.join(seen)})" if seen else "good in all figures"
        console.print(f"{name}: {said}", highlight=False, markup=False, soft_wrap=True)
        if name == REAL and seen:
            faults.append(f"real images are exposed by {', '.join(seen)}")
        if name in found["rungs"] and not seen:
            faults.append(f"the rung {name!r} is exposed by nothing")
    return faults


def main(argv: list[str] | None = None, **recipes: Any) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data", required=True, help="real images, as expressivegan train takes them")
    parser.add_argument("--run", action="append", default=[], metavar="NAME=RUN", help="not to be trained; several")
    parser.add_argument("--methods", default=",".join(METHODS), help="to be compared, by commas; none: only --run")
    parser.add_argument("--minutes", type=float, help="of training for each method, on this machine")
    parser.add_argument("--kimg", type=float, help="thousands of images for each method")
    parser.add_argument("--teacher", default="fit", help="model directory, none, or fit (once, not in the budget)")
    parser.add_argument("--num", type=int, default=2000, help="images of each model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("comparison"), help="runs, what is kept, compare.json")
    options = parser.parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 190)
    runs = {}
    for given in options.run:
        name, equals, path = given.partition("=")
        if not (name and equals and Path(path).exists()) or name in (REAL, COPIES):
            raise InputError(f"--run (={given}) must be NAME=RUN, and RUN a run, a model or a folder of images")
        runs[name] = Path(path)
    chosen = [] if options.methods == "none" else options.methods.split(",")
    missing = [name for name in chosen if name not in runs]
    if set(missing) - set(METHODS):
        raise InputError(f"--methods (={options.methods}) must be among {', '.join(METHODS)}, or none")
    if missing and (options.minutes is None) == (options.kimg is None):
        raise InputError(f"{', '.join(missing)} must be trained: give either --minutes or --kimg")
    data = load_images(options.data, RESOLUTION)
    budget = Budget(options.minutes, options.kimg)
    trained = {
        name: ensure_run(name, options.data, data.data_hash, options.out, budget, options.teacher, options.seed)
        for name in missing
    }
    runs = {name: (trained | runs)[name] for name in dict.fromkeys([*chosen, *runs])}
    options.out.mkdir(parents=True, exist_ok=True)
    found = compare(data, runs, options.out, options.num, options.seed, **recipes)
    faults = show(found, console)
    found["cpu_minutes"] = cpu_minutes(options.out)
    found["faults"] = faults
    write_text(options.out / "compare.json", json.dumps(plain(found), indent=1, ensure_ascii=False) + "\n")
    for name, minutes in found["cpu_minutes"].items():
        console.print(f"{name}: {minutes:.1f} minutes of processor time for training", highlight=False)
    for fault in faults:
        print(f"compare: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    leave(main)
