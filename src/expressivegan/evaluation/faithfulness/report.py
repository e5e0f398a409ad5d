"""Every figure of a set of maps, beside the same figure of maps that know nothing."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from expressivegan.errors import InputError
from expressivegan.evaluation.faithfulness.arrays import Floats, Score, check_array, check_images, constant, enlarge
from expressivegan.evaluation.faithfulness.change import captured, correlation
from expressivegan.evaluation.faithfulness.controls import CONTROLS, blur, controls
from expressivegan.evaluation.faithfulness.localisation import (
    iou_at_area,
    mass_in,
    pointing_game,
    rank_accuracy,
    relevance_mass,
)
from expressivegan.evaluation.faithfulness.perturbation import PERCENTAGES, STEPS, deletion, insertion, road
from expressivegan.images import UInt8Array
from expressivegan.intervals import bootstrap, mean_interval

FIGURES = {
    "pointing_game": 1, "iou_at_area": 1, "relevance_mass": 1, "rank_accuracy": 1,
    "change_captured": 1, "correlation": 1,
    "deletion": -1, "insertion": 1, "road_morf": -1, "road_lerf": 1, "road_combined": 1,
    "in_lungs": 1,
}  # fmt: skip
"""Name → 1 where higher is better, -1 where lower is."""
_OWN_BLUR = 1 / 8
Progress = Callable[[int, int, str], None]


class Truth(NamedTuple):
    """What maps are held against; each part may be missing."""

    masks: npt.NDArray[Any] | None = None
    """(N, H, W), not 0 in the true region; none is empty."""
    score: Score | None = None
    """An independent network's score of images."""
    lungs: npt.NDArray[Any] | None = None
    """(N, H, W), not 0 in the lungs."""
    change: npt.NDArray[Any] | None = None
    """(N, H, W), at least 0: how much each pixel changed."""


def score_maps(
    maps: npt.ArrayLike,
    images: UInt8Array,
    truth: Truth,
    *,
    percentages: Sequence[float] = PERCENTAGES,
    steps: int = STEPS,
    seed: int = 0,
) -> dict[str, Floats]:
    """All figures that `truth` allows, one value an image: name of `FIGURES` → (N,).

    Args:
        maps: (N, h, w), enlarged to the images.
        images: uint8 (N, H, W).
        truth: what they are held against.
        percentages: of `road`.
        steps: of `deletion` and `insertion`.
        seed: of noise and ties.

    Raises:
        InputError: as the figures.
    """
    size = check_images(images).shape[1:]
    found = enlarge(maps, (size[0], size[1]))
    values: dict[str, Floats] = {}
    if truth.masks is not None:
        for figure in (pointing_game, iou_at_area, relevance_mass, rank_accuracy):
            values[figure.__name__] = figure(found, truth.masks)
    if truth.score is not None:
        values["deletion"] = deletion(found, images, truth.score, steps=steps, seed=seed)
        values["insertion"] = insertion(found, images, truth.score, steps=steps, seed=seed)
        sides = road(found, images, truth.score, percentages=percentages, seed=seed)
        values |= {f"road_{name}": side for name, side in sides.items()}
    if truth.lungs is not None:
        values["in_lungs"] = mass_in(found, (np.asarray(truth.lungs) != 0).astype(np.float64))
    if truth.change is not None:
        values["change_captured"] = captured(found, truth.change)
        values["correlation"] = correlation(found, truth.change)
    return values


