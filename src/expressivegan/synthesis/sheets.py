"""A generator on three pictures: samples, where disease was put, and the same children with and without it."""

from pathlib import Path

import torch
from torch import Tensor

from expressivegan.checkpoint import state_hash
from expressivegan.images import grid, overlay, save_png
from expressivegan.models import GeneratorWithCAMGuidance
from expressivegan.synthesis.counterfactual import counterfactual_pairs
from expressivegan.synthesis.generate import generate
from expressivegan.synthesis.provenance import png_text


def write_samples(model: GeneratorWithCAMGuidance, path: Path, columns: int = 8, seed: int = 0) -> None:
    """One row a class, one column a latent vector: the first images of the seed, not chosen ones."""
    images = []
    for k in range(model.class_set.count):
        images += [made.image for made in generate(model, range(columns), seed=seed, label=k)]
    save_png(path, grid(torch.cat(images), columns), _text(model, seed))


def write_sheets(model: GeneratorWithCAMGuidance, out: Path, columns: int = 8, seed: int = 0) -> None:
    """Writes `samples.png`, `attention-overlays.png` and `counterfactual-pairs.png`.

    Overlays have one row a disease: M painted over the image. Pairs have three: without the disease, with it, and M.

    Args:
        model: in evaluation mode.
        out: an existing folder.
        columns: children in a row, the same in every picture.
        seed: of the run of generation.
    """
    write_samples(model, out / "samples.png", columns, seed)
    painted, rows = [], list[Tensor]()
    for k in range(model.class_set.count):
        if k != model.class_set.reference:
            pair = counterfactual_pairs(model, list(range(columns)), k, seed=seed)
            painted.append(torch.from_numpy(overlay(pair.with_disease, pair.mask)))
            rows += [pair.without, pair.with_disease, pair.mask * 2 - 1]
    save_png(out / "attention-overlays.png", grid(torch.cat(painted).numpy(), columns), _text(model, seed))
    save_png(out / "counterfactual-pairs.png", grid(torch.cat(rows), columns), _text(model, seed))


def _text(model: GeneratorWithCAMGuidance, seed: int) -> dict[str, str]:
    return png_text({"model": state_hash(model), "seed": seed})
