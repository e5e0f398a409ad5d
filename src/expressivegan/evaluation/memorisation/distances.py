"""How alike two X-rays are whatever was done to one of them, and the nearest neighbours among thousands.

All chests are alike as a whole, so pictures are compared in what is finer than the chest. Two shortlists replace a
comparison of all with all: spectra that neither a shift nor a mirror changes, at five scales, and a small picture, laid
straight over the other, in which a blend of two pictures still resembles both. Each shortlisted pair is then laid over
each other by cross-correlation, mirrored or not, and compared.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.fft import irfft2, rfft2
from scipy.ndimage import uniform_filter1d

UInt8Array = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Complex = npt.NDArray[np.complex64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SIDE = 64
SCALES = (1.0, 0.905, 0.95, 1.05, 1.105)  # of the query; the first is tried for straight neighbours too
MAX_SHIFT = 10  # pixels of 64: an eighth, and what a change of scale about another centre adds
_RIM = 4  # pixels left out at the border, where letters and edges are
_BOX = 7  # of the box filter; twice a direction is near a Gaussian of 2.8 pixels
_FREQUENCIES = 14
_LENGTH = 64  # of a spectral descriptor
_SMALL = 21  # side of the small picture
_BLOCK = 256
_CENTRE = slice(MAX_SHIFT, SIDE - MAX_SHIFT)  # is inside both pictures under every allowed shift
_PARENTS = 6  # candidates of which each two are tried as parents of a blend
_WINDOW = np.outer(np.hanning(SIDE), np.hanning(SIDE)).astype(np.float32)


@dataclass(frozen=True)
class Pool:
    """Pictures to search in."""

    detail: Floats
    """(M, 64, 64), of `fine`."""
    spectrum: Complex
    """(M, 64, 33), of windowed detail."""
    vectors: Floats
    """(M, d) unit spectral descriptors."""
    small: Floats
    """(M, 441) unit vectors."""
    mean: Floats
    basis: Floats
    """Mean (378,) and whitening (378, d) of spectra, fitted on the pool as a whole, blind to which half is which."""

    def __len__(self) -> int:
        return len(self.detail)


@dataclass(frozen=True)
class Neighbours:
    """For each of N queries its K likeliest neighbours in a pool, the likeliest first."""

    index: Ints
    """(N, K); -1 where there are fewer than K."""
    likeness: Floats
    """(N, K) correlation of detail after laying one over the other, -1..1; -1 where there is none."""
    mirrored: Bools
    """(N, K)."""
    parents: Ints
    """(N, 2) the two pictures that together explain the query best, or -1."""
    blend: Floats
    """(N,) multiple correlation of the query's detail with both parents', 0..1; 0 where a weight is negative."""


def prepare(images: UInt8Array) -> UInt8Array:
    """uint8 (N, H, W) → (N, 64, 64)."""
    if images.shape[1:] == (SIDE, SIDE):
        return images
    return np.stack([np.asarray(Image.fromarray(i).resize((SIDE, SIDE), Image.Resampling.LANCZOS)) for i in images])


def fine(images: npt.NDArray[np.floating] | UInt8Array) -> Floats:
    """float32 (B, 64, 64): what is finer than the chest as a whole, evenly strong everywhere."""
    x = np.asarray(images, np.float32)
    detail = x - _blur(x)
    found: Floats = detail / (np.sqrt(np.maximum(_blur(detail * detail), 0)) + 4)
    return found


def make_pool(images: UInt8Array) -> Pool:
    """Indexes uint8 (M, 64, 64); 33 KB an image."""
    count = len(images)
    detail = np.empty((count, SIDE, SIDE), np.float32)
    spectrum = np.empty((count, SIDE, SIDE // 2 + 1), np.complex64)
    raw = np.empty((count, 2 * (_FREQUENCIES - 1) * _FREQUENCIES + _FREQUENCIES), np.float32)
    small = np.empty((count, _SMALL * _SMALL), np.float32)
    for start in range(0, count, _BLOCK):
        part = slice(start, min(count, start + _BLOCK))
        detail[part] = fine(images[part])
        spectrum[part] = rfft2(detail[part] * _WINDOW)
        raw[part] = _raw(spectrum[part])
        small[part] = _straight(detail[part])
    mean = raw.mean(0)
    centred = raw - mean
    values, axes = np.linalg.eigh(centred.T @ centred / max(1, count - 1))
    kept = min(_LENGTH, max(1, count - 1))
    basis = (axes[:, -kept:] / np.sqrt(np.maximum(values[-kept:], 1e-6))).astype(np.float32)
    return Pool(detail, spectrum, _unit(centred @ basis), small, mean, basis)


def search(
    queries: UInt8Array,
    pool: Pool,
    keep: int = 6,
    shortlist: tuple[int, int] = (6, 6),
    blends: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Neighbours:
    """The likeliest neighbours of each query.

    Args:
        queries: uint8 (N, 64, 64).
        pool: of `make_pool`.
        keep: neighbours returned for each query.
        shortlist: candidates proposed by spectra and by small pictures.
        blends: look for two parents as well.
        progress: told the queries done.
    """
    starts = range(0, len(queries), _BLOCK)

    def one(start: int) -> Neighbours:
        return _search_block(queries[start : start + _BLOCK], pool, keep, shortlist, blends)

    found = []
    with ThreadPoolExecutor(workers()) as threads:
        for start, block in zip(starts, threads.map(one, starts), strict=True):
            found.append(block)
            if progress is not None:
                progress(min(len(queries), start + _BLOCK))
    return Neighbours(
        np.concatenate([f.index for f in found]),
        np.concatenate([f.likeness for f in found]),
        np.concatenate([f.mirrored for f in found]),
        np.concatenate([f.parents for f in found]),
        np.concatenate([f.blend for f in found]),
    )


def likeness(first: UInt8Array, second: UInt8Array) -> Floats:
    """(P,) likeness of pair after pair of uint8 (P, 64, 64), at the best of the five scales."""
    found = np.empty(len(first), np.float32)
    for start in range(0, len(first), _BLOCK):
        part = slice(start, min(len(first), start + _BLOCK))
        other = fine(second[part])
        size = len(other)
        view = _Views(first[part])
        every = np.tile(np.arange(size), len(SCALES))
        scale = np.repeat(np.arange(len(SCALES)), size)
        values = _overlay(view, every, scale, other[every], rfft2(other * _WINDOW)[every])[0]
        found[part] = values.reshape(len(SCALES), size).max(0)
    return found


def workers() -> int:
    """Threads that are worth starting: NumPy holds the interpreter for a good part of the time."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, allowed)


