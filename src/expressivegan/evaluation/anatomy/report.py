"""Anatomy of synthetic images against that of real ones, each figure beside what real images of other patients get."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from expressivegan.errors import InputError
from expressivegan.evaluation.anatomy.curves import Bools, Ints, MaskSource, Pixels
from expressivegan.evaluation.anatomy.landmarks import MEASURES, Floats, Landmarks, check_pixels, landmarks
from expressivegan.intervals import Interval, plain, share_interval
from expressivegan.streams import derive_seed

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""Of each landmark, in the report: what a figure of the distributions needs."""
VIOLATIONS = ("out_of_range", "heart_wrong_side", "one_lung_missing", "not_found")
_LEAST_REAL, _LEAST_FAKE = 20, 10  # images of a class
_RANGE = (0.5, 99.5)  # percentiles
_SPLITS = 40
_SURE = 6.0  # standard deviations of the floor; its right tail is heavy, and 17 landmarks are looked at in each scope
_SMALL = 0.1  # standard deviations of real images that a distance must exceed its floor by


@dataclass(frozen=True, eq=False)
class AnatomyReport:
    """What `anatomy_report` found."""

    figures: dict[str, dict[str, Any]]
    """Scope ("all" or a class) → {"n_real", "n_fake", "landmarks": {name: figures}, "violations": {name: figures}}."""
    warnings: tuple[str, ...]
    """One sentence for each thing that is unlike real images; empty where nothing is."""
    worst: Ints
    """Indices of fakes, the most unlike real ones first."""
    reasons: tuple[str, ...]
    """Why, in the order of `worst`; empty where an image is inside all ranges."""
    real: Landmarks
    fake: Landmarks

    def as_json(self) -> dict[str, Any]:
        """Figures, warnings and the 100 worst, ready for `json.dumps`; NaN as null."""
        worst = [
            {"index": int(i), "reason": reason}
            for i, reason in zip(self.worst[:100], self.reasons[:100], strict=True)
            if reason
        ]
        return {"figures": plain(self.figures), "warnings": list(self.warnings), "worst": worst}


def anatomy_report(
    real: Pixels,
    fake: Pixels,
    *,
    real_labels: npt.ArrayLike,
    fake_labels: npt.ArrayLike,
    classes: Sequence[str],
    real_patients: npt.ArrayLike,
    rounds: int = 500,
    seed: int = 0,
    source: MaskSource | None = None,
    real_landmarks: Landmarks | None = None,
    fake_landmarks: Landmarks | None = None,
) -> AnatomyReport:
    """Compares landmarks of synthetic images with those of real ones that the generator has not seen.

    For each landmark, overall and by class: means with 95% intervals (patients are drawn, and fakes); the ratio of the
    standard deviations; the Wasserstein-1 distance in standard deviations of the real images, and the
    Kolmogorov-Smirnov statistic. Both distances are means over 40 random splits of the real patients into halves: fakes
    against one half, at equal number and class mix, beside the other half against the same, which is the floor. A
    landmark `differs` where the Wasserstein distance exceeds the floor's mean by 6 of its standard deviations and by
    0.1. Values outside the central 99% of real images count as its ends: they are violations, below.

    Violations are shares of images: any landmark outside the central 99% of real images (for real images themselves,
    outside that of the other patients), the heart on the wrong side, exactly one lung found, no lung found.

    Args:
        real: uint8 (N, H, W) reference images.
        fake: uint8 (M, H', W').
        real_labels: (N,) indices into `classes`.
        fake_labels: (M,).
        classes: names. A class without fakes is left out, with a warning.
        real_patients: (N,) names.
        rounds: bootstrap draws.
        seed: of draws and splits.
        source: as for `landmarks`.
        real_landmarks: of `real`, if they are known already, from the same source.
        fake_landmarks: of `fake`.

    Raises:
        InputError: wrong shapes or labels, landmarks of another number of images, rounds < 1, or a class with fewer
            than 20 real images of 4 patients.
    """
    check_pixels(real, "real")
    check_pixels(fake, "fake")
    label_real = check_labels(real_labels, len(real), len(classes), "real_labels")
    label_fake = check_labels(fake_labels, len(fake), len(classes), "fake_labels")
    patients = np.asarray(real_patients).astype(str)
    if patients.shape != (len(real),):
        raise InputError(f"real_patients of shape {patients.shape} must name a patient for each of {len(real)} images")
    if rounds < 1:
        raise InputError(f"rounds (={rounds}) must be at least 1")
    for k, name in enumerate(classes):
        ours = label_real == k
        if (label_fake == k).any() and (ours.sum() < _LEAST_REAL or len(set(patients[ours])) < 4):
            raise InputError(
                f"class {name} has {ours.sum()} real images of {len(set(patients[ours]))} patients; at least "
                f"{_LEAST_REAL} of 4 are needed to say what is usual"
            )
    check_landmarks(real_landmarks, len(real), "real")
    check_landmarks(fake_landmarks, len(fake), "fake")
    found_real = landmarks(real, source) if real_landmarks is None else real_landmarks
    found_fake = landmarks(fake, source) if fake_landmarks is None else fake_landmarks
    return compare_landmarks(found_real, found_fake, label_real, label_fake, classes, patients, rounds, seed)


