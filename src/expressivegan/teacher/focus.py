"""Where a teacher looks: how far its decisions follow the frame, and how much of its maps lies there."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from expressivegan.images import from_uint8
from expressivegan.intervals import Interval, bootstrap
from expressivegan.streams import derive_seed
from expressivegan.teacher.cam import CXR_CAM_Teacher
from expressivegan.warp import warp

FRAME = 0.1
"""Width of the frame on each side, as a share of the side."""
FIGURES = {
    "follows_frame": "right decisions that follow another class's frame",
    "upset_by_frame": "right decisions upset by a frame of the same class",
    "frame_mass": "|CAM| of the diseased in the outer 10% (even: 0.36)",
    "outside_mass": "|CAM| of the diseased outside the thorax window",
}
"""What the figures of `Focus` say, in words."""
UInt8Array = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


class Focus(NamedTuple):
    """Figures of `focus`, each with its interval over patients.

    Attributes:
        follows_frame: share of right decisions that become the class whose frame is pasted (a frame of another class).
        upset_by_frame: share of right decisions that change when the frame of the same class is pasted: the floor.
        frame_mass: share of |CAM| of the diseased in the outer 10%; a map that is the same everywhere has 0.36.
        outside_mass: the same outside the soft thorax window of `thorax_window`.
    """

    follows_frame: Interval
    upset_by_frame: Interval
    frame_mass: Interval
    outside_mass: Interval


def frame_mask(side: int, width: float = FRAME) -> npt.NDArray[np.bool_]:
    """(side, side), True in the outer `width` of each side."""
    edge = max(1, round(width * side))
    mask = np.ones((side, side), bool)
    mask[edge:-edge, edge:-edge] = False
    return mask


def thorax_window(side: int) -> Tensor:
    """(side, side) in [0, 1]: 1 where lungs can be, 0 in frame and corners, soft between; no landmarks are needed.

    A superellipse (exponent 4) with half-axes 0.86 of half the side, the middle of a fall from 1 to 0 that is 0.2 wide;
    averaged from 16 points per cell and axis, so that it means the same on every grid.
    """
    fine = side * 16
    at = (torch.arange(fine) + 0.5) / fine * 2 - 1
    radius = (at[:, None] ** 4 + at[None, :] ** 4) ** 0.25
    window = ((0.96 - radius) / 0.2).clamp(0, 1)
    return F.avg_pool2d(window[None, None], 16)[0, 0]


def stray(cams: Tensor, matrices: Tensor) -> Tensor:
    """Share of |CAM| outside the thorax window, the mean over a batch; differentiable, in [0, 1].

    Args:
        cams: raw (B, K, h, w). Softmax ignores a map that is added to all classes, so their mean is taken off.
        matrices: (B, 2, 3) that moved the images; the window moves with them.
    """
    window = thorax_window(cams.shape[-1]).to(cams).expand(len(cams), 1, -1, -1)
    outside = 1 - warp(window, matrices)
    size = (cams - cams.mean(1, keepdim=True)).abs()
    return ((size * outside).sum(dim=(1, 2, 3)) / size.sum(dim=(1, 2, 3)).clamp_min(1e-6)).mean()


def donors(labels: Ints, other: bool, seed: int = 0) -> Ints:
    """For each image another one to take the frame from, of another class or of the same.

    Returns:
        (N,) indices; -1 where there is none.
    """
    rng = np.random.default_rng(derive_seed(seed, "teacher-frames", other))
    found = np.full(len(labels), -1, np.int64)
    for i, label in enumerate(labels):
        pool = np.flatnonzero((labels != label) if other else (labels == label))
        pool = pool[pool != i]
        if len(pool) and other:  # each of the other classes as often as the rest, whatever their sizes
            pool = pool[labels[pool] == rng.choice(np.unique(labels[pool]))]
        if len(pool):
            found[i] = rng.choice(pool)
    return found


def with_frames_of(images: UInt8Array, sources: UInt8Array, width: float = FRAME) -> UInt8Array:
    """Images (N, S, S) with the outer frame of `sources` (N, S, S) pasted over theirs."""
    found: UInt8Array = np.where(frame_mask(images.shape[-1], width), sources, images)
    return found


@torch.no_grad()
def look(
    teacher: CXR_CAM_Teacher, images: UInt8Array, batch: int = 128
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Referenced CAMs (N, K, H, W), signed, unscaled, upsampled, and probabilities (N, K), of uint8 (N, H, W)."""
    maps, chances = [], []
    for start in range(0, len(images), batch):
        cams, logits = teacher.raw_cams(from_uint8(np.ascontiguousarray(images[start : start + batch])[:, None]))
        ups = F.interpolate(teacher.referenced(cams), images.shape[-2:], mode="bilinear", align_corners=False)
        maps.append(ups.numpy())
        chances.append(logits.double().softmax(1).numpy())
    return np.concatenate(maps), np.concatenate(chances)


def absolute_mass_in(maps: npt.NDArray[np.float32], region: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N, H, W) signed maps and weights (H, W) in [0, 1] → (N,) share of |map| there; NaN for a map of zeros."""
    size = np.abs(maps).astype(np.float64)
    with np.errstate(invalid="ignore"):
        share: npt.NDArray[np.float64] = (size * region).sum((1, 2)) / size.sum((1, 2))
    return share


def focus(
    teacher: CXR_CAM_Teacher, images: UInt8Array, labels: Ints, patients: list[str], rounds: int = 1000, seed: int = 0
) -> Focus:
    """Measures where a teacher looks.

    Args:
        teacher: fitted, on the CPU.
        images: uint8 (N, S, S), of patients it has not seen.
        labels: (N,) indices into the teacher's classes.
        patients: N names; intervals draw them.
        rounds: bootstrap draws.
        seed: of the draws.
    """
    side = images.shape[-1]
    maps, chances = look(teacher, images)
    decided = chances.argmax(1)
    right = decided == labels

    def mean_over(values: npt.NDArray[Any], which: Ints) -> Interval:
        if len(which) == 0:
            return Interval(float("nan"), float("nan"), float("nan"))
        return bootstrap(lambda i: float(np.nanmean(values[i])), [patients[i] for i in which], rounds)

    def swapped(other: bool) -> Interval:
        source = donors(labels, other, seed)
        counted = np.flatnonzero(right & (source >= 0))
        pasted = with_frames_of(images[counted], images[source[counted]])
        now = look(teacher, pasted)[1].argmax(1) if len(counted) else np.zeros(0, np.int64)
        hit = (now == labels[source[counted]]) if other else (now != labels[counted])
        return mean_over(hit, counted)

    ill = np.flatnonzero(labels != (-1 if teacher.reference is None else teacher.reference))
    own = maps[ill, labels[ill]]
    frame = absolute_mass_in(own, frame_mask(side).astype(np.float64))
    outside = absolute_mass_in(own, 1 - thorax_window(side).double().numpy())
    return Focus(
        swapped(True),
        swapped(False),
        mean_over(frame, ill),
        mean_over(outside, ill),
    )
