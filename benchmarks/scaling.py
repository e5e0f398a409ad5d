"""What does training cost at other sizes? Run: python benchmarks/scaling.py --out DIR [--quick]

Time per training image and peak memory over resolution, batch and width, each cell in a process of its own: whole steps
of preset cpu-64 with guidance, penalties included in proportion, in the second half of a run. Then laws are fitted:

- seconds of an image = a / batch + b · GFLOP + c · GB: operations are started once a step; arithmetic of convolutions
  and matrix products, and traffic of everything else, are counted
- GiB = a + b · million parameters of G + c · batch · GB, beyond what Python and its libraries take: what is kept for
  the gradients is a part of what is moved

with the error on cells that were left out one at a time, and of the larger resolutions predicted from the smaller ones
alone; and, as a rule of thumb, powers of resolution, width and batch. Hours of preset gpu-224 on GPUs are predicted
from counted arithmetic, counted traffic of everything else, and the number of operations; the assumptions stand in
`GPUS` and below.

Results are kept in DIR/cells.json after each cell; a run that was killed goes on there. Cells that come first vary one
thing at a time, so that a run cut short can be fitted, too. One thread is timed in processor time. --check exits with 1
unless both laws are within 20% on every cell left out.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ending import leave
from scipy.optimize import nnls
from speed import make_arm, peak_gib
from step_profile import advance, clock
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from expressivegan import ImageSet, load_images
from expressivegan.atomic import write_text
from expressivegan.config import TrainConfig, preset
from expressivegan.errors import InputError

RESOLUTIONS, BATCHES, WIDTHS = (64, 128, 224, 256), (8, 16, 32, 64), (64, 96, 128, 192)
MOST_PIXELS = 16 * 224**2  # of a batch, so that a cell takes minutes and fits into a laptop
GPUS = {"A100": (312e12, 2.0e12), "H100": (989e12, 3.35e12)}  # dense bf16 FLOP/s and bytes/s, of the makers' sheets
SHARES = (0.10, 0.25, 0.35)  # of that arithmetic, which convolutions reach; narrow ones less
TRAFFIC_SHARE = 0.8  # of that traffic, which elementwise operations reach
LAUNCH = 8e-6  # seconds that PyTorch takes to start an operation
EFFICIENCY = 0.9  # of eight GPUs that average gradients
WORST_ERROR = 0.2

Cell = tuple[int, int, int]


class Traffic(TorchDispatchMode):
    """Operations, and bytes that those move which are no convolutions or matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if not func.is_view and not name.startswith(("empty", "_local_scalar", "detach")):
            self.operations += 1
            if "conv" not in name and name not in ("mm", "addmm", "bmm", "baddbmm"):
                tensors = [t for t in tree_leaves((args, kwargs, found)) if isinstance(t, torch.Tensor)]
                self.bytes += sum(t.numel() * t.element_size() for t in tensors)
        return found


def pictures(resolution: int, count: int) -> ImageSet:
    """Phantoms of 32 px, enlarged: what they show costs nothing."""
    images, times = load_images(f"phantom:{count}", 32, progress=False), resolution // 32
    pixels = np.asarray(images.images).repeat(times, 1).repeat(times, 2)
    return replace(images, images=pixels, masks=None, resolution=resolution, groups=np.full(count, "train"))


def settings(cell: Cell, name: str = "cpu-64") -> TrainConfig:
    resolution, batch, width = cell
    return replace(preset(name).config, resolution=resolution, batch=batch, width=width)


