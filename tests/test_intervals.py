"""Intervals over patients."""

import numpy as np
from sklearn.metrics import roc_auc_score

from expressivegan.intervals import auc_interval, bootstrap, draw_weights, mean_interval, share_interval


def test_auc_equals_scikit_learns_with_ties_and_in_every_draw() -> None:
    rng = np.random.default_rng(0)
    truth, score = rng.random(300) < 0.3, rng.integers(0, 20, 300)
    score = score + 4 * truth
    patients = [str(p) for p in rng.integers(0, 120, 300)]
    fast = auc_interval(truth, score, patients, rounds=60, seed=3)
    slow = bootstrap(lambda i: float(roc_auc_score(truth[i], score[i])), patients, rounds=60, seed=3)
    np.testing.assert_allclose(fast, slow, atol=1e-12)


def test_one_class_alone_has_no_auc() -> None:
    assert np.isnan(auc_interval(np.ones(4, bool), np.arange(4), "abcd", rounds=3)).all()


def test_wilson_by_hand_and_at_the_ends() -> None:
    # n = 10, p = 0.8, z = 1.96: (0.8 + 0.19207 ± 1.96 sqrt(0.016 + 0.0096036)) / 1.38415
    np.testing.assert_allclose(share_interval(8, 10), (0.8, 0.4902, 0.9433), atol=1e-4)
    np.testing.assert_allclose([share_interval(0, 50).low, share_interval(50, 50).high], [0, 1], atol=1e-12)
    assert np.isnan(share_interval(0, 0)).all()


def test_mean_equals_the_bootstrap_of_the_mean() -> None:
    rng = np.random.default_rng(1)
    values, patients = rng.random(200) < 0.3, [str(p) for p in rng.integers(0, 50, 200)]
    fast = mean_interval(values, patients, rounds=200, seed=2)
    slow = bootstrap(lambda i: float(values[i].mean()), patients, rounds=200, seed=2)
    np.testing.assert_allclose(fast, slow, atol=1e-12)
    assert np.isnan(mean_interval(values[:0], [])).all()


def test_drawn_patients_bring_all_their_images() -> None:
    drawn = draw_weights(np.array(["b", "a", "b", "c"]), 400, 3)
    assert drawn.shape == (400, 4)
    np.testing.assert_array_equal(drawn[:, 0], drawn[:, 2])
    np.testing.assert_array_equal(drawn[:, [0, 1, 3]].sum(1), 3)  # as many patients as there are
    np.testing.assert_allclose(drawn.mean(0), 1, atol=0.15)
