"""Differentiable augmentation before the discriminator, which warps the maps too (Zhao et al., NeurIPS 2020).

Only what may happen to a chest X-ray: shift, scale, rotation, brightness, contrast, cutout. No flips (the heart is on
the left) and no inversion. Each image is augmented with a probability below 1, so that nothing leaks.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from expressivegan.warp import random_affine, warp


class Augmentation(NamedTuple):
    """One draw for a batch.

    Attributes:
        which: (n,) images that are warped.
        matrices: (n, 2, 3) affine matrices.
        contrast, brightness: (n, 1, 1, 1).
        hole: (n, 4) relative top, left, height, width of what is cut out.
    """

    which: Tensor
    matrices: Tensor
    contrast: Tensor
    brightness: Tensor
    hole: Tensor

    def part(self, start: int, stop: int) -> "Augmentation":
        """The draw for images start..stop alone."""
        keep = (self.which >= start) & (self.which < stop)
        return Augmentation(self.which[keep] - start, *(t[keep] for t in self[1:]))

    def to(self, device: torch.device) -> "Augmentation":
        """The draw on another device."""
        return Augmentation(*(t.to(device) for t in self))


def draw_augmentation(batch: int, probability: float, generator: torch.Generator) -> Augmentation:
    """Draws for a whole batch; the number of random numbers does not depend on the probability."""
    u = torch.rand(batch, 7, generator=generator)
    matrices = random_affine(batch, generator, shift=0.125, scale=0.1, rotation=10.0)
    chosen = (u[:, 0] < probability).nonzero().squeeze(1)
    size = 0.15 + 0.2 * u[:, 3:5]
    hole = torch.cat([u[:, 5:7] * (1 - size), size], 1) * (u[:, 0:1] < probability * 0.5)  # half of them are cut
    contrast = torch.exp((u[:, 1] - 0.5) * 0.4)[:, None, None, None]
    brightness = ((u[:, 2] - 0.5) * 0.2)[:, None, None, None]
    return Augmentation(chosen, matrices[chosen], contrast[chosen], brightness[chosen], hole[chosen])


def _kept(hole: Tensor, height: int, width: int) -> Tensor:
    """(n, 1, H, W): 0 in the hole, 1 elsewhere."""
    y = (torch.arange(height, device=hole.device) + 0.5)[None, :, None] / height
    x = (torch.arange(width, device=hole.device) + 0.5)[None, None, :] / width
    top, left, h, w = (hole[:, i, None, None] for i in range(4))
    inside = (y > top) & (y < top + h) & (x > left) & (x < left + w)
    return (~inside).unsqueeze(1).float()


def augment_images(images: Tensor, draw: Augmentation) -> Tensor:
    """Augmented images (B, 1, H, W), still in [-1, 1]; beyond the frame and in holes they are black."""
    if len(draw.which) == 0:
        return images
    x = warp(images[draw.which], draw.matrices, outside=-1.0)
    x = (x * draw.contrast.to(x) + draw.brightness.to(x)).clamp(-1, 1)
    kept = _kept(draw.hole, x.shape[-2], x.shape[-1]).to(x)
    return images.index_copy(0, draw.which, x * kept - (1 - kept))


def augment_maps(maps: Tensor, draw: Augmentation) -> Tensor:
    """Maps (B, C, h, w) under the same warp; 0 beyond the frame and in holes."""
    if len(draw.which) == 0:
        return maps
    moved = warp(maps[draw.which], draw.matrices)
    fine = _kept(draw.hole, 8 * maps.shape[-2], 8 * maps.shape[-1]).to(maps)
    return maps.index_copy(0, draw.which, moved * F.avg_pool2d(fine, 8))
