"""Which settings make the best images per minute of processor time? Successive halving, on real images.

    python benchmarks/search.py --data DIR --teacher TEACHER --out search                      the recipe
    python benchmarks/search.py --data DIR --teacher TEACHER --arms guidance --rungs 20 --seeds 0 1 2 --out ablation
    python benchmarks/search.py --data DIR --teacher TEACHER --arms guidance --kimg 30 --seeds 0 1 2 --out ablation
    python benchmarks/search.py --out search                          the tables and search.png, of what is done
    python benchmarks/search.py --out ablation --also ablation-2      of two that ran side by side, with other seeds

The second table holds every arm against one of them (`--against`, by default the first), with 95% intervals over seeds
(Student's t, paired): FID as a ratio, everything else as a difference.

Every arm (`arms.py`) is planned for the longest rung, stopped at each rung and judged, and only the better half goes
on (`--keep 1` keeps all). What begins after so many images (`logit_kimg`, `detail_kimg`) begins there in short runs
too, or never: arms that differ in that alone are one run before. A rung is minutes of one core: the speeds of all arms
are measured first, in turns, and turned into numbers of images, so that a busy machine changes nothing but the time
you wait. With `--kimg` a rung is so many thousand images of every arm, whatever they take: alike on all machines, whose
results can be put together. `--jobs 2` trains two arms at a time, each on a core. A killed search goes on where it
stopped, in the middle of an arm.

An arm is judged by the averaged generator's images against reference patients in two feature spaces fitted on the judge
patients: FID over that of real images of training patients (the floor), recall and coverage over theirs, and the
agreement of the independent classifier with the label, less that on real images. Its `score`, by which arms are ranked,
is the mean over the spaces of ln(FID ratio) - ln(recall ratio) - ln(coverage ratio): lower is better, and 0 is real.
"""

import argparse
import json
import math
import multiprocessing
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from arms import ARMS, arm
from asked import among, claim
from ending import leave
from judging import FIGURES, SPACES, Judging, line
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from rich.console import Console
from seeds import arms_of, show_arms

from expressivegan.atomic import write_text
from expressivegan.checkpoint import list_checkpoints, make_directory, read_json, state_hash
from expressivegan.config import TrainConfig
from expressivegan.console import console, figures_line, progress_bar
from expressivegan.data import ImageSet, load_images
from expressivegan.data.cache import cache_root
from expressivegan.devices import make_fabric
from expressivegan.errors import InputError, TrainingError
from expressivegan.intervals import plain
from expressivegan.teacher import open_teacher
from expressivegan.training import Guide, train
from expressivegan.training.run import Run

RESOLUTION = 64
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


def measure_speeds(images: ImageSet, configs: Mapping[str, TrainConfig], guide: Guide, rounds: int) -> dict[str, float]:
    """Images per second of processor time over a whole run, in turns, so that what disturbs one arm disturbs all."""
    runs = {}
    shares = {}
    for name, config in configs.items():
        found = guide if config.asks_teacher else None
        runs[name] = Run(images, config, found, make_fabric("cpu", config.precision))
        runs[name].look_at_real(cache_root() / "cams")
        shares[name] = dict(config.phases())
    seconds: dict[str, dict[float, list[float]]] = {name: {at: [] for at in parts} for name, parts in shares.items()}
    with progress_bar(f"speed of {list(configs)[-1]}") as bar:
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


def complete_speeds(
    speeds: dict[str, float], images: ImageSet, configs: Mapping[str, TrainConfig], guide: Guide
) -> None:
    """Adds the arms that are missing, each measured beside the first alone.

    Of twenty runs in one process two seemed 15% faster than they were.
    """
    base = next(iter(configs))
    for name, config in configs.items():
        if name not in speeds:
            found = measure_speeds(images, {base: configs[base]} | {name: config}, guide, rounds=3)
            speeds[name] = found[name] * speeds.get(base, found[base]) / found[base]


