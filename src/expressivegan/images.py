"""Sole owner of value ranges, and of everything that turns tensors into pictures.

Three ranges exist: networks use [-1, 1], files 0..255, torchxrayvision [-1024, 1024]. Every conversion stands here and
raises on a value outside its range, since a wrong range fails silently everywhere else.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from expressivegan.atomic import replacing
from expressivegan.errors import InputError

UInt8Array = npt.NDArray[np.uint8]

_TOLERANCE = 1e-3  # bf16 rounds 1.0 exactly, resampling in bf16 may overshoot by less than this


def check_resolution(resolution: int) -> tuple[int, int]:
    """Splits a resolution into its coarsest grid and the number of doublings.

    Returns:
        (start, doublings) with resolution == start * 2**doublings; start is 7 or 4.

    Raises:
        InputError: the resolution is neither 7·2^k nor 4·2^k between 28 and 1024.

    >>> check_resolution(224), check_resolution(64)
    ((7, 5), (4, 4))
    """
    for start in (7, 4):
        doublings = round(math.log2(resolution / start)) if resolution > 0 else -1
        if doublings >= 2 and start * 2**doublings == resolution and 28 <= resolution <= 1024:
            return start, doublings
    allowed = sorted(s * 2**k for s in (4, 7) for k in range(2, 9) if 28 <= s * 2**k <= 1024)
    nearest = sorted(allowed, key=lambda r: abs(r - resolution))[:2]
    raise InputError(
        f"resolution (={resolution}) must be 7·2^k or 4·2^k from 28 to 1024; try {nearest[0]} or {nearest[1]}"
    )


def check_images(images: Tensor, name: str = "images") -> None:
    """Raises unless `images` is float (B, 1, H, W) with values in [-1, 1].

    Raises:
        InputError: wrong shape, type, not finite, or out of range.
    """
    if images.ndim != 4 or images.shape[1] != 1 or images.numel() == 0:
        raise InputError(f"{name} must have shape (B, 1, H, W), not {tuple(images.shape)}")
    if not images.is_floating_point():
        raise InputError(f"{name} must be floating point in [-1, 1], not {images.dtype}; see images.from_uint8")
    low, high = (float(v) for v in torch.aminmax(images.detach()))
    if not (low >= -1 - _TOLERANCE and high <= 1 + _TOLERANCE):  # also catches NaN
        raise InputError(
            f"{name} must lie in [-1, 1] but span [{low:.4g}, {high:.4g}]; convert 0..255 with images.from_uint8"
        )


def check_maps(maps: Tensor, name: str = "maps") -> None:
    """Raises unless `maps` is float (B, 1, H, W) with values in [0, 1].

    Raises:
        InputError: wrong shape, type, not finite, or out of range.
    """
    if maps.ndim != 4 or maps.shape[1] != 1 or not maps.is_floating_point():
        raise InputError(f"{name} must be floating point (B, 1, H, W), not {maps.dtype} {tuple(maps.shape)}")
    low, high = (float(v) for v in torch.aminmax(maps.detach()))
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
        raise InputError(f"{name} must lie in [0, 1] but span [{low:.4g}, {high:.4g}]")


def from_uint8(images: Tensor | UInt8Array) -> Tensor:
    """0..255 files → [-1, 1] networks, float32, same shape. Raises InputError unless uint8."""
    tensor = torch.as_tensor(images)
    if tensor.dtype != torch.uint8:
        raise InputError(f"images must be uint8, not {tensor.dtype}")
    return tensor.to(torch.float32).div_(127.5).sub_(1)


def to_uint8(images: Tensor) -> Tensor:
    """[-1, 1] networks → 0..255 files, uint8 (B, 1, H, W), rounded to nearest. Raises InputError out of range.

    >>> to_uint8(torch.tensor([[[[-1.0, 0.0, 1.0]]]])).tolist()
    [[[[0, 128, 255]]]]
    """
    check_images(images)
    return images.detach().float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def to_xrv(images: Tensor) -> Tensor:
    """[-1, 1] networks → [-1024, 1024], the range of torchxrayvision. Raises InputError out of range."""
    check_images(images)
    return images * 1024


def _columns(count: int, columns: int | None) -> int:
    return columns or max(1, math.ceil(math.sqrt(count)))


def grid(images: Tensor | UInt8Array, columns: int | None = None, pad: int = 2) -> UInt8Array:
    """Tiles images into one picture.

    Args:
        images: float (B, 1, H, W) in [-1, 1], or uint8 (B, H, W) or (B, H, W, 3).
        columns: tiles in a row; the default makes a square.
        pad: white pixels between tiles.

    Returns:
        uint8 (H', W') or (H', W', 3).
    """
    tiles = to_uint8(images).squeeze(1).cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    if tiles.ndim not in (3, 4) or len(tiles) == 0:
        raise InputError(f"images must be a non-empty batch, not of shape {tiles.shape}")
    across = _columns(len(tiles), columns)
    down = math.ceil(len(tiles) / across)
    h, w = tiles.shape[1:3]
    canvas = np.full((down * (h + pad) - pad, across * (w + pad) - pad, *tiles.shape[3:]), 255, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = (i // across) * (h + pad), (i % across) * (w + pad)
        canvas[y : y + h, x : x + w] = tile
    return canvas


def overlay(images: Tensor, maps: Tensor, opacity: float = 0.55, colours: str = "inferno") -> UInt8Array:
    """Paints maps over images; where a map is 0 the image is untouched.

    Args:
        images: (B, 1, H, W) in [-1, 1].
        maps: (B, 1, H, W) in [0, 1]; drawn as they are, without per-image scaling.
        opacity: share of colour where the map is 1.
        colours: a matplotlib colour map.

    Returns:
        uint8 (B, H, W, 3).
    """
    check_maps(maps)
    if maps.shape != images.shape:
        raise InputError(f"maps {tuple(maps.shape)} and images {tuple(images.shape)} must have one shape")
    grey = to_uint8(images).squeeze(1).cpu().numpy()[..., None].astype(np.float32)
    level = maps.detach().float().clamp(0, 1).squeeze(1).cpu().numpy()
    colour = matplotlib.colormaps[colours](level)[..., :3].astype(np.float32) * 255
    alpha = opacity * level[..., None]
    mixed: UInt8Array = ((1 - alpha) * grey + alpha * colour).round().astype(np.uint8)
    return mixed


def save_png(path: Path | str, pixels: UInt8Array, text: Mapping[str, str] | None = None) -> None:
    """Writes a PNG atomically, with optional text chunks.

    Args:
        path: where it shall stand; its folder exists.
        pixels: uint8 (H, W) or (H, W, 3).
        text: key → value, written as PNG text chunks.
    """
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value)
    with replacing(Path(path)) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG", pnginfo=info)


def show_image_tensor(
    image_tensor: Tensor,
    num_images: int = 16,
    attention: Tensor | None = None,
    columns: int | None = None,
    titles: Sequence[str] | None = None,
    show: bool = True,
) -> Any:
    """Draws a batch in a notebook.

    Args:
        image_tensor: (B, 1, H, W) or (1, H, W) in [-1, 1], on any device, with or without gradients.
        num_images: at most so many are drawn.
        attention: optional (B, 1, H, W) in [0, 1], painted over the images.
        columns: images in a row; the default makes a square.
        titles: one line above each image.
        show: call `matplotlib.pyplot.show()`; turn off to go on drawing.

    Returns:
        The matplotlib figure.

    Raises:
        InputError: wrong shape or range.
    """
    import matplotlib.pyplot as plt

    images = image_tensor.detach().float().cpu()
    images = images.unsqueeze(0) if images.ndim == 3 else images
    check_images(images, "image_tensor")
    images = images[:num_images]
    if attention is not None:
        attention = attention.unsqueeze(0) if attention.ndim == 3 else attention
        pixels = overlay(images, attention.detach().float().cpu()[:num_images])
    else:
        pixels = to_uint8(images).squeeze(1).numpy()
    across = _columns(len(pixels), columns)
    down = math.ceil(len(pixels) / across)
    figure, axes = plt.subplots(down, across, figsize=(2 * across, 2.2 * down), squeeze=False, layout="constrained")
    for i, axis in enumerate(axes.flat):
        axis.axis("off")
        if i < len(pixels):
            axis.imshow(pixels[i], cmap="gray", vmin=0, vmax=255)
            if titles is not None and i < len(titles):
                axis.set_title(titles[i], fontsize=8)
    if show:
        plt.show()
    return figure