class _Views:
    """A block of queries at five scales, and their spectra straight and mirrored."""

    def __init__(self, images: UInt8Array) -> None:
        x = images.astype(np.float32)
        self.detail = np.stack([fine(x if s == 1 else _zoom(s) @ x @ _zoom(s).T) for s in SCALES])
        self.spectrum = rfft2(self.detail * _WINDOW)  # (S, B, 64, 33)
        self.mirrored = rfft2(self.detail[..., ::-1] * _WINDOW)


def _search_block(queries: UInt8Array, pool: Pool, keep: int, shortlist: tuple[int, int], blends: bool) -> Neighbours:
    view = _Views(queries)
    size = view.detail.shape[1]
    cosine = np.full((size, len(pool)), -2, np.float32)
    scale = np.zeros((size, len(pool)), np.uint8)
    for s in range(len(SCALES)):
        described = np.asarray((_raw(view.spectrum[s]) - pool.mean) @ pool.basis, np.float32)
        here = _unit(described) @ pool.vectors.T
        np.putmask(scale, here > cosine, s)
        np.maximum(cosine, here, out=cosine)
    straight = _straight(view.detail[0]) @ pool.small.T
    np.maximum(straight, _straight(view.detail[0][..., ::-1]) @ pool.small.T, out=straight)
    by_spectrum, by_picture = _top(cosine, shortlist[0]), _top(straight, shortlist[1])
    row = np.repeat(np.arange(size), by_spectrum.shape[1])
    first = np.stack([row, by_spectrum.ravel(), scale[row, by_spectrum.ravel()]])
    row = np.repeat(np.arange(size), by_picture.shape[1])
    second = np.stack([row, by_picture.ravel(), np.zeros_like(row)])
    job = np.unique(np.ravel_multi_index(np.concatenate([first, second], axis=1), (size, len(pool), len(SCALES))))
    query, other, at = np.unravel_index(job, (size, len(pool), len(SCALES)))
    values, turned, moved = _overlay(view, query, at, pool.detail[other], pool.spectrum[other])
    pairs = _Pairs(query, other, at, values, turned, moved).ranked()

    index, close = np.full((size, keep), -1, np.int64), np.full((size, keep), -1, np.float32)
    mirrored = np.zeros((size, keep), bool)
    kept = pairs.take(pairs.rank < keep)
    index[kept.query, kept.rank] = kept.other
    close[kept.query, kept.rank] = kept.likeness
    mirrored[kept.query, kept.rank] = kept.turned
    parents, blend = np.full((size, 2), -1, np.int64), np.zeros(size, np.float32)
    if blends:
        parents, blend = _parents(view, pool, size, pairs.take(pairs.rank < _PARENTS))
    return Neighbours(index, close, mirrored, parents, blend)