def compare_landmarks(
    real: Landmarks,
    fake: Landmarks,
    real_labels: Ints,
    fake_labels: Ints,
    classes: Sequence[str],
    patients: npt.NDArray[np.str_],
    rounds: int = 500,
    seed: int = 0,
) -> AnatomyReport:
    """The part of `anatomy_report` that follows the measuring, for landmarks that are known already."""
    figures: dict[str, dict[str, Any]] = {}
    warnings: list[str] = []
    kept = [k for k in range(len(classes)) if (fake_labels == k).any()]
    # Without fakes of a class, real images of it must not count overall either.
    scopes = {"all": (np.isin(real_labels, kept), np.ones(len(fake), bool))}
    scopes |= {classes[k]: (real_labels == k, fake_labels == k) for k in kept}
    warnings += [f"{name} has no synthetic image" for k, name in enumerate(classes) if k not in kept]
    for scope, (ours, theirs) in scopes.items():
        if theirs.sum() < _LEAST_FAKE:
            warnings.append(f"{scope} has {theirs.sum()} synthetic images, too few to compare their anatomy")
            continue
        one = _Scope(
            real.take(ours), fake.take(theirs), real_labels[ours], fake_labels[theirs], patients[ours], rounds,
            derive_seed(seed, "evaluation.anatomy", scope),
        )  # fmt: skip
        figures[scope] = one.figures()
        warnings += _sentences(scope, figures[scope])
    worst, reasons = _worst(real, fake, real_labels, fake_labels, kept)
    return AnatomyReport(figures, tuple(warnings), worst, reasons, real, fake)


def check_labels(labels: npt.ArrayLike, n: int, classes: int, name: str) -> Ints:
    """Labels as int64 (n,). Raises InputError unless integers within 0..classes-1."""
    found = np.asarray(labels)
    if found.shape != (n,) or found.dtype.kind not in "iu":
        raise InputError(f"{name} must be {n} integers, not {found.dtype} of shape {found.shape}")
    if n and not (found.min() >= 0 and found.max() < classes):
        raise InputError(f"{name} span {found.min()}..{found.max()}, allowed is 0..{classes - 1} ({classes} classes)")
    return found.astype(np.int64)


def check_landmarks(known: Landmarks | None, count: int, name: str) -> None:
    """Raises InputError for landmarks of another number of images."""
    if known is not None and len(known) != count:
        raise InputError(f"{name}_landmarks are of {len(known)} images, {name} holds {count}; measure them anew")


# --- distances --------------------------------------------------------------------------------------------------------


def distances(values: Floats, first: Floats | Bools, second: Floats | Bools) -> tuple[Floats, Floats]:
    """Wasserstein-1 and Kolmogorov-Smirnov distances of weighted samples of the same values, for S pairs at once.

    The area between the distribution functions (Vallender 1974), and their largest gap.

    Args:
        values: (n,) finite.
        first: (S, n) weights, no row of which is all 0.
        second: (S, n).

    Returns:
        (S,) in the unit of the values, and (S,) in 0..1.

    >>> [d.tolist() for d in distances(np.array([0.0, 1, 2, 3]), np.array([[1, 1, 0, 0]]), np.array([[0, 0, 1, 1]]))]
    [[2.0], [1.0]]
    """
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    shares = [w[:, order] / w.sum(1, keepdims=True) for w in (first, second)]
    gaps = np.abs(np.cumsum(shares[0] - shares[1], axis=1))
    ends = np.append(ranked[1:] != ranked[:-1], True)  # the functions step once where values are equal
    return gaps[:, :-1] @ np.diff(ranked), gaps[:, ends].max(1)


