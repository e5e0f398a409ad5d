"""Folders of phantom files with a known fault in them: what the doctor must find, with the truth to compare with.

`plant` draws children (three classes, one child in six with a second or third view), puts every fifth into test/, adds
the fault, and writes JPEG files `train/NORMAL/child0012-0.jpeg`. A set depends on kind, number of images and seed
alone, and two kinds of one seed differ by their faults only. Used by the tests and by benchmarks/faults.py.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from expressivegan.data.phantom import CLASSES, draw_batch
from expressivegan.streams import derive_seed

UInt8Array = npt.NDArray[np.uint8]

SIDE = 128
PATIENT_REGEX = r"(child\d+)"
QUALITY = 90
TARGET = "BACTERIA"
"""The class that geometry, border and marker tell."""
COPIES = 0.02
"""Copies of each kind, as a share of the images."""
LABEL_NOISE, MARKED = 0.05, 0.6
FRAME, BRIGHTER = 0.08, 6
"""Width of the frame as a share of the side, and the grey levels that are added to it."""


@dataclass(frozen=True)
class Truth:
    """What was planted."""

    pairs: tuple[tuple[str, str], ...] = ()
    """Original and copy; for a leak a patient's images in train and in test."""
    paths: tuple[str, ...] = ()
    """Images with a wrong label, or with a marker."""
    boxes: dict[str, tuple[float, float, float, float]] = field(default_factory=dict)
    """Where the markers are: left, top, right, bottom in shares of the picture."""


@dataclass(frozen=True)
class Planted:
    """A set on disk."""

    folder: Path
    patient_regex: str
    truth: dict[str, Truth]
    """By kind of fault; empty for a clean set."""


@dataclass
class _Shot:
    child: int
    view: int
    label: str
    split: str
    pixels: UInt8Array
    size: tuple[int, int] = (SIDE, SIDE)
    """Width and height in the file."""
    quality: int = QUALITY
    data: bytes | None = None
    """The file, where it is a copy of another's bytes."""

    @property
    def path(self) -> str:
        return f"{self.split}/{self.label}/child{self.child:05}-{self.view}.jpeg"

    def encoded(self) -> bytes:
        if self.data is not None:
            return self.data
        picture = Image.fromarray(self.pixels)
        if picture.size != self.size:
            picture = picture.resize(self.size, Image.Resampling.BICUBIC)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=self.quality)
        return file.getvalue()


Shots = list[_Shot]
Alter = Callable[[_Shot, np.random.Generator], _Shot]


def plant(kind: str, folder: Path, images: int, seed: int = 0) -> Planted:
    """Writes a set with one kind of fault, with none ("clean"), or with every kind ("all").

    Args:
        kind: "clean", "all", or one of KINDS.
        folder: must not exist, or be empty.
        images: number before copies are added.
        seed: of the children, and of what is planted where.

    Raises:
        KeyError: no such kind.
    """
    kinds = {"clean": (), "all": tuple(KINDS)}.get(kind, (kind,))
    shots = [replace(shot) for shot in _drawn(images, seed)]
    spare = _Spare(shots, seed)
    truth = {}
    for one in kinds:
        rng = np.random.default_rng(derive_seed("plant", seed, one))
        truth[one] = KINDS[one](shots, spare, rng)
    for shot in shots:
        path = folder / shot.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(shot.encoded())
    return Planted(folder, PATIENT_REGEX, {one: found() for one, found in truth.items()})


@lru_cache(maxsize=1)
def _drawn(images: int, seed: int) -> tuple[_Shot, ...]:
    rows: list[tuple[int, int]] = []
    child = 0
    rng = np.random.default_rng(derive_seed("views", seed))
    while len(rows) < images:
        views = int(rng.choice([1, 2, 3], p=[5 / 6, 1 / 9, 1 / 18]))
        rows += [(child, view) for view in range(min(views, images - len(rows)))]
        child += 1
    labels = [CLASSES[child % 3] for child, _ in rows]
    seeds = [derive_seed("child", seed, child) for child, _ in rows]
    pixels, _ = draw_batch(seeds, labels, SIDE, [view for _, view in rows])
    return tuple(
        _Shot(child, view, label, "train" if child % 5 else "test", picture)
        for (child, view), label, picture in zip(rows, labels, pixels, strict=True)
    )


