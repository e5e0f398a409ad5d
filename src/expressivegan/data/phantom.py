"""Chest X-rays drawn from geometry: image, label and lesion mask from a seed, for tests, demos and ground truth.

A phantom is built in three steps that draw from three streams of random numbers: the *child* (size, bones, heart, ...)
from its seed, the *shot* (pose, exposure, frame, marker, noise) from seed and view, the *lesion* from seed and label.
So nothing but the lesion knows the label, and one seed under two labels is one child with and without the disease.

Coordinates are the body's: x grows towards the right of the image, which is the patient's left, y downwards; the chest
fills about -0.8..0.8. Densities add up as absorption does, and become grey levels at the end.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from expressivegan.data import split
from expressivegan.data.examine import parallel
from expressivegan.data.layout import KERMANY_CLASSES
from expressivegan.data.manifest import Manifest, Record
from expressivegan.errors import DataError, InputError
from expressivegan.streams import derive_seed

CLASSES = KERMANY_CLASSES
DEFAULT_COUNT = 3000
VERSION = 3  # raise when the same seed shall give another picture
LEAST_CHANGE = 3  # grey levels; a weaker trace of a lesion is removed, so that mask and change agree exactly
_FLOATS = 1 << 15  # numbers per array while drawing: what stays in a core's nearest caches
_FINE = 96  # smaller pictures are drawn at this size, then averaged

Array = npt.NDArray[Any]  # float32 throughout
UInt8Array = npt.NDArray[np.uint8]

_GLYPHS = {
    "R": ("11110", "10001", "10001", "11110", "10100", "10010", "10001"),
    "L": ("10000", "10000", "10000", "10000", "10000", "10000", "11111"),
}


@dataclass(frozen=True, eq=False)
class Phantom:
    """One drawn chest X-ray."""

    image: UInt8Array
    """uint8 (H, W) grey."""
    mask: UInt8Array
    """uint8 (H, W), 1 exactly where the image differs from the same child's under NORMAL."""
    label: str
    seed: int
    view: int


def draw(seed: int, label: str, resolution: int = 64, view: int = 0) -> Phantom:
    """Draws one chest X-ray.

    Args:
        seed: the child.
        label: NORMAL, BACTERIA (focal consolidation) or VIRUS (diffuse interstitial pattern).
        resolution: side in pixels, 28..1024.
        view: number of the shot: another view is the same child and lesion, in another pose and exposure.

    Raises:
        InputError: unknown label, or resolution out of range.
    """
    images, masks = draw_batch([seed], [label], resolution, [view])
    return Phantom(images[0], masks[0], label, seed, view)


