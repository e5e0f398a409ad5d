"""Do the maps act? In the eyes of a classifier that took no part in training.

    python benchmarks/maps.py --data DIR --model RUN [--count 256] [--out results.json]

For every class with a lesion: the area of M; how often the independent classifier (fitted on judge patients, with the
border masked) sees a disease in the image and in the same child without it (M = 0); the share of the change that lies
where M is high; and the same with M moved to where it does not belong (rolled by half the picture) as the control.

Then each level of the maps: whether it is constant (`spread`: the map's mean distance from its own mean over the
pixels of an image, and from the mean map of all images, away from the frame; 0 is constant), whether it repeats the
coarser one (correlation over pixels, before the sigmoid; 1 does), and what is lost without it. Three ablations, each to
means over the class's images and pixels:

- `map`: what the level itself adds to the logit of the maps;
- `gate`: the map by which its lesion features are multiplied;
- `features`: those gated features, so that the level hands nothing on.

For each: how much M changes (of its mean), how much the image changes under M (grey levels of 255; `levels_under_M` of
the first table is the whole disease), and the share of the flips that is lost: children healthy without the disease and
diseased with it who are healthy again. A level is *exposed* as constant where a spread is below 0.01, as redundant
where the image stays the same to half a grey level without what it adds to the maps, and as idle where it does without
its gate.
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from asked import data_of_model, results_file
from ending import leave
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from expressivegan.atomic import write_text
from expressivegan.data.cache import cache_root
from expressivegan.errors import InputError
from expressivegan.evaluation import JudgeClassifier, JudgeRecipe
from expressivegan.images import to_uint8
from expressivegan.intervals import Interval, mean_interval, plain, share_interval
from expressivegan.models import GeneratorWithCAMGuidance
from expressivegan.models.layers import upsample
from expressivegan.synthesis import open_generator
from expressivegan.synthesis.generate import latent

ABLATIONS = ("map", "gate", "features")
LEAST_SPREAD, LEAST_LEVELS = 0.01, 0.5


@torch.no_grad()
def measure(model: GeneratorWithCAMGuidance, judge: JudgeClassifier, label: int, count: int) -> dict[str, float]:
    """Figures of one class."""
    reference = model.class_set.reference
    assert reference is not None
    z = torch.stack([latent(0, i, model.z_dim) for i in range(count)])
    parts = model.compose(z, torch.full((count,), label))
    moved = parts.mask.roll(model.resolution // 2, dims=3)
    without = model.compose(z, torch.full((count,), reference), style_labels=torch.full((count,), label))
    pictures = {
        "image": parts.image,
        "without": parts.base_image,
        "moved": torch.tanh(parts.base + moved * parts.delta),
        "normal": model.compose(z, torch.full((count,), reference)).image,
    }
    seen = {k: judge.predict(to_uint8(v)[:, 0].numpy()).argmax(1) for k, v in pictures.items()}
    change = (parts.image - parts.base_image).abs()
    high = parts.mask >= parts.mask.flatten(1).quantile(0.75, dim=1)[:, None, None, None]
    return {
        "area_of_M": float(parts.mask.mean()),
        "largest_area_of_M": float(parts.mask.mean(dim=(1, 2, 3)).max()),
        "disease_seen": float((seen["image"] != reference).mean()),
        "disease_seen_without_M": float((seen["without"] != reference).mean()),
        "disease_seen_M_moved": float((seen["moved"] != reference).mean()),
        "disease_seen_in_normal": float((seen["normal"] != reference).mean()),
        "agreement": float((seen["image"] == label).mean()),
        "levels_under_M": float(_under(change, parts.mask).mean()),
        "change_in_top_quarter_of_M": float((change * high).sum() / change.sum().clamp_min(1e-9)),
        "base_differs_from_normal_label": float((without.image - parts.base_image).abs().max()),
    }


def _under(change: Tensor, mask: Tensor) -> Tensor:
    """(N, 1, H, W) twice → (N,): the mean change under M, in grey levels."""
    return 127.5 * (change * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp_min(1e-9)


@contextmanager
def ablated(model: GeneratorWithCAMGuidance, level: int, what: str) -> Iterator[None]:
    """One of `ABLATIONS` of a level, 0 the coarsest, for images that are made in one batch."""
    gated_to = model.lesion_ups[level] if level < len(model.lesion_ups) else model.delta_up
    free: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor], h: Tensor) -> None:
        free[:] = [h]

    def mean_map(module: nn.Module, inputs: tuple[Tensor], own: Tensor) -> Tensor:
        return own.mean().expand_as(own)

    def mean_gate(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        (h,) = free
        gate = (inputs[0] * h).sum(1) / h.square().sum(1).clamp_min(1e-12)  # inputs[0] is h times the map
        return (h * gate.mean(),)

    def mean_features(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (inputs[0].mean((0, 2, 3), keepdim=True).expand_as(inputs[0]),)

    with ExitStack() as hooks:
        if what == "map":
            hooks.enter_context(model.map_outs[level].register_forward_hook(mean_map))
        else:
            hooks.enter_context(model.lesion_blocks[level].register_forward_hook(keep))
            changed = mean_gate if what == "gate" else mean_features
            hooks.enter_context(gated_to.register_forward_pre_hook(changed))
        yield


@torch.no_grad()
def measure_levels(
    model: GeneratorWithCAMGuidance, judge: JudgeClassifier, label: int, count: int
) -> dict[str, dict[str, Interval | str]]:
    """Figures of each level for one class, by the size of its map."""
    reference = model.class_set.reference
    assert reference is not None
    z = torch.stack([latent(0, i, model.z_dim) for i in range(count)])
    labels = torch.full((count,), label)
    own: list[Tensor] = []
    with ExitStack() as hooks:
        for out in model.map_outs:
            hooks.enter_context(out.register_forward_hook(lambda module, inputs, output: own.append(output)))
        parts = model.compose(z, labels)
    who = [str(i) for i in range(count)]

    def mean(values: Tensor) -> Interval:
        return mean_interval(values.numpy(), who)

    def ill(images: Tensor) -> Tensor:
        return torch.from_numpy(judge.predict(to_uint8(images)[:, 0].numpy()).argmax(1) != reference)

    flips = ill(parts.image) & ~ill(parts.base_image)
    found: dict[str, dict[str, Interval | str]] = {}
    logit = own[0]
    for level in range(len(model.map_outs)):
        maps = parts.attention[level]
        size = maps.shape[-1]
        inner = F.adaptive_max_pool2d(model.window, size)[0, 0] == 1  # elsewhere the frame bounds the map
        cells = maps[:, 0, inner]
        pixels, images = (
            mean((cells - cells.mean(1, keepdim=True)).abs().mean(1)),
            mean((cells - cells.mean(0)).abs().mean(1)),
        )
        row: dict[str, Interval | str] = {"spread over pixels": pixels, "spread over images": images}
        if level:
            coarser = upsample(logit)
            logit = coarser + own[level]
            pair = torch.stack([logit, coarser])[:, :, 0, inner]
            pair = pair - pair.mean(2, keepdim=True)
            row["correlation with the coarser"] = mean(pair.prod(0).sum(1) / pair.norm(dim=2).prod(0).clamp_min(1e-9))
        moved: dict[str, Interval] = {}
        for what in ABLATIONS:
            with ablated(model, level, what):
                without = model.compose(z, labels)
            change = _under((without.image - parts.image).abs(), parts.mask)
            shift = (without.mask - parts.mask).abs().mean((1, 2, 3)) / parts.mask.mean()
            row[f"{what}: M changes by"] = mean(shift)
            row[f"{what}: levels under M"] = moved[what] = mean(change)
            row[f"{what}: flips lost"] = share_interval(int((flips & ~ill(without.image)).sum()), int(flips.sum()))
        faults = {
            "constant": min(pixels.value, images.value) < LEAST_SPREAD,
            "redundant": moved["map"].value < LEAST_LEVELS,
            "idle": moved["gate"].value < LEAST_LEVELS,
        }
        row["exposed"] = ", ".join(name for name, is_so in faults.items() if is_so) or "no"
        found[f"{size}x{size}"] = row
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--count", type=int, default=256, help="images of each class")
    parser.add_argument("--other-data", action="store_true", help="the model was trained on others, as in evaluate")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.out is not None:
        results_file(arguments.out)
    model = open_generator(arguments.model)
    if not isinstance(model, GeneratorWithCAMGuidance) or model.class_set.reference is None:
        raise InputError(f"--model (={arguments.model}) must be a CAM-guided generator with a reference class")
    data = data_of_model(arguments.model, model.classes, model.resolution, arguments.data, arguments.other_data)
    judged = data.indices("judge")
    judge = JudgeClassifier.fit(
        np.asarray(data.images[judged]),
        data.labels[judged],
        data.classes,
        recipe=JudgeRecipe(resolution=model.resolution),
        cache=cache_root() / "features",
    )
    ill = {name: k for k, name in enumerate(model.classes) if k != model.class_set.reference}
    results = {name: measure(model, judge, k, arguments.count) for name, k in ill.items()}
    levels = {name: measure_levels(model, judge, k, arguments.count) for name, k in ill.items()}
    table = Table("figure", *results)
    for figure in next(iter(results.values())):
        table.add_row(figure, *(f"{row[figure]:.3f}" for row in results.values()))
    Console(width=100).print(table)
    columns = [(name, size) for name, rows in levels.items() for size in rows]
    table = Table("level", *(f"{name}, {size}" for name, size in columns))
    for figure in levels[columns[-1][0]][columns[-1][1]]:  # the coarsest level has no coarser one
        table.add_row(figure, *(str(levels[name][size].get(figure, "")) for name, size in columns))
    Console(width=40 + 24 * len(columns)).print(table)
    if arguments.out is not None:
        both = {name: row | {"levels": levels[name]} for name, row in results.items()}
        write_text(arguments.out, json.dumps(plain(both), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    leave(main)
