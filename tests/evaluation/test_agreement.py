"""Class agreement and shortcuts: by hand, against scikit-learn, and with planted faults."""

import json
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score

from expressivegan.data import phantom
from expressivegan.errors import InputError
from expressivegan.evaluation.agreement import agreement_report, auc_draws
from expressivegan.evaluation.anatomy import landmarks
from expressivegan.evaluation.shortcuts import shortcut_report

CLASSES = ("NORMAL", "BACTERIA", "VIRUS")


def judged(n: int, skill: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a classifier, better with higher skill, and labels."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, n)
    logits = draw.normal(size=(n, 3)) + skill * np.eye(3)[labels]
    p = np.exp(logits)
    return p / p.sum(1, keepdims=True), labels


def agree(real: tuple[Any, Any], fake: tuple[Any, Any], **more: Any) -> Any:
    return agreement_report(*real, np.arange(len(real[1])), *fake, CLASSES, **{"rounds": 200} | more)


# --- agreement


def test_by_hand() -> None:
    eye = np.eye(2)
    real = eye[[0] * 9 + [1] + [1] * 10]  # 9 of 10 of A are called so, 10 of 10 of B
    fake = eye[[0] * 6 + [1] * 4 + [1] * 8 + [0] * 2]
    labels = np.repeat([0, 1], 10)
    found = agreement_report(real, labels, np.arange(20), fake, labels, ["A", "B"], rounds=50)
    a, everything = found.figures["A"], found.figures["all"]
    assert (a["accuracy_real"].value, a["accuracy_fake"].value) == (0.9, 0.6)
    assert a["accuracy_ratio"].value == pytest.approx(2 / 3)
    assert a["auc_fake"].value == pytest.approx(0.6 * 0.8 + 0.5 * (0.6 * 0.2 + 0.4 * 0.8))
    assert everything["accuracy_real"].value == pytest.approx(0.95)
    assert (a["share_real"], a["n_fake"]) == (0.5, 10)
    assert found.confusion_fake.tolist() == [[6, 4], [2, 8]]


def test_values_are_scikit_learns() -> None:
    p, labels = judged(300, 1, 0)
    found = agree((p, labels), (p, labels))
    for k, name in enumerate(CLASSES):
        expected = roc_auc_score(labels == k, p[:, k])
        assert found.figures[name]["auc_real"].value == pytest.approx(expected, abs=1e-12)
    assert (found.confusion_real == confusion_matrix(labels, p.argmax(1))).all()


def test_weighted_auc_is_scikit_learns() -> None:
    draw = np.random.default_rng(0)
    truth, score, weights = draw.random(80) < 0.4, draw.integers(0, 12, 80) / 7, draw.integers(0, 4, (3, 80)) * 1.0
    expected = [roc_auc_score(truth, score, sample_weight=w) for w in weights]
    np.testing.assert_allclose(auc_draws(truth, score, weights), expected, rtol=1e-12)
    assert np.isnan(auc_draws(np.zeros(80, bool), score, weights)).all()


def test_equal_sets_agree_and_say_nothing() -> None:
    found = agree(judged(600, 2, 0), judged(600, 2, 1))
    assert found.warnings == ()
    gap = found.figures["all"]["accuracy_difference"]
    assert gap.low < 0 < gap.high
    json.dumps(found.as_json(), allow_nan=False)


def test_prototypes_are_too_good() -> None:
    p, labels = judged(2000, 2, 3)
    best = np.concatenate([np.flatnonzero(labels == k)[p[labels == k, k].argsort()[-5:]] for k in range(3)])
    chosen = np.repeat(best, 40)
    found = agree(judged(600, 2, 0), (p[chosen], labels[chosen]))
    assert found.figures["all"]["accuracy_fake"].value == 1
    assert any("easier than real ones" in w for w in found.warnings)


def test_shuffled_labels_and_a_missing_class_are_named() -> None:
    p, labels = judged(600, 2, 1)
    found = agree(judged(600, 2, 0), (p, np.roll(labels, 7)))
    assert any("do not show their label" in w for w in found.warnings)
    assert found.figures["all"]["auc_fake"].value == pytest.approx(0.5, abs=0.06)
    without = labels != 2
    found = agree(judged(600, 2, 0), (p[without], labels[without]))
    assert "VIRUS has no synthetic image" in found.warnings
    assert "VIRUS" not in found.figures


def test_repeated_patients_widen_the_interval() -> None:
    p, labels = judged(200, 1, 0)
    repeated = np.tile(np.arange(200), 5)
    narrow = agree((p[repeated], labels[repeated]), (p, labels)).figures["all"]["accuracy_real"]
    wide = agreement_report(
        p[repeated], labels[repeated], repeated, p, labels, CLASSES, rounds=200
    ).figures["all"]["accuracy_real"]  # fmt: skip
    assert wide.high - wide.low > 1.7 * (narrow.high - narrow.low)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"judge_probabilities_fake": np.full((300, 3), np.nan)}, "judge_probabilities_fake must be finite"),
        ({"judge_probabilities_real": np.ones((300, 3))}, "sum to 1"),
        ({"judge_probabilities_real": np.ones((300, 2))}, "must have shape"),
        ({"labels_fake": np.full(300, 3)}, "allowed is 0..2"),
        ({"labels_real": np.zeros(2, int)}, "must be 300 integers"),
        ({"patients_real": np.zeros(2)}, "patients_real of shape"),
        ({"labels_real": np.zeros(300, int)}, "class BACTERIA has 0 real images"),
        ({"rounds": 0}, "rounds"),
        ({"classes": ["A"]}, "2 classes"),
    ],
)
def test_bad_input_is_refused(change: dict[str, Any], said: str) -> None:
    p, labels = judged(300, 1, 0)
    given: dict[str, Any] = {
        "judge_probabilities_real": p,
        "labels_real": labels,
        "patients_real": np.arange(300),
        "judge_probabilities_fake": p,
        "labels_fake": labels,
        "classes": CLASSES,
    }
    with pytest.raises(InputError, match=said):
        agreement_report(**given | change)


