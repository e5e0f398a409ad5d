"""The same child with and without the disease."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from expressivegan.errors import InputError
from expressivegan.models import GeneratorWithCAMGuidance
from expressivegan.models.generator import Composition
from expressivegan.synthesis.generate import Plan, latent
from expressivegan.synthesis.projection import Projection


@dataclass(frozen=True)
class Pair:
    """Counterfactual images of one child and acquisition.

    Attributes:
        without: (B, 1, H, W) in [-1, 1], the base: M = 0.
        with_disease: (B, 1, H, W) in [-1, 1].
        mask: (B, 1, H, W) in [0, 1], M; where it is 0 the two are equal to the bit.
    """

    without: Tensor
    with_disease: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Strip:
    """One child while the disease comes (or, of a real image, goes) step by step.

    Attributes:
        images: (S, 1, H, W) in [-1, 1]; the first is the child as it was, the last as it would be.
        strengths: S numbers from 0 to the strength asked for: how much of the change each image shows.
        mask: (1, 1, H, W) in [0, 1], M at the full change.
        base_change: largest difference (in [-1, 1] units) between the bases of the images; 0.
        outside_change: largest difference between any image and the first where M is 0; 0.
        outside_share: share of the pixels where M is 0.
    """

    images: Tensor
    strengths: tuple[float, ...]
    mask: Tensor
    base_change: float
    outside_change: float
    outside_share: float

    @property
    def before(self) -> Tensor:
        """(1, 1, H, W) in [-1, 1]."""
        return self.images[:1]

    @property
    def after(self) -> Tensor:
        """(1, 1, H, W) in [-1, 1]."""
        return self.images[-1:]

    @property
    def difference(self) -> Tensor:
        """(1, 1, H, W) in [-2, 2], after less before."""
        return self.after - self.before


def strengths_of(strength: float, steps: int) -> tuple[float, ...]:
    """`steps` numbers from 0 to `strength`, evenly spaced.

    Raises:
        InputError: a strength out of range, or fewer than 2 steps.

    >>> strengths_of(1.0, 5)
    (0.0, 0.25, 0.5, 0.75, 1.0)
    """
    if not 0 <= strength <= 1:
        raise InputError(f"strength (={strength}) must be from 0 to 1")
    if steps < 2:
        raise InputError(f"steps (={steps}) must be at least 2: without and with the disease")
    return tuple(strength * i / (steps - 1) for i in range(steps))


def check_disease(model: GeneratorWithCAMGuidance, label: int) -> None:
    """Raises InputError if `label` has no lesion."""
    if label == model.class_set.reference:
        names = [n for k, n in enumerate(model.classes) if k != label]
        raise InputError(
            f"label (={model.classes[label]!r}) has no lesion to add; choose {' or '.join(names)}, "
            "or take a disease away from a real image (--image)"
        )


@torch.no_grad()
def counterfactual_pairs(
    model: GeneratorWithCAMGuidance,
    indices: list[int],
    label: int,
    *,
    seed: int = 0,
    strength: float = 1.0,
    steer: Tensor | None = None,
    style_label: int | None = None,
) -> Pair:
    """Pairs at fixed latent and style: the lesion is toggled, the child and the acquisition are held.

    Args:
        model: a CAM-guided generator.
        indices: numbers of the images, as in `generate`.
        label: the disease; by default also the style of both.
        seed: of the run.
        strength: 0..1, scales M.
        steer: (1, 1, H, W) in [0, 1], where the disease may be; see `steering_map`.
        style_label: the acquisition of both.

    Raises:
        InputError: the reference class, which has no lesion to toggle, or an argument out of range.
    """
    check_disease(model, label)
    strengths_of(strength, 2)
    Plan(seed, label, 1.0, steer, style_label).check(model)
    parts = _compose(model, indices, label, seed, strength, steer, style_label)
    return Pair(parts.base_image, parts.image, parts.mask)


@torch.no_grad()
def counterfactual_strip(
    model: GeneratorWithCAMGuidance,
    index: int,
    label: int,
    *,
    seed: int = 0,
    strength: float = 1.0,
    steps: int = 5,
    steer: Tensor | None = None,
    style_label: int | None = None,
) -> Strip:
    """One synthetic child from M = 0 to M at `strength`, at fixed latent and style.

    Args:
        index: number of the image.
        steps: images of the strip.
        model, label, seed, strength, steer, style_label: see `counterfactual_pairs`.

    Raises:
        InputError: as `counterfactual_pairs`.
    """
    check_disease(model, label)
    strengths = strengths_of(strength, steps)
    Plan(seed, label, 1.0, steer, style_label).check(model)
    return _strip(
        lambda s: _compose(model, [index], label, seed, s, steer, style_label), strengths, lambda parts, s: parts.image
    )


@torch.no_grad()
def edit_real(
    model: GeneratorWithCAMGuidance,
    found: Projection,
    label: int,
    *,
    strength: float = 1.0,
    steps: int = 5,
    steer: Tensor | None = None,
    keep_residual: bool = True,
) -> Strip:
    """A real image from which the disease is taken, or to which one is added, step by step.

    With the residual the images are `real + (edited - fitted)`, so that they show this very child, also where the
    generator cannot draw it; where M is 0 they are the real image to the bit. Where a disease is taken away, what of
    the residual lies under M goes with it, since the generator's lesion never is the whole of the real one.

    Args:
        model: a CAM-guided generator.
        found: the image's projection.
        label: the disease to add, or the reference class, to take the one that `found` was fitted with.
        strength: 0..1, how much of the change.
        steps: images of the strip.
        steer: (1, 1, H, W) in [0, 1], where an added disease may be.
        keep_residual: add what the fit left over. Without it the images are the generator's alone.

    Raises:
        InputError: an argument out of range, nothing to take away, or a region for something taken away.
    """
    strengths = strengths_of(strength, steps)
    takes_away = label == model.class_set.reference
    if takes_away and found.label == label:
        raise InputError(
            f"label (={model.classes[label]!r}) takes a disease away, but the image was fitted without one"
        )
    if not takes_away and found.label != model.class_set.reference:
        raise InputError("a disease is added to an image that was fitted without one; fit it with the reference class")
    if not takes_away:
        Plan(label=label, steer=steer).check(model)
    elif steer is not None:
        raise InputError("steer says where a disease shall be, and does not go with one that is taken away")
    lesion = found.lesion_style if takes_away else model.disease_style(found.z, torch.tensor([label]))
    bound = model.window if steer is None else steer * model.window
    noise = model.noise(found.z)

    def compose(s: float) -> Composition:
        return model.compose_styles(
            found.styles, lesion, torch.full((1, 1, 1, 1), 1 - s if takes_away else s), bound, noise
        )

    fitted = compose(0.0)
    residual = found.real - fitted.image

    def shown(parts: Composition, s: float) -> Tensor:
        if not keep_residual:
            return parts.image
        image = found.real + (parts.image - fitted.image)
        if takes_away:
            image = image - s * fitted.mask * residual
        return image.clamp(-1, 1)

    return _strip(compose, strengths, shown)


def _compose(
    model: GeneratorWithCAMGuidance,
    indices: list[int],
    label: int,
    seed: int,
    strength: float,
    steer: Tensor | None,
    style_label: int | None,
) -> Composition:
    z = torch.stack([latent(seed, i, model.z_dim) for i in indices])
    labels = torch.full((len(indices),), label)
    styles = labels if style_label is None else torch.full_like(labels, style_label)
    bound = None if steer is None else steer.expand(len(indices), -1, -1, -1)
    return model.compose(z, labels, style_labels=styles, strength=strength, steer=bound)


def _strip(
    compose: Callable[[float], Composition],
    strengths: tuple[float, ...],
    shown: Callable[[Composition, float], Tensor],
) -> Strip:
    # One image at a time: kernels round differently with the size of a batch, and the bases shall be equal to the bit.
    parts = [compose(s) for s in strengths]
    images = torch.cat([shown(p, s) for p, s in zip(parts, strengths, strict=True)])
    mask = torch.stack([p.mask for p in parts]).amax(0)  # of a disease that goes, M is largest in the first image
    outside = (mask == 0).expand_as(images)
    change = (images - images[:1]).abs()
    bases = torch.cat([p.base for p in parts])
    return Strip(
        images,
        strengths,
        mask,
        float((bases - bases[:1]).abs().max()),
        float(change[outside].max()) if bool(outside.any()) else 0.0,
        float(outside.float().mean()),
    )
