"""Model directory → labelled images with maps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from expressivegan.checkpoint import open_model, read_json
from expressivegan.devices import Precision, resolve_precision
from expressivegan.errors import CheckpointError, InputError
from expressivegan.models import GeneratorWithCAMGuidance
from expressivegan.models.classes import ClassSet
from expressivegan.models.dcgan import DCGANGenerator
from expressivegan.streams import generator
from expressivegan.synthesis.steering import check_steering
from expressivegan.weights import find_model

MICRO_BATCH = 16  # of deterministic mode: kernels round differently with the shape of a batch
CPU_PIXELS = 2**17  # of a batch in fp32: what is made at a time stays in a core's caches; half as many bytes in bf16
GPU_BATCH = 64


class Generator(Protocol):
    """What generation needs of a network: ours and the baseline's have it."""

    z_dim: int
    resolution: int
    class_set: ClassSet

    def __call__(self, z: Tensor, labels: Tensor | None = None) -> tuple[Tensor, list[Tensor]]: ...


@dataclass(frozen=True)
class Made:
    """One image of a run of generation.

    Attributes:
        index: its number in the run.
        label: its label.
        style_label: the class whose acquisition it has.
        image: (1, 1, H, W) in [-1, 1].
        attention: maps, coarse to fine, each (1, 1, h, w) in [0, 1].
    """

    index: int
    label: int
    style_label: int
    image: Tensor
    attention: list[Tensor]


def open_generator(path: str | Path) -> GeneratorWithCAMGuidance | DCGANGenerator:
    """A generator in evaluation mode, from a run, a model directory, or the name of a model that is shipped.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path = find_model(path)
    folder = path / "generator" if (path / "generator").is_dir() else path
    if not folder.is_dir():
        raise CheckpointError(f"model (={path}) is a file; give a run or a model directory")
    if (path / "settings.json").exists() and folder == path:
        raise CheckpointError(
            f"model (={path}) is a run that has not written a generator yet; let it reach a checkpoint"
        )
    config = read_json(folder / "expressivegan.json").get("config")
    if isinstance(config, dict) and config.get("method") == "dcgan":
        return open_model(DCGANGenerator, folder).eval().requires_grad_(False)
    return open_model(GeneratorWithCAMGuidance, folder, frame=0.0, grain_by_style=False).eval().requires_grad_(False)


def latent(seed: int, index: int, z_dim: int) -> Tensor:
    """(z_dim,) standard normal: the latent vector of image `index` of a run, whatever batch it is made in."""
    return torch.randn(z_dim, generator=generator(seed, "image", index))


def free_style(seed: int, index: int, classes: int) -> int:
    """The style label of image `index` of a shortcut-free run: drawn evenly, whatever the image's label."""
    return int(torch.randint(classes, (1,), generator=generator(seed, "style", index)))


def label_number(model: Generator, name: str, argument: str = "label") -> int:
    """The number of a class.

    Raises:
        InputError: the model has no such class.
    """
    names = model.class_set.names
    by_name = {n.casefold(): i for i, n in enumerate(names)}
    if name.casefold() not in by_name:
        raise InputError(
            f"{argument} (={name!r}) must be one of {', '.join(names) or 'none: this model has no classes'}"
        )
    return by_name[name.casefold()]


@dataclass(frozen=True)
class Plan:
    """What a run of generation asks for; see `generate`."""

    seed: int = 0
    label: int | None = None
    truncation: float = 1.0
    steer: Tensor | None = None
    style_label: int | None = None
    shortcut_free: bool = False

    def check(self, model: Generator) -> None:
        """Raises InputError unless `model` can make it."""
        classes, names = model.class_set, model.class_set.names
        if not 0 <= self.truncation <= 1:
            raise InputError(f"truncation (={self.truncation}) must be from 0 to 1")
        for name, number in (("label", self.label), ("style_label", self.style_label)):
            if number is not None and not 0 <= number < classes.count:
                raise InputError(f"{name} (={number}) must be 0 to {classes.count - 1} ({', '.join(names)})")
        if self.shortcut_free and self.style_label is not None:
            raise InputError(
                "shortcut_free draws the style label of each image, so style_label cannot be given with it"
            )
        given = {"steer": self.steer is not None, "style_label": self.style_label is not None}
        asked = [name for name, is_given in (given | {"shortcut_free": self.shortcut_free}).items() if is_given]
        if asked and not isinstance(model, GeneratorWithCAMGuidance):
            raise InputError(f"{asked[0]} needs a CAM-guided generator; the dcgan baseline's maps do not act")
        if self.steer is None:
            return
        check_steering(self.steer, model.resolution)
        if classes.reference is not None and self.label in (None, classes.reference):
            asked_for = "that goes round the classes" if self.label is None else f"(={names[self.label]!r})"
            sick = [n for k, n in enumerate(names) if k != classes.reference]
            raise InputError(
                f"steer says where a disease shall be, but a label {asked_for} has none in "
                f"{names[classes.reference]}; choose label {' or '.join(sick)}"
            )

    def label_of(self, index: int, classes: int) -> int:
        """The label of an image."""
        return index % classes if self.label is None else self.label

    def style_of(self, index: int, classes: int) -> int:
        """The style label of an image."""
        if self.shortcut_free:
            return free_style(self.seed, index, classes)
        return self.label_of(index, classes) if self.style_label is None else self.style_label


