"""Does a picture look like those that the networks learnt from? If not, what they say about it means nothing.

Three views of a picture, each a vector: the teacher's pooled features, a small standardised copy (where bright and dark
lie), and plain statistics (grey levels, roughness, symmetry). In each the distance is Mahalanobis' to the nearest class
mean under one shared covariance (Lee et al., *A simple unified framework for detecting out-of-distribution samples and
adversarial attacks*, NeurIPS 2018, section 2.1; there in features alone, which a chest upside down need not leave). The
covariance is shrunk after Ledoit and Wolf (2004), since a few hundred pictures are few.

A chest upside down stays inside that cloud half of the time, so a fourth view is Fisher's discriminant between the
small copies and the same turned by 180 degrees or mirrored top to bottom (known transformations as outliers: Golan and
El-Yaniv, *Deep anomaly detection using geometric transformations*, NeurIPS 2018).

The threshold is set as in split conformal prediction, on patients whom neither the networks nor the means have learnt
from. There at most `RISK` of new patients like them would be warned about on average, whatever the distances'
distribution. Here that holds nearly, not strictly: the units of the views and the middle of the fourth, five numbers in
all, come from the same patients. It is measured on others, see docs/explain.md.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from expressivegan.teacher import CXR_CAM_Teacher

RISK = 0.01  # half of the 2% that are promised, for the luck of the calibration
LEAST_PATIENTS = 20  # fewer say nothing about the tail
VIEWS = {
    "features": "what the teacher sees in it",
    "layout": "where it is bright and dark",
    "statistics": "its grey levels, roughness and symmetry",
    "upright": "which way up it is",
}
_THUMBNAIL = 16
_SIDE = 64
_QUANTILES = torch.tensor([0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99])
# what would undo each
_TURNED: dict[str, Callable[[Tensor], Tensor]] = {
    "rotated by 180 degrees": lambda x: x.rot90(2, (2, 3)),
    "turned clockwise by 90 degrees": lambda x: x.rot90(1, (2, 3)),
    "turned counter-clockwise by 90 degrees": lambda x: x.rot90(3, (2, 3)),
    "inverted (bone dark, air bright)": lambda x: -x,
}

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """What is said about one picture.

    Attributes:
        distance: the largest of `views`, over the threshold: above 1 is warned about.
        views: Mahalanobis distance in each view, over that of an unusual but real picture.
        hint: what would make it look familiar, if anything simple does.
    """

    distance: float
    views: dict[str, float]
    hint: str | None

    @property
    def strange(self) -> bool:
        """Whether to warn."""
        return self.distance > 1

    @property
    def reason(self) -> str | None:
        """One sentence for a reader, or None where there is nothing to warn about."""
        if not self.strange:
            return None
        worst = max(self.views, key=lambda name: self.views[name])
        hint = f"; it would look familiar if it were not {self.hint}" if self.hint else ""
        return (
            f"unlike the X-rays that this model learnt from, by {VIEWS[worst]} ({self.distance:.2f} times the "
            f"threshold){hint}; do not trust its maps and scores"
        )


@dataclass(frozen=True)
class _View:
    """Class means (K, D), whitening matrix (D, D) and the distance that counts as 1."""

    means: Array
    whiten: Array
    unit: float

    def distances(self, x: Array) -> Array:
        z = x @ self.whiten
        centres = self.means @ self.whiten
        nearest: Array = np.sqrt(((z[:, None] - centres[None]) ** 2).sum(2)).min(1) / self.unit
        return nearest


@dataclass(frozen=True)
class _Upright:
    """Fisher's discriminant (D,) of small copies, its median over real pictures, and the excess that counts as 1."""

    direction: Array
    centre: float
    unit: float

    def distances(self, layout: Array) -> Array:
        found: Array = np.maximum(layout @ self.direction - self.centre, 0) / self.unit
        return found


