"""A teacher and a discriminator, and what they have to say about pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from expressivegan.data import Fit
from expressivegan.errors import InputError
from expressivegan.explain.baseline import Baseline
from expressivegan.explain.familiar import Verdict
from expressivegan.explain.inputs import COLOURED, Picture
from expressivegan.explain.maps import Judged, Map, candidates, discriminator_says, likeliest, teacher_maps
from expressivegan.explain.peers import METHODS, Method, peer_maps
from expressivegan.images import from_uint8
from expressivegan.models import DiscriminatorWithExplain
from expressivegan.teacher import CXR_CAM_Teacher
from expressivegan.teacher.backbone import probabilities

BATCH = 16  # pictures at a time


@dataclass(frozen=True, eq=False)
class Explained:
    """One image, explained.

    Attributes:
        picture: the image as it was read.
        label: the class that is explained.
        likeliest: the class that the teacher thinks it is.
        focus: the class of the maps that need one with a lesion: `label`, or the likeliest other where that is the
            reference.
        probabilities, logits: the teacher's, by class.
        judged: what the discriminator says, or None where the model has none that explains.
        verdict: whether the picture is familiar, or None where that could not be judged.
        maps: by name: `merged-*`, `class-*`, `evidence`, `discriminator-class`, and methods of other libraries.
        warnings: sentences for a reader.
    """

    picture: Picture
    label: str
    likeliest: str
    focus: str
    probabilities: dict[str, float]
    logits: dict[str, float]
    judged: Judged | None
    verdict: Verdict | None
    maps: dict[str, Map]
    warnings: tuple[str, ...]


@dataclass(eq=False)
class Explainer:
    """A teacher and a discriminator with what they need to explain images; `open_explainer` makes one.

    Attributes:
        teacher, discriminator: in evaluation mode; the latter is None where the model has none that explains.
        baseline: what real images say, or None without them.
        fit: how a picture becomes square.
        methods: of other libraries.
        notes: what is missing, and why.
    """

    teacher: CXR_CAM_Teacher
    discriminator: DiscriminatorWithExplain | None
    baseline: Baseline | None
    fit: Fit
    methods: tuple[Method, ...]
    notes: tuple[str, ...]
    device: str = "cpu"

    @property
    def resolution(self) -> int:
        """Side of the images that are taken."""
        return self.teacher.resolution if self.discriminator is None else self.discriminator.resolution

    def check_label(self, label: str | None) -> str | None:
        """A class by name, in any case.

        Raises:
            InputError: neither network has it.
        """
        if label is None:
            return None
        names = [self.teacher.classes[k] for k in self.teacher.trained]
        if self.discriminator is not None:
            names += [name for name in self.discriminator.classes if name not in names]
        by_name = {name.casefold(): name for name in names}
        if label.casefold() not in by_name:
            raise InputError(f"label (={label!r}) must be one of {', '.join(names)}")
        return by_name[label.casefold()]

    def explain(self, pictures: Sequence[Picture], label: str | None = None) -> list[Explained]:
        """Explains pictures of the side `resolution`.

        Args:
            pictures: from `inputs.read_pictures`, or made by hand.
            label: a class other than the likeliest.

        Raises:
            InputError: an unknown class.
        """
        label = self.check_label(label)
        found: list[Explained] = []
        for start in range(0, len(pictures), BATCH):
            found += self._explain(pictures[start : start + BATCH], label)
        return found

    def _explain(self, pictures: Sequence[Picture], label: str | None) -> list[Explained]:
        T, D = self.teacher, self.discriminator
        x = from_uint8(np.stack([p.pixels for p in pictures])[:, None]).to(self.device)
        with torch.no_grad():
            cams, logits = T.raw_cams(x)
        chances = probabilities(logits, T.multi_label)
        own = [T.classes[k] for k in likeliest(chances, T.trained)]
        others = likeliest(chances, candidates(T))
        wanted = [label or name for name in own]
        focus = [
            T.classes.index(name) if name in T.classes and T.classes.index(name) != T.reference else other
            for name, other in zip(wanted, others, strict=True)
        ]
        maps = teacher_maps(T, cams, logits, focus)
        judged: list[Judged] | list[None] = [None] * len(x)
        if D is not None:
            reference = None if self.baseline is None else self.baseline.reference
            judged = discriminator_says(D, x, wanted, reference)
        if self.methods:
            seen = x
            if x.shape[-1] != T.resolution:
                seen = F.interpolate(x, (T.resolution,) * 2, mode="bilinear", antialias=True)
            for into, more in zip(maps, peer_maps(T, seen, focus, self.methods), strict=True):
                into.update(more)
        familiarity = None if self.baseline is None else self.baseline.familiarity
        verdicts = [None] * len(x) if familiarity is None else familiarity.judge(T, x)
        found = []
        for i, picture in enumerate(pictures):
            says = judged[i]
            # the discriminator's stand between the teacher's and those of other libraries
            ours = {name: m for name, m in maps[i].items() if name not in METHODS}
            theirs = {name: m for name, m in maps[i].items() if name in METHODS}
            found.append(
                Explained(
                    picture,
                    wanted[i],
                    own[i],
                    T.classes[focus[i]],
                    {T.classes[k]: float(chances[i, k]) for k in T.trained},
                    {T.classes[k]: float(logits[i, k]) for k in T.trained},
                    says,
                    verdicts[i],
                    ours | ({} if says is None else says.maps) | theirs,
                    _warnings(picture, verdicts[i], self.resolution),
                )
            )
        return found


def _warnings(picture: Picture, verdict: Verdict | None, resolution: int) -> tuple[str, ...]:
    found = []
    if verdict is not None and verdict.reason is not None:
        found.append(verdict.reason)
    if picture.colour > COLOURED:
        found.append(f"a colour picture (saturation {picture.colour:.0%}), which no X-ray is; it was turned to grey")
    if picture.facts is not None and min(picture.facts.width, picture.facts.height) < resolution:
        size = f"{picture.facts.width}x{picture.facts.height}"
        found.append(f"{size} pixels are fewer than the networks take ({resolution}x{resolution}); it was enlarged")
    if picture.facts is not None:
        ratio = picture.facts.width / picture.facts.height
        if not 0.5 <= ratio <= 2:
            found.append(
                f"{picture.facts.width}x{picture.facts.height} pixels are far from square; it was fitted to one"
            )
    return tuple(found)
