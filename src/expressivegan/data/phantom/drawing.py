"""Image, label and lesion mask from a seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from expressivegan.data.layout import KERMANY_CLASSES
from expressivegan.data.phantom.chest import Child, anatomy, pose
from expressivegan.data.phantom.curves import Numbers, UInt8Array
from expressivegan.data.phantom.disease import lesion
from expressivegan.data.phantom.film import Developer
from expressivegan.errors import InputError
from expressivegan.streams import derive_seed

CLASSES = KERMANY_CLASSES
LEAST_CHANGE = 3  # grey levels; a weaker trace of a lesion is removed, so that mask and change agree exactly
_FLOATS = 1 << 15  # numbers per array while drawing: what stays in a core's nearest caches
_FINE = 96  # smaller pictures are drawn at this size, then averaged


@dataclass(frozen=True, eq=False)
class Phantom:
    """One drawn chest X-ray."""

    image: UInt8Array
    """uint8 (H, W) grey."""
    mask: UInt8Array
    """uint8 (H, W), 1 exactly where the image differs from the same child's under NORMAL."""
    label: str
    seed: int
    view: int


def draw(seed: int, label: str, resolution: int = 64, view: int = 0) -> Phantom:
    """Draws one chest X-ray.

    Args:
        seed: the child.
        label: NORMAL, BACTERIA (focal consolidation) or VIRUS (diffuse interstitial pattern).
        resolution: side in pixels, 28..1024.
        view: number of the shot: another view is the same child and lesion, in another pose and exposure.

    Raises:
        InputError: unknown label, or resolution out of range.
    """
    images, masks = draw_batch([seed], [label], resolution, [view])
    return Phantom(images[0], masks[0], label, seed, view)


def draw_batch(
    seeds: Sequence[int], labels: Sequence[str], resolution: int = 64, views: Sequence[int] | None = None
) -> tuple[UInt8Array, UInt8Array]:
    """Draws many; picture i depends on seeds[i], labels[i] and views[i] alone.

    Returns:
        images uint8 (B, H, W) and masks uint8 (B, H, W) of 0 and 1.

    Raises:
        InputError: unknown label, lists of different lengths, or resolution out of range.
    """
    views = [0] * len(seeds) if views is None else views
    if not len(seeds) == len(labels) == len(views):
        raise InputError(f"seeds, labels and views have {len(seeds)}, {len(labels)} and {len(views)} entries")
    for label in set(labels) - set(CLASSES):
        raise InputError(f"label (={label!r}) must be one of {', '.join(CLASSES)}")
    if not 28 <= resolution <= 1024:
        raise InputError(f"resolution (={resolution}) must lie in 28..1024")
    step = max(1, _FLOATS // max(resolution, _FINE) ** 2)
    images = np.empty((len(seeds), resolution, resolution), np.uint8)
    masks = np.empty_like(images)
    for start in range(0, len(seeds), step):
        part = slice(start, start + step)
        images[part], masks[part] = _draw(seeds[part], labels[part], views[part], resolution)
    return images, masks


def _draw(
    seeds: Sequence[int], labels: Sequence[str], views: Sequence[int], resolution: int
) -> tuple[UInt8Array, UInt8Array]:
    size = max(resolution, _FINE)
    child = Child(Numbers([(s, "child") for s in seeds]))
    shot = Numbers([(s, "shot", v) for s, v in zip(seeds, views, strict=True)])
    x, y, frame = pose(shot, size)
    drawn = anatomy(child, x, y, size)
    sick = drawn.density + lesion(child, drawn, seeds, labels)
    noise = [np.random.Generator(np.random.PCG64(derive_seed("phantom", s, "noise", v)))
             .standard_normal((resolution, resolution), dtype=np.float32)
             for s, v in zip(seeds, views, strict=True)]  # fmt: skip
    develop = Developer(shot, np.stack(noise), frame)
    plain, image = develop(drawn.density), develop(sick)
    change = np.abs(image.astype(np.int16) - plain) >= LEAST_CHANGE
    return np.where(change, image, plain), change.astype(np.uint8)
