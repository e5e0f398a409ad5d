"""What is to be judged: images of one of our models, or a folder of labelled images made by any tool."""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from expressivegan.data import load_images
from expressivegan.data.decode import UnusableError, load_pixels
from expressivegan.data.store import open_store
from expressivegan.errors import DataError, InputError
from expressivegan.images import UInt8Array, to_uint8
from expressivegan.synthesis import generate, open_generator

LEAST = 24
"""Images below which nothing can be said."""


@dataclass(frozen=True, eq=False)
class Generated:
    """A set of synthetic images."""

    source: str
    images: UInt8Array
    """uint8 (N, H, W)."""
    labels: npt.NDArray[np.int64] | None
    """(N,) indices into the data set's classes, or None."""

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of pixels and labels."""
        found = hashlib.sha256(repr(self.images.shape).encode())
        found.update(np.ascontiguousarray(self.images).tobytes())
        found.update(b"" if self.labels is None else self.labels.tobytes())
        return found.hexdigest()


def from_model(
    path: Path,
    classes: Sequence[str],
    num: int,
    seed: int = 0,
    progress: Callable[[int, int, str], None] = lambda done, total, words: None,
) -> Generated:
    """The first `num` images of a model, going round its classes.

    Raises:
        CheckpointError: no model there.
        InputError: its classes are not those of the data set, or too few images are asked for.
    """
    if num < LEAST:
        raise InputError(f"num (={num}) must be at least {LEAST}; 2000 and more say something about memorisation too")
    model = open_generator(path)
    names = tuple(model.class_set.names)
    if names and set(names) - set(classes):
        raise InputError(
            f"model (={str(path)!r}) makes {', '.join(names)}, and the data set holds {', '.join(classes)}; give the "
            "data that it was trained on"
        )
    images = np.empty((num, model.resolution, model.resolution), np.uint8)
    labels = np.zeros(num, np.int64)
    for made in generate(model, range(num), seed=seed):
        images[made.index] = to_uint8(made.image)[0, 0]
        labels[made.index] = classes.index(names[made.label]) if names else 0
        if made.index % 64 == 0:
            progress(made.index, num, "")
    progress(num, num, "")
    return Generated(str(path), images, labels if names else None)


def read_generated(source: str, classes: Sequence[str], resolution: int) -> Generated:
    """Images that any tool made: class folders, `labels.csv` (file, label), an archive of these; or without labels.

    Args:
        source: folder or archive.
        classes: names of the data set; those of the images must be among them, in any order and case.
        resolution: side that they are brought to.

    Raises:
        DataError: nothing there that is an image.
        InputError: labels that the data set does not have, or too few images.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*EVERY IMAGE COUNTS AS A PATIENT")  # synthetic images show nobody
        try:
            found = load_images(source, resolution, progress=False)
        except DataError as error:
            if "no class folders" not in str(error):
                raise
            return _enough(_unlabelled(Path(source), resolution))
    known = {name.casefold(): k for k, name in enumerate(classes)}
    strange = [name for name in found.classes if name.casefold() not in known]
    if strange:
        raise InputError(
            f"images (={source!r}) have the labels {', '.join(strange)}, and the data set has {', '.join(classes)}"
        )
    number = np.array([known[name.casefold()] for name in found.classes])
    return _enough(Generated(source, np.asarray(found.images), number[found.labels]))


def _unlabelled(folder: Path, resolution: int) -> Generated:
    store = open_store(folder)
    images = []
    for name in sorted(store.listing().files):
        try:
            images.append(load_pixels(store.read(name), resolution, "stretch"))
        except UnusableError:
            continue  # notes and tables may stand beside the images
    if not images:
        raise DataError(f"images (={str(folder)!r}) holds no image; give the folder that holds them")
    return Generated(str(folder), np.stack(images), None)


def _enough(made: Generated) -> Generated:
    if len(made.images) < LEAST:
        raise InputError(f"images (={made.source!r}) holds {len(made.images)} images; at least {LEAST} are needed")
    return made
