"""What is to be judged: images of one of our models, or a folder of labelled images made by any tool."""

import hashlib
import io
import mimetypes
import time
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from expressivegan.atomic import write_bytes
from expressivegan.checkpoint import state_hash
from expressivegan.data import load_images
from expressivegan.data.decode import Fit, UnusableError, inspect_and_fit
from expressivegan.data.layout.plan import is_stray
from expressivegan.data.manifest import Rejected
from expressivegan.data.store import open_store
from expressivegan.errors import DataError, InputError, UnlabelledError
from expressivegan.evaluation.plan import Progress
from expressivegan.images import UInt8Array, to_uint8
from expressivegan.models import GeneratorWithCAMGuidance
from expressivegan.models.dcgan import DCGANGenerator
from expressivegan.synthesis import generate, open_generator
from expressivegan.synthesis.origin import Origin, origin_of
from expressivegan.weights import find_model

LEAST = 24
"""Images below which nothing can be said."""
_BATCH, _SAVE_SECONDS = 64, 20.0

Network = GeneratorWithCAMGuidance | DCGANGenerator


@dataclass(frozen=True, eq=False)
class Generated:
    """A set of synthetic images."""

    source: str
    images: UInt8Array
    """uint8 (N, H, W)."""
    labels: npt.NDArray[np.int64] | None
    """(N,) indices into the data set's classes, or None."""
    model: "Model | None" = None
    """What made them, if it is one of ours."""
    unusable: Sequence[Rejected] = ()
    """Pictures that nothing can be said of: damaged, one grey everywhere, the same under two labels."""

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of pixels and labels."""
        found = hashlib.sha256(repr(self.images.shape).encode())
        found.update(np.ascontiguousarray(self.images).tobytes())
        found.update(b"" if self.labels is None else self.labels.tobytes())
        return found.hexdigest()


@dataclass(frozen=True, eq=False)
class Model:
    """One of our generators, where it stands."""

    path: Path
    """The run or model directory."""
    network: Network

    @cached_property
    def origin(self) -> Origin:
        """The data that it was trained on."""
        return origin_of(self.path)

    @cached_property
    def hash(self) -> str:
        """Of parameters and buffers: what provenance calls the model's hash."""
        return state_hash(self.network)

    @property
    def home(self) -> Path:
        """The run directory, or else the model directory: checkpoints replace the latter within a run."""
        path = self.path.absolute()
        return path.parent if path.name == "generator" and (path.parent / "settings.json").is_file() else path


def open_for_evaluation(path: str | Path) -> Model:
    """A model to be judged, as `open_generator` finds it. Raises CheckpointError: there is none, or it is damaged."""
    path = find_model(path)
    return Model(path, open_generator(path))


def from_model(
    model: Model | Path,
    classes: Sequence[str],
    num: int,
    seed: int = 0,
    progress: Progress = lambda done, total, words: None,
    keep: Path | None = None,
) -> Generated:
    """The first `num` images of a model, going round its classes.

    Args:
        model: opened, or where it stands.
        classes: names of the data set; the model's must be among them.
        num: how many.
        seed: of the run of generation.
        progress: told (done, total, "").
        keep: an `.npz` file in which images are kept as they are made, so that an interrupted call goes on.

    Raises:
        CheckpointError: no model there.
        InputError: its classes are not those of the data set, or too few images are asked for.
    """
    if num < LEAST:
        raise InputError(f"num (={num}) must be at least {LEAST}; 2000 and more say something about memorisation too")
    model = model if isinstance(model, Model) else open_for_evaluation(model)
    names = check_classes(model, classes)
    side = model.network.resolution
    images = np.empty((num, side, side), np.uint8)
    kept = _Kept(keep, f"{version('expressivegan')} {model.hash} {seed}") if keep is not None else None
    start = kept.read(images) if kept is not None else 0
    saved = time.monotonic()
    for made in generate(model.network, range(start, num), seed=seed):
        images[made.index] = to_uint8(made.image)[0, 0]
        done = made.index + 1
        if done % _BATCH == 0:
            progress(done, num, "")
            if kept is not None and time.monotonic() - saved > _SAVE_SECONDS:
                kept.write(images[:done])
                saved = time.monotonic()
    if kept is not None and start < num:
        kept.write(images)
    progress(num, num, "")
    labels = np.array([classes.index(names[i % len(names)]) for i in range(num)], np.int64) if names else None
    return Generated(str(model.path), images, labels, model)


