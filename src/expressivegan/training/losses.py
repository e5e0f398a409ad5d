"""The terms of the objective. Each is a mean over a batch, so that gradients of processes can be averaged."""

import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from expressivegan.models.penalised import input_gradients_only
from expressivegan.teacher import referenced


def relativistic(better: Tensor, worse: Tensor) -> Tensor:
    """`softplus(-(better - worse))` of paired scores (B, 1) (Jolicoeur-Martineau, ICLR 2019; R3GAN, equation 1)."""
    return F.softplus(worse - better).mean()


def gradient_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """(B,) squared norm of the gradient of each score by its image: R1 on real and R2 on made images.

    Mescheder et al., *Which training methods for GANs do actually converge?*, ICML 2018, equation 9, without γ/2.
    """
    with input_gradients_only():
        (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3))


def censored_match(maps: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance of unbounded maps to targets in [0, 1].

    A target of 0 or 1 is a bound that was reached, not a value: less than 0, or more than 1, costs nothing.

    >>> censored_match(torch.tensor([-3.0, 0.5]), torch.tensor([0.0, 1.0])).item()
    0.125
    """
    return (maps.clamp(0, 1) - target).square().mean() + (
        (maps.clamp(max=0).square() * (target > 0)) + ((maps - 1).clamp(min=0).square() * (target < 1))
    ).mean()


def _anatomy(images: Tensor) -> Tensor:
    """(B, 256): 16x16 averages of each image, without its brightness and contrast."""
    small = F.adaptive_avg_pool2d(images, 16).flatten(1)
    small = small - small.mean(1, keepdim=True)
    return small / (small.square().mean(1, keepdim=True) + 1e-6).sqrt()  # a constant image has a gradient, too


GROUP = 8
"""Consecutive images of a batch that are held against each other; a process holds whole groups."""


def lost_diversity(real: Tensor, fake: Tensor, labels: Tensor, group: int = GROUP) -> Tensor:
    """How much less than real ones made images of one class differ from each other: 0 is as much, 1 not at all.

    After mode seeking (Mao et al., CVPR 2019, equation 2), with the real images of the same labels as the measure, so
    that it stops at their diversity; brightness and contrast do not count. Taken within groups of consecutive images,
    so that it does not depend on how a batch is spread over processes.

    Args:
        real, fake: (B, 1, H, W) in [-1, 1], of the same labels.
        labels: (B,).
        group: images in a group; the last one may be smaller.
    """
    costs = []
    for x, g, y in zip(*(torch.split(t, group) for t in (_anatomy(real), _anatomy(fake), labels)), strict=True):
        a, b = torch.triu_indices(len(y), len(y), 1, device=y.device)
        same = y[a] == y[b]
        if not bool(same.any()):
            costs.append(g.sum() * 0)
            continue
        wanted = (x[a] - x[b])[same].norm(dim=1).mean()
        found = ((g[a] - g[b])[same].square().sum(1) + 1e-8).sqrt().mean()
        costs.append((1 - found / wanted.clamp_min(1e-3)).clamp_min(0) * len(y))
    return torch.stack(costs).sum() / len(labels)


@functools.lru_cache(maxsize=8)
def _rings(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A window (side, side) that fades to 0 at the edges, and the mean over each ring of frequencies, 2..side/2."""
    fade = torch.hann_window(side, periodic=False, device=device)
    rows, columns = torch.fft.fftfreq(side, 1 / side), torch.fft.rfftfreq(side, 1 / side)
    radius = torch.hypot(rows[:, None], columns[None]).round().flatten()
    rings = (radius[None] == torch.arange(2, side // 2 + 1)[:, None]).float()
    return torch.outer(fade, fade), (rings / rings.sum(1, keepdim=True)).to(device)


def wrong_detail(real: Tensor, fake: Tensor, group: int = GROUP) -> Tensor:
    """Mean |ln(power of made images / power of real ones)| over rings of spatial frequency, in groups of images.

    After Durall et al., *Watch your up-convolution*, CVPR 2020, section 4, with the batch's real images as the measure.
    The discriminator hardly sees the finest detail: X-rays have thousands of times less power there.

    Args:
        real, fake: (B, 1, H, W), of the same labels.
        group: images over which power is averaged; the last one may be smaller.

    >>> images = torch.rand(8, 1, 16, 16)
    >>> round(wrong_detail(images, 3 * images - 1).item(), 3)  # ln 9
    2.197
    """
    window, rings = _rings(fake.shape[-1], fake.device)

    def power(images: Tensor) -> Tensor:
        x = images.to(torch.promote_types(images.dtype, torch.float32))
        spectrum = torch.fft.rfft2((x - x.mean(dim=(2, 3), keepdim=True)) * window.to(x))
        found: Tensor = rings.to(x) @ (spectrum.real.square() + spectrum.imag.square()).mean(0).flatten()
        return found

    costs = [
        (power(g) + 1e-6).log().sub((power(x) + 1e-6).log()).abs().mean() * len(g)
        for x, g in zip(torch.split(real, group), torch.split(fake, group), strict=True)
    ]
    return torch.stack(costs).sum() / len(fake)


def area_cost(mask: Tensor, limit: float) -> Tensor:
    """Mean excess of each image's mean M (B, 1, H, W) over the limit."""
    return (mask.mean(dim=(1, 2, 3)) - limit).clamp_min(0).mean()


def hidden_change(delta: Tensor, mask: Tensor) -> Tensor:
    """Mean |δ| where M does not let it through."""
    return (delta.abs() * (1 - mask.detach())).mean()


def map_match(cams: Tensor, mask: Tensor) -> Tensor:
    """L1 between the teacher's maps (B, h, w) of made images and their M (B, 1, H, W), pooled to the same grid."""
    pooled = F.adaptive_avg_pool2d(mask, (cams.shape[-2], cams.shape[-1])).squeeze(1)
    # Leaky at both ends, so that a map far outside [0, 1] still has a way back
    soft = cams.clamp(0, 1) + 0.05 * (cams - cams.clamp(0, 1))
    return (soft - pooled).abs().mean()


class ClassLogits(NamedTuple):
    """What the teacher says of the real images of each class.

    Attributes:
        logits: (N, K), less those of the reference class, or less their mean.
        weights: (K, N), 1 / (images of the class) where an image is of the class, else 0.
        spread: (K,), mean distance of two images of a class.
    """

    logits: Tensor
    weights: Tensor
    spread: Tensor


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """Distance along the last axis, rounded off below 0.01, where its slope would amplify rounding."""
    return ((a - b).square().sum(-1) + 1e-4).sqrt()


def class_logits(logits: Tensor, labels: Tensor, reference: int | None, most: int = 2000) -> ClassLogits:
    """Logits (N, K) and labels (N,) of real images → what `logit_energy` holds made ones against.

    Of a class with more than `most` images as many are taken, evenly: a step's cost grows with them.
    """
    K = logits.shape[1]
    members = [(labels == k).nonzero().squeeze(1) for k in range(K)]
    members = [m[torch.linspace(0, len(m) - 1, most).long()] if len(m) > most else m for m in members]
    kept = torch.cat(members)
    logits, labels = referenced(logits[kept], reference), labels[kept]
    weights = F.one_hot(labels, K).T.to(logits.dtype)
    spread = []
    for k in range(K):
        own = logits[labels == k]
        total = sum((_apart(own[i : i + 1], own[i + 1 :]).sum() for i in range(len(own))), logits.new_zeros(()))
        spread.append(2 * total / max(len(own) * (len(own) - 1), 1))
    return ClassLogits(logits, weights / weights.sum(1, keepdim=True).clamp_min(1), torch.stack(spread))


def logit_energy(logits: Tensor, labels: Tensor, kinds: Tensor, real: ClassLogits, group: int) -> Tensor:
    """How far the teacher's logits of made images are distributed from those of real ones of the same class.

    The energy distance 2 E‖X - T‖ - E‖X - X'‖ - E‖T - T'‖ (Székely and Rizzo, 2013, equation 5), without bias: over
    pairs of made images of one class, and with all real images of that class. It is 0 where the teacher
    sees nothing that tells real from made images, doubtful ones included; a margin would make all of them clear cases.

    Args:
        logits: (B, K) of made images, less the reference's.
        labels: (B,).
        kinds: (B,) integers; made images of one label and kind make pairs, so that each kind has to be as real ones.
        real: of real images.
        group: consecutive images that make pairs, so that it does not depend on how a batch is spread over processes.
    """
    to_real = (_apart(logits[:, None], real.logits[None]) * real.weights[labels]).sum(1)
    costs = []
    for x, from_real, y, kind in zip(*(torch.split(t, group) for t in (logits, to_real, labels, kinds)), strict=True):
        a, b = torch.triu_indices(len(y), len(y), 1, device=y.device)
        same = (y[a] == y[b]) & (kind[a] == kind[b])
        a, b = a[same], b[same]
        pairs = from_real[a] + from_real[b] - _apart(x[a], x[b]) - real.spread[y[a]]
        costs.append(pairs.sum() / max(len(pairs), 1) * len(y))
    return torch.stack(costs).sum() / len(labels)


def _disease(logits: Tensor, reference: int) -> Tensor:
    """(B,) the largest logit of a class with a lesion, of logits less the reference's."""
    return logits[:, [k for k in range(logits.shape[1]) if k != reference]].amax(1)


def base_hinge(logits: Tensor, labels: Tensor, reference: int, margin: float = 1.0) -> Tensor:
    """The teacher must prefer the reference class in the bases of diseased images.

    A hinge, since a teacher that may be pleased without limit asks for caricatures.

    Args:
        logits: (B, K) of the bases.
        labels: (B,) of the images; those of the reference class are their own bases, and are not charged.
        reference: label of the class without a lesion.
        margin: in logits.
    """
    return ((margin + _disease(referenced(logits, reference), reference)).clamp_min(0) * (labels != reference)).mean()


def image_hinge(logits: Tensor, labels: Tensor, reference: int, margin: float = 1.0) -> Tensor:
    """The teacher must prefer the label to the reference in images, and of the reference class the reference to all.

    It makes clear cases of all images, so it is for the beginning of a run; then `logit_energy` takes its place.

    Args:
        logits: (B, K) of the images; the others as in `base_hinge`.
    """
    logits = referenced(logits, reference)
    own = logits[torch.arange(len(labels), device=labels.device), labels]
    return (margin - torch.where(labels == reference, -_disease(logits, reference), own)).clamp_min(0).mean()
