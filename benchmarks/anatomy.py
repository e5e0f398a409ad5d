"""How well are landmarks measured, and which planted faults do they expose?

    python benchmarks/anatomy.py --data DIR [--out results.json] [--overlays overlays.png]

Phantoms: landmarks against the geometry that they were drawn from. Real images of the judge patients, honest and
spoiled in known ways, against reference patients: shares of violations, landmarks that differ, and shortcuts. How often
honest images, those of other patients drawn at random, are warned of. Test patients are left out.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ending import leave
from sklearn.metrics import roc_auc_score

from expressivegan.data import ImageSet, load_images, phantom
from expressivegan.data.phantom.chest import Child, anatomy, pose
from expressivegan.data.phantom.curves import Numbers
from expressivegan.evaluation.anatomy import Landmarks, compare_landmarks, draw_landmarks, landmarks
from expressivegan.evaluation.anatomy.cheats import KINDS, spoil
from expressivegan.evaluation.shortcuts import shortcut_report
from expressivegan.images import save_png
from expressivegan.intervals import plain, share_interval

SIDE = 64
SIZES = (100, 300, 600)  # of honest sets
REALS = 660  # real images that they are compared with
Rows = npt.NDArray[np.int64]


def phantom_truth(n: int, size: int = 96) -> dict[str, npt.NDArray[np.float64]]:
    """Geometry of the phantoms 0..n-1, as shares of the frame."""
    child = Child(Numbers([(s, "child") for s in range(n)]))
    x, y, _ = pose(Numbers([(s, "shot", 0) for s in range(n)]), size)
    air = anatomy(child, x, y, size).air > 0.5
    side = x - child.midline(y)
    heights = np.linspace(-0.6, 0.7, 200, dtype=np.float32)[None, :, None]
    heart = [np.where(heights < child.floor, f(heights), 0).max((1, 2)) for f in (child.heart_left, child.heart_right)]
    thorax = 2 * np.where(heights < child.floor + 0.15, child.side(heights), 0).max((1, 2))
    return {
        "right_lung": (air & (side < 0)).mean((1, 2)),
        "left_lung": (air & (side > 0)).mean((1, 2)),
        "ctr": (heart[0] + heart[1]) / thorax,
        "thorax_width": thorax / np.abs(np.diff(x, axis=2)).mean((1, 2)) / size,
        "midline": (np.abs(side[:, size // 2]).argmin(1) + 0.5) / size,
    }


def phantoms(n: int) -> dict[str, Any]:
    truth = phantom_truth(n)
    results: dict[str, Any] = {}
    for label in phantom.CLASSES:
        images = phantom.draw_batch(range(n), [label] * n)[0]
        found, flipped = landmarks(images), landmarks(images[:, :, ::-1])
        row: dict[str, Any] = {"found": float(found.found.mean())}
        row["heart_left"] = float((found.heart_shift > 0).mean())
        row["flipped_heart_right"] = float((flipped.heart_shift < 0).mean())
        for name, values in truth.items():
            mine = getattr(found, name)
            known = np.isfinite(mine)
            row[name] = {
                "correlation": float(np.corrcoef(mine[known], values[known])[0, 1]),
                "bias": float((mine - values)[known].mean()),
                "mean": float(values.mean()),
            }
        results[label] = row
        print(f"phantoms {label}: found {row['found']:.3f}, heart left {row['heart_left']:.3f}, "
              f"flipped called right {row['flipped_heart_right']:.3f}")  # fmt: skip
        for name in truth:
            one = row[name]
            print(f"  {name:13s} r {one['correlation']:.3f}  bias {one['bias']:+.3f} of {one['mean']:.3f}")
    return results


def flips(found: Landmarks) -> dict[str, float]:
    shift = found.heart_shift[np.isfinite(found.heart_shift)]
    return {
        "measured": float(np.isfinite(found.heart_shift).mean()),
        "recognised": float((shift > 0).mean()),
        "auc": float(roc_auc_score(np.repeat([1, 0], len(shift)), np.concatenate([shift, -shift]))),
    }


def apart(patients: npt.NDArray[np.str_], fakes: int, reals: int, draw: np.random.Generator) -> tuple[Rows, Rows]:
    """Rows of honest fakes, and of real images of patients drawn at random, none of whom stands among the fakes.

    Fakes are drawn as images, since a generator does not make several exposures of one child.
    """
    names, of = np.unique(patients, return_inverse=True)
    place = draw.permutation(len(names))[of]
    rows = np.argsort(place, kind="stable")
    others = rows[place[rows] > place[rows[reals - 1]]]
    return draw.permutation(others)[:fakes], rows[:reals]


def false_alarms(found: Landmarks, data: ImageSet, rows: Rows, fakes: int, draws: int, seed: int) -> dict[str, Any]:
    """Share of honest reports, of images of other patients, that warn of anything."""
    draw = np.random.default_rng([seed, fakes])
    labels, patients = data.labels[rows], data.patients[rows]
    said: Counter[str] = Counter()
    for i in range(draws):
        fake, real = apart(patients, fakes, REALS, draw)
        report = compare_landmarks(
            found.take(real), found.take(fake), labels[real], labels[fake], data.classes, patients[real],
            rounds=200, seed=i,
        )  # fmt: skip
        said["any"] += bool(report.warnings)
        for scope, row in report.figures.items():
            said[f"{scope}: landmarks"] += any(v["differs"] for v in row["landmarks"].values())
            said[f"{scope}: violations"] += any(v["differs"] for v in row["violations"].values())
    print(f"honest, n {fakes:4d} against {REALS}: warned {share_interval(said['any'], draws)} of {draws}  "
          + "  ".join(f"{k} {v}" for k, v in said.items() if v and k != "any"), flush=True)  # fmt: skip
    return {"draws": draws, "warned": share_interval(said["any"], draws), "reasons": dict(said)}


def shortcut_alarms(found: Landmarks, data: ImageSet, rows: Rows, fakes: int, draws: int, seed: int) -> dict[str, Any]:
    """Share of honest shortcut reports that call the shortcuts amplified."""
    draw = np.random.default_rng([seed, fakes, 1])
    images, labels, patients = np.asarray(data.images[rows]), data.labels[rows], data.patients[rows]
    said: Counter[str] = Counter({"any": 0})
    for i in range(draws):
        fake, real = apart(patients, fakes, REALS, draw)
        report = shortcut_report(
            images[real], labels[real], patients[real], images[fake], labels[fake], data.classes,
            real_landmarks=found.take(real), fake_landmarks=found.take(fake), rounds=200, seed=i,
        )  # fmt: skip
        said["any"] += bool(report.warnings)
        said.update(k for k, text in zip(report.figures, report.sentences, strict=True) if text in report.warnings)
    print(f"honest shortcuts, n {fakes}: warned {share_interval(said['any'], draws)} of {draws} {dict(said)}")
    return {"draws": draws, "warned": share_interval(said["any"], draws), "reasons": dict(said)}


def honest(source: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Landmarks are measured once; patients are drawn anew each time."""
    data = load_images(source, SIDE)
    rows = np.flatnonzero(data.groups != "test")
    found = landmarks(np.asarray(data.images[rows]))
    print(f"{source}: {len(rows)} images")
    given = (found, data, rows)
    return {
        "anatomy": {n: false_alarms(*given, n, arguments.draws, arguments.seed) for n in SIZES},
        "shortcuts": {n: shortcut_alarms(*given, n, arguments.draws, arguments.seed) for n in SIZES[1:]},
    }


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, Any] = {"phantoms": phantoms(arguments.phantoms)}
    data = load_images(arguments.data, SIDE)
    reference, judge = data.indices("reference"), data.indices("judge")
    started = time.process_time()
    real = landmarks(data.images[reference])
    results["seconds_per_4000"] = (time.process_time() - started) / len(reference) * 4000
    results["flips"] = flips(real)
    print("real:", results["flips"], f"{results['seconds_per_4000']:.1f} s of one core per 4,000 images")
    if arguments.overlays is not None:
        chosen = np.random.default_rng(arguments.seed).choice(reference, 40, replace=False)
        save_png(arguments.overlays, draw_landmarks(data.images[chosen], [str(i) for i in range(40)], columns=8))
    labels, images = data.labels[judge], data.images[judge]
    results["cheats"] = {}
    for name in ("honest", *KINDS):
        report = compare_landmarks(
            real,
            landmarks(images if name == "honest" else spoil(images, name)),
            data.labels[reference],
            labels,
            data.classes,
            data.patients[reference],
        )
        row = report.figures["all"]
        differing = [k for k, v in row["landmarks"].items() if v["differs"]]
        results["cheats"][name] = {
            **{k: [v["real"].value, v["fake"].value, v["differs"]] for k, v in row["violations"].items()},
            "landmarks_that_differ": differing,
            "warnings": list(report.warnings),
        }
        shares = "  ".join(
            f"{k} {v['fake'].value:.2f}{'!' if v['differs'] else ' '}" for k, v in row["violations"].items()
        )
        print(f"{name:12s} {shares}  {len(differing)} landmarks differ, {len(report.warnings)} warnings")
    border = np.ones((SIDE, SIDE), bool)
    border[6:-6, 6:-6] = False
    shuffled = images[np.random.default_rng(0).permutation(len(images))].copy()
    shuffled[:, 7:-7, 7:-7] = images[:, 7:-7, 7:-7]
    lit = (images + border * 25 * (labels == 1)[:, None, None]).clip(0, 255).astype(np.uint8)
    results["shortcuts"] = {}
    for name, fake in (("honest", images), ("border lit by class", lit), ("frames shuffled", shuffled)):
        report_ = shortcut_report(
            data.images[reference], data.labels[reference], data.patients[reference], fake, labels, data.classes,
            fake_patients=data.patients[judge], real_landmarks=real,
        )  # fmt: skip
        results["shortcuts"][name] = report_.as_json()
        for kind, figures in report_.figures.items():
            print(f"{name:20s} {kind:9s} " + "  ".join(f"{k} {v}" for k, v in figures.items()))
    results["false_alarms"] = {}
    for source in (arguments.data, "phantom:3000"):
        results["false_alarms"][source] = honest(source, arguments)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data", required=True, help="real images, as load_images takes them")
    parser.add_argument("--phantoms", type=int, default=300)
    parser.add_argument("--draws", type=int, default=100, help="honest reports of each size")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--overlays", type=Path, help="PNG of 40 random reference images with their landmarks")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    results = run(arguments)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(plain(results), indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    leave(main)