@dataclass(frozen=True)
class Attempt:
    """A trial and how many images it is to have seen."""

    trial: Trial
    target: int


Outcome = tuple[Attempt, dict[str, float] | str, dict[str, float]]
"""An attempt, its figures or why there are none, and the figures of real images."""


class Bench:
    """What every attempt needs: real images, the teacher, the judges."""

    def __init__(self, data: str, teacher: str) -> None:
        self.images = load_images(data, RESOLUTION)
        found = open_teacher(teacher)
        self.teacher_hash = state_hash(found)
        self.guide = Guide(found, self.images.classes, self.images.reference)
        self.judging = Judging(self.images)

    def figures(self, attempt: Attempt, out: Path, quiet: bool) -> tuple[dict[str, float], dict[str, float]]:
        """Trains on and judges: the figures, and those of real images."""
        seen = advance(attempt.trial, self.images, self.guide, out, attempt.target, quiet)
        figures = {"images": seen} | self.judging.score(attempt.trial.run(out))
        return figures, self.judging.floor

    def outcome(self, attempt: Attempt, out: Path, quiet: bool = True) -> Outcome:
        """`figures`, or the sentence with which training failed: an arm that diverges is no reason to end a search."""
        try:
            return attempt, *self.figures(attempt, out, quiet)
        except TrainingError as error:
            return attempt, str(error), {}


def advance(trial: Trial, images: ImageSet, guide: Guide, out: Path, target: int, quiet: bool) -> int:
    """Trains a trial up to a number of images, from where it stands, and returns that number."""
    run = trial.run(out)
    there = max((int(path.stem) for path in list_checkpoints(run / "checkpoints")), default=0)
    if there > target + 8 * trial.config.batch:  # progress is told after every eighth step
        raise InputError(
            f"--out (={out}) holds {trial.key} after {there} images, more than {target}; choose another folder"
        )
    if there >= target:
        return there
    asked = False
    asks = guide if trial.config.asks_teacher else None
    with progress_bar(trial.key) as bar:

        def progress(seen: int, total: int, figures: Mapping[str, float]) -> None:
            nonlocal asked
            if not quiet:
                bar(min(seen, target), target, figures_line(figures))
            if seen >= target and seen < total and not asked:
                asked = True
                signal.raise_signal(signal.SIGTERM)  # as a user would: finish the step, save, leave

        result = train(
            images, trial.config, run, asks, teacher_name="of the search" if asks else "none", resume=there > 0,
            device="cpu", progress=progress, cache_dir=cache_root() / "cams",
        )  # fmt: skip
    if result.stopped and not asked:
        raise KeyboardInterrupt
    return result.images


_bench: Bench | None = None  # of a process that --jobs started


def _begin(data: str, teacher: str) -> None:
    global _bench
    os.setpgrp()  # Ctrl-C is for the search, which asks each training once to save: asked twice, it would not
    torch.set_num_threads(1)
    _bench = Bench(data, teacher)


def _one(attempt: Attempt, out: Path) -> Outcome:
    assert _bench is not None
    try:
        return _bench.outcome(attempt, out)
    except KeyboardInterrupt:  # saved
        os._exit(130)  # the pool would hand it the next arm


def run_all(
    attempts: Sequence[Attempt], bench: Bench, pool: Executor | None, out: Path, title: str
) -> Iterator[Outcome]:
    """Attempts with what came of them, as they end; side by side in a pool."""
    if pool is None:
        for attempt in attempts:
            yield bench.outcome(attempt, out, quiet=False)
        return
    waiting = [pool.submit(_one, attempt, out) for attempt in attempts]
    with progress_bar(title) as bar:
        bar(0, len(waiting), "")
        for k, future in enumerate(as_completed(waiting)):
            try:
                yield future.result()
            except BrokenProcessPool as error:
                raise KeyboardInterrupt from error  # somebody stopped a process
            bar(k + 1, len(waiting), "arms")


