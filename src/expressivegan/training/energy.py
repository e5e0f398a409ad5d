"""Made images shall be distributed as real ones of their class, in a few figures of each: an energy distance."""

import functools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from expressivegan.training.pairs import mean_by_group, pairs_within


class RealPoints(NamedTuple):
    """What is known of the real images of each class.

    Attributes:
        points: (N, D).
        weights: (K, N), 1 / (images of the class) where an image is of the class, else 0.
        spread: (K,), mean distance of two images of a class.
    """

    points: Tensor
    weights: Tensor
    spread: Tensor


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """Distance along the last axis, rounded off below 0.01, where its slope would amplify rounding."""
    return ((a - b).square().sum(-1) + 1e-4).sqrt()


def _all_apart(a: Tensor, b: Tensor) -> Tensor:
    """(N, D), (M, D) → (N, M), as `_apart`, by a matrix product: a tenth of the time of all differences."""
    a, b = a - b.mean(0), b - b.mean(0)  # little is cancelled then
    squared = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T
    return (squared.clamp_min(0) + 1e-4).sqrt()


def evenly(labels: Tensor, classes: int, most: int = 2000) -> Tensor:
    """Places of at most so many real images of each class: the cost of a step, and of looking at them, grows with them.

    >>> evenly(torch.tensor([0, 1, 0, 0]), 2, most=2).tolist()
    [0, 3, 1]
    """
    members = [(labels == k).nonzero().squeeze(1) for k in range(classes)]
    return torch.cat([m[torch.linspace(0, len(m) - 1, most).long()] if len(m) > most else m for m in members])


def real_points(points: Tensor, labels: Tensor, classes: int) -> RealPoints:
    """Points (N, D) and labels (N,) of real images → what `energy_distance` holds made ones against."""
    weights = F.one_hot(labels, classes).T.to(points.dtype)
    spread = []
    for k in range(classes):
        own = points[labels == k]
        spread.append(_all_apart(own, own).fill_diagonal_(0).sum() / max(len(own) * (len(own) - 1), 1))
    return RealPoints(points, weights / weights.sum(1, keepdim=True).clamp_min(1), torch.stack(spread))


def energy_distance(points: Tensor, labels: Tensor, kinds: Tensor, real: RealPoints, group: int) -> Tensor:
    """How far made images are distributed from real ones of the same class.

    The energy distance 2 E‖X - T‖ - E‖X - X'‖ - E‖T - T'‖ (Székely and Rizzo, 2013, equation 5), without bias: over
    pairs of made images of one class, and with all real images of that class. It is 0 where the points tell nothing
    that tells real from made images, spread and unusual ones included; a match of means would make all of them alike.

    Args:
        points: (B, D) of made images.
        labels: (B,).
        kinds: (B,) integers or booleans; made images of one label and kind make pairs, so that each kind has to be as
            real ones.
        real: of real images.
        group: consecutive images that make pairs, so that it does not depend on how a batch is spread over processes.
    """
    to_real = (_all_apart(points, real.points) * real.weights[labels]).sum(1)
    pairs = pairs_within(len(labels), group, labels.device)
    a, b = pairs.first, pairs.second
    costs = to_real[a] + to_real[b] - _apart(points[a], points[b]) - real.spread[labels[a]]
    alike = (labels[a] == labels[b]) & (kinds[a] == kinds[b])
    return (mean_by_group(costs, alike, pairs) * pairs.sizes).sum() / len(labels)


@functools.lru_cache(maxsize=8)
def _rings(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A window (side, side) that fades to 0 at the edges, and the mean over each ring of frequencies, 2..side/2."""
    fade = torch.hann_window(side, periodic=False, device=device)
    rows, columns = torch.fft.fftfreq(side, 1 / side), torch.fft.rfftfreq(side, 1 / side)
    radius = torch.hypot(rows[:, None], columns[None]).round().flatten()
    rings = (radius[None] == torch.arange(2, side // 2 + 1)[:, None]).float()
    return torch.outer(fade, fade), (rings / rings.sum(1, keepdim=True)).to(device)


def log_power(images: Tensor) -> Tensor:
    """(B, 1, H, W) → (B, R): ln of an image's power in each of R rings of spatial frequency, over √R.

    What Durall et al., *Watch your up-convolution*, CVPR 2020, section 4, match on average. The discriminator hardly
    sees the finest detail: X-rays have thousands of times less power there. Distances are root mean squares over rings.

    >>> images = torch.rand(2, 1, 16, 16)
    >>> round((log_power(3 * images - 1) - log_power(images)).norm(dim=1)[0].item(), 3)  # ln 9
    2.197
    """
    window, rings = _rings(images.shape[-1], images.device)
    x = images.to(torch.promote_types(images.dtype, torch.float32))
    spectrum = torch.fft.rfft2((x - x.mean(dim=(2, 3), keepdim=True)) * window.to(x))
    power = (spectrum.real.square() + spectrum.imag.square()).flatten(1) @ rings.to(x).T
    found: Tensor = (power + 1e-6).log() / math.sqrt(len(rings))
    return found