def draw_batch(
    seeds: Sequence[int], labels: Sequence[str], resolution: int = 64, views: Sequence[int] | None = None
) -> tuple[UInt8Array, UInt8Array]:
    """Draws many; picture i depends on seeds[i], labels[i] and views[i] alone.

    Returns:
        images uint8 (B, H, W) and masks uint8 (B, H, W) of 0 and 1.

    Raises:
        InputError: unknown label, lists of different lengths, or resolution out of range.
    """
    views = [0] * len(seeds) if views is None else views
    if not len(seeds) == len(labels) == len(views):
        raise InputError(f"seeds, labels and views have {len(seeds)}, {len(labels)} and {len(views)} entries")
    for label in set(labels) - set(CLASSES):
        raise InputError(f"label (={label!r}) must be one of {', '.join(CLASSES)}")
    if not 28 <= resolution <= 1024:
        raise InputError(f"resolution (={resolution}) must lie in 28..1024")
    step = max(1, _FLOATS // max(resolution, _FINE) ** 2)
    images = np.empty((len(seeds), resolution, resolution), np.uint8)
    masks = np.empty_like(images)
    for start in range(0, len(seeds), step):
        part = slice(start, start + step)
        images[part], masks[part] = _draw(seeds[part], labels[part], views[part], resolution)
    return images, masks


# --- data set ---------------------------------------------------------------------------------------------------------


def parse_source(source: str | Path) -> int | None:
    """ "phantom" or "phantom:COUNT" → number of images; None for any other source.

    Raises:
        InputError: COUNT is no number, or fewer than 30.
    """
    name, colon, count = str(source).partition(":")
    if name != "phantom" or (isinstance(source, Path) and source.exists()):
        return None
    if not colon:
        return DEFAULT_COUNT
    if not count.isdecimal() or int(count) < 30:
        raise InputError(f"source (={str(source)!r}) must be 'phantom' or 'phantom:COUNT' with COUNT of at least 30")
    return int(count)


def manifest(count: int = DEFAULT_COUNT, seed: int = 0) -> Manifest:
    """A data set of `count` phantoms: labels in equal shares, one child in six with two or three views of itself."""
    rows: list[tuple[str, int, int]] = []
    child = 0
    while len(rows) < count:
        number = derive_seed("phantom-set", seed, child)
        views = {0: 2, 1: 2, 2: 3}.get(number // 3 % 18, 1)
        rows += [(CLASSES[child % 3], number, view) for view in range(min(views, count - len(rows)))]
        child += 1
    shares = split.group_fractions((0.7, 0.15, 0.15), carve_test=True)
    labels: dict[str, list[str]] = {}
    for label, number, _ in rows:
        labels.setdefault(f"phantom{number}", []).append(label)
    group_of = split.assign(labels, shares, seed)
    records = []
    for label, number, view in rows:
        patient = f"phantom{number}"
        group = group_of[patient]
        mark = hashlib.sha256(f"phantom {VERSION} {number} {label} {view}".encode()).hexdigest()
        side = "test" if group == "test" else "train"
        records.append(Record(f"{label}/{number}-{view}", label, patient, side, group, 1024, 1024, "L", mark))
    return Manifest("phantom", Path("phantom"), CLASSES, CLASSES[0], True, tuple(records))


def rows(known: Manifest, resolution: int, progress: bool) -> Iterator[UInt8Array]:
    """Draws the images of a phantom manifest, in pieces: uint8 (n, 2, H, W) of image and mask.

    Raises:
        DataError: the manifest was made by another version of this module.
    """
    pieces = [known.records[i : i + 32] for i in range(0, len(known.records), 32)]

    def one(piece: tuple[Record, ...]) -> UInt8Array:
        seeds, labels, views = [], [], []
        for record in piece:
            number, view = (int(part) for part in record.path.split("/")[-1].split("-"))
            mark = hashlib.sha256(f"phantom {VERSION} {number} {record.label} {view}".encode()).hexdigest()
            if mark != record.sha256:
                raise DataError(f"{record.path} comes from another version of the phantom; make the manifest anew")
            seeds.append(number)
            labels.append(record.label)
            views.append(view)
        return np.stack(draw_batch(seeds, labels, resolution, views), axis=1)

    return parallel(one, pieces, f"Drawing phantoms at {resolution} px", progress)


# --- drawing ----------------------------------------------------------------------------------------------------------


class _Numbers:
    """Named random numbers of a batch: the same name is the same number for one key, whatever else is drawn."""

    def __init__(self, keys: Sequence[tuple[Any, ...]], size: int = 96) -> None:
        streams = [np.random.Generator(np.random.PCG64(derive_seed("phantom", *key))) for key in keys]
        self._table = np.stack([s.random(size, dtype=np.float32) for s in streams])
        self._next = 0

    def __call__(self, low: float = 0.0, high: float = 1.0) -> Array:
        """(B, 1, 1), uniform."""
        column = self._table[:, self._next]
        self._next += 1
        return (low + (high - low) * column)[:, None, None].astype(np.float32)

    def chance(self, probability: float) -> Array:
        """(B, 1, 1), 1 with that probability, else 0."""
        return (self(0, 1) < probability).astype(np.float32)

    def field(self, cells: int) -> Array:
        """(B, cells, cells), uniform in -1..1."""
        count = cells * cells
        block = self._table[:, self._next : self._next + count]
        self._next += count
        return block.reshape(-1, cells, cells) * 2 - 1


def _rise(distance: Array, width: Array | float) -> Array:
    """0 below -width, 1 above +width, smooth between."""
    t = distance * (0.5 / width)
    t += 0.5
    np.maximum(t, 0, out=t)
    np.minimum(t, 1, out=t)
    curve = 3 - 2 * t
    curve *= t
    curve *= t
    return curve


def _bump(distance: Array, width: Array | float) -> Array:
    """1 at 0, falling smoothly to 0 at ±width."""
    t = distance * (1 / width)
    t *= t
    np.subtract(1, t, out=t)
    np.maximum(t, 0, out=t)
    t *= t
    return t


def _wave(phase: Array, width: Array | float) -> Array:
    """A bump around every whole number."""
    return _bump(phase - np.rint(phase), width)


def _ridge(phase: Array) -> Array:
    """Thin bright lines where the phase (in radians) is a multiple of π."""
    t = np.cos(phase)
    for _ in range(3):
        t *= t
    return t


def _spread(field: Array, size: int) -> Array:
    """Random (B, k, k) → smooth (B, size, size)."""
    cells = field.shape[-1]
    at = (np.arange(size, dtype=np.float32) + 0.5) / size * (cells - 1)
    weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(cells, dtype=np.float32)))
    weights = weights * weights * (3 - 2 * weights)  # rounds the corners off; rows still sum to 1
    spread: Array = np.einsum("ik,bkj->bij", weights, np.einsum("bkl,jl->bkj", field, weights))
    return spread


