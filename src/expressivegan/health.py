"""Is a run in training healthy? Whether its images repeat each other, and whether images, labels and teacher agree."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from rich.markup import escape

from expressivegan.console import console
from expressivegan.data import ImageSet
from expressivegan.errors import InputError
from expressivegan.evaluation import collapse_report
from expressivegan.images import from_uint8
from expressivegan.training import Guide

LEAST_IMAGES = 8
"""Of each class among the judge patients, below which nothing is said."""
_HARDLY = 0.15  # of the way from chance to certainty: a teacher below tells the labels hardly better than a coin
_REPEATED = 0.1  # more images with a near-twin than among real ones, in two checks running; healthy runs: 0.06 at most
_LOST = 0.25  # of the way from chance to real images: made images below do not show their labels

Pixels = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Check = Callable[[Pixels, Ints], tuple[dict[str, float], str | None]]


def health_check(images: ImageSet, guide: Guide | None) -> Check | None:
    """What to ask of made images (N, H, W) and their labels now and then: figures, and a warning or None.

    The diversity of each class against that of the judge patients (`collapse_report`; and near-twins that stay over two
    checks, before they are enough for a collapse), and with a teacher of these classes `agreement`: the mean over the
    classes of the share in which it sees the label, beside `agreement_real`.
    None where the judge patients are too few. Says so at once if the teacher does not see the labels of real images.
    """
    chosen = images.indices("judge")
    labels = images.labels[chosen]
    if np.bincount(labels, minlength=len(images.classes)).min() < LEAST_IMAGES:
        return None
    real, seen = _look(guide, np.asarray(images.images[chosen]))
    chance = 1 / len(images.classes)
    known = None if seen is None else _agreement(seen, labels)
    if known is not None and known < chance + _HARDLY * (1 - chance):
        _warn(
            f"the teacher sees the label in {known:.0%} of real images of validation patients (chance: {chance:.0%}): "
            "are the labels right, and was the teacher fitted on these classes?"
        )

    twins: dict[str, float] = {}  # class → share with a near-twin, where there were too many at the last check

    def check(made: Pixels, made_labels: Ints) -> tuple[dict[str, float], str | None]:
        nonlocal twins
        fake, seen = _look(guide, made)
        figures: dict[str, float] = {}
        warnings = []
        if seen is not None and known is not None:
            figures = {"agreement": _agreement(seen, made_labels), "agreement_real": known}
            if figures["agreement"] < chance + _LOST * max(0.0, known - chance):
                warnings.append(
                    f"made images do not show their labels: the teacher sees them in {figures['agreement']:.0%}, in "
                    f"{known:.0%} of real images (chance: {chance:.0%})"
                )
        try:
            found = collapse_report(real, fake, labels, made_labels, images.classes, patients=images.patients[chosen])
        except InputError:
            found = None  # too few patients to say anything; no reason to stop a run
        if found is not None:
            figures |= found.figures
            last, twins = twins, _too_many_twins(found.figures, images.classes)
            if found.warning is not None:
                warnings.append(found.warning)
            else:
                warnings += [
                    f"{name} repeats itself: {twins[name]:.0%} of its images have a near-twin, {last[name]:.0%} at the "
                    f"check before ({found.figures[f'{name}/duplicate_rate_real']:.0%} among real images)"
                    for name in last
                    if name in twins
                ]
        if warnings:
            _warn("; ".join(warnings))
        return figures, "; ".join(warnings) or None

    return check


def _warn(text: str) -> None:
    console.print(f"[yellow]warning:[/yellow] {escape(text)}", highlight=False)


def _too_many_twins(figures: Mapping[str, float], classes: Sequence[str]) -> dict[str, float]:
    """Class → share of its images with a near-twin, where that is much above real images'."""
    rates = {name: (figures[f"{name}/duplicate_rate"], figures[f"{name}/duplicate_rate_real"]) for name in classes}
    return {name: made for name, (made, real) in rates.items() if made > real + _REPEATED}


def _agreement(seen: Ints, labels: Ints) -> float:
    """Mean over the classes of the share of images in which the label is seen."""
    return float(np.mean([(seen[labels == k] == k).mean() for k in np.unique(labels)]))


def _look(guide: Guide | None, pixels: Pixels) -> tuple[npt.NDArray[np.float32], Ints | None]:
    """Features (N, d): the guiding teacher's, or coarse pixels without one; and the classes that it sees, if it can."""
    found, seen = [], []
    for start in range(0, len(pixels), 128):
        x = from_uint8(np.ascontiguousarray(pixels[start : start + 128])[:, None])
        if guide is None:
            found.append(F.adaptive_avg_pool2d(x, 16).flatten(1).numpy())
            continue
        like = next(guide.teacher.parameters())
        x = F.interpolate(x, guide.teacher.resolution, mode="bilinear", antialias=True).to(like)
        with torch.no_grad():
            found.append(guide.teacher.backbone.features(x).mean(dim=(2, 3)).float().cpu().numpy())
            if guide.own:
                seen.append(guide.teacher.raw_cams(x)[1].argmax(1).cpu().numpy())
    return np.concatenate(found), np.concatenate(seen) if seen else None
