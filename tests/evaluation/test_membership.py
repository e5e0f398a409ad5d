"""The tests of memorisation: their p-values by hand, their false alarms, and the membership attack."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from expressivegan.evaluation.memorisation import Evidence, attack, permutation
from expressivegan.evaluation.memorisation.membership import equal_mix


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
