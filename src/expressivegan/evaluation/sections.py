"""The sections of an evaluation: what each measures, what it needs, and what its figures depend on.

A further section is a function of a `Comparison` and one entry of `SECTIONS`; one that asks more than images of what
made them is a function of a `Subject`, says so with `needs_networks`, and stands in a suite of its own in `SUITES`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from expressivegan.evaluation.agreement import agreement_report
from expressivegan.evaluation.anatomy import anatomy_report
from expressivegan.evaluation.comparison import Comparison
from expressivegan.evaluation.diversity import diversity_report, told_classes
from expressivegan.evaluation.faithfulness import Networks, faithfulness_section
from expressivegan.evaluation.features import JudgeClassifier
from expressivegan.evaluation.fidelity import Reference
from expressivegan.evaluation.ladder import floor_draws, make_ladder, place_on_ladder
from expressivegan.evaluation.memorisation import memorisation_report
from expressivegan.evaluation.plan import Progress
from expressivegan.evaluation.shortcuts import shortcut_report
from expressivegan.evaluation.ssim import ssim_diversity
from expressivegan.images import UInt8Array
from expressivegan.intervals import plain

FLOOR = "real, other patients"
HIGHER_IS_BETTER = ("precision", "recall", "density", "coverage")
_FLOOR_DRAWS = 3


@dataclass
class Subject(Comparison):
    """A comparison of images, with the networks of the run that made them where a section looks into those."""

    networks: Networks | None = None


def measure_fidelity(of: Comparison, progress: Progress) -> dict[str, Any]:
    """FID, KID, precision, recall, density, coverage in every space, beside floor and ladder at equal n and mix."""
    ours, theirs, counts = of.mix()
    reference, train = of.pixels()[ours], of.pixels("train")
    train_labels = of.labels("train")
    draws = list(floor_draws(train_labels, counts, _FLOOR_DRAWS, of.seed))
    rest = np.setdiff1d(np.arange(len(train)), draws[0])
    extra = {"extra_images": train[rest], "extra_labels": train_labels[rest]} if len(rest) else {}
    rungs = make_ladder(train[draws[0]], train_labels[draws[0]], of.data.classes, **extra, seed=of.seed)  # type: ignore[arg-type]
    labels = None if of.made.labels is None else of.made.labels[theirs]
    found: dict[str, Any] = {
        "n": len(ours),
        "counts": dict(zip(of.data.classes, counts, strict=True)),
        "spaces": {},
    }
    steps, done = len(of.spaces) * (1 + len(draws) + len(rungs)), 0

    def step(words: str) -> None:
        nonlocal done
        progress(done, steps, words)
        done += 1

    for name in of.spaces:
        step(name)
        real = Reference(
            of.features(name, reference),
            of.patients()[ours],
            of.labels()[ours],
            of.data.classes,
            k=of.k,
            seed=of.seed,
        )
        made = real.report(of.features(name, of.made.images[theirs]), labels)
        floor = []
        for draw in draws:
            step(f"{name}, floor")
            floor.append(_values(real.report(of.features(name, train[draw]))))
        best = {figure: float(np.mean([f[figure] for f in floor])) for figure in floor[0]}
        ladder = {}
        for rung, (images, _) in rungs.items():
            step(f"{name}, {rung}")
            ladder[rung] = _values(real.report(of.features(name, images)))
        own = _values(made)
        known = {FLOOR: best, **ladder}
        place = {
            figure: place_on_ladder(
                value,
                {rung: values[figure] for rung, values in known.items()},
                higher_is_better=figure in HIGHER_IS_BETTER,
            )
            for figure, value in own.items()
        }
        found["spaces"][name] = {
            "identity": of.space(name).identity,
            "generated": made,
            "floor": best,
            "ladder": ladder,
            "place": place,
            "over_floor": {f: own[f] / best[f] if best[f] > 0 else None for f in own},
        }
    return found


def measure_diversity(of: Comparison, progress: Progress) -> dict[str, Any]:
    """Distances, near-twins and MS-SSIM within each class, beside those of real images."""
    assert of.made.labels is not None
    real, labels, patients = of.pixels(), of.labels(), of.patients()
    classes, made = of.data.classes, of.made.labels
    # A class with hardly an image is no reason to say nothing of the others; the summary names it
    told = told_classes(labels, made, patients, len(classes))
    told = told if len(told) else np.arange(len(classes))  # nothing to say: refused below, with the reason
    rows, theirs = np.isin(labels, told), np.isin(made, told)
    found: dict[str, Any] = {"spaces": {}}
    for done, name in enumerate(of.spaces):
        progress(done, len(of.spaces) + 1, name)
        found["spaces"][name] = diversity_report(
            of.features(name, real)[rows],
            of.features(name, of.made.images)[theirs],
            np.searchsorted(told, labels[rows]),
            np.searchsorted(told, made[theirs]),
            [classes[k] for k in told],
            patients=patients[rows],
            seed=of.seed,
        )
    progress(len(of.spaces), len(of.spaces) + 1, "MS-SSIM")
    found["ms_ssim"] = {
        "real": ssim_diversity(real, labels, classes, patients=patients, seed=of.seed),
        "generated": ssim_diversity(of.made.images, made, classes, seed=of.seed),
    }
    return found


def measure_agreement(of: Comparison, progress: Progress) -> dict[str, Any]:
    """Whether an independent classifier sees the label that was asked for, beside its accuracy on real images; and
    beside both, as the floor, real images of the training patients, whom it does not know either."""
    assert of.made.labels is not None
    judge = of.space("judge")
    assert isinstance(judge, JudgeClassifier)

    def says(pixels: UInt8Array) -> npt.NDArray[np.float64]:
        return judge.classify(of.features("judge", pixels)).astype(np.float64)

    real = (says(of.pixels()), of.labels(), of.patients())
    classes, seed = of.data.classes, of.seed
    asked = np.isin(of.labels("train"), of.made.labels)  # so that means are over the same classes
    training = (says(of.pixels("train")[asked]), of.labels("train")[asked])
    trained = agreement_report(*real, *training, classes, patients_fake=of.patients("train")[asked], seed=seed)
    floor = {
        name: {"n": row["n_fake"], "accuracy": row["accuracy_fake"]}
        | {figure: row[figure] for figure in ("accuracy_difference", "auc_difference")}
        for name, row in trained.figures.items()
    }
    report = agreement_report(*real, says(of.made.images), of.made.labels, classes, seed=seed)
    return report.as_json() | {"floor": plain(floor)}


def measure_anatomy(of: Comparison, progress: Progress) -> dict[str, Any]:
    """Landmarks of synthetic against real chests."""
    assert of.made.labels is not None
    real, fake = of.landmarks
    report = anatomy_report(
        of.pixels(),
        of.made.images,
        real_labels=of.labels(),
        fake_labels=of.made.labels,
        classes=of.data.classes,
        real_patients=of.patients(),
        seed=of.seed,
        real_landmarks=real,
        fake_landmarks=fake,
    )
    return report.as_json()


def measure_shortcuts(of: Comparison, progress: Progress) -> dict[str, Any]:
    """Whether frame and geometry tell the label more than they do in real images."""
    assert of.made.labels is not None
    real, fake = of.landmarks
    report = shortcut_report(
        of.pixels(),
        of.labels(),
        of.patients(),
        of.made.images,
        of.made.labels,
        of.data.classes,
        real_landmarks=real,
        fake_landmarks=fake,
        seed=of.seed,
    )
    return report.as_json()


def measure_memorisation(of: Comparison, progress: Progress) -> dict[str, Any]:
    """Whether training patients are nearer than other patients of the same source."""
    report = memorisation_report(
        of.made.images,
        of.pixels("train"),
        np.asarray(of.data.images[of.heldout]),
        training_patients=of.patients("train").tolist(),
        heldout_patients=np.asarray(of.data.patients[of.heldout]).tolist(),
        labels=(of.labels("train"), of.data.labels[of.heldout]),
        generated_labels=of.made.labels,
        classes=None if of.made.labels is None else of.data.classes,
        seed=of.seed,
        progress=progress,
    )
    return report.to_dict()


def measure_faithfulness(of: Subject, progress: Progress) -> dict[str, Any]:
    """Whether the maps of the run's networks show what they claim to, on real images with a disease and on its own."""
    assert of.networks is not None
    judge = of.space("judge")
    assert isinstance(judge, JudgeClassifier)
    each = len(of.made.images) // len(of.data.classes)
    return faithfulness_section(
        of.networks, of.data, judge, group=of.group, count=each, seed=of.seed, progress=progress
    )


