"""Feature networks on tiny recipes: contracts, reproducibility and cache; their accuracy is a matter for benchmarks."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from expressivegan import devices
from expressivegan.errors import InputError
from expressivegan.evaluation import FeatureSpace, JudgeClassifier, JudgeRecipe, SelfSupervisedFeatures
from expressivegan.evaluation.features import SelfSupervisedRecipe, fitting, mask_border
from expressivegan.evaluation.features.fitting import training_key

CLASSES = ("DARK", "BRIGHT")
RECIPE = JudgeRecipe(resolution=32, epochs=4, batch=8)
SELF = SelfSupervisedRecipe(resolution=32, epochs=2, batch=8, projector=32)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    """A bright or a dark blob in the middle of noise."""
    draw = np.random.default_rng(0)
    labels = np.arange(24) % 2
    images = draw.integers(100, 140, (24, 32, 32))
    images[:, 10:22, 10:22] += (labels * 160 - 80)[:, None, None]
    return images.astype(np.uint8), labels


@pytest.fixture(scope="module")
def judge(data: tuple[np.ndarray, np.ndarray]) -> JudgeClassifier:
    return JudgeClassifier.fit(*data, CLASSES, recipe=RECIPE)


def test_features_and_probabilities(judge: JudgeClassifier, data: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = data
    space: FeatureSpace = judge
    features = space.features(images)
    assert (features.shape, features.dtype, space.name) == ((24, 512), np.float32, "judge")
    assert np.isfinite(features).all()
    probabilities = judge.predict(images)
    assert probabilities.shape == (24, 2)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert (probabilities.argmax(1) == labels).mean() > 0.9


def test_each_row_depends_on_its_own_image(judge: JudgeClassifier, data: tuple[np.ndarray, np.ndarray]) -> None:
    images = data[0]
    np.testing.assert_allclose(judge.features(images)[3:5], judge.features(images[3:5]), rtol=1e-3, atol=1e-4)


def test_the_judge_is_blind_to_the_border(judge: JudgeClassifier, data: tuple[np.ndarray, np.ndarray]) -> None:
    spoilt = data[0].copy()
    spoilt[:, :3] = 255
    spoilt[:, :, -3:] = 0
    np.testing.assert_array_equal(judge.features(spoilt), judge.features(data[0]))
    assert mask_border(torch.ones(1, 1, 20, 20), 0.1).sum() == 256


def test_other_sizes_are_resampled(judge: JudgeClassifier, data: tuple[np.ndarray, np.ndarray]) -> None:
    doubled = data[0].repeat(2, 1).repeat(2, 2)
    assert (judge.predict(doubled).argmax(1) == judge.predict(data[0]).argmax(1)).all()


def test_seed_and_global_generator(data: tuple[np.ndarray, np.ndarray]) -> None:
    before, recipe = torch.get_rng_state(), replace(RECIPE, epochs=1)
    first, again, other = (JudgeClassifier.fit(*data, CLASSES, recipe=recipe, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_allclose(again.features(data[0]), first.features(data[0]), rtol=1e-2, atol=1e-2)
    assert np.abs(other.features(data[0]) - first.features(data[0])).max() > 0.05
    assert other.identity != first.identity
    assert JudgeClassifier(first._network, CLASSES, RECIPE).identity != first.identity


@pytest.mark.parametrize("hardware", [True, False])
def test_they_are_fitted_in_bfloat16_where_the_hardware_has_it_alone(
    monkeypatch: pytest.MonkeyPatch, hardware: bool
) -> None:
    monkeypatch.setattr(devices, "fast_bf16", lambda device: hardware)
    network = torch.nn.Linear(2, 1)
    seen = []

    def loss() -> torch.Tensor:
        made = network(torch.ones(1, 2))
        seen.append(made.dtype)
        return made.float().sum()

    fitting.optimise(list(network.parameters()), RECIPE, 2, loss, None)
    assert seen == [torch.bfloat16 if hardware else torch.float32] * 2


def test_the_key_of_resized_images_knows_how(data: tuple[np.ndarray, np.ndarray]) -> None:
    def key(images: np.ndarray) -> dict[str, object]:
        return training_key("judge", asdict(RECIPE), 0, "judge", images, None, CLASSES)

    assert "frame" not in key(data[0])
    assert key(data[0][:, :16])["frame"] == 1


def test_cache_is_used_keyed_and_mended(tmp_path: Path, data: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = data
    recipe = replace(RECIPE, epochs=1)
    steps: list[int] = []

    def fit(**changes) -> np.ndarray:
        steps.clear()
        options = {
            "recipe": recipe,
            "cache": tmp_path,
            "progress": lambda step, of, loss: steps.append(step),
            **changes,
        }
        return JudgeClassifier.fit(images, options.pop("labels", labels), CLASSES, **options).features(images)

    first = fit()
    assert steps == [1, 2, 3]
    np.testing.assert_array_equal(fit(), first)
    assert not steps
    for change in ({"seed": 1}, {"group": "train"}, {"recipe": RECIPE}, {"labels": 1 - labels}):
        fit(**change)
        assert steps, change
    weights = sorted(tmp_path.glob("*.safetensors"))
    assert len(weights) == len(list(tmp_path.glob("*.json"))) == 5
    for path in weights:
        path.write_bytes(path.read_bytes()[:1000])
    fit()
    assert steps == [1, 2, 3]
    fit()
    assert not steps


def test_self_supervised_features(tmp_path: Path, data: tuple[np.ndarray, np.ndarray]) -> None:
    space: FeatureSpace = SelfSupervisedFeatures.fit(data[0], recipe=SELF, cache=tmp_path)
    features = space.features(data[0])
    assert (features.shape, features.dtype, space.name) == ((24, 512), np.float32, "selfsup")
    assert np.isfinite(features).all()
    assert features.std(0).max() > 0
    again = SelfSupervisedFeatures.fit(data[0], recipe=SELF, cache=tmp_path).features(data[0])
    np.testing.assert_array_equal(again, features)


def test_unfit_input_is_named(judge: JudgeClassifier, data: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = data
    with pytest.raises(InputError, match=r"uint8 array \(N, H, W\), not float64"):
        judge.features(images / 255)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not uint8"):
        judge.predict(images[0])
    with pytest.raises(InputError, match="no image of class BRIGHT"):
        JudgeClassifier.fit(images, labels * 0, CLASSES, recipe=RECIPE)
    with pytest.raises(InputError, match=r"integers of shape \(24,\)"):
        JudgeClassifier.fit(images, labels[:5], CLASSES, recipe=RECIPE)
    with pytest.raises(InputError, match="there are 2 classes"):
        JudgeClassifier.fit(images, labels + 1, CLASSES, recipe=RECIPE)
    with pytest.raises(InputError, match="too few"):
        SelfSupervisedFeatures.fit(images[:3], recipe=SELF)
