"""Euclidean distances of many rows by matrix products, recomputed directly wherever rounding could decide.

|x - y|² = |x|² + |y|² - 2 x·y costs one matrix product, an order of magnitude less than subtracting row from row, but
loses digits where rows lie close together. So a block comes with a bound on its error, and what lies within that bound
of a decision (who is the k-th neighbour, inside the ball or not) is computed again from the differences.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from expressivegan.errors import InputError

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

_ENTRIES = 1 << 20  # of one block: 8 MB of float64 stay near the processor


class Block(NamedTuple):
    """Rows `start:stop` of x against all rows of y."""

    start: int
    stop: int
    squared: npt.NDArray[Any]
    """(b, m) squared distances over scale², wrong by no more than `slack`; slightly negative ones occur."""
    products: Array | None
    """(b, m) inner products of the rows as they came."""
    slack: Array
    """(b,) bound of the rounding error of a row's `squared`."""
    scale: float


def blocks(x: Array, y: Array, *, products: bool = False, precise: bool = True) -> Iterator[Block]:
    """Squared distances of all rows of x (n, d) to all rows of y (m, d), a block of rows at a time.

    Args:
        x: finite.
        y: finite.
        products: whether inner products are wanted too; takes float64.
        precise: float64; else float32, in half the time and with a slack 5e8 times as wide.

    Yields:
        Blocks whose arrays are the reader's to change, until the next one is asked for.
    """
    kind = np.float64 if precise or products else np.float32
    centre = (x.mean(0) + y.mean(0)) / 2  # small norms make small errors
    a = x - centre
    b = a if y is x else y - centre
    scale = float(np.sqrt(max(np.square(a).sum(1).max(), np.square(b).sum(1).max()))) or 1.0
    a, b = (a / scale).astype(kind), (b / scale).astype(kind)
    along_x, along_y = a.astype(np.float64) @ centre * scale, b.astype(np.float64) @ centre * scale + centre @ centre
    na, nb = np.einsum("ij,ij->i", a, a), np.einsum("ij,ij->i", b, b)
    # An inner product of d terms errs by at most d·eps/2·|x||y| (Higham 2002, section 3.1); the rest is a few eps more.
    slack = float(np.finfo(kind).eps) * (x.shape[1] / 2 + 8) * (na.astype(np.float64) + float(nb.max()))
    # Two more columns make the product give the squared distances, without further passes over the block.
    left = np.column_stack([a, na, np.ones_like(na)])
    right = np.column_stack([b * kind(-2), np.ones_like(nb), nb]).T
    if products:
        along_x, along_y = along_x + 0.5 * scale * scale * na, along_y + 0.5 * scale * scale * nb
    step = min(len(x), max(1, _ENTRIES // len(y)))
    room = np.empty((step, len(y)), kind)
    more = np.empty((step if products else 0, len(y)))
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        squared = np.matmul(left[rows], right, out=room[: rows.stop - start])
        inner = None
        if products:
            inner = np.multiply(squared, -0.5 * scale * scale, out=more[: rows.stop - start])
            inner += along_x[rows, None]
            inner += along_y
        yield Block(rows.start, rows.stop, squared, inner, slack[rows], scale)


def where(mask: npt.NDArray[np.bool_]) -> tuple[Index, Index]:
    """Rows and columns of what is true; `np.nonzero` of two dimensions takes ten times as long where little is."""
    flat = np.flatnonzero(mask)
    return tuple(np.divmod(flat, mask.shape[1]))  # type: ignore[return-value]


def row_keys(rows: Array) -> Keys:
    """(n,) equal for equal rows and hardly ever for others: a sum with fixed odd factors, modulo 2⁶⁴.

    Two rows count as equal where their keys are and rounding cannot tell them apart: chance has no say in a figure.
    """
    bits = np.ascontiguousarray(rows + 0.0).view(np.uint64)  # -0.0 is 0.0
    factors = np.random.default_rng(0).integers(1 << 63, size=rows.shape[1], dtype=np.uint64) * np.uint64(2)
    factors += np.uint64(1)
    keys: Keys = ((bits ^ (bits >> np.uint64(32))) * factors).sum(1, dtype=np.uint64)
    return keys


def exact(x: Array, i: Index, y: Array, j: Index, same: npt.NDArray[np.bool_] | None = None) -> Array:
    """Distances of the pairs x[i], y[j] from their differences; where `same`, known to be 0."""
    if same is not None:
        found = np.zeros(len(i))
        other = np.flatnonzero(~same)
        found[other] = exact(x, i[other], y, j[other])
        return found
    found = np.empty(len(i))
    step = max(1, _ENTRIES // x.shape[1])
    for start in range(0, len(i), step):
        part = slice(start, start + step)
        gap = x[i[part]] - y[j[part]]
        # Scaled, so that neither huge nor tiny features leave float64 when squared.
        most = np.abs(gap).max(1)
        unit = np.where(most > 0, np.exp2(np.floor(np.log2(np.where(most > 0, most, 1)))), 1)
        gap /= unit[:, None]
        found[part] = np.sqrt(np.square(gap, out=gap).sum(1)) * unit
    return found


def check_features(features: npt.ArrayLike, name: str = "features") -> Array:
    """float64 (n, d), n ≥ 2, finite.

    Raises:
        InputError: it is not.
    """
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise InputError(f"{name} must have shape (n, d), not {rows.shape}")
    if len(rows) < 2:
        raise InputError(f"{name} hold {len(rows)} rows; at least 2 are needed")
    if not np.isfinite(rows).all():
        bad = int((~np.isfinite(rows)).any(1).sum())
        raise InputError(f"{name} are not finite in {bad} of {len(rows)} rows")
    return rows


def check_pair(real: npt.ArrayLike, fake: npt.ArrayLike) -> tuple[Array, Array]:
    """Both as of `check_features`, of one width."""
    a, b = check_features(real, "real features"), check_features(fake, "fake features")
    check_widths(a, b)
    return a, b


def check_widths(real: Array, fake: Array) -> None:
    if real.shape[1] != fake.shape[1]:
        raise InputError(
            f"real and fake features have {real.shape[1]} and {fake.shape[1]} columns; they must come from one space"
        )


def check_patients(patients: npt.ArrayLike | None, count: int) -> Index:
    """Names → numbers, which compare faster; None takes every row for a patient of its own."""
    if patients is None:
        return np.arange(count)
    names = np.asarray(patients)
    if names.shape != (count,):
        raise InputError(f"patients must be one name a row ({count}), not of shape {names.shape}")
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def check_labels(labels: npt.ArrayLike, count: int, classes: int, name: str) -> Index:
    """(count,) indices into `classes` classes."""
    given = np.asarray(labels)
    if given.shape != (count,) or not np.issubdtype(given.dtype, np.integer):
        raise InputError(f"{name} must be {count} integers, not {given.dtype} of shape {given.shape}")
    if given.min() < 0 or given.max() >= classes:
        raise InputError(f"{name} span {given.min()}..{given.max()} but there are {classes} classes")
    return given.astype(np.int64)
