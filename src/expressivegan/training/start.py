"""Where a run starts that is no beginning: the networks of a finished one, for other data or a larger resolution."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expressivegan.checkpoint import open_model, read_json, state_hash
from expressivegan.config import TrainConfig
from expressivegan.data import ImageSet
from expressivegan.errors import InputError
from expressivegan.images import check_resolution
from expressivegan.models import DiscriminatorWithExplain, GeneratorWithCAMGuidance
from expressivegan.models.classes import ClassSet
from expressivegan.streams import derive_seed
from expressivegan.synthesis import open_generator
from expressivegan.training import grow
from expressivegan.training.build import make_networks
from expressivegan.weights import find_model

_BY_CLASS = ("style_embedding.weight", "lesion_embedding.weight", "projection.weight", "class_head.weight",
             "class_head.bias")  # fmt: skip
_MADE = 256  # images that the discriminator's new layers are fitted on


@dataclass(frozen=True)
class Start:
    """Trained networks that a run shall start from.

    Attributes:
        path: the run or model directory.
        G: the averaged generator.
        D: the discriminator, or None where there is none beside it: the run's own is fresh then.
        config: the arguments that the generator was made with.
        data_hash: of the data that they have seen, where it is told.
    """

    path: Path
    G: GeneratorWithCAMGuidance
    D: DiscriminatorWithExplain | None
    config: dict[str, Any]
    data_hash: str | None

    def settings(self) -> dict[str, Any]:
        """What settings.json says of it."""
        return {
            "path": str(self.path.resolve()),
            "resolution": self.G.resolution,
            "classes": list(self.G.classes),
            "G": state_hash(self.G),
            "D": None if self.D is None else state_hash(self.D),
        }

    def describe(self, classes: Sequence[str], resolution: int) -> str:
        """What a run of these classes and this resolution takes over, in a sentence or two."""
        known = [name for name in classes if name in self.G.classes]
        new = [name for name in classes if name not in known]
        grown = "" if resolution == self.G.resolution else f", grown from {self.G.resolution} to {resolution} px"
        found = f"starts from {self.path}{grown}; classes taken over: {', '.join(known) or 'none'}"
        if new:
            found += f"; {', '.join(new)} from the mean of those alike"
        return found + ("" if self.D else "; it has no discriminator, so that one begins afresh")


def open_start(path: str | Path) -> Start:
    """The networks of a run, of a generator's model directory, or of a model that comes with the package, by its name.

    Raises:
        CheckpointError: there is none, or it is damaged.
        InputError: it is of the baseline's kind.
    """
    path = find_model(path, "init")
    G = open_generator(path)
    if not isinstance(G, GeneratorWithCAMGuidance):
        raise InputError(f"init (={path}) is a dcgan, which does not grow; give a run of method expressive")
    folder = path / "generator" if (path / "generator").is_dir() else path
    beside = (folder.parent if folder.name == "generator" else folder) / "discriminator"
    D = open_model(DiscriminatorWithExplain, beside).eval() if beside.is_dir() else None
    seen = read_json(folder / "expressivegan.json").get("data_hash")
    config = read_json(folder / "config.json")
    return Start(path, G, None if D is None else D.requires_grad_(False), config, None if seen is None else str(seen))


def like_start(start: Start, config: TrainConfig, asked: Collection[str] = ()) -> TrainConfig:
    """The settings with networks as large as those of the start, but for the names in `asked`, which stay."""
    grows = check_resolution(config.resolution)[1] > check_resolution(start.G.resolution)[1]
    own: dict[str, Any] = {
        "z_dim": start.G.z_dim,
        "width": int(start.config.get("width", 128)),
        # a finest level narrower than the one before it could not pass it on
        "min_width": max(int(start.config.get("min_width", 16)), start.G.base_out.in_channels if grows else 0),
    }
    return replace(config, **{name: value for name, value in own.items() if name not in asked})


def check_start(start: Start, config: TrainConfig) -> None:
    """Raises unless a run of these settings can start there.

    Raises:
        InputError: another method, length of z, resolution or width.
    """
    init, G = f"--init (={start.path})", start.G
    if config.method != "expressive":
        raise InputError(f"method (={config.method}) cannot start from other networks; leave --init out")
    if config.z_dim != G.z_dim:
        raise InputError(f"z_dim (={config.z_dim}) must be that of {init}: give --z-dim {G.z_dim}")
    (begins, doublings), (wide, more) = check_resolution(G.resolution), check_resolution(config.resolution)
    if wide < begins or more not in (doublings, doublings + 1):
        fits = sorted({s * 2**n for s in (begins, 7) for n in (doublings, doublings + 1) if s * 2**n <= 1024})
        raise InputError(
            f"resolution (={config.resolution}) cannot be reached in one run from the {G.resolution} of {init}; "
            f"take {' or '.join(map(str, fits))}, and go on from there"
        )
    own = like_start(start, config)
    fits_below = _shapes(config, G.resolution, start) == [_shape(n) for n in (G, start.D) if n is not None]
    if not fits_below or (more > doublings and config.min_width < own.min_width):
        raise InputError(
            f"width and min_width (={config.width}, {config.min_width}) do not carry the weights of {init} at "
            f"{config.resolution} px: give --width {own.width} --min-width {own.min_width}"
        )


def begin_from(
    start: Start, G: nn.Module, D: nn.Module, images: ImageSet, config: TrainConfig, steps: int = grow.FIT_STEPS
) -> dict[str, Any]:
    """Fills a run's fresh networks with trained ones, grown to its resolution and fitted to its classes.

    Args:
        start: where from.
        G: fresh, of the run's settings; changed in place.
        D: likewise; untouched if the start has none.
        images: the run's data; real images of training patients help the discriminator to grow.
        config: the run's settings.
        steps: of fitting what grows.

    Returns:
        What settings.json says of it.

    Raises:
        InputError: as `check_start`.
    """
    check_start(start, config)
    device = next(G.parameters()).device
    train = images.indices("train")

    old_G, old_D = start.G.to(device), None if start.D is None else start.D.to(device)
    for side in grow.path(start.G.resolution, config.resolution):
        new_G, new_D = _fresh(config, side, start)
        new_G.to(device), new_D.to(device)
        if len(new_G.base_blocks) > len(old_G.base_blocks):
            grow.double_generator(old_G, new_G, config.seed)
        else:
            grow.restart_generator(old_G, new_G, config.seed, steps)
        if old_D is not None:

            def photos(count: int, g: torch.Generator, side: int = side) -> Tensor:
                chosen = train[torch.randint(len(train), (count,), generator=g).numpy()]
                real = images.batch(chosen)[0]
                return real if real.shape[-1] == side else grow.shrink(real, side)

            grow.grow_discriminator(old_D, new_D, grow.pictures(new_G, _MADE, config.seed), photos, config.seed, steps)
            old_D = new_D.eval().requires_grad_(False)
        old_G = new_G.eval().requires_grad_(False)

    take_over(old_G, G)
    if old_D is not None:
        take_over(old_D, D)
    return start.settings()


def take_over(old: nn.Module, new: nn.Module) -> None:
    """Copies networks that differ in their classes alone: of one name as they are, others from the mean of those alike.

    Alike are classes with a lesion, and those without one; where there are none, all are.
    """
    classes_was, classes_now = old.class_set, new.class_set
    assert isinstance(classes_was, ClassSet)
    assert isinstance(classes_now, ClassSet)
    lesion_was, lesion_now = (c.has_lesion(torch.arange(c.count)) for c in (classes_was, classes_now))
    mix = torch.zeros(classes_now.count, classes_was.count)
    for k in range(classes_now.count):
        name = classes_now.names[k] if classes_now.names else None
        if name in classes_was.names:
            mix[k, classes_was.names.index(name)] = 1
        else:
            alike = lesion_was == lesion_now[k]
            mix[k] = (alike if bool(alike.any()) else torch.ones_like(alike)).float()
    mix /= mix.sum(1, keepdim=True)
    state = new.state_dict()
    for name, value in old.state_dict().items():
        if name in _BY_CLASS:
            value = (mix.to(value) @ value.reshape(len(value), -1)).view(state[name].shape)
        if name != "window":  # it belongs to the resolution and to the frame of the new one
            state[name].copy_(value)


def _fresh(config: TrainConfig, side: int, start: Start) -> tuple[Any, Any]:
    """Networks of the start's classes and the settings' widths, without touching the global random numbers."""
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(config.seed, "grow", "weights", side))
        return make_networks(replace(config, resolution=side), start.G.classes, start.G.class_set.reference)


def _shape(network: nn.Module) -> dict[str, tuple[int, ...]]:
    state = network.state_dict().items()
    return {name: tuple(value.shape) for name, value in state if "modulate" not in name}  # older ones begin without


def _shapes(config: TrainConfig, side: int, start: Start) -> list[dict[str, tuple[int, ...]]]:
    return [_shape(n) for n in _fresh(config, side, start)[: 1 if start.D is None else 2]]
