"""The faithfulness of a run's maps: what `expressivegan evaluate --suite faithfulness` writes."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from expressivegan.checkpoint import state_hash
from expressivegan.data import ImageSet
from expressivegan.errors import DataError, InputError
from expressivegan.evaluation.faithfulness.arrays import Floats
from expressivegan.evaluation.faithfulness.evidence import evidence_report
from expressivegan.evaluation.faithfulness.explainers import class_cam_maps, evidence_maps, teacher_maps
from expressivegan.evaluation.faithfulness.parts import Judge, Parts
from expressivegan.evaluation.faithfulness.report import Progress
from expressivegan.evaluation.faithfulness.words import warnings_of
from expressivegan.evaluation.plan import Plan
from expressivegan.intervals import plain
from expressivegan.models import DiscriminatorWithExplain, GeneratorWithCAMGuidance
from expressivegan.teacher import CXR_CAM_Teacher

FOCAL = ("BACTERIA",)
"""The phantom's classes with focal lesions: what is everywhere cannot be pointed at."""
COUNT = 100
"""Images with a disease, and as many generated ones of each class: minutes on one core."""
_COSTS = {"teacher": 8, "discriminator": 29, "removal": 150, "in_lungs": 3, "truth": 6, "generator": 12}
"""About how long each part takes; only proportions matter."""


@dataclass(frozen=True, eq=False)
class Networks:
    """The networks of a run, on the CPU, in evaluation mode; what is None is left out by name.

    So are a teacher and a discriminator whose classes are not those of the data, such as torchxrayvision's.
    """

    teacher: CXR_CAM_Teacher | None = None
    discriminator: DiscriminatorWithExplain | None = None
    generator: nn.Module | None = None
    """One without maps, such as the baseline's, is left out."""
    other_teachers: Sequence[CXR_CAM_Teacher] = ()
    """Fitted alike with other seeds, for `repeatability`."""
    why: Mapping[str, str] = field(default_factory=dict)
    """Of networks that are None although the run has them: name → what stands in the way."""

    @property
    def hash(self) -> str:
        """Of all weights."""
        parts = (self.teacher, self.discriminator, self.generator, *self.other_teachers)
        return hashlib.sha256(" ".join("-" if p is None else state_hash(p) for p in parts).encode()).hexdigest()


def faithfulness_section(
    networks: Networks,
    data: ImageSet,
    judge: Judge | None,
    *,
    group: str = "reference",
    count: int = COUNT,
    focal: Sequence[str] = FOCAL,
    rounds: int = 500,
    seed: int = 0,
    progress: Progress = lambda done, total, words: None,
) -> dict[str, Any]:
    """Whether the maps of a run show what they claim to: teacher, discriminator and generator.

    Args:
        networks: of the run.
        data: the set that the run learnt from, at the run's resolution; phantoms add the known truth.
        judge: a classifier fitted on the judge group, that took no part in training; None leaves `removal` out.
        group: whose patients the maps are measured on.
        count: images with a disease, and generated images of each class.
        focal: classes whose lesions are focal; of phantoms.
        rounds: of the bootstrap.
        seed: of everything drawn.
        progress: called with (done, total, words).

    Returns:
        Ready for `json.dumps`: `images`, `truth` (phantoms only), `removal`, `in_lungs`, `sanity`, `evidence`,
        `generator`, `left_out` (part → why) and `warnings`. Agreement with the teacher is measured nowhere: it trained
        the generator.

    Raises:
        InputError: no network at all, or none with the classes of the data.
        DataError: the group is too small, or there is no reference class.
    """
    teacher, model, generator = networks.teacher, networks.discriminator, networks.generator
    given = {"teacher": teacher, "discriminator": model, "generator": generator}
    left_out = {
        name: networks.why.get(name, f"the run has no {name}") for name, network in given.items() if network is None
    }
    if len(left_out) == len(given):
        raise InputError("networks are empty; give a teacher, a discriminator or a generator")
    if teacher is not None and (why := _strange(teacher.classes, data)):
        left_out["teacher"], teacher = f"the teacher {why}", None
    if model is not None and (why := _strange(model.classes, data)):
        left_out["discriminator"], model = f"the discriminator {why}", None
    if len(left_out) == len(given):
        raise InputError(f"{'; '.join(left_out.values())}; give the data that the run was trained on")
    others = [other for other in networks.other_teachers if not _strange(other.classes, data)]
    parts = Parts(data, group, count, rounds, seed)
    found: dict[str, Any] = {}
    explanations: dict[str, Floats] = {}
    sanity: dict[str, Any] = {}

    def of_teacher(told: Progress) -> None:
        assert teacher is not None
        explanations["teacher"] = teacher_maps(teacher, parts.images)
        sanity["teacher"] = parts.sanity_of_teacher(teacher, others)
        if "random_logit" not in sanity["teacher"]:
            left_out["random_logit"] = "only one class has a map of its own: there is no other class to compare with"
        if not others:
            left_out["repeatability"] = "no teacher of another seed was given"
            if networks.other_teachers:
                left_out["repeatability"] += " that knows the classes of the data"

    def of_discriminator(told: Progress) -> None:
        assert model is not None
        explanations["discriminator, class CAM"] = class_cam_maps(model, parts.images)
        explanations["discriminator, |evidence|"] = np.abs(evidence_maps(model, parts.images, parts.labels)[0])
        sanity["discriminator"] = parts.sanity_of_discriminator(model)
        found["evidence"] = evidence_report(model, parts.images, parts.labels, parts.patients, rounds=rounds, seed=seed)

    def of_generator(told: Progress) -> None:
        if isinstance(generator, GeneratorWithCAMGuidance) and generator.class_set.reference is not None:
            found["generator"] = parts.generator(generator, count, told)
        else:
            left_out["generator"] = "the generator has no maps"

    def of_images(name: str, part: Callable[[Progress], dict[str, Any]]) -> Callable[[Progress], None]:
        def keep(told: Progress) -> None:
            try:
                found[name] = part(told)
            except DataError as error:
                left_out[name] = str(error)

        return keep

    def removal(told: Progress) -> dict[str, Any]:
        if judge is None:
            raise DataError("no independent classifier was given")
        return parts.removal(explanations, judge, told)

    steps: dict[str, Callable[[Progress], None]] = {
        "teacher": of_teacher,
        "discriminator": of_discriminator,
        "removal": of_images("removal", removal),
        "in_lungs": of_images("in_lungs", lambda told: parts.in_lungs(explanations, told)),
        "truth": of_images("truth", lambda told: parts.truth(explanations, focal, told)),
        "generator": of_generator,
    }
    chosen = [name for name in steps if name not in left_out]
    if teacher is None and model is None:
        chosen = ["generator"]
    elif data.masks is None:
        chosen.remove("truth")
        left_out["truth"] = "the true regions are known of phantoms only"
    plan = Plan({name: _COSTS[name] for name in chosen}, progress)
    for name in chosen:
        told = plan.step(name)
        told(0, 1, "")
        steps[name](told)
        plan.done(name)
    if sanity:
        found["sanity"] = sanity
    images = {"group": group, "n": len(parts.rows), "patients": len(set(parts.patients))}
    result: dict[str, Any] = plain({"images": images, **found, "left_out": left_out})
    return {**result, "warnings": warnings_of(result)}


def _strange(classes: Sequence[str], data: ImageSet) -> str:
    """What is wrong with a network's classes, or nothing."""
    if tuple(classes) == tuple(data.classes):
        return ""
    return f"knows {', '.join(classes)}, and the data hold {', '.join(data.classes)}"
