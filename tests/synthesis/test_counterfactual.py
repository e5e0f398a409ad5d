"""Outside M nothing changes, to the bit, whether the child is synthetic or real; a poor fit is refused."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from expressivegan.errors import InputError
from expressivegan.models import GeneratorWithCAMGuidance
from expressivegan.synthesis import (
    Projection,
    counterfactual_pairs,
    counterfactual_strip,
    edit_real,
    generate,
    project,
    steering_map,
)
from expressivegan.synthesis.counterfactual import strengths_of
from expressivegan.synthesis.generate import latent
from tiny import pictures, tiny_generator

QUICK: dict[str, Any] = {"draws": 32, "starts": 2, "steps": (40, 20)}


@pytest.fixture(scope="module")
def model() -> GeneratorWithCAMGuidance:
    return tiny_generator(frame=0.1)


def fitted(model: GeneratorWithCAMGuidance, label: int) -> Projection:
    return project(model, own(model, label), label, **QUICK)


def own(model: GeneratorWithCAMGuidance, label: int) -> torch.Tensor:
    """An image that the model can draw, and noise that it cannot."""
    image = next(iter(generate(model, [3], label=label))).image
    return (image + 0.05 * pictures(1)).clamp(-1, 1)


@pytest.fixture(scope="module")
def healthy(model: GeneratorWithCAMGuidance) -> Projection:
    return fitted(model, 0)


@pytest.fixture(scope="module")
def sick(model: GeneratorWithCAMGuidance) -> Projection:
    return fitted(model, 1)


# --- synthetic --------------------------------------------------------------------------------------------------------


def test_pairs_differ_where_m_lets_them(model: GeneratorWithCAMGuidance) -> None:
    pair = counterfactual_pairs(model, [0, 1, 2], 1)
    same = pair.mask == 0
    assert same.any()
    assert torch.equal(pair.without[same], pair.with_disease[same])
    assert not torch.equal(pair.without, pair.with_disease)
    made = torch.cat([m.image for m in generate(model, [0, 1, 2], label=1)])
    assert torch.allclose(pair.with_disease, made, atol=1e-5)
    none = counterfactual_pairs(model, [0, 1, 2], 1, strength=0.0)
    assert torch.equal(none.without, none.with_disease)
    assert torch.equal(none.without, pair.without)


def test_a_strip_goes_from_the_base_to_the_disease(model: GeneratorWithCAMGuidance) -> None:
    steer = steering_map("right lower", 32)
    strip = counterfactual_strip(model, 4, 2, seed=7, strength=0.8, steps=3, steer=steer)
    assert strip.strengths == (0.0, 0.4, 0.8)
    assert strip.images.shape == (3, 1, 32, 32)
    outside = (steer == 0).expand_as(strip.images)
    assert torch.equal(strip.images[outside], strip.before.expand_as(strip.images)[outside])
    assert (strip.base_change, strip.outside_change) == (0.0, 0.0)
    assert strip.outside_share >= float((steer == 0).float().mean())
    # the base is the same child's under the reference label, to the bit
    z = latent(7, 4, model.z_dim)[None]
    base = model.compose(z, torch.tensor([0]), style_labels=torch.tensor([2])).image
    assert torch.equal(strip.before, base)
    steps = (strip.images - strip.before).abs().mean(dim=(1, 2, 3))
    assert steps[0] == 0
    assert 0 < steps[1] < steps[2]
    assert torch.equal(strip.difference, strip.after - strip.before)


def test_the_style_of_a_strip(model: GeneratorWithCAMGuidance) -> None:
    one, other = (counterfactual_strip(model, 0, 1, style_label=s) for s in (0, 1))
    assert torch.equal(other.before, counterfactual_strip(model, 0, 1).before)
    assert not torch.equal(one.before, other.before)
    assert torch.equal(one.before, next(iter(generate(model, [0], label=0))).image)


def test_a_change_outside_is_noticed(model: GeneratorWithCAMGuidance, monkeypatch: pytest.MonkeyPatch) -> None:
    compose = model.compose

    def leaks(*args: Any, **options: Any) -> Any:
        parts = compose(*args, **options)
        return parts._replace(image=parts.image + 0.01 * options["strength"], base=parts.base + options["strength"])

    monkeypatch.setattr(model, "compose", leaks)
    strip = counterfactual_strip(model, 0, 1)
    assert strip.outside_change == pytest.approx(0.01, abs=1e-6)
    assert strip.base_change == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("label", "options", "message"),
    [
        (0, {}, r"label \(='NORMAL'\) has no lesion to add; choose BACTERIA or VIRUS"),
        (1, {"strength": 1.5}, r"strength \(=1.5\)"),
        (1, {"strength": float("nan")}, r"strength \(=nan\)"),
        (1, {"steer": torch.zeros(1, 1, 32, 32)}, "0 everywhere"),
        (1, {"style_label": 5}, r"style_label \(=5\)"),
        (7, {}, r"label \(=7\)"),
    ],
)
def test_pairs_that_make_no_sense(
    model: GeneratorWithCAMGuidance, label: int, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        counterfactual_pairs(model, [0], label, **options)
    with pytest.raises(InputError, match=message):
        counterfactual_strip(model, 0, label, **options)


def test_a_strip_has_two_pictures_at_least() -> None:
    with pytest.raises(InputError, match=r"steps \(=1\)"):
        strengths_of(1.0, 1)


# --- real -------------------------------------------------------------------------------------------------------------


def test_an_image_of_the_model_is_found_again(model: GeneratorWithCAMGuidance, healthy: Projection) -> None:
    healthy.check()
    assert healthy.unexplained < 0.3
    assert healthy.unexplained <= healthy.latent_unexplained
    assert healthy.residual == pytest.approx(float((healthy.image - healthy.real).square().mean().sqrt()))
    assert (healthy.mask == 0).all()
    again = project(model, healthy.real, 0, **QUICK)
    assert torch.equal(again.image, healthy.image)
    other = project(model, healthy.real, 0, seed=1, draws=4, starts=1, steps=(1, 0))
    assert not torch.equal(other.z, healthy.z)


def test_noise_is_refused(model: GeneratorWithCAMGuidance) -> None:
    told: list[tuple[int, int]] = []
    found = project(model, pictures(1, seed=3), 0, **QUICK, progress=lambda done, total: told.append((done, total)))
    assert told == [(i, 60) for i in range(1, 61)]
    assert found.unexplained > 0.6
    with pytest.raises(InputError, match=r"leaves \d+% of its variance"):
        found.check()


def test_features_and_maps_draw_the_fit(model: GeneratorWithCAMGuidance) -> None:
    asked = steering_map("left lower", 32)
    real = own(model, 1)
    few: dict[str, Any] = QUICK | {"steps": (20, 20)}
    plain, drawn = (project(model, real, 1, maps=m, **few) for m in (None, asked))
    assert (drawn.mask - asked).square().mean() < (plain.mask - asked).square().mean()

    def edges(images: torch.Tensor) -> torch.Tensor:
        return torch.cat([images.diff(dim=2)[..., 1:], images.diff(dim=3)[:, :, 1:]], 1)

    def apart(found: Projection) -> torch.Tensor:
        unit = [torch.nn.functional.normalize(edges(x), dim=1) for x in (found.image, real)]
        return (unit[0] - unit[1]).square().mean()

    assert apart(project(model, real, 1, features=edges, **few)) < apart(plain)


def test_a_disease_is_added_to_the_real_child(model: GeneratorWithCAMGuidance, healthy: Projection) -> None:
    steer = steering_map("right lower", 32)
    strip = edit_real(model, healthy, 2, steer=steer)
    assert torch.equal(strip.before, healthy.real)
    outside = (strip.mask == 0).expand_as(strip.images)
    assert torch.equal(strip.images[outside], healthy.real.expand_as(strip.images)[outside])
    assert (strip.mask[steer == 0] == 0).all()
    assert strip.outside_change == 0
    assert not torch.equal(strip.after, healthy.real)
    drawn = edit_real(model, healthy, 2, steer=steer, keep_residual=False)
    assert torch.equal(drawn.before, healthy.image)
    # what changes is what the model changes, where no grey level ends
    free = strip.after.abs() < 1
    assert torch.allclose(strip.difference[free], drawn.difference[free], atol=1e-6)


def test_a_disease_is_taken_away(model: GeneratorWithCAMGuidance, sick: Projection) -> None:
    strip = edit_real(model, sick, 0, steps=3)
    assert torch.equal(strip.before, sick.real)
    assert strip.outside_change == 0
    assert float((strip.mask == 0).float().mean()) > 0
    drawn = edit_real(model, sick, 0, keep_residual=False, steps=3)
    base = model.compose_styles(
        sick.styles, sick.lesion_style, torch.zeros(1, 1, 1, 1), model.window, model.noise(sick.z)
    ).image
    assert torch.equal(drawn.after, base)
    # of the residual, what lies under M goes with the disease
    expected = base + (1 - sick.mask) * (sick.real - sick.image)
    assert torch.allclose(strip.after, expected.clamp(-1, 1), atol=1e-5)


def test_edits_that_make_no_sense(model: GeneratorWithCAMGuidance, healthy: Projection, sick: Projection) -> None:
    steer = steering_map("right lower", 32)
    with pytest.raises(InputError, match="fitted without one"):
        edit_real(model, healthy, 0)
    with pytest.raises(InputError, match="added to an image that was fitted without one"):
        edit_real(model, sick, 2)
    with pytest.raises(InputError, match="taken away"):
        edit_real(model, sick, 0, steer=steer)
    with pytest.raises(InputError, match="strength"):
        edit_real(model, healthy, 1, strength=-0.1)
    with pytest.raises(InputError, match="of its variance"):
        replace(healthy, latent_unexplained=0.9).check()
    with pytest.raises(InputError, match="image must be"):
        project(model, pictures(1, 64), 0)
    with pytest.raises(InputError, match=r"image must lie in \[-1, 1\]"):
        project(model, pictures(1) * 9, 0)