class _Child:
    """Anatomy, as functions of the body's coordinates."""

    def __init__(self, u: _Numbers) -> None:
        self.width = u(0.64, 0.76)  # half of the inner chest
        self.apex = u(-0.74, -0.62)
        self.floor = u(0.40, 0.60)  # top of the right dome
        self.barrel = u(2.0, 3.2)
        self.wall = u(0.05, 0.13)  # thickness of what lies outside the ribs
        self.lean, self.curve = u(-0.03, 0.03), u(-0.025, 0.025)
        self.spacing = u(0.118, 0.150)  # of the ribs
        self.first_rib = u(-0.05, 0.05)
        self.drop, self.lift = u(0.22, 0.42), u(0.02, 0.12)
        self.front_slope = u(0.30, 0.52)
        self.bone = u(0.7, 1.25)
        self.rib_width = u(0.24, 0.33)
        self.heart = u(0.20, 0.36)  # how far the left ventricle reaches beyond the mediastinum
        self.heart_y, self.heart_tall = u(0.16, 0.28), u(0.34, 0.50)
        self.atrium = u(0.02, 0.09)
        self.middle = u(0.10, 0.145)  # half of the mediastinum
        self.knob = u(0.01, 0.05)
        self.thymus = u.chance(0.25) * u(0.05, 0.13)
        self.thymus_side = np.where(u() < 0.5, -1, 1).astype(np.float32)
        self.dome_step = u(0.02, 0.08)  # the liver lifts the right dome
        self.dome = u(0.45, 1.0)
        self.spine = u(0.07, 0.095)
        self.vertebra = u(0.088, 0.108)
        self.collar_y, self.collar_rise, self.collar_bend = u(-0.66, -0.54), u(0.10, 0.40), u(-0.05, 0.05)
        self.bubble = u.chance(0.6) * u(0.5, 1)
        self.bubble_x, self.bubble_y = u(0.25, 0.48), u(0.13, 0.22)
        self.bubble_w, self.bubble_h = u(0.09, 0.2), u(0.06, 0.11)
        self.gas = u.chance(0.4) * u(0.1, 0.3)
        self.gas_phase = u(0, 6.28)
        self.air = u(0.50, 0.62)  # how much the lungs take away
        self.vessels = u(0.08, 0.20)
        self.vessel_phase = u(0, 6.28)
        self.shoulder = u(-0.98, -0.80)
        self.slope = u(0.16, 0.42)
        self.neck = u(0.20, 0.30)
        self.arm_angle = u(-0.9, 0.8)  # below 0 raised, above 0 hanging
        self.arm_thick = u(0.13, 0.2)
        self.head = u.chance(0.35) * u(0.0, 0.14)
        self.tissue = u.field(4)

    def midline(self, y: Array) -> Array:
        middle: Array = self.lean * y + self.curve * np.sin(3 * y)
        return middle

    def side(self, y: Array) -> Array:
        """Inner chest: half of its width at the height y."""
        t = np.clip((y - self.apex) * (1 / (0.62 - self.apex)), 0, 1)
        half: Array = self.width * np.sqrt(np.maximum(1 - (1 - t) ** self.barrel, 0)) * (1 + 0.03 * t)
        return half

    def heart_left(self, y: Array) -> Array:
        """Border of heart and vessels on the image's left, as a distance from the midline."""
        border: Array = self.middle * 0.85 + self.atrium * _bump(y - 0.2, 0.36)
        border += self.thymus * (self.thymus_side < 0) * _bump(y + 0.36, 0.26)
        return border

    def heart_right(self, y: Array) -> Array:
        """The same on the image's right, where the heart lies."""
        away = y - self.heart_y
        tall = np.where(away < 0, self.heart_tall, 0.46)
        border: Array = self.middle * 0.9 + self.heart * _bump(away, tall) + self.knob * _bump(y + 0.32, 0.12)
        border += self.thymus * (self.thymus_side > 0) * _bump(y + 0.36, 0.26)
        return border

    def diaphragm(self, x: Array) -> Array:
        """Height of its top at x."""
        across = np.abs(x) - 0.30
        steep = np.maximum(np.abs(x) - 0.82 * self.width, 0)
        top: Array = self.floor + self.dome_step * _rise(x, 0.15) + self.dome * across * across + 5 * steep * steep
        return top


