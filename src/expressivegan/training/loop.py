"""The training loop: one visible function, its phases captioned, its time counted in images."""

import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import Tensor

from expressivegan.checkpoint import newest_checkpoint, save_checkpoint, save_model, state_hash
from expressivegan.config import TrainConfig
from expressivegan.data import ImageSet
from expressivegan.devices import Device, make_fabric, resolve_precision
from expressivegan.errors import CheckpointError, InputError, TrainingError
from expressivegan.images import to_uint8
from expressivegan.training.card import discriminator_card, generator_card
from expressivegan.training.guidance import Guide
from expressivegan.training.run import Run
from expressivegan.training.rundir import RunDirectory, environment
from expressivegan.training.start import Start, check_start
from expressivegan.training.steps import Terms
from expressivegan.training.watch import divergence

Evaluate = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.int64]], tuple[dict[str, float], str | None]]
Progress = Callable[[int, int, Mapping[str, float]], None]


@dataclass
class TrainResult:
    """How a run ended.

    Attributes:
        images: images seen.
        total: images planned.
        model: model directory of the averaged generator.
        stopped: it was interrupted, and can be resumed.
        warnings: what the checks for collapse and divergence said, of a resumed run also before; in settings.json too.
    """

    images: int
    total: int
    model: Path
    stopped: bool
    warnings: list[str]


def calibrate(
    images: ImageSet,
    config: TrainConfig,
    guide: Guide | None,
    fabric: Fabric,
    cache_dir: Path | None = None,
    steps: int = 12,
) -> float:
    """Images per second of a throw-away copy of the run, penalties and all its phases included."""
    trial = Run(images, config, guide, fabric)
    trial.look_at_real(cache_dir)
    period = config.penalty_every if config.gamma > 0 else 1
    rounds = max(1, round(steps / period)) * period
    seconds = 0.0
    for at, share in config.phases():
        trial.seen = round(at * 1000 * config.kimg / config.batch) * config.batch
        for _ in range(period):
            trial.step(lambda terms: None)
        start = time.perf_counter()
        for _ in range(rounds):
            trial.step(lambda terms: None)
        seconds += share * (time.perf_counter() - start)
    rate = torch.tensor(rounds * config.batch / seconds, dtype=torch.float64)
    return float(fabric.broadcast(rate))


