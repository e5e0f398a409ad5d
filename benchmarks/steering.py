"""Does the disease appear where it was asked for? In the eyes of a classifier that took no part in training.

    python benchmarks/steering.py --data DIR --model RUN [--count 96] [--out results.json]
    python benchmarks/steering.py --data phantom:3000 [--model RUN]

For every class with a lesion, children with the disease asked for in one zone of the lungs. The judge (a ResNet-18
fitted on judge patients, with the border masked) shows where it sees the class: its class-activation map less that of
the reference class, exact since it ends in ReLU, average and linear layer. `located` is the correlation over the
picture of that map with the zone asked for, less that with another zone of equal area, so that 0 is chance. Beside it

- `unsteered`: the same zones, but the model chose the place itself, and `random`: a zone other than the one that is
  scored was asked for; both should be near or below 0;
- `flipped`: of the children that the judge calls healthy without the disease, the share that it calls diseased with it;
- `inside`: the share of the counterfactual change inside the zone, dilated by one cell of the teacher's maps;
- for phantoms, `ceiling`: pictures drawn with a lesion that lies in the zone, scored the same way.

Brackets: 95% intervals over children.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from expressivegan.data import ImageSet, load_images
from expressivegan.data.cache import cache_root
from expressivegan.errors import ExpressiveGANError, InputError
from expressivegan.evaluation import JudgeClassifier
from expressivegan.evaluation.features.frame import mask_border, resize
from expressivegan.images import from_uint8, to_uint8
from expressivegan.intervals import Interval, mean_interval, plain, share_interval
from expressivegan.models import GeneratorWithCAMGuidance
from expressivegan.synthesis import ZONES, open_generator, steering_map
from expressivegan.synthesis.generate import latent
from expressivegan.synthesis.origin import origin_of

NAMES = tuple(ZONES)
SHIFT = 4  # pixels between the places at which the judge's coarse maps are taken
CELLS = 8  # of the teacher's maps, a side
Array = npt.NDArray[Any]


@torch.no_grad()
def judge_maps(judge: JudgeClassifier, pixels: Array, label: int, reference: int, shift: int = SHIFT) -> Tensor:
    """uint8 (N, 64, 64) → (N, 64, 64): CAM of the label less that of the reference, from the judge's last features.

    One cell of those is a quarter of the picture. The picture is therefore seen at several shifts, and the maps are
    averaged where they overlap, which places what one cell cannot.
    """
    network = judge._network  # it has no public map, and no other user of one
    body = network.encode.body
    weight = (network.head.weight[label] - network.head.weight[reference])[:, None, None]
    x = mask_border(resize(from_uint8(pixels)[:, None], judge.recipe.resolution), network.encode.border)
    side = x.shape[-1]
    total, count = torch.zeros(len(x), side, side), 0
    # Evenly to both sides, and no farther than the masked border is wide: what comes round the edge is grey.
    reach = round(side * network.encode.border) // shift * shift
    shifts = range(-reach, reach + 1, shift)
    for dy in shifts:
        for dx in shifts:
            f = body.relu(body.bn1(body.conv1(x.roll((dy, dx), (2, 3)))))
            f = body.layer4(body.layer3(body.layer2(body.layer1(f))))
            cam = (f * weight).sum(1, keepdim=True)
            fine = torch.nn.functional.interpolate(cam, side, mode="bilinear", align_corners=False)[:, 0]
            total += fine.roll((-dy, -dx), (1, 2))
            count += 1
    return total / count


def correlation(maps: Tensor, region: Tensor) -> Array:
    """(N, H, W), (H, W) → (N,) Pearson over the pixels; 0 where a map is constant."""
    a = maps.flatten(1) - maps.flatten(1).mean(1, keepdim=True)
    b = region.flatten() - region.mean()
    found: Array = ((a @ b) / (a.norm(dim=1) * b.norm()).clamp_min(1e-9)).numpy()
    return found


def located(maps: Tensor, zones: Sequence[int], others: Sequence[int]) -> Array:
    """(N,) correlation with the zone asked for less that with the other zone."""
    regions = [steering_map(n, maps.shape[-1])[0, 0] for n in NAMES]
    table = np.stack([correlation(maps, r) for r in regions], 1)
    who = np.arange(len(maps))
    found: Array = table[who, list(zones)] - table[who, list(others)]
    return found


def other_zones(zones: Sequence[int], seed: int) -> list[int]:
    """For each zone another one, drawn evenly."""
    rng = np.random.default_rng(seed)
    return [int((z + 1 + rng.integers(len(NAMES) - 1)) % len(NAMES)) for z in zones]


def _mean(values: Array) -> Interval:
    return mean_interval(values, [str(i) for i in range(len(values))])


@torch.no_grad()
def measure(model: GeneratorWithCAMGuidance, judge: JudgeClassifier, label: int, count: int) -> dict[str, Interval]:
    """Figures of one class, over `count` children, each with one zone."""
    reference = model.class_set.reference
    assert reference is not None
    zones = [i % len(NAMES) for i in range(count)]
    others = other_zones(zones, label)
    asked = torch.cat([steering_map(NAMES[z], model.resolution) for z in zones])
    elsewhere = torch.cat([steering_map(NAMES[z], model.resolution) for z in others])
    z = torch.stack([latent(0, i, model.z_dim) for i in range(count)])
    labels = torch.full((count,), label)
    made = {"steered": model.compose(z, labels, steer=asked), "unsteered": model.compose(z, labels)}
    made["random"] = model.compose(z, labels, steer=elsewhere)
    pixels = {name: to_uint8(parts.image)[:, 0].numpy() for name, parts in made.items()}
    figures = {
        f"located, {name}": _mean(located(judge_maps(judge, p, label, reference), zones, others))
        for name, p in pixels.items()
    }
    seen = {name: judge.predict(p).argmax(1) for name, p in pixels.items()}
    before = judge.predict(to_uint8(made["steered"].base_image)[:, 0].numpy()).argmax(1)
    healthy = before == reference
    for name in ("steered", "unsteered"):
        figures[f"flipped, {name}"] = share_interval(int((seen[name][healthy] != reference).sum()), int(healthy.sum()))
    figures["healthy before"] = share_interval(int(healthy.sum()), count)
    for name in ("steered", "unsteered", "random"):
        change = (made[name].image - made[name].base_image).abs()
        inside = (change * dilated(asked)).sum(dim=(1, 2, 3)) / change.sum(dim=(1, 2, 3)).clamp_min(1e-9)
        figures[f"inside, {name}"] = _mean(inside.numpy())
    return figures


def dilated(regions: Tensor) -> Tensor:
    """(N, 1, H, W) → 0 or 1: within one cell of a region."""
    cell = regions.shape[-1] // CELLS
    return torch.nn.functional.max_pool2d((regions > 0).float(), 2 * cell + 1, 1, cell)


def ceiling(data: ImageSet, judge: JudgeClassifier, label: int) -> dict[str, Interval]:
    """`located` of phantoms of the reference group whose lesion lies in a zone for the most part."""
    assert data.masks is not None
    assert data.reference is not None
    chosen = data.indices("reference")
    chosen = chosen[data.labels[chosen] == label]
    masks = torch.from_numpy(np.asarray(data.masks[chosen])).float()
    regions = torch.cat([dilated(steering_map(n, data.resolution)) for n in NAMES])[:, 0]
    plain_regions = torch.cat([steering_map(n, data.resolution) for n in NAMES])[:, 0]
    share = torch.einsum("nij,zij->nz", masks, regions) / masks.sum((1, 2)).clamp_min(1)[:, None]
    nearest = torch.einsum("nij,zij->nz", masks, plain_regions).argmax(1)
    kept = np.flatnonzero((share.gather(1, nearest[:, None])[:, 0] >= 0.8).numpy())
    if len(kept) < 5:
        return {"ceiling": Interval(float("nan"), float("nan"), float("nan"))}
    zones = [int(nearest[i]) for i in kept]
    maps = judge_maps(judge, np.asarray(data.images[chosen[kept]]), label, data.reference)
    return {
        "ceiling": _mean(located(maps, zones, other_zones(zones, label))),
        "ceiling, n": share_interval(len(kept), len(chosen)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--count", type=int, default=96, help="children of each class")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    try:
        model = None if arguments.model is None else open_generator(arguments.model)
        if model is not None and (not isinstance(model, GeneratorWithCAMGuidance) or model.class_set.reference is None):
            raise InputError(f"--model (={arguments.model}) must be a CAM-guided generator with a reference class")
        if model is None and not arguments.data.startswith("phantom"):
            raise InputError("--model is missing; without one only a phantom's ceiling can be measured")
        if model is None:
            data = load_images(arguments.data, 64)
        else:
            data = load_images(arguments.data, model.resolution, fit=origin_of(arguments.model).fit)
        judged = data.indices("judge")
        judge = JudgeClassifier.fit(
            np.asarray(data.images[judged]), data.labels[judged], data.classes, cache=cache_root() / "features"
        )
        results: dict[str, dict[str, Interval]] = {}
        for k, name in enumerate(data.classes):
            if k == data.reference:
                continue
            row = {} if model is None else measure(model, judge, k, arguments.count)
            results[name] = row | (ceiling(data, judge, k) if data.masks is not None else {})
    except ExpressiveGANError as error:
        print(f"steering: {error}", file=sys.stderr)
        return 2
    table = Table("figure", *results)
    for figure in next(iter(results.values())):
        table.add_row(figure, *(str(row.get(figure, "")) for row in results.values()))
    Console(width=120).print(table)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(plain(results), indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