@dataclass
class _Drawn:
    """What the lesion must know about the drawing."""

    x: Array
    y: Array
    air: Array
    density: Array
    size: int


def _draw(
    seeds: Sequence[int], labels: Sequence[str], views: Sequence[int], resolution: int
) -> tuple[UInt8Array, UInt8Array]:
    size = max(resolution, _FINE)
    child = _Child(_Numbers([(s, "child") for s in seeds]))
    shot = _Numbers([(s, "shot", v) for s, v in zip(seeds, views, strict=True)])
    x, y, frame = _pose(shot, size)
    drawn = _anatomy(child, x, y, size)
    sick = drawn.density + _lesion(child, drawn, seeds, labels)
    noise = [np.random.Generator(np.random.PCG64(derive_seed("phantom", s, "noise", v)))
             .standard_normal((resolution, resolution), dtype=np.float32)
             for s, v in zip(seeds, views, strict=True)]  # fmt: skip
    develop = _Developer(shot, np.stack(noise), frame)
    plain, image = develop(drawn.density), develop(sick)
    change = np.abs(image.astype(np.int16) - plain) >= LEAST_CHANGE
    return np.where(change, image, plain), change.astype(np.uint8)


def _pose(shot: _Numbers, size: int) -> tuple[Array, Array, Array]:
    """Body coordinates of every pixel, and the light that the collimator lets through (0..1); each (B, size, size)."""
    line = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    across, down = line[None, None, :], line[None, :, None]
    angle = shot(-0.09, 0.09)
    zoom = shot(0.96, 1.22)
    wide = zoom * shot(0.94, 1.06)
    right, low = across - shot(-0.07, 0.07), down - shot(-0.09, 0.07)
    x = (right * np.cos(angle) + low * np.sin(angle)) / wide
    y = (low * np.cos(angle) - right * np.sin(angle)) / zoom
    frame = np.ones((len(angle), 1, 1), np.float32)
    for distance in (across + 1, 1 - across, down + 1, 1 - down):
        slant = across if distance.shape[1] > 1 else down
        shut = shot.chance(0.22) * shot(0.01, 0.13) - 0.02 + shot(-0.03, 0.03) * slant
        frame = frame * _rise(distance - shut, 2 / size)
    return x, y, np.broadcast_to(frame, x.shape)


