"""A user's own features: a function or a network of a Python module.

The module is the user's own code and is imported like any other; nothing is unpickled.
"""

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expressivegan.errors import ExpressiveGANError, InputError
from expressivegan.evaluation.features.frame import Frame
from expressivegan.evaluation.features.space import (
    SPACES,
    FloatArray,
    check_features,
    check_pixels,
    hash_weights,
    identity_of,
)
from expressivegan.images import UInt8Array

_BATCH = 32
_OWN = Frame(None)


class OwnFeatures:
    """Features by somebody else's function or network, checked on the way out. Made by `open_module`.

    Args:
        name: for tables, files and sentences.
        function: uint8 array (B, H, W) → array or tensor (B, d).
        identity: of `FeatureSpace`.
        batch: images per call.
    """

    def __init__(
        self, name: str, function: Callable[[UInt8Array], Any], identity: str | None, batch: int = _BATCH
    ) -> None:
        self.name = name
        self.identity = identity
        self._function = function
        self._batch = batch
        self._width: int | None = None
        self._tried = False

    def features(self, images: UInt8Array) -> FloatArray:
        """uint8 (N, H, W) → float32 (N, d).

        Raises:
            InputError: unfit images; the function fails; its values are not finite floating point (N, d); or the
                first image gets other features alone than beside others.
        """
        check_pixels(images)
        parts = [self._call(images[i : i + self._batch]) for i in range(0, len(images), self._batch)]
        if not self._tried and len(parts[0]) > 1:
            self._check_alone(images[:1], parts[0][:1])
        return np.concatenate(parts)

    def _call(self, images: UInt8Array) -> FloatArray:
        try:
            values = self._function(images.copy())  # the caller's images stay as they are
        except ExpressiveGANError:
            raise
        except Exception as error:
            raise InputError(
                f"features {self.name} failed on images of shape {images.shape} with "
                f"{type(error).__name__}: {_line(error)}; they must take what docs/features.md says"
            ) from error
        found = check_features(values, len(images), self.name, self._width)
        self._width = found.shape[1]
        return found

    def _check_alone(self, image: UInt8Array, beside: FloatArray) -> None:
        alone = self._call(image)
        gap, scale = float(np.abs(alone - beside).max()), float(np.abs(beside).max())
        if gap > 0.01 * max(scale, 1e-6):
            raise InputError(
                f"features of {self.name} must depend on their own image alone, but those of the first image differ "
                f"by {gap:.3g} (of {scale:.3g}) beside other images; is something normalised over the batch?"
            )
        self._tried = True


def open_module(module: str, attribute: str) -> OwnFeatures:
    """Imports a user's function or network.

    A function takes uint8 (N, H, W) and returns (N, d). An `nn.Module` takes float32 (N, 1, H, W) in [-1, 1], at the
    size that the images have, and returns (N, d); it is put into evaluation mode and stays on its device.

    A network's features are cached under its weights and the source of its classes. A function's cannot be told from
    its source, so they are cached only where it carries a text `version` that its author changes with it:
    `my_function.version = "2"`.

    Args:
        module: dotted name, found on Python's path or in the working folder.
        attribute: name of the function or the network in it.

    Raises:
        InputError: no such module or attribute, an import that fails, or neither a function nor a network.
    """
    name = f"module:{module}:{attribute}"
    with _working_folder_last():
        try:
            loaded = importlib.import_module(module)
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            raise InputError(
                f"features (={name!r}): module {module!r} cannot be imported from {str(Path.cwd())!r} or Python's path "
                f"({type(error).__name__}: {_line(error)}); name one that can, or one of {', '.join(SPACES)}"
            ) from error
    found = getattr(loaded, attribute, None)
    if found is None:
        there = sorted(k for k, v in vars(loaded).items() if callable(v) and not k.startswith("_"))
        raise InputError(
            f"features (={name!r}): module {module!r} has no {attribute!r}; it has {', '.join(there[:10]) or 'nothing'}"
        )
    if isinstance(found, type) or not callable(found):
        kind = f"the class {found.__name__}" if isinstance(found, type) else type(found).__name__
        raise InputError(
            f"features (={name!r}) must be a function or an instance of torch.nn.Module, not {kind}; "
            f"add for example `features = {attribute}()` to the module"
        )
    if isinstance(found, nn.Module):
        identity = identity_of(
            "module", of=name, weights=hash_weights(found), source=_sources(found), text=repr(found), frame=_OWN
        )
        return OwnFeatures(name, _network(found.eval()), identity)
    version = getattr(found, "version", None)
    return OwnFeatures(name, found, identity_of("module", of=name, version=version) if version else None)


def _network(network: nn.Module) -> Callable[[UInt8Array], Any]:
    place = next(iter([*network.parameters(), *network.buffers()]), torch.empty(0)).device

    def run(images: UInt8Array) -> Tensor:
        with torch.inference_mode():
            out: Tensor = network(_OWN.prepare(images).to(place))
        return out

    return run


def _sources(network: nn.Module) -> str:
    """Digest of the files that define the network's classes, torch's own apart."""
    digest = hashlib.sha256()
    for kind in sorted({type(m) for m in network.modules()}, key=lambda k: f"{k.__module__}.{k.__qualname__}"):
        digest.update(f"{kind.__module__}.{kind.__qualname__}".encode())
        if not kind.__module__.startswith("torch."):
            try:
                digest.update(Path(inspect.getfile(kind)).read_bytes())
            except (OSError, TypeError):
                digest.update(b"?")
    return digest.hexdigest()


@contextmanager
def _working_folder_last() -> Iterator[None]:
    """A console script does not look for modules where it is run; last, so that it hides no installed package."""
    folder = str(Path.cwd())
    sys.path.append(folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if folder in sys.path:  # the module may have changed the path itself
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(folder)]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
