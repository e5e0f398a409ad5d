"""What a feature space is, and the checks that all of them share."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from expressivegan.errors import InputError
from expressivegan.evaluation.features.frame import Frame
from expressivegan.images import UInt8Array

FloatArray = npt.NDArray[np.float32]
Progress = Callable[[int, int, float], None]  # (step, of, loss)
Count = Callable[[int, int], None]  # (done, total)

SPACES = ("judge", "selfsup", "xrv:NAME", "inception[:PATH]", "rad-dino[:PATH]", "module:NAME:ATTRIBUTE", "onnx:PATH")


class FeatureSpace(Protocol):
    """Anything that turns images into vectors whose distances mean something."""

    @property
    def name(self) -> str:
        """A short name for tables and files."""

    @property
    def identity(self) -> str | None:
        """Another string whenever the same image may get other features: weights, recipe and preprocessing.

        None where that cannot be known; such features are never kept on disk.
        """

    def features(self, images: UInt8Array) -> FloatArray:
        """uint8 (N, H, W) → float32 (N, d), one row an image, independent of the other images."""


class NetworkSpace:
    """The features of one fixed network. Made by `open_space`.

    Args:
        name: a short name for tables and files.
        network: float32 (B, C, S, S), as `frame` makes it → float32 (B, d).
        frame: size, channels and value range that the network's authors define.
        batch: images per forward pass.
        note: whatever else decides the features, for the identity.
    """

    def __init__(
        self, name: str, network: nn.Module, frame: Frame, *, batch: int = 32, note: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.identity: str | None = identity_of(name, weights=hash_weights(network), frame=frame, **(note or {}))
        self.frame = frame
        self._network = network.eval().requires_grad_(False)
        self._batch = batch

    def features(self, images: UInt8Array) -> FloatArray:
        """uint8 (N, H, W) → float32 (N, d). Raises InputError for another shape or type."""
        return forward(self._network, images, self.frame, self._batch)


def identity_of(name: str, **parts: object) -> str:
    """`<name>-<digest>`: another digest for other parts. Parts are told apart by their `repr`."""
    text = "\x1f".join(f"{key}={value!r}" for key, value in sorted(parts.items()))
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def hash_weights(network: nn.Module) -> str:
    """SHA-256 of every parameter and buffer: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        if not isinstance(value, Tensor):  # an extra state may be anything
            digest.update(f"{name}\x1f{value!r}".encode())
            continue
        digest.update(f"{name}\x1f{value.dtype}\x1f{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def forward(network: Callable[[Tensor], Tensor], images: UInt8Array, frame: Frame, batch: int) -> FloatArray:
    """In float32 rather than bf16: distances between near-duplicates must not drown in rounding."""
    check_pixels(images)
    with torch.inference_mode():
        parts = [network(frame.prepare(images[i : i + batch])).float().numpy() for i in range(0, len(images), batch)]
    return np.concatenate(parts)


def check_pixels(images: UInt8Array) -> UInt8Array:
    """The images themselves. Raises InputError unless they are uint8 (N, H, W), N ≥ 1."""
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 3 or 0 in images.shape:
        kind = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise InputError(f"images must be a non-empty uint8 array (N, H, W), not {kind}")
    return images


def check_features(values: Any, count: int, source: str, width: int | None = None) -> FloatArray:
    """What a network or a function of somebody else's returned, as float32 (N, d).

    Args:
        values: a tensor or whatever NumPy takes for an array.
        count: N, how many images went in.
        source: whose values they are, for the sentence.
        width: d, where it is known from earlier images.

    Raises:
        InputError: another type or shape, or values that are not finite in float32.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype in (torch.bfloat16, torch.float16) else values).numpy()
    wanted = f"floating point of shape ({count}, {'d' if width is None else width}), one row an image"
    if not isinstance(values, np.ndarray):
        raise InputError(f"features of {source} must be an array or a tensor, {wanted}, not {type(values).__name__}")
    if not np.issubdtype(values.dtype, np.floating) or values.ndim != 2 or len(values) != count or not values.shape[1]:
        raise InputError(f"features of {source} must be {wanted}, not {values.dtype} {values.shape}")
    if width is not None and values.shape[1] != width:
        raise InputError(f"features of {source} must be {wanted}, not {values.dtype} {values.shape}")
    with np.errstate(over="ignore"):
        found: FloatArray = np.ascontiguousarray(values, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(found).all(1))
    if len(bad):
        raise InputError(
            f"features of {source} hold NaN, infinity or a value beyond float32 for {len(bad)} of {count} images, "
            f"first for image {bad[0]}; every image needs finite features"
        )
    return found
