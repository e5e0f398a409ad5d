"""What one draw of benchmarks/memorisation.py knows: its two pools, and nothing of the images that it calls honest."""

from typing import Any

import numpy as np
import pytest

from benchmark_module import benchmark
from expressivegan.data.phantom import CLASSES, draw_batch
from expressivegan.evaluation.memorisation import calibrate
from expressivegan.evaluation.memorisation.distances import SIDE, Neighbours, make_pool

memorisation = benchmark("memorisation")


def world(owner: list[int], neighbour: list[int], like: list[float], label: list[int]) -> Any:
    """One neighbour an image, of the likeness given; nobody was taken twice."""
    n = len(owner)
    found = Neighbours(
        np.array(neighbour)[:, None],
        np.array(like, np.float32)[:, None],
        np.zeros((n, 1), bool),
        np.full((n, 2), -1),
        np.zeros(n, np.float32),
    )
    owners, labels = np.array(owner), np.array(label)
    bank = memorisation.Bank(found, owners[:, None], labels)
    patients = int(owners.max()) + 1
    return memorisation.World(
        owners, np.full(patients, "train"), np.zeros(patients, np.int64), bank, {}, np.zeros(0, np.float32),
        np.zeros(0, np.int64), None,
    )  # fmt: skip


def test_the_threshold_comes_from_the_held_out_pool_alone() -> None:
    # patients 0 and 1 generated, 2 and 3 training, 4 to 6 held out; 5 is nearest to an image that is called honest
    part = np.array([0, 0, 1, 1, 2, 2, 2])
    of = world([0, 1, 2, 3, 4, 5, 6], [2, 3, 4, 5, 2, 0, 3], [0.90, 0.85, 0.9, 0.9, 0.80, 0.93, 0.97], [0] * 7)
    dealt = memorisation.calibrated(of, part, np.random.default_rng(0))
    assert dealt.threshold == pytest.approx(0.82)  # 0.80 and the margin; 0.97 is a file stored twice
    assert dealt.strangers == (1, 3)
    _, near = memorisation.evidence(of.honest, np.array([0, 1]), part, of.owner, dealt.threshold)
    assert near.tolist() == [2, 0]  # which a threshold that had seen them would not say


def test_a_draw_is_calibrated_as_the_product_would() -> None:
    images = draw_batch(range(60), [CLASSES[i % 3] for i in range(60)], SIDE)[0]
    patients = np.array([f"p{i // 2:02}" for i in range(60)])
    groups = np.where(np.arange(60) < 30, "train", "judge")
    of = memorisation.build(images, patients, groups, np.arange(60) % 3, 6, 0)
    part = np.where(of.group == "train", 1, 2)
    pool = make_pool(images[:30])
    rng = np.random.default_rng(0)
    dealt = memorisation.calibrated(of, part, rng)
    asked = calibrate(images[:30], patients[:30], pool, images[30:], rng)
    assert dealt.threshold == pytest.approx(asked.threshold, abs=0.01)
    assert dealt.strangers == asked.strangers_called_copies


def test_a_class_is_tested_by_its_own_odds_where_these_accuse_less(monkeypatch: pytest.MonkeyPatch) -> None:
    odds: list[float] = []
    monkeypatch.setattr(memorisation, "copies_p_value", lambda copies, of, *_: odds.append(of) or 1.0)
    # training 2 and 3, held out 4 to 7; of class 0 the images of 2, 3 and 4, of class 1 those of 5, 6 and 7
    part = np.array([0, 0, 1, 1, 2, 2, 2, 2])
    of = world(list(range(8)), [2, 3, 2, 3, 2, 3, 2, 3], [0.5] * 8, [0, 1, 0, 0, 0, 1, 1, 1])
    rng = np.random.default_rng(0)
    dealt = memorisation.calibrated(of, part, rng)
    for label in (None, 0, 1):
        memorisation.p_value(of, dealt, [(of.honest, np.array([0, 1]))], rng, label)
    assert odds == pytest.approx([1 / 3, 2 / 3, 1 / 3])
