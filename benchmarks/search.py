"""Which settings make the best images per minute of processor time? Successive halving, on real images.

    python benchmarks/search.py --data DIR --teacher TEACHER --out search                      the recipe
    python benchmarks/search.py --data DIR --teacher TEACHER --arms guidance --rungs 20 --seeds 0 1 2 --out ablation
    python benchmarks/search.py --data DIR --teacher TEACHER --arms guidance --kimg 30 --seeds 0 1 2 --out ablation
    python benchmarks/search.py --out search                                                   the table, so far
    python benchmarks/search.py --out ablation --also ablation-2      of two that ran side by side, with other seeds

The last column is how far an arm's score is from the first arm's, with a 95% interval over seeds (Student's t, paired).

Every arm (`arms.py`) is a short run with the schedule of the longest rung. It is stopped at each rung, judged, and only
the better half goes on (`--keep 1` keeps all). A rung is minutes of one core: the speeds of all arms are measured
first, in turns, and turned into numbers of images, so that a busy machine changes nothing but the time you wait. With
`--kimg` a rung is so many thousand images of every arm, whatever they take: alike on all machines, whose results can be
put together. A killed search goes on where it stopped, in the middle of an arm.

An arm is judged by the averaged generator's images against reference patients in two feature spaces fitted on the judge
patients: FID over that of real images of training patients (the floor), recall and coverage over theirs, and the
agreement of the independent classifier with the label, less that on real images. Its `score`, by which arms are ranked,
is the mean over the spaces of ln(FID ratio) - ln(recall ratio) - ln(coverage ratio): lower is better, and 0 is real.
"""

import argparse
import json
import math
import signal
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arms import ARMS, arm
from rich.console import Console
from rich.table import Table
from scipy import stats

from expressivegan.atomic import write_text
from expressivegan.checkpoint import read_json
from expressivegan.config import TrainConfig
from expressivegan.console import console, figures_line, progress_bar
from expressivegan.data import ImageSet, load_images
from expressivegan.data.cache import cache_root
from expressivegan.devices import make_fabric
from expressivegan.errors import ExpressiveGANError, InputError
from expressivegan.evaluation import Comparison, draw_mix, floor_draws, from_model
from expressivegan.evaluation.cases import Yardstick
from expressivegan.intervals import plain
from expressivegan.teacher import open_teacher
from expressivegan.training import Guide, train
from expressivegan.training.guidance import fold_norms
from expressivegan.training.run import Run

RESOLUTION = 64
SPACES = ("judge", "selfsup")
MADE = 1200
FLOORS = 4
FIGURES = ("fid", "recall", "coverage")

Results = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """An arm with one seed."""

    name: str
    seed: int
    config: TrainConfig

    @property
    def key(self) -> str:
        return f"{self.name}, seed {self.seed}"

    def run(self, out: Path) -> Path:
        return out / "runs" / self.key.replace(" ", "-").replace(",", "")


def guide_of(config: TrainConfig, guide: Guide) -> Guide | None:
    """The teacher, if an arm asks it anything."""
    return guide if config.guided or config.cam_weight_d > 0 or config.steer_share > 0 else None


def measure_speeds(images: ImageSet, configs: Mapping[str, TrainConfig], guide: Guide, rounds: int) -> dict[str, float]:
    """Images per second of processor time over a whole run, in turns, so that what disturbs one arm disturbs all."""
    runs = {}
    shares = {}
    for name, config in configs.items():
        found = guide_of(config, guide)
        runs[name] = Run(images, config, found, make_fabric("cpu", config.precision))
        runs[name].look_at_real(cache_root() / "cams")
        late = 1 - config.free_after if config.free_share > 0 else 0.0  # of the run has free pairs, which cost time
        shares[name] = {0.99 * config.free_after: 1 - late, 1.0: late} if late else {0.5: 1.0}
    seconds: dict[str, dict[float, list[float]]] = {name: {at: [] for at in parts} for name, parts in shares.items()}
    with progress_bar("speeds") as bar:
        for round_ in range(rounds + 1):
            for k, (name, run) in enumerate(runs.items()):
                for at, times in seconds[name].items():
                    run.seen = run.config.batch * round(at * 1000 * run.config.kimg / run.config.batch)
                    steps = 2 * run.config.penalty_every
                    start = time.process_time()
                    for _ in range(steps):
                        run.step(lambda terms: None)
                    if round_:  # the first warms up
                        times.append((time.process_time() - start) / (steps * run.config.batch))
                bar(round_ * len(runs) + k + 1, (rounds + 1) * len(runs), name)
    return {
        name: 1 / sum(share * statistics.median(seconds[name][at]) for at, share in parts.items())
        for name, parts in shares.items()
    }


