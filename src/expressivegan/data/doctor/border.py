"""Whether the label can be told from the outer frame of the pictures alone."""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from expressivegan.data.cache import release
from expressivegan.data.doctor.case import Case
from expressivegan.data.doctor.crossval import (
    certain,
    large_classes,
    out_of_fold,
    shortcut_severity,
    told_label,
    within_folds,
)
from expressivegan.data.doctor.finding import Figure, Finding, Picture
from expressivegan.data.doctor.pictures import montage
from expressivegan.intervals import Interval, auc_interval

CHECK = "border-shortcut"
WIDTH = 0.1
"""Share of the side, on each of the four sides."""
_STRENGTH = 0.01
_CELLS = 32


def check(case: Case) -> Finding:
    """AUC of each class from the outer 10% of the frame, cross-validated over patients."""
    labels, patients, classes = case.labels, case.patients, case.manifest.classes
    if not large_classes(labels, patients):
        return Finding(CHECK, "skipped", "Fewer than 10 patients in a class: whether the frame tells it cannot be said")
    cells = frame_cells(case.images(64))
    found = told_label(cells, labels, patients, classes, strength=_STRENGTH)
    figures = tuple(Figure.of(f"AUC of the frame alone: {name}", i, 0.5) for name, i in found.items())
    severity = shortcut_severity(certain(list(found.values())))
    best_name, best = max(found.items(), key=lambda pair: pair[1].value)
    if severity == "ok":
        return Finding(CHECK, "ok", f"The outer 10% of the frame do not tell the label (AUC {best})", figures)
    present = [k for k in range(len(classes)) if (labels == k).any()]
    means = [_frame_only(case.images(64)[np.flatnonzero(labels == k)[:2000]].mean(0)) for k in present]
    names = ", ".join(classes[k] for k in present)
    return Finding(
        CHECK,
        severity,
        f"The outer 10% of the frame alone tell the label ({best_name}: AUC {best})",
        figures,
        "A classifier needs no lung to score well, attention maps wander to the frame, and a generator learns exposure "
        "and collimation as signs of disease.",
        "Report a border-only classifier beside every result, and mask the border for classifiers that judge. Cutting "
        "the frame away moves it inwards and seldom cures, since the new frame tells how the child fills the picture: "
        "`expressivegan data fix DATA --out fixed.jsonl --border 0.1`",
        pictures=(Picture(f"Mean frame of {names}", montage([means])),),
    )


def frame_auc(
    images: npt.NDArray[np.uint8], diseased: npt.NDArray[np.bool_], patients: npt.NDArray[np.str_], seed: int = 0
) -> Interval | None:
    """AUC of disease from the outer 10% of the frame alone; None with fewer than 10 patients on either side.

    Args:
        images: uint8 (N, S, S).
        diseased: (N,).
        patients: (N,) keys; folds and interval keep their images together.
        seed: of the draws behind the interval.
    """
    labels = diseased.astype(np.int64)
    if not large_classes(labels, patients):
        return None
    chance, fold = out_of_fold(frame_cells(images), labels, patients, strength=_STRENGTH)
    return auc_interval(diseased, within_folds(chance[:, 1], fold), list(patients), seed=seed)


def frame_cells(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """uint8 (N, S, S) → float32 (N, d): the frame at 32x32, and how grey changes across each of its sides."""
    frame = torch.from_numpy(_frame(images.shape[-1]).astype(np.float32))
    kept = F.adaptive_avg_pool2d(frame[None, None], _CELLS)[0, 0] > 0
    found = []
    for start in range(0, len(images), 512):
        part = torch.from_numpy(np.asarray(images[start : start + 512], np.float32) / 255) * frame
        release(images)
        found.append(F.adaptive_avg_pool2d(part[:, None], _CELLS)[:, 0, kept].numpy())
        found[-1] = np.concatenate([found[-1], _profiles(part.numpy())], axis=1)
    return np.concatenate(found)


def _profiles(pictures: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(B, S, S) → (B, 4·(edge - 1)): how grey changes from line to line across each side of the frame.

    A border that was pasted, cut or lit differently is a step of a few grey levels, lost among pictures whose exposure
    differs by far more unless it is looked for as a step.
    """
    edge = _edge(pictures.shape[-1])
    inner = slice(edge, -edge)
    sides = [pictures[:, :edge, inner].mean(2), pictures[:, : -edge - 1 : -1, inner].mean(2)]
    sides += [pictures[:, inner, :edge].mean(1), pictures[:, inner, : -edge - 1 : -1].mean(1)]
    return np.concatenate([np.diff(side, axis=1) for side in sides], axis=1)


def _edge(side: int) -> int:
    return max(1, round(WIDTH * side))


def _frame(side: int) -> npt.NDArray[np.bool_]:
    edge = _edge(side)
    frame = np.ones((side, side), bool)
    frame[edge:-edge, edge:-edge] = False
    return frame


def _frame_only(picture: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    found: npt.NDArray[np.uint8] = np.where(_frame(len(picture)), picture, 255).astype(np.uint8)
    return found
