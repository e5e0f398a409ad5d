"""How varied generated images are: pairwise distances, near-twins, and both beside real images at equal n."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from expressivegan.errors import InputError
from expressivegan.evaluation.distances import Array, Index, check_labels, check_pair, check_patients
from expressivegan.evaluation.manifolds import compare
from expressivegan.evaluation.neighbours import Neighbours
from expressivegan.streams import derive_seed


def pairwise_diversity(features: npt.ArrayLike) -> float:
    """Mean Euclidean distance over all pairs of rows.

    Proves little alone: five images repeated still give 0.8 of a full set's value.

    Args:
        features: (n, d) finite, n ≥ 2.

    Raises:
        InputError: too few rows or NaN.
    """
    return Neighbours(features, depth=1).mean_distance


def nearest_distances(features: npt.ArrayLike, patients: npt.ArrayLike | None = None) -> Array:
    """Distance of each row to its nearest other row, or to the nearest row of another patient.

    Args:
        features: (n, d) finite, n ≥ 2.
        patients: (n,) names; None takes every row for a patient of its own.

    Returns:
        (n,) distances.

    Raises:
        InputError: too few rows, NaN, another number of patients than rows, or a single patient.
    """
    return Neighbours(features, patients, depth=1, precise=False).nearest


def duplicate_threshold(
    real_features: npt.ArrayLike, patients: npt.ArrayLike | None = None, percentile: float = 1.0
) -> float:
    """How near two images must be to count as twins: closer than all but 1% of real images are to another child.

    Defined as the given percentile (interpolated) of `nearest_distances` of real images. Distances shrink as a set
    grows, so calibrate on at least as many images as are judged; on more, the verdict is milder.

    Args:
        real_features: (n, d) real images, of one class where classes are judged one by one.
        patients: (n,) names, so that two images of one child do not make the threshold small.
        percentile: 0..100.

    Raises:
        InputError: as `nearest_distances`, or percentile out of range.
    """
    if not 0 <= percentile <= 100:
        raise InputError(f"percentile (={percentile}) must lie in 0..100")
    return float(np.percentile(nearest_distances(real_features, patients), percentile))


def duplicate_rate(features: npt.ArrayLike, threshold: float, patients: npt.ArrayLike | None = None) -> float:
    """Share of rows whose nearest other row is nearer than `threshold`.

    The same function gives real images' own rate: hand over their `patients`, and nearest means nearest other patient.

    Args:
        features: (n, d) finite, n ≥ 2.
        threshold: of `duplicate_threshold`, > 0.
        patients: (n,) names for real images; None for generated ones, where every image is its own.

    Raises:
        InputError: as `nearest_distances`, or a threshold that is not positive.
    """
    _check_threshold(threshold)
    return float((nearest_distances(features, patients) < threshold).mean())


def distinct_images(features: npt.ArrayLike, threshold: float) -> int:
    """How many different images a set holds: components of the graph that joins rows nearer than `threshold`.

    Args and errors as of `duplicate_rate`.
    """
    _check_threshold(threshold)
    return Neighbours(features, depth=1, precise=False).distinct(threshold)


LEAST_REAL, LEAST_PATIENTS, LEAST_MADE = 6, 2, 3
"""Real images, their patients, and generated images of a class, below which its diversity is not told."""


def told_classes(real_labels: Index, fake_labels: Index, patients: npt.ArrayLike, classes: int) -> Index:
    """Labels of the classes that `diversity_report` does not refuse, in their order."""
    own = check_patients(patients, len(real_labels))
    return np.array([k for k in range(classes) if _enough(own[real_labels == k], fake_labels == k)], np.int64)


def _enough(own: Index, made: npt.NDArray[np.bool_]) -> bool:
    """Of one class: numbers of the patients of its real images, and which generated images are of it."""
    return len(own) >= LEAST_REAL and len(np.unique(own)) >= LEAST_PATIENTS and int(made.sum()) >= LEAST_MADE


def diversity_report(
    real_features: npt.ArrayLike,
    fake_features: npt.ArrayLike,
    real_labels: npt.ArrayLike,
    fake_labels: npt.ArrayLike,
    classes: Sequence[str],
    *,
    patients: npt.ArrayLike | None = None,
    k: int = 5,
    n: int | None = None,
    repeats: int = 5,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Diversity of each class beside that of real images, at equal n, averaged over seeded subsamples.

    In each repeat the real patients of a class are split into two halves: fakes and one half, n images each, are both
    scored against the other half. The threshold for twins is calibrated on all real images of the class.

    Args:
        real_features: (n, d) real images that the generator has not seen.
        fake_features: (m, d) generated images.
        real_labels: (n,) indices into `classes`.
        fake_labels: (m,) indices into `classes`.
        classes: names.
        patients: (n,) names; None takes every real image for a patient of its own.
        k: neighbour of precision and coverage, made smaller where a class has no more than k images.
        n: images per class and repeat; the default is as many as both sides have.
        repeats: subsamples.
        seed: of splits and subsamples.

    Returns:
        For each class a dict of floats: n; diversity, diversity_real, diversity_ratio; duplicate_rate,
        duplicate_rate_real, duplicate_threshold; distinct, distinct_real (images of the n that differ); precision,
        precision_real, precision_ratio; coverage, coverage_real, coverage_ratio.

    Raises:
        InputError: NaN, different d, labels that do not fit, or a class with fewer than 6 real images of 2 patients or
            fewer than 3 generated ones.
    """
    real, fake = check_pair(real_features, fake_features)
    real_label = check_labels(real_labels, len(real), len(classes), "real_labels")
    fake_label = check_labels(fake_labels, len(fake), len(classes), "fake_labels")
    own = check_patients(patients, len(real))
    if repeats < 1:
        raise InputError(f"repeats (={repeats}) must be at least 1")
    report = {}
    for label, name in enumerate(classes):
        ours, theirs = real_label == label, fake_label == label
        if not _enough(own[ours], theirs):
            raise InputError(
                f"class {name} has {ours.sum()} real and {theirs.sum()} generated images; at least {LEAST_REAL} real "
                f"ones of {LEAST_PATIENTS} patients and {LEAST_MADE} generated ones are needed"
            )
        report[name] = _class_diversity(real[ours], fake[theirs], own[ours], name, k, n, repeats, seed)
    return report


