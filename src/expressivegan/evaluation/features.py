"""Feature spaces in which generated and real images are compared, both learnt on the judge patients alone.

Two spaces, because published chest X-ray generators swap ranks between feature spaces: a classifier of the labels
stretches the class axis and is blind to what the labels do not need; a self-supervised network has never seen a label.
Neither shares patients with the generator (train group) nor with the images that serve as reference, nor an
architecture with the teacher.

Networks here see one square frame in [-1, 1]. Fitting takes minutes on two CPU cores and is cached on disk.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from expressivegan.atomic import replacing, write_text
from expressivegan.errors import InputError, TrainingError
from expressivegan.images import UInt8Array, from_uint8
from expressivegan.streams import derive_seed, generator

FloatArray = npt.NDArray[np.float32]
Progress = Callable[[int, int, float], None]  # (step, of, loss)
_Network = TypeVar("_Network", bound=nn.Module)

_WIDTH = 512  # of a ResNet's last block: the number of features
_CHUNK = 256  # images per forward pass when scoring


class FeatureSpace(Protocol):
    """Anything that turns images into vectors whose distances mean something."""

    @property
    def name(self) -> str:
        """A short name for tables and files."""

    def features(self, images: UInt8Array) -> FloatArray:
        """uint8 (N, H, W) → float32 (N, d), one row an image, independent of the other images."""


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


class JudgeClassifier:
    """An independent classifier of border-masked images, and the 512 features in front of its last layer.

    A ResNet-18 (He et al. 2016) of one channel, with a 3x3 stem of stride 2 and no max pooling, as fits 64 px.
    Make one with `fit`.
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
        target = _check_labels(labels, len(_check_pixels(images)), classes)
        prepared = _prepare(images, recipe.resolution)
        key = _key(cls.name, recipe, seed, group, images, target, classes)

        def build() -> _Judge:
            return _Judge(len(classes), recipe.border)

        def train(network: _Judge) -> None:
            _train_judge(network, prepared, torch.from_numpy(target), recipe, seed, progress)

        return cls(_cached(cache, cls.name, key, build, train, seed), classes, recipe)

    def features(self, images: UInt8Array) -> FloatArray:
        """uint8 (N, H, W) → float32 (N, 512), border-masked. Raises InputError for another shape or type."""
        return _forward(self._network.encode, images, self.recipe.resolution)

    def predict(self, images: UInt8Array) -> FloatArray:
        """uint8 (N, H, W) → class probabilities, float32 (N, K). Raises InputError for another shape or type."""
        return self.classify(self.features(images))

    def classify(self, features: FloatArray) -> FloatArray:
        """What `features` returned → class probabilities, float32 (N, K), without a second pass over the images.

        Raises InputError for another shape.
        """
        if features.ndim != 2 or features.shape[1] != _WIDTH:
            raise InputError(f"features must have shape (N, {_WIDTH}), not {features.shape}")
        with torch.inference_mode():
            probabilities: FloatArray = self._network.head(torch.from_numpy(features)).softmax(1).numpy()
        return probabilities


class SelfSupervisedFeatures:
    """512 features of a small ResNet fitted without labels, on whole frames (VICReg). Make one with `fit`."""

    name = "selfsup"

    def __init__(self, network: "_Encoder", recipe: SelfSupervisedRecipe) -> None:
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
        prepared = _prepare(images, recipe.resolution)
        if len(prepared) < 4:
            raise InputError(f"images (n={len(prepared)}) are too few to learn features from; at least 4 are needed")
        key = _key(cls.name, recipe, seed, group, images, None, ())

        def build() -> _Encoder:
            return _Encoder((1, 1, 1, 1), recipe.border)

        def train(network: _Encoder) -> None:
            _train_vicreg(network, prepared, recipe, seed, progress)

        return cls(_cached(cache, cls.name, key, build, train, seed), recipe)

    def features(self, images: UInt8Array) -> FloatArray:
        """uint8 (N, H, W) → float32 (N, 512). Raises InputError for another shape or type."""
        return _forward(self._network, images, self.recipe.resolution)


# ---------------------------------------------------------------------------------------------------------------------
# Networks