@dataclass(frozen=True)
class Section:
    """One section of an evaluation."""

    measure: Callable[[Subject, Progress], Mapping[str, Any]]
    """Raises InputError or DataError where the images do not allow it: the section is left out, with the reason."""
    cost: Callable[[Comparison], float]
    """About how many seconds on one core; relative to each other is what the bar needs."""
    spaces: Callable[[Comparison], Sequence[str]] = lambda of: ()
    """Feature spaces that the figures depend on."""
    needs_labels: bool = True
    needs_networks: bool = False
    """The networks themselves, not only images."""


def _pixels(of: Comparison, *others: str) -> float:
    """Images that are looked at, of these other groups too, in thousands of 64x64."""
    real = sum(len(of.labels(group)) for group in (of.group, *others))
    return (len(of.made.images) + real) / 1000 * (of.data.resolution / 64) ** 2


SECTIONS: dict[str, Section] = {
    "fidelity": Section(measure_fidelity, lambda of: 40 * len(of.spaces) * _pixels(of), lambda of: of.spaces, False),
    "diversity": Section(measure_diversity, lambda of: 10 * len(of.spaces) * _pixels(of), lambda of: of.spaces),
    "agreement": Section(measure_agreement, lambda of: 1 + _pixels(of, "train"), lambda of: ("judge",)),
    "anatomy": Section(measure_anatomy, lambda of: 5 * _pixels(of)),
    "shortcuts": Section(measure_shortcuts, lambda of: 5 + 2 * _pixels(of)),
    "memorisation": Section(measure_memorisation, lambda of: 20 * _pixels(of), needs_labels=False),
    "faithfulness": Section(
        measure_faithfulness, lambda of: 200 * _pixels(of), lambda of: ("judge",), needs_networks=True
    ),
}
"""What can be evaluated, in the order in which it is."""
SUITES: dict[str, tuple[str, ...]] = {
    "standard": ("fidelity", "diversity", "agreement", "anatomy", "shortcuts", "memorisation"),
    "faithfulness": ("faithfulness",),
}
"""Sections that are run together."""


def _values(report: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(entry["value"]) if entry["value"] is not None else math.nan
        for name, entry in report["overall"]["figures"].items()
    }
