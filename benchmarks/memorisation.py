"""How surely is copying seen, and how often are honest generators accused?

    python benchmarks/memorisation.py --data phantom:9000 --out phantoms.json
    python benchmarks/memorisation.py --data chest_xray --out real.json

Patients are dealt at random, many times, to three parts: honest generated images (real or drawn ones that stand in
neither pool), the training pool, the held-out pool. A share of the honest images is replaced by copies of pictures of
the training pool, changed in one way. Neighbours are looked for once among all images; each draw keeps those that stand
in its pools, takes its threshold of near-duplicates from them, and then runs the test that `memorisation_report` runs;
and the same for the images of each class. The threshold knows nothing of the images that are called honest.

Test patients are left out. On real images the training part is dealt from the train group, the others from judge and
reference (`groups`), and, for larger n, all three from all patients (`any patient`): nothing is learnt here.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from asked import results_file
from ending import leave

from expressivegan.atomic import write_text
from expressivegan.data import load_images
from expressivegan.evaluation.memorisation import Calibration, calibrate, memorisation_report
from expressivegan.evaluation.memorisation.calibration import SAME_FILE, near_duplicate_threshold
from expressivegan.evaluation.memorisation.cheats import KINDS, partners, replay
from expressivegan.evaluation.memorisation.distances import Neighbours, likeness, make_pool, search
from expressivegan.evaluation.memorisation.permutation import ALPHA, Evidence, copies_p_value, test_excess
from expressivegan.intervals import share_interval

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
KEEP, SHORTLIST = 24, (16, 10)
SHARES = (0.02, 0.1, 1.0)
CALIBRATING, PER_PATIENT = 1000, 5  # pairs of repeats, of strangers, and of one patient at most, as in `calibrate`


@dataclass(frozen=True)
class Bank:
    """Generated images with their neighbours among all real ones."""

    found: Neighbours
    sources: Ints
    """(N, 1 or 2) patients whose pictures an image was made from."""
    label: Ints
    """(N,) class of the (first) picture."""


@dataclass(frozen=True)
class World:
    owner: Ints
    """(M,) patient of each real image."""
    group: npt.NDArray[np.str_]
    """(P,) group of each patient."""
    strata: Ints
    """(P,) class and number of exposures."""
    honest: Bank
    cheats: dict[str, Bank]
    repeats: npt.NDArray[np.float32]
    """(R,) likeness of two exposures of one patient,"""
    repeats_of: Ints
    """(R,) and whose."""
    calibration: Calibration
    """Of the groups as they are, to be shown; each draw has a threshold of its own."""


@dataclass(frozen=True)
class Deal:
    """One draw."""

    part: Ints
    """(P,) 0 generated, 1 training pool, 2 held-out pool."""
    threshold: float
    """Likeness of near-duplicates, from its two pools alone."""
    strangers: tuple[int, int]
    """Held-out images that are near-duplicates of its training images, and of how many."""


def build(images: npt.NDArray[np.uint8], patients: Any, groups: Any, labels: Ints, copies: int, seed: int) -> World:
    rng = np.random.default_rng(seed)
    names, owner = np.unique(patients, return_inverse=True)
    group = np.empty(len(names), "U9")
    group[owner] = groups
    pool = make_pool(images)
    honest = Bank(search(images, pool, KEEP, SHORTLIST), owner[:, None].astype(np.int64), labels)
    cheats = {}
    for kind in KINDS:
        source = rng.permutation(len(images))[:copies]
        parents = [source]
        if kind.startswith("blend"):
            parents.append(np.roll(source, -partners(len(source))))
        made = replay(images[source], kind, rng)
        cheats[kind] = Bank(
            search(made, pool, KEEP, SHORTLIST), np.stack([owner[p] for p in parents], 1), labels[source]
        )
    train = np.isin(groups, ["train"])
    calibration = calibrate(images[train], patients[train], make_pool(images[train]), images[~train], rng)
    strata = np.searchsorted([1, 2, 5], np.bincount(owner), "left").astype(np.int64)
    strata[owner] += 4 * labels
    order = np.argsort(owner, kind="stable")
    nth = np.arange(len(order)) - np.searchsorted(owner[order], owner[order])  # of the patient's exposures
    chosen = np.flatnonzero((nth > 0) & (nth <= PER_PATIENT))  # each of these beside the one before it
    first, second = order[chosen - 1], order[chosen]
    repeats = likeness(images[first], images[second]) if len(first) else np.zeros(0, np.float32)
    return World(
        owner.astype(np.int64), group, strata, honest, cheats, repeats, owner[first].astype(np.int64), calibration
    )


def deal(world: World, how: str, rng: np.random.Generator) -> Deal:
    """Deals the patients, and calibrates on the pools."""
    count = len(world.group)
    if how == "any patient":
        return calibrated(world, rng.choice(3, count, p=[0.4, 0.3, 0.3]).astype(np.int64), rng)
    part = np.where(rng.random(count) < 0.5, 0, 2)
    part[world.group == "train"] = 1
    return calibrated(world, part, rng)


def calibrated(world: World, part: Ints, rng: np.random.Generator) -> Deal:
    """What `calibrate` says of the pools of one draw, from the neighbours that are known.

    A held-out image none of whose neighbours is a training image is less alike to all of these than to others.
    """
    rows = rng.permutation(np.flatnonzero(part[world.owner] == 2))[:CALIBRATING]
    index = world.honest.found.index[rows]
    inside = (index >= 0) & (part[world.owner[index]] == 1)
    strangers = np.where(inside, world.honest.found.likeness[rows], 0).max(1, initial=0)
    repeats = rng.permutation(world.repeats[part[world.repeats_of] == 1])[:CALIBRATING]
    threshold = near_duplicate_threshold(repeats[repeats < SAME_FILE], strangers[strangers < SAME_FILE])
    return Deal(part, threshold, (int((strangers >= threshold).sum()), len(rows)))


def evidence(
    bank: Bank, rows: Ints, part: Ints, owner: Ints, threshold: float
) -> tuple[Evidence, npt.NDArray[np.int64]]:
    """What is left of the neighbours of some images in the pools of one draw; near-duplicates in either."""
    index, like = bank.found.index[rows], bank.found.likeness[rows]
    who = np.where(index >= 0, owner[index], 0)
    inside = (index >= 0) & (part[who] > 0)
    has = inside.any(1)
    first = inside.argmax(1)
    line = np.arange(len(rows))
    near = [(inside & (part[who] == p) & (like >= threshold)).any(1).sum() for p in (1, 2)]
    parents = bank.found.parents[rows]
    of = np.where(parents >= 0, owner[parents], -1)
    known = (of >= 0).all(1) & (part[of] > 0).all(1)
    of = np.where(known[:, None], of, -1)
    blend = np.where(known, bank.found.blend[rows], 0)
    found = Evidence(who[line, first][has], like[line, first][has], of[has], blend[has])
    return found, np.array(near, np.int64)


def joined(parts: list[Evidence]) -> Evidence:
    return Evidence(*(np.concatenate([getattr(p, name) for p in parts]) for name in Evidence.__dataclass_fields__))


def p_value(
    world: World, dealt: Deal, made: list[tuple[Bank, Ints]], rng: np.random.Generator, label: int | None = None
) -> float:
    """Of one draw's generated images, given as rows of banks: all of them, or those of one class."""
    part = dealt.part
    parts = [evidence(bank, rows, part, world.owner, dealt.threshold) for bank, rows in made]
    images_of = np.bincount(world.owner, minlength=len(world.group))
    pools = part > 0
    number = np.cumsum(pools) - 1
    all_ = joined([e for e, _ in parts])
    seen = Evidence(
        number[all_.owner],
        all_.likeness,
        np.where(all_.parents >= 0, number[all_.parents], -1),
        all_.blend,
    )
    near = np.sum([c for _, c in parts], axis=0)
    odds = images_of[part == 1].sum() / images_of[pools].sum()
    if label is not None:  # as `by_class`: those of the class or of all, whichever accuse less
        training, heldout = (int((part[world.owner[world.honest.label == label]] == p).sum()) for p in (1, 2))
        odds = max(odds, training / max(1, training + heldout))
    n = sum(len(rows) for _, rows in made)
    p_copies = copies_p_value((int(near[0]), int(near[1])), odds, n, dealt.strangers)
    return test_excess(seen, part[pools] == 1, world.strata[pools], p_copies, 199, rng).p_value


