"""How good is a run after how many images? Its checkpoints, judged one by one, drawn over the images seen.

    expressivegan train --data DIR --keep 30 --out run0                               a run that keeps its checkpoints
    python benchmarks/trajectory.py run0 run1 --data DIR --out trajectory             and judges all of them
    python benchmarks/trajectory.py run0 none=run2 --data DIR --kimg 20 60 120 --out trajectory    with names, at these
    python benchmarks/trajectory.py --out trajectory                                  the table and the picture, so far
    python benchmarks/trajectory.py --out whole --against none                        whole runs, paired by seed (below)

The averaged generator of each checkpoint makes 1,200 images, which are held against reference patients in two feature
spaces, over what real images of training patients reach (the floor), as in search.py. Runs of one size go into one
folder. What has been judged is kept in trajectory.json: a killed command goes on where it stopped. A run of other
settings under a name that has figures already is refused.

Runs that are called "NAME, seed K" (`"all, seed 0=run0" "none, seed 0=run2" --kimg 1e6`: their last checkpoints) can be
held against each other by name: `--against` prints means over seeds, and how far each name is from one of them, with
95% intervals over shared seeds (Student's t, paired).
"""

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from asked import among, claim
from ending import leave
from judging import FIGURES, SPACES, Judging, line
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from seeds import arms_of, show_arms

from expressivegan.atomic import write_text
from expressivegan.checkpoint import list_checkpoints, load_checkpoint, make_directory, read_json, save_model
from expressivegan.config import TrainConfig
from expressivegan.console import console
from expressivegan.data import load_images
from expressivegan.errors import InputError
from expressivegan.intervals import plain
from expressivegan.training.build import make_networks

Results = dict[str, Any]
_PANELS = [*((f"{space}/{figure}", f"{figure}, {space}") for space in SPACES for figure in FIGURES)]


def named(given: str) -> tuple[str, Path]:
    """NAME=RUN, or RUN, whose name is its folder's."""
    name, equals, path = given.rpartition("=")
    run = Path(path)
    if not (run / "settings.json").is_file():
        raise InputError(f"RUN (={path}) must be the folder of a run: it holds settings.json and checkpoints")
    return (name if equals else run.name), run


def chosen(run: Path, kimg: list[float]) -> list[Path]:
    """Checkpoints of a run: all, or those nearest to the given numbers of images that it has reached."""
    there = list_checkpoints(run / "checkpoints")
    if not there:
        raise InputError(f"RUN (={run}) has no checkpoint")
    last = int(there[-1].stem)
    wanted = [1000 * k for k in kimg if 1000 * k <= last] or [last]
    near = {min(there, key=lambda path: abs(int(path.stem) - w)) for w in wanted}
    return sorted(near) if kimg else there


def identity(run: Path) -> str:
    """SHA-256 of what a run was trained with: the same name may be trained anew with something else."""
    settings = read_json(run / "settings.json")
    known = {key: settings.get(key) for key in ("config", "teacher_hash", "init", "data_hash")}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def claim_names(runs: Mapping[str, Path], results: Results) -> None:
    """Notes which run each name is of. Raises InputError: a name has figures of another run."""
    known = results.setdefault("identities", {})
    for name, run in runs.items():
        if results.get("runs", {}).get(name) and name not in known:
            console.print(f"{name}: its figures do not say which run they are of; they are taken to be of {run}")
        elif known.setdefault(name, identity(run)) != identity(run):
            raise InputError(
                f"RUN (={run}) is not the run that the figures of {name!r} are of: it was trained anew with other "
                "settings, or made longer; give it another name, as NAME=RUN"
            )