def _class_diversity(
    real: Array, fake: Array, own: Index, name: str, k: int, n: int | None, repeats: int, seed: int
) -> dict[str, float]:
    threshold = duplicate_threshold(real, own)
    threshold = max(
        threshold, float(np.finfo(np.float64).tiny)
    )  # real sets with 1% of exact copies: still strictly less
    rows: list[dict[str, float]] = []
    for repeat in range(repeats):
        draw = np.random.default_rng(derive_seed(seed, "evaluation.diversity", name, repeat))
        first, second = _halves(own, draw)
        size = min(len(second), len(fake), n or len(fake))
        neighbour = min(k, size - 1, len(first) - 1)
        if neighbour < 1:
            raise InputError(
                f"class {name}: n (={size}) must be at least 2, and so must the images of half its patients"
            )
        base = Neighbours(real[first], depth=neighbour, precise=False)
        held = draw.permutation(second)[:size]
        picked = Neighbours(fake[draw.permutation(len(fake))[:size]], depth=neighbour)
        other = Neighbours(real[held], own[held], depth=neighbour)
        theirs, ours = compare(base, picked, neighbour), compare(base, other, neighbour)
        twins = len(np.unique(own[held])) > 1  # else no other patient is there to be near
        rows.append(
            {
                "n": float(size),
                "diversity": picked.mean_distance,
                "diversity_real": other.mean_distance,
                "duplicate_rate": float((picked.nearest < threshold).mean()),
                "duplicate_rate_real": float((other.nearest < threshold).mean()) if twins else 0.0,
                "duplicate_threshold": threshold,
                "distinct": float(picked.distinct(threshold)),
                "distinct_real": float(other.distinct(threshold)),
                "precision": theirs.precision,
                "precision_real": ours.precision,
                "coverage": theirs.coverage,
                "coverage_real": ours.coverage,
            }
        )
    mean = {figure: float(np.mean([row[figure] for row in rows])) for figure in rows[0]}
    for figure in ("diversity", "precision", "coverage"):
        mean[f"{figure}_ratio"] = mean[figure] / mean[f"{figure}_real"] if mean[f"{figure}_real"] > 0 else 0.0
    return mean


def _halves(own: Index, draw: np.random.Generator) -> tuple[Index, Index]:
    """Two sets of rows, about equal, without a common patient."""
    names, counts = np.unique(own, return_counts=True)
    order = draw.permutation(len(names))
    before = np.cumsum(counts[order]) - counts[order]
    chosen = np.isin(own, names[order[before < len(own) / 2]])
    if chosen.all():  # one patient holds half of all images and came last
        chosen = own != names[order[-1]]
    return np.flatnonzero(chosen).astype(np.int64), np.flatnonzero(~chosen).astype(np.int64)


def _check_threshold(threshold: float) -> None:
    if not threshold > 0:
        raise InputError(f"threshold (={threshold}) must be positive")
