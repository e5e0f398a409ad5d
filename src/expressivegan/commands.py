"""What the commands do: they join the layers, and nothing below imports them."""

import json
import os
import resource
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.table import Table

from expressivegan.atomic import write_text
from expressivegan.checkpoint import check_model_directory, make_directory, new_directory, read_json
from expressivegan.config import TeachConfig, TrainConfig, preset
from expressivegan.console import console, figures_line, progress_bar
from expressivegan.data import ImageSet, load_images
from expressivegan.data.cache import cache_root
from expressivegan.data_commands import data_table
from expressivegan.devices import Device, Precision, make_fabric, resolve_device
from expressivegan.errors import InputError, Stopped
from expressivegan.evaluation import collapse_report
from expressivegan.images import from_uint8, grid, overlay, save_png
from expressivegan.models import GeneratorWithCAMGuidance
from expressivegan.synthesis import counterfactual_pairs, open_generator, write_images
from expressivegan.teacher import CXR_CAM_Teacher, open_teacher
from expressivegan.teacher.backbone import XRV_PREFIX
from expressivegan.teacher.fit import fit_teacher, write_teacher
from expressivegan.teacher.focus import FIGURES
from expressivegan.training import Guide, RunDirectory, TrainResult
from expressivegan.training import train as run_training
from expressivegan.training.build import make_networks
from expressivegan.training.curves import draw_curves
from expressivegan.training.guidance import fold_norms
from expressivegan.training.loop import calibrate


def teach(
    source: str, out: Path, resolution: int, fit: str, config: TeachConfig, device: Device, precision: Precision
) -> None:
    """Fits, scores and writes a teacher."""
    check_model_directory(out)
    with new_directory(out.parent):
        images = load_images(source, resolution, fit=fit)  # type: ignore[arg-type]
        data_table(images)
        _fit(images, out, config, device, precision)


def _fit(images: ImageSet, out: Path, config: TeachConfig, device: Device, precision: Precision) -> CXR_CAM_Teacher:
    with progress_bar("teacher") as bar:
        teacher = fit_teacher(images, config, device=device, precision=precision, progress=bar)
    report = write_teacher(teacher, images, config, out)
    table = Table(title=f"teacher: {out}", caption="value [95% interval over patients]")
    table.add_column("figure")
    groups = report["groups"]
    for group in groups:
        table.add_column({"judge": "validation patients", "test": "test patients"}[group], justify="right")
    metrics = list(dict.fromkeys(name for found in groups.values() for name in found["metrics"]))

    def cell(value: list[float | None] | None) -> str:
        return "–" if value is None or value[0] is None else f"{value[0]:.3f} [{value[1]:.3f}, {value[2]:.3f}]"

    for name in metrics:
        table.add_row(name, *(cell(found["metrics"].get(name)) for found in groups.values()))
    table.add_row("border-only AUC", *(cell(found["border_only_auc"]) for found in groups.values()))
    for name, words in FIGURES.items():
        table.add_row(words, *(cell(found["focus"].get(name)) for found in groups.values()))
    console.print(table)
    return teacher


def _data_of(teacher: Path) -> str | None:
    """Hash of the data that a fitted teacher has seen, if it says so."""
    found = read_json(teacher / "expressivegan.json").get("data_hash")
    return None if found is None else str(found)


def _guide(images: ImageSet, teacher: str | None, out: Path, device: Device) -> tuple[Guide | None, str | None]:
    """The teacher that was named; without a name the compact one, fitted into the run once."""
    if teacher == "none":
        return None, "none"
    own = out / "teacher"
    if teacher is None and len(images.classes) < 2:
        console.print("one class only: training without a teacher")
        return None, "none"
    if teacher is None and (own / "model.safetensors").exists() and _data_of(own) not in (None, images.data_hash):
        raise InputError(f"{own} was fitted on other data; choose another --out, or name the teacher with --teacher")
    if teacher is None and not (own / "model.safetensors").exists():
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise InputError("--teacher is missing: with several processes, fit one first: expressivegan teach")
        make_directory(out)
        _fit(images, own, TeachConfig(), device, "auto")
    found = open_teacher(teacher or str(own))
    if teacher is not None and _data_of(Path(teacher)) not in (None, images.data_hash):
        console.print(
            f"[yellow]warning:[/yellow] {teacher} was fitted on other data or another deal of the patients; "
            "it may have seen patients who judge this run"
        )
    fold_norms(found.backbone)
    name = teacher if teacher is None or teacher.startswith(XRV_PREFIX) else str(Path(teacher).resolve())
    return Guide(found, images.classes, images.reference), name


