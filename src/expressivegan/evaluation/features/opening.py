"""Feature spaces by name."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy.typing as npt

from expressivegan.errors import InputError
from expressivegan.evaluation.features.judge import JudgeClassifier, JudgeRecipe
from expressivegan.evaluation.features.onnx_file import open_onnx
from expressivegan.evaluation.features.own import open_module
from expressivegan.evaluation.features.pretrained import open_inception, open_rad_dino, open_xrv
from expressivegan.evaluation.features.selfsup import SelfSupervisedFeatures, SelfSupervisedRecipe
from expressivegan.evaluation.features.space import SPACES, Count, FeatureSpace, Progress
from expressivegan.images import UInt8Array

_ALONE = ("judge", "selfsup")
_MODULE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def open_space(
    name: str,
    *,
    images: UInt8Array | None = None,
    labels: npt.ArrayLike | None = None,
    classes: Sequence[str] = (),
    cache: Path | None = None,
    seed: int = 0,
    progress: Count | None = None,
    judge_recipe: JudgeRecipe | None = None,
    selfsup_recipe: SelfSupervisedRecipe | None = None,
) -> FeatureSpace:
    """A feature space by name, fitted, read or imported.

    Args:
        name: "judge", "selfsup", "xrv:NAME", "inception[:PATH]", "rad-dino[:PATH]", "module:NAME:ATTRIBUTE" (the
            prefix may be left out) or "onnx:PATH". See docs/features.md.
        images: uint8 (N, H, W) of the judge group, which `judge` and `selfsup` are fitted on.
        labels: (N,) indices into `classes`, for `judge`.
        classes: class names, for `judge`.
        cache: folder of the networks that are fitted here; published weights stay in their libraries' own folders.
        seed: of what is fitted.
        progress: called with (done, total) while something is fitted.
        judge_recipe: how `judge` is fitted; the default is the one that benchmarks use.
        selfsup_recipe: the same for `selfsup`.

    Raises:
        InputError: no such name, nothing to fit on, or a missing optional package.
        OfflineError: weights are neither here nor can they be downloaded.
        CheckpointError: a file is missing, damaged or something else.
        TrainingError: fitting ends in a loss that is not finite.
    """
    check_space(name)
    kind, _, rest = name.partition(":")
    step: Progress | None = None if progress is None else lambda done, total, _: progress(done, total)
    if kind in _ALONE:
        if images is None:
            raise InputError(f"features (={name!r}) are fitted on the judge group, but images is None; pass them")
        if kind == "selfsup":
            return SelfSupervisedFeatures.fit(images, recipe=selfsup_recipe, seed=seed, cache=cache, progress=step)
        if labels is None or not classes:
            raise InputError(f"features (={name!r}) need labels and classes of the judge group; pass them, or selfsup")
        return JudgeClassifier.fit(images, labels, classes, recipe=judge_recipe, seed=seed, cache=cache, progress=step)
    if kind == "xrv":
        return open_xrv(rest)
    if kind == "inception":
        return open_inception(Path(rest) if rest else None)
    if kind == "rad-dino":
        return open_rad_dino(Path(rest) if rest else None)
    if kind == "onnx":
        return open_onnx(Path(rest))
    return open_module(*(rest if kind == "module" else name).split(":"))


def check_space(name: str) -> None:
    """Raises InputError unless a feature space may be called so."""
    kind, _, rest = name.partition(":")
    if kind in _ALONE:
        known = not rest
    elif kind in ("xrv", "onnx"):
        known = bool(rest)
    else:
        known = kind in ("inception", "rad-dino") or bool(_MODULE.fullmatch(rest if kind == "module" else name))
    if not known:
        raise InputError(f"features (={name!r}) must be one of {', '.join(SPACES)}")
