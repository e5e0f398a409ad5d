"""The training loop: one visible function, its phases captioned, its time counted in images."""

import copy
import math
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
from torch import Tensor, nn

from expressivegan.checkpoint import newest_checkpoint, save_checkpoint, save_model
from expressivegan.config import TrainConfig
from expressivegan.data import ImageSet
from expressivegan.devices import Device, make_fabric, resolve_precision
from expressivegan.errors import CheckpointError, DataError, InputError, TrainingError
from expressivegan.images import to_uint8
from expressivegan.streams import Streams, derive_seed, generator
from expressivegan.training.augment import draw_augmentation
from expressivegan.training.build import make_networks
from expressivegan.training.card import discriminator_card, generator_card
from expressivegan.training.dcgan import dcgan_step
from expressivegan.training.ema import AveragedModel
from expressivegan.training.guidance import Guide, real_cams
from expressivegan.training.losses import GROUP
from expressivegan.training.rundir import RunDirectory, environment
from expressivegan.training.start import Start, begin_from, check_start
from expressivegan.training.steps import Batch, Networks, Terms, adversarial_step
from expressivegan.training.views import draw_ellipses
from expressivegan.training.watch import divergence

STREAMS = ("data", "latents", "styles", "steering", "augment-real", "augment-fake")

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


