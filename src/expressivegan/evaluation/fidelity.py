"""Fidelity and diversity of generated images, as pure functions of features (n, d), whoever made the features.

No figure stands alone. KID is blind to repetition, FID mixes fidelity with diversity, pairwise distance takes five
repeated images for a full set; so they are reported together, each beside what real images of other patients get at
equal n.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import linalg
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist, pdist

from expressivegan.errors import InputError
from expressivegan.streams import derive_seed

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

# A class is called collapsed beyond these. Real images of other patients stay far inside (at most 0.03 near-twins, at
# least 0.9 of the diversity); so do images blurred by 1 px of 64 (at most 0.19, at least 0.68), which are bad, not few.
_LEAST_DIVERSITY = 0.5  # mean pairwise distance over that of real images
_MOST_DUPLICATES = 0.4  # share of images with a near-twin; 64 draws out of 100 images give 0.47


def fid(real: npt.ArrayLike, fake: npt.ArrayLike) -> float:
    """Fréchet distance of two Gaussians fitted to features (Heusel et al. 2017, equation 6).

    |μr - μf|² + tr(Σr) + tr(Σf) - 2 tr((Σr Σf)^½). With centred features A and B, Σr Σf = AᵀA BᵀB has the non-zero
    eigenvalues of (ABᵀ)(ABᵀ)ᵀ, so the last trace is the sum of the singular values of ABᵀ. That holds for singular
    covariances too (n ≤ d), where the usual matrix square root breaks down.

    Args:
        real: (n, d) finite, n ≥ 2.
        fake: (m, d). The estimate is biased upwards for small n and m: compare at equal sizes only.

    Returns:
        A distance ≥ 0.

    Raises:
        InputError: too few rows, NaN, or different d.
    """
    real, fake = _pair(real, fake)
    a, b = _root(real), _root(fake)
    gap = real.mean(0) - fake.mean(0)
    cross = linalg.svdvals(a @ b.T).sum()
    return max(0.0, float(gap @ gap + np.square(a).sum() + np.square(b).sum() - 2 * cross))


def kid(real: npt.ArrayLike, fake: npt.ArrayLike) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x·y/d + 1)³ (Bińkowski et al. 2018, section 4).

    Over the full sets at once, without random subsets, hence exact and without a seed. May be slightly negative. It
    hardly sees repetition: 20 images per class, repeated, score like real ones.

    Args:
        real: (n, d) finite, n ≥ 2.
        fake: (m, d), m ≥ 2.

    Raises:
        InputError: too few rows, NaN, or different d.
    """
    real, fake = _pair(real, fake)

    def kernel(x: Array, y: Array) -> Array:
        values: Array = (x @ y.T / x.shape[1] + 1) ** 3
        return values

    def within(x: Array) -> float:
        values = kernel(x, x)
        return float((values.sum() - np.trace(values)) / (len(x) * (len(x) - 1)))

    return within(real) + within(fake) - 2 * float(kernel(real, fake).mean())


