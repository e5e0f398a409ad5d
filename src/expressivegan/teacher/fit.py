"""Fitting a teacher on the user's classes, and saying how good it is.

The recipe is fixed (no early stopping, no choice of epoch), so the judge patients, on whom it is validated, are never
selected upon.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from expressivegan.atomic import write_text
from expressivegan.checkpoint import make_directory, save_model
from expressivegan.config import TeachConfig
from expressivegan.data import ImageSet
from expressivegan.data.doctor.border import frame_auc
from expressivegan.devices import Device, Precision, make_fabric
from expressivegan.errors import DataError, InputError, TrainingError
from expressivegan.images import from_uint8
from expressivegan.intervals import Interval
from expressivegan.streams import Streams, derive_seed
from expressivegan.teacher.augment import augment
from expressivegan.teacher.backbone import XRV_PREFIX, load_xrv
from expressivegan.teacher.cam import CXR_CAM_Teacher
from expressivegan.teacher.draw import draw_cams, draw_confusion
from expressivegan.teacher.focus import FIGURES, focus, stray
from expressivegan.teacher.metrics import as_json, classification_report, confusion

Progress = Callable[[int, int, str], None]

_GROUP_NAMES = {"judge": "validation", "test": "test"}


def fit_teacher(
    images: ImageSet,
    config: TeachConfig | None = None,
    *,
    device: Device = "auto",
    precision: Precision = "auto",
    progress: Progress | None = None,
) -> CXR_CAM_Teacher:
    """Fits a teacher on the training patients of a set.

    Args:
        images: a loaded set; its training group is used, and nothing else.
        config: how.
        device, precision: `auto` takes what the machine has.
        progress: called with (step, steps, what is going on).

    Returns:
        The teacher on the CPU, calibrated, in evaluation mode.

    Raises:
        DataError: fewer than two classes among the training images.
        TrainingError: the loss is not finite.
    """
    config = config or TeachConfig()
    if len(images.classes) < 2:
        raise DataError(f"a teacher needs at least two classes to tell apart, and there is {list(images.classes)}")
    indices = images.indices("train")
    missing = sorted(set(range(len(images.classes))) - set(images.labels[indices].tolist()))
    if missing:
        raise DataError(f"class {images.classes[missing[0]]} has no image among the training patients")
    fabric = make_fabric(device, precision)
    reference = None if images.reference is None else images.classes[images.reference]
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(config.seed, "teacher"))
        teacher = CXR_CAM_Teacher(
            config.meth,
            weights=None,
            backbone=config.backbone,
            classes=images.classes,
            reference=reference,
            resolution=images.resolution,
        )
    if config.init is not None:
        _start_from(teacher, config.init)
    network = teacher.backbone.to(fabric.device).to(memory_format=torch.channels_last)
    steps_per_epoch = max(1, len(indices) // config.batch)
    steps = steps_per_epoch * config.epochs
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.rate, weight_decay=config.weight_decay, fused=True)
    warm = min(steps_per_epoch, max(1, steps // 5))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda s: min(1.0, (s + 1) / warm) * 0.5 * (1 + float(np.cos(np.pi * min(s / steps, 1.0)))),
    )
    streams = Streams(config.seed, ("teacher-data", "teacher-augment"))
    network.train()
    step = 0
    for epoch in range(config.epochs):
        order = torch.randperm(len(indices), generator=streams["teacher-data"]).numpy()
        for start in range(0, steps_per_epoch * config.batch, config.batch):
            chosen = indices[order[start : start + config.batch]]
            if len(chosen) < 2:
                continue  # batch normalisation needs two
            x, y = images.batch(chosen)
            x, matrices = augment(x, config, streams["teacher-augment"])
            with fabric.autocast():
                cams, logits = teacher.raw_cams(fabric.to_device(x))
            loss = F.cross_entropy(logits, fabric.to_device(y), label_smoothing=config.smoothing)
            # Once all is told, steps only spread over the picture what was seen in one place (docs/teacher.md)
            told = loss.item() < config.enough
            if config.focus_weight > 0:
                loss = loss + config.focus_weight * stray(cams, fabric.to_device(matrices))
            if not told:
                optimiser.zero_grad()
                fabric.backward(loss)
                optimiser.step()
            schedule.step()
            step += 1
            if progress is not None:
                progress(step, steps, f"epoch {epoch + 1}/{config.epochs}")
        if not torch.isfinite(loss):
            raise TrainingError(f"teacher: loss is {loss.item()} in step {step}; try a lower rate (={config.rate})")
    teacher.eval().cpu()
    diseased = indices[images.labels[indices] != images.reference]
    sample = np.random.default_rng(derive_seed(config.seed, "calibrate")).permutation(diseased)[:2000]
    teacher.calibrate(*images.batch(np.sort(sample)))
    return teacher


def _start_from(teacher: CXR_CAM_Teacher, name: str) -> None:
    from expressivegan.teacher.backbone import DenseNet121

    if not isinstance(teacher.backbone, DenseNet121) or not name.startswith(XRV_PREFIX):
        raise InputError(f"init (={name!r}) must be xrv:NAME and goes with backbone densenet121 only")
    named, _ = load_xrv(name.removeprefix(XRV_PREFIX))
    teacher.backbone.body.load_state_dict(named.body.state_dict())


@torch.no_grad()
def predict(teacher: CXR_CAM_Teacher, pixels: npt.NDArray[np.uint8], batch: int = 128) -> npt.NDArray[np.float64]:
    """Probabilities (N, K) of uint8 images (N, H, W)."""
    found = []
    for start in range(0, len(pixels), batch):
        logits = teacher.raw_cams(from_uint8(np.ascontiguousarray(pixels[start : start + batch])[:, None]))[1]
        found.append(logits.double().softmax(1).numpy())
    return np.concatenate(found) if found else np.zeros((0, len(teacher.classes)))


def border_shortcut(images: ImageSet, indices: npt.NDArray[np.int64], seed: int = 0) -> Interval | None:
    """AUC of disease against reference from the outer 10% of the frame alone, cross-validated over patients.

    A figure well above 0.5 says that the label can be told without looking at the lungs.

    Returns:
        The AUC with its interval over patients, or None without a reference class or with too few patients.
    """
    if images.reference is None:
        return None
    pixels = np.asarray(images.images[np.sort(indices)])[np.argsort(np.argsort(indices))]
    diseased = images.labels[indices] != images.reference
    return frame_auc(pixels, diseased, np.asarray(images.patients)[indices], seed)


def write_teacher(
    teacher: CXR_CAM_Teacher,
    images: ImageSet,
    config: TeachConfig,
    out: Path,
    rounds: int = 1000,
) -> dict[str, Any]:
    """Scores a teacher and where it looks; writes a model directory with report.json, confusion matrices and CAMs.

    Validation is on the judge patients (same distribution as training) and, separately, on the official test patients.

    Returns:
        The report.
    """
    make_directory(out.parent)
    reference = images.reference
    report: dict[str, Any] = {
        "classes": list(images.classes),
        "data_hash": images.data_hash,
        "resolution": images.resolution,
        "fit": images.fit,
        "config": vars(config),
        "scale": float(teacher.scale),
        "groups": {},
    }
    matrices = {}
    for group in ("judge", "test"):
        indices = images.indices(group)
        if len(indices) == 0:
            continue
        pixels = np.asarray(images.images[indices])
        p = predict(teacher, pixels)
        labels, patients = images.labels[indices], list(np.asarray(images.patients)[indices])
        found = classification_report(p, labels, patients, images.classes, reference, rounds)
        border = border_shortcut(images, indices)
        matrices[group] = confusion(p, labels, len(images.classes))
        report["groups"][group] = {
            "images": len(indices),
            "patients": len(set(patients)),
            "metrics": as_json(found),
            "border_only_auc": None if border is None else as_json({"auc": border})["auc"],
            "focus": as_json(focus(teacher, pixels, labels, patients, rounds)._asdict()),
            "confusion": matrices[group].tolist(),
        }
    save_model(teacher, out, _card(report), report)
    write_text(out / "report.json", json.dumps(report, indent=2) + "\n")
    draw_confusion({_GROUP_NAMES[g]: m for g, m in matrices.items()}, images.classes, out / "confusion.png")
    judged = report["groups"].get("judge")
    if judged is not None:
        draw_cams(teacher, images, judged["focus"], out / "cams.png")
    return report


def _card(report: dict[str, Any]) -> str:
    lines = [
        "---", "library_name: expressivegan", "tags: [chest-x-ray, class-activation-map]", "---",
        "# CAM teacher", "",
        "**Not for diagnosis.** It guides the training of a generator and shows where it sees each class.", "",
        f"- classes: {', '.join(report['classes'])}; {report['resolution']}x{report['resolution']} grey",
        f"- backbone: {report['config']['backbone']}; data hash `{report['data_hash'][:16]}`", "",
        "| patients | images | figure | value [95% interval over patients] |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    for group, found in report["groups"].items():
        rows = dict(found["metrics"]) | {"label told from the outer 10% alone (AUC)": found["border_only_auc"]}
        rows |= {FIGURES[name]: value for name, value in found["focus"].items()}
        for key, value in rows.items():
            if value is not None and value[0] is not None:
                figures = f"{value[0]:.3f} [{value[1]:.3f}, {value[2]:.3f}]"
                lines.append(f"| {_GROUP_NAMES[group]} ({found['patients']}) | {found['images']} | {key} | {figures} |")
    return "\n".join(lines) + "\n"