def measure(config: TrainConfig, steps: int, device: str) -> dict[str, Any]:
    """Seconds and counts of an image, and memory of the process; `steps` of each kind are timed."""
    before = (peak_gib() or 0.0) if device == "cpu" else 0.0
    run = make_arm(pictures(config.resolution, max(32, config.batch)), config, device).run
    kinds = {True: 0, False: config.batch}  # with penalty, and without
    period = config.penalty_every * config.batch
    start = round(990 * config.kimg * config.free_from) // period * period  # guided, and without free pairs
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(1 + steps if steps else 0):  # the first prepares kernels
        for kind, offset in kinds.items():
            run.seen = start + offset
            began = clock()
            advance(run)
            if run.fabric.device.type == "cuda":
                torch.cuda.synchronize()
            times[kind].append(clock() - began)
    memory = (peak_gib() or 0.0) if run.fabric.device.type == "cpu" else torch.cuda.max_memory_allocated() / 2**30
    share = {True: 1 / config.penalty_every, False: 1 - 1 / config.penalty_every}
    counted = dict.fromkeys(("flop", "bytes", "operations"), 0.0)
    for kind, offset in kinds.items():
        run.seen = start + offset
        with FlopCounterMode(display=False) as flops, Traffic() as traffic:
            advance(run)
        counted["flop"] += share[kind] * flops.get_total_flops() / config.batch
        counted["bytes"] += share[kind] * traffic.bytes / config.batch
        counted["operations"] += share[kind] * traffic.operations
    found: dict[str, Any] = counted | {"parameters": sum(p.numel() for p in run.nets.G.parameters())}
    if steps:
        seconds = {kind: min(t[1:]) / config.batch for kind, t in times.items()}
        found |= {"seconds": sum(share[k] * s for k, s in seconds.items()), "penalty_seconds": seconds[True]}
        found |= {"plain_seconds": seconds[False], "gib": memory, "gib_before": before, "steps": steps}
        found |= {"precision": str(run.fabric._precision.precision), "threads": torch.get_num_threads()}
    return found


def design(quick: bool) -> list[Cell]:
    """Cells, those first that vary one thing at a time."""
    if quick:
        return list(product((64, 128), (8, 16), (64, 128)))
    cells = [c for c in product(RESOLUTIONS, BATCHES, WIDTHS) if c[0] ** 2 * c[1] <= MOST_PIXELS]
    return sorted(cells, key=lambda c: (c[1] != BATCHES[0] and c[2] != 128, c[1] != BATCHES[0], c[0] ** 2 * c[1]))


def law(columns: list[list[float]], wanted: list[float], beyond: list[bool]) -> dict[str, Any]:
    """Non-negative coefficients of the least relative squares, and the relative errors of cells that were left out.

    Args:
        columns: of each cell, what the law sums up.
        wanted: of each cell.
        beyond: cells that, besides, are predicted from all the others at once.
    """
    x, y = np.array(columns, float), np.array(wanted, float)

    def error(left_out: np.ndarray) -> np.ndarray:
        kept = ~left_out
        found: np.ndarray = x[left_out] @ nnls(x[kept] / y[kept, None], np.ones(kept.sum()))[0] / y[left_out] - 1
        return found

    singly = np.array([error(np.arange(len(y)) == i)[0] for i in range(len(y))])
    return {
        "coefficients": nnls(x / y[:, None], np.ones(len(y)))[0].tolist(),
        "median_error": float(np.median(np.abs(singly))),
        "largest_error": float(singly[np.abs(singly).argmax()]),
        "of_cell": int(np.abs(singly).argmax()),
        "largest_error_beyond": float(max(error(np.array(beyond)), key=abs)),
    }


