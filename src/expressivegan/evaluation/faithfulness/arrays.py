"""What the figures on maps share: checks, one size, and what a map that says nothing counts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from expressivegan.errors import InputError
from expressivegan.images import UInt8Array

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Score = Callable[[UInt8Array], npt.NDArray[Any]]
"""uint8 (M, H, W) → (M,): how much of what the maps claim to show is in each image, best a probability."""


def check_array(maps: npt.ArrayLike, name: str = "maps") -> Floats:
    """Maps as float64 (N, h, w).

    Raises:
        InputError: another shape, no map, or a value that is not finite.
    """
    found = np.asarray(maps, np.float64)
    if found.ndim != 3 or found.size == 0:
        raise InputError(f"{name} of shape {found.shape} must be (N, h, w) with one map at least")
    bad = np.flatnonzero(~np.isfinite(found).all((1, 2)))
    if len(bad):
        raise InputError(f"{name}[{bad[0]}] holds NaN or infinity ({len(bad)} of {len(found)} do); leave them out")
    return found


def check_masked(maps: npt.ArrayLike, masks: npt.ArrayLike) -> tuple[Floats, Bools]:
    """Maps and the true regions, of one shape (N, H, W).

    Raises:
        InputError: shapes that differ, or a region that is empty or the whole image: nothing can be right or wrong.
    """
    found, region = check_array(maps), np.asarray(masks) != 0
    if found.shape != region.shape:
        raise InputError(f"masks of shape {region.shape} must have that of maps, {found.shape}; see `enlarge`")
    area = region.mean((1, 2))
    bad = np.flatnonzero((area == 0) | (area == 1))
    if len(bad):
        what = "empty" if area[bad[0]] == 0 else "the whole image"
        raise InputError(f"masks[{bad[0]}] is {what} ({len(bad)} of {len(area)} say nothing); leave such images out")
    return found, region


def check_images(images: UInt8Array, count: int | None = None) -> UInt8Array:
    """Raises InputError unless uint8 (N, H, W), of that number."""
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 3 or len(images) == 0:
        what = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise InputError(f"images must be uint8 of shape (N, H, W), not {what}")
    if count is not None and len(images) != count:
        raise InputError(f"images and maps must go in pairs, not {len(images)} and {count}")
    return images


def constant(maps: Floats) -> Bools:
    """(N,): the same value everywhere, to rounding: the map says nothing about where."""
    flat = maps.reshape(len(maps), -1)
    spread: Bools = np.ptp(flat, 1) <= 1e-9 * np.maximum(np.abs(flat).max(1), 1e-30)
    return spread


def enlarge(maps: npt.ArrayLike, size: tuple[int, int]) -> Floats:
    """(N, h, w) → (N, H, W), bilinear between the centres of the cells; reduced with antialiasing."""
    found = check_array(maps)
    if found.shape[1:] == size:
        return found
    resized = F.interpolate(torch.from_numpy(found)[:, None], size, mode="bilinear", antialias=size < found.shape[1:])
    return np.asarray(resized[:, 0].numpy(), np.float64)
