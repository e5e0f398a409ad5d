"""Everything about memorisation for one set of generated images: figures, gallery, and a verdict in plain words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from expressivegan.errors import InputError
from expressivegan.evaluation.memorisation.calibration import Calibration, calibrate
from expressivegan.evaluation.memorisation.distances import (
    Floats,
    Ints,
    Neighbours,
    Pool,
    UInt8Array,
    make_pool,
    prepare,
    search,
)
from expressivegan.evaluation.memorisation.gallery import ClosePair
from expressivegan.evaluation.memorisation.membership import Membership, attack
from expressivegan.evaluation.memorisation.permutation import (
    ALPHA,
    EqualPools,
    Evidence,
    at_equal_pools,
    copies_p_value,
    test_excess,
)
from expressivegan.intervals import Interval, share_interval
from expressivegan.streams import derive_seed

Progress = Callable[[int, int, str], None]
"""(images done, of how many, doing what)."""

KEEP = 12
SHORTLIST = (9, 6)
_ATTACK_SHORTLIST = (5, 2)
_LEAST_IMAGES = 20
_LEAST_PATIENTS = 10
_LEAST_SIDE = 16
_ROUNDS, _DRAWS = 1999, 200
_GALLERY = 24
_FEW = 1000  # generated images, below which replay of 2% may be missed


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
    """One or two plain sentences."""
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
    gallery: tuple[ClosePair, ...]
    """Closest first."""
    nearest_training: Floats
    """(N,) likeness of each generated image to its nearest training picture, among the likeliest 12 of both pools;
    -1 where none of them is a training picture."""
    nearest_heldout: Floats
    notes: tuple[str, ...]
    """What limits these figures."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists for JSON; NaN becomes None. Arrays are given by quantiles."""

        def plain(value: float) -> float | None:
            return float(value) if np.isfinite(value) else None

        def interval(value: Interval) -> dict[str, float | None]:
            return {"value": plain(value.value), "low": plain(value.low), "high": plain(value.high)}

        def quantiles(values: Floats) -> dict[str, float | None]:
            known = values[values > -1]
            marks = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
            return {f"{m:g}": plain(float(np.quantile(known, m))) if len(known) else None for m in marks}

        return {
            "generated": self.generated,
            "training": self.training,
            "heldout": self.heldout,
            "flagged": self.flagged,
            "verdict": self.verdict,
            "p_value": self.p_value,
            "p_lean": self.p_lean,
            "p_copies": self.p_copies,
            "nearest_in_training": interval(self.equal_pools.share),
            "excess_copies": interval(self.equal_pools.excess),
            "copies": self.copies,
            "copies_share": interval(self.copies_share),
            "copies_heldout": self.copies_heldout,
            "copied_patients": self.copied_patients,
            "blends": self.blends,
            "blends_heldout": self.blends_heldout,
            "threshold": self.calibration.threshold,
            "blend_threshold": self.calibration.blend_threshold,
            "repeats": {
                "pairs": len(self.calibration.repeats),
                "called_copies": plain(self.calibration.repeats_called_copies()),
                "likeness": quantiles(self.calibration.repeats),
            },
            "strangers": {"images": len(self.calibration.strangers), "likeness": quantiles(self.calibration.strangers)},
            "same_file": self.calibration.same_file,
            "likeness_training": quantiles(self.nearest_training),
            "likeness_heldout": quantiles(self.nearest_heldout),
            "membership": {
                "auc": interval(self.membership.auc),
                "tpr_at_1_percent_fpr": interval(self.membership.tpr),
                "leaks": self.membership.leaks,
            },
            "gallery": [
                {
                    "generated": p.generated,
                    "training": p.training,
                    "heldout": p.heldout,
                    "training_likeness": p.training_likeness,
                    "heldout_likeness": p.heldout_likeness,
                    "training_mirrored": p.training_mirrored,
                    "heldout_mirrored": p.heldout_mirrored,
                }
                for p in self.gallery
            ],
            "notes": list(self.notes),
        }


