"""Diversity, twins and collapse: values by hand, planted collapse, and real images that have not collapsed."""

import time

import numpy as np
import pytest

from expressivegan.errors import InputError
from expressivegan.evaluation import (
    collapse_report,
    distinct_images,
    diversity_report,
    draw_mix,
    duplicate_rate,
    duplicate_threshold,
    nearest_distances,
    pairwise_diversity,
)

CLASSES = ("NORMAL", "BACTERIA", "VIRUS")


def clouds(n: int, m: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    return draw.normal(size=(n, d)), draw.normal(size=(m, d))


def labelled(per_class: int, seed: int, d: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Three overlapping classes of low intrinsic dimension, as features of images are."""
    draw = np.random.default_rng(seed)
    basis = np.random.default_rng(99).normal(size=(6, d))
    labels = np.repeat(np.arange(3), per_class)
    latent = draw.normal(size=(len(labels), 6)) + labels[:, None]
    return latent @ basis + 0.05 * draw.normal(size=(len(labels), d)), labels


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
