"""The adversarial step and both penalties, on one screen; it knows nothing of logging, devices or files."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from expressivegan.config import TrainConfig
from expressivegan.models import DiscriminatorWithExplain, GeneratorWithCAMGuidance
from expressivegan.models.generator import Composition
from expressivegan.synthesis.steering import ellipse_maps
from expressivegan.teacher import referenced
from expressivegan.training.augment import Augmentation, augment_images, augment_maps
from expressivegan.training.energy import RealPoints, energy_distance, log_power
from expressivegan.training.guidance import Guide
from expressivegan.training.losses import (
    area_cost,
    base_hinge,
    censored_match,
    gradient_penalty,
    hidden_change,
    image_hinge,
    lost_diversity,
    map_match,
    relativistic,
)
from expressivegan.training.pairs import GROUP
from expressivegan.training.views import lung_view

Terms = dict[str, Tensor]

MOST_MARGIN = 80.0
"""Of realness: beyond it a critic has no gradient left for the generator, since exp(-87) is the least of float32."""


@dataclass(frozen=True)
class Batch:
    """The inputs of one step; everything random has been drawn.

    Attributes:
        real: (B, 1, H, W) in [-1, 1].
        labels: (B,), of real and made images alike.
        cams: (B, K, h, w), the teacher's referenced CAMs of the real images.
        z: (B, z_dim).
        styles: (B,), of made images: the label, or where `free`, a class drawn apart from it.
        free: (B,) bool, pairs of which the lesion critic sees the lungs, and the discriminator nothing.
        steered: (B,) bool, those free pairs whose M is bounded by the map of the real image of the same label.
        drawn: (B,) bool, whose M, if steered, is bounded by an ellipse instead.
        ellipses: (B, 4), relative centre and radii (x, y, x, y).
        augment_real, augment_fake: draws.
        gamma: weight of R1 + R2, or 0 where none are due.
        logits: weight of the distance of the teacher's logits, 0 before it is charged.
        detail: weight of the distance of the powers by spatial frequency, 0 before it is charged.
    """

    real: Tensor
    labels: Tensor
    cams: Tensor
    z: Tensor
    styles: Tensor
    free: Tensor
    steered: Tensor
    drawn: Tensor
    ellipses: Tensor
    augment_real: Augmentation
    augment_fake: Augmentation
    gamma: float
    logits: float
    detail: float


@dataclass(frozen=True)
class Networks:
    """What a step works on; the lesion critic is there once a batch has had free pairs. What real images are held
    against is there once they have been looked at: their `real_logits` if a guide knows their classes, and the
    `real_power` of theirs by spatial frequency."""

    G: GeneratorWithCAMGuidance
    D: DiscriminatorWithExplain
    guide: Guide | None
    optimiser_g: torch.optim.Optimizer
    optimiser_d: torch.optim.Optimizer
    lesion_critic: DiscriminatorWithExplain | None = None
    optimiser_c: torch.optim.Optimizer | None = None
    real_logits: RealPoints | None = None
    real_power: RealPoints | None = None

    @property
    def optimisers(self) -> list[torch.optim.Optimizer]:
        """All that there are."""
        return [o for o in (self.optimiser_g, self.optimiser_d, self.optimiser_c) if o is not None]

    def critics(self, free: Tensor) -> "list[Judging]":
        """Who judges which rows of a batch: the discriminator, and the lesion critic those that are `free`."""
        found = [Judging("d", self.D, self.optimiser_d, (~free).nonzero().squeeze(1))]
        if self.lesion_critic is not None and self.optimiser_c is not None:
            found.append(Judging("c", self.lesion_critic, self.optimiser_c, free.nonzero().squeeze(1)))
        return [judging for judging in found if len(judging.rows)]


class Judging(NamedTuple):
    """A critic, the first letter of its terms, and the rows of a batch that it judges."""

    letter: str
    critic: DiscriminatorWithExplain
    optimiser: torch.optim.Optimizer
    rows: Tensor


def _own_cams(cams: Tensor, labels: Tensor) -> Tensor:
    """(B, K, h, w) → (B, 1, h, w): the map of each image's own class, in [0, 1]."""
    return cams[torch.arange(len(cams), device=cams.device), labels].unsqueeze(1).clamp(0, 1)


def _steering_maps(batch: Batch, size: int, config: TrainConfig) -> Tensor:
    """(B, 1, size, size): the map to follow where steered, 1 (no bound) elsewhere."""
    asked = F.interpolate(_own_cams(batch.cams, batch.labels), size, mode="bilinear", align_corners=False)
    if config.steer_drawn > 0:
        asked = torch.where(batch.drawn[:, None, None, None], ellipse_maps(batch.ellipses, size), asked)
    return torch.where(batch.steered[:, None, None, None], asked, torch.ones_like(asked))