class _Encoder(nn.Module):
    """(B, 1, S, S) in [-1, 1] → (B, 512)."""

    def __init__(self, layers: Sequence[int], border: float) -> None:
        super().__init__()
        self.border = border
        self.body = ResNet(BasicBlock, list(layers))
        self.body.conv1 = nn.Conv2d(1, 64, 3, 2, 1, bias=False)
        self.body.maxpool = nn.Identity()
        self.body.fc = nn.Identity()
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(mask_border(x, self.border).contiguous(memory_format=torch.channels_last))
        return out


class _Judge(nn.Module):
    """(B, 1, S, S) in [-1, 1] → logits (B, K)."""

    def __init__(self, classes: int, border: float) -> None:
        super().__init__()
        self.encode = _Encoder((2, 2, 2, 2), border)
        self.head = nn.Linear(_WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encode(x))
        return logits


def mask_border(images: Tensor, share: float) -> Tensor:
    """Sets the outer `share` of the frame to 0 (mid grey) at each side. (B, C, H, W) → the same shape."""
    if share <= 0:
        return images
    height, width = images.shape[-2:]
    y, x = round(height * share), round(width * share)
    inner = images[..., y : height - y, x : width - x]
    return F.pad(inner, (x, x, y, y))


# ---------------------------------------------------------------------------------------------------------------------
# Fitting


def _augment(images: Tensor, recipe: JudgeRecipe | SelfSupervisedRecipe, draw: torch.Generator) -> Tensor:
    """Shift, rotation, zoom, brightness and contrast, one draw an image; no flips, since the heart is on the left."""

    def uniform(limit: float) -> Tensor:
        return (torch.rand(len(images), generator=draw) * 2 - 1) * limit

    angle = uniform(math.radians(recipe.rotation))
    zoom = torch.exp(uniform(math.log1p(recipe.scale)))
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    shift_x, shift_y = uniform(2 * recipe.shift), uniform(2 * recipe.shift)  # the frame spans [-1, 1]: twice the share
    theta = torch.stack([torch.stack([cos, -sin, shift_x], 1), torch.stack([sin, cos, shift_y], 1)], 1)
    # The mask comes before the warp as well, else a shift would carry the border into the part that is judged.
    images = mask_border(images, recipe.border)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    padding = "zeros" if recipe.border > 0 else "border"
    images = F.grid_sample(images, grid, padding_mode=padding, align_corners=False)
    gain = torch.exp(uniform(math.log1p(recipe.contrast))).view(-1, 1, 1, 1)
    return images * gain + uniform(recipe.brightness).view(-1, 1, 1, 1)


def _optimise(
    parameters: Sequence[nn.Parameter],
    recipe: JudgeRecipe | SelfSupervisedRecipe,
    steps: int,
    loss: Callable[[], Tensor],
    progress: Progress | None,
) -> None:
    """AdamW with a warm-up of a tenth and a cosine to 0; `loss` draws its own batch."""
    optimiser = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    warm = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda i: (i + 1) / warm if i < warm else 0.5 * (1 + math.cos(math.pi * (i - warm) / max(1, steps - warm))),
    )
    for step in range(steps):
        with torch.autocast("cpu", torch.bfloat16):
            value = loss()
        current = value.item()
        if not math.isfinite(current):
            raise TrainingError(f"fitting a feature network: the loss (={current}) is not finite at step {step}")
        optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, steps, current)