# --- one scope --------------------------------------------------------------------------------------------------------


class _Scope:
    """All images, or those of one class."""

    def __init__(
        self, real: Landmarks, fake: Landmarks, real_labels: Ints, fake_labels: Ints, patients: npt.NDArray[np.str_],
        rounds: int, seed: int,
    ) -> None:  # fmt: skip
        self.real, self.fake, self.rounds = real, fake, rounds
        self.names, self.of = np.unique(patients, return_inverse=True)
        self.rng = np.random.default_rng(seed)
        self.mix = _weights(real_labels, fake_labels)
        splits = [self._split(real_labels, fake_labels) for _ in range(_SPLITS)]
        self.halves, self.others, self.fakes = (np.stack(masks) for masks in zip(*splits, strict=True))  # (S, n) each
        # One set of draws for all figures: (rounds, n) weights.
        drawn = self.rng.multinomial(len(self.names), np.full(len(self.names), 1 / len(self.names)), rounds)
        self.real_draws = drawn[:, self.of].astype(np.float64)
        self.fake_draws = self.rng.multinomial(len(fake), np.full(len(fake), 1 / len(fake)), rounds) * self.mix

    def _split(self, real_labels: Ints, fake_labels: Ints) -> tuple[Bools, Bools, Bools]:
        """Two halves of real images without a common patient, and fakes as many and of the mix of the second: masks."""
        side = self.rng.permutation(len(self.names)) < len(self.names) // 2
        first, second = (np.flatnonzero(side[self.of] == which) for which in (True, False))
        fakes = []
        counts = {k: int((real_labels[second] == k).sum()) for k in np.unique(fake_labels)}
        scarce = min(1.0, *(np.sum(fake_labels == k) / max(n, 1) for k, n in counts.items()))
        seconds = []
        for k, n in counts.items():
            take = int(n * scarce)
            fakes.append(self.rng.permutation(np.flatnonzero(fake_labels == k))[:take])
            seconds.append(self.rng.permutation(second[real_labels[second] == k])[:take])
        chosen = [np.zeros(n, bool) for n in (len(self.real), len(self.real), len(self.fake))]
        for mask, rows in zip(chosen, (first, np.concatenate(seconds), np.concatenate(fakes)), strict=True):
            mask[rows] = True
        return chosen[0], chosen[1], chosen[2]

    def figures(self) -> dict[str, Any]:
        return {
            "n_real": len(self.real),
            "n_fake": len(self.fake),
            "landmarks": {name: self._landmark(name) for name in MEASURES},
            "violations": self._violations(),
        }

    def _landmark(self, name: str) -> dict[str, Any]:
        real, fake = getattr(self.real, name), getattr(self.fake, name)
        each = np.ones(len(real))
        spread, own = _spread(real, each), _spread(fake, self.mix)
        # One image that was measured wrongly must not make the distance: what is outside the range is counted there.
        (low,), (high,) = _ranges(real[:, None], np.ones((1, len(real)), bool))
        values = np.clip(np.concatenate([real, fake]), low, high)
        known = np.isfinite(values)
        none = np.zeros_like(self.halves), np.zeros_like(self.fakes)
        half, other, made = (
            np.concatenate(parts, axis=1)[:, known]
            for parts in ((self.halves, none[1]), (self.others, none[1]), (none[0], self.fakes))
        )
        usable = np.min([mask.sum(1) for mask in (half, other, made)], axis=0) > 1
        row = np.full((1, 4), np.nan)
        if usable.any():
            pairs = [distances(values[known], half[usable], mask[usable]) for mask in (made, other)]
            row = np.stack([pairs[0][0], pairs[1][0], pairs[0][1], pairs[1][1]], axis=1)
        row[:, :2] /= spread if spread > 0 else np.nan
        w, w_floor, ks, ks_floor = row.mean(0)
        surely = w_floor + max(_SURE * float(row[:, 1].std()), _SMALL)
        return {
            "real": _mean_interval(real, each, self.real_draws),
            "fake": _mean_interval(fake, self.mix, self.fake_draws),
            "real_quantiles": _quantiles(real, each),
            "fake_quantiles": _quantiles(fake, self.mix),
            "spread_ratio": own / spread if spread > 0 else float("nan"),
            "wasserstein": float(w),
            "wasserstein_floor": float(w_floor),
            "wasserstein_limit": float(surely),
            "ks": float(ks),
            "ks_floor": float(ks_floor),
            "differs": bool(w > surely),
        }

    def _violations(self) -> dict[str, Any]:
        # A range taken from the very images would hold them by construction: each half is judged by the other, and the
        # synthetic images by the same halves.
        ours, theirs = np.zeros(len(self.real)), np.zeros(len(self.fake))
        tables = _table(self.real), _table(self.fake)
        for masks in (self.halves, ~self.halves):
            for learn, low, high in zip(masks, *_ranges(tables[0], masks), strict=True):
                ours[~learn] += _outside(tables[0][~learn], low, high).any(1) / _SPLITS
                theirs += _outside(tables[1], low, high).any(1) / (2 * _SPLITS)
        values = [{k: v.astype(np.float64) for k, v in _flags(x).items()} for x in (self.real, self.fake)]
        values[0]["out_of_range"], values[1]["out_of_range"] = ours, theirs
        found = {}
        for name in VIOLATIONS:
            real = _share(values[0][name], np.ones(len(self.real)), self.real_draws)
            fake = _share(values[1][name], self.mix, self.fake_draws)
            excess = fake.low > real.high and fake.value > real.value + 0.01
            found[name] = {"real": real, "fake": fake, "differs": bool(excess)}
        return found


