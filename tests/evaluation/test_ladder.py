"""The rungs are what they say, and no rung looks good in all of the metrics."""

import functools

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from expressivegan import load_images
from expressivegan.data.doctor import features as patches
from expressivegan.errors import InputError
from expressivegan.evaluation import (
    FeatureSpace,
    diversity_report,
    fid,
    floor_draws,
    kid,
    make_ladder,
    place_on_ladder,
    prdc,
)

CLASSES = ("NORMAL", "BACTERIA", "VIRUS")
PER_CLASS = 80
GOOD = {"fid": 1.35, "kid": 2.0, "precision": 0.85, "recall": 0.85, "density": 0.8, "coverage": 0.85, "twins": 0.1}


def test_rungs_are_what_they_say() -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (60, 32, 40), dtype=np.uint8)
    labels = np.repeat(np.arange(3), 20)
    extra = draw.integers(0, 256, (30, 32, 40), dtype=np.uint8)
    rungs = make_ladder(images, labels, CLASSES, extra_images=extra, extra_labels=np.arange(30) % 3)
    assert list(rungs) == [
        "blur 0.5", "blur 1", "blur 1.5", "noise 5", "noise 15", "100 per class, repeated", "20 per class, repeated",
        "5 per class, repeated", "1 per class, repeated", "no VIRUS", "flipped", "shifted by 1/8",
        "training images, copied",
    ]  # fmt: skip
    for name, (made, given) in rungs.items():
        assert made.shape == images.shape, name
        assert made.dtype == np.uint8, name
        assert given.shape == labels.shape, name
        if name != "no VIRUS":
            assert (given == labels).all(), name
    spread = [np.diff(rungs[f"blur {s}"][0].astype(float), axis=1).std() for s in ("0.5", "1", "1.5")]
    assert spread == sorted(spread, reverse=True)
    for count in (5, 1):
        made, given = rungs[f"{count} per class, repeated"]
        assert [len(np.unique(made[given == c], axis=0)) for c in range(3)] == [count] * 3
    missing, given = rungs["no VIRUS"]
    assert set(given.tolist()) == {0, 1}
    assert len(np.unique(missing, axis=0)) == 60  # filled with other images, not with the same again
    assert (rungs["flipped"][0] == images[:, :, ::-1]).all()
    shifted = rungs["shifted by 1/8"][0]
    assert (shifted[:, :, 5:] == images[:, :, :-5]).all()
    assert (shifted[:, :, :5] == images[:, :, :1]).all()
    copied = rungs["training images, copied"][0].astype(int) - images
    assert np.abs(copied).max() == 1
    again = make_ladder(images, labels, CLASSES, extra_images=extra, extra_labels=np.arange(30) % 3)
    assert all((rungs[name][0] == again[name][0]).all() for name in rungs)


def test_blur_is_in_pixels_of_64() -> None:
    for side in (64, 128):
        image = np.zeros((1, side, side), np.uint8)
        image[:, :, : side // 2] = 200
        made = make_ladder(image, [0], ("A",))["blur 1"][0][0, 0].astype(float)
        edge = -np.diff(made)
        at = np.arange(side - 1)
        width = np.sqrt((edge * at**2).sum() / edge.sum() - ((edge * at).sum() / edge.sum()) ** 2)
        assert width == pytest.approx(side / 64, rel=0.05)


def test_unfit_images_are_named() -> None:
    with pytest.raises(InputError, match=r"images must be uint8 \(N, H, W\)"):
        make_ladder(np.zeros((2, 8, 8)), [0, 0], ("A",))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"labels span 0\.\.1 but there are 1"):
        make_ladder(np.zeros((2, 8, 8), np.uint8), [0, 1], ("A",))
    with pytest.raises(InputError, match=r"draws \(=0\)"):
        floor_draws([0, 1], [1, 1], 0)


def test_places() -> None:
    rungs = {"blur 1": 10.0, "floor": 0.8, "blur 0.5": 1.1, "absent": float("nan")}
    assert place_on_ladder(2.0, rungs) == "between blur 0.5 and blur 1"
    assert place_on_ladder(1.1, rungs) == "at blur 0.5"
    assert place_on_ladder(0.5, rungs) == "better than floor, the best"
    assert place_on_ladder(99, rungs) == "worse than blur 1, the worst"
    falling = {"floor": 0.9, "blur 0.5": 0.7, "blur 1": 0.2}
    assert place_on_ladder(0.5, falling, higher_is_better=True) == "between blur 0.5 and blur 1"
    assert place_on_ladder(0.95, falling, higher_is_better=True) == "better than floor, the best"
    with pytest.raises(InputError, match=r"figure \(=nan\)"):
        place_on_ladder(float("nan"), rungs)


# --- the order of known cases