def make_pool(options: argparse.Namespace) -> ProcessPoolExecutor | None:
    """Processes that each have a bench of their own, or None for one job at a time."""
    if options.jobs == 1:
        return None
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the trainings are to be told, too
    fresh = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    return ProcessPoolExecutor(options.jobs, fresh, _begin, (options.data, options.teacher))


def claim_settings(results: Results, configs: Mapping[str, TrainConfig], out: Path) -> None:
    """Notes the settings of each arm. Raises InputError: it has figures of other ones."""
    kept = results.setdefault("settings", {})
    for name, config in configs.items():
        of_trials = replace(config, seed=0, kimg=1, keep=1, sample_every=1e6)  # each has its own of these
        settings = plain(of_trials.to_json())
        changed = [key for key, value in settings.items() if kept.setdefault(name, settings).get(key) != value]
        if changed:
            raise InputError(
                f"--out (={out}) holds figures of the arm {name!r} with another {', '.join(changed)}; choose another "
                "folder"
            )


def search(options: argparse.Namespace, results: Results) -> None:
    """Runs what is missing; `results` is kept as it grows."""
    table = ARMS[options.arms]
    among("--only", options.only, table)
    chosen = {name: arm(table[name]) for name in table if not options.only or name in options.only}
    unit, rungs = ("kimg", options.kimg) if options.kimg else ("minutes", options.rungs)
    bench = Bench(options.data, options.teacher)
    of = {"arms": options.arms, "data": bench.images.data_hash, "teacher": bench.teacher_hash, unit: max(rungs)}
    claim(results, "search", of, options.out)
    claim_settings(results, chosen, options.out)

    def keep() -> None:
        write_text(options.out / "search.json", json.dumps(plain(results), indent=1) + "\n")

    speeds: dict[str, float] = {}
    if unit == "minutes":
        speeds = results.setdefault("images_per_second", {})
        complete_speeds(speeds, bench.images, chosen, bench.guide)
        keep()

    def planned(name: str, rung: float) -> float:
        return float(speeds[name] * 60 * rung / 1000) if unit == "minutes" else rung

    trials = [
        Trial(name, seed, replace(config, seed=seed, kimg=planned(name, max(rungs)), keep=1, sample_every=1e6))
        for name, config in chosen.items()
        for seed in options.seeds
    ]
    pool = make_pool(options)
    try:
        for rung in sorted(rungs):
            done = results.setdefault("figures", {}).setdefault(f"{rung:g}", {})
            failed = results.setdefault("failed", {})
            missing = [
                Attempt(t, int(1000 * planned(t.name, rung)))
                for t in trials
                if t.key not in done and t.key not in failed
            ]
            with closing(run_all(missing, bench, pool, options.out, f"{rung:g} {unit}")) as ended:
                for attempt, found, floor in ended:
                    key = attempt.trial.key
                    if isinstance(found, str):
                        failed[key] = said = found
                    else:
                        done[key], results["floor"], said = found, floor, line(found)
                    keep()
                    console.print(f"{key}, {rung:g} {unit}: {said}", highlight=False, markup=False)
            trials = [t for t in trials if t.key not in failed]
            scores: dict[str, list[float]] = {}
            for trial in trials:
                scores.setdefault(trial.name, []).append(done[trial.key]["score"])
            ranked = sorted(scores, key=lambda name: statistics.mean(scores[name]))
            best = ranked[: max(1, math.ceil(len(ranked) * options.keep))]
            trials = [t for t in trials if t.name in best or t.name == next(iter(chosen))]  # the first: the measure
    finally:
        if pool is not None:
            for process in multiprocessing.active_children():
                process.terminate()  # a training saves and leaves
            pool.shutdown(cancel_futures=True)