def _shown(images: Tensor, free: Tensor, draw: Augmentation) -> Tensor:
    """What is judged: augmented images, and of free pairs the lungs only.

    All real images have a style that goes with their label, so a critic of whole pictures would reject every free pair.
    """
    return augment_images(lung_view(images, free), draw)


def _discriminator_loss(
    judging: Judging, batch: Batch, real: Tensor, fake: Tensor, guided: bool, config: TrainConfig
) -> tuple[Terms, Tensor, Callable[[], Tensor]]:
    """Realness of pairs of one class as they are shown, penalties, and the head, which learns from real images only.

    Each term is the rows' share of a mean over the batch, so that a pair weighs the same with either critic.

    Returns:
        Terms; the generator's cost of these pairs, as a number; and a function that gives the gradient of that cost by
        the made images, once the terms have gone backward.
    """
    rows, n = judging.rows, len(judging.rows)
    share = n / len(real)
    labels = batch.labels[rows]
    images = torch.cat([real[rows], fake[rows]]).requires_grad_(True)
    found = judging.critic.explain_unchecked(images, torch.cat([labels, labels]))
    who = judging.letter
    terms = {f"{who}_adversarial": relativistic(found.score[:n], found.score[n:])}
    margin = (found.score[:n] - found.score[n:]).detach()[:, :, None, None]
    slopes: Tensor | None = None
    if batch.gamma > 0:
        squared, gradients = gradient_penalty(found.score, images)
        slopes = gradients[n:].detach()
        weight = 0.5 * batch.gamma * config.penalty_every  # lazily, so scaled up
        terms |= {f"{who}_r1": weight * squared[:n].mean(), f"{who}_r2": weight * squared[n:].mean()}
    if config.class_weight > 0:
        terms[f"{who}_class"] = config.class_weight * F.cross_entropy(found.class_logits[:n], labels)
    if config.cam_weight_d > 0 and guided:
        target = augment_maps(batch.cams.clamp(0, 1), batch.augment_real)[rows]
        maps = found.class_maps[:n]
        if maps.shape[2:] != target.shape[2:]:
            target = F.interpolate(target, maps.shape[2:], mode="bilinear", align_corners=False)
        terms[f"{who}_cam"] = config.cam_weight_d * censored_match(maps, target)

    def pull() -> Tensor:
        if slopes is not None:
            return -torch.sigmoid(margin) * slopes / len(real)
        # Without penalties, made images are in the adversarial term alone, whose slope by a score is σ(-margin); the
        # generator's is -σ(margin), which is -exp(margin) of it.
        assert images.grad is not None
        return -margin.clamp(max=MOST_MARGIN).exp() * images.grad[n:]

    return {name: share * term for name, term in terms.items()}, share * F.softplus(margin).mean(), pull


def _generator_loss(nets: Networks, batch: Batch, config: TrainConfig) -> tuple[Terms, Tensor]:
    """Makes the batch's images: the terms that need no critic, and the images as they are shown (with their graph)."""
    steer = _steering_maps(batch, nets.G.resolution, config)
    parts = nets.G.compose(batch.z, batch.labels, style_labels=batch.styles, steer=steer)
    terms: Terms = {}
    diseased = nets.G.class_set.has_lesion(batch.labels).to(parts.mask.dtype)[:, None, None, None]
    if config.diversity_weight > 0:
        # Children of one label in several styles differ by their styles, which shall not make up for their anatomies
        kinds = batch.labels + nets.G.class_set.count * torch.where(batch.free, 1 + batch.styles, 0)
        terms["g_diversity"] = config.diversity_weight * lost_diversity(batch.real, parts.image, kinds)
    if batch.detail > 0 and nets.real_power is not None:
        # No real image has a style apart from its label, so free pairs are held against none
        kinds = torch.where(batch.free, torch.arange(len(batch.free), device=batch.free.device), -1)
        with torch.autocast(parts.image.device.type, enabled=False):
            power = log_power(parts.image)
            terms["g_detail"] = batch.detail * energy_distance(power, batch.labels, kinds, nets.real_power, GROUP)
    if config.area_weight > 0:
        terms["g_area"] = config.area_weight * area_cost(parts.mask, config.area_limit)
    if config.delta_weight > 0:
        terms["g_delta"] = config.delta_weight * hidden_change(parts.delta, parts.mask)
    if config.steer_weight > 0 and config.steer_share > 0:
        followed = batch.steered[:, None, None, None] * diseased
        terms["g_steer"] = config.steer_weight * (followed * (steer - parts.mask).square()).mean()
    if nets.guide is not None and config.guided:
        terms |= _guidance(nets.guide, nets.real_logits, batch, parts, config)
    image = parts.image
    if config.free_share > 0:
        # Of free pairs with a disease the base's picture does not learn: the critic would draw it towards the disease,
        # too. What the lesion reads of the base's features still does; so it was measured.
        fixed = (batch.free & nets.G.class_set.has_lesion(batch.labels))[:, None, None, None]
        image = torch.where(fixed, torch.tanh(parts.base.detach() + parts.mask * parts.delta), image)
    return terms, _shown(image, batch.free, batch.augment_fake)


