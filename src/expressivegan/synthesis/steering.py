"""Where the disease shall be: a picture, shapes or a named zone → the map that bounds M."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from expressivegan.errors import InputError
from expressivegan.images import check_maps

SOFT = 0.4  # of a shape's half axes: the share over which its map rises from 0 at the edge to 1


class Ellipse(NamedTuple):
    """Centre and half axes, as shares of the picture's sides; x to the right of the picture, y downwards."""

    x: float
    y: float
    rx: float
    ry: float


# Middles of thirds of the lungs between apex (0.22) and diaphragm (0.77 right, 0.80 left), beside heart and mid-line:
# the median landmarks of 300 NORMAL images of Kermany's set. All have the same area.
ZONES = {
    "right upper": Ellipse(0.32, 0.34, 0.12, 0.11),
    "right middle": Ellipse(0.29, 0.50, 0.12, 0.11),
    "right lower": Ellipse(0.28, 0.66, 0.12, 0.11),
    "left upper": Ellipse(0.69, 0.34, 0.12, 0.11),
    "left middle": Ellipse(0.73, 0.50, 0.12, 0.11),
    "left lower": Ellipse(0.76, 0.66, 0.12, 0.11),
}
"""Right and left are the patient's: the right lung is on the picture's left."""

_HOW = (
    f"a grey picture, 'ellipse X Y RX RY', 'box X0 Y0 X1 Y1', or a zone: {', '.join(ZONES)} "
    "(right and left are the patient's: the right lung is on the picture's left)"
)

_EXAMPLE = {"ellipse": "0.3 0.6 0.12 0.18", "box": "0.15 0.5 0.45 0.8"}
_ROUNDING = 1e-9  # 0.7 + 0.3 may exceed 1


def steering_map(what: str | Path | Sequence[str | Path], resolution: int) -> Tensor:
    """The map that says where the disease may be, for `steer` of the generator.

    Args:
        what: one region, or several that are joined (the larger value counts). Each is the path of a grey picture of
            the model's size (black 0, white 1), `"ellipse X Y RX RY"` or `"box X0 Y0 X1 Y1"` with coordinates as shares
            of the sides (x to the right of the picture, y downwards), or a name of `ZONES`.
        resolution: side of the model's images.

    Returns:
        (1, 1, resolution, resolution) in [0, 1]; 0 outside the shapes, whose edges are soft inwards.

    Raises:
        InputError: none of these, outside of the picture, without area, or a picture of another size or kind.

    >>> steering_map("box 0 0 0.5 1", 32)[0, 0, 16, [0, 4, 15, 16]]
    tensor([0.1562, 1.0000, 0.1562, 0.0000])
    """
    parts = [what] if isinstance(what, (str, Path)) else list(what)
    if not parts:
        raise InputError(f"steer names no region; give {_HOW}")
    whole = " ".join(str(part) for part in parts)
    if len(parts) > 1 and (whole.casefold() in ZONES or str(parts[0]).casefold() in ("ellipse", "box")):
        raise InputError(f'steer (={whole}) is one region, of several words: put it in quotes, --steer "{whole}"')
    maps = torch.cat([_region(part, resolution) for part in parts])
    return maps.amax(0, keepdim=True)


def check_steering(steer: Tensor, resolution: int) -> Tensor:
    """A region as (1, 1, resolution, resolution) in [0, 1] with some area.

    Raises:
        InputError: another shape, values out of range or not numbers, or 0 everywhere.
    """
    check_maps(steer, "steer")
    if steer.shape != (1, 1, resolution, resolution):
        raise InputError(
            f"steer must be {(1, 1, resolution, resolution)} as the model's images, not {tuple(steer.shape)}"
        )
    if not bool((steer > 0).any()):
        raise InputError(
            "steer is 0 everywhere, which leaves no place for the disease; mark a region with values above 0"
        )
    return steer


