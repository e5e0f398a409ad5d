"""Everything about memorisation for one set of generated images: figures, gallery, and a verdict in plain words."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from expressivegan.evaluation.memorisation.calibration import Calibration, calibrate
from expressivegan.evaluation.memorisation.distances import Floats, Ints, Pool, UInt8Array, make_pool, prepare, search
from expressivegan.evaluation.memorisation.findings import ClassRow, Searched, by_class, findings
from expressivegan.evaluation.memorisation.gallery import ClosePair
from expressivegan.evaluation.memorisation.inputs import (
    checked_generated_labels,
    checked_images,
    checked_labels,
    checked_patients,
)
from expressivegan.evaluation.memorisation.membership import Membership, attack, equal_mix
from expressivegan.evaluation.memorisation.permutation import ALPHA, EqualPools
from expressivegan.evaluation.memorisation.words import notes, verdict
from expressivegan.intervals import Interval, plain
from expressivegan.streams import derive_seed

Progress = Callable[[int, int, str], None]
"""(images done, of how many, doing what)."""

KEEP = 12
SHORTLIST = (9, 6)
_ATTACK_SHORTLIST = (5, 2)
_GALLERY = 24


@dataclass(frozen=True)
class MemorisationReport:
    """What `memorisation_report` found. Shares lie in [0, 1]."""

    generated: int
    training: int
    heldout: int
    """Numbers of images."""
    flagged: bool
    """p_value < 0.05."""
    verdict: str
    """One to three plain sentences."""
    p_value: float
    """Of the null hypothesis that training patients are no nearer than held-out ones; see `permutation.Excess`."""
    p_lean: float
    p_copies: float
    equal_pools: EqualPools
    """Share of images nearest to a training picture, and excess of near-duplicates, with pools of one size."""
    copies: int
    """Generated images that are near-duplicates of some training picture,"""
    copies_share: Interval
    copies_heldout: int
    """and of some held-out picture: what chance gives."""
    copied_patients: int
    """Training patients of whom there are near-duplicates."""
    blends: int
    """Generated images that two training pictures explain as a blend,"""
    blends_heldout: int
    """and two held-out ones."""
    calibration: Calibration
    membership: Membership
    by_class: dict[str, ClassRow]
    """Class → the same for it alone; empty without labels of the generated images."""
    gallery: tuple[ClosePair, ...]
    """Closest first."""
    nearest_training: Floats
    """(N,) likeness of each generated image to its nearest training picture, among the likeliest 12 of both pools;
    -1 where none of them is a training picture."""
    nearest_heldout: Floats
    notes: tuple[str, ...]
    """What limits these figures."""

    @property
    def suspect(self) -> bool:
        """Something gives training patients away: all images together, those of one class, or the attack."""
        return self.flagged or self.membership.leaks or any(row.flagged for row in self.by_class.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists for JSON; NaN becomes None. Arrays are given by quantiles."""
        calibration = self.calibration
        return plain(  # type: ignore[no-any-return]
            {
                "generated": self.generated,
                "training": self.training,
                "heldout": self.heldout,
                "flagged": self.flagged,
                "suspect": self.suspect,
                "verdict": self.verdict,
                "p_value": self.p_value,
                "p_lean": self.p_lean,
                "p_copies": self.p_copies,
                "nearest_in_training": self.equal_pools.share,
                "excess_copies": self.equal_pools.excess,
                "copies": self.copies,
                "copies_share": self.copies_share,
                "copies_heldout": self.copies_heldout,
                "copied_patients": self.copied_patients,
                "blends": self.blends,
                "blends_heldout": self.blends_heldout,
                "threshold": calibration.threshold,
                "blend_threshold": calibration.blend_threshold,
                "repeats": {
                    "pairs": len(calibration.repeats),
                    "called_copies": calibration.repeats_called_copies(),
                    "likeness": _quantiles(calibration.repeats),
                },
                "strangers": {
                    "images": len(calibration.strangers),
                    "likeness": _quantiles(calibration.strangers),
                },
                "same_file": calibration.same_file,
                "likeness_training": _quantiles(self.nearest_training),
                "likeness_heldout": _quantiles(self.nearest_heldout),
                "membership": _attack(self.membership),
                "by_class": {name: _row(row) for name, row in self.by_class.items()},
                "gallery": [asdict(pair) for pair in self.gallery],
                "notes": self.notes,
            }
        )