@dataclass(frozen=True)
class _Pairs:
    """Columns (P,) of shortlisted pairs of a query and a picture of the pool."""

    query: Ints
    other: Ints
    at: Ints  # scale
    likeness: Floats
    turned: Bools
    moved: Ints  # (P, 2)

    def take(self, rows: Ints | Bools) -> "_Pairs":
        return _Pairs(*(column[rows] for column in vars(self).values()))

    def ranked(self) -> "_Pairs":
        """By query, the likeliest first. A picture that was tried at two scales stays once."""
        pairs = self.take(np.lexsort((self.other, -self.likeness, self.query)))
        _, first = np.unique(pairs.query * (pairs.other.max(initial=0) + 1) + pairs.other, return_index=True)
        return pairs.take(np.sort(first))

    @property
    def rank(self) -> Ints:
        """Place of each pair among those of its query; of ranked pairs."""
        found: Ints = np.arange(len(self.query)) - np.searchsorted(self.query, self.query)
        return found


def _overlay(view: _Views, query: Ints, at: Ints, detail: Floats, spectrum: Complex) -> tuple[Floats, Bools, Ints]:
    """Likeness, mirrored and shift (P,), (P,), (P, 2) of pairs, laid over each other."""
    count, reach = len(query), MAX_SHIFT
    shifts = np.arange(-reach, reach + 1)
    values, turned = np.empty(count, np.float32), np.empty(count, bool)
    moved = np.empty((count, 2), np.int64)
    for start in range(0, count, _BLOCK):
        part = slice(start, min(count, start + _BLOCK))
        peaks = []
        for spectra in (view.spectrum, view.mirrored):
            both = irfft2(spectra[at[part], query[part]] * np.conj(spectrum[part]), (SIDE, SIDE))
            peaks.append(both[:, shifts[:, None], shifts].reshape(len(both), -1))
        heights = np.stack([p.max(1) for p in peaks])
        turned[part] = heights[1] > heights[0]
        best = np.where(turned[part], peaks[1].argmax(1), peaks[0].argmax(1))
        moved[part] = np.stack(np.divmod(best, len(shifts)), axis=1) - reach
    n, rim = SIDE, _RIM
    for p in range(count):
        a, b = view.detail[at[p], query[p]], detail[p]
        a = a[:, ::-1] if turned[p] else a
        down, right = moved[p]
        u = a[rim + max(0, down) : n - rim + min(0, down), rim + max(0, right) : n - rim + min(0, right)].ravel()
        v = b[rim + max(0, -down) : n - rim + min(0, -down), rim + max(0, -right) : n - rim + min(0, -right)].ravel()
        mu, mv = float(u.sum()), float(v.sum())
        cross = u @ v - mu * mv / len(u)
        power = (u @ u - mu * mu / len(u)) * (v @ v - mv * mv / len(u))
        values[p] = cross / np.sqrt(power) if power > 1e-3 else 0
    return values, turned, moved


