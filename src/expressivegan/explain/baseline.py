"""What real images say, once for each model: the zero of D's evidence, and what a familiar picture is.

Pictures are held against the training patients' images; zero points and thresholds come from the judge patients, whom
neither the teacher nor the discriminator has learnt from.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from expressivegan.checkpoint import load_checkpoint, make_directory, save_checkpoint, state_hash
from expressivegan.data import ImageSet
from expressivegan.data.cache import cache_root
from expressivegan.errors import CheckpointError, DataError
from expressivegan.explain.familiar import Array, Familiarity, fit_familiarity, views
from expressivegan.explain.maps import Reference
from expressivegan.models import DiscriminatorWithExplain
from expressivegan.teacher import CXR_CAM_Teacher

Progress = Callable[[int, int, str], None]

VERSION = 1
FILE = "explain.ckpt"
LEAST_IMAGES = 8  # of a class, for a mean map
MOST_IMAGES = 4000  # of a group: more would cost time and change nothing
_BATCH = 128


def silent(done: int, total: int, words: str) -> None:
    """A `Progress` that shows nothing."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """What was learnt from real images.

    Attributes:
        data_hash: of the data set that they are from.
        reference: D's evidence on them, or None without a discriminator that explains.
        familiarity: what they look like, or None where there are too few patients.
    """

    data_hash: str
    reference: Reference | None
    familiarity: Familiarity | None


def model_hash(teacher: CXR_CAM_Teacher, D: DiscriminatorWithExplain | None, fit: str) -> str:
    """What a baseline belongs to."""
    parts = [state_hash(teacher), "" if D is None else state_hash(D), fit, str(VERSION)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def make_baseline(
    data: ImageSet,
    teacher: CXR_CAM_Teacher,
    D: DiscriminatorWithExplain | None,
    device: str = "cpu",
    progress: Progress = silent,
) -> Baseline:
    """Learns from real images; about a minute for four thousand at 64 px on one core.

    Args:
        data: at the resolution of the discriminator, or of the teacher without one.
        teacher, D: in evaluation mode, on `device`.
        progress: called with (done, total, a few words).
    """
    learnt, held = (_some(data.indices(group)) for group in ("train", "judge"))
    total = len(learnt) + len(held)

    def seen(indices: npt.NDArray[np.int64], before: int) -> dict[str, Array]:
        parts = []
        for start in range(0, len(indices), _BATCH):
            progress(before + start, total, "learning what real images look like")
            parts.append(views(teacher, data.batch(indices[start : start + _BATCH])[0].to(device)))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    familiarity = None
    if len(learnt) and len(held):
        familiarity = fit_familiarity(
            seen(learnt, 0), data.labels[learnt], seen(held, len(learnt)), data.patients[held]
        )
    progress(total, total, "")
    return Baseline(data.data_hash, None if D is None else _reference(data, held, D, device), familiarity)


def _some(indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """At most MOST_IMAGES, evenly spread."""
    return indices[:: max(1, -(-len(indices) // MOST_IMAGES))]


@torch.no_grad()
def _reference(
    data: ImageSet, held: npt.NDArray[np.int64], D: DiscriminatorWithExplain, device: str
) -> Reference | None:
    names = D.class_set.names
    grid = 2 * (7 if D.resolution % 7 == 0 else 4)
    means = torch.zeros(D.class_set.count, grid, grid)
    counts = torch.zeros(D.class_set.count, dtype=torch.long)
    ends = torch.zeros(D.class_set.count, 2)
    rest = []
    for k in range(D.class_set.count):
        if names and names[k] not in data.classes:
            continue
        chosen = held[data.labels[held] == data.classes.index(names[k])] if names else held
        if len(chosen) < LEAST_IMAGES:
            continue
        maps = []
        for start in range(0, len(chosen), _BATCH):
            x = data.batch(chosen[start : start + _BATCH])[0].to(device)
            labels = torch.full((len(x),), k, device=device) if names else None
            maps.append(D.explain(x, labels).evidence[:, 0].float().cpu())
        evidence = torch.cat(maps)
        means[k], counts[k] = evidence.mean(0), len(evidence)
        difference = evidence - means[k]
        ends[k] = difference.mean(dim=(1, 2)).quantile(torch.tensor([0.025, 0.975]))
        rest.append(difference.abs().flatten())
    if not rest:
        return None
    spread = float(np.quantile(torch.cat(rest).numpy(), 0.99))
    return Reference(means, counts, max(spread, 1e-6), ends)


def places(model: Path, key: str) -> list[Path]:
    """Where baselines of a model may stand: with it, and in the user's cache, one for each set of real images."""
    return [model / FILE, *sorted((cache_root() / "explain").glob(f"{key[:32]}*.ckpt"))]


def find_baseline(model: Path, key: str, data_hash: str | None = None) -> Baseline | None:
    """The stored baseline of a model, of the given data if any are given; None where there is none that can be read."""
    for path in places(model, key):
        with suppress(CheckpointError, KeyError):
            state = load_checkpoint(path)
            if state["key"] == key and data_hash in (None, state["data_hash"]):
                return Baseline(
                    state["data_hash"],
                    None if state["reference"] is None else Reference.from_state(state["reference"]),
                    None if state["familiarity"] is None else Familiarity.from_state(state["familiarity"]),
                )
    return None


def keep_baseline(baseline: Baseline, model: Path, key: str, with_model: bool = False) -> None:
    """Stores a baseline in the user's cache, and with the model if that is asked for.

    Raises:
        InputError: the model's folder cannot be written to.
    """
    state: dict[str, Any] = {
        "key": key,
        "data_hash": baseline.data_hash,
        "reference": None if baseline.reference is None else baseline.reference.to_state(),
        "familiarity": None if baseline.familiarity is None else baseline.familiarity.to_state(),
    }
    cached = cache_root() / "explain" / f"{key[:32]}-{baseline.data_hash[:16]}.ckpt"
    if with_model:
        save_checkpoint(make_directory(model, "--model") / FILE, state)
    with suppress(OSError, CheckpointError, DataError):  # a cache that cannot be kept is no reason to stop
        cached.parent.mkdir(exist_ok=True)
        save_checkpoint(cached, state)