def _anatomy(c: _Child, x: Array, y: Array, size: int) -> _Drawn:
    edge = max(0.012, 1.5 / size)  # softness of outlines
    mid = x - c.midline(y)
    out = np.abs(mid)
    inner = c.side(y)
    # The body: torso, shoulders that fall away from the neck, arms, neck, jaw.
    torso = c.width * (0.98 + 0.06 * _rise(y, 0.6)) + c.wall
    top = c.shoulder + c.slope * out * out + 0.5 * np.maximum(0.3 - out, 0)
    trunk = _rise(torso + 0.25 * _bump(y + 0.72, 0.42) - out, 3 * edge) * _rise(y - top, 2 * edge)
    reach = c.width + 0.13
    ax, ay = out - reach, y + 0.60
    ux, uy = np.cos(c.arm_angle) * 0.75, np.sin(c.arm_angle)
    along = np.clip((ax * ux + ay * uy) / (ux * ux + uy * uy), 0, 1.5)
    off = np.sqrt((ax - along * ux) ** 2 + (ay - along * uy) ** 2)
    arm = _rise(c.arm_thick - off, 3 * edge)
    neck = _rise(c.neck + 0.25 * np.maximum(-0.85 - y, 0) - out, 3 * edge) * _rise(-0.5 - y, 0.1)
    body = np.maximum(np.maximum(trunk, neck), 0.8 * arm)
    depth = np.sqrt(np.maximum(1 - (out / (torso + 0.12)) ** 2, 0))
    density = body * (0.27 + 0.49 * depth + 0.06 * _spread(c.tissue, size))
    jaw = (mid / 0.42) ** 2 + ((y + 1.12 - c.head) / 0.26) ** 2
    density += 0.35 * (c.head > 0) * _rise(1 - jaw, 0.15)

    # The lungs, less heart and great vessels.
    left, right = c.heart_left(y), c.heart_right(y)
    dome = c.diaphragm(mid)
    above = _rise(dome - y, edge)
    apex = 0.13 * np.maximum(1 - (y - c.apex) * 8, 0)  # rounds the medial corner of the apex
    cavity = _rise(inner - out, edge)
    lung = cavity * above * _rise(out - c.spine * 0.9 - apex, 2 * edge)
    heart = _rise(np.minimum(mid + left, right - mid), 2.5 * edge)
    air = lung * (1 - heart)
    deep = np.sqrt(np.clip((inner - out) / (0.35 * inner + 1e-3), 0, 1))  # thin near the wall
    density -= c.air * air * (0.55 + 0.45 * deep)
    density -= 0.10 * lung * heart * c.air  # lung behind and before the heart
    density += 0.10 * heart * above * _rise(y + 0.55, 0.3)

    # Vessels: branches that fan out from each hilum and thin out.
    hx, hy = out - 0.16, y + 0.02
    r = np.sqrt(hx * hx + hy * hy) + 0.02
    fan = np.arctan2(hy, hx)
    bend = np.sin(8 * x + c.vessel_phase) + np.sin(9 * y + 2 * c.vessel_phase)
    lines = _ridge(3.5 * fan + c.vessel_phase + 0.9 * bend)
    lines += 0.7 * _ridge(6 * fan - c.vessel_phase - 1.4 * bend + 5 * r)
    density += air * c.vessels * (lines * np.maximum(0.9 - r * 1.3, 0.10) + 0.9 * _bump(r, 0.24))

    # Bones. Ribs at the back leave the spine almost level and drop at the side; at the front they fall to the middle.
    q = out / (inner + 0.02)
    inside = _rise(inner + 0.02 - out, 2 * edge)
    start = c.apex + 0.04 + c.first_rib
    arch = c.drop * q * q * q - c.lift * q
    phase = (y - start - arch * (0.8 + 0.5 * _rise(-y, 0.6))) / (c.spacing * (1 + 0.10 * y))
    belt = _wave(phase, c.rib_width) * _rise(phase + 0.5, 0.2) * _rise(10.5 - phase, 0.3)
    rim = _wave(phase, c.rib_width * 0.45)
    rib = (belt - 0.35 * rim) * inside * _rise(out - c.spine, 0.03)
    front_phase = (y - start - 0.10 - c.front_slope * (1 - q)) / (c.spacing * 1.08)
    front = _wave(front_phase, c.rib_width * 1.15) * inside * _rise(q - 0.50, 0.12)
    front = front * _rise(front_phase - 0.5, 0.2) * _rise(7.5 - front_phase, 0.3)
    beads = _bump(out - inner - 0.005, 0.042) * (0.35 + 0.9 * _wave(phase + 0.12, 0.42))
    beads = beads * _rise(y - c.apex - 0.03, 0.05) * _rise(0.75 - y, 0.15)
    fade = 0.45 + 0.55 * above  # less to be seen through the belly
    density += c.bone * fade * (0.21 * rib * (0.6 + 0.5 * q) + 0.07 * front + 0.15 * beads)
    column = _rise(c.spine - out, 1.5 * edge)
    cell = y / (c.vertebra * (1 + 0.15 * y))
    density += c.bone * column * (0.15 + 0.06 * _wave(cell, 0.42)) * (0.75 + 0.25 * above)
    density += c.bone * 0.06 * _wave(cell, 0.25) * _bump(out - 0.6 * c.spine, 0.025)
    collar = c.collar_y - c.collar_rise * out + c.collar_bend * np.sin(7 * out)
    band = _bump(y - collar, 0.036 + 0.02 * _bump(out, 0.2)) * _rise(out - 0.07, 0.03)
    density += c.bone * 0.16 * band * _rise(c.width + 0.06 - out, 0.05)
    density += c.bone * 0.22 * _bump(off, c.arm_thick * 0.42) * _rise(ax + 0.02, 0.04)
    blade = ((out - c.width * 0.93) / 0.16) ** 2 + ((y + 0.36) / 0.30) ** 2
    density += c.bone * 0.05 * _rise(1 - blade, 0.12) * trunk

    # Airways, belly, gas.
    windpipe = _bump(mid + 0.015, 0.052) * _rise(-0.22 - y, 0.08)
    bronchus = _bump(y + 0.22 - 0.75 * np.maximum(out - 0.01, 0), 0.04) * _rise(0.16 - out, 0.06)
    density -= 0.10 * windpipe + 0.06 * bronchus
    belly = trunk * (1 - above) * cavity
    density += 0.10 * belly + 0.06 * belly * _rise(-mid, 0.3)
    bubble = ((mid - c.bubble_x) / c.bubble_w) ** 2 + ((y - c.floor - c.bubble_y) / c.bubble_h) ** 2
    density -= 0.30 * c.bubble * _rise(1 - bubble, 0.35) * (1 - above)
    loops = np.sin(9 * x + c.gas_phase) * np.sin(11 * y + 2 * c.gas_phase + 2 * x)
    density -= c.gas * np.maximum(loops, 0) * (1 - above) * _rise(y - c.floor - 0.22, 0.1) * body
    return _Drawn(x, y, air, density, size)


