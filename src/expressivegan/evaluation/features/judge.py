"""An independent classifier of border-masked images, fitted on the judge patients alone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
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
class JudgeRecipe:
    """How the independent classifier is fitted. The cache sees a changed value; for changed code raise `version`."""

    version: int = 1
    resolution: int = 64
    """Side of the square frame that the network sees; other sizes are resampled."""
    border: float = 0.1
    """Share of the frame zeroed at each side: letters, collimation and cropping tell the label and are not disease."""
    epochs: int = 45
    """Passes over the judge group, counted in images seen."""
    batch: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    shift: float = 0.08
    """Largest shift, as a share of the side."""
    rotation: float = 8.0
    """Largest rotation in degrees."""
    scale: float = 0.12
    """Zoom between 1/(1+scale) and 1+scale."""
    brightness: float = 0.2
    contrast: float = 0.25


class JudgeClassifier:
    """An independent classifier of border-masked images, and the 512 features in front of its last layer.

    A ResNet-18, see `Encoder`. Make one with `fit`.
    """

    name = "judge"

    def __init__(self, network: "_Judge", classes: Sequence[str], recipe: JudgeRecipe) -> None:
        self._network = network.eval()
        self.classes = tuple(classes)
        self.recipe = recipe

    @classmethod
    def fit(
        cls,
        images: UInt8Array,
        labels: npt.ArrayLike,
        classes: Sequence[str],
        *,
        recipe: JudgeRecipe | None = None,
        seed: int = 0,
        group: str = "judge",
        cache: Path | None = None,
        progress: Progress | None = None,
    ) -> "JudgeClassifier":
        """Fits the classifier, or takes it from the cache.

        Args:
            images: uint8 (N, H, W), of patients that neither the generator nor the reference set knows.
            labels: (N,) indices into `classes`; each class occurs.
            classes: names, in the data set's order.
            recipe: settings; the default is the one that benchmarks use.
            seed: of initial weights, order and augmentation.
            group: name of the patients' group, for the record and the cache key.
            cache: folder of fitted networks; None fits anew and writes nothing.
            progress: called after every step with (step, of, loss).

        Raises:
            InputError: wrong shapes, types or labels, or a class without images.
            TrainingError: the loss is not finite.
        """
        recipe = recipe or JudgeRecipe()
        target = _check_labels(labels, len(check_pixels(images)), classes)
        prepared = Frame(recipe.resolution).prepare(images)
        key = training_key(cls.name, asdict(recipe), seed, group, images, target, classes)

        def build() -> _Judge:
            return _Judge(len(classes), recipe)

        def train(network: _Judge) -> None:
            _train_judge(network, prepared, torch.from_numpy(target), recipe, seed, progress)

        return cls(fitted(cache, cls.name, key, build, train, seed), classes, recipe)

    @cached_property
    def identity(self) -> str:
        """Changes with the weights, the recipe and the preprocessing."""
        frame = Frame(self.recipe.resolution)
        return identity_of(self.name, weights=hash_weights(self._network), recipe=self.recipe, frame=frame)

    def features(self, images: UInt8Array) -> FloatArray:
        """uint8 (N, H, W) → float32 (N, 512), border-masked. Raises InputError for another shape or type."""
        return forward(self._network.encode, images, Frame(self.recipe.resolution), CHUNK)

    def predict(self, images: UInt8Array) -> FloatArray:
        """uint8 (N, H, W) → class probabilities, float32 (N, K). Raises InputError for another shape or type."""
        return self.classify(self.features(images))

    def classify(self, features: FloatArray) -> FloatArray:
        """What `features` returned → class probabilities, float32 (N, K), without a second pass over the images.

        Raises InputError for another shape.
        """
        if features.ndim != 2 or features.shape[1] != WIDTH:
            raise InputError(f"features must have shape (N, {WIDTH}), not {features.shape}")
        with torch.inference_mode():
            probabilities: FloatArray = self._network.head(torch.from_numpy(features)).softmax(1).numpy()
        return probabilities


class _Judge(nn.Module):
    """(B, 1, S, S) in [-1, 1] → logits (B, K)."""

    def __init__(self, classes: int, recipe: JudgeRecipe) -> None:
        super().__init__()
        self.encode = Encoder((2, 2, 2, 2), recipe.border, recipe.resolution)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encode(x))
        return logits


def _train_judge(
    network: _Judge, images: Tensor, labels: Tensor, recipe: JudgeRecipe, seed: int, progress: Progress | None
) -> None:
    draw = generator("evaluation", "judge", seed)
    # Balanced by sampling: each image is drawn in inverse proportion to the size of its class.
    weight = 1.0 / torch.bincount(labels).to(torch.float64)[labels]
    steps = max(1, recipe.epochs * len(images) // recipe.batch)

    def loss() -> Tensor:
        index = torch.multinomial(weight, recipe.batch, replacement=True, generator=draw)
        logits = network(augment(images[index], recipe, draw))
        return F.cross_entropy(logits.float(), labels[index], label_smoothing=recipe.label_smoothing)

    optimise(list(network.parameters()), recipe, steps, loss, progress)


def _check_labels(labels: npt.ArrayLike, count: int, classes: Sequence[str]) -> npt.NDArray[np.int64]:
    given = np.asarray(labels)
    if given.shape != (count,) or not np.issubdtype(given.dtype, np.integer):
        raise InputError(f"labels must be integers of shape ({count},), not {given.dtype} {given.shape}")
    if given.min() < 0 or given.max() >= len(classes):
        raise InputError(f"labels span {given.min()}..{given.max()} but there are {len(classes)} classes")
    absent = [name for k, name in enumerate(classes) if not (given == k).any()]
    if absent:
        raise InputError(f"no image of class {', '.join(absent)}: a classifier needs images of every class")
    return given.astype(np.int64)