def planted(world: World, kind: str, part: Ints, count: int, label: int | None, rng: np.random.Generator) -> Ints:
    """Rows of a bank of copies whose originals stand in the training pool."""
    bank = world.cheats[kind]
    usable = (part[bank.sources] == 1).all(1) & ((bank.label == label) | (label is None))
    rows: Ints = rng.choice(np.flatnonzero(usable), count, replace=count > usable.sum())
    return rows


def p_values(
    world: World, how: str, kind: str | None, share: float, most: int, draws: int, seed: int
) -> Iterator[tuple[float, int]]:
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        dealt = deal(world, how, rng)
        honest = rng.permutation(np.flatnonzero(dealt.part[world.owner] == 0))[:most]
        count = 0 if kind is None else max(1, round(share * len(honest)))
        made = [(world.honest, honest[count:])]
        if kind is not None:
            made.append((world.cheats[kind], planted(world, kind, dealt.part, count, None, rng)))
        yield p_value(world, dealt, made, rng), len(honest)


def rows_by_class(world: World, how: str, share: float, most: int, draws: int, seed: int) -> dict[str, Any]:
    """Draws with a class that is flagged, where all are honest and where class 0 replays a share of its images."""
    rng = np.random.default_rng(seed)
    caught = {"the replayed class": 0, "another class": 0} if share else {"any class": 0}
    classes = np.unique(world.honest.label)
    for _ in range(draws):
        dealt = deal(world, how, rng)
        honest = rng.permutation(np.flatnonzero(dealt.part[world.owner] == 0))[:most]
        flagged = []
        for k in classes:
            rows = honest[world.honest.label[honest] == k]
            count = max(1, round(share * len(rows))) if share and k == 0 else 0
            made = [(world.honest, rows[count:])]
            if count:
                made.append((world.cheats["as is"], planted(world, "as is", dealt.part, count, 0, rng)))
            flagged.append(p_value(world, dealt, made, rng, int(k)) < ALPHA / len(classes))
        if share:
            caught["the replayed class"] += flagged[0]
            caught["another class"] += any(flagged[1:])
        else:
            caught["any class"] += any(flagged)
    found = {name: share_interval(count, draws) for name, count in caught.items()}
    for name, interval in found.items():
        print(f"{how:12} {name} flagged, class 0 replays {share:.0%}: {interval}  of {draws}", flush=True)
    return {name: interval._asdict() for name, interval in found.items()}