def judge(runs: Mapping[str, Path], options: argparse.Namespace, results: Results) -> None:
    """Judges what is missing; `results` is kept as it grows."""
    config = TrainConfig.from_json(read_json(next(iter(runs.values())) / "settings.json")["config"])
    images = load_images(options.data, config.resolution, fit=config.fit)
    asked = {"data": images.data_hash, "resolution": config.resolution}
    claim(results, "judged", asked, options.out)
    claim_names(runs, results)
    judging = Judging(images)
    for name, run in runs.items():
        rows = results.setdefault("runs", {}).setdefault(name, {})
        for path in chosen(run, options.kimg):
            if path.stem in rows:
                continue
            state = load_checkpoint(path)
            own = TrainConfig.from_json(state["config"])
            if (own.resolution, state["data_hash"]) != (config.resolution, images.data_hash):
                raise InputError(f"RUN (={run}) is of {own.resolution} px or of other data than --data")
            network, _ = make_networks(own, images.classes, images.reference)
            network.load_state_dict(state["ema"])
            with tempfile.TemporaryDirectory() as folder:
                facts = {"data_hash": images.data_hash, "config": own.to_json()}
                save_model(network, Path(folder) / "generator", "judged by trajectory.py", facts)
                rows[path.stem] = judging.score(Path(folder) / "generator")
            results["floor"] = judging.floor
            write_text(options.out / "trajectory.json", json.dumps(plain(results), indent=1) + "\n")
            console.print(f"{name}, {int(path.stem) / 1000:g} kimg: " + line(rows[path.stem]), highlight=False)


def draw(results: Results, path: Path) -> None:
    """FID, recall and coverage over the images seen, one line a run; real images are at 1."""
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    for axis, (name, title) in zip(figure.subplots(2, 3).flat, _PANELS, strict=True):
        for run, rows in results["runs"].items():
            points = sorted((int(seen) / 1000, row[name]) for seen, row in rows.items())
            axis.plot(*zip(*points, strict=True), label=run, marker=".")
        axis.axhline(1, color="0.5", linewidth=0.8, linestyle="--")
        axis.set(title=f"{title}, over real images'", xlabel="thousand images")
        if name.endswith("fid"):
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=90)


def show(results: Results, screen: Console) -> None:
    """One row a checkpoint."""
    table = Table(caption=f"over the floor, in the features of {SPACES}")
    for column in ("run", "kimg", *FIGURES, "agreement", "score"):
        table.add_column(column)
    for run, rows in results.get("runs", {}).items():
        for seen, row in sorted(rows.items()):
            both = [" · ".join(f"{row[f'{space}/{figure}']:.2f}" for space in SPACES) for figure in FIGURES]
            table.add_row(run, f"{int(seen) / 1000:g}", *both, f"{row['agreement']:+.2f}", f"{row['score']:.2f}")
    screen.print(table)


def show_seeds(results: Results, screen: Console, measure: str) -> None:
    """The last checkpoint of every run that is called after its seed."""
    last = {name: max(rows.items(), key=lambda row: int(row[0])) for name, rows in results.get("runs", {}).items()}
    arms = arms_of({name: row | {"images": int(seen)} for name, (seen, row) in last.items() if ", seed " in name})
    among("--against", [measure], arms)
    show_arms(arms, screen, "whole runs", measure)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="[NAME=]RUN", help="runs whose checkpoints are judged")
    parser.add_argument("--data", help="real images, as expressivegan train takes them; without, only shows")
    parser.add_argument(
        "--kimg", type=float, nargs="+", default=[], help="the checkpoints nearest to these; default all"
    )
    parser.add_argument("--out", type=Path, required=True, help="trajectory.json and trajectory.png")
    parser.add_argument(
        "--against", metavar="NAME", help='the name that others are held against, of runs "NAME, seed K"'
    )
    options = parser.parse_args(argv)
    torch.set_num_threads(1)  # so that a training beside it keeps its core
    results = read_json(options.out / "trajectory.json")
    if options.runs:
        if options.data is None:
            raise InputError("--data is missing: what the runs were trained on")
        runs = dict(named(given) for given in options.runs)
        if len(runs) < len(options.runs):
            raise InputError("two of the runs have one name; give them others, as NAME=RUN")
        make_directory(options.out)
        judge(runs, options, results)
    if results.get("runs"):
        draw(results, options.out / "trajectory.png")
    screen = Console(width=None if sys.stdout.isatty() else 150)
    show(results, screen)
    if options.against is not None:
        show_seeds(results, screen, options.against)
    return 0


if __name__ == "__main__":
    leave(main)
