"""A network that has never seen a label, fitted on the judge patients' whole frames."""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expressivegan.errors import InputError
from expressivegan.evaluation.features.fitting import (
    CHUNK,
    WIDTH,
    Encoder,
    augment,
    fitted,
    optimise,
    training_key,
)
from expressivegan.evaluation.features.frame import Frame
from expressivegan.evaluation.features.space import (
    FloatArray,
    Progress,
    check_pixels,
    forward,
    hash_weights,
    identity_of,
)
from expressivegan.images import UInt8Array
from expressivegan.streams import generator


@dataclass(frozen=True)
class SelfSupervisedRecipe:
    """How the self-supervised network is fitted: VICReg, Bardes et al. 2022 (ICLR), section 4, on whole frames.

    Neither blur nor noise nor flips are among the augmentations, so the features may, and do, tell them apart.
    """

    version: int = 1
    resolution: int = 64
    border: float = 0.0
    """The whole frame counts: one of the two spaces must see a broken border."""
    epochs: int = 50
    batch: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.01
    projector: int = 1024
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    shift: float = 0.1
    rotation: float = 8.0
    scale: float = 0.25
    brightness: float = 0.3
    contrast: float = 0.3


class SelfSupervisedFeatures:
    """512 features of a small ResNet fitted without labels, on whole frames (VICReg). Make one with `fit`."""

    name = "selfsup"

    def __init__(self, network: "Encoder", recipe: SelfSupervisedRecipe) -> None:
        self._network = network.eval()
        self.recipe = recipe

    @classmethod
    def fit(
        cls,
        images: UInt8Array,
        *,
        recipe: SelfSupervisedRecipe | None = None,
        seed: int = 0,
        group: str = "judge",
        cache: Path | None = None,
        progress: Progress | None = None,
    ) -> "SelfSupervisedFeatures":
        """Fits the encoder, or takes it from the cache. Arguments and errors as of `JudgeClassifier.fit`."""
        recipe = recipe or SelfSupervisedRecipe()
        prepared = Frame(recipe.resolution).prepare(check_pixels(images))
        if len(prepared) < 4:
            raise InputError(f"images (n={len(prepared)}) are too few to learn features from; at least 4 are needed")
        key = training_key(cls.name, asdict(recipe), seed, group, images, None, ())

        def build() -> Encoder:
            return Encoder((1, 1, 1, 1), recipe.border, recipe.resolution)

        def train(network: Encoder) -> None:
            _train_vicreg(network, prepared, recipe, seed, progress)

        return cls(fitted(cache, cls.name, key, build, train, seed), recipe)

    @cached_property
    def identity(self) -> str:
        """Changes with the weights, the recipe and the preprocessing."""
        frame = Frame(self.recipe.resolution)
        return identity_of(self.name, weights=hash_weights(self._network), recipe=self.recipe, frame=frame)

    def features(self, images: UInt8Array) -> FloatArray:
        """uint8 (N, H, W) → float32 (N, 512). Raises InputError for another shape or type."""
        return forward(self._network, images, Frame(self.recipe.resolution), CHUNK)


def _train_vicreg(
    network: Encoder, images: Tensor, recipe: SelfSupervisedRecipe, seed: int, progress: Progress | None
) -> None:
    draw = generator("evaluation", "selfsup", seed)
    width = recipe.projector
    projector = nn.Sequential(
        nn.Linear(WIDTH, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width)
    )  # thrown away afterwards
    batch = min(recipe.batch, len(images))
    steps = max(1, recipe.epochs * len(images) // batch)

    def loss() -> Tensor:
        index = torch.randperm(len(images), generator=draw)[:batch]
        views = torch.cat([augment(images[index], recipe, draw) for _ in range(2)])
        left, right = projector(network(views)).float().chunk(2)
        return (
            recipe.invariance * F.mse_loss(left, right)
            + recipe.variance * (_hinge(left) + _hinge(right))
            + recipe.covariance * (_off_diagonal(left) + _off_diagonal(right))
        )

    optimise([*network.parameters(), *projector.parameters()], recipe, steps, loss, progress)


def _hinge(z: Tensor) -> Tensor:
    """The variance term of VICReg, equation 1, over the two views: mean of max(0, 1 - std) / 2."""
    return F.relu(1 - torch.sqrt(z.var(0) + 1e-4)).mean() / 2


def _off_diagonal(z: Tensor) -> Tensor:
    """The covariance term of VICReg, equation 4: squared off-diagonal covariances over the width."""
    z = z - z.mean(0)
    covariance = z.T @ z / (len(z) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]
