"""The averaged generator."""

import copy

import torch
from torch import Tensor, nn


class AveragedModel:
    """An exponential moving average of a network's parameters, with a half-life in images.

    Args:
        model: the network that is trained.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        # Walking through a network takes longer than averaging it
        self._parameters: list[Tensor] = list(self.model.parameters())

    @torch.no_grad()
    def update(self, model: nn.Module, images: int, half_life: float) -> None:
        """Moves the average after `images` more images; `half_life` is in images."""
        weight = 1 - 0.5 ** (images / max(half_life, 1e-8))
        torch._foreach_lerp_(self._parameters, list(model.parameters()), weight)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)
