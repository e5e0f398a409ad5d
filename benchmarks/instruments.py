"""Two classifiers that took no part in training and show where they see a class; `steering.py` reads them.

Both are fitted on judge patients with the border masked. `judge` is the ResNet-18 of every other benchmark, whose last
features see the whole picture. `patches` is local by construction: like BagNet (Brendel and Bethge, ICLR 2019) it
averages what it makes of patches of 18 pixels, so what it says of a place was seen there.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expressivegan.data import ImageSet
from expressivegan.devices import bf16_where_fast
from expressivegan.evaluation import JudgeClassifier, JudgeRecipe
from expressivegan.evaluation.features.fitting import CHUNK, fitted, training_key
from expressivegan.evaluation.features.frame import mask_border, resize

# Private, since no other user wants the loop of the judge without its network.
from expressivegan.evaluation.features.judge import _train_judge
from expressivegan.images import from_uint8

SHIFT = 4  # pixels between the places at which the judge's coarse maps are taken
PATCH = 18  # pixels that one cell of `patches` sees
Array = npt.NDArray[Any]


class Instrument(Protocol):
    """A classifier with a map."""

    name: str

    def predict(self, pixels: Array) -> Array:
        """uint8 (N, H, W) → (N, K) probabilities."""
        ...

    def maps(self, pixels: Array, label: int, reference: int) -> Tensor:
        """uint8 (N, H, W) → (N, 64, 64): where it sees the label rather than the reference class."""
        ...


def drawn_where_seen(cells: Tensor, side: int, centre: float) -> Tensor:
    """(N, 1, g, g) → (N, side, side), bilinear, where cell j is centred on pixel `stride * j + centre`.

    Beyond the outermost centres the map is constant.
    """
    g = cells.shape[-1]
    at = ((torch.arange(side) - centre) / (side / g)).clamp(0, g - 1) / max(g - 1, 1) * 2 - 1
    grid = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).expand(len(cells), -1, -1, -1)
    return F.grid_sample(cells, grid, padding_mode="border", align_corners=True)[:, 0]


class Judge:
    """The benchmarks' independent classifier, a ResNet-18, and its referenced CAM.

    The CAM is exact, since the network ends in ReLU, average and linear layer. A 3x3 convolution of stride 2 and
    padding 1 centres cell j on pixel 2 j, and four of them on 16 j; bilinear enlarging would draw it at 16 j + 7.5.
    """

    name = "judge"

    def __init__(self, classifier: JudgeClassifier) -> None:
        self.classifier = classifier

    def predict(self, pixels: Array) -> Array:
        return self.classifier.predict(pixels)

    @torch.no_grad()
    def maps(self, pixels: Array, label: int, reference: int) -> Tensor:
        """See `Instrument`.

        A cell is a quarter of the picture. The picture is therefore seen at several shifts, and the maps are averaged
        where they overlap, which places what one cell cannot.
        """
        network = self.classifier._network  # it has no public map, and no other user of one
        body = network.encode.body
        weight = (network.head.weight[label] - network.head.weight[reference])[:, None, None]
        x = from_uint8(pixels)[:, None]
        x = mask_border(resize(x, self.classifier.recipe.resolution), network.encode.border)
        side = x.shape[-1]
        total, count = torch.zeros(len(x), side, side), 0
        # Evenly to both sides, and no farther than the masked border is wide: what comes round the edge is grey.
        reach = round(side * network.encode.border) // SHIFT * SHIFT
        shifts = range(-reach, reach + 1, SHIFT)
        for dy in shifts:
            for dx in shifts:
                with bf16_where_fast("cpu"):  # many pictures at nine places each
                    f = body.relu(body.bn1(body.conv1(x.roll((dy, dx), (2, 3)))))
                    f = body.layer4(body.layer3(body.layer2(body.layer1(f))))
                cam = (f.float() * weight).sum(1, keepdim=True)
                total += drawn_where_seen(cam, side, 0.0).roll((-dy, -dx), (1, 2))
                count += 1
        return total / count


class PatchNetwork(nn.Module):
    """(B, 1, S, S) in [-1, 1] → logits (B, K): the mean over cells of what each makes of its 18x18 pixels.

    Kernels of stride 2 are 2x2 without padding: cell j is centred on pixel 4 j + 1.5, as bilinear enlarging draws it.
    """

    def __init__(self, classes: int, border: float, width: int = 48) -> None:
        super().__init__()

        def layer(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
            conv = nn.Conv2d(inputs, outputs, kernel, 1 + (kernel == 2), int(kernel == 3), bias=False)
            return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]

        w = width
        self.border = border
        self.body = nn.Sequential(
            *layer(1, w, 3), *layer(w, w, 2), *layer(w, w, 3), *layer(w, 2 * w, 2),
            *layer(2 * w, 2 * w, 3), *layer(2 * w, 2 * w, 1), *layer(2 * w, 2 * w, 1),
        )  # fmt: skip
        self.head = nn.Conv2d(2 * w, classes, 1)
        self.to(memory_format=torch.channels_last)

    def cells(self, x: Tensor) -> Tensor:
        """(B, 1, S, S) → (B, K, S/4, S/4)."""
        found: Tensor = self.head(self.body(mask_border(x, self.border).contiguous(memory_format=torch.channels_last)))
        return found

    def forward(self, x: Tensor) -> Tensor:
        cells = self.cells(x)
        edge = int(cells.shape[-1] * self.border) + 1  # cells of the masked border
        return cells[..., edge:-edge, edge:-edge].mean((2, 3))


class Patches:
    """A classifier of patches and its referenced map, which is its decision, cell by cell."""

    name = "patches"

    def __init__(self, network: PatchNetwork, side: int) -> None:
        self.network, self.side = network, side

    @classmethod
    def fit(cls, images: Array, labels: Array, classes: Sequence[str], *, cache: Path | None = None) -> "Patches":
        """Fits it as `JudgeClassifier.fit` does, or takes it from the cache."""
        recipe = replace(JudgeRecipe(), lr=2e-3)
        side = recipe.resolution
        key = training_key(cls.name, asdict(recipe) | {"patch": PATCH}, 0, "judge", images, labels, classes)

        def train(network: PatchNetwork) -> None:
            x = resize(from_uint8(images)[:, None], side)
            _train_judge(network, x, torch.from_numpy(labels), recipe, 0, None)  # type: ignore[arg-type]

        return cls(fitted(cache, cls.name, key, lambda: PatchNetwork(len(classes), recipe.border), train, 0), side)

    @torch.no_grad()
    def predict(self, pixels: Array) -> Array:
        x = resize(from_uint8(np.ascontiguousarray(pixels))[:, None], self.side)
        found: Array = torch.cat([self.network(part).softmax(1) for part in torch.split(x, CHUNK)]).numpy()
        return found

    @torch.no_grad()
    def maps(self, pixels: Array, label: int, reference: int) -> Tensor:
        x = resize(from_uint8(np.ascontiguousarray(pixels))[:, None], self.side)
        cells = torch.cat([self.network.cells(part) for part in torch.split(x, CHUNK)])
        return drawn_where_seen((cells[:, label] - cells[:, reference])[:, None], self.side, 1.5)


def fit_instruments(data: ImageSet, cache: Path | None) -> list[Instrument]:
    """Both, fitted on the judge patients of a data set, or taken from the cache."""
    chosen = data.indices("judge")
    images, labels = np.asarray(data.images[chosen]), np.asarray(data.labels[chosen], np.int64)
    return [
        Judge(JudgeClassifier.fit(images, labels, data.classes, cache=cache)),
        Patches.fit(images, labels, data.classes, cache=cache),
    ]