# --- shortcuts


N = 240


@pytest.fixture(scope="module")
def sets() -> dict[str, Any]:
    """Phantoms of other children on either side; in both, the frame tells the label a little."""
    made: dict[str, Any] = {}
    for name, first in (("real", 0), ("fake", 1000)):
        labels = np.arange(N) % 2
        images, _ = phantom.draw_batch(range(first, first + N), [CLASSES[k] for k in labels])
        made[name] = lit(images, labels, 12)
        made[f"{name}_labels"] = labels
        made[f"{name}_landmarks"] = landmarks(made[name])
    made["real_patients"] = np.arange(N).astype(str)
    return made


def lit(images: np.ndarray, labels: np.ndarray, step: int) -> np.ndarray:
    """Borders brighter by `step` grey levels, give or take 15, where the label is 1."""
    draw = np.random.default_rng(0)
    extra = draw.normal(0, 15, len(labels)) + step * labels
    border = np.ones((64, 64), bool)
    border[6:-6, 6:-6] = False
    changed = images + border * extra[:, None, None]
    return changed.clip(0, 255).astype(np.uint8)


def shortcuts(sets: dict[str, Any], **change: Any) -> Any:
    return shortcut_report(**sets | change, classes=CLASSES[:2], rounds=100)


def test_alike_is_alike(sets: dict[str, Any]) -> None:
    found = shortcuts(sets)
    row = found.figures["frame"]
    assert row["difference"].low < 0.02
    assert row["real"].value == pytest.approx(row["fake"].value, abs=0.1)
    assert row["real_to_fake"].value > 0.6
    assert not any("amplify" in s for s in found.sentences)
    assert found.n == {"NORMAL": 120, "BACTERIA": 120}
    json.dumps(found.as_json(), allow_nan=False)


def test_offset_of_the_border_is_amplification(sets: dict[str, Any]) -> None:
    found = shortcuts(sets, fake=lit(sets["fake"], sets["fake_labels"], 60))
    assert found.figures["frame"]["difference"].low > 0.05
    assert any("amplify a shortcut: the outer 10%" in w for w in found.warnings)


def test_shuffled_frames_are_at_chance(sets: dict[str, Any]) -> None:
    fake = sets["fake"].copy()
    inner = fake[:, 7:-7, 7:-7].copy()
    fake = fake[np.random.default_rng(0).permutation(N)]
    fake[:, 7:-7, 7:-7] = inner
    found = shortcuts(sets, fake=fake)
    row = found.figures["frame"]
    assert row["fake"].low < 0.5 < row["fake"].high
    assert row["real_to_fake"].value == pytest.approx(0.5, abs=0.1)
    assert "less of a shortcut" in found.sentences[0]


def test_geometry_counts_too(sets: dict[str, Any]) -> None:
    stretched = sets["fake"].copy()
    ill = sets["fake_labels"] == 1
    stretched[ill] = np.take(stretched[ill], np.clip(np.arange(64) * 0.8 + 6.4, 0, 63).astype(int), axis=1)
    found = shortcuts(sets, fake=stretched, fake_landmarks=landmarks(stretched))
    assert found.figures["geometry"]["difference"].low > 0.1


def test_shortcuts_need_patients(sets: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="only 0 of the classes"):
        shortcuts(sets, real_patients=np.array(["one"] * N))
    with pytest.raises(InputError, match="fake_patients of shape"):
        shortcuts(sets, fake_patients=["a"])
    with pytest.raises(InputError, match="real_labels"):
        shortcuts(sets, real_labels=[0])
