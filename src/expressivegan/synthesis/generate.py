"""Model directory → labelled images with maps."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from expressivegan.atomic import replacing, write_text
from expressivegan.checkpoint import make_directory, open_model, read_json, state_hash
from expressivegan.errors import CheckpointError, InputError
from expressivegan.images import check_maps, overlay, save_png, to_uint8
from expressivegan.models import GeneratorWithCAMGuidance
from expressivegan.models.classes import ClassSet
from expressivegan.models.dcgan import DCGANGenerator
from expressivegan.streams import generator
from expressivegan.synthesis.provenance import is_whole, png_text, read_provenance

MICRO_BATCH = 16  # of deterministic mode: kernels round differently with the shape of a batch


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
        image: (1, 1, H, W) in [-1, 1].
        attention: maps, coarse to fine, each (1, 1, h, w) in [0, 1].
    """

    index: int
    label: int
    image: Tensor
    attention: list[Tensor]


def open_generator(path: Path) -> GeneratorWithCAMGuidance | DCGANGenerator:
    """A generator from a run or a model directory, in evaluation mode.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    folder = path / "generator" if (path / "generator").is_dir() else path
    if not folder.is_dir():
        raise CheckpointError(f"model (={path}) does not exist; give a run or a model directory")
    if (path / "settings.json").exists() and folder == path:
        raise CheckpointError(
            f"model (={path}) is a run that has not written a generator yet; let it reach a checkpoint"
        )
    method = read_json(folder / "expressivegan.json").get("config", {}).get("method", "expressive")
    kind = DCGANGenerator if method == "dcgan" else GeneratorWithCAMGuidance
    return cast("GeneratorWithCAMGuidance | DCGANGenerator", open_model(kind, folder).eval().requires_grad_(False))


def latent(seed: int, index: int, z_dim: int) -> Tensor:
    """(z_dim,) standard normal: the latent vector of image `index` of a run, whatever batch it is made in."""
    return torch.randn(z_dim, generator=generator(seed, "image", index))


def label_number(model: Generator, name: str) -> int:
    """The number of a class.

    Raises:
        InputError: the model has no such class.
    """
    names = model.class_set.names
    by_name = {n.casefold(): i for i, n in enumerate(names)}
    if name.casefold() not in by_name:
        raise InputError(f"label (={name!r}) must be one of {', '.join(names) or 'none: this model has no classes'}")
    return by_name[name.casefold()]


@torch.no_grad()
def generate(
    model: Generator,
    indices: Sequence[int],
    *,
    seed: int = 0,
    label: int | None = None,
    truncation: float = 1.0,
    steer: Tensor | None = None,
    style_label: int | None = None,
    batch: int = 64,
    deterministic: bool = False,
    device: str = "cpu",
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
        steer: (1, 1, H, W) in [0, 1], an upper bound on M.
        style_label: the acquisition; None follows the label.
        batch: images at a time.
        deterministic: fixed, padded batches of `MICRO_BATCH`.
        device: where.

    Yields:
        One `Made` per index, in order, on the CPU.

    Raises:
        InputError: an argument out of range.
    """
    if not 0 <= truncation <= 1:
        raise InputError(f"truncation (={truncation}) must be from 0 to 1")
    if batch < 1:
        raise InputError(f"batch (={batch}) must be at least 1")
    if steer is not None:
        check_maps(steer, "steer")
    if (steer is not None or style_label is not None) and not isinstance(model, GeneratorWithCAMGuidance):
        raise InputError("steer and style_label need a CAM-guided generator; the dcgan baseline's maps do not act")
    network = cast(nn.Module, model).to(device)
    size = MICRO_BATCH if deterministic else batch
    classes = model.class_set.count
    for start in range(0, len(indices), size):
        chosen = list(indices[start : start + size])
        padded = chosen + [chosen[-1]] * (size - len(chosen)) if deterministic else chosen
        z = torch.stack([latent(seed, i, model.z_dim) for i in padded]) * truncation
        labels = torch.tensor([i % classes if label is None else label for i in padded])
        extra: dict[str, Tensor] = {}
        if steer is not None:
            extra["steer"] = steer.to(device).expand(len(padded), -1, -1, -1)
        if style_label is not None:
            extra["style_labels"] = torch.full_like(labels, style_label).to(device)
        images, attention = network(z.to(device), labels.to(device), **extra)
        images, attention = images.float().cpu(), [m.float().cpu() for m in attention]
        for n, index in enumerate(chosen):
            yield Made(index, int(labels[n]), images[n : n + 1], [m[n : n + 1] for m in attention])