def _quantiles(values: Floats) -> dict[str, float]:
    known = values[values > -1]
    marks = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
    return {f"{m:g}": float(np.quantile(known, m)) if len(known) else float("nan") for m in marks}


def _attack(found: Membership) -> dict[str, Any]:
    return {"auc": found.auc, "tpr_at_1_percent_fpr": found.tpr, "leaks": found.leaks}


def _row(row: ClassRow) -> dict[str, Any]:
    found: dict[str, Any] = {"generated": row.generated, "training": row.training, "heldout": row.heldout}
    found["flagged"] = row.flagged
    if row.findings is not None:
        found |= {
            "p_value": row.findings.excess.p_value,
            "nearest_in_training": row.findings.equal_pools.share,
            "excess_copies": row.findings.equal_pools.excess,
            "copies": row.findings.copies,
            "copies_share": row.findings.copies_share,
            "copies_heldout": row.findings.copies_heldout,
            "copied_patients": row.findings.copied_patients,
        }
    if row.membership is not None:
        found["membership"] = _attack(row.membership)
    return found


def memorisation_report(
    generated: UInt8Array,
    training: UInt8Array,
    heldout: UInt8Array,
    *,
    training_patients: Sequence[str] | npt.NDArray[np.str_],
    heldout_patients: Sequence[str] | npt.NDArray[np.str_],
    labels: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    generated_labels: npt.ArrayLike | None = None,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> MemorisationReport:
    """Does a generator repeat its training images?

    Held-out patients stand for chance: they must come from the same source as the training patients, dealt at random,
    and neither the generator nor anything that it learnt from may have seen them. Pools may differ in size.

    Args:
        generated: uint8 (N, H, W), N >= 20. 2,000 and more are needed to see that 2% are copies.
        training: uint8 (T, H, W), T >= 20, of at least 10 patients: what the generator learnt from.
        heldout: uint8 (M, H, W), M >= 20, of at least 10 other patients.
        training_patients: T names.
        heldout_patients: M names.
        labels: classes of the training and of the held-out images, any integers; where given, patients are permuted
            within classes, so that pools of unlike class mix do not look like memorisation.
        generated_labels: (N,) classes of the generated images, for a row of figures for each class; needs `labels`.
        classes: names of the classes, by label; default their numbers.
        seed: of draws and permutations.
        progress: told (images done, of how many, doing what).

    Raises:
        InputError: shapes, types or lengths that do not fit, too few images or patients, a patient in both pools,
            pools that hold the same pictures, or labels of the generated images alone.
    """
    images = checked_images((generated, training, heldout))
    patients = checked_patients((training_patients, heldout_patients), images[1:])
    real = checked_labels(labels, images[1:])
    made, names = checked_generated_labels(generated_labels, len(images[0]), None if labels is None else real, classes)
    return _report([prepare(i) for i in images], patients, real, made, names, seed, progress or (lambda *step: None))


def _report(
    images: list[UInt8Array],
    patients: list[npt.NDArray[np.str_]],
    real_labels: Ints,
    labels: Ints | None,
    names: dict[int, str],
    seed: int,
    progress: Progress,
) -> MemorisationReport:
    generated, training, heldout = images
    rng = np.random.default_rng(derive_seed(seed, "evaluation.memorisation"))
    of = len(generated) + len(training) + len(heldout)
    training_pool = make_pool(training)
    calibration = calibrate(training, patients[0], training_pool, heldout, rng)
    del training_pool

    both, owner, in_training, strata, order = _together(patients, real_labels, training, heldout, rng)
    pool = make_pool(both)
    progress(0, of, "nearest real images")
    found = search(generated, pool, KEEP, SHORTLIST, progress=lambda done: progress(done, of, "nearest real images"))
    searched = Searched(found, owner, order < len(training), in_training, strata, calibration)
    odds = len(training) / (len(training) + len(heldout))
    every = findings(searched, np.arange(len(generated)), odds, rng)
    blends = _blends(searched)
    gallery = _gallery(generated, searched.nearest[0], pool, order, len(training))
    del pool

    score = search(
        both,
        make_pool(generated),
        1,
        _ATTACK_SHORTLIST,
        blends=False,
        progress=lambda done: progress(len(generated) + done, of, "membership inference"),
    ).likeness[:, 0]
    attack_seed = derive_seed(seed, "evaluation.memorisation.attack")
    alike = equal_mix(real_labels[order], searched.member, np.random.default_rng(attack_seed))
    membership = attack(score[alike], searched.member[alike], owner[alike].astype(str), attack_seed)
    rows = {} if labels is None else by_class(searched, labels, real_labels[order], score, names, odds, seed)
    flagged = every.excess.p_value < ALPHA
    return MemorisationReport(
        generated=len(generated),
        training=len(training),
        heldout=len(heldout),
        flagged=flagged,
        verdict=verdict(flagged, every, blends, membership, rows),
        p_value=every.excess.p_value,
        p_lean=every.excess.p_lean,
        p_copies=every.excess.p_copies,
        equal_pools=every.equal_pools,
        copies=every.copies,
        copies_share=every.copies_share,
        copies_heldout=every.copies_heldout,
        copied_patients=every.copied_patients,
        blends=blends[0],
        blends_heldout=blends[1],
        calibration=calibration,
        membership=membership,
        by_class=rows,
        gallery=gallery,
        nearest_training=searched.nearest[0],
        nearest_heldout=searched.nearest[1],
        notes=tuple(notes(images, calibration, len(np.unique(patients[1])), rows)),
    )


def _together(
    patients: list[npt.NDArray[np.str_]],
    classes: Ints,
    training: UInt8Array,
    heldout: UInt8Array,
    rng: np.random.Generator,
) -> tuple[UInt8Array, Ints, npt.NDArray[np.bool_], Ints, Ints]:
    """Both pools in one random order, so that ties fall to either: pictures, owners; pool and stratum of each patient.

    The last result gives each picture's place in training followed by held-out.
    """
    order = rng.permutation(len(training) + len(heldout)).astype(np.int64)
    both = np.concatenate([training, heldout])[order]
    names, every = np.unique(np.concatenate(patients), return_inverse=True)
    in_training = np.isin(names, patients[0])
    exposures = np.searchsorted([1, 2, 5], np.bincount(every), "left")  # 1, 2, 3 to 5, more
    first = np.zeros(len(names), np.int64)
    first[every[::-1]] = classes[::-1]
    strata: Ints = first * 4 + exposures
    return both, every[order].astype(np.int64), in_training, strata, order


def _blends(searched: Searched) -> list[int]:
    found, calibration = searched.found, searched.calibration
    blended = (found.blend >= calibration.blend_threshold) & (found.parents[:, 0] >= 0)
    # a copy of one picture is explained by that and any second one as well
    blended &= found.likeness[:, 0] < np.sqrt(np.clip(found.blend**2 - 0.1, 0, 1))
    parents = searched.member[found.parents[blended]]
    return [int(parents.all(1).sum()), int((~parents).all(1).sum())]


def _gallery(generated: UInt8Array, nearest: Floats, pool: Pool, order: Ints, split: int) -> tuple[ClosePair, ...]:
    chosen = np.argsort(-nearest, kind="stable")[:_GALLERY]
    sides = []
    for mask in (order < split, order >= split):
        rows = np.flatnonzero(mask)
        part = Pool(pool.detail[rows], pool.spectrum[rows], pool.vectors[rows], pool.small[rows], pool.mean, pool.basis)
        found = search(generated[chosen], part, 1, SHORTLIST, blends=False)
        sides.append((order[rows[found.index[:, 0]]], found.likeness[:, 0], found.mirrored[:, 0]))
    (train, train_like, train_turned), (held, held_like, held_turned) = sides
    pairs = [
        ClosePair(
            int(chosen[i]),
            int(train[i]),
            int(held[i]) - split,
            float(train_like[i]),
            float(held_like[i]),
            bool(train_turned[i]),
            bool(held_turned[i]),
        )
        for i in range(len(chosen))
    ]
    return tuple(sorted(pairs, key=lambda p: -p.training_likeness))
