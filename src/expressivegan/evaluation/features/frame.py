"""How pixels become what a network sees: size, channels, value range. The one place where that is decided.

Size: bicubic with antialiasing in floating point, clipped to the range of pixels, as clean-fid does it (Parmar, Zhang
and Zhu, CVPR 2022, section 3): Pillow's filter, to 1e-3 of 255 grey levels. Without antialiasing a reduced image holds
patterns that the original lacks, and every distance measures those. An image that is not square is stretched.
Channels: grey is repeated. Range: (pixel - mean) / std with pixels in 0..255, as each network's authors define it.
"""

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from expressivegan.images import UInt8Array, from_uint8

_VERSION = 1  # raise it with every change of what `prepare` returns: cached features are made anew


@dataclass(frozen=True)
class Frame:
    """Size, channels and range of a network's input."""

    side: int | None
    """Side of the square frame; None leaves images as they are."""
    channels: int = 1
    mean: float = 127.5
    """Grey level, of 0..255, that becomes 0."""
    std: float = 127.5
    """Grey levels per unit. The default of mean and std gives [-1, 1]."""
    version: int = _VERSION

    def prepare(self, images: UInt8Array) -> Tensor:
        """uint8 (N, H, W) → float32 (N, channels, side, side) in [(0 - mean) / std, (255 - mean) / std].

        >>> Frame(2).prepare(np.array([[[0, 255], [51, 204]]], np.uint8)).tolist()
        [[[[-1.0, 1.0], [-0.6..., 0.6...]]]]
        """
        x = from_uint8(np.ascontiguousarray(images)).unsqueeze(1)
        if self.side is not None:
            x = resize(x, self.side)
        if (self.mean, self.std) != (127.5, 127.5):
            x = (x * 127.5 + (127.5 - self.mean)) / self.std
        return x.expand(-1, self.channels, -1, -1)


XRV = Frame(224)  # [-1, 1]; the network itself multiplies by 1024, see teacher/backbone.py
INCEPTION = Frame(299, channels=3, mean=128.0, std=128.0)  # TensorFlow's graph; torch-fidelity, pytorch-fid, clean-fid
RAD_DINO = Frame(518, channels=3, mean=0.5307 * 255, std=0.2583 * 255)  # its preprocessor_config.json


def resize(images: Tensor, side: int) -> Tensor:
    """(N, 1, H, W) in [-1, 1] → (N, 1, side, side) in [-1, 1], bicubic with antialiasing."""
    if images.shape[-2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bicubic", align_corners=False, antialias=True).clamp(-1, 1)


def mask_border(images: Tensor, share: float) -> Tensor:
    """Sets the outer `share` of the frame to 0 (mid grey) at each side. (B, C, H, W) → the same shape."""
    if share <= 0:
        return images
    height, width = images.shape[-2:]
    y, x = round(height * share), round(width * share)
    inner = images[..., y : height - y, x : width - x]
    return F.pad(inner, (x, x, y, y))
