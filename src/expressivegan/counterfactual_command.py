"""What `expressivegan counterfactual` does."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from expressivegan.checkpoint import new_directory, read_json, state_hash
from expressivegan.console import console, progress_bar, say
from expressivegan.data import load_images
from expressivegan.data.cache import cache_root
from expressivegan.data.decode import UnusableError, load_pixels, read_bytes
from expressivegan.errors import CheckpointError, DataError, ExpressiveGANError, InputError, OfflineError
from expressivegan.evaluation import JudgeClassifier, open_for_evaluation
from expressivegan.explain import open_explainer
from expressivegan.images import UInt8Array, from_uint8, to_uint8
from expressivegan.models import GeneratorWithCAMGuidance
from expressivegan.synthesis import counterfactual_strip, edit_real, project, steering_map
from expressivegan.synthesis.counterfactual import check_disease, strengths_of
from expressivegan.synthesis.counterfactual_files import Item, Scorer, is_free, write_counterfactuals
from expressivegan.synthesis.generate import Plan, label_number
from expressivegan.synthesis.origin import Origin, check_data
from expressivegan.teacher import CXR_CAM_Teacher, open_teacher
from expressivegan.teacher.backbone import XRV_PREFIX, probabilities
from expressivegan.weights import find_teacher


def counterfactual(
    model: Path,
    out: Path,
    *,
    label: str,
    num: int,
    seed: int,
    strength: float,
    steps: int,
    steer: Sequence[str],
    style_label: str | None,
    image: Path | None,
    image_label: str | None,
    any_image: bool,
    keep_residual: bool,
    data: str | None,
    other_data: bool = False,
) -> None:
    """Writes pairs and strips, of synthetic children or of a real image."""
    if num < 1:
        raise InputError(f"--num (={num}) must be at least 1")
    if not is_free(out):
        raise InputError(f"--out (={out}) is not empty; choose another folder or delete it")
    opened = open_for_evaluation(model)
    network, origin = opened.network, opened.origin
    if not isinstance(network, GeneratorWithCAMGuidance):
        raise InputError(f"--model (={model}) is a dcgan, whose maps do not act; choose a CAM-guided model")
    number = label_number(network, label)
    style = None if style_label is None else label_number(network, style_label, "style_label")
    region = steering_map(steer, network.resolution) if steer else None
    strengths_of(strength, steps)
    if image is None:
        check_disease(network, number)
        Plan(seed, number, 1.0, region, style).check(network)
        if image_label is not None or any_image or not keep_residual:
            raise InputError(
                "--image-label, --any-image and --no-keep-residual say how a real image is edited; give --image"
            )
    elif num != 1 or style is not None:
        raise InputError("--num and --style-label are for synthetic children; they do not go with --image")
    elif region is not None and number == network.class_set.reference:
        raise InputError("--steer says where a disease shall be, and does not go with one that is taken away")
    guide = _teacher(opened.home)
    how: dict[str, Any] = {"strength": strength, "steps": steps, "steer": region}
    notes: list[str] = []
    asked: dict[str, Any] = {"label": network.classes[number], "seed": seed, "strength": strength, "steps": steps}
    if image is None:
        ready: Sequence[Callable[[], Item]] = [
            partial(_child, network, index, number, style, seed, how) for index in range(num)
        ]
        asked["style_label"] = style
    else:  # fitted before anything is written or a classifier is waited for: the fit may be refused
        real = from_uint8(_pixels(image, network, origin))[None, None]
        shown = _shown(network, guide, real, number, image_label)
        if not any_image:
            notes += _check_familiar(opened.home, None if other_data else data, image, real)
        if guide is not None and guide.classes == network.classes and shown == network.class_set.reference:
            seen = network.classes[_seen(guide, real)]
            if seen != network.classes[shown]:
                notes.append(f"the teacher already sees {seen} in the image, to which a disease was added")
        edited = _edited(network, guide, real, shown, number, image.name, seed, keep_residual, how)
        ready = [lambda: edited]
        asked["image"] = hashlib.sha256(real.numpy().tobytes()).hexdigest()
        asked |= {"image_label": network.classes[shown], "keep_residual": keep_residual}
    scorers, missing = _scorers(origin, data, other_data, network, guide)
    notes += missing
    with new_directory(out), progress_bar("counterfactuals") as bar:
        table = write_counterfactuals(
            out, network, ready, scorers, asked, steer=region, regions=steer, notes=notes,
            progress=lambda done: bar(done, num, ""),
        )  # fmt: skip
    for note in notes:
        console.print(note, highlight=False, markup=False, style="yellow")
    say(f"{num} counterfactuals: {table}")


def _child(
    network: GeneratorWithCAMGuidance, index: int, label: int, style: int | None, seed: int, how: dict[str, Any]
) -> Item:
    name = network.classes[label if style is None else style]
    strip = counterfactual_strip(network, index, label, seed=seed, style_label=style, **how)
    return Item(strip, {"index": index, "seed": seed, "label": network.classes[label], "style_label": name})


def _edited(
    network: GeneratorWithCAMGuidance,
    guide: CXR_CAM_Teacher | None,
    real: Tensor,
    shown: int,
    label: int,
    name: str,
    seed: int,
    keep_residual: bool,
    how: dict[str, Any],
) -> Item:
    """A real image, fitted with the class that it shows and edited to `label`. Raises InputError for a poor fit."""
    cams = None
    if guide is not None and shown != network.class_set.reference:
        with torch.no_grad():
            cams = guide(real).cams
    features = None if guide is None else _features(guide)
    with progress_bar("fit") as bar:
        found = project(
            network, real, shown, seed=seed, features=features, maps=cams,
            progress=lambda done, total: bar(done, total, ""),
        )  # fmt: skip
    found.check()
    console.print(
        f"the fit leaves {found.unexplained:.1%} of the image's variance"
        f"{', which is added to every picture again' if keep_residual else ''}"
    )
    fit = {
        "residual": round(found.residual, 6),
        "unexplained": round(found.unexplained, 6),
        "latent_unexplained": round(found.latent_unexplained, 6),
        "residual_kept": keep_residual,
    }
    facts = {"index": 0, "seed": seed, "label": network.classes[label], "image": name}
    strip = edit_real(network, found, label, keep_residual=keep_residual, **how)
    return Item(strip, facts | {"image_label": network.classes[shown], "fit": fit}, found)


def _check_familiar(home: Path, data: str | None, image: Path, real: Tensor) -> list[str]:
    """Refuses what is no X-ray like those that the model learnt from; says why where that could not be judged."""
    try:
        with progress_bar("real images") as bar:
            explainer = open_explainer(home, data=data, methods=(), device="cpu", progress=bar)
    except (CheckpointError, OfflineError) as error:
        return [f"whether the image is like those that the model learnt from could not be judged: {error}"]
    baseline = explainer.baseline
    if baseline is None or baseline.familiarity is None:
        return [f"whether the image is like those that the model learnt from: {explainer.notes[-1]}"]
    verdict = baseline.familiarity.judge(explainer.teacher, real)[0]
    if verdict.strange:
        raise InputError(
            f"--image (={image}) is {verdict.reason}; give a chest X-ray like those, or --any-image to edit it anyway"
        )
    return []


def _pixels(image: Path, network: GeneratorWithCAMGuidance, origin: Origin) -> UInt8Array:
    """A picture of any kind at the model's size, made square as its training images were."""
    try:  # what Pillow holds is read-only
        return load_pixels(read_bytes(image), network.resolution, origin.fit).copy()
    except UnusableError as error:
        raise DataError(
            f"--image (={image}) cannot be used: {error}; give a chest X-ray as PNG, JPEG or DICOM"
        ) from None