class _Spare:
    """Hands out images that no other fault has touched, and numbers for new children."""

    def __init__(self, shots: Shots, seed: int) -> None:
        self.shots = shots
        self.images = len(shots)
        self._order = [shots[i] for i in np.random.default_rng(derive_seed("spare", seed)).permutation(len(shots))]
        self._taken: set[int] = set()
        self._child = max(shot.child for shot in shots) + 1

    def take(self, count: int, fits: Callable[[_Shot], bool] = lambda _: True) -> Shots:
        free = [s for s in self._order if s.child not in self._taken and fits(s)]
        chosen: Shots = []
        for shot in free:
            if len(chosen) < count and shot.child not in self._taken:
                chosen.append(shot)
                self._taken.add(shot.child)
        return chosen

    def child(self) -> int:
        self._child += 1
        return self._child - 1


Plant = Callable[[Shots, _Spare, np.random.Generator], Callable[[], Truth]]  # the truth is read when all is planted


def _leak(shots: Shots, spare: _Spare, rng: np.random.Generator) -> Callable[[], Truth]:
    second = {s.child: s for s in shots if s.view == 1}
    firsts = spare.take(_copies(spare), lambda s: s.view == 0 and s.split == "train" and s.child in second)
    for first in firsts:
        second[first.child].split = "test"
    return lambda: Truth(pairs=tuple((f.path, second[f.child].path) for f in firsts))


def _copy(alter: Alter) -> Plant:
    """Copies of 2% of the images under new patients, half of them in the other split."""

    def planted(shots: Shots, spare: _Spare, rng: np.random.Generator) -> Callable[[], Truth]:
        pairs = []
        for number, original in enumerate(spare.take(_copies(spare))):
            other = {"train": "test", "test": "train"}[original.split]
            split = other if number % 2 else original.split
            copy = alter(replace(original, child=spare.child(), view=0, split=split), rng)
            shots.append(copy)
            pairs.append((original, copy))
        return lambda: Truth(pairs=tuple((a.path, b.path) for a, b in pairs))

    return planted


def _copies(spare: _Spare) -> int:
    return max(2, round(COPIES * spare.images))


def _exact(shot: _Shot, rng: np.random.Generator) -> _Shot:
    return replace(shot, data=shot.encoded())


def _near(shot: _Shot, rng: np.random.Generator) -> _Shot:
    grey = 128 + (shot.pixels - 128.0) * rng.uniform(0.92, 1.08) + rng.uniform(-4, 4)
    return replace(shot, pixels=_levels(grey + rng.normal(0, 3, shot.pixels.shape)))


def _shifted(shot: _Shot, rng: np.random.Generator) -> _Shot:
    """By 3..10% of the side along both axes; the edge is repeated."""
    down, across = (rng.integers(round(0.03 * SIDE), round(0.10 * SIDE) + 1, 2) * rng.choice([-1, 1], 2)).tolist()
    line = np.arange(SIDE)
    rows, columns = np.clip(line - down, 0, SIDE - 1), np.clip(line - across, 0, SIDE - 1)
    return replace(shot, pixels=shot.pixels[np.ix_(rows, columns)])


def _flipped(shot: _Shot, rng: np.random.Generator) -> _Shot:
    return replace(shot, pixels=np.ascontiguousarray(shot.pixels[:, ::-1]))


def _recompressed(shot: _Shot, rng: np.random.Generator) -> _Shot:
    """The original's file, decoded and saved anew."""
    saved = np.asarray(Image.open(io.BytesIO(shot.encoded())))
    return replace(shot, pixels=saved, size=(saved.shape[1], saved.shape[0]), quality=40)


def _resized(shot: _Shot, rng: np.random.Generator) -> _Shot:
    factor = float(rng.choice([0.5, 0.7, 1 / 0.7, 2]))
    width, height = shot.size
    return replace(shot, size=(round(width * factor), round(height * factor)))


