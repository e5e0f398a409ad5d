"""Copies are told from honest images, whatever was done to them, and nobody is accused without cause."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from expressivegan.data.phantom import CLASSES, draw_batch
from expressivegan.errors import InputError
from expressivegan.evaluation.memorisation import (
    ClosePair,
    Evidence,
    MemorisationReport,
    attack,
    calibrate,
    draw_gallery,
    likeness,
    memorisation_report,
    permutation,
)
from expressivegan.evaluation.memorisation.cheats import KINDS, partners, replay
from expressivegan.evaluation.memorisation.distances import SIDE, make_pool, prepare, search
from expressivegan.evaluation.memorisation.membership import equal_mix
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


# --- test -------------------------------------------------------------------------------------------------------------


def evidence(owner: np.ndarray, close: np.ndarray) -> Evidence:
    return Evidence(owner, close, np.full((len(owner), 2), -1), np.zeros(len(owner)))


def excess(seen: Evidence, pools: np.ndarray, p_copies: float = 1) -> permutation.Excess:
    rng = np.random.default_rng(0)
    return permutation.test_excess(seen, pools, np.zeros(len(pools), np.int64), p_copies, 999, rng)


def test_p_values_by_hand() -> None:
    """Of 6 ways to choose 2 of 4 patients as training patients one holds all neighbours."""
    pools = np.array([True, True, False, False])
    found = excess(evidence(np.array([0, 1, 0, 1]), np.array([0.9, 0.8, 0.7, 0.6])), pools)
    assert found.p_lean == pytest.approx(1 / 6, abs=0.05)
    assert found.p_copies == 1
    assert found.p_value == pytest.approx(found.p_lean / 0.8)
    assert excess(evidence(np.array([2, 3, 2, 3]), np.array([0.9, 0.8, 0.7, 0.6])), pools).p_lean == 1


def test_p_values_of_copies_by_hand() -> None:
    p_value = permutation.copies_p_value
    assert p_value((0, 9), 0.5, 100, (0, 100)) == 1
    assert p_value((2, 0), 0.5, 100, (0, 100)) == pytest.approx(0.25)  # the gate
    assert p_value((5, 0), 0.5, 100, (0, 0)) == pytest.approx(2 * 0.5**5)
    # all 3 near-duplicates of 4 + 4 images are generated ones: 4 ways of 56
    assert p_value((3, 0), 0.4, 4, (0, 4)) == pytest.approx(2 * min(0.4**3, 4 / 56))
    assert p_value((3, 0), 0.45, 4, (0, 4)) == pytest.approx(2 * min(0.45**3, 4 / 56))
    # 13 copies, a held-out pool that is small, 600 strangers without one
    assert p_value((13, 0), 0.82, 660, (0, 600)) < 0.001
    # images that are like everybody's
    assert p_value((82, 18), 0.82, 660, (0, 600)) > 0.4


def test_one_patient_replayed_is_seen_by_its_copies_alone() -> None:
    pools = np.arange(40) < 20
    seen = evidence(np.full(50, 3), np.full(50, 0.99))
    assert excess(seen, pools).p_value > 0.3
    found = excess(seen, pools, permutation.copies_p_value((50, 0), 0.5, 50, (0, 50)))
    assert found.p_value == pytest.approx(5 * found.p_copies)
    assert found.p_value < 1e-6


def test_blends_are_seen_by_their_parents() -> None:
    rng = np.random.default_rng(3)
    pools = np.arange(400) < 200
    owner, close = rng.integers(400, size=600), rng.random(600)
    parents, blend = rng.integers(400, size=(600, 2)), rng.random(600) * 0.8
    assert excess(Evidence(owner, close, parents, blend), pools).p_value > 0.05
    parents[:12] = rng.permutation(200)[:24].reshape(12, 2)
    blend[:12] = 0.95
    assert excess(Evidence(owner, close, parents, blend), pools).p_value < 0.05


@pytest.mark.parametrize("favourites", [False, True])
def test_false_alarms_are_as_rare_as_promised(favourites: bool) -> None:
    """Also where a few patients are the nearest of most images, and where pools are unequal."""
    rng = np.random.default_rng(4)
    alarms = 0
    for draw in range(200):
        pools = rng.permutation(np.arange(120) < 80)
        weight = rng.pareto(1.0, 120) + 1e-3 if favourites else np.ones(120)
        owner = rng.choice(120, 300, p=weight / weight.sum())
        seen = Evidence(owner, rng.random(300), rng.integers(120, size=(300, 2)), rng.random(300))
        found = permutation.test_excess(seen, pools, np.zeros(120, np.int64), 1.0, 99, np.random.default_rng(draw))
        alarms += found.p_value < permutation.ALPHA
    assert alarms <= 18  # at 0.04 each, 19 and more have a probability below 0.001


def test_strata_keep_a_class_mix_from_looking_like_memory() -> None:
    rng = np.random.default_rng(5)
    classes = np.repeat([0, 1], 100)
    pools = np.concatenate([rng.permutation(100) < 80, rng.permutation(100) < 20])
    seen = evidence(rng.integers(100, size=400), rng.random(400))  # all images are of class 0
    within = permutation.test_excess(seen, pools, classes, 1.0, 499, np.random.default_rng(0))
    assert within.p_lean > 0.05
    assert excess(seen, pools).p_lean < 0.01


def test_equal_pools_by_hand() -> None:
    """Nine training pictures against one: each image's nearest is a training one, each second neighbour the other."""
    owner = np.arange(10)
    neighbour = np.stack([np.arange(9), np.full(9, 9)], axis=1)
    close = np.tile([0.95, 0.5], (9, 1))
    found = permutation.at_equal_pools(neighbour, close, owner, owner < 9, 0.9, 600, np.random.default_rng(0))
    # one training picture stays; it is the nearest of one image of nine
    assert found.share.value == pytest.approx(1 / 9)
    assert found.excess.value == pytest.approx(1 / 9)
    assert found.share.low <= 1 / 9 <= found.share.high