class PRDC(NamedTuple):
    """Figures of `prdc`. Precision, recall and coverage lie in [0, 1]; density is ≥ 0 and about 1 for real images."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: npt.ArrayLike, fake: npt.ArrayLike, k: int = 5) -> PRDC:
    """Precision and recall (Kynkäänniemi et al. 2019, equation 2), density and coverage (Naeem et al. 2020, section 3).

    A ball around each image reaches to its k-th nearest neighbour in its own set. Precision: share of fakes inside some
    real ball. Recall: share of reals inside some fake ball. Density: real balls per fake, over k. Coverage: share of
    real balls that hold a fake.

    Args:
        real: (n, d) finite, n > k.
        fake: (m, d) finite, m > k.
        k: which neighbour, ≥ 1.

    Raises:
        InputError: k out of range, too few rows, NaN, or different d.
    """
    real, fake = _pair(real, fake)
    if k < 1 or k >= min(len(real), len(fake)):
        raise InputError(f"k (={k}) must be at least 1 and less than the number of rows ({len(real)} and {len(fake)})")
    real_radius, fake_radius = _radius(real, k), _radius(fake, k)
    distance = cdist(real, fake)
    inside = distance < real_radius[:, None]
    return PRDC(
        precision=float(inside.any(0).mean()),
        recall=float((distance < fake_radius[None]).any(1).mean()),
        density=float(inside.sum(0).mean() / k),
        coverage=float((distance.min(1) < real_radius).mean()),
    )


def pairwise_diversity(features: npt.ArrayLike) -> float:
    """Mean Euclidean distance over all pairs of rows.

    Proves little alone: five images repeated still give 0.8 of a full set's value.

    Args:
        features: (n, d) finite, n ≥ 2.

    Raises:
        InputError: too few rows or NaN.
    """
    return float(pdist(_check(features)).mean())


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
    rows = _check(features)
    own = _patients(patients, len(rows))
    distance = cdist(rows, rows)
    distance[own[:, None] == own[None]] = np.inf  # the diagonal as well
    nearest: Array = distance.min(1)
    if np.isinf(nearest).any():
        raise InputError("patients name a single patient: the nearest other patient does not exist")
    return nearest


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
    rows = _check(features)
    _check_threshold(threshold)
    near = coo_array(cdist(rows, rows) < threshold)
    return int(connected_components(near, directed=False, return_labels=False))


def draw_mix(labels: npt.ArrayLike, counts: Sequence[int], seed: int, *names: int | str) -> Index:
    """A random subset with given counts per class, so that two sets are compared at equal n and class mix.

    Args:
        labels: (n,) class indices.
        counts: images wanted of class 0, 1, …
        seed: root seed; `names` tell draws of one seed apart.

    Returns:
        int64 indices, class by class, without repetition.

    Raises:
        InputError: a class holds fewer images than wanted.
    """
    given = np.asarray(labels)
    draw = np.random.default_rng(derive_seed(seed, "evaluation.draw", *names))
    parts = []
    for label, count in enumerate(counts):
        pool = np.flatnonzero(given == label)
        if len(pool) < count:
            raise InputError(f"class {label} holds {len(pool)} images, {count} are needed")
        parts.append(draw.permutation(pool)[:count])
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)


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
    real, fake = _pair(real_features, fake_features)
    real_label = _labels(real_labels, len(real), classes, "real_labels")
    fake_label = _labels(fake_labels, len(fake), classes, "fake_labels")
    own = _patients(patients, len(real))
    if repeats < 1:
        raise InputError(f"repeats (={repeats}) must be at least 1")
    report = {}
    for label, name in enumerate(classes):
        ours, theirs = real_label == label, fake_label == label
        if ours.sum() < 6 or len(np.unique(own[ours])) < 2 or theirs.sum() < 3:
            raise InputError(
                f"class {name} has {ours.sum()} real and {theirs.sum()} generated images; "
                "at least 6 real ones of 2 patients and 3 generated ones are needed"
            )
        report[name] = _class_diversity(real[ours], fake[theirs], own[ours], name, k, n, repeats, seed)
    return report


class CollapseReport(NamedTuple):
    """What `collapse_report` found. `warning` is None where nothing is wrong, else one sentence a class."""

    figures: dict[str, float]
    warning: str | None


def collapse_report(
    real: npt.ArrayLike,
    fake: npt.ArrayLike,
    real_labels: npt.ArrayLike,
    fake_labels: npt.ArrayLike,
    classes: Sequence[str],
    *,
    patients: npt.ArrayLike | None = None,
    k: int = 5,
    seed: int = 0,
) -> CollapseReport:
    """A look at a generator in training: does it repeat itself? Takes well under a second for 64 images per class.

    A class is called collapsed where too many images have a near-twin or where they lie too close together. Coverage is
    in the figures but not in the verdict: blur of 1 px lowers it as far as five repeated images do (0.04 to 0.8 of real
    against 0.14 to 0.42), at the same precision in a classifier's features. Very blurred images (2.5 px of 64) may be
    called collapsed, as their near-twins are many.

    Args and errors as of `diversity_report`.

    Returns:
        figures: "<class>/<figure>" with the figures of `diversity_report`, and the worst over classes as
            diversity_ratio_min, duplicate_rate_max, coverage_ratio_min; collapsed is 1.0 or 0.0.
        warning: None, or what is wrong, for a log.
    """
    report = diversity_report(
        real, fake, real_labels, fake_labels, classes, patients=patients, k=k, repeats=2, seed=seed
    )
    figures = {f"{name}/{figure}": value for name, row in report.items() for figure, value in row.items()}
    for figure, worst in _WORST.items():
        figures[f"{figure}_{worst.__name__}"] = worst(row[figure] for row in report.values())
    sentences = [s for name, row in report.items() if (s := _collapsed(name, row)) is not None]
    figures["collapsed"] = float(bool(sentences))
    return CollapseReport(figures, "; ".join(sentences) or None)


_WORST: dict[str, Callable[..., float]] = {"diversity_ratio": min, "duplicate_rate": max, "coverage_ratio": min}


def _collapsed(name: str, row: dict[str, float]) -> str | None:
    if row["duplicate_rate"] > max(_MOST_DUPLICATES, 4 * row["duplicate_rate_real"]):
        return (
            f"{name} has collapsed: {row['n']:.0f} images show about {row['distinct']:.0f} different ones "
            f"({row['duplicate_rate']:.0%} have a near-twin, {row['duplicate_rate_real']:.0%} among real images)"
        )
    if row["diversity_ratio"] < _LEAST_DIVERSITY:
        return f"{name} has collapsed: its images differ {row['diversity_ratio']:.0%} as much as real ones do"
    return None


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
        held = draw.permutation(second)[:size]
        picked = fake[draw.permutation(len(fake))[:size]]
        theirs, ours = prdc(real[first], picked, neighbour), prdc(real[first], real[held], neighbour)
        twins = len(np.unique(own[held])) > 1  # else no other patient is there to be near
        rows.append(
            {
                "n": float(size),
                "diversity": pairwise_diversity(picked),
                "diversity_real": pairwise_diversity(real[held]),
                "duplicate_rate": duplicate_rate(picked, threshold),
                "duplicate_rate_real": duplicate_rate(real[held], threshold, own[held]) if twins else 0.0,
                "duplicate_threshold": threshold,
                "distinct": float(distinct_images(picked, threshold)),
                "distinct_real": float(distinct_images(real[held], threshold)),
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


def _radius(rows: Array, k: int) -> Array:
    """Distance of each row to its k-th nearest other row."""
    radius: Array = np.partition(cdist(rows, rows), k, axis=1)[:, k]  # the 0-th is the row itself
    return radius


def _root(rows: Array) -> Array:
    """R with RᵀR the unbiased covariance of the rows, at most d rows high."""
    centred = (rows - rows.mean(0)) / np.sqrt(len(rows) - 1)
    if len(centred) <= centred.shape[1]:
        return np.asarray(centred)
    root: Array = linalg.qr(centred, mode="r")[0][: centred.shape[1]]
    return root


def _check(features: npt.ArrayLike, name: str = "features") -> Array:
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise InputError(f"{name} must have shape (n, d), not {rows.shape}")
    if len(rows) < 2:
        raise InputError(f"{name} hold {len(rows)} rows; at least 2 are needed")
    if not np.isfinite(rows).all():
        bad = int((~np.isfinite(rows)).any(1).sum())
        raise InputError(f"{name} are not finite in {bad} of {len(rows)} rows")
    return rows


def _pair(real: npt.ArrayLike, fake: npt.ArrayLike) -> tuple[Array, Array]:
    a, b = _check(real, "real features"), _check(fake, "fake features")
    if a.shape[1] != b.shape[1]:
        raise InputError(
            f"real and fake features have {a.shape[1]} and {b.shape[1]} columns; they must come from one space"
        )
    return a, b


def _check_threshold(threshold: float) -> None:
    if not threshold > 0:
        raise InputError(f"threshold (={threshold}) must be positive")


def _patients(patients: npt.ArrayLike | None, count: int) -> Index:
    """Names → numbers, which compare faster."""
    if patients is None:
        return np.arange(count)
    names = np.asarray(patients)
    if names.shape != (count,):
        raise InputError(f"patients must be one name a row ({count}), not of shape {names.shape}")
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _labels(labels: npt.ArrayLike, count: int, classes: Sequence[str], name: str) -> Index:
    given = np.asarray(labels)
    if given.shape != (count,) or not np.issubdtype(given.dtype, np.integer):
        raise InputError(f"{name} must be {count} integers, not {given.dtype} of shape {given.shape}")
    if given.min() < 0 or given.max() >= len(classes):
        raise InputError(f"{name} span {given.min()}..{given.max()} but there are {len(classes)} classes")
    return given.astype(np.int64)
