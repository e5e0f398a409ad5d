"""Do the maps act? In the eyes of a classifier that took no part in training.

    python benchmarks/maps.py --data DIR --model RUN [--count 256] [--out results.json]

For every class with a lesion: the area of M; how often the independent classifier (fitted on judge patients, with the
border masked) sees a disease in the image and in the same child without it (M = 0); the share of the change that lies
where M is high; and the same with M moved to where it does not belong (rolled by half the picture) as the control.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from expressivegan.data import load_images
from expressivegan.data.cache import cache_root
from expressivegan.errors import ExpressiveGANError, InputError
from expressivegan.evaluation import JudgeClassifier
from expressivegan.images import to_uint8
from expressivegan.models import GeneratorWithCAMGuidance
from expressivegan.synthesis import open_generator
from expressivegan.synthesis.generate import latent


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
        "change_in_top_quarter_of_M": float((change * high).sum() / change.sum().clamp_min(1e-9)),
        "base_differs_from_normal_label": float((without.image - parts.base_image).abs().max()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--count", type=int, default=256, help="images of each class")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    try:
        model = open_generator(arguments.model)
        if not isinstance(model, GeneratorWithCAMGuidance) or model.class_set.reference is None:
            raise InputError(f"--model (={arguments.model}) must be a CAM-guided generator with a reference class")
        data = load_images(arguments.data, model.resolution)
        judged = data.indices("judge")
        judge = JudgeClassifier.fit(
            np.asarray(data.images[judged]), data.labels[judged], data.classes, cache=cache_root() / "features"
        )
        results = {
            name: measure(model, judge, k, arguments.count)
            for k, name in enumerate(model.classes)
            if k != model.class_set.reference
        }
    except ExpressiveGANError as error:
        print(f"maps: {error}", file=sys.stderr)
        return 2
    table = Table("figure", *results)
    for figure in next(iter(results.values())):
        table.add_row(figure, *(f"{row[figure]:.3f}" for row in results.values()))
    Console(width=100).print(table)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
