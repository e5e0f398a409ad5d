"""How the set of figures ranks known cases: no spoilt set may look good in all of them, and real images must."""

import functools
from typing import NamedTuple

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from expressivegan import load_images
from expressivegan.data.doctor import features as patches
from expressivegan.errors import InputError
from expressivegan.evaluation import draw_mix, make_ladder, memorisation_report
from expressivegan.evaluation.cases import FAMILIES, RULES, Figures, Yardstick, exposing, families
from expressivegan.intervals import Interval

CLASSES = ("NORMAL", "BACTERIA", "VIRUS")
SIDE = 64
COUNTS = [112, 108, 104]  # above 100, so that a hundred per class repeat
COPIES = "training images, copied"
RUNGS = [
    "blur 0.5", "blur 1", "blur 1.5", "noise 5", "noise 15", "100 per class, repeated", "20 per class, repeated",
    "5 per class, repeated", "1 per class, repeated", "no VIRUS", "flipped", "shifted by 1/8",
]  # fmt: skip


class Cases(NamedTuple):
    floor: list[Figures]
    rungs: dict[str, Figures]


@functools.cache
def cases() -> Cases:
    """Figures of draws of real images and of the rungs, in a space of patches learnt from other phantoms."""
    data = load_images("phantom:2000", SIDE, progress=False)
    images, labels = np.asarray(data.images), data.labels
    left = np.unique(data.patients, return_index=True)[1]  # one image of each child

    def take(counts: list[int], name: str) -> np.ndarray:
        nonlocal left
        rows = left[draw_mix(labels[left], counts, 0, name)]
        left = np.setdiff1d(left, rows)
        return rows

    learn, reference, base, heldout = (
        take([80] * 3, "learn"), take(COUNTS, "reference"), take(COUNTS, "base"), take(COUNTS, "heldout")
    )  # fmt: skip
    dictionary = patches._dictionary(images[learn], np.random.default_rng(0))

    def answers(x: np.ndarray) -> np.ndarray:
        return np.concatenate([patches._answers(x[i : i + 64], *dictionary) for i in range(0, len(x), 64)])

    known = answers(images[learn])
    reduce = PCA(24, random_state=0).fit(known)
    classify = LogisticRegression(C=0.01, max_iter=2000).fit(reduce.transform(known), labels[learn])

    kept: dict[bytes, np.ndarray] = {}  # many sets hold the same images

    def look(x: np.ndarray) -> np.ndarray:
        new = {image.tobytes(): i for i, image in enumerate(x) if image.tobytes() not in kept}
        if new:
            kept.update(zip(new, reduce.transform(answers(x[list(new.values())])), strict=True))
        return np.stack([kept[image.tobytes()] for image in x])

    yardstick = Yardstick(
        {"patches": look}, lambda x: classify.predict_proba(look(x)), images[reference], labels[reference],
        data.patients[reference], CLASSES,
    )  # fmt: skip
    pool = np.concatenate([base, left])
    draws = [pool[draw_mix(labels[pool], COUNTS, 0, "floor", i)] for i in range(6)]
    floor = [yardstick.score(images[rows], labels[rows]) for rows in draws]
    ladder = make_ladder(
        images[base], labels[base], CLASSES, extra_images=images[left], extra_labels=labels[left], seed=0
    )
    rungs = {name: yardstick.score(*rung) for name, rung in ladder.items()}
    rungs["real"] = yardstick.score(images[heldout], labels[heldout])
    # The rungs are made of training images, so memorisation would expose them all: only the two that must look good in
    # all else are asked.
    for name, made in ((COPIES, ladder[COPIES][0]), ("real", images[heldout])):
        flagged = memorisation_report(
            made, images[base], images[reference],
            training_patients=data.patients[base], heldout_patients=data.patients[reference],
            labels=(labels[base], labels[reference]),
        ).flagged  # fmt: skip
        rungs[name]["copies"] = Interval(float(flagged), np.nan, np.nan)
    return Cases(floor, rungs)