def laws(cells: dict[Cell, dict[str, Any]]) -> dict[str, Any]:
    """The fits; beyond lie the larger half of the resolutions.

    Raises:
        InputError: too few cells to fit and to leave one out, or of one resolution.
    """
    sides = sorted({r for r, _, _ in cells})
    if len(cells) < 5 or len(sides) < 2:
        raise InputError(f"laws need 5 cells of 2 resolutions, and {len(cells)} of {len(sides)} are there: run on")
    beyond = [r >= sides[len(sides) // 2] for r, _, _ in cells]
    work = [[1 / b, c["flop"] / 1e9, c["bytes"] / 1e9] for (_, b, _), c in cells.items()]
    kept = [[1, c["parameters"] / 1e6, b * c["bytes"] / 1e9] for (_, b, _), c in cells.items()]
    found = {
        "time": law(work, [c["seconds"] for c in cells.values()], beyond),
        "memory": law(kept, [c["gib"] - c["gib_before"] for c in cells.values()], beyond),
    }
    for fit in found.values():
        fit["of_cell"] = list(cells)[fit["of_cell"]]
    sizes = np.array([[1.0, *np.log((r, w, b))] for r, b, w in cells])
    powers = np.linalg.lstsq(sizes, np.log([c["seconds"] for c in cells.values()]), rcond=None)
    return found | {"powers_of_time": dict(zip(("resolution", "width", "batch"), powers[0][1:].tolist(), strict=True))}


def prediction(counted: dict[str, float], config: TrainConfig) -> dict[str, Any]:
    """Hours of the run by GPU, number of GPUs and share of their arithmetic."""
    hours: dict[str, Any] = {}
    for (gpu, (arithmetic, traffic)), number, share in product(GPUS.items(), (1, 8), SHARES):
        local = config.batch / number
        work = local * (counted["flop"] / (share * arithmetic) + counted["bytes"] / (TRAFFIC_SHARE * traffic))
        start = counted["operations"] * LAUNCH
        step = max(work, start) / (EFFICIENCY if number > 1 else 1)
        hours[f"{number} x {gpu} at {share:.0%}"] = {
            "hours": step * config.kimg * 1000 / config.batch / 3600,
            "limit": "starting operations" if start > work else "work",
        }
    return hours


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of cells.json and laws.json")
    parser.add_argument("--quick", action="store_true", help="eight small cells")
    parser.add_argument("--steps", type=int, default=3, help="timed, with and without penalty")
    parser.add_argument("--minutes", type=float, help="begin no further cell after that")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--check", action="store_true", help="fail if the laws are poor")
    parser.add_argument("--cell", nargs=3, type=int, metavar=("RESOLUTION", "BATCH", "WIDTH"), help="this one alone")
    parser.add_argument("--preset", default="cpu-64", help="settings of --cell")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.cell:
        print(json.dumps(measure(settings(tuple(options.cell), options.preset), options.steps, options.device)))
        return 0

    path = options.out / "cells.json"
    options.out.mkdir(parents=True, exist_ok=True)
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    large = preset("gpu-224").config
    # Of the large preset arithmetic is counted, on a quarter of its batch; nothing is timed.
    asked: dict[str, tuple[Cell, int]] = {"gpu-224": ((large.resolution, large.batch // 4, large.width), 0)}
    asked |= {"-".join(map(str, cell)): (cell, options.steps) for cell in design(options.quick)}
    began = time.monotonic()
    for name, (cell, steps) in asked.items():
        late = options.minutes is not None and time.monotonic() - began > 60 * options.minutes
        if name in known or late:
            continue
        command = [sys.executable, "-W", "ignore", __file__, "--out", str(options.out), "--cell", *map(str, cell)]
        command += ["--steps", str(steps), "--device", options.device]
        command += ["--preset", "cpu-64" if steps else name, "--threads", str(torch.get_num_threads())]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:  # out of memory, for one: the other cells still count
            print(f"{name}: exit {done.returncode} {done.stderr[-300:]}", file=sys.stderr)
            continue
        known[name] = json.loads(done.stdout.splitlines()[-1])
        write_text(path, json.dumps(known, indent=1) + "\n")
        if steps:
            one = known[name]
            print(f"{name:>12} {1e3 * one['seconds']:8.1f} ms an image {one['gib']:6.2f} GiB "
                  f"{one['flop'] / 1e9:7.2f} GFLOP", flush=True)  # fmt: skip
    cells = {cell: known[name] for name, (cell, steps) in asked.items() if steps and name in known}
    found = laws(cells)
    rates = [c["flop"] / c["seconds"] / 1e9 for c in cells.values()]
    found |= {"cells": len(cells), "gflops": [min(rates), statistics.median(rates), max(rates)]}
    if "gpu-224" in known:
        counted = known["gpu-224"]
        terms = (1, counted["parameters"] / 1e6, large.batch * counted["bytes"] / 1e9)
        gib = sum(a * b for a, b in zip(found["memory"]["coefficients"], terms, strict=True))
        found |= {"gpu_224": counted | {"gib": gib}, "prediction": prediction(counted, large)}
    write_text(options.out / "laws.json", json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    poor = [n for n in ("time", "memory") if abs(found[n]["largest_error"]) > WORST_ERROR]
    if options.check and poor:
        print(f"scaling: {' and '.join(poor)} off by more than {WORST_ERROR:.0%}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    leave(main)
