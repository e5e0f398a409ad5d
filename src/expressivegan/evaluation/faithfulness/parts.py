"""The parts of a report on a run: known lesions, removal, lungs, sanity, and the generator's change."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from expressivegan.data import ImageSet
from expressivegan.errors import DataError
from expressivegan.evaluation.faithfulness.arrays import Bools, Floats, enlarge
from expressivegan.evaluation.faithfulness.change import smallest_region
from expressivegan.evaluation.faithfulness.explainers import (
    class_cam_maps,
    evidence_maps,
    generator_maps,
    teacher_class_maps,
    teacher_maps,
)
from expressivegan.evaluation.faithfulness.lungs import lung_masks
from expressivegan.evaluation.faithfulness.report import Progress, Truth, faithfulness_report
from expressivegan.evaluation.faithfulness.sanity import cascade, random_logit, repeatability
from expressivegan.images import UInt8Array
from expressivegan.models import DiscriminatorWithExplain, GeneratorWithCAMGuidance
from expressivegan.streams import derive_seed
from expressivegan.teacher import CXR_CAM_Teacher

LEAST = 12  # images of a class
Ints = npt.NDArray[np.int64]


class Judge(Protocol):
    """An independent classifier, such as `JudgeClassifier`."""

    def predict(self, images: UInt8Array) -> npt.NDArray[np.float32]:
        """uint8 (N, H, W) → class probabilities (N, K)."""
        ...


def disease_score(judge: Judge, reference: int) -> Callable[[UInt8Array], npt.NDArray[Any]]:
    """The probability of any class but the reference: what referenced maps claim to show.

    The same images, such as those that every deletion starts from, are asked for once.
    """
    known: dict[bytes, npt.NDArray[Any]] = {}

    def score(images: UInt8Array) -> npt.NDArray[Any]:
        key = hashlib.sha256(np.ascontiguousarray(images).tobytes()).digest()
        if key not in known:
            known[key] = 1.0 - np.asarray(judge.predict(images), np.float64)[:, reference]
        return known[key]

    return score


def diseased(data: ImageSet, group: str, count: int, seed: int = 0) -> Ints:
    """Up to `count` indices of images of a group with a disease, as they come, ascending.

    Raises:
        DataError: no reference class, or too few images.
    """
    if data.reference is None:
        raise DataError("the data have no reference class, and without one no map speaks for disease")
    rows = data.indices(group)
    rows = rows[data.labels[rows] != data.reference]
    if len(rows) < LEAST:
        raise DataError(f"the group {group} has {len(rows)} images with a disease; {LEAST} are needed")
    rng = np.random.default_rng(derive_seed(seed, "faithfulness.images", group))
    return np.sort(rng.permutation(rows)[:count]).astype(np.int64)


class Parts:
    """The parts of the report on one run beside one data set; each is told its own progress."""

    def __init__(self, data: ImageSet, group: str, count: int, rounds: int, seed: int) -> None:
        self.data, self.rounds, self.seed = data, rounds, seed
        self.rows = diseased(data, group, count, seed)
        self.images = np.asarray(data.images[self.rows])
        self.labels = data.labels[self.rows]
        self.patients: list[str] = np.asarray(data.patients)[self.rows].tolist()

    def _part(
        self, explanations: Mapping[str, Floats], keep: Bools, truth: Truth, progress: Progress
    ) -> dict[str, Any]:
        return faithfulness_report(
            {name: maps[keep] for name, maps in explanations.items()},
            self.images[keep],
            [who for who, kept in zip(self.patients, keep, strict=True) if kept],
            truth,
            rounds=self.rounds,
            seed=self.seed,
            progress=progress,
        )

    def truth(self, explanations: Mapping[str, Floats], focal: Sequence[str], progress: Progress) -> dict[str, Any]:
        """Against the lesions that were drawn; of classes with focal lesions alone."""
        assert self.data.masks is not None
        masks = np.asarray(self.data.masks[self.rows])
        keep = np.isin(self.labels, [self.data.classes.index(name) for name in focal])
        keep &= masks.any((1, 2))
        if keep.sum() < LEAST:
            raise DataError(f"{keep.sum()} images hold a focal lesion ({', '.join(focal)}); {LEAST} are needed")
        return self._part(explanations, keep, Truth(masks=masks[keep]), progress)

    def removal(self, explanations: Mapping[str, Floats], judge: Judge, progress: Progress) -> dict[str, Any]:
        """Deletion, insertion and ROAD, in the eyes of the judge."""
        assert self.data.reference is not None
        score = disease_score(judge, self.data.reference)
        return self._part(explanations, np.ones(len(self.rows), bool), Truth(score=score), progress)

    def in_lungs(self, explanations: Mapping[str, Floats], progress: Progress) -> dict[str, Any]:
        """Share of attention inside the lungs, where both were found."""
        masks, found = lung_masks(self.images)
        if found.sum() < LEAST:
            raise DataError(f"both lungs were found in {found.sum()} images; {LEAST} are needed")
        lungs = enlarge(masks[found].astype(np.float64), self.images.shape[1:]) >= 0.5
        part = self._part(explanations, found, Truth(lungs=lungs), progress)
        return {"lung_area": float(lungs.mean()), **part}

    def sanity_of_teacher(self, teacher: CXR_CAM_Teacher, others: Sequence[CXR_CAM_Teacher]) -> dict[str, Any]:
        """Parameters, classes (where two have a map of their own) and seeds (where others are given)."""
        size = self.images.shape[1:]
        options: dict[str, Any] = {"rounds": self.rounds, "seed": self.seed}
        found = {
            "parameter_randomisation": cascade(
                teacher, lambda t: enlarge(teacher_maps(t, self.images), size), self.patients, **options
            ),
        }
        if len(set(teacher.trained) - {teacher.reference}) > 1:
            maps, _ = teacher_class_maps(teacher, self.images)
            each = np.stack([enlarge(maps[:, k], size) for k in range(maps.shape[1])], 1)
            found["random_logit"] = random_logit(
                each, self.labels, self.patients, reference=teacher.reference, **options
            )
        if others:
            seen = [enlarge(teacher_maps(t, self.images), size) for t in (teacher, *others)]
            found["repeatability"] = repeatability(seen, self.patients, **options)
        return found

    def sanity_of_discriminator(self, model: DiscriminatorWithExplain) -> dict[str, Any]:
        """Parameters, for both of its maps."""
        size = self.images.shape[1:]
        options: dict[str, Any] = {"rounds": self.rounds, "seed": self.seed}
        return {
            "class_cam": cascade(
                model, lambda d: enlarge(class_cam_maps(d, self.images), size), self.patients, **options
            ),
            "evidence": cascade(
                model, lambda d: enlarge(evidence_maps(d, self.images, self.labels)[0], size), self.patients, **options
            ),
        }

    def generator(self, model: GeneratorWithCAMGuidance, count: int, progress: Progress) -> dict[str, Any]:
        """M against the true change, for each class with a lesion: by region, and by how much each pixel changed."""
        found: dict[str, dict[str, Any]] = {}
        classes = [k for k in range(len(model.classes)) if k != model.class_set.reference]
        for done, label in enumerate(classes):
            name = model.classes[label]
            progress(done, len(classes), f"change of {name}")
            made = generator_maps(model, label, count, self.seed)
            area = made.changed.mean((1, 2))
            keep = (area > 0) & (area < 1)
            if keep.sum() < LEAST:
                found[name] = {"left_out": f"{keep.sum()} of {count} images change in a part of the picture"}
                continue
            maps, change, changed = made.maps[keep], made.change[keep], made.changed[keep]
            core = smallest_region(change)
            truths = {"region": Truth(masks=changed), "energy": Truth(masks=core, change=change)}
            found[name] = {"unchanged": int((area == 0).sum())}
            for kind, truth in truths.items():
                assert truth.masks is not None
                report = faithfulness_report(
                    {"M": maps, "change": change}, made.images[keep], [str(i) for i in np.flatnonzero(keep)], truth,
                    rounds=self.rounds, seed=self.seed,
                )  # fmt: skip
                found[name][kind] = {"area": float(truth.masks.mean()), **report}
        return found
