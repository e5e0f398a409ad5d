"""Does the disease appear where it was asked for? In the eyes of two classifiers that took no part in training.

    python benchmarks/steering.py --data DIR --model RUN [--count 96] [--out results.json]
    python benchmarks/steering.py --data phantom:3000 [--model RUN]

For every class with a lesion, children with the disease asked for in one zone of the lungs. Each instrument
(`instruments.py`) shows where it sees the class. `located` is the correlation over the picture of that map with the
zone asked for, less that with another zone of equal area, so that 0 is chance. Of the model's children:

- `steered`, in the label's own style and in NORMAL's; `map less base's`: the same, of the map less that of the same
  child without the disease, which takes away what the child alone looks like;
- `unsteered`: the same zones, but the model chose the place itself, and `random`: a zone other than the one that is
  scored was asked for; both should be near or below 0;
- `flipped`: of the children that the instrument calls healthy without the disease, the share that it calls diseased
  with it;
- `inside`: the share of the counterfactual change inside the zone, dilated by one cell of the teacher's maps;
  `levels`: the mean change inside the zone, in grey levels of 255.

What an instrument can see at all, of healthy reference children:

- `real tissue`: a zone taken from a reference patient with the disease, at the same place, with soft edges; also a
  zone of 1.5 times the radii, both lungs, and (control) from another healthy child;
- `painted`: an obvious opacity drawn into the zone;
- of phantoms, `lesion in the zone`: those drawn with a lesion that lies in one, and `pointing`: whether the map's
  highest point lies in the lesion;
- `AUC`: of the class against the reference class.

Brackets: 95% intervals. Those of generated children are over children. Of real ones those of `AUC`, `levels` and
`located` are over patients; `flipped`, and all that is said of lesions of phantoms, counts images as if each were
another patient's, and is too narrow where patients have several.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from asked import data_of_model, results_file
from ending import leave
from instruments import Instrument, fit_instruments
from rich.console import Console
from rich.table import Table
from torch import Tensor

from expressivegan.atomic import write_text
from expressivegan.data import ImageSet, load_images
from expressivegan.data.cache import cache_root
from expressivegan.errors import InputError
from expressivegan.evaluation.faithfulness import pointing_game
from expressivegan.images import from_uint8, to_uint8
from expressivegan.intervals import Interval, auc_interval, mean_interval, plain, share_interval
from expressivegan.models import GeneratorWithCAMGuidance
from expressivegan.streams import generator
from expressivegan.synthesis import ZONES, open_generator, steering_map
from expressivegan.synthesis.generate import latent
from expressivegan.synthesis.steering import ellipse_maps

NAMES = tuple(ZONES)
LUNGS = ((0.30, 0.50, 0.20, 0.36), (0.72, 0.50, 0.20, 0.36))
CELLS = 8  # of the teacher's maps, a side
OPACITY = 1.0  # painted, before tanh: from a lung's dark grey to white
Array = npt.NDArray[Any]


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


def dilated(regions: Tensor) -> Tensor:
    """(N, 1, H, W) → 0 or 1: within one cell of a region."""
    cell = regions.shape[-1] // CELLS
    return F.max_pool2d((regions > 0).float(), 2 * cell + 1, 1, cell)


def pixels_of(images: Tensor) -> Array:
    """(N, 1, H, W) in [-1, 1] → uint8 (N, H, W)."""
    return to_uint8(images)[:, 0].numpy()


def _mean(values: Array, who: Sequence[Any] | None = None) -> Interval:
    return mean_interval(values, [str(i) for i in (range(len(values)) if who is None else who)])


class Scored:
    """What one instrument makes of pictures with the disease in zones, each beside the same child without it."""

    def __init__(
        self, by: Instrument, label: int, reference: int, without: Array, who: Sequence[Any] | None = None
    ) -> None:
        self.by, self.label, self.reference, self.who = by, label, reference, who
        self.zones = [i % len(NAMES) for i in range(len(without))]
        self.others = other_zones(self.zones, label)
        self.healthy = by.predict(without).argmax(1) == reference
        self.maps_without = by.maps(without, label, reference)

    def flipped(self, pixels: Array) -> Interval:
        ill = self.by.predict(pixels).argmax(1) != self.reference
        return share_interval(int((ill & self.healthy).sum()), int(self.healthy.sum()))

    def rows(self, name: str, pixels: Array) -> dict[str, Interval]:
        maps = self.by.maps(pixels, self.label, self.reference)
        return {
            f"located, {name}": _mean(located(maps, self.zones, self.others), self.who),
            f"located, {name}, map less base's": _mean(
                located(maps - self.maps_without, self.zones, self.others), self.who
            ),
            f"flipped, {name}": self.flipped(pixels),
        }


def zones_of(zones: Sequence[int], side: int, times: float = 1.0) -> Tensor:
    """(N, 1, side, side): the zones, with `times` their radii."""
    return ellipse_maps(torch.tensor([ZONES[NAMES[z]] for z in zones]) * torch.tensor([1, 1, times, times]), side)


@torch.no_grad()
def measure(model: GeneratorWithCAMGuidance, by: Instrument, label: int, count: int) -> dict[str, Interval]:
    """Figures of one class by one instrument, over `count` children, each with one zone."""
    reference = model.class_set.reference
    assert reference is not None
    z = torch.stack([latent(0, i, model.z_dim) for i in range(count)])
    labels = torch.full((count,), label)
    styles = {"": labels, ", NORMAL's style": torch.full((count,), reference)}
    figures: dict[str, Interval] = {}
    for words, style in styles.items():
        base = model.compose(z, labels, style_labels=style).base_image
        scored = Scored(by, label, reference, pixels_of(base))
        asked, elsewhere = (zones_of(zones, model.resolution) for zones in (scored.zones, scored.others))
        steers = {"steered": asked} if words else {"steered": asked, "unsteered": None, "random": elsewhere}
        for name, steer in steers.items():
            image = model.compose(z, labels, style_labels=style, steer=steer).image
            figures |= scored.rows(name + words, pixels_of(image))
            change = (image - base).abs()
            inside = (change * dilated(asked)).sum(dim=(1, 2, 3)) / change.sum(dim=(1, 2, 3)).clamp_min(1e-9)
            figures[f"inside, {name}{words}"] = _mean(inside.numpy())
            figures[f"levels, {name}{words}"] = _mean(levels(change, asked))
        figures[f"healthy before{words}"] = share_interval(int(scored.healthy.sum()), count)
    return figures


def levels(change: Tensor, regions: Tensor) -> Array:
    """(N, 1, H, W) in [0, 2], (N, 1, H, W) → (N,) mean change inside each region, in grey levels of 255."""
    found: Array = (127.5 * (change * regions).sum((1, 2, 3)) / regions.sum((1, 2, 3))).numpy()
    return found


def painted(images: Tensor, regions: Tensor, amount: float = OPACITY) -> Tensor:
    """Images in [-1, 1] with a textured opacity of this height, before tanh, in each region."""
    coarse = torch.randn(len(images), 1, 16, 16, generator=generator("steering", "painted"))
    texture = 1 + 0.3 * F.interpolate(coarse, images.shape[-1], mode="bilinear")
    return torch.tanh(torch.atanh(images.clamp(-0.99, 0.99)) + amount * regions * texture)


@torch.no_grad()
def ceiling(data: ImageSet, by: Instrument, label: int) -> dict[str, Interval]:
    """What an instrument can see of reference patients: of their classes, of a painted opacity, of real tissue."""
    assert data.reference is not None
    chosen = data.indices("reference")
    of = {k: chosen[data.labels[chosen] == k] for k in (data.reference, label)}
    healthy, ill = (np.asarray(data.images[rows]) for rows in of.values())
    truth = np.repeat([False, True], [len(healthy), len(ill)])
    score = 1 - by.predict(np.concatenate([healthy, ill]))[:, data.reference]
    patients = [str(p) for rows in of.values() for p in np.asarray(data.patients[rows])]
    figures = {"AUC": auc_interval(truth, score, patients)}

    scored = Scored(by, label, data.reference, healthy, data.patients[of[data.reference]])
    children = from_uint8(healthy)[:, None]
    zone = zones_of(scored.zones, data.resolution)
    figures |= scored.rows("painted", pixels_of(painted(children, zone)))
    if data.masks is not None:  # what a phantom's zone holds is known, so there is no need to guess
        return figures | lesions(data, by, label)
    rng = np.random.default_rng(label)
    donors = from_uint8(ill[rng.integers(len(ill), size=len(healthy))])[:, None]
    lungs = torch.stack([ellipse_maps(torch.tensor([lung]), data.resolution)[0] for lung in LUNGS]).amax(0)
    for name, tissue, region in (
        ("real tissue", donors, zone),
        ("real tissue, 1.5 x", donors, zones_of(scored.zones, data.resolution, 1.5)),
        ("healthy tissue (control)", children.roll(len(NAMES), 0), zone),
        ("both lungs", donors, lungs[None]),
        ("both healthy lungs (control)", children.roll(len(NAMES), 0), lungs[None]),
    ):
        mixed = children + region * (tissue - children)
        if "lungs" in name:
            figures[f"flipped, {name}"] = scored.flipped(pixels_of(mixed))
        else:
            figures |= scored.rows(name, pixels_of(mixed))
            figures[f"levels, {name}"] = _mean(levels((mixed - children).abs(), zone), scored.who)
    return figures


def lesions(data: ImageSet, by: Instrument, label: int) -> dict[str, Interval]:
    """`located` of phantoms of the reference group whose lesion lies in a zone for the most part."""
    assert data.masks is not None
    assert data.reference is not None
    chosen = data.indices("reference")
    chosen = chosen[data.labels[chosen] == label]
    masks = torch.from_numpy(np.asarray(data.masks[chosen])).float()
    maps = by.maps(np.asarray(data.images[chosen]), label, data.reference)
    figures = {"pointing": _mean(pointing_game(maps.numpy(), masks.numpy()))} if maps.shape == masks.shape else {}
    plain_regions = torch.cat([steering_map(n, data.resolution) for n in NAMES])
    share = torch.einsum("nij,zij->nz", masks, dilated(plain_regions)[:, 0]) / masks.sum((1, 2)).clamp_min(1)[:, None]
    nearest = torch.einsum("nij,zij->nz", masks, plain_regions[:, 0]).argmax(1)
    kept = np.flatnonzero((share.gather(1, nearest[:, None])[:, 0] >= 0.8).numpy())
    if len(kept) >= 5:
        zones = [int(nearest[i]) for i in kept]
        figures["located, lesion in the zone"] = _mean(located(maps[kept], zones, other_zones(zones, label)))
        figures["lesion in the zone, share"] = share_interval(len(kept), len(chosen))
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--count", type=int, default=96, help="children of each class")
    parser.add_argument("--other-data", action="store_true", help="the model was trained on others, as in evaluate")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.out is not None:
        results_file(arguments.out)
    model, data = None, None
    if arguments.model is not None:
        model = open_generator(arguments.model)
        if not isinstance(model, GeneratorWithCAMGuidance) or model.class_set.reference is None:
            raise InputError(f"--model (={arguments.model}) must be a CAM-guided generator with a reference class")
        data = data_of_model(arguments.model, model.classes, model.resolution, arguments.data, arguments.other_data)
    data = load_images(arguments.data, 64) if data is None else data
    if data.reference is None:
        raise InputError(f"--data (={arguments.data}) must have a class without disease, such as NORMAL")
    results: dict[str, dict[str, dict[str, Interval]]] = {}
    for by in fit_instruments(data, cache_root() / "features"):
        for k, name in enumerate(data.classes):
            if k == data.reference:
                continue
            rows = {} if model is None else measure(model, by, k, arguments.count)
            results.setdefault(name, {})[by.name] = rows | ceiling(data, by, k)
    columns = [(name, by) for name, found in results.items() for by in found]
    table = Table("figure", *(f"{name}, {by}" for name, by in columns))
    for figure in dict.fromkeys(f for found in results.values() for rows in found.values() for f in rows):
        table.add_row(figure, *(str(results[name][by].get(figure, "")) for name, by in columns))
    Console(width=48 + 24 * len(columns)).print(table)
    if arguments.out is not None:
        write_text(arguments.out, json.dumps(plain(results), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    leave(main)