def _shown(
    network: GeneratorWithCAMGuidance, guide: CXR_CAM_Teacher | None, real: Tensor, wanted: int, named: str | None
) -> int:
    """The class that a real image is fitted with."""
    reference = network.class_set.reference
    if reference is None:
        raise InputError("--image needs a model with a class without disease, such as NORMAL; this one has none")
    given = None if named is None else label_number(network, named, "image_label")
    if wanted != reference:  # a disease is added to the image as it is
        if given not in (None, reference):
            raise InputError(
                f"--label (={network.classes[wanted]!r}) adds a disease to a child without one, but --image-label "
                f"(={named!r}) has one; take it away with --label {network.classes[reference]}"
            )
        return reference
    if given is None and (guide is None or guide.classes != network.classes):
        raise InputError(
            "--image-label is missing: the run has no teacher that could say which disease the image shows"
        )
    if given is None:
        assert guide is not None
        given = _seen(guide, real)
        if given == reference:
            raise InputError(
                f"--image shows {network.classes[reference]} to the teacher, so there is nothing to take away; "
                "name the disease with --image-label if it is wrong"
            )
    elif given == reference:
        raise InputError(f"--image-label (={named!r}) has no disease to take away; add one with --label")
    return given


def _teacher(home: Path) -> CXR_CAM_Teacher | None:
    """The teacher of the run, or None."""
    name = read_json(home / "settings.json").get("teacher")
    if name in (None, "none"):  # what a run calls its teacher comes first, as where it is explained
        own = home / "teacher"
        return open_teacher(str(own)).requires_grad_(False) if (own / "model.safetensors").exists() else None
    try:
        if not name.startswith(XRV_PREFIX):
            find_teacher(name)
    except CheckpointError:  # not there any more
        return None
    try:
        return open_teacher(name).requires_grad_(False)
    except OfflineError:
        return None