def compare(
    ours: Floats, theirs: Mapping[str, Floats], patients: Sequence[str], sign: int, rounds: int = 500, seed: int = 0
) -> dict[str, Any]:
    """A figure with its interval, those of the controls, and the difference to the best of them, paired.

    The best control is chosen anew in every draw of patients, so that having had the choice is paid for.

    Args:
        ours: (N,).
        theirs: name → (N,).
        patients: N names; they are drawn.
        sign: 1 where higher is better, -1 where lower is.
        rounds: draws.
        seed: of the draws.

    Returns:
        `better` ("higher" or "lower"), `map` and `controls` (`Interval` each), `best_control`, and `difference`, which
        is positive where the map is better.
    """
    who = list(patients)
    values = np.stack(list(theirs.values()))
    means = sign * values.mean(1)

    def gap(rows: npt.NDArray[np.int64]) -> float:
        return float(sign * ours[rows].mean() - (sign * values[:, rows].mean(1)).max())

    return {
        "better": "higher" if sign > 0 else "lower",
        "map": mean_interval(ours, who, rounds, seed),
        "controls": {name: mean_interval(value, who, rounds, seed) for name, value in theirs.items()},
        "best_control": list(theirs)[int(means.argmax())],
        "difference": bootstrap(gap, who, rounds, seed),
    }


def faithfulness_report(
    explanations: Mapping[str, npt.ArrayLike],
    images: UInt8Array,
    patients: Sequence[str],
    truth: Truth,
    *,
    percentages: Sequence[float] = PERCENTAGES,
    steps: int = STEPS,
    rounds: int = 500,
    seed: int = 0,
    progress: Progress = lambda done, total, words: None,
) -> dict[str, Any]:
    """Holds maps against the truth, beside four controls.

    Each explanation is also scored blurred (σ an eighth of the side): not an opponent, since it knows what the map
    knows, but how much of the figure the place alone explains, without the shape.

    Args:
        explanations: name → maps (N, h, w) of the same images, higher where the class is seen; of any size.
        images: uint8 (N, H, W).
        patients: N names; intervals draw them.
        truth: regions, an independent score, lungs, a change.
        percentages: of `road`.
        steps: of `deletion` and `insertion`.
        rounds: of the bootstrap.
        seed: of controls, noise, ties and draws.
        progress: called with (done, total, words).

    Returns:
        `n`, `patients`, and `maps`: name → `constant` (how many maps are the same everywhere and score as chance does)
        and `figures`: name of `FIGURES` → what `compare` returns, with `blurred`. `intervals.plain` makes it JSON.

    Raises:
        InputError: nothing to explain or to hold it against, shapes that do not fit, NaN, or an empty region.
    """
    if not explanations:
        raise InputError("explanations are empty; give maps of one network at least")
    if all(part is None for part in truth):
        raise InputError("truth is empty; give masks, a score, lungs or a change")
    check_images(images, len(patients))
    if rounds < 1:
        raise InputError(f"rounds (={rounds}) must be at least 1")
    given = {name: check_array(maps, f"explanations[{name!r}]") for name, maps in explanations.items()}
    for name, maps in given.items():
        check_images(images, len(maps))
        if name in CONTROLS:
            raise InputError(f"explanations (={name!r}) has the name of a control; choose another")
    total, done = len(CONTROLS) + 2 * len(given), 0

    def scored(maps: Floats, words: str) -> dict[str, Floats]:
        nonlocal done
        progress(done, total, words)
        done += 1
        return score_maps(maps, images, truth, percentages=percentages, steps=steps, seed=seed)

    theirs = {name: scored(maps, f"control: {name}") for name, maps in controls(images, seed).items()}
    found: dict[str, Any] = {}
    for name, maps in given.items():
        ours = scored(maps, name)
        blurred = scored(blur(enlarge(maps, images.shape[1:]), _OWN_BLUR), f"{name}, blurred")
        figures = {}
        for figure, values in ours.items():
            against = {control: rows[figure] for control, rows in theirs.items()}
            figures[figure] = compare(values, against, patients, FIGURES[figure], rounds, seed)
            figures[figure]["blurred"] = mean_interval(blurred[figure], list(patients), rounds, seed)
        found[name] = {"constant": int(constant(maps).sum()), "figures": figures}
    progress(total, total, "")
    return {"n": len(images), "patients": len(set(patients)), "maps": found}
