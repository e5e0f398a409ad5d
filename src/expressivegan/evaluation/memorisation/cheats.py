"""Generators that cheat: what a measure of memorisation must catch, for benchmarks and tests."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.ndimage import affine_transform, gaussian_filter, shift

from expressivegan.errors import InputError
from expressivegan.evaluation.memorisation.distances import UInt8Array

Change = Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64], np.random.Generator], npt.NDArray[np.float64]]


def replay(images: UInt8Array, kind: str, rng: np.random.Generator) -> UInt8Array:
    """Changes every image so that it is still a copy.

    Args:
        images: uint8 (N, H, W) training images, of which blends take a second one each at random, N >= 2.
        kind: one of `KINDS`.
        rng: of shifts, scales and noise.

    Raises:
        InputError: unknown kind.
    """
    if kind not in KINDS:
        raise InputError(f"kind (={kind!r}) must be one of {', '.join(KINDS)}")
    change = KINDS[kind]
    other = (np.arange(len(images)) + partners(len(images))) % len(images)
    made = [change(a.astype(np.float64), images[b].astype(np.float64), rng) for a, b in zip(images, other, strict=True)]
    return np.clip(np.rint(np.stack(made)), 0, 255).astype(np.uint8)


def partners(count: int) -> int:
    """Image i is blended with image i + partners(N), modulo N."""
    return max(1, count // 2)


def _shifted(a: npt.NDArray[np.float64], _: object, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    reach = [side / 8 for side in a.shape]
    return np.asarray(shift(a, rng.uniform([-r for r in reach], reach), order=1, mode="nearest"))


def _scaled(a: npt.NDArray[np.float64], _: object, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    scale = 1 + rng.choice([-1, 1]) * rng.uniform(0.03, 0.10)
    middle = (np.array(a.shape) - 1) / 2
    return np.asarray(affine_transform(a, [1 / scale] * 2, middle - middle / scale, order=1, mode="nearest"))


def _contrast(a: npt.NDArray[np.float64], _: object, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    return np.asarray((a - 128) * rng.uniform(0.7, 1.3) + 128 + rng.uniform(-20, 20))


KINDS: dict[str, Change] = {
    "as is": lambda a, b, rng: a,
    "noise 5": lambda a, b, rng: a + rng.normal(0, 5, a.shape),
    "blur 1": lambda a, b, rng: np.asarray(gaussian_filter(a, 1, mode="nearest")),
    "shifted": _shifted,
    "scaled": _scaled,
    "contrast": _contrast,
    "flipped": lambda a, b, rng: a[:, ::-1],
    "blend 0.5": lambda a, b, rng: 0.5 * a + 0.5 * b,
    "blend 0.7": lambda a, b, rng: 0.7 * a + 0.3 * b,
}