class Judging:
    """The real side: reference images, floor, feature spaces."""

    def __init__(self, data: ImageSet) -> None:
        self.data = data
        self.first: Comparison | None = None
        self.yardstick: Yardstick | None = None
        self.counts: list[int] = []
        self.floor: dict[str, float] = {}

    def _prepare(self, comparison: Comparison) -> None:
        data = self.data
        reference, training = data.indices("reference"), data.indices("train")
        self.first = comparison
        rows, _, self.counts = comparison.mix()
        judge: Any = comparison.space("judge")

        def look(space: str) -> Any:
            return lambda images: comparison.features(space, images)

        self.yardstick = Yardstick(
            {space: look(space) for space in SPACES},
            lambda images: judge.classify(comparison.features("judge", images)),
            np.asarray(data.images[reference])[rows],
            data.labels[reference][rows],
            data.patients[reference][rows],
            data.classes,
        )
        draws = [training[d] for d in floor_draws(data.labels[training], self.counts, FLOORS)]
        scores = [self.yardstick.score(np.asarray(data.images[d]), data.labels[d]) for d in draws]
        self.floor = {name: float(np.mean([s[name].value for s in scores])) for name in scores[0]}

    def score(self, model: Path) -> Results:
        """Figures of a run's averaged generator, each over the floor's, agreement less the floor's."""
        made = from_model(model, self.data.classes, MADE)
        if self.yardstick is None:
            self._prepare(Comparison(self.data, made))
        assert self.yardstick is not None
        assert made.labels is not None
        rows = draw_mix(made.labels, self.counts, 0, "generated")
        found = self.yardstick.score(made.images[rows], made.labels[rows])
        figures = {
            f"{space}/{figure}": found[f"{space}/{figure}"].value / self.floor[f"{space}/{figure}"]
            for space in SPACES
            for figure in FIGURES
        }
        figures["agreement"] = found["agreement"].value
        figures["score"] = statistics.mean(
            math.log(max(figures[f"{space}/fid"], 1e-3))
            - sum(math.log(max(figures[f"{space}/{figure}"], 1e-3)) for figure in ("recall", "coverage"))
            for space in SPACES
        )
        return figures


def advance(trial: Trial, images: ImageSet, guide: Guide, out: Path, target: int) -> int:
    """Trains a trial up to a number of images, from where it stands, and returns that number."""
    run = trial.run(out)
    there = max((int(path.stem) for path in (run / "checkpoints").glob("*.ckpt")), default=0)
    if there >= target:
        return there
    asked = False
    with progress_bar(trial.key) as bar:

        def progress(seen: int, total: int, figures: Mapping[str, float]) -> None:
            nonlocal asked
            bar(min(seen, target), target, figures_line(figures))
            if seen >= target and seen < total and not asked:
                asked = True
                signal.raise_signal(signal.SIGTERM)  # as a user would: finish the step, save, leave

        result = train(
            images, trial.config, run, guide_of(trial.config, guide), teacher_name="of the search", resume=there > 0,
            device="cpu", progress=progress, cache_dir=cache_root() / "cams",
        )  # fmt: skip
    if result.stopped and not asked:
        raise KeyboardInterrupt
    return result.images


def search(options: argparse.Namespace, results: Results) -> None:
    """Runs what is missing; `results` is kept as it grows."""
    table = ARMS[options.arms]
    strange = set(options.only) - set(table)
    if strange:
        raise InputError(f"--only (={', '.join(strange)}) must be among {', '.join(table)}")
    chosen = {name: table[name] for name in options.only or table}
    images = load_images(options.data, RESOLUTION)
    unit, rungs = ("kimg", options.kimg) if options.kimg else ("minutes", options.rungs)
    asked = {"arms": options.arms, "data": images.data_hash, unit: max(rungs)}
    if results.setdefault("search", asked) != asked:
        raise InputError(f"--out (={options.out}) holds another search ({results['search']}); choose another folder")
    teacher = open_teacher(options.teacher)
    fold_norms(teacher.backbone)
    guide = Guide(teacher, images.classes, images.reference)

    def keep() -> None:
        write_text(options.out / "search.json", json.dumps(plain(results), indent=1) + "\n")

    speeds: dict[str, float] = {}
    if unit == "minutes":
        speeds = results.setdefault("images_per_second", {})
        new = {name: arm(changes) for name, changes in chosen.items() if name not in speeds}
        if new:
            # beside the first arm, whose speed is known if the search was widened later
            base = next(iter(chosen))
            found = measure_speeds(images, {base: arm(chosen[base])} | new, guide, rounds=5)
            scale = speeds.get(base, found[base]) / found[base]
            speeds |= {name: found[name] * scale for name in new}
            keep()

    def planned(name: str, rung: float) -> float:
        return float(speeds[name] * 60 * rung / 1000) if unit == "minutes" else rung

    trials = [
        Trial(name, seed, arm(changes, seed=seed, kimg=planned(name, max(rungs)), keep=1, sample_every=1e6))
        for name, changes in chosen.items()
        for seed in options.seeds
    ]
    judging = Judging(images)
    for rung in sorted(rungs):
        scores: dict[str, list[float]] = {}
        for trial in trials:
            done = results.setdefault("figures", {}).setdefault(f"{rung:g}", {})
            if trial.key not in done:
                seen = advance(trial, images, guide, options.out, int(1000 * planned(trial.name, rung)))
                done[trial.key] = {"images": seen} | judging.score(trial.run(options.out))
                results["floor"] = judging.floor
                keep()
                console.print(f"{trial.key}, {rung:g} {unit}: " + line(done[trial.key]), highlight=False, markup=False)
            scores.setdefault(trial.name, []).append(done[trial.key]["score"])
        ranked = sorted(scores, key=lambda name: statistics.mean(scores[name]))
        best = ranked[: max(1, math.ceil(len(ranked) * options.keep))]
        trials = [t for t in trials if t.name in best or t.name == next(iter(chosen))]  # the first arm is the measure


