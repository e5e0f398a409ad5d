"""Frechet distance of features, and how far another sample of patients and images would have moved it."""

import contextlib

import numpy as np
import numpy.typing as npt
from scipy import linalg, stats

from expressivegan.evaluation.distances import Array, Index, check_pair, check_patients
from expressivegan.intervals import Interval

_WELL = 1e-4  # ratio of the smallest to the largest pivot above which a covariance is far from singular
_LEAST = 1e-10  # a singular value below this share of the largest is none
_EXACT = (
    1e-7  # of the traces: a bound of the rounding error, 1e4 times what was seen, above which the slower way is taken
)


def fid(real: npt.ArrayLike, fake: npt.ArrayLike) -> float:
    """Fréchet distance of two Gaussians fitted to features (Heusel et al. 2017, equation 6).

    |μr - μf|² + tr(Σr) + tr(Σf) - 2 tr((Σr Σf)^½). The last trace is the sum of the roots of the eigenvalues of Σr Σf,
    which are those of a symmetric matrix where Σr has a Cholesky factor: a sixth of the time of the general problem. A
    root makes much of an eigenvalue's rounding where it is near 0, so near singular covariances go another way: with
    centred features A and B, Σr Σf = AᵀA BᵀB has the non-zero eigenvalues of (ABᵀ)(ABᵀ)ᵀ, and the trace is the sum of
    the singular values of ABᵀ, also for n ≤ d, where the usual matrix square root breaks down.

    Args:
        real: (n, d) finite, n ≥ 2.
        fake: (m, d). The estimate is biased upwards for small n and m: compare at equal sizes only.

    Returns:
        A distance ≥ 0.

    Raises:
        InputError: too few rows, NaN, or different d.
    """
    real, fake = check_pair(real, fake)
    gap = real.mean(0) - fake.mean(0)
    rest = _by_eigenvalues(real, fake) if min(len(real), len(fake)) > real.shape[1] else None
    if rest is None:
        a, b = _root(real), _root(fake)
        rest = float(np.vdot(a, a) + np.vdot(b, b) - 2 * linalg.svdvals(a @ b.T).sum())
    return max(0.0, float(gap @ gap) + rest)


def fid_interval(real: npt.ArrayLike, fake: npt.ArrayLike, patients: npt.ArrayLike | None = None) -> Interval:
    """`fid` with a 95% interval, by the delta method over reference patients and generated images.

    The derivative of the distance by a covariance is I - T with T the optimal transport between the two Gaussians
    (Takatsu 2011, *Wasserstein geometry of Gaussian measures*), so each image's influence is
    2 (μr - μf)·(x - μr) + (x - μr)ᵀ (I - T) (x - μr), less its mean; those of one patient are added up. Drawing with
    replacement would not do: repeated images lower the rank, and every draw would lie above the figure.

    The interval is about FID *at this n*. The bias of FID, which small sets raise, stands in the value and in both
    ends; it is not what the interval covers. In simulations it is 1 to 1.9
    times as wide as it need be, for n ≤ d too.

    Args:
        real: (n, d) finite, n ≥ 2.
        fake: (m, d).
        patients: (n,) names; None takes every real image for a patient of its own.

    Raises:
        InputError: too few rows, NaN, different d, or another number of patients than rows.
    """
    real, fake = check_pair(real, fake)
    own = check_patients(patients, len(real))
    a, b = _root(real), _root(fake)
    gap = real.mean(0) - fake.mean(0)
    left, values, right = linalg.svd(a @ b.T, full_matrices=False)
    value = max(0.0, float(gap @ gap + np.square(a).sum() + np.square(b).sum() - 2 * values.sum()))
    kept = values > _LEAST * max(float(values[0]), np.finfo(np.float64).tiny)
    polar = left[:, kept] @ right[kept]
    # tr((Σr Σf)^½) = tr(P bᵀa) with P the polar factor of abᵀ. Its derivative by Σr is
    # bᵀPᵀ a⁺ᵀ / 2, and likewise by Σf.
    error = 0.0
    for rows, root, other, sign, names in (
        (real, a, polar @ b, 1, own),
        (fake, b, polar.T @ a, -1, np.arange(len(fake), dtype=np.int64)),
    ):
        centred = rows - rows.mean(0)
        coordinates = centred @ linalg.pinv(root)  # (n, r): whitened
        influence = sign * 2 * centred @ gap + np.square(centred).sum(1)
        influence -= np.einsum("ij,ij->i", coordinates, centred @ other.T)
        error += _variance_of_mean(influence, names)
    half = float(stats.norm.ppf(0.975) * np.sqrt(error))
    return Interval(value, max(0.0, value - half), value + half)


def _variance_of_mean(values: Array, names: Index) -> float:
    sums = np.bincount(names, values - values.mean())
    return float(np.square(sums).sum() / len(values) ** 2 * len(sums) / max(1, len(sums) - 1))


def _centred(rows: Array) -> Array:
    """A with AᵀA the unbiased covariance of the rows."""
    centred: Array = rows - rows.mean(0)
    centred /= np.sqrt(len(rows) - 1)
    return centred


def _covariance(rows: Array) -> Array:
    centred = _centred(rows)
    return centred.T @ centred


def _by_eigenvalues(real: Array, fake: Array) -> float | None:
    """tr(Σr) + tr(Σf) - 2 tr((Σr Σf)^½), or None where rounding may cost more than a share `_EXACT` of the traces."""
    first, second = _covariance(real), _covariance(fake)
    traces = float(first.trace() + second.trace())
    # Of an eigenvalue; that of its root is less than this over the root.
    error = float(4 * np.finfo(np.float64).eps * linalg.norm(first) * linalg.norm(second))
    try:
        values = linalg.eigh(first, second, type=2, eigvals_only=True)
    except linalg.LinAlgError:  # singular
        return None
    if values[0] <= error or (error / np.sqrt(values)).sum() > _EXACT * traces:
        return None
    return traces - 2 * float(np.sqrt(values).sum())


def _root(rows: Array) -> Array:
    """R with RᵀR the unbiased covariance of the rows, at most d rows high."""
    centred = _centred(rows)
    if len(centred) <= centred.shape[1]:
        return centred
    # The Cholesky factor costs a quarter of a QR decomposition, where it loses no digits that matter.
    with contextlib.suppress(linalg.LinAlgError):
        factor: Array = linalg.cholesky(centred.T @ centred)
        if factor.diagonal().min() > _WELL * factor.diagonal().max():
            return factor
    root: Array = linalg.qr(centred, mode="r")[0][: centred.shape[1]]
    return root
