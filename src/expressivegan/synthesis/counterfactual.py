"""The same child with and without the disease."""

from dataclasses import dataclass

import torch
from torch import Tensor

from expressivegan.errors import InputError
from expressivegan.models import GeneratorWithCAMGuidance
from expressivegan.synthesis.generate import latent


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


@torch.no_grad()
def counterfactual_pairs(
    model: GeneratorWithCAMGuidance, indices: list[int], label: int, *, seed: int = 0, strength: float = 1.0
) -> Pair:
    """Pairs at fixed latent and style: the lesion is toggled, the child and the acquisition are held.

    Args:
        model: a CAM-guided generator.
        indices: numbers of the images, as in `generate`.
        label: the disease; also the style of both.
        seed: of the run.
        strength: 0..1, scales M.

    Raises:
        InputError: the reference class, which has no lesion to toggle, or a strength out of range.
    """
    if label == model.class_set.reference:
        raise InputError(f"label (={model.class_set.names[label]!r}) has no lesion; choose another class")
    if not 0 <= strength <= 1:
        raise InputError(f"strength (={strength}) must be from 0 to 1")
    z = torch.stack([latent(seed, i, model.z_dim) for i in indices])
    labels = torch.full((len(indices),), label)
    parts = model.compose(z, labels, strength=strength)
    return Pair(parts.base_image, parts.image, parts.mask)
