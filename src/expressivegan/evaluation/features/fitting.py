"""What the two fitted networks share: the encoder, augmentation, the optimiser's loop, and fitted weights on disk."""

import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
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
from expressivegan.devices import bf16_where_fast
from expressivegan.errors import TrainingError
from expressivegan.evaluation.features.frame import Frame, mask_border
from expressivegan.evaluation.features.space import Progress
from expressivegan.images import UInt8Array
from expressivegan.streams import derive_seed

WIDTH = 512  # of a ResNet's last block: the number of features
CHUNK = 64  # images per forward pass when scoring
_Network = TypeVar("_Network", bound=nn.Module)


class Recipe(Protocol):
    """What the recipes of the fitted networks have in common."""

    @property
    def border(self) -> float: ...
    @property
    def lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def shift(self) -> float: ...
    @property
    def rotation(self) -> float: ...
    @property
    def scale(self) -> float: ...
    @property
    def brightness(self) -> float: ...
    @property
    def contrast(self) -> float: ...


class Encoder(nn.Module):
    """(B, 1, S, S) in [-1, 1] → (B, 512).

    A ResNet (He et al. 2016) of one channel with a 3x3 stem of stride 2. From 96 px on it keeps the published max
    pooling, so that at 128 px its stages see the grids that they see at 64, and cost little more.
    """

    def __init__(self, layers: Sequence[int], border: float, resolution: int) -> None:
        super().__init__()
        self.border = border
        self.body = ResNet(BasicBlock, list(layers))
        self.body.conv1 = nn.Conv2d(1, 64, 3, 2, 1, bias=False)
        if resolution < 96:
            self.body.maxpool = nn.Identity()
        self.body.fc = nn.Identity()
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(mask_border(x, self.border).contiguous(memory_format=torch.channels_last))
        return out


def augment(images: Tensor, recipe: Recipe, draw: torch.Generator) -> Tensor:
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


def optimise(
    parameters: Sequence[nn.Parameter],
    recipe: Recipe,
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
        with bf16_where_fast("cpu"):
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


def training_key(
    name: str,
    recipe: Mapping[str, Any],
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
    side = recipe["resolution"]
    # Only images that are resized depend on how.
    resized = {} if images.shape[1:] == (side, side) else {"frame": Frame(side).version}
    return resized | {
        "name": name,
        "recipe": dict(recipe),
        "seed": seed,
        "group": group,
        "images": len(images),
        "data": digest.hexdigest(),
        "classes": list(classes),
    }


def fitted(
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
        record = {"key": dict(key), "seconds": round(time.perf_counter() - start, 1)}
        try:
            weights.parent.mkdir(parents=True, exist_ok=True)
            with replacing(weights) as temporary:
                save_file({k: v.contiguous() for k, v in network.state_dict().items()}, temporary)
            write_text(weights.with_suffix(".json"), json.dumps(record, indent=2))
        except (OSError, SafetensorError) as error:  # minutes of fitting are not lost for that
            warnings.warn(f"{name} was fitted and cannot be kept in {weights.parent} ({error})", stacklevel=2)
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
