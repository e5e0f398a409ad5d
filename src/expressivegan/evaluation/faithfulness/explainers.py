"""From networks to maps: arrays in, arrays out."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from expressivegan.errors import InputError
from expressivegan.evaluation.faithfulness.arrays import Bools, Floats
from expressivegan.images import UInt8Array, from_uint8, to_uint8
from expressivegan.models import DiscriminatorWithExplain, GeneratorWithCAMGuidance
from expressivegan.synthesis.generate import latent
from expressivegan.teacher import CXR_CAM_Teacher

_BATCH = 64
LEAST_CHANGE = 3
"""Grey levels by which a pixel must differ to have been changed; the phantom's masks have the same threshold."""
Ints = npt.NDArray[np.int64]


def _batches(images: UInt8Array) -> list[Tensor]:
    pieces = (images[i : i + _BATCH] for i in range(0, len(images), _BATCH))
    return [from_uint8(np.ascontiguousarray(piece)[:, None]) for piece in pieces]


@torch.no_grad()
def teacher_class_maps(teacher: CXR_CAM_Teacher, images: UInt8Array) -> tuple[Floats, Floats]:
    """Referenced CAMs of every class, signed, unscaled, on the network's grid, and logits.

    Args:
        teacher: on the CPU, in evaluation mode.
        images: uint8 (N, H, W).

    Returns:
        (N, K, h, w) and (N, K).
    """
    found = [teacher.raw_cams(x) for x in _batches(images)]
    maps, logits = torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])
    return teacher.referenced(maps).double().numpy(), logits.double().numpy()


def teacher_maps(teacher: CXR_CAM_Teacher, images: UInt8Array) -> Floats:
    """(N, h, w): the referenced CAM of the likeliest class but the reference; signed, so that no peak is cut off.

    For `topk` with three classes this is the merged map before scaling.
    """
    maps, logits = teacher_class_maps(teacher, images)
    return _likeliest(maps, logits, [k for k in teacher.trained if k != teacher.reference])


def _likeliest(maps: Floats, logits: Floats, among: list[int]) -> Floats:
    chosen = np.asarray(among)[logits[:, among].argmax(1)]
    found: Floats = maps[np.arange(len(maps)), chosen]
    return found


@torch.no_grad()
def class_cam_maps(model: DiscriminatorWithExplain, images: UInt8Array) -> Floats:
    """(N, h, w): the discriminator's referenced class map of the likeliest class but the reference, signed.

    Raises:
        InputError: a discriminator with fewer than two classes.
    """
    if len(model.classes) < 2:
        raise InputError(f"model has {len(model.classes)} class; a class map needs two at least to tell apart")
    found = [model.explain(x) for x in _batches(images)]
    maps = torch.cat([f.class_maps for f in found]).double().numpy()
    logits = torch.cat([f.class_logits for f in found]).double().numpy()
    return _likeliest(maps, logits, [k for k in range(len(model.classes)) if k != model.class_set.reference])


@torch.no_grad()
def evidence_maps(model: DiscriminatorWithExplain, images: UInt8Array, labels: Ints) -> tuple[Floats, float]:
    """The evidence of real images less its mean over the images of the same class, and how far it is from the score.

    A relativistic score has an arbitrary zero, and so has every cell: what counts is how an image differs from others
    of its class.

    Args:
        model: on the CPU, in evaluation mode.
        images: uint8 (N, H, W), real.
        labels: (N,).

    Returns:
        (N, h, w), and the largest |mean(evidence) - score|, the mean taken in fp64.
    """
    maps, error = [], 0.0
    for x, y in zip(_batches(images), torch.split(torch.from_numpy(labels), _BATCH), strict=True):
        evidence = model.explain(x, y).evidence
        error = max(error, float((evidence.double().mean(dim=(1, 2, 3)) - model.score(x, y)[:, 0]).abs().max()))
        maps.append(evidence[:, 0])
    found = torch.cat(maps).double().numpy()
    for label in np.unique(labels):
        found[labels == label] -= found[labels == label].mean(0)
    return found, error


class Made(NamedTuple):
    """Images of a generator, its map, and where the picture truly changed."""

    images: UInt8Array
    """uint8 (N, H, W)."""
    maps: Floats
    """(N, H, W), M."""
    change: Floats
    """(N, H, W), |image - base| in grey levels."""

    @property
    def changed(self) -> Bools:
        """(N, H, W), where the image differs from its base by `LEAST_CHANGE` grey levels or more."""
        return self.change >= LEAST_CHANGE


@torch.no_grad()
def generator_maps(model: GeneratorWithCAMGuidance, label: int, count: int, seed: int = 0) -> Made:
    """M and what it changed in the first `count` images of a class, as `generate` makes them going round the classes.

    Raises:
        InputError: the class has no lesion.
    """
    if label == model.class_set.reference:
        raise InputError(f"label (={model.classes[label]!r}) has no lesion; choose another class")
    classes = len(model.classes)
    images, maps, change = [], [], []
    for start in range(0, count, _BATCH):
        numbers = range(label + classes * start, label + classes * min(start + _BATCH, count), classes)
        z = torch.stack([latent(seed, i, model.z_dim) for i in numbers])
        parts = model.compose(z, torch.full((len(z),), label))
        image, base = (to_uint8(x)[:, 0].numpy() for x in (parts.image, parts.base_image))
        images.append(image)
        maps.append(parts.mask[:, 0].double().numpy())
        change.append(np.abs(image.astype(np.float64) - base))
    return Made(np.concatenate(images), np.concatenate(maps), np.concatenate(change))
