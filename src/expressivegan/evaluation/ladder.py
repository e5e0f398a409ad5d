"""Known degradations of real images, so that a figure of a generator reads as a place among them.

Fidelity does not see copying: the rung of copied training images scores like real ones. Memorisation is another check.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from expressivegan.errors import InputError
from expressivegan.evaluation.distances import Index, check_labels
from expressivegan.evaluation.draws import draw_mix
from expressivegan.images import UInt8Array
from expressivegan.streams import derive_seed

LabelledImages = tuple[UInt8Array, Index]

BLURS = (0.5, 1.0, 1.5)  # standard deviations, in pixels of an image 64 pixels wide
NOISES = (5, 15)  # standard deviations of white noise, in grey levels of 0..255
REPEATED = (100, 20, 5, 1)  # images of each class, over and over


def floor_draws(labels: npt.ArrayLike, counts: Sequence[int], draws: int, seed: int = 0) -> Iterator[Index]:
    """Rows of real images of other patients than the reference's, cut to its class mix: the best that can be asked for.

    Args:
        labels: (n,) class indices of images whose patients are not in the reference.
        counts: images of each class in the reference.
        draws: how many random subsets; the mean of a figure over them is its floor.
        seed: of the draws.

    Raises:
        InputError: a class holds fewer images than wanted, or draws < 1.
    """
    if draws < 1:
        raise InputError(f"draws (={draws}) must be at least 1")
    return (draw_mix(labels, counts, seed, "floor", draw) for draw in range(draws))


def make_ladder(
    images: UInt8Array,
    labels: npt.ArrayLike,
    classes: Sequence[str],
    *,
    extra_images: UInt8Array | None = None,
    extra_labels: npt.ArrayLike | None = None,
    seed: int = 0,
) -> dict[str, LabelledImages]:
    """Real images, spoilt in known ways, as many as there were.

    Blur is in pixels of a side of 64 and grows with the side; noise is in grey levels whatever the side.

    Args:
        images: uint8 (N, H, W) of the training group, of the reference's class mix.
        labels: (N,) indices into `classes`.
        classes: names; the last is the one that goes missing.
        extra_images: further real images, which fill the place of the missing class; without, the others repeat.
        extra_labels: theirs.
        seed: of noise and fillings.

    Returns:
        Name → images and labels: blur 0.5, 1 and 1.5; noise 5 and 15; 100, 20, 5 and 1 per class, repeated (those of
        which some class has more); the last class missing (where there are several); flipped; shifted by an eighth to
        the right; training images, copied (but for one grey level of noise).

    Raises:
        InputError: images or labels of other shapes or types.
    """
    pixels = _check(images, "images")
    own = check_labels(labels, len(pixels), len(classes), "labels")
    draw = np.random.default_rng(derive_seed(seed, "evaluation.ladder"))
    side = pixels.shape[2]

    def each(change: Callable[[npt.NDArray[np.float64]], npt.NDArray[Any]]) -> LabelledImages:
        # One image at a time: float64 copies of many large ones would fill the memory.
        return np.stack([change(i.astype(np.float64)).round().clip(0, 255).astype(np.uint8) for i in pixels]), own

    def blur(sigma: float) -> Callable[[npt.NDArray[np.float64]], npt.NDArray[Any]]:
        return lambda x: np.asarray(gaussian_filter(x, sigma * side / 64, mode="nearest"))

    def noise(sigma: float) -> Callable[[npt.NDArray[np.float64]], npt.NDArray[Any]]:
        return lambda x: x + draw.normal(0, sigma, x.shape)

    rungs = {f"blur {sigma:g}": each(blur(sigma)) for sigma in BLURS}
    rungs |= {f"noise {sigma}": each(noise(sigma)) for sigma in NOISES}
    for count in REPEATED:
        if count >= np.bincount(own).max():
            continue  # it would be the images themselves, and say that repetition costs nothing
        index = _repeat(own, count)
        rungs[f"{count} per class, repeated"] = pixels[index], own[index]
    last = len(classes) - 1
    kept, gone = np.flatnonzero(own != last), int((own == last).sum())
    if len(kept) and gone:
        more, more_labels = pixels[kept], own[kept]
        if extra_images is not None and extra_labels is not None:
            extra = _check(extra_images, "extra_images")
            given = check_labels(extra_labels, len(extra), len(classes), "extra_labels")
            others = np.flatnonzero(given != last)
            if len(others):
                more, more_labels = extra[others], given[others]
        fill = np.resize(draw.permutation(len(more)), gone)
        rungs[f"no {classes[-1]}"] = (
            np.concatenate([pixels[kept], more[fill]]),
            np.concatenate([own[kept], more_labels[fill]]),
        )
    rungs["flipped"] = pixels[:, :, ::-1].copy(), own
    eighth = side // 8
    shifted = pixels[:, :, np.maximum(np.arange(side) - eighth, 0)]
    rungs["shifted by 1/8"] = shifted, own
    rungs["training images, copied"] = each(lambda x: x + draw.integers(-1, 2, x.shape))
    return rungs


def place_on_ladder(figure: float, rungs: Mapping[str, float], *, higher_is_better: bool = False) -> str:
    """Where a figure lies among those of known degradations, in words.

    Args:
        figure: of a generator.
        rungs: name → the same figure of that rung, in any order; the floor may be one. Those that are not finite are
            passed over.
        higher_is_better: as of precision, recall and coverage; FID and KID are better low.

    Returns:
        between "A" and "B" (A the better one), at "A", better than "A", the best, or worse than "A", the worst. The
        quotation marks are for names with commas.

    Raises:
        InputError: the figure or all rungs are not finite.

    >>> place_on_ladder(2.0, {"blur 1": 10.0, "blur 0.5": 1.1, "real, other patients": 0.8})
    'between "blur 0.5" and "blur 1"'
    """
    sign = -1 if higher_is_better else 1
    order = sorted((sign * value, name) for name, value in rungs.items() if np.isfinite(value))
    if not order or not np.isfinite(figure):
        raise InputError(f"figure (={figure}) and at least one of the {len(rungs)} rungs must be finite")
    own = sign * figure
    at = [f'"{name}"' for value, name in order if value == own]
    if at:
        return f"at {' and '.join(at)}"
    if own < order[0][0]:
        return f'better than "{order[0][1]}", the best'
    if own > order[-1][0]:
        return f'worse than "{order[-1][1]}", the worst'
    place = next(i for i, (value, _) in enumerate(order) if value > own)
    return f'between "{order[place - 1][1]}" and "{order[place][1]}"'


def _repeat(labels: Index, count: int) -> Index:
    """Rows that hold the first `count` images of each class over and over, as many as before."""
    picked = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        picked.append(rows[np.arange(len(rows)) % min(count, len(rows))])
    return np.concatenate(picked)


def _check(images: UInt8Array, name: str) -> UInt8Array:
    pixels = np.asarray(images)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or len(pixels) == 0:
        raise InputError(f"{name} must be uint8 (N, H, W) with N ≥ 1, not {pixels.dtype} {pixels.shape}")
    return pixels