def write_images(
    path: Path,
    out: Path,
    count: int,
    *,
    seed: int = 0,
    label: str | None = None,
    truncation: float = 1.0,
    batch: int = 64,
    deterministic: bool = False,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes PNGs with provenance, their maps (NPZ and overlays) and labels.csv; goes on where it was interrupted.

    Layout of `out`: `images/000000-LABEL.png`, `maps/000000.npz` (`level_0` coarse … and `mask`), `overlays/…png`,
    `labels.csv` (`file,label,index,seed`), written last.

    Args:
        path: a run or a model directory.
        out: the folder; images of the same run of generation that stand there are kept.
        count: number of images.
        seed, label, truncation, batch, deterministic, device: see `generate`; here the label is a name.
        progress: called with (done, count).

    Returns:
        Path of labels.csv.

    Raises:
        InputError: an argument out of range, or a folder that holds other images.
        CheckpointError: no such model.
    """
    if count < 1:
        raise InputError(f"num (={count}) must be at least 1")
    model = open_generator(path)
    number = None if label is None else label_number(model, label)
    if not 0 <= truncation <= 1:
        raise InputError(f"truncation (={truncation}) must be from 0 to 1")
    if batch < 1:
        raise InputError(f"batch (={batch}) must be at least 1")
    names = model.class_set.names or ("IMAGE",)
    digest = state_hash(model)
    make_directory(out)
    for name in ("images", "maps", "overlays"):
        make_directory(out / name)

    def facts(index: int) -> dict[str, Any]:
        k = index % len(names) if number is None else number
        return {"model": digest, "seed": seed, "index": index, "label": names[k], "truncation": truncation}

    def png(index: int) -> Path:
        return out / "images" / f"{index:06d}-{_file_name(facts(index)['label'])}.png"

    def is_done(index: int) -> bool:
        if not png(index).exists():
            return False
        found = read_provenance(png(index))
        if found is None and not is_whole(png(index)):
            return False  # cut short, by a full disk for example
        if found != facts(index):
            raise InputError(f"--out (={out}) holds images of another model, seed or label; choose another folder")
        return (out / "maps" / f"{index:06d}.npz").exists() and (out / "overlays" / png(index).name).exists()

    ours = {png(i) for i in range(count)}
    others = [p for p in sorted((out / "images").glob("*.png")) if p not in ours]
    if others:
        raise InputError(f"--out (={out}) holds other images, such as {others[0].name}; choose another folder")
    missing = [i for i in range(count) if not is_done(i)]
    done = count - len(missing)
    how: dict[str, Any] = {"batch": batch, "deterministic": deterministic, "device": device}
    for made in generate(model, missing, seed=seed, label=number, truncation=truncation, **how):
        target = png(made.index)
        arrays = {f"level_{n}": m[0, 0].half().numpy() for n, m in enumerate(made.attention)}
        _write_npz(out / "maps" / f"{made.index:06d}.npz", arrays | {"mask": arrays[f"level_{len(arrays) - 1}"]})
        text = png_text(facts(made.index))
        save_png(out / "overlays" / target.name, overlay(made.image, made.attention[-1])[0], text)
        save_png(target, to_uint8(made.image)[0, 0].numpy(), text)  # last: it says that the others are there
        done += 1
        if progress is not None:
            progress(done, count)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["file", "label", "index", "seed"])
    writer.writerows([f"images/{png(i).name}", facts(i)["label"], i, seed] for i in range(count))
    write_text(out / "labels.csv", table.getvalue())
    write_text(out / "generation.json", json.dumps(facts(0) | {"count": count, "label": label}, indent=2) + "\n")
    return out / "labels.csv"


def _file_name(label: str) -> str:
    """A label as part of a file name; labels are the user's and may hold anything."""
    safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in label)[:40]
    return safe if safe == label else f"{safe}-{hashlib.sha256(label.encode()).hexdigest()[:6]}"


def _write_npz(path: Path, arrays: dict[str, Any]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
