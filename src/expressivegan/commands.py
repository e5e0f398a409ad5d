"""What the commands do: they join the layers, and nothing below imports them."""

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from rich.table import Table

from expressivegan.atomic import write_bytes, write_text
from expressivegan.checkpoint import check_model_directory, make_directory, new_directory, newest_checkpoint, read_json
from expressivegan.config import TeachConfig, TrainConfig, preset
from expressivegan.console import console, figures_line, progress_bar, say
from expressivegan.data import ImageSet, load_images
from expressivegan.data.cache import cache_root
from expressivegan.data_commands import data_table
from expressivegan.devices import Device, Precision, make_fabric, peak_gib, resolve_device
from expressivegan.errors import InputError, Stopped
from expressivegan.generate_command import generate
from expressivegan.health import health_check
from expressivegan.models import GeneratorWithCAMGuidance
from expressivegan.synthesis import open_generator
from expressivegan.synthesis.sheets import write_sheets
from expressivegan.teacher import CXR_CAM_Teacher, open_teacher
from expressivegan.teacher.backbone import XRV_PREFIX
from expressivegan.teacher.fit import fit_teacher, write_teacher
from expressivegan.teacher.focus import FIGURES
from expressivegan.training import Guide, RunDirectory, TrainResult
from expressivegan.training import train as run_training
from expressivegan.training.build import make_networks
from expressivegan.training.curves import draw_curves
from expressivegan.training.loop import calibrate
from expressivegan.training.start import Start, check_start, like_start, open_start
from expressivegan.weights import find_teacher, lasting_name, shipped_models


def teach(
    source: str, out: Path, resolution: int, fit: str, config: TeachConfig, device: Device, precision: Precision
) -> None:
    """Fits, scores and writes a teacher."""
    resolve_device(device)
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


def _warn_of_other_data(what: str, data_hash: str | None, images: ImageSet) -> None:
    if data_hash not in (None, images.data_hash):
        console.print(
            f"[yellow]warning:[/yellow] {what} on other data or another deal of the patients; "
            "it may have seen patients who judge this run"
        )


def _guide(
    images: ImageSet, config: TrainConfig, teacher: str | None, out: Path, device: Device
) -> tuple[Guide | None, str | None]:
    """The teacher that was named; without a name the compact one, fitted into the run once."""
    if teacher is None and len(images.classes) < 2:
        console.print("one class only: training without a teacher")
        return None, "none"
    if teacher is None and not config.asks_teacher:
        console.print("no setting asks a teacher anything: training without one")
        return None, "none"
    if teacher == "none":
        if config.asks_teacher:
            console.print("without a teacher, guidance does nothing; --preset unguided has settings that say so")
        return None, "none"
    own = RunDirectory(out).teacher
    if teacher is None and (own / "model.safetensors").exists() and _data_of(own) not in (None, images.data_hash):
        raise InputError(f"{own} was fitted on other data; choose another --out, or name the teacher with --teacher")
    if teacher is None and not (own / "model.safetensors").exists():
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise InputError("--teacher is missing: with several processes, fit one first: expressivegan teach")
        make_directory(out)
        _fit(images, own, TeachConfig(), device, "auto")
    found = open_teacher(teacher or str(own))
    name = teacher
    if teacher is not None and not teacher.startswith(XRV_PREFIX):
        name = lasting_name(teacher)
        _warn_of_other_data(f"{teacher} was fitted", _data_of(find_teacher(teacher)), images)
    return Guide(found, images.classes, images.reference), name


def train(
    source: str,
    out: Path,
    config: TrainConfig,
    teacher: str | None,
    minutes: float | None,
    device: Device,
    *,
    init: str | None = None,
    asked: Collection[str] = (),
    dry_run: bool = False,
) -> TrainResult:
    """Starts a run, or says what it would be; with `init` from the networks of a run or model, and then as large as
    those, but for what is `asked` otherwise."""
    resolve_device(device)
    if not dry_run:
        RunDirectory(out).check_new()
    start = None if init is None else open_start(init)
    if start is not None:
        config = like_start(start, config, asked)
        check_start(start, config)
    if dry_run:
        _dry_run(load_images(source, config.resolution, fit=config.fit), config, teacher, init, out, minutes, device)
        return TrainResult(0, 0, out, False, [])
    with new_directory(out):
        images = load_images(source, config.resolution, fit=config.fit)
        data_table(images)
        if start is not None:
            say(start.describe(images.classes, config.resolution))
            _warn_of_other_data(f"{init} was trained", start.data_hash, images)
        guide, name = _guide(images, config, teacher, out, device)
        _remember(source, out)
        return _run(images, config, out, guide, name, minutes, False, device, start)