def test_real_images_look_good_in_all() -> None:
    found = cases()
    assert exposing(found.rungs["real"], found.floor) == []


@pytest.mark.parametrize("rung", RUNGS)
def test_no_rung_looks_good_in_all(rung: str) -> None:
    found = cases()
    assert exposing(found.rungs[rung], found.floor), found.rungs[rung]


def test_copies_look_perfect_and_memorisation_exposes_them() -> None:
    found = cases()
    assert exposing(found.rungs[COPIES], found.floor) == ["copies"]


def test_what_repetition_hides_from_kid_recall_and_coverage_expose() -> None:
    found = cases()
    repeated, blurred = found.rungs["20 per class, repeated"], found.rungs["blur 0.5"]
    assert repeated["patches/kid"].value < 0.1 * blurred["patches/kid"].value  # sixty images, and as good as real
    for figure in ("recall", "coverage"):
        assert repeated[f"patches/{figure}"].value < blurred[f"patches/{figure}"].value
    assert {"patches/recall", "patches/coverage"} <= set(exposing(repeated, found.floor))
    # A hundred of each class are hidden from recall and coverage too.
    assert "patches/twins" in exposing(found.rungs["100 per class, repeated"], found.floor)


@pytest.mark.parametrize(
    ("rungs", "rising", "falling"),
    [
        (["blur 0.5", "blur 1", "blur 1.5"], ["fid", "kid"], ["precision", "recall", "coverage"]),
        (["noise 5", "noise 15"], ["fid", "kid"], ["precision", "recall", "coverage"]),
        ([f"{n} per class, repeated" for n in (100, 20, 5, 1)], ["fid", "twins"], ["recall", "coverage"]),
    ],
    ids=["blur", "noise", "repetition"],
)
def test_the_worse_the_further(rungs: list[str], rising: list[str], falling: list[str]) -> None:
    found = cases().rungs
    for names, sign in ((rising, 1), (falling, -1)):
        for name in names:
            # the copies are what the rungs were before they were spoilt
            values = [found[rung][f"patches/{name}"].value for rung in (COPIES, *rungs)]
            assert (sign * np.diff(values) >= 0).all(), (name, values)
            assert sign * (values[-1] - values[0]) > 0, (name, values)


# --- the verdict by hand


def row(**values: float) -> Figures:
    return {name.replace("__", "/"): Interval(value, np.nan, np.nan) for name, value in values.items()}


def test_the_verdict_by_hand() -> None:
    floor = [row(a__recall=0.9 + d, agreement=d, a__fid=1 + 10 * d) for d in (-0.01, 0, 0.01)]
    # spread 0.01: recall must fall by 0.045, agreement differ by 0.045, fid rise by 0.45
    assert exposing(row(a__recall=0.856, agreement=0.044, a__fid=1.44), floor) == []
    assert exposing(row(a__recall=0.854, agreement=0.044, a__fid=1.46), floor) == ["a/recall", "a/fid"]
    assert exposing(row(agreement=0.046), floor) == exposing(row(agreement=-0.046), floor) == ["agreement"]
    assert exposing(row(a__recall=1.0, a__fid=0.1), floor) == []  # better than real is no fault of these
    still = [row(a__recall=0.9)] * 3  # no spread: the rule's share of 5% stands alone
    assert exposing(row(a__recall=0.856), still) == []
    assert exposing(row(a__recall=0.854), still) == ["a/recall"]
    assert exposing(row(copies=1.0, absent=1.0), still) == ["copies", "absent"]
    assert exposing(row(a__recall=np.nan), still) == []
    assert families(["absent", "copies", "a/recall"]) == ["diversity", "agreement", "memorisation"]
    assert families(list(RULES)) == list(FAMILIES)
    with pytest.raises(InputError, match="floor holds 2 draws; at least 3"):
        exposing(row(copies=1.0), still[:2])
