"""A model directory → an explainer, with what real images say."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast, get_args

from expressivegan.checkpoint import open_model, read_json
from expressivegan.data import Fit, ImageSet, load_images
from expressivegan.devices import Device, resolve_device
from expressivegan.errors import CheckpointError, ExpressiveGANError, InputError, OfflineError
from expressivegan.explain.baseline import (
    Baseline,
    Progress,
    find_baseline,
    keep_baseline,
    make_baseline,
    model_hash,
    silent,
)
from expressivegan.explain.explainer import Explainer
from expressivegan.explain.familiar import LEAST_PATIENTS
from expressivegan.explain.maps import has_mean
from expressivegan.explain.peers import METHODS, Method, check_methods, missing_library
from expressivegan.models import DiscriminatorWithExplain
from expressivegan.synthesis.origin import origin_of
from expressivegan.teacher import CXR_CAM_Teacher, open_teacher
from expressivegan.teacher.backbone import XRV_PREFIX
from expressivegan.weights import find_model, find_teacher, is_shipped


def open_explainer(
    model: str | Path,
    *,
    data: str | Path | None = None,
    methods: Sequence[Method] | None = None,
    device: Device = "auto",
    store: bool = False,
    label: str | None = None,
    progress: Progress | None = None,
) -> Explainer:
    """Opens a run, or a teacher's model directory, for explaining images.

    What real images say (the zero of D's evidence, what is familiar) is computed once and kept in the user's cache.

    Args:
        model: a run with teacher/ and discriminator/, a teacher alone, or the name of a model that is shipped.
        data: the real images that the model was trained on; by default those that the run remembers.
        methods: of other libraries; by default all where the extra `explain` is installed.
        device: where to compute.
        store: also keep with the model what real images say, so that it explains without them; only of the data that
            it was trained on.
        label: a class that will be asked for, to be refused before anything is computed.
        progress: called with (done, total, a few words) while learning from real images.

    Raises:
        CheckpointError: no such model, or one with neither teacher nor explaining discriminator.
        InputError: an unknown method, device or class, a method whose library is missing, or other data to store.
        DataError: `data` cannot be read.
    """
    path = find_model(model)
    if store and is_shipped(path):
        raise InputError(
            f"store (=True) would write into the package, which model (={model}) comes with; leave it out, for your "
            "cache keeps what real images say, too"
        )
    notes: list[str] = []
    if methods is None:
        absent = missing_library()
        methods = () if absent else METHODS
        if absent:
            notes.append(f"left out: {', '.join(METHODS)}: {absent} is missing: pip install 'expressivegan[explain]'")
    else:
        check_methods(methods)
    where = resolve_device(device)
    teacher, D, fit = networks_of_run(path, notes)
    if teacher is None:
        raise CheckpointError(
            f"model (={path}) was trained without a teacher, so there is none to explain with; fit one with "
            "expressivegan teach and give its folder"
        )
    teacher.requires_grad_(False).to(where)
    if D is not None:
        D.requires_grad_(False).to(where)
    if not has_mean(teacher):
        notes.append("left out: merged-mean: without a reference class the maps sum to 0, and so does their mean")
    found = Explainer(teacher, D, None, fit, tuple(methods), (), where)
    found.check_label(label)
    found.baseline = _baseline(path, teacher, D, fit, data, where, store, notes, progress or silent)
    found.notes = tuple(notes)
    return found


def networks_of_run(
    path: str | Path, notes: list[str], missing: dict[str, str] | None = None
) -> tuple[CXR_CAM_Teacher | None, DiscriminatorWithExplain | None, Fit]:
    """Teacher and discriminator of a run, or a lone teacher, in evaluation mode, and how images are made square.

    Args:
        path: a run, a teacher's model directory, or the name of a model that is shipped.
        notes: gets a sentence on why there is no discriminator.
        missing: where given, a teacher whose named weights cannot be had is None, and `teacher` here says why.

    Returns:
        The teacher is None for a run that was trained without one.

    Raises:
        OfflineError: named weights that cannot be had, unless there is `missing` to say so.
        CheckpointError: neither of the two, a teacher that is not there any more, or a damaged network.
    """
    path = find_model(path)
    settings = read_json(path / "settings.json")
    if not settings and (path / "config.json").is_file():
        return _lone_teacher(path, notes), None, _fit_of_teacher(path)
    if not settings and not any((path / name).is_dir() for name in ("teacher", "discriminator")):
        raise CheckpointError(f"model (={path}) holds no run and no teacher; give a folder that train or teach wrote")
    name = settings.get("teacher")
    unguided = name == "none" and not (path / "teacher").is_dir()
    named = isinstance(name, str) and name != "none"
    try:
        if named and not str(name).startswith(XRV_PREFIX):
            find_teacher(str(name))
    except CheckpointError as error:
        gone = f"model (={path}) was guided by the teacher {name}, which is not there any more"
        raise CheckpointError(gone) from error
    try:
        teacher = None if unguided else open_teacher(str(name) if named else str(path / "teacher"))
    except OfflineError as error:
        if missing is None:
            raise
        teacher, missing["teacher"] = None, str(error)
    config = settings.get("config", {})
    fit = cast("Fit", config["fit"]) if config.get("fit") in get_args(Fit) else "stretch"
    if config.get("method") == "dcgan":
        notes.append("left out: discriminator: that of the dcgan baseline has a heatmap that decomposes nothing")
        return teacher, None, fit
    if not (path / "discriminator").is_dir():
        notes.append("left out: discriminator: this run has not written one yet")
        return teacher, None, fit
    return teacher, open_model(DiscriminatorWithExplain, path / "discriminator").eval(), fit


def _fit_of_teacher(path: Path) -> Fit:
    """How the pictures became square that a lone teacher, or that of a run, was fitted on."""
    run = read_json(path.parent / "settings.json").get("config", {}) if path.name == "teacher" else {}
    fit = read_json(path / "expressivegan.json").get("fit", run.get("fit"))
    return cast("Fit", fit) if fit in get_args(Fit) else "stretch"


def _lone_teacher(path: Path, notes: list[str]) -> CXR_CAM_Teacher:
    if "meth" not in read_json(path / "config.json"):
        raise CheckpointError(
            f"model (={path}) is a generator's or a discriminator's folder, and explaining needs a teacher; give the "
            "run that holds it, or a teacher's folder"
        )
    notes.append("left out: discriminator: a teacher's folder holds none")
    return open_teacher(str(path))


def _baseline(
    path: Path,
    teacher: CXR_CAM_Teacher,
    D: DiscriminatorWithExplain | None,
    fit: Fit,
    data: str | Path | None,
    device: str,
    store: bool,
    notes: list[str],
    progress: Progress,
) -> Baseline | None:
    key, origin = model_hash(teacher, D, fit), origin_of(path)
    found = find_baseline(path, key, origin.data_hash) if data is None else None
    if found is None:
        images = _real_images(path, teacher.resolution if D is None else D.resolution, fit, data, notes)
        if images is not None:
            if store and origin.data_hash not in (None, images.data_hash):
                # It would never be found, in the place of what is
                raise InputError(
                    f"store (=True) keeps what the images of the training say, and data (={data or origin.source}) are "
                    f"others (hash {images.data_hash[:12]}, not {str(origin.data_hash)[:12]}); leave it out, for your "
                    "cache keeps what they say, too"
                )
            found = find_baseline(path, key, images.data_hash)
            if found is None:
                found = make_baseline(images, teacher, D, device, progress)
                keep_baseline(found, path, key)
    if found is None:
        notes.append("no real images (--data): evidence is unreferenced, and whether a picture is a chest X-ray like "
                     "those of the training set could not be judged")  # fmt: skip
        return None
    if store:
        keep_baseline(found, path, key, with_model=True)
    if D is not None and found.reference is None:
        notes.append("evidence is unreferenced: the data hold too few held-out images of each class")
    if found.familiarity is None:
        notes.append(f"familiarity could not be judged: fewer than {LEAST_PATIENTS} held-out patients")
    return found


def _real_images(path: Path, resolution: int, fit: Fit, data: str | Path | None, notes: list[str]) -> ImageSet | None:
    origin = origin_of(path)
    source = data if data is not None else origin.source
    if source is None:
        return None
    try:
        images = load_images(source, resolution, fit=fit, progress=False)
    except ExpressiveGANError as error:
        if data is not None:
            raise
        notes.append(f"the data that the model names cannot be read: {error}")
        return None
    if origin.data_hash not in (None, images.data_hash):
        notes.append(f"data (={source}) are not those that the model was trained on: zero points are theirs")
    return images