def _weights(real_labels: Ints, fake_labels: Ints) -> Floats:
    """Of fakes, so that their class mix is that of the real images."""
    weights = np.zeros(len(fake_labels))
    for k in np.unique(fake_labels):
        here = fake_labels == k
        weights[here] = (real_labels == k).mean() / here.mean()
    return weights


def _quantiles(values: Floats, weights: Floats) -> list[float]:
    """Weighted quantiles of the finite values."""
    known = np.isfinite(values) & (weights > 0)
    if not known.any():
        return [float("nan")] * len(QUANTILES)
    order = np.argsort(values[known], kind="stable")
    weight = weights[known][order]
    places = np.cumsum(weight) - weight  # as numpy's where all weigh the same
    return [float(q) for q in np.interp(QUANTILES, places / max(places[-1], 1e-12), values[known][order])]


def _spread(values: Floats, weights: Floats) -> float:
    """Weighted standard deviation of the finite values; NaN of fewer than two."""
    known = np.isfinite(values) & (weights > 0)
    if known.sum() < 2:
        return float("nan")
    mean = np.average(values[known], weights=weights[known])
    return float(np.sqrt(np.average((values[known] - mean) ** 2, weights=weights[known])))


def _mean_interval(values: Floats, weights: Floats, draws: Floats) -> Interval:
    """Weighted mean of the finite values with its 95% percentile interval over (rounds, n) weights."""
    finite = np.isfinite(values)
    if not finite.any():
        return Interval(float("nan"), float("nan"), float("nan"))
    filled = np.where(finite, values, 0)

    def mean(w: Floats) -> Floats:
        total = w @ finite
        ratio: Floats = np.divide(w @ filled, total, out=np.full(np.shape(total), np.nan), where=total > 0)
        return ratio

    drawn = mean(draws)
    low, high = np.nanpercentile(drawn, [2.5, 97.5]) if np.isfinite(drawn).any() else (np.nan, np.nan)
    return Interval(float(mean(weights[None])[0]), float(low), float(high))


def _share(values: Floats, weights: Floats, draws: Floats) -> Interval:
    """Weighted share with the hull of two intervals: Wilson's has a width at 0 and 1, the other knows of patients."""
    drawn = _mean_interval(values, weights, draws)
    wilson = share_interval(round(drawn.value * len(values)), len(values))
    return Interval(drawn.value, min(drawn.low, wilson.low), max(drawn.high, wilson.high))


def _flags(found: Landmarks) -> dict[str, Bools]:
    return {
        "heart_wrong_side": np.asarray(np.nan_to_num(found.heart_shift, nan=1.0) <= 0, bool),
        "one_lung_missing": found.found_right != found.found_left,
        "not_found": ~(found.found_right | found.found_left),
    }


def _table(found: Landmarks) -> Floats:
    return np.stack([getattr(found, name) for name in MEASURES], 1)