def line(figures: Mapping[str, float]) -> str:
    """One arm's figures in one line."""
    pairs = [f"{figure} {figures[f'judge/{figure}']:.2f} · {figures[f'selfsup/{figure}']:.2f}" for figure in FIGURES]
    return "; ".join([*pairs, f"agreement {figures['agreement']:+.3f}", f"score {figures['score']:.2f}"])


def against(found: Mapping[int, Mapping[str, float]], first: Mapping[int, Mapping[str, float]], name: str) -> str:
    """How far an arm's figure is from the first arm's, with its 95% interval over seeds (Student's t, paired)."""
    apart = [found[seed][name] - first[seed][name] for seed in sorted(set(found) & set(first))]
    if found is first or len(apart) < 2:
        return ""
    half = stats.t.ppf(0.975, len(apart) - 1) * statistics.stdev(apart) / math.sqrt(len(apart))
    return f"{statistics.mean(apart):+.2f} ±{half:.2f}"


def show(results: Results, screen: Console) -> None:
    """One table a rung: the mean over seeds with its standard error, and the difference to the first arm."""
    for rung, rows in results.get("figures", {}).items():
        unit = "kimg" if "kimg" in results["search"] else "minutes of one core"
        table = Table(title=f"{rung} {unit}", caption=f"over the floor, in the features of {SPACES}")
        for column in ("arm", "seeds", "kimg", "FID", "recall", "coverage", "agreement", "score", "to the first"):
            table.add_column(column, no_wrap=column != "arm")
        arms: dict[str, dict[int, Mapping[str, float]]] = {}
        for key, figures in rows.items():
            name, _, seed = key.rpartition(", seed ")
            arms.setdefault(name, {})[int(seed)] = figures
        first = arms.get(next(iter(ARMS[results["search"]["arms"]])), {})

        def cell(found: Mapping[int, Mapping[str, float]], name: str) -> str:
            values = [f[name] for f in found.values()]
            error = f" ±{statistics.stdev(values) / math.sqrt(len(values)):.2f}" if len(values) > 1 else ""
            return f"{statistics.mean(values):.2f}{error}"

        for name, found in sorted(arms.items(), key=lambda item: statistics.mean(f["score"] for f in item[1].values())):
            both = [" · ".join(cell(found, f"{space}/{figure}") for space in SPACES) for figure in FIGURES]
            kimg = f"{statistics.mean(f['images'] for f in found.values()) / 1000:.0f}"
            last = (cell(found, "agreement"), cell(found, "score"), against(found, first, "score"))
            table.add_row(name, str(len(found)), kimg, *both, *last)
        screen.print(table)


def merge(results: Results, folders: Sequence[Path]) -> Results:
    """Adds the figures of searches of the same kind that ran elsewhere, with other seeds or arms."""
    for folder in folders:
        found = read_json(folder / "search.json")
        if found.get("search") != results.get("search"):
            raise InputError(
                f"--also (={folder}) must hold a search like that of --out ({results.get('search')}), not "
                f"{found.get('search')}"
            )
        for rung, rows in found.get("figures", {}).items():
            results.setdefault("figures", {}).setdefault(rung, {}).update(rows)
    return results


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="real images, as expressivegan train takes them; without, only shows")
    parser.add_argument("--teacher", help="model directory of a teacher (expressivegan teach)")
    parser.add_argument("--arms", choices=ARMS, default="recipe", help="which table of arms.py")
    parser.add_argument("--only", nargs="*", default=[], help="some arms of it; the first is always kept, as measure")
    parser.add_argument("--rungs", type=float, nargs="+", default=[5, 10, 20], help="minutes of one core")
    parser.add_argument("--kimg", type=float, nargs="+", default=[], help="rungs in thousands of images instead")
    parser.add_argument("--keep", type=float, default=0.5, help="share of the arms that goes on to the next rung")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, required=True, help="runs and search.json")
    parser.add_argument("--also", type=Path, nargs="+", default=[], help="folders of others, to be shown with it")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)  # minutes of one core
    try:
        results = read_json(options.out / "search.json")
        if options.data is not None:
            if options.teacher is None:
                raise InputError("--teacher is missing: fit one first, with expressivegan teach")
            if not 0 < options.keep <= 1:
                raise InputError(f"--keep (={options.keep}) must be above 0 and at most 1")
            options.out.mkdir(parents=True, exist_ok=True)
            search(options, results)
        show(merge(results, options.also), Console(width=None if sys.stdout.isatty() else 150))
    except ExpressiveGANError as error:
        print(f"search: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("search: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
