"""Random affine warps that move images and their maps alike, differentiably."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def random_affine(
    count: int,
    generator: torch.Generator,
    *,
    shift: float = 0.0,
    scale: float = 0.0,
    rotation: float = 0.0,
) -> Tensor:
    """Affine matrices (count, 2, 3) from output to input coordinates, as `torch.nn.functional.affine_grid` wants them.

    There are no flips: the heart is on the left.

    Args:
        count: how many.
        generator: stream to draw from.
        shift: largest shift, as a share of the side.
        scale: largest relative change of size; drawn log-uniformly.
        rotation: largest rotation in degrees.
    """
    u = torch.rand(count, 4, generator=generator) * 2 - 1
    angle = u[:, 0] * math.radians(rotation)
    size = torch.exp(u[:, 1] * math.log1p(scale))
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    move = u[:, 2:] * 2 * shift  # the grid spans [-1, 1]
    return torch.stack([torch.stack([cos, -sin, move[:, 0]], 1), torch.stack([sin, cos, move[:, 1]], 1)], 1)


def warp(x: Tensor, matrices: Tensor, outside: float = 0.0) -> Tensor:
    """Warps (B, C, H, W) with (B, 2, 3) bilinearly; what comes from beyond the frame is `outside`."""
    grid = F.affine_grid(matrices.to(x), list(x.shape), align_corners=False)
    return F.grid_sample(x - outside, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + outside
