"""Is the discriminator's evidence its score, and does covering it move the score?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from expressivegan.errors import InputError
from expressivegan.evaluation.faithfulness.arrays import Bools, Floats, check_images
from expressivegan.evaluation.faithfulness.explainers import evidence_maps
from expressivegan.evaluation.faithfulness.imputation import impute
from expressivegan.evaluation.faithfulness.perturbation import highest
from expressivegan.images import UInt8Array, from_uint8
from expressivegan.intervals import bootstrap, mean_interval
from expressivegan.models import DiscriminatorWithExplain
from expressivegan.streams import derive_seed

_BATCH = 64


@torch.no_grad()
def scores(model: DiscriminatorWithExplain, images: UInt8Array, labels: npt.NDArray[np.int64]) -> Floats:
    """(N,) realness of uint8 images (N, H, W)."""
    found = []
    for start in range(0, len(images), _BATCH):
        x = from_uint8(np.ascontiguousarray(images[start : start + _BATCH])[:, None])
        found.append(model.score(x, torch.from_numpy(labels[start : start + _BATCH]))[:, 0].double().numpy())
    return np.concatenate(found)


def occluded(images: UInt8Array, cells: Bools) -> UInt8Array:
    """Images (N, H, W) with some cells of a grid (N, g, g) filled from what is around them (`impute`, without noise).

    A grey patch would be something that no real image has, and any discriminator that sees it would say so wherever it
    lies.
    """
    times = images.shape[1] // cells.shape[1]
    gone = cells.repeat(times, axis=1).repeat(times, axis=2)
    return np.rint(impute(images, gone, noise=0.0)).clip(0, 255).astype(np.uint8)


def evidence_report(
    model: DiscriminatorWithExplain,
    images: UInt8Array,
    labels: npt.NDArray[np.int64],
    patients: Sequence[str],
    *,
    share: float = 0.1,
    draws: int = 8,
    rounds: int = 500,
    seed: int = 0,
) -> dict[str, Any]:
    """What the evidence map promises, measured on real images.

    Args:
        model: on the CPU, in evaluation mode.
        images: uint8 (N, H, W), real.
        labels: (N,) indices into the model's classes.
        patients: N names.
        share: of the cells that are occluded.
        draws: random sets of cells for each image, of the same number.
        rounds: of the bootstrap.
        seed: of the random cells.

    Returns:
        `decomposition_error`, the largest |mean(evidence) - score|; `top`, `random` and `lowest`, how far the score
        moves on average when the cells of highest evidence, random cells, and those of lowest evidence are occluded;
        `ratio` of top to random. Evidence is taken less its mean over the images of the class (`evidence_maps`).

    Raises:
        InputError: wrong shapes, or a share that leaves no cell or all.
    """
    check_images(images, len(labels))
    maps, error = evidence_maps(model, images, labels)
    count = round(share * maps[0].size)
    if not 0 < count < maps[0].size or draws < 1:
        raise InputError(
            f"share (={share}) of {maps[0].size} cells must be some and not all, and draws (={draws}) >= 1"
        )
    before = scores(model, images, labels)

    def moved(cells: Bools) -> Floats:
        return np.abs(scores(model, occluded(images, cells), labels) - before)

    rng = np.random.default_rng(derive_seed(seed, "faithfulness.occlusion"))
    percent = 100 * count / maps[0].size
    top, lowest = moved(highest(maps, percent)), moved(highest(-maps, percent))
    random = np.mean([moved(highest(rng.random(maps.shape), percent)) for _ in range(draws)], axis=0)
    who = list(patients)
    return {
        "decomposition_error": error,
        "cells": [count, int(maps[0].size)],
        "top": mean_interval(top, who, rounds, seed),
        "random": mean_interval(random, who, rounds, seed),
        "lowest": mean_interval(lowest, who, rounds, seed),
        "ratio": bootstrap(lambda rows: float(top[rows].mean() / max(random[rows].mean(), 1e-12)), who, rounds, seed),
    }