def simulate(world: World, how: str, most: int, draws: int, seed: int) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    jobs: list[tuple[str | None, float]] = [(None, 0.0)]
    jobs += [(kind, share) for kind in world.cheats for share in SHARES]
    for kind, share in jobs:
        count = 2 * draws if kind is None else draws if share == SHARES[0] else max(10, draws // 5)
        values, sizes = zip(*p_values(world, how, kind, share, most, count, seed), strict=True)
        caught = int((np.array(values) < ALPHA).sum())
        name = "honest" if kind is None else f"{kind} {share:.0%}"
        interval = share_interval(caught, count)
        rows[name] = {"n": round(float(np.mean(sizes))), "draws": count, "flagged": interval._asdict()}
        print(f"{how:12} n {np.mean(sizes):5.0f}  {name:15} flagged {interval}  of {count}", flush=True)
    rows["by class"] = {
        f"{share:.0%}": rows_by_class(world, how, share, most, draws if share else 2 * draws, seed)
        for share in (0.0, 0.05, 0.2)
    }
    return rows


def whole(images: Any, patients: Any, groups: Any, labels: Ints, classes: Sequence[str], seed: int) -> dict[str, Any]:
    """The report itself, once honest and once for each cheat at 2%."""
    rng = np.random.default_rng(seed)
    train = groups == "train"
    names = rng.permutation(np.unique(patients[~train]))
    held = np.isin(patients, names[: len(names) // 2])
    honest = images[~train & ~held]
    asked = labels[~train & ~held]
    found = {}
    for kind in (None, *KINDS):
        generated = honest.copy()
        count = max(2, round(0.02 * len(honest)))
        if kind is not None:
            generated[:count] = replay(images[train][rng.permutation(train.sum())[:count]], kind, rng)
        start = time.process_time()
        report = memorisation_report(
            generated,
            images[train],
            images[held],
            training_patients=patients[train],
            heldout_patients=patients[held],
            labels=(labels[train], labels[held]),
            generated_labels=asked,
            classes=classes,
        )
        found[kind or "honest"] = report.to_dict() | {"processor_seconds": time.process_time() - start}
        print(f"{kind or 'honest':10} {report.verdict}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=2000, help="generated images, at most")
    parser.add_argument("--copies", type=int, default=600, help="copies of each kind to draw from")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--report", action="store_true", help="run whole reports as well")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    results_file(options.out)
    data = load_images(options.data, options.resolution)
    rows = data.groups != "test"
    images, labels = np.asarray(data.images)[rows], data.labels[rows].astype(np.int64)
    patients, groups = data.patients[rows], data.groups[rows]
    start = time.perf_counter()
    world = build(images, patients, groups, labels, options.copies, options.seed)
    c = world.calibration
    print(f"{len(images)} images of {len(world.group)} patients, neighbours in {time.perf_counter() - start:.0f} s")
    print(f"near-duplicates from {c.threshold:.3f}, blends from {c.blend_threshold:.3f} on")
    quantiles = {}
    for name, values in (("repeats", c.repeats), ("strangers", c.strangers)):
        marks = (0.05, 0.5, 0.95, 0.99, 1.0)
        quantiles[name] = {f"{m:g}": float(np.quantile(values, m)) for m in marks} if len(values) else {}
        print(f"{name}: {len(values)} pairs, " + ", ".join(f"{k}: {v:.3f}" for k, v in quantiles[name].items()))
    print(f"repeats called copies: {c.repeats_called_copies():.3f}; stored twice: {c.same_file}")
    result: dict[str, Any] = {"data": options.data, "threshold": c.threshold, "calibration": quantiles, "power": {}}
    for how in ("any patient",) if options.data.startswith("phantom") else ("groups", "any patient"):
        result["power"][how] = simulate(world, how, options.images, options.draws, options.seed)
    if options.report:
        result["reports"] = whole(images, patients, groups, labels, data.classes, options.seed)
    write_text(options.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    leave(main)
