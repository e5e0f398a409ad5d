"""Chests that are wrong in a known way: what a report on anatomy must expose, for benchmarks and tests."""

from collections.abc import Callable

import numpy as np
from scipy.ndimage import rotate, shift, zoom

from expressivegan.errors import InputError
from expressivegan.evaluation.anatomy.curves import Pixels


def spoil(images: Pixels, kind: str) -> Pixels:
    """The same images, each wrong in one way.

    Args:
        images: uint8 (N, H, W), N >= 1.
        kind: one of `KINDS`.

    Raises:
        InputError: unknown kind.
    """
    if kind not in KINDS:
        raise InputError(f"kind (={kind!r}) must be one of {', '.join(KINDS)}")
    return KINDS[kind](images)


def _rotated(images: Pixels) -> Pixels:
    return np.stack([rotate(x, 20, reshape=False, mode="nearest") for x in images])


def _shifted(images: Pixels) -> Pixels:
    """Aside by an eighth of the frame."""
    return np.stack([shift(x, (0, x.shape[1] / 8), order=1, mode="nearest") for x in images])


def _heartless(images: Pixels) -> Pixels:
    """The image's left half mirrored: no heart reaches to the patient's left."""
    half = images[:, :, : images.shape[2] // 2]
    return np.concatenate([half, half[:, :, ::-1]], axis=2)


def _white(images: Pixels) -> Pixels:
    level = np.percentile(images, 90, axis=(1, 2))[:, None, None].astype(np.uint8)
    side = images.shape[2]
    return np.where(np.arange(side) >= round(0.53 * side), np.maximum(images, level), images)


def _stretched(images: Pixels) -> Pixels:
    """Wider by 1.35, cut to the same frame."""
    side = images.shape[2]
    first = round(0.175 * side)
    return np.stack([zoom(x, (1, 1.35), order=1)[:, first : first + side] for x in images])


def _noise(images: Pixels) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8)


def _averages(images: Pixels) -> Pixels:
    """Of 20 each: every chest the same."""
    draw = np.random.default_rng(0)
    return np.stack([images[draw.choice(len(images), 20)].mean(0).astype(np.uint8) for _ in images])


KINDS: dict[str, Callable[[Pixels], Pixels]] = {
    "flipped": lambda images: images[:, :, ::-1],
    "rotated": _rotated,
    "shifted": _shifted,
    "heartless": _heartless,
    "white lung": _white,
    "stretched": _stretched,
    "upside down": lambda images: images[:, ::-1],
    "noise": _noise,
    "averages": _averages,
}