def _lesion(c: _Child, drawn: _Drawn, seeds: Sequence[int], labels: Sequence[str]) -> Array:
    """Density that the disease adds, (B, size, size); 0 for NORMAL."""
    added = np.zeros_like(drawn.density)
    for label, paint in (("BACTERIA", _consolidation), ("VIRUS", _interstitial)):
        rows = np.flatnonzero([one == label for one in labels])
        if len(rows):
            part = _Child.__new__(_Child)
            part.__dict__.update({name: value[rows] for name, value in vars(c).items()})
            view = _Drawn(drawn.x[rows], drawn.y[rows], drawn.air[rows], drawn.density[rows], drawn.size)
            added[rows] = paint(part, view, _Numbers([(seeds[int(i)], label) for i in rows]))
    return added


def _consolidation(c: _Child, d: _Drawn, u: _Numbers) -> Array:
    """Bacterial: one lobe, or a second smaller spot, filled with fluid so that heart and dome lose their border."""
    mid = d.x - c.midline(d.y)
    full = np.zeros_like(d.air)
    rough = 0.16 * np.sin(7 * d.x + u(0, 6.28)) + 0.14 * np.sin(9 * d.y + u(0, 6.28) + 4 * d.x)
    rough += 0.10 * np.sin(17 * d.x - 13 * d.y + u(0, 6.28))
    for number in range(2):
        side = np.where(u() < 0.55, -1, 1).astype(np.float32)  # the right lung is hit more often
        y0 = c.apex + (c.floor - c.apex) * u(0.28, 0.90)
        inner = np.where(side < 0, c.heart_left(y0), c.heart_right(y0))
        x0 = side * (inner + (c.side(y0) - inner) * u(0.20, 0.75))
        tall, wide = u(0.17, 0.34), u(0.15, 0.28)
        angle = u(-0.6, 0.6)
        px, py = mid - x0, d.y - y0
        a = (px * np.cos(angle) + py * np.sin(angle)) / wide
        b = (py * np.cos(angle) - px * np.sin(angle)) / tall
        spot = _rise(1 - np.sqrt(a * a + b * b) + rough, u(0.28, 0.6))
        fissure = u.chance(0.4)  # a lobe ends sharply at the fissure
        cut = _rise((py + 0.25 * px * side) * np.where(u() < 0.5, -1, 1) + 0.35 * tall, 0.03)
        spot = spot * (1 - fissure * (1 - cut)) * u(0.62, 0.98)
        present = 1.0 if number == 0 else u.chance(0.3) * 0.8
        same_lung = _rise(mid * side, 0.03)
        full = np.maximum(full, present * spot * same_lung)
    hx, hy = np.abs(mid) - 0.14, d.y + 0.02
    tubes = _ridge(4 * np.arctan2(hy, hx) + u(0, 6.28) + 1.8 * np.sin(9 * d.y + u(0, 6.28)))
    patchy = 1 + 0.12 * np.sin(31 * d.x + u(0, 6.28)) * np.sin(27 * d.y + u(0, 6.28))
    added: Array = 0.95 * c.air * d.air * full * patchy * (1 - 0.22 * tubes)
    return added


