"""The baseline's step, as the original describes it: BCE, and the teacher run on every batch, in fp32.

What keeps it from being a straw man: one-sided label smoothing (Salimans et al., NeurIPS 2016), Adam's β₁ of 0.5,
labels as input of both networks, an averaged generator, and augmentation where `augment` asks for it (the original
has none).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from expressivegan.config import TrainConfig
from expressivegan.training.augment import augment_images, augment_maps
from expressivegan.training.steps import Batch, Networks, Terms, update


def _bce(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def dcgan_step(
    nets: Networks,
    batch: Batch,
    config: TrainConfig,
    *,
    check: Callable[[Terms], None],
    average_gradients: Callable[[torch.nn.Module], None],
) -> Terms:
    """One step of both networks. The teacher's merged map is the target of both heatmaps."""
    fake, attention = nets.G(batch.z, batch.labels)
    nets.D.requires_grad_(True)
    real, shown = augment_images(batch.real, batch.augment_real), augment_images(fake, batch.augment_fake)
    real_score, real_heat = nets.D(real, batch.labels)
    fake_score, _ = nets.D(shown.detach(), batch.labels)
    d_terms: Terms = {"d_adversarial": _bce(real_score, 0.9) + _bce(fake_score, 0.0)}
    if nets.guide is not None and config.cam_weight_d > 0:
        with torch.no_grad():
            cams = augment_maps(nets.guide.teacher(batch.real).cams, batch.augment_real)
        d_terms["d_cam"] = config.cam_weight_d * F.l1_loss(real_heat, cams)
    update(nets.D, nets.optimiser_d, d_terms, check, average_gradients)

    nets.D.requires_grad_(False)
    score, _ = nets.D(shown, batch.labels)
    g_terms: Terms = {"g_adversarial": _bce(score, 1.0)}
    if nets.guide is not None and config.cam_weight_g > 0:
        g_terms["g_cam"] = config.cam_weight_g * F.l1_loss(attention[-1], nets.guide.teacher(fake).cams)
    update(nets.G, nets.optimiser_g, g_terms, check, average_gradients)
    return {name: term.detach() for name, term in (d_terms | g_terms).items()}
