"""Explaining images from Python."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from expressivegan.devices import Device
from expressivegan.errors import InputError
from expressivegan.explain.baseline import Progress, silent
from expressivegan.explain.explainer import BATCH, Explained, Explainer
from expressivegan.explain.inputs import Picture, list_sources, read_pictures
from expressivegan.explain.opening import open_explainer
from expressivegan.explain.peers import Method
from expressivegan.images import check_images, to_uint8


@dataclass(frozen=True)
class Explanations:
    """What `explain_images` found.

    Attributes:
        images: one entry for each image that could be read.
        rejected: (name, reason) of the others.
        notes: what is missing from all of them, and why.
    """

    images: list[Explained]
    rejected: list[tuple[str, str]]
    notes: tuple[str, ...]


def explain_images(
    model: str | Path,
    images: Sequence[str | Path] | Tensor,
    *,
    label: str | None = None,
    data: str | Path | None = None,
    methods: Sequence[Method] | None = None,
    device: Device = "auto",
    progress: Progress | None = None,
) -> Explanations:
    """Explains images: where the teacher sees each class, what the discriminator takes for evidence, and scores.

    Args:
        model: a run with teacher/ and discriminator/, a teacher's model directory, or the name of a shipped model.
        images: files, folders and ZIP archives of PNG, JPEG or DICOM, or a tensor (B, 1, R, R) in [-1, 1] at the
            model's resolution.
        label: explain this class rather than each image's likeliest.
        data, methods, device, progress: see `open_explainer`.

    Returns:
        What was found, and what could not be read. Maps are float32 (h, w) on the grid of whatever made them.

    Raises:
        InputError: no image, none that can be read, an unknown class or method, or a tensor of the wrong shape.
        CheckpointError: no such model, or nothing in it that explains.
        DataError: `data` cannot be read.
    """
    if len(images) == 0:
        raise InputError("images is empty; give at least one file or folder")
    explainer = open_explainer(model, data=data, methods=methods, device=device, label=label, progress=progress)
    found: list[Explained] = []
    rejected: list[tuple[str, str]] = []
    for entry in explain_each(explainer, images, label, progress or silent):
        if isinstance(entry, Explained):
            found.append(entry)
        else:
            rejected.append(entry)
    return Explanations(found, rejected, explainer.notes)


def explain_each(
    explainer: Explainer, images: Sequence[str | Path] | Tensor, label: str | None, progress: Progress
) -> Iterator[Explained | tuple[str, str]]:
    """One explanation, or name and reason, for each image; a batch is in memory at a time.

    Raises:
        InputError: an unknown class, a tensor of the wrong shape, or no image that can be read.
    """
    label = explainer.check_label(label)
    if isinstance(images, Tensor):
        pictures = _from_tensor(images, explainer.resolution)
        for i in range(0, len(pictures), BATCH):
            progress(i, len(pictures), "")
            yield from explainer.explain(pictures[i : i + BATCH], label)
        return
    sources, refused = list_sources(images)
    yield from refused
    waiting: list[Picture] = []
    reasons, count = refused, 0
    for i, entry in enumerate(read_pictures(sources, explainer.resolution, explainer.fit)):
        progress(i, len(sources), "")
        if isinstance(entry, Picture):
            waiting.append(entry)
            count += 1
        else:
            reasons = reasons or [entry]
            yield entry
        if len(waiting) == BATCH:
            yield from explainer.explain(waiting, label)
            waiting = []
    yield from explainer.explain(waiting, label)
    if not count:
        raise InputError(f"images hold none that can be read; the first is {reasons[0][0]}: {reasons[0][1]}")
    progress(len(sources), len(sources), "")


def _from_tensor(images: Tensor, resolution: int) -> list[Picture]:
    check_images(images)
    if images.shape[-2:] != (resolution, resolution):
        raise InputError(
            f"images must be (B, 1, {resolution}, {resolution}) for this model, not {tuple(images.shape)}; "
            "resize them, or give files"
        )
    pixels = to_uint8(images)[:, 0].cpu().numpy()
    return [Picture(f"image {i}", p, p) for i, p in enumerate(pixels)]