# --- membership -------------------------------------------------------------------------------------------------------


def test_attack_against_its_peer() -> None:
    rng = np.random.default_rng(6)
    member = np.arange(600) < 300
    score = np.round(rng.normal(size=600) + 0.7 * member, 2).astype(np.float32)
    names = np.arange(600).astype(str)
    found = attack(score, member, names, rounds=100)
    false, true, _ = roc_curve(member, score, drop_intermediate=False)
    assert found.auc.value == pytest.approx(roc_auc_score(member, score), abs=1e-9)
    assert found.tpr.value == pytest.approx(true[false <= 0.01].max(), abs=1e-9)
    assert found.leaks
    assert found.auc.low < found.auc.value < found.auc.high
    assert found.tpr.low <= found.tpr.value <= found.tpr.high


def test_attack_on_honest_sets_and_on_a_few_patients_known_by_heart() -> None:
    """Patients have several images that are alike; 20 of 300 training patients are in every generated image."""
    rng = np.random.default_rng(7)
    leaks, covered, seen = 0, 0, 0
    for draw in range(60):
        owner = np.repeat(np.arange(600), rng.geometric(0.6, 600))
        score = 0.7 * rng.normal(size=600)[owner] + rng.normal(size=len(owner))
        honest, known = score.astype(np.float32), np.where(owner < 20, score + 6, score).astype(np.float32)
        found = attack(honest, owner < 300, owner.astype(str), draw, 100)
        leaks += found.leaks
        covered += found.auc.low <= 0.5 <= found.auc.high
        seen += attack(known, owner < 300, owner.astype(str), draw, 100).leaks
    assert leaks <= 7  # at 0.03 each, 8 and more have a probability below 0.001
    assert covered >= 50  # at 0.95 each, fewer have one below 0.001
    assert seen >= 54


def test_the_attack_does_not_take_a_class_mix_for_memory() -> None:
    """Most training pictures are of the class that is made, most held-out ones of the other: nobody is remembered."""
    rng = np.random.default_rng(3)
    labels = np.concatenate([rng.random(400) < 0.2, rng.random(200) < 0.8]).astype(np.int64)
    member = np.arange(600) < 400
    score = (rng.normal(size=600) - labels).astype(np.float32)
    assert attack(score, member, np.arange(600).astype(str), rounds=100).leaks
    rows = equal_mix(labels, member, rng)
    mix = [np.bincount(labels[rows][side]) for side in (member[rows], ~member[rows])]
    assert np.allclose(mix[0] / mix[0].sum(), mix[1] / mix[1].sum(), atol=0.03)
    assert not attack(score[rows], member[rows], rows.astype(str), rounds=100).leaks


def test_attack_by_hand() -> None:
    names = np.arange(200).astype(str)
    member = np.arange(200) < 100
    score = np.zeros(200, np.float32)
    nothing = attack(score, member, names, rounds=20)
    assert (nothing.auc.value, nothing.tpr.value, nothing.leaks) == (0.5, 0.0, False)
    score[:7], score[100:102], score[7] = 3, 2, 1  # one false alarm of 100 is allowed, two tie
    assert attack(score, member, names, rounds=20).tpr.value == pytest.approx(0.07)
    score[101] = 0.5
    assert attack(score, member, names, rounds=20).tpr.value == pytest.approx(0.08)
    assert np.isnan(attack(score[:150], member[:150], names[:150], rounds=20).tpr.value)


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
