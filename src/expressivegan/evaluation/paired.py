"""How many times one generator's figure is another's, on the same reference patients."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from expressivegan.errors import InputError
from expressivegan.evaluation.distances import check_pair, check_patients, check_widths
from expressivegan.intervals import Interval
from expressivegan.streams import derive_seed

Figure = Callable[[npt.NDArray[Any], npt.NDArray[Any]], float]
_GROUPS = 20


def ratio_interval(
    figure: Figure,
    real: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    patients: npt.ArrayLike | None = None,
    *,
    groups: int = _GROUPS,
    seed: int = 0,
) -> Interval:
    """`figure(real, first) / figure(real, second)` with a 95% interval over patients and generated images.

    Paired: both figures see the same patients, so what an odd patient does to both cancels. Reference patients and
    images of either generator are dealt to groups, each of which is left out in turn, and the spread of the logarithm
    of the ratio gives the interval (delete-a-group jackknife, Kott 2001, Student's t). Drawing with replacement would
    not do: repeated images raise FID and make neighbours at distance 0. The bias that FID has at this n stands in both
    figures.

    Args:
        figure: (n, d) real and (m, d) generated features → a figure > 0, such as `fid`.
        real: (n, d) finite.
        first: (m, d).
        second: (m, d), best as many.
        patients: (n,) names; None takes every real image for a patient of its own.
        groups: how many; fewer where there are fewer patients or images.
        seed: of the dealing.

    Returns:
        Value and ends; NaN where a figure is not positive.

    Raises:
        InputError: NaN, too few rows, different d, patients that do not fit, or fewer than 3 groups.
    """
    x, a = check_pair(real, first)
    _, b = check_pair(real, second)
    check_widths(a, b)
    own = np.unique(check_patients(patients, len(x)), return_inverse=True)[1]
    count = min(groups, int(own.max()) + 1, len(a), len(b))
    if count < 3:
        raise InputError(f"groups (={groups}), patients and images leave {count} groups; at least 3 are needed")

    def dealt(size: int, name: str) -> npt.NDArray[np.int64]:
        draw = np.random.default_rng(derive_seed(seed, "evaluation.ratio", name))
        found: npt.NDArray[np.int64] = draw.permutation(size) % count
        return found

    # Equal sets are dealt alike, so that their ratio is 1 to the bit.
    of_real, of_a, of_b = dealt(int(own.max()) + 1, "real")[own], dealt(len(a), "fake"), dealt(len(b), "fake")

    def logarithm(left_out: int) -> float:
        kept = x[of_real != left_out]
        ours, theirs = figure(kept, a[of_a != left_out]), figure(kept, b[of_b != left_out])
        return float(np.log(ours) - np.log(theirs)) if min(ours, theirs) > 0 else float("nan")

    whole = logarithm(-1)
    parts = np.array([logarithm(g) for g in range(count)])
    error = np.sqrt((count - 1) / count * np.square(parts - parts.mean()).sum())
    half = float(stats.t.ppf(0.975, count - 1) * error)
    return Interval(float(np.exp(whole)), float(np.exp(whole - half)), float(np.exp(whole + half)))
