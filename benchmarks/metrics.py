"""How fast, how frugal and how equal to their peers are the figures of fidelity, on given features?

    python benchmarks/metrics.py [--n 4000] [--d 512] [--repeats 3] [--threads 2] [--out metrics.json]

Ours, torch-fidelity's and prdc's own code take the same arrays, in turns, so that a busy machine slows all alike; the
least time of each counts. Needs torch-fidelity and prdc (the `dev` extra).
"""

import argparse
import contextlib
import io
import json
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import prdc as peer_prdc
import torch
from asked import results_file
from ending import leave
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits
from torch_fidelity import metric_fid, metric_kid, metric_prc

from expressivegan.atomic import write_text
from expressivegan.evaluation import Reference, diversity_report, fid, kid, prdc

CLASSES = ("NORMAL", "BACTERIA", "VIRUS")


def features(n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three overlapping classes with a falling spectrum, as features of networks have: (n, d), labels, names."""
    draw = np.random.default_rng(seed)
    spectrum = np.arange(1, d + 1) ** -0.75
    labels = np.arange(n) % 3
    rows = draw.normal(size=(n, d)) * spectrum + 0.5 * labels[:, None] * (np.arange(d) < 4)
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(d, d)))[0]
    return (rows @ basis + 0.3).astype(np.float32), labels, np.arange(n) // 2


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():  # prdc prints, and warns
        warnings.simplefilter("ignore")
        found = work()
    return time.perf_counter() - start, found


def peers(real: np.ndarray, fake: np.ndarray, k: int) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Task → ours, theirs; both give an array of the same figures where these are comparable."""
    a, b = real.astype(np.float64), fake.astype(np.float64)
    ta, tb = torch.from_numpy(a), torch.from_numpy(b)
    ours, theirs = torch.from_numpy(real), torch.from_numpy(fake)

    def their_fid() -> Any:
        statistics = [metric_fid.fid_features_to_statistics(x) for x in (ta, tb)]
        return metric_fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]

    def their_kid(subsets: int, size: int) -> Any:
        settings = {"kid_subsets": subsets, "kid_subset_size": size, "rng_seed": 2020, "verbose": False}
        return metric_kid.kid_features_to_metric(ta, tb, **settings)["kernel_inception_distance_mean"]

    def their_precision() -> Any:
        settings = {"prc_neighborhood": k, "prc_batch_size": 10000, "save_cpu_ram": False, "verbose": False}
        return [metric_prc.prc_features_to_metric(theirs, ours, **settings)[f] for f in ("precision", "recall")]

    def their_prdc() -> Any:
        found = peer_prdc.compute_prdc(real, fake, nearest_k=k)
        return [found[name] for name in ("precision", "recall", "density", "coverage")]

    size = min(1000, len(real), len(fake))
    one = min(len(real), len(fake))
    return {
        "FID": (lambda: fid(real, fake), their_fid),
        f"KID, torch-fidelity's default (100 subsets of {size})": (
            lambda: kid(real, fake),
            lambda: their_kid(100, size),
        ),
        "KID, all images at once": (lambda: kid(real, fake), lambda: their_kid(1, one)),
        "precision and recall, torch-fidelity": (lambda: prdc(real, fake, k)[:2], their_precision),
        "PRDC, prdc": (lambda: list(prdc(real, fake, k)), their_prdc),
    }


def run(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    n, d, k = arguments.n, arguments.d, 5
    real, real_labels, patients = features(n, d, 1)
    fake, labels, _ = features(n, d, 2)
    fake *= 1.02

    # First, since the peak of memory only rises.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    spaces = [Reference(real, patients, real_labels, CLASSES, k=k) for _ in range(2)]
    first = timed(lambda: [space.report(fake, labels) for space in spaces])[0]

    def everything() -> None:
        for space in spaces:
            space.report(fake, labels)
            diversity_report(real, fake, real_labels, labels, CLASSES, patients=patients, k=k)

    cached = timed(everything)[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    console.print(
        f"{n} against {n} images, d = {d}, {arguments.threads} threads, two spaces, overall and three classes, "
        f"with intervals:\n  first report {first:.1f} s; report and diversity, real ones cached {cached:.1f} s; "
        f"peak memory {peak:.2f} GiB ({before:.2f} before)"
    )

    tasks = peers(real, fake, k)
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in tasks}
    found: dict[str, list[Any]] = {}
    for _ in range(arguments.repeats):
        for name, pair in tasks.items():
            results = []
            for work, out in zip(pair, times[name], strict=True):
                spent, value = timed(work)
                out.append(spent)
                results.append(np.atleast_1d(np.asarray(value, np.float64)))
            found[name] = results
    table = Table("figure", "ours s", "theirs s", "ratio", "largest relative difference", title="same arrays, in turns")
    rows: dict[str, Any] = {}
    sums = np.zeros(2)
    for name, (our, their) in times.items():
        a, b = found[name]
        differ = float((np.abs(a - b) / np.abs(b)).max())
        rows[name] = {"ours": min(our), "theirs": min(their), "ratio": min(their) / min(our), "difference": differ}
        sums += min(our), min(their)
        table.add_row(name, *(f"{rows[name][c]:.3f}" for c in ("ours", "theirs", "ratio")), f"{differ:.1e}")
    default = [rows[x] for x in rows if not x.startswith("KID, all")]
    whole = sum(r["theirs"] for r in default) / sum(r["ours"] for r in default)
    table.add_row("together, KID as by default", "", "", f"{whole:.3f}", "")
    console.print(table)
    return {
        "n": n, "d": d, "k": k, "threads": arguments.threads, "first_report_s": first, "cached_s": cached,
        "peak_gib": peak, "before_gib": before, "ratio": whole, "figures": rows,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--n", type=int, default=4000)
    parser.add_argument("--d", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.out is not None:
        results_file(arguments.out)
    torch.set_num_threads(arguments.threads)
    with threadpool_limits(arguments.threads):
        results = run(arguments, Console(width=None if sys.stdout.isatty() else 120))
    if arguments.out is not None:
        write_text(arguments.out, json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    leave(main)