class Patches:
    """A dictionary of patches and principal components, learnt from phantoms that nothing else is made of."""

    name = "patches"

    def __init__(self, images: np.ndarray) -> None:
        self._learnt = patches._dictionary(images, np.random.default_rng(0))
        self._reduce = PCA(24, random_state=0).fit(patches._answers(images, *self._learnt))

    def features(self, images: np.ndarray) -> np.ndarray:
        answers = [patches._answers(images[i : i + 64], *self._learnt) for i in range(0, len(images), 64)]
        found: np.ndarray = self._reduce.transform(np.concatenate(answers))
        return found


@functools.cache
def scores() -> dict[str, dict[str, float]]:
    """Figures of floor and rungs over those of the floor (KID: of the smallest that is told from it)."""
    data = load_images("phantom:900", 64)
    images, labels = np.asarray(data.images), data.labels
    pools = [np.flatnonzero(labels == c) for c in range(3)]
    counts = [PER_CLASS] * 3

    def part(start: int) -> np.ndarray:
        return np.concatenate([pool[start : start + PER_CLASS] for pool in pools])

    reference, train, fresh = part(0), part(PER_CLASS), part(2 * PER_CLASS)
    learn = np.concatenate([pool[3 * PER_CLASS : 3 * PER_CLASS + 40] for pool in pools])
    torch.manual_seed(0)
    space: FeatureSpace = Patches(images[learn])
    real, own = space.features(images[reference]), labels[reference]
    sets = make_ladder(images[train], labels[train], CLASSES, extra_images=images[fresh], extra_labels=labels[fresh])
    sets |= {"floor": (images[train], labels[train]), "other floor": (images[fresh], labels[fresh])}
    assert [int((labels[train] == c).sum()) for c in range(3)] == counts
    found = {}
    for name, (made, given) in sets.items():
        fake = space.features(made)
        row = {"fid": fid(real, fake), "kid": kid(real, fake), **prdc(real, fake)._asdict()}
        seen = [c for c in range(3) if (given == c).any()]
        rows, theirs = np.isin(own, seen), np.searchsorted(seen, given)
        report = diversity_report(
            real[rows], fake, np.searchsorted(seen, own[rows]), theirs, [CLASSES[c] for c in seen], repeats=2
        )
        # A class that is missing shows in the table of classes; patches hardly tell the phantoms' classes apart.
        row["classes"] = float(len(seen))
        row["twins"] = max(r["duplicate_rate"] - r["duplicate_rate_real"] for r in report.values())
        found[name] = row
    return found


def good(row: dict[str, float], floor: dict[str, float]) -> dict[str, bool]:
    """Which figures would pass for those of real images."""
    verdict = {f: row[f] >= GOOD[f] * floor[f] for f in ("precision", "recall", "density", "coverage")}
    verdict["fid"] = row["fid"] <= GOOD["fid"] * floor["fid"]
    verdict["kid"] = row["kid"] <= GOOD["kid"] * abs(floor["kid"]) + 0.01
    verdict["classes"] = row["classes"] == len(CLASSES)
    verdict["twins"] = row["twins"] <= GOOD["twins"]
    return verdict


def test_other_real_images_look_good_in_all_metrics() -> None:
    verdict = good(scores()["other floor"], scores()["floor"])
    assert all(verdict.values()), verdict


@pytest.mark.parametrize(
    "rung",
    ["blur 0.5", "blur 1", "blur 1.5", "noise 5", "noise 15", "20 per class, repeated", "5 per class, repeated",
     "1 per class, repeated", "no VIRUS", "flipped", "shifted by 1/8"],
)  # fmt: skip
def test_no_rung_looks_good_in_all_metrics(rung: str) -> None:
    verdict = good(scores()[rung], scores()["floor"])
    assert not all(verdict.values()), scores()[rung]


def test_copies_of_training_images_are_beyond_fidelity() -> None:
    # They are good in all of these: what finds them is memorisation, another check.
    verdict = good(scores()["training images, copied"], scores()["floor"])
    assert verdict["precision"]
    assert verdict["coverage"]


def test_the_ladder_is_in_order() -> None:
    table = scores()
    for rungs in (
        ("floor", "blur 0.5", "blur 1", "blur 1.5"),
        ("floor", "noise 5", "noise 15"),
        ("floor", "20 per class, repeated", "5 per class, repeated", "1 per class, repeated"),
    ):
        values = [table[rung]["fid"] for rung in rungs]
        assert values == sorted(values), rungs
    repeated = [table[f"{count} per class, repeated"] for count in (20, 5, 1)]
    for figure in ("recall", "coverage"):
        values = [row[figure] for row in repeated]
        assert values == sorted(values, reverse=True), figure
    assert all(row["twins"] > 0.8 for row in repeated)