def known_precision(precision: Precision, device: str) -> Precision:
    """What `auto` means on this device; anything else as it is.

    Raises:
        InputError: images are not made in this precision.
    """
    if precision not in (allowed := ("auto", "32-true", "bf16-mixed")):
        raise InputError(f"precision (={precision!r}) must be one of {', '.join(allowed)}")
    return resolve_precision(precision, torch.device(device).type)


def fitting_batch(resolution: int, device: str, precision: Precision) -> int:
    """How many images at a time are made fastest."""
    if torch.device(device).type != "cpu":
        return GPU_BATCH
    return max(1, CPU_PIXELS * (2 if precision == "bf16-mixed" else 1) // resolution**2)


def check_batch(batch: int | None) -> None:
    """Raises InputError unless it is None or positive."""
    if batch is not None and batch < 1:
        raise InputError(f"batch (={batch}) must be at least 1")


@torch.no_grad()  # not inference_mode: a user may want to train on the images
def generate(
    model: Generator,
    indices: Sequence[int],
    *,
    seed: int = 0,
    label: int | None = None,
    truncation: float = 1.0,
    steer: Tensor | None = None,
    style_label: int | None = None,
    shortcut_free: bool = False,
    batch: int | None = None,
    deterministic: bool = False,
    device: str = "cpu",
    precision: Precision = "32-true",
) -> Iterator[Made]:
    """Makes the images with the given numbers.

    Image i depends on (model, seed, i, label, style label, steer, truncation) alone; its pixels agree to one grey level
    across batch sizes, and to the bit with `deterministic`, on one machine, backend and precision.

    Args:
        model: a generator in evaluation mode.
        indices: numbers of the images.
        seed: of the run.
        label: one class for all; None goes round the classes.
        truncation: 0..1 scales the latent vectors: less variety, more typical images.
        steer: (1, 1, H, W) in [0, 1], an upper bound on M; see `steering_map`. It needs a label with a lesion.
        style_label: the acquisition; None follows the label.
        shortcut_free: draw each image's style label from (seed, i), whatever its label.
        batch: images at a time; None is as many as are made fastest.
        deterministic: fixed, padded batches of `MICRO_BATCH`, whatever `batch` says.
        device: where.
        precision: bf16-mixed is faster where the hardware has it, and its images differ from those of 32-true by
            several grey levels (docs/generation.md); auto takes it there.

    Yields:
        One `Made` per index, in order, on the CPU.

    Raises:
        InputError: an argument out of range; when the first image is asked for.
    """
    plan = Plan(seed, label, truncation, steer, style_label, shortcut_free)
    plan.check(model)
    check_batch(batch)
    precision = known_precision(precision, device)
    network, at = cast(nn.Module, model), torch.device(device)
    there = next(network.parameters()).device
    if there.type != at.type or at.index not in (None, there.index):  # moving what is there takes 0.3 ms
        network.to(at)
    size = MICRO_BATCH if deterministic else batch or fitting_batch(model.resolution, device, precision)
    classes = model.class_set.count
    for start in range(0, len(indices), size):
        chosen = list(indices[start : start + size])
        padded = chosen + [chosen[-1]] * (size - len(chosen)) if deterministic else chosen
        z = torch.stack([latent(seed, i, model.z_dim) for i in padded]) * truncation
        labels = torch.tensor([plan.label_of(i, classes) for i in padded])
        styles = torch.tensor([plan.style_of(i, classes) for i in padded])
        extra: dict[str, Tensor] = {}
        if steer is not None:
            extra["steer"] = steer.to(at).expand(len(padded), -1, -1, -1)
        if style_label is not None or shortcut_free:
            extra["style_labels"] = styles.to(at)
        with torch.autocast(at.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            images, attention = network(z.to(at), labels.to(at), **extra)
        images, attention = images.float().cpu(), [m.float().cpu() for m in attention]
        for n, index in enumerate(chosen):
            yield Made(index, int(labels[n]), int(styles[n]), images[n : n + 1], [m[n : n + 1] for m in attention])