def _features(guide: CXR_CAM_Teacher) -> Callable[[Tensor], Tensor]:
    """The teacher's features, at the size that it works at."""
    side = guide.resolution

    def run(images: Tensor) -> Tensor:
        if images.shape[-1] != side:
            images = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
        return guide.backbone.features(images)

    return run


def _scorers(
    origin: Origin,
    data: str | None,
    other_data: bool,
    network: GeneratorWithCAMGuidance,
    guide: CXR_CAM_Teacher | None,
) -> tuple[dict[str, Scorer | None], list[str]]:
    """The teacher, and an independent classifier of the judge patients where the data can be had."""
    scorers: dict[str, Scorer | None] = {"teacher": None, "independent": None}
    notes = []
    if guide is None:
        notes.append("no teacher's scores: the model has no teacher beside it that can be opened")
    else:
        scorers["teacher"] = Scorer(guide.classes, state_hash(guide), lambda pixels: _predict(guide, pixels))
    source = data or origin.source
    if source is None:
        return scorers, [*notes, "no independent scores: without --data there are no patients to fit a classifier on"]
    try:
        images = load_images(source, network.resolution, fit=origin.fit)
        check_data(origin, images, other_data=other_data)
    except ExpressiveGANError as error:
        if data is not None:
            raise
        return scorers, [*notes, f"no independent scores: the run's data cannot be used ({error})"]
    if origin.data_hash != images.data_hash:
        said = "was trained on other data" if origin.data_hash else "does not say what it was trained on"
        notes.append(f"the independent classifier may know the generator's patients: the model {said}")
    chosen = images.indices("judge")
    with progress_bar("independent classifier") as bar:
        judge = JudgeClassifier.fit(
            np.asarray(images.images[chosen]), images.labels[chosen], images.classes,
            cache=cache_root() / "features", progress=lambda done, total, _: bar(done, total, ""),
        )  # fmt: skip
    return scorers | {"independent": Scorer(judge.classes, judge.identity, judge.predict)}, notes


def _seen(guide: CXR_CAM_Teacher, real: Tensor) -> int:
    """The teacher's likeliest class."""
    return int(_predict(guide, to_uint8(real)[:, 0].numpy()).argmax())


@torch.no_grad()
def _predict(guide: CXR_CAM_Teacher, pixels: UInt8Array) -> Any:
    return probabilities(guide(from_uint8(pixels)[:, None]).logits, guide.multi_label).numpy()