def _train_judge(
    network: _Judge, images: Tensor, labels: Tensor, recipe: JudgeRecipe, seed: int, progress: Progress | None
) -> None:
    draw = generator("evaluation", "judge", seed)
    # Balanced by sampling: each image is drawn in inverse proportion to the size of its class.
    weight = 1.0 / torch.bincount(labels).to(torch.float64)[labels]
    steps = max(1, recipe.epochs * len(images) // recipe.batch)

    def loss() -> Tensor:
        index = torch.multinomial(weight, recipe.batch, replacement=True, generator=draw)
        logits = network(_augment(images[index], recipe, draw))
        return F.cross_entropy(logits.float(), labels[index], label_smoothing=recipe.label_smoothing)

    _optimise(list(network.parameters()), recipe, steps, loss, progress)


def _train_vicreg(
    network: _Encoder, images: Tensor, recipe: SelfSupervisedRecipe, seed: int, progress: Progress | None
) -> None:
    draw = generator("evaluation", "selfsup", seed)
    width = recipe.projector
    projector = nn.Sequential(
        nn.Linear(_WIDTH, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width)
    )  # thrown away afterwards
    batch = min(recipe.batch, len(images))
    steps = max(1, recipe.epochs * len(images) // batch)

    def loss() -> Tensor:
        index = torch.randperm(len(images), generator=draw)[:batch]
        views = torch.cat([_augment(images[index], recipe, draw) for _ in range(2)])
        left, right = projector(network(views)).float().chunk(2)
        return (
            recipe.invariance * F.mse_loss(left, right)
            + recipe.variance * (_hinge(left) + _hinge(right))
            + recipe.covariance * (_off_diagonal(left) + _off_diagonal(right))
        )

    _optimise([*network.parameters(), *projector.parameters()], recipe, steps, loss, progress)


def _hinge(z: Tensor) -> Tensor:
    """The variance term of VICReg, equation 1, over the two views: mean of max(0, 1 - std) / 2."""
    return F.relu(1 - torch.sqrt(z.var(0) + 1e-4)).mean() / 2


def _off_diagonal(z: Tensor) -> Tensor:
    """The covariance term of VICReg, equation 4: squared off-diagonal covariances over the width."""
    z = z - z.mean(0)
    covariance = z.T @ z / (len(z) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]


# ---------------------------------------------------------------------------------------------------------------------
# Arrays in and out, cache


def _check_pixels(images: UInt8Array) -> UInt8Array:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 3 or 0 in images.shape:
        kind = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise InputError(f"images must be a non-empty uint8 array (N, H, W), not {kind}")
    return images


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


def _prepare(images: UInt8Array, resolution: int) -> Tensor:
    """uint8 (N, H, W) → float32 (N, 1, S, S) in [-1, 1]."""
    x = from_uint8(np.ascontiguousarray(_check_pixels(images))).unsqueeze(1)
    if x.shape[-2:] != (resolution, resolution):
        x = F.interpolate(x, (resolution, resolution), mode="bilinear", align_corners=False, antialias=True)
    return x


def _forward(network: Callable[[Tensor], Tensor], images: UInt8Array, resolution: int) -> FloatArray:
    """In float32 rather than bf16: distances between near-duplicates must not drown in rounding."""
    _check_pixels(images)
    with torch.inference_mode():
        parts = [
            network(_prepare(images[i : i + _CHUNK], resolution)).float().numpy() for i in range(0, len(images), _CHUNK)
        ]
    return np.concatenate(parts)


def _key(
    name: str,
    recipe: JudgeRecipe | SelfSupervisedRecipe,
    seed: int,
    group: str,
    images: UInt8Array,
    labels: npt.NDArray[np.int64] | None,
    classes: Sequence[str],
) -> dict[str, Any]:
    """Everything that decides the weights, in JSON's own types."""
    digest = hashlib.sha256(repr(images.shape).encode())
    digest.update(np.ascontiguousarray(images).tobytes())
    if labels is not None:
        digest.update(labels.tobytes())
    return {
        "name": name,
        "recipe": asdict(recipe),
        "seed": seed,
        "group": group,
        "images": len(images),
        "data": digest.hexdigest(),
        "classes": list(classes),
    }


def _cached(
    cache: Path | None,
    name: str,
    key: Mapping[str, Any],
    build: Callable[[], _Network],
    train: Callable[[_Network], None],
    seed: int,
) -> _Network:
    """The fitted network: read where weights and key are whole and agree, else fitted and written."""
    tag = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    weights = None if cache is None else cache / f"{name}-{tag}.safetensors"
    with torch.random.fork_rng(devices=[]):  # initial weights come from torch's global generator: leave it as it was
        torch.manual_seed(derive_seed("evaluation", name, seed))
        network = build()
        if weights is not None and _read(network, weights, key):
            return network.eval()
        start = time.perf_counter()
        train(network.train())
    if weights is not None:
        weights.parent.mkdir(parents=True, exist_ok=True)
        record = {"key": dict(key), "seconds": round(time.perf_counter() - start, 1)}
        with replacing(weights) as temporary:
            save_file({k: v.contiguous() for k, v in network.state_dict().items()}, temporary)
        write_text(weights.with_suffix(".json"), json.dumps(record, indent=2))
    return network.eval()


def _read(network: nn.Module, weights: Path, key: Mapping[str, Any]) -> bool:
    """Fills the network from the cache; False where anything is missing, damaged or of another key."""
    try:
        record = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
        if cast(dict[str, Any], record)["key"] != dict(key):
            return False
        network.load_state_dict(load_file(weights))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError):
        return False  # a cache is only a shortcut: fit again and overwrite
    return True