def _check_teacher(settings: Mapping[str, Any], name: str | None, digest: str | None) -> None:
    """Refuses to go on with another teacher. One of the same name may differ in the last bit, on another processor."""
    was = settings.get("teacher")
    if settings.get("teacher_hash", digest) == digest:
        return
    if name != was or digest is None:
        raise InputError(
            f"teacher (={name}) is not the one that this run was guided by ({was}); resume without naming one, or "
            "start a new run"
        )
    warnings.warn(f"the weights of the teacher ({name}) are not those that this run began with", stacklevel=3)


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM set an event, so that a step is never cut in half; a second one raises."""
    asked = threading.Event()

    def handler(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for s, old in before.items():
            signal.signal(s, old)


def _all_asked(asked: threading.Event, run: Run, fabric: Fabric) -> bool:
    """Whether to stop. Several processes must stop at the same step, so they ask each other now and then."""
    if fabric.world_size == 1:
        return asked.is_set()
    if (run.seen // run.config.batch) % 8:
        return False
    found = fabric.all_reduce(torch.tensor(float(asked.is_set()), device=fabric.device), reduce_op="sum")
    return float(cast(Tensor, found)) > 0


def train(
    images: ImageSet,
    config: TrainConfig,
    out: Path,
    guide: Guide | None,
    *,
    teacher_name: str | None = None,
    minutes: float | None = None,
    resume: bool = False,
    init: Start | None = None,
    device: Device = "auto",
    fabric: Fabric | None = None,
    evaluate: Evaluate | None = None,
    progress: Progress | None = None,
    cache_dir: Path | None = None,
) -> TrainResult:
    """Trains, from the beginning or from the newest checkpoint of `out`.

    Args:
        images: the set; only its training patients are learnt from.
        config: the settings; on resume those of the run, which the caller reads with `RunDirectory.settings`.
        out: run directory.
        guide: the teacher, or None to train without guidance.
        teacher_name: how the teacher is called in the settings: a name that `open_teacher` knows, or a path. Without
            one it is written into the run, where `--resume`, `explain` and `evaluate` find it.
        minutes: a budget, turned into kimg once by a short calibration and saved.
        resume: go on from the newest valid checkpoint.
        init: trained networks to start from (`open_start`), of other data or a smaller resolution; a checkpoint needs
            them no more.
        device: where; ignored with `fabric`.
        fabric: a launched Fabric, to share one.
        evaluate: called with fresh images (N, H, W) and their labels at every sample grid; returns figures to log and,
            if the generator has collapsed, a sentence.
        progress: called after every eighth step and the last with (images seen, images planned, figures).
        cache_dir: where the teacher's maps of real images are kept.

    Returns:
        How it ended.

    Raises:
        TrainingError: a term is not finite; the message names step, term and the last good checkpoint.
        CheckpointError: nothing valid to resume from.
        InputError, DataError: settings or data that cannot be trained with.
    """
    # ---- set up -------------------------------------------------------------------------------------------------
    fabric = fabric or make_fabric(device, config.precision)
    config = replace(config, precision=resolve_precision(config.precision, fabric.device.type))
    if init is not None:
        check_start(init, config)  # before anything takes its time
    folder = RunDirectory(out)
    lead = fabric.is_global_zero
    if minutes is not None and not resume:
        speed = calibrate(images, config, guide, fabric, cache_dir)
        steps = max(1, int(minutes * 60 * speed / config.batch))
        config = replace(config, kimg=steps * config.batch / 1000)
    run = Run(images, config, guide, fabric)
    run.look_at_real(cache_dir)
    total = max(1, round(1000 * config.kimg / config.batch)) * config.batch

    teacher_hash = None if guide is None else state_hash(guide.teacher)
    if guide is None:
        teacher_name = "none"
    last_good: Path | None = None

    # ---- start or resume ----------------------------------------------------------------------------------------
    if resume:
        found = newest_checkpoint(folder.checkpoints)
        if found is None:
            folder.check_new()
            raise CheckpointError(f"{out} has no checkpoint yet; start again without --resume")
        last_good = found[0]
        run.load_state_dict(found[1])
        _check_teacher(folder.settings(), teacher_name, teacher_hash)
        if lead:
            folder.forget_after(run.seen)
            folder.update({"config": config.to_json()})  # it may have been made longer
    elif lead:
        folder.check_new()
    begun = run.begin_from(init) if init is not None and not resume else None
    if lead and not resume:
        folder.create(
            {
                "config": config.to_json(),
                "minutes": minutes,
                "data_hash": images.data_hash,
                "classes": list(images.classes),
                "reference": images.reference,
                "teacher": teacher_name,
                "teacher_hash": teacher_hash,
                "device": fabric.device.type,
                "processes": fabric.world_size,
                "environment": environment(),
            }
            | ({} if begun is None else {"init": begun})
        )
        if guide is not None and teacher_name is None:
            folder.keep_teacher(guide.whole)
        if begun is not None:
            shown, maps, _ = run.sample(8)
            folder.samples(0, shown, maps, columns=8)

    def save() -> Path:
        path = folder.checkpoints / f"{run.seen:010d}.ckpt"
        save_checkpoint(path, run.state_dict())
        folder.prune(config.keep)
        return path

    def check(terms: Terms) -> None:
        if bool(torch.isfinite(torch.stack(list(terms.values()))).all()):  # one look at the device, not one a term
            return
        for name, term in terms.items():
            if not torch.isfinite(term):
                raise TrainingError(
                    f"{name} became {term.item()} in step {run.seen // config.batch} ({run.seen} images); "
                    f"last good checkpoint: {last_good or 'none yet'}; try a lower rate (={config.rate})"
                )

    # ---- train --------------------------------------------------------------------------------------------------
    warnings_seen: list[str] = list(folder.settings().get("warnings", [])) if resume and lead else []
    warnings_seen = [w for w in warnings_seen if int(w.split(maxsplit=1)[0]) <= run.seen]
    diverged = False
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    log_every = max(config.batch, min(2000, round(1000 * config.sample_every / 2)))
    clock, clock_seen = time.perf_counter(), run.seen

    def note(warning: str) -> None:
        warnings_seen.append(f"{run.seen} images: {warning}")
        folder.update({"warnings": warnings_seen})

    def due(every: float) -> bool:
        return run.seen // every != (run.seen - config.batch) // every or run.seen >= total

    with _stop_on_signal() as asked:
        while run.seen < total and not _all_asked(asked, run, fabric):
            for name, term in run.step(check).items():
                sums[name] = sums[name] + term if name in sums else term
                counts[name] = counts.get(name, 0) + 1
            if not lead:
                continue
            if progress is not None and ((run.seen // config.batch) % 8 == 0 or run.seen >= total):
                figures = {name: float(value) / counts[name] for name, value in sums.items()}
                progress(run.seen, total, figures)

            # ---- log ----
            if due(log_every):
                figures = {name: float(value) / counts[name] for name, value in sums.items()}
                figures["images_per_second"] = (run.seen - clock_seen) / max(time.perf_counter() - clock, 1e-9)
                folder.log(run.seen, figures)
                trouble = divergence(figures) if config.method == "expressive" else None
                if trouble is not None and not diverged:  # once, not in every line that follows
                    warnings.warn(trouble, RuntimeWarning, stacklevel=2)
                    note(trouble)
                diverged = trouble is not None
                sums.clear()
                counts.clear()

            # ---- look ----
            if due(1000 * config.sample_every):
                shown, maps, labels = run.sample(8)
                folder.samples(run.seen, shown, maps, columns=8)
                diseased = labels != images.reference
                figures = {"area_of_maps": float(maps[torch.from_numpy(diseased)].mean())} if diseased.any() else {}
                if evaluate is not None:
                    made, _, labels = run.sample(64, seed=1)
                    found_figures, warning = evaluate(to_uint8(made)[:, 0].numpy(), labels)
                    figures |= found_figures
                    if warning is not None:
                        note(warning)
                folder.log(run.seen, figures)

            # ---- save ----
            if due(1000 * config.checkpoint_every):
                last_good = save()
                _write_models(run, folder)
            if due(log_every):
                clock, clock_seen = time.perf_counter(), run.seen
        stopped = run.seen < total

    # ---- finish -------------------------------------------------------------------------------------------------
    if lead:
        if stopped:
            save()
        _write_models(run, folder)
        folder.close()
    fabric.barrier()
    return TrainResult(run.seen, total, folder.model, stopped, warnings_seen)


def _write_models(run: Run, folder: RunDirectory) -> None:
    about = run.config, run.images, run.seen, folder.settings().get("init")
    extra = {"data_hash": run.images.data_hash, "images_seen": run.seen, "config": run.config.to_json()}
    save_model(run.ema.model, folder.model, generator_card(*about), extra)
    save_model(run.nets.D, folder.discriminator, discriminator_card(*about), extra)