def _ranges(table: Floats, masks: Bools) -> tuple[Floats, Floats]:
    """The central 99% of each landmark among the rows (N, L) that each mask (S, N) has: (S, L) twice.

    Infinite where nothing was measured. Every column is sorted once for all masks.
    """
    limits = np.empty((2, len(masks), table.shape[1]))
    for j, column in enumerate(table.T):
        order = np.argsort(column, kind="stable")[: np.isfinite(column).sum()]  # NaN is last
        if not len(order):
            limits[:, :, j] = [[-np.inf], [np.inf]]
            continue
        place = np.cumsum(masks[:, order], axis=1)
        last = place[:, -1] - 1
        for end, percent in enumerate(_RANGE):
            at = np.maximum(last, 0) * percent / 100
            low = at.astype(int)
            below, above = (
                column[order[np.minimum((place <= i[:, None]).sum(1), len(order) - 1)]]
                for i in (low, np.minimum(low + 1, last))
            )
            limits[end, :, j] = np.where(last >= 0, below + (above - below) * (at - low), (-np.inf, np.inf)[end])
    return limits[0], limits[1]


def _outside(table: Floats, low: Floats, high: Floats) -> Bools:
    """(N, L); what could not be measured is not outside."""
    outside: Bools = (table < low) | (table > high)
    return outside


# --- what to look at --------------------------------------------------------------------------------------------------

_SAYS: dict[str, Callable[[Interval, Interval], str]] = {
    "out_of_range": lambda f, r: (
        f"{f.value:.0%} have a landmark outside the range of real images (real: {r.value:.0%})"
    ),
    "heart_wrong_side": lambda f, r: f"{f.value:.0%} have the heart on the wrong side (real: {r.value:.0%})",
    "one_lung_missing": lambda f, r: f"one lung is missing in {f.value:.0%} (real: {r.value:.0%})",
    "not_found": lambda f, r: f"no lung can be found in {f.value:.0%} (real: {r.value:.0%})",
}


def _sentences(scope: str, figures: dict[str, Any]) -> list[str]:
    who = "synthetic images" if scope == "all" else f"synthetic {scope} images"
    said = [
        f"{who}: {_SAYS[name](row['fake'], row['real'])}"
        for name, row in figures["violations"].items()
        if row["differs"]
    ]
    rows = {name: row for name, row in figures["landmarks"].items() if row["differs"]}
    if rows:
        ordered = sorted(rows, key=lambda name: -rows[name]["wasserstein"] / rows[name]["wasserstein_limit"])
        said.append(
            f"{who}: {len(rows)} of {len(MEASURES)} landmarks are distributed unlike real ones, most of all "
            + ", ".join(
                f"{name} ({rows[name]['fake'].value:.3g} against {rows[name]['real'].value:.3g}, "
                f"spread x{rows[name]['spread_ratio']:.2f})"
                for name in ordered[:3]
            )
        )
    return said


def _worst(
    real: Landmarks, fake: Landmarks, real_labels: Ints, fake_labels: Ints, kept: Sequence[int]
) -> tuple[Ints, tuple[str, ...]]:
    """Fakes in the order of how far their farthest landmark lies outside its class's range; lungs not found first."""
    excess = np.zeros(len(fake))
    reasons = np.full(len(fake), "", dtype=object)
    for k in kept:
        theirs = np.flatnonzero(fake_labels == k)
        (low,), (high,) = _ranges(_table(real), (real_labels == k)[None])
        width = np.where(np.isfinite(high - low), np.maximum(high - low, 1e-6), 1)
        table = _table(fake)[theirs]
        beyond = np.maximum(low - table, table - high) / width
        beyond = np.where(np.isfinite(beyond), np.maximum(beyond, 0), 0)
        farthest = beyond.argmax(1)
        excess[theirs] = beyond.max(1)
        some = beyond.max(1) > 0
        reasons[theirs[some]] = [
            f"{MEASURES[j]} {table[i, j]:.2f}" for i, j in zip(np.flatnonzero(some), farthest[some], strict=True)
        ]
    flags = _flags(fake)
    for name, more in (("heart_wrong_side", 1), ("one_lung_missing", 10), ("not_found", 100)):
        excess[flags[name]] += more
        reasons[flags[name]] = name.replace("_", " ")
    order = np.argsort(-excess, kind="stable")
    return order, tuple(str(reasons[i]) for i in order)