def _guidance(
    guide: Guide,
    real: RealPoints | None,
    batch: Batch,
    parts: Composition,
    config: TrainConfig,
) -> Terms:
    """What the teacher sees in every second image, and in the bases of those with a disease: half as dear as all of
    them, the hint as good."""
    labels = batch.labels[::2]
    n = len(labels)
    healthy = guide.reference if config.flip_weight > 0 and guide.own else None
    shown = [parts.image[::2]]
    if healthy is not None:
        shown.append(parts.base_image[::2][labels != healthy])
    maps, logits = guide(torch.cat(shown))
    terms: Terms = {}
    if config.cam_weight_g > 0:
        own = maps[torch.arange(n, device=maps.device), labels]  # the reference's own map is 0, and so is its M
        terms["g_cam"] = config.cam_weight_g * map_match(own, parts.mask[::2])
    if logits is None:
        return terms
    if batch.logits == 0:
        real = None
    if real is not None:
        with torch.autocast(logits.device.type, enabled=False):
            seen = referenced(logits[:n].to(real.points.dtype), guide.reference)
            terms["g_logits"] = batch.logits * energy_distance(seen, labels, batch.steered[::2], real, GROUP // 2)
    if healthy is not None:
        cost = base_hinge(logits[n:], healthy).sum() / n
        if real is None:
            cost = cost + image_hinge(logits[:n], labels, healthy)
        terms["g_flip"] = config.flip_weight * cost
    return terms


def _parameters(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    """What it moves: all of a network's parameters, without walking through the network, which takes longer."""
    return [p for group in optimiser.param_groups for p in group["params"]]


def update(
    network: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    terms: Terms,
    check: Callable[[Terms], None],
    average_gradients: Callable[[torch.nn.Module], None],
) -> None:
    """One step of one network down the sum of its terms, unless a term or a gradient is not finite."""
    check(terms)
    optimiser.zero_grad()
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    average_gradients(network)
    # A gradient may be not finite though every loss is
    norms = torch._foreach_norm([p.grad for p in _parameters(optimiser) if p.grad is not None])
    check({f"{next(iter(terms))[0]}_gradient": torch.stack(norms).norm()})
    optimiser.step()


def adversarial_step(
    nets: Networks,
    batch: Batch,
    config: TrainConfig,
    *,
    autocast: Callable[[], AbstractContextManager[object]],
    check: Callable[[Terms], None],
    average_gradients: Callable[[torch.nn.Module], None],
) -> Terms:
    """One step of all networks on one batch: made once, and judged once.

    What a critic's own gradient says of each made image moves the generator too, which therefore sees the critics as
    they were before their step: simultaneous instead of alternating steps (with R1 either converges; Mescheder et al.,
    ICML 2018, theorem 4.1). That spares a third of the critics' work.

    Args:
        nets: networks and optimisers.
        batch: inputs.
        config: weights of the terms.
        autocast: context of the run's precision.
        check: raises on a term that is not finite, before anything is updated.
        average_gradients: over processes.

    Returns:
        The weighted terms, detached.
    """
    with autocast():
        real = _shown(batch.real, batch.free, batch.augment_real)
        g_terms, fake = _generator_loss(nets, batch, config)

    # discriminator and lesion critic
    d_terms: Terms = {}
    costs, pulled = [], torch.zeros_like(fake)
    for judging in nets.critics(batch.free):
        with autocast():
            terms, cost, pull = _discriminator_loss(judging, batch, real, fake.detach(), nets.guide is not None, config)
        update(judging.critic, judging.optimiser, terms, check, average_gradients)
        pulled[judging.rows] = pull()
        costs.append(cost)
        d_terms |= terms

    # generator: the value of its cost, with the gradient that the critics gave
    along = (fake * pulled).sum()
    g_terms["g_adversarial"] = torch.stack(costs).sum() + along - along.detach()
    update(nets.G, nets.optimiser_g, g_terms, check, average_gradients)
    return {name: term.detach() for name, term in (d_terms | g_terms).items()}
