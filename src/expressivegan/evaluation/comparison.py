"""What is compared: synthetic images, real ones by group, and what the sections of an evaluation share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from expressivegan.data import ImageSet
from expressivegan.data.cache import cache_root
from expressivegan.errors import DataError, InputError
from expressivegan.evaluation.anatomy import Landmarks, landmarks
from expressivegan.evaluation.collect import Generated
from expressivegan.evaluation.draws import draw_mix
from expressivegan.evaluation.features import (
    FeatureSpace,
    JudgeRecipe,
    SelfSupervisedRecipe,
    cached_features,
    open_space,
)
from expressivegan.evaluation.plan import Progress
from expressivegan.synthesis.origin import check_data

HELD_AGAINST = ("reference", "test")
"""Groups that images may be held against."""

_STRAY = 0.1
"""Of the class that is made most often, relative to real images: a class of less is left out."""

Ints = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]


def check_groups(data: ImageSet, group: str) -> None:
    """Raises unless training, judging and comparing are done on different patients.

    Raises:
        InputError: images cannot be held against that group.
        DataError: a group is empty, or shares a patient with another.
    """
    if group not in HELD_AGAINST:
        raise InputError(f"group (={group!r}) must be one of {', '.join(HELD_AGAINST)}")
    patients = {name: set(data.patients[data.indices(name)]) for name in {"train", "judge", "reference", group}}
    for name, found in patients.items():
        if not found:
            raise DataError(f"the group {name} has no patient; deal the data anew: expressivegan data prepare")
    for one, other in (("train", "reference"), ("judge", "reference"), ("train", group), ("judge", group)):
        if patients[one] & patients[other]:
            raise DataError(f"patients of the group {other} stand in {one} too: no figure would mean anything")


def feature_side(resolution: int, asked: int | None) -> int:
    """Side at which networks that are fitted here see images: as asked, or the images' own, from 64 to 128 px.

    Raises:
        InputError: a side that no such network can have.
    """
    side = min(max(resolution, 64), 128) if asked is None else asked
    if not 16 <= side <= 512:
        raise InputError(f"feature_resolution (={side}) must be from 16 to 512 px")
    return side


@dataclass
class Comparison:
    """One set of synthetic images beside one set of real ones."""

    data: ImageSet
    made: Generated
    spaces: Sequence[str] = ("judge", "selfsup")
    """Names of feature spaces, see `open_space`."""
    seed: int = 0
    k: int = 5
    """Neighbour of precision, recall, density and coverage."""
    cache: Path | None = None
    """Folder of fitted networks and computed features; default: within the data cache."""
    feature_resolution: int | None = None
    """Side at which `judge` and `selfsup` see images; default: the data's, from 64 to 128 px."""
    judge_recipe: JudgeRecipe | None = None
    selfsup_recipe: SelfSupervisedRecipe | None = None
    group: str = "reference"
    """Whose real images the synthetic ones are held against: "reference", or "test" with a model that is final."""
    other_data: bool = False
    """The data are on purpose not those that the model was trained on; see `check_data`."""
    _opened: dict[str, FeatureSpace] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        side = self.data.resolution
        if self.made.images.shape[1:] != (side, side):
            raise InputError(f"images are {self.made.images.shape[1:]}, and the data were loaded at {side} px")
        given = self.judge_recipe or self.selfsup_recipe
        if self.feature_resolution is None and given is not None:
            self.feature_resolution = given.resolution
        self.feature_resolution = feature_side(side, self.feature_resolution)
        self.judge_recipe = self.judge_recipe or JudgeRecipe(resolution=self.feature_resolution)
        self.selfsup_recipe = self.selfsup_recipe or SelfSupervisedRecipe(resolution=self.feature_resolution)
        check_groups(self.data, self.group)
        if self.made.model is not None:
            check_data(self.made.model.origin, self.data, other_data=self.other_data)

    @property
    def trained_on(self) -> str | None:
        """Hash of the data that the model was trained on; None where it, or the model, is not known."""
        return None if self.made.model is None else self.made.model.origin.data_hash

    def pixels(self, group: str | None = None) -> Pixels:
        """uint8 (n, H, W) of a group; the default is the one that images are held against."""
        return np.asarray(self.data.images[self.data.indices(group or self.group)])

    def labels(self, group: str | None = None) -> Ints:
        """(n,) of a group."""
        return self.data.labels[self.data.indices(group or self.group)]

    def patients(self, group: str | None = None) -> npt.NDArray[np.str_]:
        """(n,) of a group."""
        return np.asarray(self.data.patients[self.data.indices(group or self.group)])

    @cached_property
    def heldout(self) -> Ints:
        """Rows of the patients that stand for chance in memorisation: those of the judge and the reference group.

        Never test patients: an official test set may have been taken elsewhere, and all that came with its source
        would look like memorisation.
        """
        return np.sort(np.concatenate([self.data.indices("judge"), self.data.indices("reference")]))

    def folder(self) -> Path:
        """Where fitted networks and computed features stand."""
        return self.cache or cache_root() / "features"

    def space(self, name: str, progress: Progress | None = None) -> FeatureSpace:
        """A feature space, fitted on the judge group on first use; only then is `progress` told."""
        if name not in self._opened:
            self._opened[name] = open_space(
                name,
                images=self.pixels("judge"),
                labels=self.labels("judge"),
                classes=self.data.classes,
                cache=self.folder(),
                seed=self.seed,
                progress=None if progress is None else lambda done, total: progress(done, total, ""),
                judge_recipe=self.judge_recipe,
                selfsup_recipe=self.selfsup_recipe,
            )
        return self._opened[name]

    def features(self, name: str, images: Pixels) -> npt.NDArray[np.float32]:
        """float32 (n, d), computed once for the same images."""
        return cached_features(self.space(name), images, self.folder())

    @cached_property
    def landmarks(self) -> tuple[Landmarks, Landmarks]:
        """Of the real images of the group, and of the synthetic ones."""
        return landmarks(self.pixels()), landmarks(self.made.images)

    def mix(self) -> tuple[Ints, Ints, list[int]]:
        """Rows of the group and of the synthetic set, at equal number and class mix, and the class counts.

        Classes of which there is hardly a synthetic image are left out on both sides: their count is 0.
        """
        real = self.labels()
        if self.made.labels is None:
            n = min(len(real), len(self.made.images), len(self.labels("train")))
            every = np.bincount(real, minlength=len(self.data.classes))
            counts = np.floor(every * (n / len(real))).astype(int).tolist()
            rows = draw_mix(real, counts, self.seed, "reference")
            drawn = np.random.default_rng(self.seed).permutation(len(self.made.images))[: len(rows)]
            return rows, drawn.astype(np.int64), counts
        classes = len(self.data.classes)
        full = np.bincount(real, minlength=classes)
        made = np.bincount(self.made.labels, minlength=classes)
        # A few strays of one class would leave a few images of each, and distances of those say nothing.
        often = made / np.maximum(full, 1)
        present = (made > 0) & (often >= _STRAY * often.max())
        pools = (made * present, np.bincount(self.labels("train"), minlength=classes))
        shares = [float((pool[pool > 0] / np.maximum(full[pool > 0], 1)).min()) for pool in pools]
        share = min(1.0, *shares)
        counts = [int(c * share + 1e-9) if p else 0 for c, p in zip(full, present, strict=True)]
        return (
            draw_mix(real, counts, self.seed, "reference"),
            draw_mix(self.made.labels, counts, self.seed, "generated"),
            counts,
        )
