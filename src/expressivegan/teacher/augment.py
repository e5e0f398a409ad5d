"""What a teacher sees of a training image: another pose, another exposure, another frame.

The label of a chest X-ray is often written twice, in the lungs and in how the picture was taken. What tells the label
and is not disease (frame, markers, framing, stretch, exposure) is drawn anew here, so that it tells nothing.
"""

import torch
from torch import Tensor

from expressivegan.config import TeachConfig
from expressivegan.warp import random_affine, warp

_OTHER, _MEAN = (
    0.6,
    0.8,
)  # of the draw that chooses what fills a frame: below another image's, then its mean, then noise
_MARK = (0.08, 0.22)  # side of a patch that hides or brings a marker, as a share of the image's side


def augment(images: Tensor, config: TeachConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws all that the settings ask for; no flips, since the heart is on the left.

    Args:
        images: (B, 1, H, W) in [-1, 1], of one batch: what is pasted comes from its other images.
        config: how much of each.
        generator: stream to draw from.

    Returns:
        Images (B, 1, H, W) in [-1, 1], and the matrices (B, 2, 3) that moved them.
    """
    matrices = random_affine(len(images), generator, shift=config.shift, scale=config.zoom, rotation=config.rotation)
    squeeze = torch.exp((torch.rand(len(images), 1, generator=generator) * 2 - 1) * config.stretch)
    matrices[:, 0] = matrices[:, 0] * squeeze
    matrices[:, 1] = matrices[:, 1] / squeeze
    images = expose(warp(images, matrices, outside=-1.0), config.exposure, generator)
    images = paste_marks(images, config.marks, generator)
    return replace_frames(images, config.border, config.border_width, generator), matrices


def expose(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Another exposure: contrast by a factor within e^(±0.5 s), brightness ± 0.4 s, gamma within e^(±0.6 s).

    Args:
        images: (B, 1, H, W) in [-1, 1].
        strength: s; 0 changes nothing.
        generator: stream to draw from.
    """
    contrast, brightness, gamma = strength * (torch.rand(3, len(images), 1, 1, 1, generator=generator) * 2 - 1)
    if strength == 0:
        return images
    curved = ((images.clamp(-1, 1) + 1) / 2).pow(torch.exp(0.6 * gamma)) * 2 - 1
    lit: Tensor = curved * torch.exp(0.5 * contrast) + 0.4 * brightness
    return lit.clamp(-1, 1)


def replace_frames(images: Tensor, share: float, width: float, generator: torch.Generator) -> Tensor:
    """Fills the frame of some images with that of another image, with their mean, or with noise.

    Args:
        images: (B, 1, H, W).
        share: of images, 0..1.
        width: widest frame as a share of the side; each of the four sides is drawn from half of it to all of it, so
            that with a share of 1 no image shows its outermost lines beside its own label.
        generator: stream to draw from.
    """
    count, side = len(images), images.shape[-1]
    widths = (0.5 + 0.5 * torch.rand(count, 4, generator=generator)) * width * side
    chosen, filling = torch.rand(2, count, generator=generator)
    noise = torch.randn(images.shape, generator=generator) if share > 0 else images
    other = images[torch.randperm(count, generator=generator)]
    if share == 0:
        return images
    widths[chosen >= share] = 0
    at = torch.arange(side) + 0.5
    near, far = at < widths[:, :, None], side - at < widths[:, :, None]  # (B, 4, side)
    frame = near[:, 0, :, None] | far[:, 1, :, None] | near[:, 2, None, :] | far[:, 3, None, :]
    mean, std = images.mean(dim=(1, 2, 3), keepdim=True), images.std(dim=(1, 2, 3), keepdim=True)
    filling = filling[:, None, None, None]
    content = torch.where(
        filling < _OTHER, other, torch.where(filling < _MEAN, mean, (mean + std * noise).clamp(-1, 1))
    )
    return torch.where(frame[:, None], content, images)


def paste_marks(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Replaces a small patch beside the chest by the same patch of another image, which hides or brings a marker.

    Markers stand beside the chest: the patch's centre lies outside the middle (0.2 to 0.8 of the width, below 0.2 of
    the height). No search for letters: at 64 px a letter is three pixels wide.

    Args:
        images: (B, 1, H, W).
        share: of images, 0..1.
        generator: stream to draw from.
    """
    count, side = len(images), images.shape[-1]
    u = torch.rand(count, 6, generator=generator)
    other = images[torch.randperm(count, generator=generator)]
    if share == 0:
        return images
    beside = u[:, 1] < 0.5  # else above
    x = torch.where(beside, torch.where(u[:, 2] < 0.5, 0.2 * u[:, 3], 1 - 0.2 * u[:, 3]), u[:, 3]) * side
    y = torch.where(beside, u[:, 4], 0.2 * u[:, 4]) * side
    half = (_MARK[0] + (_MARK[1] - _MARK[0]) * u[:, 5]) * side / 2
    at = torch.arange(side) + 0.5
    inside = ((at - x[:, None]).abs() < half[:, None])[:, None, :] & ((at - y[:, None]).abs() < half[:, None])[
        :, :, None
    ]
    inside &= (u[:, 0] < share)[:, None, None]
    return torch.where(inside[:, None], other, images)