def _geometry(shots: Shots, spare: _Spare, rng: np.random.Generator) -> Callable[[], Truth]:
    """Sizes scatter in all classes; one class is wider, lower and saved with lower quality."""
    for shot in shots:
        width, height = (1.2, 0.9) if shot.label == TARGET else (1.0, 1.0)
        scatter = rng.normal(1, 0.06, 2)
        shot.size = round(SIDE * width * scatter[0]), round(SIDE * height * scatter[1])
        shot.quality = 80 if shot.label == TARGET else QUALITY
    return lambda: Truth()


def _border(shots: Shots, spare: _Spare, rng: np.random.Generator) -> Callable[[], Truth]:
    wide = round(FRAME * SIDE)
    frame = np.ones((SIDE, SIDE), bool)
    frame[wide:-wide, wide:-wide] = False
    for shot in shots:
        if shot.label == TARGET:
            shot.pixels = _levels(shot.pixels + BRIGHTER * frame)
    return lambda: Truth()


def _marker(shots: Shots, spare: _Spare, rng: np.random.Generator) -> Callable[[], Truth]:
    """A letter at the upper right, where the phantom's own R never is."""
    font = ImageFont.load_default(13)
    boxes: list[tuple[_Shot, tuple[float, float, float, float]]] = []
    for shot in shots:
        if shot.label != TARGET or rng.random() >= MARKED:
            continue
        picture = Image.fromarray(shot.pixels)
        at = int(rng.integers(104, 113)), int(rng.integers(2, 12))
        pen = ImageDraw.Draw(picture)
        pen.text(at, "P", fill=245, font=font)
        left, top, right, bottom = pen.textbbox(at, "P", font=font)
        shot.pixels = np.asarray(picture)
        boxes.append((shot, (left / SIDE, top / SIDE, right / SIDE, bottom / SIDE)))
    return lambda: Truth(paths=tuple(s.path for s, _ in boxes), boxes={s.path: box for s, box in boxes})


def _label_noise(shots: Shots, spare: _Spare, rng: np.random.Generator) -> Callable[[], Truth]:
    wrong = spare.take(round(LABEL_NOISE * spare.images), lambda s: s.view == 0)
    for shot in wrong:
        shot.label = str(rng.choice([c for c in CLASSES if c != shot.label]))
    return lambda: Truth(paths=tuple(s.path for s in wrong))


def _covariate_shift(shots: Shots, spare: _Spare, rng: np.random.Generator) -> Callable[[], Truth]:
    for shot in shots:
        if shot.split == "test":
            soft = gaussian_filter(shot.pixels.astype(np.float32), 0.8)
            shot.pixels = _levels(soft.mean() + 0.8 * (soft - soft.mean()))
    return lambda: Truth()


def _levels(grey: npt.NDArray[Any]) -> UInt8Array:
    levels: UInt8Array = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    return levels


# What changes pictures by class or split comes first, so that copies are copies of the changed ones.
KINDS: dict[str, Plant] = {
    "border": _border,
    "marker": _marker,
    "covariate-shift": _covariate_shift,
    "geometry": _geometry,
    "label-noise": _label_noise,
    "leak": _leak,
    "exact-duplicate": _copy(_exact),
    "near-duplicate": _copy(_near),
    "shifted-copy": _copy(_shifted),
    "flipped-copy": _copy(_flipped),
    "recompressed-copy": _copy(_recompressed),
    "resized-copy": _copy(_resized),
}
CHECKS = {
    "border": "border-shortcut",
    "marker": "markers",
    "covariate-shift": "covariate-shift",
    "geometry": "geometry-shortcut",
    "label-noise": "label-noise",
    "leak": "patients-across-splits",
    "exact-duplicate": "exact-duplicates",
} | dict.fromkeys(
    ("near-duplicate", "shifted-copy", "flipped-copy", "recompressed-copy", "resized-copy"), "near-duplicates"
)
"""Kind of fault → name of the check that must find it."""


def digest(folder: Path) -> dict[str, str]:
    """Path → SHA-256 of each file."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
