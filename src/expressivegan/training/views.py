"""Regions to steer by, and the view of the lungs in which pairs of style and label that no image has are judged."""

import torch
from torch import Tensor

from expressivegan.models.generator import interior

FRAME = 0.1
"""Share of the side that a view of the lungs leaves out: there letters, collimation and cropping tell the label."""


def lung_view(images: Tensor, which: Tensor) -> Tensor:
    """Images (B, 1, H, W), some of them without frame and exposure.

    The frame becomes 0, and what it encloses gets mean 0 and standard deviation 0.4.

    Args:
        images: in [-1, 1].
        which: (B,) bool, the images to change.
    """
    chosen = which.nonzero().squeeze(1)
    if len(chosen) == 0:
        return images
    inside = (interior(images.shape[-1], FRAME) > 0).to(images)
    x = images[chosen]
    share = inside.mean()
    mean = (x * inside).mean(dim=(2, 3), keepdim=True) / share
    x = (x - mean) * inside
    spread = (x.square().mean(dim=(2, 3), keepdim=True) / share + 1e-4).sqrt()
    return images.index_copy(0, chosen, (0.4 * x / spread).to(images.dtype))


def draw_ellipses(count: int, generator: torch.Generator) -> Tensor:
    """(count, 4): relative centre and radii (x, y, x, y) of ellipses where lungs are, on either side."""
    u = torch.rand(count, 5, generator=generator)
    side = (u[:, 4] < 0.5).float()
    x = 0.22 + 0.2 * u[:, 0] + side * 0.36  # 0.22..0.42 or 0.58..0.78
    y = 0.25 + 0.45 * u[:, 1]
    return torch.stack([x, y, 0.08 + 0.12 * u[:, 2], 0.09 + 0.15 * u[:, 3]], 1)
