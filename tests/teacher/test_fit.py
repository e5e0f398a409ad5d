"""A teacher learns, says how good it is with intervals over patients, and reopens."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from expressivegan.checkpoint import state_hash
from expressivegan.config import UNPROTECTED
from expressivegan.data import ImageSet, load_images
from expressivegan.errors import DataError, InputError, TrainingError
from expressivegan.intervals import bootstrap
from expressivegan.teacher import CXR_CAM_Teacher, open_teacher
from expressivegan.teacher.fit import TeachConfig, border_shortcut, fit_teacher, predict, write_teacher
from expressivegan.teacher.focus import FIGURES
from expressivegan.teacher.metrics import (
    as_json,
    classification_report,
    confusion,
    expected_calibration_error,
)
from tiny import phantom_set

# --- metrics ----------------------------------------------------------------------------------------------------------


def test_calibration_error_by_hand() -> None:
    confidence, correct = np.array([0.95, 0.95, 0.15, 0.15]), np.array([True, False, False, False])
    assert expected_calibration_error(confidence, correct) == pytest.approx(0.5 * 0.45 + 0.5 * 0.15)
    assert expected_calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0
    assert expected_calibration_error(np.array([0.72, 0.78]), np.array([True, False])) == pytest.approx(0.25)
    assert expected_calibration_error(np.array([0.72, 0.78]), np.array([True, False]), bins=20) == pytest.approx(0.53)


def test_report_by_hand() -> None:
    p = np.array([[0.9, 0.1, 0.0], [0.6, 0.3, 0.1], [0.65, 0.35, 0.0], [0.2, 0.3, 0.5]])
    labels = np.array([0, 0, 1, 2])
    found = classification_report(p, labels, list("abcd"), ("N", "B", "V"), 0, rounds=20)
    assert found["auc_2class"].value == pytest.approx(0.75)  # of 4 pairs one is the wrong way round
    assert found["auc_B"].value == pytest.approx(1.0)
    assert found["auc_V"].value == pytest.approx(1.0)
    assert found["accuracy"].value == pytest.approx(0.75)
    assert found["balanced_accuracy"].value == pytest.approx(2 / 3)
    assert found["calibration_error_V"].value == pytest.approx(0.5 * 0.0 + 0.25 * 0.1 + 0.25 * 0.5)
    assert confusion(p, labels, 3).tolist() == [[2, 0, 0], [1, 0, 0], [0, 0, 1]]
    assert "auc_2class" not in classification_report(p, labels, list("abcd"), ("N", "B", "V"), None, rounds=5)
    assert as_json({"x": found["accuracy"]._replace(low=float("nan"))})["x"][1] is None
    for interval in found.values():
        assert not interval.low > interval.value + 1e-9


def test_intervals_are_over_patients() -> None:
    values = np.random.default_rng(0).normal(size=60)
    ten = np.repeat(values, 10)

    def width(x: np.ndarray, patients: list[str]) -> float:
        found = bootstrap(lambda i: float(x[i].mean()), patients, rounds=400)
        assert found.value == pytest.approx(values.mean())
        assert found.low < found.value < found.high
        return found.high - found.low

    honest = width(values, [str(i) for i in range(60)])
    assert honest == pytest.approx(4 * values.std() / np.sqrt(60), rel=0.2)
    # ten images of each patient add nothing; taken for patients of their own they seem to
    assert width(ten, [str(i // 10) for i in range(600)]) == pytest.approx(honest, rel=0.2)
    assert width(ten, [str(i) for i in range(600)]) < 0.5 * honest


def test_a_patients_images_are_drawn_together() -> None:
    seen: list[np.ndarray] = []
    bootstrap(lambda i: float(seen.append(i) or 0.0), list("abab"), rounds=5)
    for drawn in seen:
        assert np.isin([0, 2], drawn).all() or not np.isin([0, 2], drawn).any()


def test_draws_that_say_nothing_are_left_out() -> None:
    found = bootstrap(lambda i: float("nan") if 0 in i else 1.0, list("abc"), rounds=50)
    assert np.isnan(found.value)
    assert (found.low, found.high) == (1.0, 1.0)


# --- fitting ----------------------------------------------------------------------------------------------------------

QUICK = replace(UNPROTECTED, epochs=12, batch=16)  # so short a fit learns little of what is spoiled on purpose


@pytest.fixture(scope="module")
def images(_own_cache: None) -> ImageSet:
    return phantom_set(240)


@pytest.fixture(scope="module")
def fitted(images: ImageSet) -> CXR_CAM_Teacher:
    return fit_teacher(images, QUICK, device="cpu", precision="32-true")


def test_it_learns(images: ImageSet, fitted: CXR_CAM_Teacher) -> None:
    judged = images.indices("judge")
    p = predict(fitted, np.asarray(images.images[judged]))
    assert p.sum(1) == pytest.approx(1)
    found = classification_report(p, images.labels[judged], list(images.patients[judged]), images.classes, 0, 100)
    assert found["auc_2class"].value > 0.8


def test_its_maps_are_brighter_on_the_diseased(images: ImageSet, fitted: CXR_CAM_Teacher) -> None:
    x, y = images.batch(images.indices("judge"))
    with torch.no_grad():
        level = fitted(x).cams.mean(dim=(1, 2, 3))
    assert level[y != 0].mean() > 1.3 * level[y == 0].mean()
    assert not fitted.training


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")  # since no step is made
def test_a_batch_that_is_told_teaches_no_more(phantoms: ImageSet) -> None:
    def weights(rate: float, enough: float) -> Tensor:
        config = TeachConfig(epochs=1, batch=16, rate=rate, enough=enough)
        found = fit_teacher(phantoms, config, device="cpu", precision="32-true")
        return torch.cat([p.detach().flatten() for p in found.parameters()])

    initial = weights(1e-12, 0.0)
    assert torch.allclose(weights(2e-3, 10.0), initial, atol=1e-6)  # no batch is worse than that
    assert not torch.allclose(weights(2e-3, 0.0), initial, atol=1e-3)


def test_it_is_deterministic(phantoms: ImageSet) -> None:
    config = TeachConfig(epochs=1, batch=16)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one = fit_teacher(phantoms, config, device="cpu", precision="32-true")
    assert torch.equal(torch.get_rng_state(), before)  # all randomness is its own
    torch.manual_seed(1)
    steps: list[tuple[int, int]] = []
    other = fit_teacher(
        phantoms, config, device="cpu", precision="32-true", progress=lambda a, b, _: steps.append((a, b))
    )
    assert state_hash(one) == state_hash(other)
    assert state_hash(fit_teacher(phantoms, replace(config, seed=1), device="cpu", precision="32-true")) != state_hash(
        one
    )
    assert [a for a, _ in steps] == list(range(1, len(steps) + 1))
    assert steps[-1][0] == steps[-1][1]


def test_only_training_patients_are_learnt_from(phantoms: ImageSet) -> None:
    config = TeachConfig(epochs=1, batch=16)
    blank = np.asarray(phantoms.images).copy()
    blank[phantoms.groups != "train"] = 0
    one, other = (fit_teacher(x, config, device="cpu", precision="32-true")
                  for x in (phantoms, replace(phantoms, images=blank)))  # fmt: skip
    assert state_hash(one) == state_hash(other)


def test_write_and_reopen(images: ImageSet, fitted: CXR_CAM_Teacher, tmp_path: Path) -> None:
    out = tmp_path / "new" / "teacher"
    report = write_teacher(fitted, images, QUICK, out, rounds=20)
    names = {p.name for p in out.iterdir()}
    assert names >= {"config.json", "model.safetensors", "README.md", "report.json", "confusion.png"}
    assert [p.name for p in out.parent.iterdir()] == ["teacher"]
    assert json.loads((out / "report.json").read_text()) == json.loads(json.dumps(report))
    for group in ("judge", "test"):
        found = report["groups"][group]
        assert found["images"] == len(images.indices(group)) == np.sum(found["confusion"])
        value, low, high = found["metrics"]["auc_2class"]
        assert low <= value <= high
        assert set(found["focus"]) == set(FIGURES)
        assert 0 <= found["focus"]["frame_mass"][0] < 0.36
    card = (out / "README.md").read_text()
    assert "Not for diagnosis" in card
    assert all(text in card for text in FIGURES.values())
    picture = np.asarray(Image.open(out / "cams.png"))
    assert picture.shape[1] == 6 * 34 - 2
    assert picture.shape[0] > 9 * 34
    assert images.data_hash[:16] in card
    again = open_teacher(str(out))
    x, _ = images.batch(images.indices("judge")[:4])
    with torch.no_grad():
        assert torch.allclose(again(x).cams, fitted(x).cams, atol=1e-5)  # kernels round by the layout in memory
        assert torch.allclose(again(x).logits, fitted(x).logits, atol=1e-5)
    assert state_hash(again) == state_hash(fitted)
    assert open_teacher(str(out), meth="max").meth == "max"


@pytest.mark.filterwarnings("ignore:.*EVERY IMAGE COUNTS AS A PATIENT")
def test_one_class_cannot_be_told_apart(tmp_path: Path) -> None:
    (tmp_path / "set" / "only").mkdir(parents=True)
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "set" / "only" / f"{i}.png")
    alone = load_images(tmp_path / "set", 32, cache_dir=tmp_path / "cache", progress=False)
    with pytest.raises(DataError, match=r"at least two classes.*\['only'\]"):
        fit_teacher(alone, QUICK, device="cpu")


def test_a_class_without_training_patients_is_named(phantoms: ImageSet) -> None:
    groups = phantoms.groups.copy()
    groups[phantoms.labels == 1] = "test"
    with pytest.raises(DataError, match="class BACTERIA has no image"):
        fit_teacher(replace(phantoms, groups=groups), QUICK, device="cpu")


def test_named_weights_go_with_their_network(phantoms: ImageSet) -> None:
    with pytest.raises(InputError, match=r"init \(='xrv:densenet121-res224-all'\).*densenet121 only"):
        fit_teacher(phantoms, TeachConfig(init="xrv:densenet121-res224-all"), device="cpu")


def test_a_loss_that_is_not_finite_stops(phantoms: ImageSet) -> None:
    with pytest.raises(TrainingError, match=r"loss is nan.*try a lower rate \(=1e\+30\)"):
        fit_teacher(phantoms, TeachConfig(epochs=3, batch=16, rate=1e30), device="cpu", precision="32-true")


def test_the_border_shortcut(images: ImageSet) -> None:
    train = images.indices("train")
    plain = border_shortcut(images, train)
    assert plain is not None
    marked = np.asarray(images.images).copy()
    marked[images.labels != 0, :2, :2] = 255
    marked[images.labels == 0, :2, :2] = 0
    told = border_shortcut(replace(images, images=marked), train)
    assert told is not None
    assert told.value > 0.99 > plain.value
    centre = np.asarray(images.images).copy()
    centre[images.labels != 0, 12:20, 12:20] = 255  # what happens inside is not seen
    inside = border_shortcut(replace(images, images=centre), train)
    assert inside is not None
    assert inside.value == pytest.approx(plain.value, abs=1e-6)
    assert border_shortcut(images, train[:10]) is None