def _features(guide: Guide | None, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """What the check for collapse looks at: the guiding teacher's features, or coarse pixels without one."""
    found = []
    for start in range(0, len(pixels), 128):
        x = from_uint8(np.ascontiguousarray(pixels[start : start + 128])[:, None])
        with torch.no_grad():
            if guide is None:
                y = torch.nn.functional.adaptive_avg_pool2d(x, 16).flatten(1)
            else:
                like = next(guide.teacher.parameters())
                x = torch.nn.functional.interpolate(x, guide.teacher.resolution, mode="bilinear", antialias=True)
                y = guide.teacher.backbone.features(x.to(like)).mean(dim=(2, 3)).float().cpu()
        found.append(y.numpy())
    return np.concatenate(found)


def _collapse_check(
    images: ImageSet, guide: Guide | None
) -> Callable[[npt.NDArray[np.uint8], npt.NDArray[np.int64]], tuple[dict[str, float], str | None]] | None:
    """Diversity of made images against real ones of the judge patients, or None where these are too few."""
    chosen = images.indices("judge")
    counts = np.bincount(images.labels[chosen], minlength=len(images.classes))
    if counts.min() < 8:
        return None
    real = _features(guide, np.asarray(images.images[chosen]))

    def evaluate(made: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> tuple[dict[str, float], str | None]:
        fake = _features(guide, made)
        try:
            found = collapse_report(
                real, fake, images.labels[chosen], labels, images.classes, patients=images.patients[chosen]
            )
        except InputError:
            return {}, None  # too few patients to say anything; no reason to stop a run
        if found.warning is not None:
            console.print(f"[yellow]warning:[/yellow] {found.warning}")
        return dict(found.figures), found.warning

    return evaluate


def train(
    source: str,
    out: Path,
    config: TrainConfig,
    teacher: str | None,
    minutes: float | None,
    device: Device,
    *,
    dry_run: bool = False,
) -> TrainResult:
    """Starts a run, or says what it would be."""
    if any((out / "checkpoints").glob("*.ckpt")) and not dry_run:
        raise InputError(f"--out (={out}) already holds a run; go on with --resume, or choose another folder")
    if dry_run:
        _dry_run(load_images(source, config.resolution, fit=config.fit), config, teacher, out, minutes, device)
        return TrainResult(0, 0, out, False, [])
    with new_directory(out):
        images = load_images(source, config.resolution, fit=config.fit)
        data_table(images)
        guide, name = _guide(images, teacher, out, device)
        _remember(source, out)
        return _run(images, config, out, guide, name, minutes, False, device)


def _remember(source: str, out: Path) -> None:
    """Writes where the data of a run are, for resuming."""
    source = source if source.startswith("phantom") else str(Path(source).resolve())
    write_text(make_directory(out) / "data.json", json.dumps({"source": source}) + "\n")


def resume(out: Path, source: str | None, teacher: str | None, kimg: float | None, device: Device) -> TrainResult:
    """Goes on with a run."""
    settings = RunDirectory(out).settings()
    config = TrainConfig.from_json(settings["config"])
    if kimg is not None:
        # What has begun at a share of the shorter run goes on, whatever share of the longer one that is
        config = replace(config, kimg=kimg, free_after=min(1.0, config.free_after * config.kimg / kimg))
    if source is None:
        try:
            source = str(json.loads((out / "data.json").read_text(encoding="utf-8"))["source"])
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"--data is missing, and {out} does not say where its data were") from error
    images = load_images(source, config.resolution, fit=config.fit)
    guide, name = _guide(images, teacher or settings.get("teacher"), out, device)
    return _run(images, config, out, guide, name, None, True, device)


def _run(
    images: ImageSet,
    config: TrainConfig,
    out: Path,
    guide: Guide | None,
    teacher: str | None,
    minutes: float | None,
    again: bool,
    device: Device,
) -> TrainResult:
    with progress_bar("training") as bar:

        def progress(seen: int, total: int, figures: Mapping[str, float]) -> None:
            bar(seen, total, figures_line(figures))

        result = run_training(
            images,
            config,
            out,
            guide,
            teacher_name=teacher,
            minutes=minutes,
            resume=again,
            device=device,
            evaluate=_collapse_check(images, guide),
            progress=progress,
            cache_dir=cache_root(None) / "cams",
        )
    if os.environ.get("RANK", "0") == "0":
        draw_curves(out)
    if result.stopped:
        raise Stopped(f"stopped after {result.images} of {result.total} images and saved; go on with: "
                      f"expressivegan train --resume --out {out}")  # fmt: skip
    console.print(f"generator: {result.model}; samples: {out / 'samples'}; curves: {out / 'curves.png'}")
    return result


def _dry_run(
    images: ImageSet, config: TrainConfig, teacher: str | None, out: Path, minutes: float | None, device: Device
) -> None:
    fabric = make_fabric(device, config.precision)
    guide: Guide | None = None
    if teacher is None and len(images.classes) > 1:  # it would be fitted first; its cost does not depend on its weights
        reference = None if images.reference is None else images.classes[images.reference]
        fresh = CXR_CAM_Teacher(
            weights=None,
            backbone=TeachConfig().backbone,
            classes=images.classes,
            reference=reference,
            resolution=config.resolution,
        )
        guide = Guide(fresh, images.classes, images.reference)
        fold_norms(fresh.eval().backbone)
    elif teacher not in (None, "none"):
        guide, _ = _guide(images, teacher, out, device)
    speed = calibrate(images, config, guide, fabric)
    kimg = speed * 60 * minutes / 1000 if minutes else config.kimg
    table = Table(title="settings", show_header=False)
    for name, value in config.to_json().items():
        table.add_row(name, str(round(kimg, 1) if name == "kimg" else value))
    console.print(table)
    for name, network in zip("GD", make_networks(config, images.classes, images.reference), strict=True):
        console.print(f"{name}: {sum(p.numel() for p in network.parameters()) / 1e6:.2f} M parameters")
    peak = (
        torch.cuda.max_memory_allocated() / 2**30
        if fabric.device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    )
    console.print(f"device {fabric.device}, precision {config.precision} → {fabric._precision.precision}")
    console.print(f"measured in a few steps: {speed:.0f} images/s, {peak:.1f} GiB at the peak")
    console.print(f"{kimg:.0f} thousand images: about {kimg * 1000 / speed / 60:.0f} minutes")


def generate(model: Path, out: Path, num: int, *, device: Device, **how: Any) -> None:
    """Writes images, maps and labels.csv; `how` as in `write_images`."""
    with progress_bar("images") as bar:
        table = write_images(
            model, out, num, device=resolve_device(device), progress=lambda done, total: bar(done, total, ""), **how
        )
    console.print(f"{num} images: {table}")


def demo(out: Path, minutes: float, device: Device) -> None:
    """The whole path on the phantom."""
    if not 0 < minutes < float("inf"):
        raise InputError(f"--minutes (={minutes}) must be positive")
    if out.exists() and any(out.iterdir()):
        raise InputError(f"--out (={out}) is not empty; choose another folder or delete it")
    make_directory(out)
    settings = preset("demo").config
    images = load_images(_DEMO_DATA, settings.resolution)
    data_table(images)
    _fit(images, out / "teacher", replace(TeachConfig(), epochs=6), device, "auto")
    run = out / "run"
    guide, name = _guide(images, str(out / "teacher"), run, device)
    _remember(_DEMO_DATA, run)
    _run(images, settings, run, guide, name, minutes, False, device)
    generate(run, out / "images", 24, device=device)
    model = open_generator(run)
    assert isinstance(model, GeneratorWithCAMGuidance)
    diseases = [k for k in range(len(images.classes)) if k != images.reference]
    rows = []
    for k in diseases:
        pair = counterfactual_pairs(model, list(range(8)), k)
        rows += [pair.without, pair.with_disease, pair.mask * 2 - 1]
    save_png(out / "counterfactual-pairs.png", grid(torch.cat(rows), columns=8))
    made = counterfactual_pairs(model, list(range(16)), diseases[0])
    save_png(out / "attention-overlays.png", grid(overlay(made.with_disease, made.mask), columns=8))
    newest = sorted((run / "samples").glob("*-images.png"))[-1]
    (out / "samples.png").write_bytes(newest.read_bytes())
    (out / "curves.png").write_bytes((run / "curves.png").read_bytes())
    write_text(out / "README.md", _DEMO)
    console.print(
        f"look at {out}{os.sep}: samples.png, attention-overlays.png, counterfactual-pairs.png, curves.png, images/"
    )


_DEMO_DATA = "phantom:2400"
_DEMO = """# What the demo made, from phantoms and in a few minutes

- `samples.png`: one row a class (NORMAL, BACTERIA, VIRUS), one column a latent vector
- `attention-overlays.png`: BACTERIA with M, the map through which the lesion acts
- `counterfactual-pairs.png`: rows of three: the child without the disease, with it, and M (BACTERIA, then VIRUS)
- `curves.png`: losses and diversity
- `images/`: PNGs with provenance, maps, overlays and `labels.csv`
- `teacher/`: the fitted teacher with its report and CAM overlays
- `run/`: the training run; more minutes make better images: `expressivegan train --data phantom --minutes 30 --out run`
"""
