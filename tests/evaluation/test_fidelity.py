"""Each metric: identity, a value worked out by hand, a peer, and sentences for degenerate input."""

import time
import warnings

import numpy as np
import pytest
import torch

from expressivegan.errors import InputError
from expressivegan.evaluation import (
    collapse_report,
    distinct_images,
    diversity_report,
    draw_mix,
    duplicate_rate,
    duplicate_threshold,
    fid,
    kid,
    nearest_distances,
    pairwise_diversity,
    prdc,
)

CLASSES = ("NORMAL", "BACTERIA", "VIRUS")


def clouds(n: int, m: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    mixing = draw.normal(size=(d, d)) / np.sqrt(d)
    return draw.normal(size=(n, d)) @ mixing, draw.normal(size=(m, d)) @ mixing * 1.2 + 0.3


def labelled(per_class: int, seed: int, d: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Three overlapping classes of low intrinsic dimension, as features of images are."""
    draw = np.random.default_rng(seed)
    basis = np.random.default_rng(99).normal(size=(6, d))
    labels = np.repeat(np.arange(3), per_class)
    latent = draw.normal(size=(len(labels), 6)) + labels[:, None]
    return latent @ basis + 0.05 * draw.normal(size=(len(labels), d)), labels


# --- identity


@pytest.mark.parametrize("shape", [(60, 8), (20, 50), (2, 5)])
def test_equal_sets_have_no_distance(shape: tuple[int, int]) -> None:
    real = clouds(*shape[:1], 2, shape[1])[0]
    assert fid(real, real[::-1]) == pytest.approx(0, abs=1e-9)


def test_two_halves_of_one_distribution_have_no_kid_on_average() -> None:
    draw = np.random.default_rng(0)
    values = [kid(draw.normal(size=(30, 4)), draw.normal(size=(40, 4))) for _ in range(300)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))


def test_equal_sets_are_fully_covered() -> None:
    real = clouds(40, 2, 6)[0]
    result = prdc(real, real.copy())
    assert (result.precision, result.recall, result.coverage) == (1, 1, 1)


# --- by hand


def test_fid_by_hand() -> None:
    # Means 0 and 3, unbiased variances 2 and 8: 9 + 2 + 8 - 2·sqrt(16) = 11.
    assert fid([[-1.0], [1.0]], [[1.0], [5.0]]) == pytest.approx(11)


def test_fid_of_singular_covariances_by_hand() -> None:
    # Variance 2 along x against 2 along y: nothing shared, so 2 + 2 with equal means.
    assert fid([[-1.0, 0.0], [1.0, 0.0]], [[0.0, -1.0], [0.0, 1.0]]) == pytest.approx(4)


def test_kid_by_hand() -> None:
    # d = 1: k(0,1) = 1 within real, k(1,2) = 27 within fake; across 1, 1, 8, 27, mean 9.25: 1 + 27 - 18.5.
    assert kid([[0.0], [1.0]], [[1.0], [2.0]]) == pytest.approx(9.5)


def test_prdc_by_hand() -> None:
    # Real balls, k = 1: 0±1, 1±1, 3±2; fake balls: 0.5±3.5, 4±3.5, 9±5. Real balls per fake: 2, 1, 0.
    result = prdc([[0.0], [1.0], [3.0]], [[0.5], [4.0], [9.0]], k=1)
    assert result.precision == pytest.approx(2 / 3)
    assert result.recall == pytest.approx(1)
    assert result.density == pytest.approx(1)
    assert result.coverage == pytest.approx(1)


def test_diversity_and_duplicates_by_hand() -> None:
    rows = [[0.0], [1.0], [3.0]]
    assert pairwise_diversity(rows) == pytest.approx(2)  # 1, 2, 3
    assert nearest_distances(rows).tolist() == [1, 1, 2]
    assert nearest_distances(rows, ["a", "a", "b"]).tolist() == [3, 2, 2]
    assert duplicate_rate(rows, 1.5) == pytest.approx(2 / 3)
    assert duplicate_rate(rows, 1.0) == 0  # nearer, not as near
    assert distinct_images(rows, 1.5) == 2
    assert duplicate_threshold(rows, percentile=50) == 1
    assert duplicate_threshold(rows, ["a", "a", "b"], percentile=100) == 3


def test_one_percent_of_the_calibrating_images_are_twins() -> None:
    real = np.random.default_rng(0).normal(size=(600, 5))
    assert duplicate_rate(real, duplicate_threshold(real)) == pytest.approx(0.01, abs=0.005)


def test_images_of_one_child_are_no_twins() -> None:
    real = np.random.default_rng(0).normal(size=(200, 5))
    pairs = np.concatenate([real, real + 1e-3])
    patients = np.tile([f"p{i}" for i in range(200)], 2)
    assert duplicate_threshold(pairs) < 0.01
    assert duplicate_threshold(pairs, patients) > 0.05


# --- peers


@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 16), (40, 30, 64)])
def test_fid_agrees_with_torch_fidelity(n: int, m: int, d: int) -> None:
    peer = pytest.importorskip("torch_fidelity.metric_fid")
    real, fake = clouds(n, m, d)
    with warnings.catch_warnings():  # the peer's square root of a singular matrix complains
        warnings.simplefilter("ignore")
        expected = peer.fid_statistics_to_metric(
            *({"mu": x.mean(0), "sigma": np.cov(x, rowvar=False)} for x in (real, fake)), verbose=False
        )
    assert fid(real, fake) == pytest.approx(expected["frechet_inception_distance"], rel=1e-3)


def test_fid_agrees_with_torchmetrics() -> None:
    peer = pytest.importorskip("torchmetrics.image.fid")
    real, fake = (torch.from_numpy(x) for x in clouds(200, 150, 16))
    expected = peer._compute_fid(real.mean(0), real.T.cov(), fake.mean(0), fake.T.cov())
    assert fid(real.numpy(), fake.numpy()) == pytest.approx(float(expected), rel=1e-3)


@pytest.mark.parametrize("d", [4, 64])
def test_kid_agrees_with_torchmetrics_and_torch_fidelity(d: int) -> None:
    metrics = pytest.importorskip("torchmetrics.image.kid")
    fidelity = pytest.importorskip("torch_fidelity.metric_kid")
    real, fake = clouds(80, 80, d)
    ours = kid(real, fake)
    assert ours == pytest.approx(float(metrics.poly_mmd(torch.from_numpy(real), torch.from_numpy(fake))), rel=1e-6)
    settings = {"kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1}
    kernels = [fidelity.kernel_poly(a, b, **settings) for a, b in ((real, real), (real, fake), (fake, fake))]
    assert ours == pytest.approx(float(fidelity.mmd2(*kernels)), rel=1e-6)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_prdc_agrees_with_its_authors(k: int) -> None:
    peer = pytest.importorskip("prdc")
    real, fake = clouds(120, 90, 12, seed=k)
    expected = peer.compute_prdc(real, fake, nearest_k=k)
    for name, value in prdc(real, fake, k)._asdict().items():
        assert value == pytest.approx(float(expected[name]), rel=1e-6), name


# --- degenerate input


@pytest.mark.parametrize("metric", [fid, kid, prdc])
def test_unfit_pairs_are_named(metric) -> None:
    good = np.random.default_rng(0).normal(size=(10, 4))
    spoilt = good.copy()
    spoilt[3, 1] = np.nan
    with pytest.raises(InputError, match="fake features are not finite in 1 of 10 rows"):
        metric(good, spoilt)
    with pytest.raises(InputError, match="real features hold 1 rows; at least 2"):
        metric(good[:1], good)
    with pytest.raises(InputError, match="4 and 3 columns"):
        metric(good, good[:, :3])
    with pytest.raises(InputError, match=r"shape \(n, d\), not \(10,\)"):
        metric(good[:, 0], good)


@pytest.mark.parametrize("k", [0, 10, 11])
def test_k_out_of_range_is_named(k: int) -> None:
    real, fake = clouds(10, 12, 4)
    with pytest.raises(InputError, match=rf"k \(={k}\) must be at least 1 and less than"):
        prdc(real, fake, k)


def test_other_unfit_arguments_are_named() -> None:
    real, fake = clouds(10, 12, 4)
    with pytest.raises(InputError, match="single patient"):
        nearest_distances(real, ["a"] * 10)
    with pytest.raises(InputError, match="one name a row"):
        nearest_distances(real, ["a"] * 9)
    with pytest.raises(InputError, match=r"percentile \(=101\)"):
        duplicate_threshold(real, percentile=101)
    with pytest.raises(InputError, match=r"threshold \(=0"):
        duplicate_rate(real, 0.0)
    with pytest.raises(InputError, match="at least 2"):
        pairwise_diversity(real[:1])
    with pytest.raises(InputError, match="class 1 holds 3 images, 4 are needed"):
        draw_mix([0, 0, 1, 1, 1], [1, 4], 0)
    with pytest.raises(InputError, match="class NORMAL has 4 real and 4 generated images; at least 6"):
        diversity_report(real, fake, np.arange(10) % 3, np.arange(12) % 3, CLASSES)
    with pytest.raises(InputError, match=r"fake_labels span 0\.\.3 but there are 3 classes"):
        diversity_report(real, fake, np.arange(10) % 3, np.arange(12) % 4, CLASSES)


# --- draws, reports, collapse


def test_draws_have_the_mix_and_depend_on_seed_and_name() -> None:
    labels = np.array([0] * 30 + [1] * 20)
    drawn = draw_mix(labels, [5, 7], 0, "a")
    assert np.bincount(labels[drawn]).tolist() == [5, 7]
    assert len(set(drawn.tolist())) == 12
    assert (drawn == draw_mix(labels, [5, 7], 0, "a")).all()
    assert (drawn != draw_mix(labels, [5, 7], 0, "b")).any()


def test_real_images_are_as_diverse_as_real_images() -> None:
    real, labels = labelled(200, 0)
    fake, fake_labels = labelled(64, 1)
    report = diversity_report(real, fake, labels, fake_labels, CLASSES)
    for row in report.values():
        assert row["n"] == 64
        assert row["diversity_ratio"] == pytest.approx(1, abs=0.15)
        assert row["coverage_ratio"] == pytest.approx(1, abs=0.25)
        assert row["duplicate_rate"] < 0.06
    assert report == diversity_report(real, fake, labels, fake_labels, CLASSES)


@pytest.mark.parametrize("images", [1, 5, 20])
@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_planted_collapse_is_seen(images: int, noise: float) -> None:
    real, labels = labelled(200, 0)
    base, base_labels = labelled(images, 1)
    index = np.concatenate([np.flatnonzero(base_labels == c)[np.arange(64) % images] for c in range(3)])
    fake = base[index] + noise * np.random.default_rng(0).normal(size=(192, real.shape[1]))
    report = collapse_report(real, fake, labels, base_labels[index], CLASSES)
    assert report.figures["collapsed"] == 1
    assert report.warning is not None
    assert all(f"{name} has collapsed: 64 images show about {images} different" in report.warning for name in CLASSES)


def test_one_collapsed_class_is_named_alone() -> None:
    real, labels = labelled(200, 0)
    fake, fake_labels = labelled(64, 1)
    fake[fake_labels == 2] = fake[fake_labels == 2][:1]
    warning = collapse_report(real, fake, labels, fake_labels, CLASSES).warning
    assert warning is not None
    assert warning.startswith("VIRUS")
    assert "NORMAL" not in warning


def test_a_narrow_class_is_seen_without_twins() -> None:
    real, labels = labelled(200, 0)
    fake, fake_labels = labelled(64, 1)
    for c in range(3):
        rows = fake_labels == c
        fake[rows] = fake[rows].mean(0) + 0.4 * (fake[rows] - fake[rows].mean(0))
    warning = collapse_report(real, fake, labels, fake_labels, CLASSES).warning
    assert warning is not None
    assert "as much as real ones do" in warning or "near-twin" in warning


@pytest.mark.parametrize("seed", range(1, 6))
def test_held_out_real_images_have_not_collapsed(seed: int) -> None:
    real, labels = labelled(300, 0)
    fake, fake_labels = labelled(64, seed)
    report = collapse_report(real, fake, labels, fake_labels, CLASSES)
    assert report.warning is None
    assert report.figures["collapsed"] == 0
    assert set(report.figures) >= {"NORMAL/coverage_ratio", "coverage_ratio_min", "duplicate_rate_max"}


def test_images_not_yet_good_are_not_called_collapsed() -> None:
    real, labels = labelled(200, 0)
    fake, fake_labels = labelled(64, 1)
    assert collapse_report(real, fake + 30, labels, fake_labels, CLASSES).warning is None


def test_a_look_during_training_is_quick() -> None:
    real, labels = labelled(333, 0, d=512)
    fake, fake_labels = labelled(64, 1, d=512)
    start = time.process_time()
    collapse_report(real, fake, labels, fake_labels, CLASSES)
    assert time.process_time() - start < 1