def _interstitial(c: _Child, d: _Drawn, u: _Numbers) -> Array:
    """Viral: both lungs, thickened bronchi that fan out from the hila, a net of fine lines, a little haze."""
    mid = d.x - c.midline(d.y)
    hx, hy = np.abs(mid) - 0.15, d.y + u(-0.06, 0.10)
    r = np.sqrt(hx * hx + hy * hy)
    fan = np.arctan2(hy, hx)
    p, k = u(0, 6.28), u(0.85, 1.2)
    wobble = 0.9 * np.sin(13 * d.x + p) + 0.9 * np.sin(11 * d.y + 2 * p)
    cuffs = _ridge(9 * fan + p + 2.4 * np.sin(7 * r + p) + np.sign(mid)) + 0.8 * _ridge(14 * fan - p + wobble)
    net = _ridge(k * (19 * d.x + 12 * d.y) + 1.5 * wobble) + _ridge(k * (13 * d.x - 20 * d.y) + p - 1.3 * wobble)
    left, right = u(0.6, 1.15), u(0.6, 1.15)
    near = 0.35 + 0.65 * _bump(r, u(0.45, 0.8))
    lobes = 1 + 0.3 * np.sin(4 * d.y + 3 * d.x + u(0, 6.28))
    strength = u(0.75, 1.25) * np.where(mid < 0, left, right) * near * lobes
    pattern = u(0.12, 0.26) + 0.30 * cuffs * np.maximum(1.1 - 1.2 * r, 0.25) + 0.20 * net
    added: Array = c.air * d.air * strength * pattern
    return added


