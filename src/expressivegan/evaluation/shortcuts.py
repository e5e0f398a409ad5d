"""Do synthetic images amplify shortcuts? How well the label can be told from what is not disease, in either set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from expressivegan.data.doctor.border import frame_cells
from expressivegan.data.doctor.crossval import LEAST_PATIENTS, large_classes, out_of_fold, within_folds
from expressivegan.errors import InputError
from expressivegan.evaluation.agreement import auc_draws, interval_of, sample_and_draws
from expressivegan.evaluation.anatomy.landmarks import Landmarks, check_pixels, landmarks
from expressivegan.evaluation.anatomy.report import check_labels, check_landmarks
from expressivegan.intervals import Floats, Interval, Ints, plain
from expressivegan.streams import derive_seed

GEOMETRY = ("midline", "tilt", "thorax_width", "lung_top", "lung_height", "body")
"""Landmarks that say how a chest was framed and stretched, rather than how ill it is."""
_STRENGTH = {"frame": 0.01, "geometry": 1.0}  # inverse regularisation of the logistic regression
_SIDE = 64
_LEAST_TO_WARN = 50  # images a class: with 15, one honest set in six would be accused
_FAR = 0.05  # of AUC; folds differ by more than the intervals, with models as they are, know
QUIET = f"neither frame nor proportions surely tell the label {_FAR:.2f} of AUC better than in real images"
"""What no warning means."""
_LESS = 0.02  # less of a shortcut is worth a sentence, and no warning


@dataclass(frozen=True, eq=False)
class ShortcutReport:
    """What `shortcut_report` found."""

    figures: dict[str, dict[str, Interval]]
    """ "frame" and "geometry" → mean over classes of the AUC against the rest: real and fake (cross-validated), their
    difference (fake - real), real_to_fake and fake_to_real (learned on the first, tested on the second)."""
    n: dict[str, int]
    """Images of each class on either side: equal, since more images make better shortcuts."""
    warnings: tuple[str, ...]
    sentences: tuple[str, ...]
    """One for each of the figures, whatever it says."""

    def as_json(self) -> dict[str, Any]:
        """Ready for `json.dumps`; NaN as null."""
        return {
            "figures": plain(self.figures),
            "n": self.n,
            "warnings": list(self.warnings),
            "sentences": list(self.sentences),
        }


def shortcut_report(
    real: npt.NDArray[np.uint8],
    real_labels: npt.ArrayLike,
    real_patients: npt.ArrayLike,
    fake: npt.NDArray[np.uint8],
    fake_labels: npt.ArrayLike,
    classes: Sequence[str],
    *,
    fake_patients: npt.ArrayLike | None = None,
    real_landmarks: Landmarks | None = None,
    fake_landmarks: Landmarks | None = None,
    rounds: int = 500,
    seed: int = 0,
) -> ShortcutReport:
    """AUC of the label from the outer 10% of the frame, and from the geometry of the chest, in real and synthetic.

    The intervals draw patients, with the models as they are; fits are not repeated.

    Args:
        real: uint8 (N, H, W) reference images.
        real_labels: (N,) indices into `classes`.
        real_patients: (N,) names; folds and draws keep their images together.
        fake: uint8 (M, H', W').
        fake_labels: (M,).
        classes: names.
        fake_patients: (M,) names of latents that repeat; None takes every image for its own.
        real_landmarks: of `real`, if they are known already.
        fake_landmarks: of `fake`.
        rounds: bootstrap draws.
        seed: of subsets, folds and draws.

    Raises:
        InputError: wrong shapes or labels, rounds < 1, or fewer than two classes with 10 patients on both sides.
    """
    sides = []
    given = (
        ("real", real, real_labels, real_patients, real_landmarks),
        ("fake", fake, fake_labels, fake_patients, fake_landmarks),
    )
    for name, images, labels, patients, found in given:
        check_pixels(images, name)
        checked = check_labels(labels, len(images), len(classes), f"{name}_labels")
        who = np.arange(len(images)).astype(str) if patients is None else np.asarray(patients).astype(str)
        if who.shape != (len(images),):
            raise InputError(f"{name}_patients of shape {who.shape} must name each of {len(images)} images")
        check_landmarks(found, len(images), name)
        sides.append((images, checked, who, found))
    if rounds < 1:
        raise InputError(f"rounds (={rounds}) must be at least 1")
    kept = [
        k
        for k in range(len(classes))
        if all(len(set(who[labels == k])) >= LEAST_PATIENTS for _, labels, who, _ in sides)
    ]
    if len(kept) < 2:
        raise InputError(
            f"only {len(kept)} of the classes {', '.join(classes)} have {LEAST_PATIENTS} patients among real and among "
            "synthetic images; two are needed to tell a label"
        )
    counts = {k: min(int((labels == k).sum()) for _, labels, _, _ in sides) for k in kept}
    rng = np.random.default_rng(derive_seed(seed, "evaluation.shortcuts"))
    halves = [_Half(*side, counts, rng, rounds) for side in sides]
    figures = {kind: _figures(kind, *halves) for kind in _STRENGTH}
    said = {kind: _sentence(kind, row) for kind, row in figures.items()}
    # The intervals know nothing of how the classifiers were fitted: of few images they are too narrow to accuse anyone.
    enough = min(counts.values()) >= _LEAST_TO_WARN
    warnings = [text for kind, text in said.items() if enough and figures[kind]["difference"].low > _FAR]
    left_out = [name for k, name in enumerate(classes) if k not in kept]
    if left_out:
        warnings.append(f"{', '.join(left_out)} left out: fewer than {LEAST_PATIENTS} patients on one side")
    return ShortcutReport(figures, {classes[k]: n for k, n in counts.items()}, tuple(warnings), tuple(said.values()))


class _Half:
    """Real or synthetic images, cut to given counts per class, with what a shortcut may read."""

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        labels: Ints,
        patients: npt.NDArray[np.str_],
        found: Landmarks | None,
        counts: dict[int, int],
        rng: np.random.Generator,
        rounds: int,
    ) -> None:
        chosen = np.sort(np.concatenate([rng.permutation(np.flatnonzero(labels == k))[:n] for k, n in counts.items()]))
        renamed = {k: i for i, k in enumerate(counts)}
        self.labels: Ints = np.array([renamed[int(k)] for k in labels[chosen]], np.int64)
        self.patients = patients[chosen]
        if len(large_classes(self.labels, self.patients)) < len(counts):
            raise InputError(
                f"at equal numbers a class keeps fewer than {LEAST_PATIENTS} patients; more images are needed"
            )
        self.weights = sample_and_draws(self.patients, rounds, int(rng.integers(1 << 31)))
        found = landmarks(images[chosen]) if found is None else found.take(chosen)
        geometry = np.stack([getattr(found, name) for name in GEOMETRY], 1)
        middle = np.nan_to_num([np.nanmedian(c) if np.isfinite(c).any() else 0.0 for c in geometry.T])
        self.features: dict[str, Floats] = {
            "frame": frame_cells(_square(images[chosen])).astype(np.float64),
            "geometry": np.where(np.isfinite(geometry), geometry, middle),
        }

    def auc(self, chance: Floats) -> Floats:
        """Mean over classes of the AUC against the rest, for each draw."""
        each = [auc_draws(self.labels == k, chance[:, k], self.weights) for k in range(chance.shape[1])]
        mean: Floats = np.mean(each, axis=0)
        return mean


def _square(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """One size for both sides: where one were resampled and the other not, that alone would tell them apart."""
    if images.shape[1:] == (_SIDE, _SIDE):
        return images
    x = torch.from_numpy(np.ascontiguousarray(images, np.float32))[:, None]
    x = F.interpolate(x, (_SIDE, _SIDE), mode="bilinear", antialias=True)
    return x[:, 0].round().clamp(0, 255).to(torch.uint8).numpy()


def _figures(kind: str, real: _Half, fake: _Half) -> dict[str, Interval]:
    strength = _STRENGTH[kind]
    inside = []
    for half in (real, fake):
        chance, fold = out_of_fold(half.features[kind], half.labels, half.patients, strength=strength)
        inside.append(half.auc(np.stack([within_folds(column, fold) for column in chance.T], 1)))
    across = []
    for learn, judge in ((real, fake), (fake, real)):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
        model.fit(learn.features[kind], learn.labels)
        across.append(judge.auc(model.predict_proba(judge.features[kind])))
    return {
        "real": interval_of(inside[0]),
        "fake": interval_of(inside[1]),
        "difference": interval_of(inside[1] - inside[0]),
        "real_to_fake": interval_of(across[0]),
        "fake_to_real": interval_of(across[1]),
    }


def _sentence(kind: str, row: dict[str, Interval]) -> str:
    what = "the outer 10% of the frame" if kind == "frame" else "the framing and proportions of the chest"
    figures = f"AUC {row['fake'].value:.2f} against {row['real'].value:.2f} among real images"
    if row["difference"].low > _FAR:
        return f"Synthetic images amplify a shortcut: {what} tells their label better ({figures})"
    if row["difference"].high < -_LESS:
        return f"Synthetic images carry less of a shortcut: {what} tells their label less well ({figures})"
    return f"Synthetic images carry about the shortcut of real ones: {what} tells the label alike ({figures})"
