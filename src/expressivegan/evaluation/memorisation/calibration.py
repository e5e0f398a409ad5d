"""From which likeness on a picture is a copy: more alike than strangers, and than two exposures of one child."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from expressivegan.evaluation.memorisation.distances import Floats, Ints, Pool, UInt8Array, likeness, search

SAME_FILE = 0.95
"""From here on two real pictures are one exposure, stored twice: neither a repeat nor strangers."""
_MARGIN = 0.02
_LEAST = 0.70
_MOST_STRANGERS = 1000
_MOST_REPEATS = 1000
_PER_PATIENT = 5


@dataclass(frozen=True)
class Calibration:
    """What real pictures say about likeness."""

    threshold: float
    """Likeness from which on a generated image counts as a near-duplicate."""
    blend_threshold: float
    """Multiple correlation with two pictures from which on an image counts as their blend."""
    repeats: Floats
    """Likeness of pairs of exposures of one patient, ascending; empty where no patient has two."""
    strangers: Floats
    """Likeness of each held-out image to its nearest training image, another patient's, ascending."""
    strangers_called_copies: tuple[int, int]
    """Held-out images that are near-duplicates of training images, files stored twice among them; and of how many."""
    same_file: int
    """Pairs left out because they are one exposure stored twice."""

    def repeats_called_copies(self) -> float:
        """Share of second exposures of one child that would be called a copy; NaN without any."""
        return float((self.repeats >= self.threshold).mean()) if len(self.repeats) else float("nan")


def calibrate(
    training: UInt8Array,
    training_patients: npt.NDArray[np.str_],
    training_pool: Pool,
    heldout: UInt8Array,
    rng: np.random.Generator,
) -> Calibration:
    """Near-duplicate thresholds from real pictures alone.

    The threshold lies a little above the likest strangers and the likest 1% of repeats, between 0.70 and 0.95.

    Args:
        training: uint8 (T, 64, 64).
        training_patients: (T,) names; pairs of one patient are repeats.
        training_pool: of `make_pool(training)`.
        heldout: uint8 (H, 64, 64), other patients.
        rng: picks at most 1,000 pairs of each sort.
    """
    pairs = _repeats(training_patients, rng)
    repeats = likeness(training[pairs[:, 0]], training[pairs[:, 1]]) if len(pairs) else np.zeros(0, np.float32)
    chosen = rng.permutation(len(heldout))[:_MOST_STRANGERS]
    found = search(heldout[chosen], training_pool, keep=1)
    strangers, blend = found.likeness[:, 0], found.blend
    one_file = int((repeats >= SAME_FILE).sum() + (strangers >= SAME_FILE).sum())
    likenesses, blend = strangers, blend[strangers < SAME_FILE]
    repeats, strangers = np.sort(repeats[repeats < SAME_FILE]), np.sort(strangers[strangers < SAME_FILE])
    threshold = near_duplicate_threshold(repeats, strangers)
    return Calibration(
        threshold=threshold,
        blend_threshold=float(min(max([_LEAST, *(blend + _MARGIN)]), SAME_FILE)),
        repeats=repeats,
        strangers=strangers,
        strangers_called_copies=(int((likenesses >= threshold).sum()), len(likenesses)),
        same_file=one_file,
    )


def near_duplicate_threshold(repeats: Floats, strangers: Floats) -> float:
    """Likeness a little above that of the likest strangers and of the likest 1% of repeats, none stored twice."""
    likest = max([_LEAST - _MARGIN, *strangers, *(np.quantile(repeats, [0.99]) if len(repeats) else [])])
    return float(min(likest + _MARGIN, SAME_FILE))


def _repeats(patients: npt.NDArray[np.str_], rng: np.random.Generator) -> Ints:
    """(P, 2) pairs of images of one patient, few of each."""
    _, inverse = np.unique(patients, return_inverse=True)
    pairs = []
    for images in np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1]):
        if len(images) > 1:
            shuffled = rng.permutation(images)[: _PER_PATIENT + 1]
            pairs.append(np.stack([shuffled[:-1], shuffled[1:]], axis=1))
    every = np.concatenate(pairs) if pairs else np.zeros((0, 2), np.int64)
    chosen: Ints = every[rng.permutation(len(every))[:_MOST_REPEATS]]
    return chosen