def _parents(view: _Views, pool: Pool, size: int, pairs: _Pairs) -> tuple[Ints, Floats]:
    """Of all pairs of a query's candidates the one that explains its detail best, and how well.

    Regression on two variables from the correlations: R² = (a² + b² - 2abc) / (1 - c²), a and b of the query with each,
    c of both with each other.
    """
    width = _CENTRE.stop - _CENTRE.start
    laid = np.zeros((size, _PARENTS, width * width), np.float32)
    seen = np.zeros((size, _PARENTS), bool)
    which = np.full((size, _PARENTS), -1, np.int64)
    grid = np.arange(MAX_SHIFT, SIDE - MAX_SHIFT)
    query, rank, other, turned, moved = pairs.query, pairs.rank, pairs.other, pairs.turned, pairs.moved
    for p in range(len(query)):
        if pairs.at[p]:  # scaled: the query itself would have to be another picture for each parent
            continue
        rows, columns = grid - moved[p, 0], grid - moved[p, 1]
        if turned[p]:  # the mirrored query lies over the parent; both mirrored back, the parent lies over the query
            columns = columns[::-1]
        laid[query[p], rank[p]] = pool.detail[other[p]][rows[0] : rows[-1] + 1][:, columns].ravel()
        seen[query[p], rank[p]] = True
        which[query[p], rank[p]] = other[p]
    centre = view.detail[0][:, _CENTRE, _CENTRE].reshape(size, -1)
    laid -= laid.mean(2, keepdims=True)
    laid /= np.linalg.norm(laid, axis=2, keepdims=True) + 1e-6
    target = centre - centre.mean(1, keepdims=True)
    target /= np.linalg.norm(target, axis=1, keepdims=True) + 1e-6
    with_query = (laid @ target[:, :, None])[:, :, 0]
    gram = laid @ laid.transpose(0, 2, 1)
    best, parents = np.zeros(size, np.float32), np.full((size, 2), -1, np.int64)
    for i in range(_PARENTS):
        for j in range(i + 1, _PARENTS):
            a, b, c = with_query[:, i], with_query[:, j], gram[:, i, j]
            square = (a * a + b * b - 2 * a * b * c) / np.maximum(1 - c * c, 0.05)
            allowed = seen[:, i] & seen[:, j] & (a > b * c) & (b > a * c)
            explained = np.where(allowed, np.sqrt(np.clip(square, 0, 1)), 0)
            better = explained > best
            best[better] = explained[better]
            parents[better] = np.stack([which[:, i], which[:, j]], axis=1)[better]
    return parents, best


def _zoom(scale: float) -> Floats:
    """(64, 64) linear interpolation along one axis, about the centre; the border is repeated."""
    middle = (SIDE - 1) / 2
    source = np.clip(middle + (np.arange(SIDE) - middle) / scale, 0, SIDE - 1)
    left = np.minimum(source.astype(int), SIDE - 2)
    made = np.zeros((SIDE, SIDE), np.float32)
    made[np.arange(SIDE), left] = 1 - (source - left)
    made[np.arange(SIDE), left + 1] = source - left
    return made


def _blur(x: Floats) -> Floats:
    """Two box filters a direction: near enough to a Gaussian, and much faster."""
    for axis in (1, 2):
        for _ in range(2):
            x = uniform_filter1d(x, _BOX, axis=axis, mode="nearest")
    return x


def _raw(spectrum: Complex) -> Floats:
    """(B, 378): magnitudes of low frequencies, in an order that a mirror does not change."""
    k = _FREQUENCIES
    size = np.log1p(np.abs(spectrum))
    up, down = size[:, 1:k, :k], size[:, -1:-k:-1, :k]  # a mirror exchanges these two
    both = [(up + down).reshape(len(size), -1), size[:, 0, :k], np.abs(up - down).reshape(len(size), -1)]
    return np.concatenate(both, axis=1)


def _straight(detail: Floats) -> Floats:
    """(B, 441) unit vectors: 3x3 means of the middle 63 pixels, less their mean."""
    n = _SMALL
    small = detail[:, : 3 * n, : 3 * n].reshape(len(detail), n, 3, n, 3).mean((2, 4)).reshape(len(detail), -1)
    centred: Floats = small - small.mean(1, keepdims=True)
    return _unit(centred)


def _unit(x: Floats) -> Floats:
    made: Floats = x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-6)
    return made


def _top(scores: Floats, count: int) -> Ints:
    """(B, count) columns of the largest scores of each row."""
    count = min(count, scores.shape[1])
    if count == scores.shape[1]:
        return np.tile(np.arange(count), (len(scores), 1))
    return np.argpartition(-scores, count, axis=1)[:, :count].astype(np.int64)
