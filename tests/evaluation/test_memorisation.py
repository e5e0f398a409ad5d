"""Copies are told from honest images, whatever was done to them, and nobody is accused without cause."""

import json
from dataclasses import replace

import numpy as np
import pytest

from expressivegan.data.phantom import CLASSES, draw_batch
from expressivegan.errors import InputError
from expressivegan.evaluation.memorisation import (
    ClosePair,
    MemorisationReport,
    calibrate,
    draw_gallery,
    likeness,
    memorisation_report,
    permutation,
)
from expressivegan.evaluation.memorisation.cheats import KINDS, partners, replay
from expressivegan.evaluation.memorisation.distances import SIDE, make_pool, prepare, search
from expressivegan.evaluation.memorisation.words import verdict

POOL = 110
PLANTED = 12
TRAIN = [f"t{i}" for i in range(POOL)]
HELD = [f"h{i}" for i in range(POOL)]


@pytest.fixture(scope="module")
def children() -> np.ndarray:
    """Generated, training and held-out phantoms, all of them different children."""
    return draw_batch(range(1000, 1000 + 3 * POOL), [CLASSES[i % 3] for i in range(3 * POOL)], SIDE)[0]


@pytest.fixture(scope="module")
def parts(children: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return children[:POOL], children[POOL : 2 * POOL], children[2 * POOL :]


def report_of(
    generated: np.ndarray, parts: tuple[np.ndarray, np.ndarray, np.ndarray], **more: object
) -> MemorisationReport:
    return memorisation_report(
        generated,
        parts[1],
        parts[2],
        training_patients=TRAIN,
        heldout_patients=HELD,
        **more,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def honest(parts: tuple[np.ndarray, np.ndarray, np.ndarray]) -> MemorisationReport:
    return report_of(parts[0], parts)


@pytest.fixture(scope="module")
def copied(parts: tuple[np.ndarray, np.ndarray, np.ndarray]) -> MemorisationReport:
    """A tenth of the images are training images with a little noise; image i is of training image 3i."""
    generated = parts[0].copy()
    generated[:PLANTED] = replay(parts[1][: 3 * PLANTED : 3], "noise 5", np.random.default_rng(0))
    return report_of(generated, parts)


# --- likeness ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("blend")])
def test_a_changed_copy_finds_its_original(parts: tuple[np.ndarray, np.ndarray, np.ndarray], kind: str) -> None:
    pool = make_pool(np.concatenate(parts[1:]))
    made = replay(parts[1][:PLANTED], kind, np.random.default_rng(1))
    found = search(made, pool)
    right = found.index[:, 0] == np.arange(PLANTED)
    assert right.mean() >= 0.9
    assert (found.mirrored[right, 0] == (kind == "flipped")).all()
    assert np.median(found.likeness[:, 0]) > search(parts[0][:PLANTED], pool).likeness[:, 0].max()
    assert (np.diff(found.likeness, axis=1) <= 0).all()
    assert all(len(set(row)) == len(row) for row in found.index.tolist())


@pytest.mark.parametrize(("kind", "both"), [("blend 0.5", 0.7), ("blend 0.7", 0.1)])
def test_a_blend_finds_its_parents(parts: tuple[np.ndarray, np.ndarray, np.ndarray], kind: str, both: float) -> None:
    pool = make_pool(np.concatenate(parts[1:]))
    made = replay(parts[1][:PLANTED], kind, np.random.default_rng(1))
    found = search(made, pool)
    parents = [{i, (i + partners(PLANTED)) % PLANTED} for i in range(PLANTED)]
    assert all(i in p for i, p in zip(found.index[:, 0].tolist(), parents, strict=True))
    told = np.array([set(f) == p for f, p in zip(found.parents.tolist(), parents, strict=True)])
    assert told.mean() >= both
    assert found.blend[told].min() > 0.9
    assert np.median(found.blend) > search(parts[0][:PLANTED], pool).blend.max()


def test_likeness_of_a_picture_to_itself_its_mirror_and_nothing(children: np.ndarray) -> None:
    pair = children[:2]
    np.testing.assert_allclose(likeness(pair, pair), 1, atol=1e-4)
    np.testing.assert_allclose(likeness(pair, np.ascontiguousarray(pair[:, :, ::-1])), 1, atol=1e-4)
    assert likeness(pair, pair[::-1]).max() < 0.9
    np.testing.assert_array_equal(likeness(pair, np.full_like(pair, 90)), 0)


def test_likeness_by_hand() -> None:
    """One bright dot, shifted by 5 and 3 pixels: the same picture where they overlap."""
    one = np.full((1, SIDE, SIDE), 50, np.uint8)
    one[0, 30, 30] = 250
    assert likeness(one, np.roll(one, (5, 3), (1, 2)))[0] == pytest.approx(1, abs=1e-3)


def test_other_sizes_are_resampled() -> None:
    picture = np.repeat(np.repeat(np.arange(SIDE, dtype=np.uint8)[None], SIDE, 0)[None] * 3, 2, 0)
    large = np.kron(picture, np.ones((1, 2, 2), np.uint8))
    assert prepare(picture) is picture
    assert np.abs(prepare(large).astype(int) - picture)[:, 4:-4, 4:-4].max() <= 3


# --- calibration ------------------------------------------------------------------------------------------------------


def test_a_second_exposure_is_not_a_copy(parts: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    whose = range(POOL, POOL + 60)  # the first 60 children of the training pool, in another pose and exposure
    again = draw_batch([1000 + i for i in whose], [CLASSES[i % 3] for i in whose], SIDE, [1] * 60)[0]
    training = np.concatenate([parts[1], again])
    patients = np.array(TRAIN + TRAIN[:60])
    found = calibrate(training, patients, make_pool(training), parts[2], np.random.default_rng(0))
    assert len(found.repeats) == 60
    assert found.repeats_called_copies() <= 0.02
    assert (found.strangers < found.threshold).all()
    assert np.median(found.repeats) > 0.2
    assert 0.7 <= found.threshold <= 0.95

    twice = np.concatenate([training, parts[1][:5]])  # stored twice: no repeats, and they do not raise the threshold
    more = calibrate(twice, np.append(patients, TRAIN[:5]), make_pool(twice), parts[2], np.random.default_rng(0))
    assert more.same_file >= 1
    assert more.repeats.max() < 0.95


# --- report -----------------------------------------------------------------------------------------------------------


def test_honest_images_are_not_accused(honest: MemorisationReport) -> None:
    assert not honest.flagged
    assert honest.p_value > permutation.ALPHA
    assert honest.verdict.startswith("No sign of memorisation")
    assert honest.copies <= 1  # with few strangers to calibrate on, another may come nearer
    assert honest.equal_pools.share.low < 0.5 < honest.equal_pools.share.high
    assert not honest.membership.leaks
    assert any(f"{POOL} generated" in note for note in honest.notes)


def test_copies_are_counted_named_and_shown(
    copied: MemorisationReport, parts: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    assert copied.flagged
    assert copied.verdict.startswith("The generator copies training images")
    assert PLANTED - 1 <= copied.copies <= PLANTED + 1
    assert copied.copied_patients <= copied.copies + 1
    assert copied.copies_heldout <= 1
    assert copied.equal_pools.excess.low > 0
    assert copied.membership.auc.value > 0.5
    shown = copied.gallery[: PLANTED - 1]
    assert {p.generated for p in shown} <= set(range(PLANTED))
    assert all(p.training == 3 * p.generated for p in shown)
    likes = [p.training_likeness for p in copied.gallery]
    assert likes == sorted(likes, reverse=True)
    assert all(p.heldout_likeness < p.training_likeness - 0.05 for p in shown)
    assert all(0 <= p.heldout < POOL for p in copied.gallery)
    picture = draw_gallery(copied.gallery[:4], parts[0], parts[1], parts[2], columns=3)
    assert picture.shape == (2 * SIDE + 8, 3 * (3 * SIDE + 4) + 16)


def test_a_generator_of_blends_is_flagged(parts: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    made = parts[0].copy()
    made[:20] = replay(parts[1][:20], "blend 0.5", np.random.default_rng(2))
    seen: list[tuple[int, int, str]] = []
    found = report_of(made, parts, progress=lambda *step: seen.append(step))
    assert found.flagged
    assert found.blends >= 8
    assert found.blends_heldout <= 1
    done, of = [s[0] for s in seen], {s[1] for s in seen}
    assert done == sorted(done)
    assert of == {3 * POOL}
    assert done[-1] == 3 * POOL


def test_a_report_is_json_and_repeats_itself(
    honest: MemorisationReport, parts: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    text = json.dumps(honest.to_dict(), allow_nan=False)
    assert json.dumps(report_of(parts[0], parts).to_dict(), allow_nan=False) == text
    stored = json.loads(text)
    assert stored["repeats"]["called_copies"] is None
    assert len(stored["gallery"]) == 24


def test_blank_images_and_labels(parts: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    made = parts[0][:40].copy()
    made[:10] = 0
    classes = np.arange(60) % 3
    found = memorisation_report(
        made,
        parts[1][:60],
        parts[2][:60],
        training_patients=TRAIN[:60],
        heldout_patients=HELD[:60],
        labels=(classes, classes),
    )
    assert not found.flagged
    assert "10 of 40 generated images are blank." in found.notes
    assert np.isnan(found.membership.tpr.value)
    assert found.to_dict()["membership"]["tpr_at_1_percent_fpr"]["value"] is None
    blank = replace(found, nearest_training=np.full(40, -1, np.float32)).to_dict()
    assert blank["likeness_training"]["0.5"] is None


def test_one_replayed_class_stands_out_alone(parts: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Class B copies; class A is honest, and of class C there are too few images to say."""
    labels = np.repeat([0, 1, 2], [60, 40, 10])
    pool = np.arange(POOL) % 2
    made = parts[0].copy()
    made[60:80] = replay(parts[1][pool == 1][:20], "noise 5", np.random.default_rng(0))
    found = report_of(made, parts, labels=(pool, pool), generated_labels=labels, classes=("A", "B", "C"))
    a, b, c = (found.by_class[name] for name in "ABC")
    assert (a.flagged, b.flagged, c.flagged) == (False, True, False)
    assert a.findings is not None
    assert b.findings is not None
    of_c = int((found.nearest_training[100:] >= found.calibration.threshold).sum())
    assert a.findings.copies + b.findings.copies + of_c == found.copies
    assert b.findings.copies >= 18
    assert b.findings.copies_share.low > 0.3 > a.findings.copies_share.high
    assert b.findings.equal_pools.share.value > 0.6
    assert a.membership is not None
    assert b.membership is not None
    assert b.membership.auc.value > max(0.6, a.membership.auc.value)
    assert (c.findings, c.membership, c.training) == (None, None, 0)
    assert "B stands out" in found.verdict
    assert "No sign" not in found.verdict
    alone = replace(found, flagged=False, membership=replace(found.membership, leaks=False))
    assert alone.suspect
    assert alone.to_dict()["suspect"]
    assert not replace(alone, by_class={"A": a, "C": c}).suspect
    assert replace(alone, by_class={}, membership=replace(found.membership, leaks=True)).suspect
    assert replace(alone, by_class={}, flagged=True).suspect
    assert "A stands out" not in found.verdict
    assert "Too few generated images for a row of their own: C (10)." in found.notes
    row = json.loads(json.dumps(found.to_dict(), allow_nan=False))["by_class"]
    assert row["B"]["copies"] == b.findings.copies
    assert row["B"]["membership"]["auc"]["low"] == b.membership.auc.low
    assert row["C"] == {"generated": 10, "training": 0, "heldout": 0, "flagged": False}


@pytest.mark.parametrize(("leaks", "classes", "says"), [
    (False, "B", "The images of some class repeat"),
    (True, "", "The images give training patients away"),
    (False, "", "No sign of memorisation"),
])  # fmt: skip
def test_a_verdict_does_not_contradict_itself(
    honest: MemorisationReport, parts: tuple[np.ndarray, np.ndarray, np.ndarray], leaks: bool, classes: str, says: str
) -> None:
    labels = np.arange(POOL) % 2
    rows = report_of(parts[0], parts, labels=(labels, labels), generated_labels=labels, classes=("A", "B")).by_class
    rows = {name: replace(row, flagged=name in classes) for name, row in rows.items()}
    own = rows["A"].findings
    assert own is not None
    words = verdict(False, own, [0, 0], replace(honest.membership, leaks=leaks), rows)
    assert words.startswith(says)
    assert ("stands out" in words) == bool(classes)
    assert ("An attacker can tell" in words) == leaks


def test_gallery_mirrors_back() -> None:
    picture = np.zeros((1, 20, 20), np.uint8)
    picture[0, :, 0] = 200
    drawn = draw_gallery([ClosePair(0, 0, 0, 1.0, 0.5, True, False)], picture, picture[:, :, ::-1], picture)
    np.testing.assert_array_equal(drawn[:, :20], drawn[:, 22:42])
    with pytest.raises(InputError, match="nothing to draw"):
        draw_gallery([], picture, picture, picture)


GOOD = {
    "generated": np.zeros((20, 32, 32), np.uint8),
    "training": np.random.default_rng(0).integers(0, 255, (20, 32, 32), dtype=np.uint8),
    "heldout": np.random.default_rng(1).integers(0, 255, (20, 32, 32), dtype=np.uint8),
    "training_patients": TRAIN[:20],
    "heldout_patients": HELD[:20],
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"generated": GOOD["generated"][:3]}, "generated holds 3 images, at least 20"),
        ({"heldout": GOOD["generated"][:0]}, "heldout holds 0 images, at least 20"),
        ({"generated": np.zeros((20, 32, 40), np.uint8)}, "generated 32x40, training 32x32"),
        ({"generated": np.zeros((20, 32, 32), np.float32)}, "generated must be uint8"),
        ({"training": np.zeros((20, 3, 32, 32), np.uint8)}, "training must be uint8"),
        ({"training_patients": TRAIN[:19]}, "training_patients must be 20 names"),
        ({"heldout_patients": ["one"] * 20}, "heldout_patients names 1 patients, at least 10"),
        ({"heldout_patients": TRAIN[:20]}, "holds 20 patients of training_patients, such as 't0'"),
        ({"heldout": GOOD["training"]}, "heldout holds 20 of 20 pictures that training holds"),
        ({"labels": (np.zeros(20, int), np.zeros(3, int))}, "labels of heldout must be 20 integers"),
        ({"labels": (np.zeros(20, int),)}, "labels must be those of training and of heldout"),
        ({"generated_labels": np.zeros(20, int)}, "generated_labels .* need labels of the training"),
        (
            {"generated_labels": np.full(20, 2), "labels": (np.zeros(20, int),) * 2, "classes": ("A", "B")},
            r"generated_labels span 2\.\.2, allowed is 0\.\.1",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(change: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        memorisation_report(**(GOOD | change))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_an_unknown_cheat_is_refused(children: np.ndarray) -> None:
    with pytest.raises(InputError, match="one of as is, noise 5"):
        replay(children[:2], "stolen", np.random.default_rng(0))