def memorisation_report(
    generated: UInt8Array,
    training: UInt8Array,
    heldout: UInt8Array,
    *,
    training_patients: Sequence[str] | npt.NDArray[np.str_],
    heldout_patients: Sequence[str] | npt.NDArray[np.str_],
    labels: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
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
        seed: of draws and permutations.
        progress: told (images done, of how many, doing what).

    Raises:
        InputError: shapes, types or lengths that do not fit, too few images or patients, a patient in both pools, or
            pools that hold the same pictures.
    """
    images = [_checked(i, name) for i, name in zip((generated, training, heldout), _NAMES, strict=True)]
    if len({i.shape[1:] for i in images}) > 1:
        sizes = ", ".join(f"{name} {i.shape[1]}x{i.shape[2]}" for i, name in zip(images, _NAMES, strict=True))
        raise InputError(f"images must have one size, not {sizes}; resize them alike")
    patients = [
        _checked_patients(training_patients, len(images[1]), "training_patients"),
        _checked_patients(heldout_patients, len(images[2]), "heldout_patients"),
    ]
    shared = np.intersect1d(patients[0], patients[1])
    if len(shared):
        raise InputError(f"heldout_patients holds {len(shared)} patients of training_patients, such as '{shared[0]}'")
    _check_pools(images[1], images[2])
    classes = _checked_labels(labels, len(images[1]), len(images[2]))
    return _report([prepare(i) for i in images], patients, classes, seed, progress or (lambda done, of, what: None))


_NAMES = ("generated", "training", "heldout")


def _report(
    images: list[UInt8Array], patients: list[npt.NDArray[np.str_]], classes: Ints, seed: int, progress: Progress
) -> MemorisationReport:
    generated, training, heldout = images
    rng = np.random.default_rng(derive_seed(seed, "evaluation.memorisation"))
    of = len(generated) + len(training) + len(heldout)
    training_pool = make_pool(training)
    calibration = calibrate(training, patients[0], training_pool, heldout, rng)
    del training_pool

    both, owner, in_training, strata, order = _together(patients, classes, training, heldout, rng)
    pool = make_pool(both)
    progress(0, of, "nearest real images")
    found = search(generated, pool, KEEP, SHORTLIST, progress=lambda done: progress(done, of, "nearest real images"))
    real_is_training = order < len(training)
    of_training = (found.index >= 0) & real_is_training[found.index]
    nearest = [
        np.where(mask & (found.index >= 0), found.likeness, -1).max(1).astype(np.float32)
        for mask in (of_training, ~of_training)
    ]
    copies = [int((n >= calibration.threshold).sum()) for n in nearest]
    close = of_training & (found.likeness >= calibration.threshold)
    evidence = Evidence(
        owner[found.index[:, 0]],
        found.likeness[:, 0],
        np.where(found.parents >= 0, owner[found.parents], -1),
        found.blend,
    )
    odds = len(training) / (len(training) + len(heldout))
    strangers = calibration.strangers_called_copies
    p_copies = copies_p_value((copies[0], copies[1]), odds, len(generated), strangers)
    excess = test_excess(evidence, in_training, strata, p_copies, _ROUNDS, rng)
    equal = at_equal_pools(found.index, found.likeness, owner, in_training, calibration.threshold, _DRAWS, rng)
    blends = _blends(found, real_is_training, calibration)
    gallery = _gallery(generated, nearest, pool, order, len(training))
    del pool

    membership = _membership(generated, both, real_is_training, owner, len(generated), of, progress, seed)
    flagged = excess.p_value < ALPHA
    notes = _notes(images, calibration, len(np.unique(patients[1])))
    return MemorisationReport(
        generated=len(generated),
        training=len(training),
        heldout=len(heldout),
        flagged=flagged,
        verdict=_verdict(flagged, len(generated), excess.p_value, copies, blends, equal, membership),
        p_value=excess.p_value,
        p_lean=excess.p_lean,
        p_copies=excess.p_copies,
        equal_pools=equal,
        copies=copies[0],
        copies_share=share_interval(copies[0], len(generated)),
        copies_heldout=copies[1],
        copied_patients=len(np.unique(owner[found.index[close]])),
        blends=blends[0],
        blends_heldout=blends[1],
        calibration=calibration,
        membership=membership,
        gallery=gallery,
        nearest_training=nearest[0],
        nearest_heldout=nearest[1],
        notes=tuple(notes),
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


def _blends(found: Neighbours, real_is_training: npt.NDArray[np.bool_], calibration: Calibration) -> list[int]:
    blended = (found.blend >= calibration.blend_threshold) & (found.parents[:, 0] >= 0)
    # a copy of one picture is explained by that and any second one as well
    blended &= found.likeness[:, 0] < np.sqrt(np.clip(found.blend**2 - 0.1, 0, 1))
    parents = real_is_training[found.parents[blended]]
    return [int(parents.all(1).sum()), int((~parents).all(1).sum())]


def _gallery(
    generated: UInt8Array, nearest: list[Floats], pool: Pool, order: Ints, split: int
) -> tuple[ClosePair, ...]:
    chosen = np.argsort(-nearest[0], kind="stable")[:_GALLERY]
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


def _membership(
    generated: UInt8Array,
    both: UInt8Array,
    member: npt.NDArray[np.bool_],
    owner: Ints,
    start: int,
    of: int,
    progress: Progress,
    seed: int,
) -> Membership:
    score = search(
        both,
        make_pool(generated),
        1,
        _ATTACK_SHORTLIST,
        blends=False,
        progress=lambda done: progress(start + done, of, "membership inference"),
    ).likeness[:, 0]
    return attack(score, member, owner.astype(str), derive_seed(seed, "evaluation.memorisation.attack"))


def _verdict(
    flagged: bool,
    n: int,
    p: float,
    copies: list[int],
    blends: list[int],
    equal: EqualPools,
    membership: Membership,
) -> str:
    share = equal.share
    figures = (
        f"{copies[0]} of {n} images are near-duplicates of training images ({copies[1]} of held-out ones), "
        f"{blends[0]} are blends of two ({blends[1]}), and {share.value:.1%} [{share.low:.1%}, {share.high:.1%}] are "
        f"nearer to training than to held-out images at pools of one size (p = {p:.2g})"
    )
    if flagged and copies[0] > copies[1]:
        said = f"The generator copies training images: {figures}."
    elif flagged:
        said = f"The generator remembers its training images, though not whole ones: {figures}."
    else:
        said = f"No sign of memorisation: {figures}."
    if membership.leaks:
        auc = membership.auc
        figure = f"AUC {auc.value:.2f} [{auc.low:.2f}, {auc.high:.2f}]"
        said += f" An attacker can tell training patients from others ({figure})."
    return said


def _notes(images: list[UInt8Array], calibration: Calibration, patients: int) -> list[str]:
    notes = []
    if len(images[0]) < _FEW:
        notes.append(f"With {len(images[0])} generated images rare copies may be missed; generate 2,000 or more.")
    if not len(calibration.repeats):
        notes.append("No training patient has two exposures, so the threshold rests on strangers alone.")
    if patients < 100:
        notes.append(f"With {patients} held-out patients chance is hard to tell; 100 or more are better.")
    for i, name in zip(images, _NAMES, strict=True):
        blank = int((i.reshape(len(i), -1).max(1) == i.reshape(len(i), -1).min(1)).sum())
        if blank:
            notes.append(f"{blank} of {len(i)} {name} images are blank.")
    if calibration.same_file:
        notes.append(f"{calibration.same_file} pairs of real images are one exposure stored twice.")
    return notes


def _checked(images: UInt8Array, name: str) -> UInt8Array:
    given = np.asarray(images)
    if given.ndim != 3 or given.dtype != np.uint8:
        raise InputError(
            f"{name} must be uint8 (N, H, W), not {given.dtype} {given.shape}; convert to grey levels 0..255"
        )
    if len(given) < _LEAST_IMAGES:
        raise InputError(f"{name} holds {len(given)} images, at least {_LEAST_IMAGES} are needed")
    if min(given.shape[1:]) < _LEAST_SIDE:
        raise InputError(
            f"{name} are {given.shape[1]}x{given.shape[2]}, at least {_LEAST_SIDE} pixels a side are needed"
        )
    return given


def _checked_patients(names: Sequence[str] | npt.NDArray[np.str_], count: int, name: str) -> npt.NDArray[np.str_]:
    given = np.asarray(names).astype(str)
    if given.shape != (count,):
        raise InputError(f"{name} must be {count} names, one an image, not of shape {given.shape}")
    different = len(np.unique(given))
    if different < _LEAST_PATIENTS:
        raise InputError(f"{name} names {different} patients, at least {_LEAST_PATIENTS} are needed")
    return given


def _check_pools(training: UInt8Array, heldout: UInt8Array) -> None:
    known = {hash(i.tobytes()) for i in training}
    same = sum(hash(i.tobytes()) in known for i in heldout)
    if same > len(heldout) / 10:
        raise InputError(
            f"heldout holds {same} of {len(heldout)} pictures that training holds as well; "
            "give patients that the generator has not seen"
        )


def _checked_labels(labels: tuple[npt.ArrayLike, npt.ArrayLike] | None, training: int, heldout: int) -> Ints:
    if labels is None:
        return np.zeros(training + heldout, np.int64)
    if len(labels) != 2:
        raise InputError(f"labels must be those of training and of heldout, not {len(labels)} arrays")
    parts = [np.asarray(part) for part in labels]
    for part, count, name in zip(parts, (training, heldout), _NAMES[1:], strict=True):
        if part.shape != (count,) or part.dtype.kind not in "iu":
            raise InputError(f"labels of {name} must be {count} integers, not {part.dtype} {part.shape}")
    found: Ints = np.concatenate(parts).astype(np.int64)
    return found