def _remember(source: str, out: Path) -> None:
    """Writes where the data of a run are, for resuming."""
    source = source if source.startswith("phantom") else str(Path(source).resolve())
    write_text(make_directory(out) / "data.json", json.dumps({"source": source}) + "\n")


def resume(out: Path, source: str | None, teacher: str | None, kimg: float | None, device: Device) -> TrainResult:
    """Goes on with a run, as it was; `kimg` makes it longer, a finished one with the rate and penalty it ended with."""
    resolve_device(device)
    settings = RunDirectory(out).settings()
    config = TrainConfig.from_json(settings["config"])
    if kimg is not None:
        if kimg < config.kimg:
            raise InputError(
                f"--kimg (={kimg:g}) must be at least the run's own {config.kimg:g}: it makes a run longer"
            )
        newest = newest_checkpoint(RunDirectory(out).checkpoints)  # that can be read: training goes on from there
        seen = -1 if newest is None else int(newest[1]["seen"])
        for begins in ("free_after", "guided_after"):
            share = getattr(config, begins)
            if seen >= 1000 * share * config.kimg:
                # What has begun at a share of the shorter run goes on, whatever share of the longer one that is
                config = replace(config, **{begins: share * config.kimg / kimg})
        if kimg > config.kimg and seen > 1000 * config.kimg - config.batch:
            # A finished run goes on as it ended: schedules drawn out over the longer one would take it back
            config = replace(config, rate=config.rate_end, gamma=min(config.gamma, config.gamma_end))
        config = replace(config, kimg=kimg)
    if source is None:
        try:
            source = str(json.loads((out / "data.json").read_text(encoding="utf-8"))["source"])
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"--data is missing, and {out} does not say where its data were") from error
    images = load_images(source, config.resolution, fit=config.fit)
    named = teacher or settings.get("teacher")
    if named is None and not RunDirectory(out).teacher.is_dir():
        raise InputError(f"{RunDirectory(out).teacher} is gone, by which this run was guided; give it with --teacher")
    guide, name = _guide(images, config, named, out, device)
    return _run(images, config, out, guide, name, None, True, device, quiet=True)


def _run(
    images: ImageSet,
    config: TrainConfig,
    out: Path,
    guide: Guide | None,
    teacher: str | None,
    minutes: float | None,
    again: bool,
    device: Device,
    start: Start | None = None,
    quiet: bool = False,
) -> TrainResult:
    with progress_bar("training") as bar:

        def progress(seen: int, total: int, figures: Mapping[str, float]) -> None:
            nonlocal quiet
            if not quiet:  # here, since a budget of minutes is thousands of images from the first step on
                for sentence in replace(config, kimg=total / 1000).notes():
                    console.print(f"note: {sentence}", highlight=False)
                quiet = True
            bar(seen, total, figures_line(figures))

        result = run_training(
            images,
            config,
            out,
            guide,
            teacher_name=teacher,
            minutes=minutes,
            resume=again,
            init=start,
            device=device,
            evaluate=health_check(images, guide),
            progress=progress,
            cache_dir=cache_root(None) / "cams",
        )
    if os.environ.get("RANK", "0") == "0":
        draw_curves(out)
    if result.stopped:
        raise Stopped(f"stopped after {result.images} of {result.total} images and saved; go on with: "
                      f"expressivegan train --resume --out {out}")  # fmt: skip
    say(f"generator: {result.model}; samples: {out / 'samples'}; curves: {out / 'curves.png'}")
    if result.warnings:
        console.print(
            f"[yellow]this run warned {len(result.warnings)} times[/yellow] (settings.json lists all); the last time "
            f"after {result.warnings[-1]}", highlight=False,
        )  # fmt: skip
    return result


