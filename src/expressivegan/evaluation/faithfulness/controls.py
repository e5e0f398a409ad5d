"""Maps that know nothing of the network: what a figure must be read against."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from expressivegan.evaluation.faithfulness.arrays import Floats, check_array, check_images, enlarge
from expressivegan.images import UInt8Array
from expressivegan.streams import derive_seed

CONTROLS = ("random", "centre", "edges", "blurred image")
"""What a map is held against; the best of them counts."""
_CENTRE, _BLUR = 1 / 4, 1 / 16  # standard deviations, as shares of the side


def controls(images: UInt8Array, seed: int = 0, cells: int = 8) -> dict[str, Floats]:
    """The four controls of images, each (N, H, W), by the names of `CONTROLS`.

    - random: uniform numbers on a grid of `cells` x `cells`, enlarged as a CAM is. Pixels that are random one by one
      would be an easier opponent: what they remove can be told from its neighbours.
    - centre: a Gaussian in the middle, σ a quarter of the side (Judd et al., ICCV 2009: photographers centre things).
    - edges: Sobel's gradient magnitude of the image (Adebayo et al. 2018: many maps are edge detectors).
    - blurred image: brightness, smoothed with σ a sixteenth of the side. A consolidation is bright, so this finds some
      without any network, and better than the other three do.

    Raises:
        InputError: not uint8 (N, H, W).
    """
    pixels = check_images(images).astype(np.float64)
    height, width = pixels.shape[1:]
    rng = np.random.default_rng(derive_seed(seed, "faithfulness.controls"))
    y, x = ((np.arange(n) + 0.5) / n - 0.5 for n in (height, width))
    centre = np.exp(-(y[:, None] ** 2 + x[None] ** 2) / (2 * _CENTRE**2))
    return {
        "random": enlarge(rng.random((len(pixels), cells, cells)), (height, width)),
        "centre": np.broadcast_to(centre, pixels.shape),
        "edges": np.hypot(*(ndimage.sobel(pixels, axis) for axis in (1, 2))),
        "blurred image": blur(pixels, _BLUR),
    }


def blur(maps: npt.ArrayLike, share: float) -> Floats:
    """(N, H, W) smoothed with a Gaussian whose σ is this share of the side."""
    found = check_array(maps)
    smooth: Floats = ndimage.gaussian_filter(found, (0, share * found.shape[1], share * found.shape[2]), mode="nearest")
    return smooth