@dataclass(frozen=True)
class Familiarity:
    """What real pictures look like, and how far they stray from it.

    Attributes:
        patients: how many held-out patients the threshold was set on.
        threshold: of the largest distance.
    """

    known: dict[str, _View]
    upright: _Upright
    threshold: float
    patients: int

    def judge(self, teacher: CXR_CAM_Teacher, images: Tensor) -> list[Verdict]:
        """One verdict for each of images (B, 1, H, W) in [-1, 1]."""
        found = self._distances(teacher, images)
        total = _largest(found) / self.threshold
        hints = [self._hint(teacher, images[i : i + 1], d) if d > 1 else None for i, d in enumerate(total)]
        return [
            Verdict(float(d), {name: round(float(v[i]), 4) for name, v in found.items()}, hints[i])
            for i, d in enumerate(total)
        ]

    def _distances(self, teacher: CXR_CAM_Teacher, images: Tensor) -> dict[str, Array]:
        return _distances(self.known, self.upright, views(teacher, images))

    def _hint(self, teacher: CXR_CAM_Teacher, image: Tensor, before: float) -> str | None:
        turned = torch.cat([turn(image) for turn in _TURNED.values()])
        after = _largest(self._distances(teacher, turned)) / self.threshold
        best = int(after.argmin())
        return list(_TURNED)[best] if after[best] <= 1 and after[best] < 0.7 * before else None

    def to_state(self) -> dict[str, Any]:
        """As `checkpoint.save_checkpoint` takes it."""
        views = {
            name: {"means": torch.from_numpy(v.means), "whiten": torch.from_numpy(v.whiten), "unit": v.unit}
            for name, v in self.known.items()
        }
        upright = {
            "direction": torch.from_numpy(self.upright.direction),
            "centre": self.upright.centre,
            "unit": self.upright.unit,
        }
        return {"views": views, "upright": upright, "threshold": self.threshold, "patients": self.patients}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Familiarity":
        """What `to_state` gave."""
        known = {
            name: _View(v["means"].numpy(), v["whiten"].numpy(), float(v["unit"])) for name, v in state["views"].items()
        }
        up = state["upright"]
        upright = _Upright(up["direction"].numpy(), float(up["centre"]), float(up["unit"]))
        return cls(known, upright, float(state["threshold"]), int(state["patients"]))


def _distances(known: Mapping[str, _View], upright: _Upright, seen: Mapping[str, Array]) -> dict[str, Array]:
    return {name: known[name].distances(x) for name, x in seen.items()} | {"upright": upright.distances(seen["layout"])}


def _largest(found: Mapping[str, Array]) -> Array:
    largest: Array = np.max([*found.values()], axis=0)
    return largest


@torch.no_grad()
def views(teacher: CXR_CAM_Teacher, images: Tensor) -> dict[str, Array]:
    """The three vectors of images (B, 1, H, W) in [-1, 1]: each (B, D), float64."""
    side = teacher.resolution
    like = next(teacher.parameters())
    seen = images if images.shape[-1] == side else F.interpolate(images, (side, side), mode="bilinear", antialias=True)
    features = teacher.backbone.features(seen.to(like)).mean(dim=(2, 3))
    small = images.float().cpu()
    if small.shape[-1] > _SIDE:
        small = F.interpolate(small, (_SIDE, _SIDE), mode="area")
    layout = F.interpolate(small, (_THUMBNAIL, _THUMBNAIL), mode="area").flatten(1)
    layout = (layout - layout.mean(1, keepdim=True)) / layout.std(1, keepdim=True).clamp_min(1e-3)
    found = {"features": features, "layout": layout, "statistics": _statistics(small)}
    return {name: x.double().cpu().numpy() for name, x in found.items()}


