"""The ratio of two generators' figures, paired over patients."""

import numpy as np
import pytest
from scipy import stats

from expressivegan.errors import InputError
from expressivegan.evaluation import fid
from expressivegan.evaluation.paired import ratio_interval


def rows(n: int, scale: float, seed: int, d: int = 3) -> np.ndarray:
    found: np.ndarray = scale * np.random.default_rng(seed).normal(size=(n, d))
    return found


def power(real: np.ndarray, fake: np.ndarray) -> float:
    return float(np.square(fake).mean() / np.square(real).mean())


def test_a_set_against_itself_is_exactly_one() -> None:
    real, fake = rows(120, 1, 0), rows(90, 1.3, 1)
    assert tuple(ratio_interval(fid, real, fake, fake)) == (1, 1, 1)


def test_by_hand() -> None:
    # Real images cancel. Without one of three images the mean squares are 5/2, 2, 3/2 (whatever the order) over 1.
    real, first, second = np.ones((3, 1)), np.sqrt([[1.0], [2.0], [3.0]]), np.ones((3, 1))
    logs = np.log([2.5, 2.0, 1.5])
    half = stats.t.ppf(0.975, 2) * np.sqrt(2 / 3 * np.square(logs - logs.mean()).sum())
    found = ratio_interval(power, real, first, second)
    assert found == pytest.approx((2, 2 * np.exp(-half), 2 * np.exp(half)))


def test_the_truth_lies_within_and_odd_patients_cancel() -> None:
    # Mean squares 4 and 1 in expectation: a ratio of 4.
    hits = 0
    for seed in range(60):
        real, a, b = rows(60, 1, 3 * seed), rows(60, 2, 3 * seed + 1), rows(60, 1, 3 * seed + 2)
        found = ratio_interval(power, real, a, b)
        hits += found.low <= 4 <= found.high
    assert hits >= 52  # of 60: 95% but for chance
    a, b = rows(200, 2, 1), rows(200, 1, 2)
    odd = rows(200, 1, 3)
    odd[:10] *= 30
    calm = ratio_interval(power, rows(200, 1, 3), a, b)
    assert ratio_interval(power, odd, a, b) == pytest.approx(calm)


def test_patients_are_left_out_whole() -> None:
    # Thirty exposures of each of ten children say no more than one of each.
    one = rows(10, 1, 0, 1)
    fakes = rows(300, 2, 1, 1), rows(300, 1, 2, 1)

    def mean(real: np.ndarray, fake: np.ndarray) -> float:
        return float(np.exp(real.mean() * np.square(fake).mean()))

    whole = ratio_interval(mean, np.repeat(one, 30, 0), *fakes, np.repeat(np.arange(10), 30))
    split = ratio_interval(mean, np.repeat(one, 30, 0), *fakes)
    assert np.log(whole.high / whole.low) > 2 * np.log(split.high / split.low)


def test_what_has_no_ratio() -> None:
    real = rows(30, 1, 0)
    assert np.isnan(ratio_interval(lambda x, y: 0.0, real, real, real)).all()
    with pytest.raises(InputError, match=r"leave 2 groups; at least 3"):
        ratio_interval(fid, real, real, real, np.arange(30) % 2)
    with pytest.raises(InputError, match="3 and 2 columns"):
        ratio_interval(fid, real, real, real[:, :2])
    with pytest.raises(InputError, match=r"NaN|finite"):
        ratio_interval(fid, real, real, np.full((30, 3), np.nan))