def draw(results: Results, path: Path) -> None:
    """The last rung: a dot a seed, a stroke for their mean; real images are at 1, or at 0 for agreement."""
    rows = results["figures"][max(results["figures"], key=float)]
    arms = arms_of(rows)
    figure = Figure(figsize=(13, 1.8 + 0.28 * len(arms)), layout="constrained")
    panels = [(name, [(space, f"{space}/{name}") for space in SPACES]) for name in FIGURES]
    panels.append(("agreement", [("judge", "agreement")]))
    for axis, (title, series) in zip(figure.subplots(1, 4, sharey=True), panels, strict=True):
        for k, (space, name) in enumerate(series):
            for row, found in enumerate(arms.values()):
                values = [f[name] for f in found.values()]
                at = row + 0.3 * (k - (len(series) - 1) / 2)
                axis.plot(values, [at] * len(values), "o", color=f"C{k}", alpha=0.5, markersize=4,
                          label=space if row == 0 else None)  # fmt: skip
                axis.plot(statistics.mean(values), at, "|", color=f"C{k}", markersize=11, markeredgewidth=2)
        axis.axvline(0 if title == "agreement" else 1, color="0.5", linewidth=0.8, linestyle="--")
        shown = title.upper() if title == "fid" else title
        axis.set_title(f"{shown}, less real images'" if title == "agreement" else f"{shown}, over real images'")
        axis.grid(axis="y", alpha=0.3)
        if title == "fid":
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.set_yticks(range(len(arms)), list(arms))
            axis.invert_yaxis()
            axis.legend(fontsize=8)
    figure.savefig(path, dpi=90)


def show(results: Results, screen: Console, measure: str | None = None) -> None:
    """Two tables a rung: the figures of each arm, and how far they are from those of the arm `measure`."""
    unit = "kimg" if "kimg" in results["search"] else "minutes of one core"
    for rung, rows in sorted(results.get("figures", {}).items(), key=lambda item: float(item[0])):
        arms = arms_of(rows)
        first = next((name for name in ARMS[results["search"]["arms"]] if name in arms), None)
        if first is not None:
            show_arms(arms, screen, f"{rung} {unit}", measure or first)
    for key, reason in results.get("failed", {}).items():
        screen.print(f"{key} failed: {reason}", highlight=False, markup=False)


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
    parser.add_argument(
        "--only",
        nargs="*",
        default=[],
        help="some arms of it; the first of them goes through all rungs, as the measure",
    )
    parser.add_argument("--rungs", type=float, nargs="+", default=[5, 10, 20], help="minutes of one core")
    parser.add_argument("--kimg", type=float, nargs="+", default=[], help="rungs in thousands of images instead")
    parser.add_argument("--keep", type=float, default=0.5, help="share of the arms that goes on to the next rung")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=int, default=1, help="arms at a time, each on a core")
    parser.add_argument("--out", type=Path, required=True, help="runs and search.json")
    parser.add_argument("--against", metavar="ARM", help="the arm that the others are held against; default the first")
    parser.add_argument("--also", type=Path, nargs="+", default=[], help="folders of others, to be shown with it")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)  # minutes of one core
    results = read_json(options.out / "search.json")
    if options.data is not None:
        if options.teacher is None:
            raise InputError("--teacher is missing: fit one first, with expressivegan teach")
        if not 0 < options.keep <= 1:
            raise InputError(f"--keep (={options.keep}) must be above 0 and at most 1")
        if options.jobs < 1:
            raise InputError(f"--jobs (={options.jobs}) must be 1 or more")
        make_directory(options.out)
        search(options, results)
    if "search" not in results:
        raise InputError(f"--out (={options.out}) holds no search yet; start one with --data and --teacher")
    results = merge(results, options.also)
    known = ARMS[results["search"]["arms"]]
    if options.against is not None:
        among("--against", [options.against], known)
    if results.get("figures"):
        draw(results, options.out / "search.png")
    show(results, Console(width=None if sys.stdout.isatty() else 150), options.against)
    return 0


if __name__ == "__main__":
    leave(main)