def _statistics(x: Tensor) -> Tensor:
    """(B, 1, H, W) → (B, 14): quantiles of grey, log roughness at four scales, mirror symmetries, frame and centre."""
    flat = x.flatten(1)
    rough = []
    before = x
    for _ in range(4):
        after = F.avg_pool2d(F.pad(before, (1, 1, 1, 1), mode="replicate"), 3, 1)
        rough.append((before - after).flatten(1).std(1).clamp_min(1e-3).log())
        before = after if after.shape[-1] < 16 else F.avg_pool2d(after, 2)
    standard = (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True).clamp_min(1e-3)
    symmetry = [(standard * standard.flip(d)).mean((1, 2, 3)) for d in (3, 2)]
    edge = max(1, x.shape[-1] // 10)
    frame = x.mean((1, 2, 3)) - x[:, :, edge:-edge, edge:-edge].mean((1, 2, 3))
    return torch.cat([flat.quantile(_QUANTILES, dim=1).T, torch.stack([*rough, *symmetry, frame], 1)], 1)


def _view(x: Array, labels: npt.NDArray[np.int64]) -> _View:
    classes = np.unique(labels)
    means = np.stack([x[labels == k].mean(0) for k in classes])
    covariance = ledoit_wolf(x - means[np.searchsorted(classes, labels)], assume_centered=True)[0]
    values, vectors = np.linalg.eigh(covariance)
    kept = values > 1e-9 * max(values.max(), 1e-12)  # a feature that never varies says nothing
    whiten = vectors[:, kept] / np.sqrt(values[kept])
    return _View(means, whiten, 1.0)


def _discriminant(layout: Array) -> Array:
    """The direction that tells small copies from the same upside down; larger is more upside down."""
    squares = layout.reshape(-1, _THUMBNAIL, _THUMBNAIL)
    down = np.concatenate([squares[:, ::-1, ::-1], squares[:, ::-1]]).reshape(-1, layout.shape[1])
    both = np.concatenate([layout - layout.mean(0), down - down.mean(0)])
    covariance = ledoit_wolf(both, assume_centered=True)[0]
    direction: Array = np.linalg.solve(covariance, down.mean(0) - layout.mean(0))
    return direction


def conformal(values: Array, risk: float = RISK) -> float:
    """The value that at most a share `risk` of new ones exceed, on average (Vovk et al. 2005).

    Fewer than 1 / risk values cannot promise that; then it is the largest and a quarter more.

    >>> conformal(np.arange(1.0, 100.0), 0.02)
    98.0
    """
    rank = math.ceil((len(values) + 1) * (1 - risk))
    return float(values.max() * 1.25 if rank > len(values) else np.sort(values)[rank - 1])


def fit_familiarity(
    learnt: Mapping[str, Array],
    labels: npt.NDArray[np.int64],
    held_out: Mapping[str, Array],
    patients: Sequence[str] | npt.NDArray[np.str_],
) -> Familiarity | None:
    """Learns what real pictures look like.

    Args:
        learnt: `views` of N training images.
        labels: (N,) their classes.
        held_out: `views` of other patients' images, which set the threshold.
        patients: whose they are. A patient counts once, by the strangest image.

    Returns:
        None where fewer than LEAST_PATIENTS are held out: then nobody can say what is unusual.
    """
    names, who = np.unique(np.asarray(patients), return_inverse=True)
    if len(names) < LEAST_PATIENTS:
        return None

    def by_patient(values: Array) -> Array:
        worst = np.zeros(len(names))
        np.maximum.at(worst, who, values)
        return worst

    known = {}
    for name, x in learnt.items():
        view = _view(x, labels)
        known[name] = _View(view.means, view.whiten, conformal(by_patient(view.distances(held_out[name]))))
    scores = held_out["layout"] @ (direction := _discriminant(learnt["layout"]))
    centre = float(np.median(scores))
    unit = max(conformal(by_patient(np.maximum(scores - centre, 0))), 1e-6)
    upright = _Upright(direction, centre, unit)
    total = _largest(_distances(known, upright, held_out))
    return Familiarity(known, upright, conformal(by_patient(total)), len(names))
