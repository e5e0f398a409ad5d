"""Does a generator repeat itself? A verdict in words, fit for a look during training."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy.typing as npt

from expressivegan.evaluation.diversity import diversity_report

# A class is called collapsed beyond these. Real images of other patients stay far inside (at most 0.03 near-twins, at
# least 0.9 of the diversity); so do images blurred by 1 px of 64 (at most 0.19, at least 0.68), which are bad, not few.
_LEAST_DIVERSITY = 0.45  # mean pairwise distance over that of real images; healthy runs came down to 0.48
_MOST_DUPLICATES = 0.4  # share of images with a near-twin; 64 draws out of 100 images give 0.47


class CollapseReport(NamedTuple):
    """What `collapse_report` found. `warning` is None where nothing is wrong, else one sentence a class."""

    figures: dict[str, float]
    warning: str | None


def collapse_report(
    real: npt.ArrayLike,
    fake: npt.ArrayLike,
    real_labels: npt.ArrayLike,
    fake_labels: npt.ArrayLike,
    classes: Sequence[str],
    *,
    patients: npt.ArrayLike | None = None,
    k: int = 5,
    seed: int = 0,
) -> CollapseReport:
    """A look at a generator in training: does it repeat itself? Takes well under a second for 64 images per class.

    A class is called collapsed where too many images have a near-twin or where they lie too close together. Coverage is
    in the figures but not in the verdict: blur of 1 px lowers it as far as five repeated images do (0.04 to 0.8 of real
    against 0.14 to 0.42), at the same precision in a classifier's features. Very blurred images (2.5 px of 64) may be
    called collapsed, as their near-twins are many.

    Args and errors as of `diversity_report`.

    Returns:
        figures: "<class>/<figure>" with the figures of `diversity_report`, and the worst over classes as
            diversity_ratio_min, duplicate_rate_max, coverage_ratio_min; collapsed is 1.0 or 0.0.
        warning: None, or what is wrong, for a log.
    """
    report = diversity_report(
        real, fake, real_labels, fake_labels, classes, patients=patients, k=k, repeats=2, seed=seed
    )
    figures = {f"{name}/{figure}": value for name, row in report.items() for figure, value in row.items()}
    for figure, worst in _WORST.items():
        figures[f"{figure}_{worst.__name__}"] = worst(row[figure] for row in report.values())
    sentences = [s for name, row in report.items() if (s := _collapsed(name, row)) is not None]
    figures["collapsed"] = float(bool(sentences))
    return CollapseReport(figures, "; ".join(sentences) or None)


_WORST: dict[str, Callable[..., float]] = {"diversity_ratio": min, "duplicate_rate": max, "coverage_ratio": min}


def _collapsed(name: str, row: dict[str, float]) -> str | None:
    if row["duplicate_rate"] > max(_MOST_DUPLICATES, 4 * row["duplicate_rate_real"]):
        return (
            f"{name} has collapsed: {row['n']:.0f} images show about {row['distinct']:.0f} different ones "
            f"({row['duplicate_rate']:.0%} have a near-twin, {row['duplicate_rate_real']:.0%} among real images)"
        )
    if row["diversity_ratio"] < _LEAST_DIVERSITY:
        return f"{name} has collapsed: its images differ {row['diversity_ratio']:.0%} as much as real ones do"
    return None