def check_classes(model: Model, classes: Sequence[str]) -> tuple[str, ...]:
    """The model's classes. Raises InputError unless the data set has them."""
    names = tuple(model.network.class_set.names)
    if set(names) - set(classes):
        raise InputError(
            f"model (={str(model.path)!r}) makes {', '.join(names)}, and the data set holds {', '.join(classes)}; give "
            "the data that it was trained on"
        )
    return names


@dataclass(frozen=True)
class _Kept:
    """Images of a model on disk, as far as they are made."""

    path: Path
    key: str
    """Package version, model and seed; the first images of a longer run are those of a shorter one."""

    def read(self, images: UInt8Array) -> int:
        """Fills in what is there, whole batches of it, and says how many images that is."""
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                found = stored["images"]
                if str(stored["key"]) != self.key or found.dtype != np.uint8 or found.shape[1:] != images.shape[1:]:
                    return 0
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return 0
        count = len(images) if len(found) >= len(images) else len(found) // _BATCH * _BATCH
        images[:count] = found[:count]
        return count

    def write(self, images: UInt8Array) -> None:
        self.path.parent.mkdir(exist_ok=True)
        packed = io.BytesIO()
        np.savez_compressed(packed, images=images, key=np.array(self.key))
        write_bytes(self.path, packed.getvalue())


def read_generated(source: str, classes: Sequence[str], resolution: int, fit: Fit = "stretch") -> Generated:
    """Images that any tool made: class folders, `labels.csv` (file, label), an archive of these; or without labels.

    Args:
        source: folder or archive.
        classes: names of the data set; those of the images must be among them, in any order and case.
        resolution: side that they are brought to.
        fit: how those that are not square become so.

    Raises:
        DataError: nothing there that is an image.
        InputError: labels that the data set does not have, or too few images.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*EVERY IMAGE COUNTS AS A PATIENT")  # synthetic images show nobody
        try:
            found = load_images(source, resolution, fit=fit, progress=False)
        except UnlabelledError:
            return _enough(_unlabelled(Path(source), resolution, fit))
    known = {name.casefold(): k for k, name in enumerate(classes)}
    strange = [name for name in found.classes if name.casefold() not in known]
    if strange:
        raise InputError(
            f"images (={source!r}) have the labels {', '.join(strange)}, and the data set has {', '.join(classes)}"
        )
    number = np.array([known[name.casefold()] for name in found.classes])
    unusable = [r for r in found.manifest.rejected if not is_stray(r.reason)]  # maps and overlays may stand beside
    return _enough(Generated(source, np.asarray(found.images), number[found.labels], unusable=unusable))


def _unlabelled(folder: Path, resolution: int, fit: Fit) -> Generated:
    store = open_store(folder)
    images, unusable = [], []
    for name in sorted(store.listing().files):
        try:
            # As labelled ones are read, so that the same pictures are left out
            images += inspect_and_fit(store.read(name), [(resolution, fit)])[1]
        except UnusableError as error:
            if (mimetypes.guess_type(name)[0] or "").startswith("image/"):  # notes and tables may stand beside them
                unusable.append(Rejected(name, str(error)))
    if not images:
        raise DataError(f"images (={str(folder)!r}) holds no image; give the folder that holds them")
    return Generated(str(folder), np.stack(images), None, unusable=unusable)


def _enough(made: Generated) -> Generated:
    if len(made.images) < LEAST:
        raise InputError(f"images (={made.source!r}) holds {len(made.images)} images; at least {LEAST} are needed")
    return made