def ellipse_maps(ellipses: Tensor, size: int) -> Tensor:
    """Maps (B, 1, size, size) of ellipses (B, 4) as in `Ellipse`: 0 outside, rising to 1 within `SOFT` of the radii."""
    at = _centres(size).to(ellipses)
    x, y, rx, ry = (ellipses[:, i, None, None] for i in range(4))
    away = (((at[None, None, :] - x) / rx).square() + ((at[None, :, None] - y) / ry).square()).sqrt()
    return ((1 - away) / SOFT).clamp(0, 1).unsqueeze(1)


def _region(what: str | Path, resolution: int) -> Tensor:
    words = str(what).split()
    name = " ".join(words).casefold()
    if name in ZONES:
        return ellipse_maps(torch.tensor([ZONES[name]]), resolution)
    if words and words[0].casefold() in ("ellipse", "box"):
        return _shape(str(what), words[0].casefold(), words[1:], resolution)
    path = Path(what)
    try:
        found = path.is_file()
    except (OSError, ValueError):  # a name too long for the file system, or with a zero byte
        found = False
    if found:
        return _picture(path, resolution)
    raise InputError(f"steer (={str(what)!r}) is neither a file nor a known region; give {_HOW}")


def _shape(text: str, kind: str, words: list[str], resolution: int) -> Tensor:
    wanted = "ellipse X Y RX RY" if kind == "ellipse" else "box X0 Y0 X1 Y1"
    try:
        numbers = [float(w) for w in words]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(math.isfinite(n) for n in numbers):
        raise InputError(
            f"steer (={text!r}) must be '{wanted}' with four finite numbers, such as '{kind} {_EXAMPLE[kind]}'"
        )
    a, b, c, d = numbers
    x0, y0, x1, y1 = (a - c, b - d, a + c, b + d) if kind == "ellipse" else (a, b, c, d)
    if x1 <= x0 or y1 <= y0:
        what = "RX and RY above 0" if kind == "ellipse" else "X0 below X1 and Y0 below Y1"
        raise InputError(f"steer (={text!r}) has no area; '{wanted}' needs {what}")
    if min(x0, y0) < -_ROUNDING or max(x1, y1) > 1 + _ROUNDING:
        raise InputError(
            f"steer (={text!r}) lies outside of the picture (x {x0:.3g} to {x1:.3g}, y {y0:.3g} to {y1:.3g}); "
            "coordinates are shares of its sides, from 0 to 1"
        )
    found = ellipse_maps(torch.tensor([numbers]), resolution) if kind == "ellipse" else _box(x0, y0, x1, y1, resolution)
    if not bool((found > 0).any()):
        raise InputError(f"steer (={text!r}) is too small to hold a pixel's centre at {resolution} px; make it larger")
    return found


def _centres(resolution: int) -> Tensor:
    return (torch.arange(resolution) + 0.5) / resolution


def _box(x0: float, y0: float, x1: float, y1: float, resolution: int) -> Tensor:
    at = _centres(resolution)

    def along(low: float, high: float) -> Tensor:
        return 1 - (at - (low + high) / 2).abs() / ((high - low) / 2)  # 1 in the middle, 0 at the edges

    inward = torch.minimum(along(y0, y1)[:, None], along(x0, x1)[None, :])
    return (inward / SOFT).clamp(0, 1)[None, None]


def _picture(path: Path, resolution: int) -> Tensor:
    try:
        with Image.open(path) as image:
            mode, size = image.mode, image.size
            image.load()
            pixels = np.asarray(image.convert("L")) if mode in ("1", "L") else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"steer (={str(path)!r}) cannot be read as a picture; give {_HOW}") from error
    if pixels is None:
        raise InputError(
            f"steer (={str(path)!r}) has pixels of mode {mode}; save the region as 8-bit grey, black 0, white 1"
        )
    if size != (resolution, resolution):
        raise InputError(
            f"steer (={str(path)!r}) has {size[0]}x{size[1]} pixels; the model's images, and so its regions, have "
            f"{resolution}x{resolution}"
        )
    if not pixels.any():
        raise InputError(
            f"steer (={str(path)!r}) is black everywhere, which leaves no place for the disease; paint a region white"
        )
    return torch.from_numpy(pixels.astype(np.float32) / 255)[None, None]
