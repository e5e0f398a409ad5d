"""What the teacher and the discriminator have to show for a batch of images, on their own grids and in honest units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from expressivegan.config import Merge
from expressivegan.models import DiscriminatorWithExplain
from expressivegan.teacher import CXR_CAM_Teacher
from expressivegan.teacher.backbone import probabilities

MOST_CLASSES = 6  # of a teacher with many findings, the likeliest are shown


@dataclass(frozen=True, eq=False)
class Map:
    """One map of one image.

    Attributes:
        title: a few words.
        values: float32 (h, w), on the grid of whatever made it.
        unit: what the numbers are.
        low, high: ends of the colour bar; the same for every image unless `own_range`.
        own_range: the bar spans this very image's values, so its colours cannot be compared between images.
    """

    title: str
    values: npt.NDArray[np.float32]
    unit: str
    low: float
    high: float
    own_range: bool = False

    @property
    def signed(self) -> bool:
        """Whether values speak for and against."""
        return self.low < 0


def to_array(values: Tensor) -> npt.NDArray[np.float32]:
    """A map (h, w) as float32."""
    found: npt.NDArray[np.float32] = values.detach().float().cpu().numpy()
    return found


def rival(teacher: CXR_CAM_Teacher) -> str:
    """What a class's logits are held against, for a unit's text."""
    if teacher.multi_label:
        return "logits"
    if teacher.reference is None:
        return "logits, against the mean of the classes"
    return f"logits, against {teacher.classes[teacher.reference]}"


def candidates(teacher: CXR_CAM_Teacher) -> list[int]:
    """Classes that have a referenced map of their own: trained, and not the reference itself."""
    return [k for k in teacher.trained if k != teacher.reference]


def has_mean(teacher: CXR_CAM_Teacher) -> bool:
    """Whether `mean` merges anything: maps less their mean have the mean 0."""
    return teacher.multi_label or teacher.reference is not None


def likeliest(scores: Tensor, among: Sequence[int]) -> list[int]:
    """The largest of the given columns of scores (B, K), for each row."""
    return [among[i] for i in scores[:, among].argmax(1).tolist()]


def teacher_maps(teacher: CXR_CAM_Teacher, cams: Tensor, logits: Tensor, wanted: list[int]) -> list[dict[str, Map]]:
    """Merged and per-class maps from raw CAMs (B, K, h, w) and logits (B, K).

    Args:
        wanted: for each image a class that must be among those shown.

    Returns:
        The maps of each image, `merged-<merge>` and `class-<name>`.
    """
    scale = float(teacher.scale)
    cams, logits = cams.detach(), logits.detach()
    full = f"share of full scale (1 = {scale:.3g} logits)"
    found: list[dict[str, Map]] = [{} for _ in cams]
    usual = teacher.meth
    for meth in get_args(Merge):
        if meth == "mean" and not has_mean(teacher):
            continue
        teacher.meth = meth
        try:
            merged = teacher.merge(cams, logits)
        finally:
            teacher.meth = usual
        title = f"teacher, merged: {meth}" + (" (its own)" if meth == usual else "")
        for maps, values in zip(found, merged, strict=True):
            maps[f"merged-{meth}"] = Map(title, to_array(values[0]), full, 0.0, 1.0)
    referenced = teacher.referenced(cams)
    chances = probabilities(logits, teacher.multi_label)
    among = candidates(teacher)
    for i, maps in enumerate(found):
        ranked = sorted(among, key=lambda k: (k != wanted[i], -float(chances[i, k])))[:MOST_CLASSES]
        for k in sorted(ranked):
            title = f"teacher, class {teacher.classes[k]}"
            values = to_array(referenced[i, k])
            maps[f"class-{teacher.classes[k]}"] = Map(title, values, rival(teacher), -scale, scale)
    return found


@dataclass(frozen=True, eq=False)
class Reference:
    """The discriminator's evidence on real images that it has not learnt from.

    Attributes:
        evidence: (K, h, w), mean over the images of each class, under that class's label.
        images: (K,) how many; 0 where there were too few, and then nothing is subtracted.
        spread: the 99th percentile of |evidence minus its mean| over cells and images: the end of the colour bar.
        scores: (K, 2), 2.5th and 97.5th percentile of the referenced score.
    """

    evidence: Tensor
    images: Tensor
    spread: float
    scores: Tensor

    def to_state(self) -> dict[str, Any]:
        """As `checkpoint.save_checkpoint` takes it."""
        return {"evidence": self.evidence, "images": self.images, "spread": self.spread, "scores": self.scores}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Reference":
        """What `to_state` gave."""
        return cls(state["evidence"], state["images"], float(state["spread"]), state["scores"])


@dataclass(frozen=True, eq=False)
class Judged:
    """What the discriminator says about one image.

    Attributes:
        label: name of the class whose realness it judged, or None for a model without classes.
        score: as it comes out: relativistic, so its zero point means nothing.
        referenced: minus the mean over real images of that class, or None without them.
        real_range: 2.5th and 97.5th percentile of `referenced` over those.
        probabilities: of its class head, by class.
        maps: `evidence`, and `discriminator-class` where there are classes to tell apart.
    """

    label: str | None
    score: float
    referenced: float | None
    real_range: tuple[float, float] | None
    probabilities: dict[str, float]
    maps: dict[str, Map]


@torch.no_grad()
def discriminator_says(
    D: DiscriminatorWithExplain, images: Tensor, labels: Sequence[str | None], reference: Reference | None
) -> list[Judged]:
    """Evidence, class map and scores of images (B, 1, H, W) in [-1, 1].

    Args:
        labels: class names; None, or a name that D does not know, means its own likeliest class.
        reference: without it the evidence is shown as it comes.
    """
    names = D.class_set.names
    logits = D.explain(images).class_logits
    own = logits.argmax(1).tolist()
    chosen = [names.index(name) if name in names else own[i] for i, name in enumerate(labels)]
    says = D.explain(images, torch.tensor(chosen, device=images.device) if names else None)
    lesions = [k for k in range(len(names)) if k != D.class_set.reference]
    shown = likeliest(logits, lesions) if lesions else []
    against = "" if D.class_set.reference is None else f" against {names[D.class_set.reference]}"
    found = []
    for i, k in enumerate(chosen):
        label = names[k] if names else None
        maps = {"evidence": _evidence(says.evidence[i, 0], k, label, reference)}
        if len(names) > 1:
            focus = k if k != D.class_set.reference else shown[i]
            title = f"discriminator, class {names[focus]}"
            values = to_array(says.class_maps[i, focus])
            maps["discriminator-class"] = Map(title, values, f"share of the teacher's full scale{against}", -1.0, 1.0)
        score, known = float(says.score[i]), reference is not None and int(reference.images[k]) > 0
        ends = (float(reference.scores[k, 0]), float(reference.scores[k, 1])) if reference and known else None
        mean = float(reference.evidence[k].mean()) if reference and known else None
        chances = logits[i].softmax(0).tolist() if len(names) > 1 else []
        judged = Judged(
            label, score, None if mean is None else score - mean, ends, dict(zip(names, chances, strict=False)), maps
        )
        found.append(judged)
    return found


def _evidence(values: Tensor, k: int, label: str | None, reference: Reference | None) -> Map:
    title = "discriminator, evidence that it is real" + (f" ({label})" if label else "")
    if reference is None or not int(reference.images[k]):
        end = max(float(values.abs().max()), 1e-6)
        return Map(title, to_array(values), "score, unreferenced: its zero means nothing", -end, end, own_range=True)
    unit = f"score, minus its mean over {int(reference.images[k])} real images" + (f" of {label}" if label else "")
    return Map(title, to_array(values - reference.evidence[k].to(values)), unit, -reference.spread, reference.spread)