class Run:
    """The state of a run: networks, optimisers, streams, images seen. All of it goes into a checkpoint."""

    def __init__(self, images: ImageSet, config: TrainConfig, guide: Guide | None, fabric: Fabric) -> None:
        if config.batch % fabric.world_size:
            raise InputError(
                f"batch (={config.batch}) must be divisible by the number of processes (={fabric.world_size})"
            )
        if fabric.world_size > 1 and config.batch % (GROUP * fabric.world_size):
            raise InputError(
                f"batch (={config.batch}) must be a multiple of {GROUP} for each of the {fabric.world_size} processes, "
                f"since diversity is measured in groups of {GROUP}"
            )
        if fabric.world_size > 1 and config.method == "dcgan":
            raise InputError("method (=dcgan) runs in one process: its batch norm would see a part of each batch only")
        self.images, self.config, self.fabric = images, config, fabric
        self.local = config.batch // fabric.world_size
        self.streams = Streams(config.seed, STREAMS)
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(config.seed, "weights"))
            G, D = make_networks(config, images.classes, images.reference)
        dtype = torch.float64 if config.precision == "64-true" else torch.float32
        for network in (G, D) if guide is None else (G, D, guide.teacher):
            network.to(fabric.device, dtype).to(memory_format=torch.channels_last)
        self.dtype = dtype

        self.nets = Networks(cast(Any, G), cast(Any, D), guide, self._adam(G), self._adam(D))
        self.ema = AveragedModel(G)
        self.seen = 0
        self.train = images.indices("train")
        if len(self.train) < 2:
            raise DataError(f"training needs at least two images of training patients, and there are {len(self.train)}")
        self.by_class = [self.train[images.labels[self.train] == k] for k in range(len(images.classes))]
        for name, members in zip(images.classes, self.by_class, strict=True):
            if len(members) == 0:
                raise DataError(f"class {name} has no image among the training patients")
        self.cams: npt.NDArray[np.float16] | None = None

    def _adam(self, network: nn.Module) -> torch.optim.Optimizer:
        betas = (self.config.beta1, self.config.beta2)
        fused = self.fabric.device.type != "mps"
        return torch.optim.Adam(network.parameters(), lr=self.config.rate, betas=betas, fused=fused)

    def _add_lesion_critic(self) -> None:
        """It starts as a copy of the discriminator, which knows lungs well by then; a fresh one would teach noise."""
        critic = copy.deepcopy(self.nets.D)
        self.nets = replace(self.nets, lesion_critic=critic, optimiser_c=self._adam(critic))

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs."""
        critic, optimiser_c = self.nets.lesion_critic, self.nets.optimiser_c
        return {
            "config": self.config.to_json(),
            "data_hash": self.images.data_hash,
            "seen": self.seen,
            "G": self.nets.G.state_dict(),
            "D": self.nets.D.state_dict(),
            "ema": self.ema.model.state_dict(),
            "optimiser_g": self.nets.optimiser_g.state_dict(),
            "optimiser_d": self.nets.optimiser_d.state_dict(),
            "lesion_critic": None if critic is None else critic.state_dict(),
            "optimiser_c": None if optimiser_c is None else optimiser_c.state_dict(),
            "streams": self.streams.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts everything back.

        Raises:
            CheckpointError: it belongs to other data or other networks.
        """
        if state.get("data_hash") != self.images.data_hash:
            raise CheckpointError("the checkpoint was trained on other data (its data hash differs); start a new run")
        if set(state.get("streams", ())) != set(STREAMS):
            raise CheckpointError(
                "the checkpoint is of a version of this package whose training differs; go on with that version, or "
                "start a new run"
            )
        try:
            self.nets.G.load_state_dict(state["G"])
            self.nets.D.load_state_dict(state["D"])
            self.ema.model.load_state_dict(state["ema"])
            self.nets.optimiser_g.load_state_dict(state["optimiser_g"])
            self.nets.optimiser_d.load_state_dict(state["optimiser_d"])
            if state.get("lesion_critic") is not None:
                self._add_lesion_critic()
                assert self.nets.lesion_critic is not None
                assert self.nets.optimiser_c is not None
                self.nets.lesion_critic.load_state_dict(state["lesion_critic"])
                self.nets.optimiser_c.load_state_dict(state["optimiser_c"])
            for optimiser in self.nets.optimisers:
                _lay_out(optimiser)
        except (KeyError, RuntimeError, ValueError) as error:
            was = state.get("config", {}).get("resolution")
            raise CheckpointError(
                f"the checkpoint (resolution {was}) does not fit these networks (resolution {self.config.resolution}): "
                "it is of another size, or of another version of this package; go on with that, or start a new run"
            ) from error
        self.streams.load_state_dict(state["streams"])
        self.seen = int(state["seen"])

    def begin_from(self, start: Start) -> dict[str, Any]:
        """Fills the networks with trained ones, grown; returns what settings.json says of it. Moments stay fresh."""
        G, D = self.nets.G, self.nets.D
        begun = begin_from(start, G, D, self.images, self.config)
        if self.fabric.world_size > 1:  # processes start alike to the bit
            for network in (G, D):
                network.load_state_dict(self.fabric.broadcast(network.state_dict()))
        self.ema.model.load_state_dict(G.state_dict())
        return begun

    def progress(self) -> float:
        """Share of the run that is done, 0..1."""
        return min(1.0, self.seen / (1000.0 * self.config.kimg))

    def gamma(self) -> float:
        """Weight of the penalties at this point of the run, falling geometrically."""
        first, last = self.config.gamma, self.config.gamma_end
        return first * (last / first) ** self.progress() if min(first, last) > 0 else 0.0

    def draw(self, step: int) -> Batch:
        """The inputs of a step.

        Every process draws the whole batch and keeps its share, so that two processes with half the batch each see what
        one would.
        """
        config, device = self.config, self.fabric.device
        n, mine = config.batch, slice(self.fabric.global_rank * self.local, (self.fabric.global_rank + 1) * self.local)
        g = self.streams["data"]
        if config.classes == "uniform":
            u = torch.rand(n, 2, generator=g).numpy()
            label = np.minimum((u[:, 0] * len(self.by_class)).astype(int), len(self.by_class) - 1)
            members = [self.by_class[k] for k in label]
            chosen = np.array([m[min(int(v * len(m)), len(m) - 1)] for m, v in zip(members, u[:, 1], strict=True)])
        else:
            chosen = self.train[torch.randint(len(self.train), (n,), generator=g).numpy()]
        styling = torch.rand(n, 4, generator=self.streams["styles"])
        ripe = self.progress() >= config.free_after
        # As many in each group of 8 images, so that every process has as many for the lesion critic
        most = min(n, GROUP) * (config.free_share if ripe else 0.0)
        free = torch.arange(n) % GROUP < (most + styling[0, 0]).floor()
        if self.images.reference is not None:
            # As they come, so few free pairs would be NORMAL in a disease's style that the base kept the disease.
            healthy = self.by_class[self.images.reference]
            as_healthy = (free & (styling[:, 2] < 0.5)).numpy()
            chosen = np.where(
                as_healthy, healthy[(styling[:, 3] * len(healthy)).long().clamp(max=len(healthy) - 1)], chosen
            )
        chosen, styling, free = chosen[mine], styling[mine], free[mine]
        real, labels = self.images.batch(chosen)
        K = len(self.images.classes)
        maps = (
            torch.zeros(self.local, K, 1, 1)
            if self.cams is None
            else torch.from_numpy(self.cams[chosen].astype(np.float32))
        )
        z = torch.randn(n, config.z_dim, generator=self.streams["latents"])[mine]
        share = config.steer_share if self.cams is not None else 0.0
        steering = torch.rand(n, 2, generator=self.streams["steering"])[mine]
        ellipses = draw_ellipses(n, self.streams["steering"])[mine]
        styles = torch.where(free, (styling[:, 1] * K).long().clamp(max=K - 1), labels)
        ramp = min(1.0, 2 * self.progress())
        draws = [draw_augmentation(n, config.augment * ramp, self.streams[f"augment-{x}"]) for x in ("real", "fake")]
        draws = [d.part(mine.start, mine.stop).to(device) for d in draws]
        move = self.fabric.to_device
        return Batch(
            real=move(real.to(self.dtype)),
            labels=move(labels),
            cams=move(maps.to(self.dtype)),
            z=move(z.to(self.dtype)),
            styles=move(styles),
            free=move(free),
            steered=move(steering[:, 0] < share),
            drawn=move(steering[:, 1] < (config.steer_drawn if ripe else 0.0)),
            ellipses=move(ellipses.to(self.dtype)),
            augment_real=draws[0],
            augment_fake=draws[1],
            gamma=self.gamma() if step % config.penalty_every == 0 else 0.0,
            detail=config.detail_weight if self.progress() >= config.detail_after else 0.0,
        )

    def step(self, check: Callable[[Terms], None]) -> Terms:
        """Draws a batch and updates everything once."""
        config = self.config
        rate = config.rate_end + (config.rate - config.rate_end) * 0.5 * (1 + math.cos(math.pi * self.progress()))
        batch = self.draw(self.seen // config.batch)
        if self.nets.lesion_critic is None and bool(batch.free.any()):
            self._add_lesion_critic()
        for optimiser in self.nets.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
        if config.method == "dcgan":
            terms = dcgan_step(self.nets, batch, config, check=check, average_gradients=self._average)
        else:
            terms = adversarial_step(
                self.nets, batch, config, autocast=self.fabric.autocast, check=check, average_gradients=self._average
            )
        self.seen += config.batch
        self.ema.update(self.nets.G, config.batch, min(1000 * config.ema_kimg, config.ema_share * self.seen))
        return terms

    def _average(self, network: nn.Module) -> None:
        if self.fabric.world_size == 1:
            return
        grads = [p.grad for p in network.parameters() if p.grad is not None]
        flat = self.fabric.all_reduce(torch.cat([g.flatten() for g in grads]), reduce_op="mean")
        assert isinstance(flat, Tensor)
        for g, part in zip(grads, torch.split(flat, [g.numel() for g in grads]), strict=True):
            g.copy_(part.view_as(g))

    @torch.no_grad()
    def sample(self, per_class: int, seed: int = 0, batch: int = 64) -> tuple[Tensor, Tensor, npt.NDArray[np.int64]]:
        """Images and M (N, 1, H, W), and labels, of the averaged generator, from fixed latents, class by class."""
        K = len(self.images.classes)
        z = torch.randn(per_class, self.config.z_dim, generator=generator(seed, "samples")).repeat(K, 1)
        labels = torch.arange(K).repeat_interleave(per_class)
        made, maps = [], []
        for i in range(0, len(z), batch):
            with self.fabric.autocast():
                x, attention = self.ema.model(
                    z[i : i + batch].to(self.fabric.device, self.dtype), labels[i : i + batch].to(self.fabric.device)
                )
            made.append(x.float().cpu())
            maps.append(attention[-1].float().cpu())
        return torch.cat(made), torch.cat(maps), labels.numpy()


def calibrate(images: ImageSet, config: TrainConfig, guide: Guide | None, fabric: Fabric, steps: int = 12) -> float:
    """Images per second of a throw-away copy of the run, penalties included."""
    trial = Run(images, config, guide, fabric)
    _attach_cams(trial, guide, None)
    period = config.penalty_every if config.gamma > 0 else 1
    for _ in range(period):
        trial.step(lambda terms: None)
    start = time.perf_counter()
    rounds = max(1, round(steps / period)) * period
    for _ in range(rounds):
        trial.step(lambda terms: None)
    rate = torch.tensor(rounds * config.batch / (time.perf_counter() - start), dtype=torch.float64)
    return float(fabric.broadcast(rate))


def _attach_cams(run: Run, guide: Guide | None, cache_dir: Path | None) -> None:
    # The baseline asks its teacher in every step instead.
    if guide is not None and run.config.method == "expressive" and (run.config.guided or run.config.cam_weight_d > 0):
        run.cams = real_cams(guide, run.images, cache_dir)


def _lay_out(optimiser: torch.optim.Optimizer) -> None:
    """Gives every moment the memory layout of its parameter: fused Adam pairs them by their place in memory, and a
    checkpoint is contiguous where parameters are channels_last."""
    for parameter, moments in optimiser.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


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
        teacher_name: how the teacher is called in the settings.
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
        speed = calibrate(images, config, guide, fabric)
        steps = max(1, int(minutes * 60 * speed / config.batch))
        config = replace(config, kimg=steps * config.batch / 1000)
    run = Run(images, config, guide, fabric)
    _attach_cams(run, guide, cache_dir)
    total = max(1, round(1000 * config.kimg / config.batch)) * config.batch

    last_good: Path | None = None

    # ---- start or resume ----------------------------------------------------------------------------------------
    if resume:
        found = newest_checkpoint(folder.checkpoints)
        if found is None:
            raise CheckpointError(f"{out} has no checkpoint yet; start again without --resume")
        last_good = found[0]
        run.load_state_dict(found[1])
        if lead:
            folder.forget_after(run.seen)
            folder.update({"config": config.to_json()})  # it may have been made longer
    elif lead and any(folder.checkpoints.glob("*.ckpt")):
        raise InputError(f"--out (={out}) already holds a run; go on with --resume, or choose another folder")
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
                "device": fabric.device.type,
                "processes": fabric.world_size,
                "environment": environment(),
            }
            | ({} if begun is None else {"init": begun})
        )
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
                figures = {"area_of_maps": float(maps[torch.from_numpy(diseased)].mean())}
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
