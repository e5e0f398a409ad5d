"""The terms of the objective. Each is a mean over a batch, so that gradients of processes can be averaged."""

import torch
import torch.nn.functional as F
from torch import Tensor

from expressivegan.models.penalised import input_gradients_only
from expressivegan.teacher import referenced
from expressivegan.training.pairs import GROUP, mean_by_group, pairs_within


def relativistic(better: Tensor, worse: Tensor) -> Tensor:
    """`softplus(-(better - worse))` of paired scores (B, 1) (Jolicoeur-Martineau, ICLR 2019; R3GAN, equation 1)."""
    return F.softplus(worse - better).mean()


def gradient_penalty(scores: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of each score by its image: its squared norm (B,), R1 on real and R2 on made images, and itself.

    Mescheder et al., *Which training methods for GANs do actually converge?*, ICML 2018, equation 9, without γ/2.
    """
    with input_gradients_only():
        (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)), gradient


def censored_match(maps: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance of unbounded maps to targets in [0, 1].

    A target of 0 or 1 is a bound that was reached, not a value: less than 0, or more than 1, costs nothing.

    >>> censored_match(torch.tensor([-3.0, 0.5]), torch.tensor([0.0, 1.0])).item()
    0.125
    """
    gap = maps - target
    gap = torch.where(target <= 0, gap.clamp(min=0), torch.where(target >= 1, gap.clamp(max=0), gap))
    return gap.square().mean()


def _anatomy(images: Tensor) -> Tensor:
    """(B, 256): 16x16 averages of each image, without its brightness and contrast."""
    small = F.adaptive_avg_pool2d(images, 16).flatten(1)
    small = small - small.mean(1, keepdim=True)
    return small / (small.square().mean(1, keepdim=True) + 1e-6).sqrt()  # a constant image has a gradient, too


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
    pairs = pairs_within(len(labels), group, labels.device)
    a, b = pairs.first, pairs.second
    x, g = _anatomy(real), _anatomy(fake)
    same = labels[a] == labels[b]
    wanted = mean_by_group((x[a] - x[b]).norm(dim=1), same, pairs)
    found = mean_by_group(((g[a] - g[b]).square().sum(1) + 1e-8).sqrt(), same, pairs)
    lost = (1 - found / wanted.clamp_min(1e-3)).clamp_min(0)
    return (torch.where(wanted > 0, lost, 0) * pairs.sizes).sum() / len(labels)


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


def _disease(logits: Tensor, reference: int) -> Tensor:
    """(B,) the largest logit of a class with a lesion, of logits less the reference's."""
    return logits[:, [k for k in range(logits.shape[1]) if k != reference]].amax(1)


def base_hinge(logits: Tensor, reference: int, margin: float = 1.0) -> Tensor:
    """(N,): the teacher must prefer the reference class in each of the bases of diseased images.

    A hinge, since a teacher that may be pleased without limit asks for caricatures. Those of the reference class are
    their own bases, and are not charged.

    Args:
        logits: (N, K) of the bases.
        reference: label of the class without a lesion.
        margin: in logits.
    """
    return (margin + _disease(referenced(logits, reference), reference)).clamp_min(0)


def image_hinge(logits: Tensor, labels: Tensor, reference: int, margin: float = 1.0) -> Tensor:
    """The teacher must prefer the label to the reference in images, and of the reference class the reference to all.

    It makes clear cases of all images, so it is for the beginning of a run; then `energy_distance` takes its place.

    Args:
        logits: (B, K) of the images.
        labels: (B,).
        reference, margin: as of `base_hinge`.
    """
    logits = referenced(logits, reference)
    own = logits[torch.arange(len(labels), device=labels.device), labels]
    return (margin - torch.where(labels == reference, -_disease(logits, reference), own)).clamp_min(0).mean()
