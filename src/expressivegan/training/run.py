"""The state of a run, the inputs of a step, and the step."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from expressivegan.config import UNGUIDED, TrainConfig
from expressivegan.data import ImageSet
from expressivegan.errors import CheckpointError, DataError, InputError
from expressivegan.streams import Streams, derive_seed, generator
from expressivegan.teacher import referenced
from expressivegan.training.augment import draw_augmentation
from expressivegan.training.build import make_networks
from expressivegan.training.dcgan import dcgan_step
from expressivegan.training.ema import AveragedModel
from expressivegan.training.energy import evenly, log_power, real_points
from expressivegan.training.guidance import Guide, look_at_real
from expressivegan.training.pairs import GROUP
from expressivegan.training.start import Start, begin_from
from expressivegan.training.steps import Batch, Networks, Terms, adversarial_step
from expressivegan.training.views import draw_ellipses

STREAMS = ("data", "latents", "styles", "steering", "augment-real", "augment-fake")


class Run:
    """The state of a run: networks, optimisers, streams, images seen. All of it goes into a checkpoint."""

    def __init__(self, images: ImageSet, config: TrainConfig, guide: Guide | None, fabric: Fabric) -> None:
        if images.resolution != config.resolution:
            raise InputError(
                f"images are of {images.resolution} px and resolution (={config.resolution}) is not; load them at that "
                "size"
            )
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
        self.unguided = replace(config, **UNGUIDED) if config.guided_after > 0 else config  # type: ignore[arg-type]
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

    def look_at_real(self, cache_dir: Path | None) -> None:
        """Takes of every real image what made ones are held against, and has the teacher look at it, where its maps or
        logits are asked for: once, and kept.

        The baseline asks its teacher in every step instead.
        """
        config, guide, K = self.config, self.nets.guide, len(self.images.classes)
        kept = self.train[evenly(torch.from_numpy(self.images.labels[self.train]), K).numpy()]
        labels = torch.from_numpy(self.images.labels[kept]).to(self.fabric.device)
        if config.detail_weight > 0 and config.method == "expressive":
            parts = [self.images.batch(rows)[0] for rows in np.array_split(kept, -(-len(kept) // 256))]
            power = torch.cat([log_power(part.to(self.fabric.device, self.dtype)) for part in parts])
            self.nets = replace(self.nets, real_power=real_points(power, labels, K))
        if guide is None or config.method != "expressive" or not config.asks_teacher:
            return
        told = look_at_real(guide, self.images, cache_dir)
        self.cams = told.cams
        if told.logits.shape[1]:
            logits = torch.from_numpy(told.logits[kept]).to(self.fabric.device, self.dtype)
            self.nets = replace(self.nets, real_logits=real_points(referenced(logits, guide.reference), labels, K))

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
        ripe = self.progress() >= config.free_from
        # As many in each group of 8 images, so that every process has as many for the lesion critic
        place = torch.arange(n)
        sizes = (n - place // GROUP * GROUP).clamp(max=GROUP)  # the last group may be smaller
        free = place % GROUP < (sizes * (config.free_share if ripe else 0.0) + styling[0, 0]).floor()
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
            steered=move(free & (steering[:, 0] < share)),
            drawn=move(steering[:, 1] < config.steer_drawn),
            ellipses=move(ellipses.to(self.dtype)),
            augment_real=draws[0],
            augment_fake=draws[1],
            gamma=self.gamma() if step % config.penalty_every == 0 else 0.0,
            logits=config.logit_weight if self.seen >= 1000 * config.logit_kimg else 0.0,
            detail=config.detail_weight if self.seen >= 1000 * config.detail_kimg else 0.0,
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
            asked = self.unguided if self.progress() < config.guided_after else config
            terms = adversarial_step(
                self.nets, batch, asked, autocast=self.fabric.autocast, check=check, average_gradients=self._average
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


def _lay_out(optimiser: torch.optim.Optimizer) -> None:
    """Gives every moment the memory layout of its parameter: fused Adam pairs them by their place in memory, and a
    checkpoint is contiguous where parameters are channels_last."""
    for parameter, moments in optimiser.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