class _Developer:
    """Density → grey levels, with everything that belongs to the shot: exposure, blur, noise, frame, marker."""

    def __init__(self, shot: _Numbers, noise: Array, frame: Array) -> None:
        self.gain, self.centre = shot(2.6, 5.0), shot(0.40, 0.60)
        self.black, self.white = shot(0.0, 0.10), shot(0.86, 1.0)
        self.fog = shot.chance(0.35) * shot(0.04, 0.22)
        self.tilt_x, self.tilt_y = shot(-0.05, 0.05), shot(-0.05, 0.05)
        self.frame_grey = shot.chance(0.15) * shot(0.0, 0.12)
        self.resolution = noise.shape[-1]
        self.frame = _shrink(frame, self.resolution)
        self.blur = shot(0.2, 1.1)[:, 0, 0] * frame.shape[-1] / 128  # pixels of the drawing
        self.noise = noise * shot(0.004, 0.020)
        self.stamp = _stamps(shot, self.resolution)

    def __call__(self, density: Array) -> UInt8Array:
        # Not one product with a matrix per picture, which wakes the threads of BLAS in a crowd of threads.
        soft = [gaussian_filter(one, sigma, mode="nearest") for one, sigma in zip(density, self.blur, strict=True)]
        density = _shrink(np.stack(soft), self.resolution)
        line = np.linspace(-1, 1, density.shape[1], dtype=np.float32)
        density = density + self.tilt_x * line[None, None, :] + self.tilt_y * line[None, :, None]
        light = 1 / (1 + np.exp(-self.gain * (density - self.centre)))
        dark = 1 / (1 + np.exp(self.gain * self.centre))
        grey = self.black + self.fog * (1 - light) + (self.white - self.black) * (light - dark) / (1 - dark)
        grey = grey + self.noise * (0.5 + np.sqrt(np.maximum(grey, 0)))
        grey = self.frame_grey + (grey - self.frame_grey) * self.frame
        grey = grey + (0.97 - grey) * self.stamp
        levels: UInt8Array = np.clip(np.rint(grey * 255), 0, 255).astype(np.uint8)
        return levels


def _shrink(pictures: Array, resolution: int) -> Array:
    """(B, size, size) → (B, resolution, resolution), by averaging."""
    if pictures.shape[-1] == resolution:
        return pictures
    weights = _average(pictures.shape[-1], resolution)
    small: Array = weights @ pictures @ weights.T
    return small


def _stamps(shot: _Numbers, size: int) -> Array:
    """(B, size, size) of 0..1: an R on the image's left or, rarely, an L on its right."""
    kind, present, tall, low, away = shot(), shot.chance(0.9), shot(0.05, 0.12), shot(0.03, 0.30), shot(0.01, 0.10)
    stamps = np.zeros((len(kind), size, size), np.float32)
    for i in range(len(kind)):
        if not present[i, 0, 0]:
            continue
        letter = "R" if kind[i, 0, 0] < 0.85 else "L"
        glyph = np.array([[float(c) for c in row] for row in _GLYPHS[letter]], np.float32)
        height = max(3, round(float(tall[i, 0, 0]) * size))
        width = max(2, round(height * 0.65))
        top, gap = round(float(low[i, 0, 0]) * size), round(float(away[i, 0, 0]) * size)
        left = gap if letter == "R" else size - width - gap
        stamps[i, top : top + height, left : left + width] = _average(7, height) @ glyph @ _average(5, width).T
    return stamps


def _average(cells: int, size: int) -> Array:
    """(size, cells): what share of each of `size` pixels each of `cells` cells covers."""
    low = np.arange(size)[:, None] * cells / size
    high = low + cells / size
    cell = np.arange(cells)[None, :]
    cover = np.clip(np.minimum(high, cell + 1) - np.maximum(low, cell), 0, None) * size / cells
    return np.asarray(cover, np.float32)