def _dry_run(
    images: ImageSet,
    config: TrainConfig,
    teacher: str | None,
    init: str | None,
    out: Path,
    minutes: float | None,
    device: Device,
) -> None:
    fabric = make_fabric(device, config.precision)
    guide: Guide | None = None
    if teacher is None and len(images.classes) > 1 and config.asks_teacher:
        # It would be fitted first; what it costs does not depend on its weights
        reference = None if images.reference is None else images.classes[images.reference]
        fresh = CXR_CAM_Teacher(
            weights=None,
            backbone=TeachConfig().backbone,
            classes=images.classes,
            reference=reference,
            resolution=config.resolution,
        )
        guide = Guide(fresh, images.classes, images.reference)
    elif teacher not in (None, "none"):
        guide, _ = _guide(images, config, teacher, out, device)
    speed = calibrate(images, config, guide, fabric, cache_root(None) / "cams")
    kimg = max(1, int(speed * 60 * minutes / config.batch)) * config.batch / 1000 if minutes else config.kimg
    config = replace(config, kimg=kimg)
    table = Table(title="settings", show_header=False)
    table.add_row("teacher", teacher or ("fitted first, into the run" if guide else "none"))
    table.add_row("init", init or "none")
    for name, value in config.to_json().items():
        table.add_row(name, str(value))
    console.print(table)
    for name, network in zip("GD", make_networks(config, images.classes, images.reference), strict=True):
        console.print(f"{name}: {sum(p.numel() for p in network.parameters()) / 1e6:.2f} M parameters")
    peak = torch.cuda.max_memory_allocated() / 2**30 if fabric.device.type == "cuda" else peak_gib()
    console.print(f"device {fabric.device}, precision {config.precision} → {fabric._precision.precision}")
    memory = "" if peak is None else f", {peak:.1f} GiB at the peak"
    console.print(f"measured in a few steps: {speed:.0f} images/s{memory}")
    console.print(f"{kimg:.0f} thousand images: about {kimg * 1000 / speed / 60:.0f} minutes")
    for sentence in config.notes():
        console.print(f"note: {sentence}", highlight=False)


def demo(out: Path, minutes: float, device: Device) -> None:
    """The whole path on the phantom."""
    if not 0 < minutes < float("inf"):
        raise InputError(f"--minutes (={minutes}) must be positive")
    if out.exists() and any(out.iterdir()):
        raise InputError(f"--out (={out}) is not empty; choose another folder or delete it")
    resolve_device(device)
    make_directory(out)
    shipped = _show_shipped(out)
    settings = preset("demo").config
    images = load_images(_DEMO_DATA, settings.resolution)
    data_table(images)
    _fit(images, out / "teacher", replace(TeachConfig(), epochs=6), device, "auto")
    run = out / "run"
    guide, name = _guide(images, settings, str(out / "teacher"), run, device)
    _remember(_DEMO_DATA, run)
    _run(images, settings, run, guide, name, minutes, False, device, quiet=True)
    generate(run, out / "images", 24, device=device)
    model = open_generator(run)
    assert isinstance(model, GeneratorWithCAMGuidance)
    write_sheets(model, out)
    write_bytes(out / "curves.png", (run / "curves.png").read_bytes())
    write_text(out / "README.md", _DEMO + shipped)
    console.print(
        f"look at {out}{os.sep}: samples.png, attention-overlays.png, counterfactual-pairs.png, curves.png, images/"
    )


def _show_shipped(out: Path) -> str:
    """Pictures of every model that comes with the package, each in a folder of its name; what to say of them."""
    said = ""
    for shipped in shipped_models():
        model = open_generator(shipped.folder)
        assert isinstance(model, GeneratorWithCAMGuidance)
        folder = make_directory(out / shipped.name)
        write_sheets(model, folder)
        write_bytes(folder / "README.md", (shipped.folder / "README.md").read_bytes())
        console.print(
            f"{out / shipped.name}{os.sep}: what {shipped.name}, which comes with the package, makes: samples.png, "
            "attention-overlays.png, counterfactual-pairs.png", highlight=False, soft_wrap=True,
        )  # fmt: skip
        said += _SHIPPED.format(name=shipped.name, side=shipped.resolution)
    return said


_DEMO_DATA = "phantom:2400"
_DEMO = """# What the demo made, from phantoms and in a few minutes

- `samples.png`: one row a class (NORMAL, BACTERIA, VIRUS), one column a latent vector
- `attention-overlays.png`: BACTERIA, then VIRUS, with M, the map through which the lesion acts
- `counterfactual-pairs.png`: rows of three: the child without the disease, with it, and M (BACTERIA, then VIRUS)
- `curves.png`: losses and diversity
- `images/`: PNGs with provenance, maps, overlays and `labels.csv`
- `teacher/`: the fitted teacher with its report and CAM overlays
- `run/`: the training run; more minutes make better images: `expressivegan train --data phantom --minutes 30 --out run`
"""
_SHIPPED = """
## {name}

A model that comes with the package, learnt from real chest X-rays at {side} px; no training. In `{name}/` the same
pictures, and its card, `{name}/README.md`, which says how good it is. More of it:
`expressivegan generate --model {name} --num 64 --out images`
"""
