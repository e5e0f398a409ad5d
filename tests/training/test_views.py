"""What the discriminator sees of pairs that no real image has, and the ellipses to steer by."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from expressivegan.data import ImageSet
from expressivegan.devices import make_fabric
from expressivegan.streams import generator
from expressivegan.synthesis.steering import ellipse_maps
from expressivegan.training.run import Run
from expressivegan.training.steps import Batch, adversarial_step
from expressivegan.training.views import draw_ellipses, lung_view
from tiny import tiny_config

ALL = torch.tensor([True, True])


def pictures() -> torch.Tensor:
    return torch.rand(2, 1, 40, 40, generator=generator(0)) - 0.5


def test_a_view_of_the_lungs_has_neither_frame_nor_exposure() -> None:
    images = pictures()
    other = 0.3 + 0.5 * images
    other[..., :4], other[..., -4:], other[..., :4, :], other[..., -4:, :] = 1.0, -1.0, 0.7, -0.7
    view = lung_view(images, ALL)
    assert torch.allclose(view, lung_view(other, ALL), atol=2e-3)
    inside = view[..., 4:-4, 4:-4]
    assert view.abs().sum() == inside.abs().sum()  # the frame is 0
    assert inside.mean().item() == pytest.approx(0, abs=1e-4)
    assert inside.std().item() == pytest.approx(0.4, abs=1e-2)


def test_other_images_stay_as_they_are() -> None:
    images = pictures()
    some = lung_view(images, torch.tensor([False, True]))
    assert torch.equal(some[0], images[0])
    assert not torch.equal(some[1], images[1])
    assert lung_view(images, torch.tensor([False, False])) is images


def test_a_black_image_has_a_view_and_a_gradient() -> None:
    black = torch.full((2, 1, 40, 40), -1.0, requires_grad=True)
    lung_view(black, ALL).square().sum().backward()  # type: ignore[no-untyped-call]
    assert black.grad is not None
    assert torch.isfinite(black.grad).all()


def test_ellipses_lie_in_either_lung() -> None:
    drawn = draw_ellipses(500, generator(0))
    maps = ellipse_maps(drawn, 32)
    assert maps.amax(dim=(1, 2, 3)).min() > 0.9
    left = maps[..., :16].sum(dim=(1, 2, 3)) > maps[..., 16:].sum(dim=(1, 2, 3))
    assert 0.4 < left.float().mean() < 0.6
    assert torch.equal(drawn, draw_ellipses(500, generator(0)))


def _terms(run: Run, batch: Batch) -> dict[str, float]:
    """Of the first step of a fresh run."""
    terms = adversarial_step(
        run.nets, batch, run.config, autocast=run.fabric.autocast, check=lambda terms: None,
        average_gradients=lambda network: None,
    )  # fmt: skip
    return {name: term.item() for name, term in terms.items()}


def _moved(before: dict[str, torch.Tensor], network: torch.nn.Module | None) -> bool:
    assert network is not None
    return any(not torch.equal(before[name], value) for name, value in network.state_dict().items())


def _step(phantoms: ImageSet, change: str, **settings: Any) -> tuple[dict[str, float], Run]:
    """The third step of a run, its real images brighter in the frame or everywhere, of free pairs or of the others."""
    config = tiny_config(batch=8, free_after=0.0, augment=0.0, diversity_weight=0.0, penalty_every=1, **settings)
    run = Run(phantoms, config, None, make_fabric("cpu", "32-true"))
    for _ in range(2):
        run.step(lambda terms: None)
    batch = run.draw(2)
    real = batch.real.clone()
    rows = batch.free if "free" in change else ~batch.free
    if "frame" in change:
        real[rows, :, :3] = 1.0
    elif change:
        real[rows] = real[rows].roll(5, -1)
    return _terms(run, replace(batch, real=real)), run


def test_of_free_pairs_the_lesion_critic_sees_the_lungs_and_the_discriminator_nothing(phantoms: ImageSet) -> None:
    plain, run = _step(phantoms, "", free_share=0.25)
    free, other_run = _step(phantoms, "free", free_share=0.25)
    assert {"d_adversarial", "d_r1", "c_adversarial", "c_r1", "c_class"} <= plain.keys()
    for name in plain:
        if name.startswith("d_"):
            assert free[name] == plain[name]
    assert free["c_adversarial"] != plain["c_adversarial"]
    assert not _moved(run.nets.D.state_dict(), other_run.nets.D)
    frame, _ = _step(phantoms, "frame of free", free_share=0.25)
    assert frame["c_adversarial"] == pytest.approx(plain["c_adversarial"], rel=1e-5)
    natural, _ = _step(phantoms, "natural", free_share=0.25)
    assert natural["c_adversarial"] == plain["c_adversarial"]
    assert natural["d_adversarial"] != plain["d_adversarial"]


def test_the_lesion_critic_starts_as_the_discriminator(phantoms: ImageSet) -> None:
    config = tiny_config(batch=8, kimg=0.032, free_share=0.25, free_after=0.5)
    run = Run(phantoms, config, None, make_fabric("cpu", "32-true"))
    for _ in range(2):
        assert "c_adversarial" not in run.step(lambda terms: None)
    assert run.nets.lesion_critic is None
    before = {name: value.clone() for name, value in run.nets.D.state_dict().items()}
    config_of_optimisers = [group["lr"] for o in run.nets.optimisers for group in o.param_groups]
    terms = run.step(lambda terms: None)
    assert "c_adversarial" in terms
    critic = run.nets.lesion_critic
    assert critic is not None
    assert _moved(before, critic)
    largest = max(float((before[name] - value).abs().max()) for name, value in critic.state_dict().items())
    assert largest < 2 * max(config_of_optimisers)  # one step of Adam away


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_or_none_of_the_pairs_free(phantoms: ImageSet, share: float) -> None:
    config = tiny_config(free_share=share, free_after=0.0)
    run = Run(phantoms, config, None, make_fabric("cpu", "32-true"))
    terms = run.step(lambda terms: None)
    assert ("d_adversarial" in terms, "c_adversarial" in terms) == (not share, bool(share))
    batch = run.draw(0)
    assert set(batch.free.tolist()) == {bool(share)}
    assert share or torch.equal(batch.styles, batch.labels)


@pytest.mark.parametrize("batch", [4, 8, 12, 20])
def test_as_many_free_pairs_as_asked_in_batches_of_any_size(phantoms: ImageSet, batch: int) -> None:
    config = tiny_config(free_share=0.25, free_after=0.0, batch=batch)
    run = Run(phantoms, config, None, make_fabric("cpu", "32-true"))
    shares = [float(run.draw(1).free.float().mean()) for _ in range(60)]
    assert np.mean(shares) == pytest.approx(0.25, abs=0.03)


def test_half_of_the_free_pairs_are_healthy_in_any_style(phantoms: ImageSet) -> None:
    run = Run(phantoms, tiny_config(free_share=1.0, free_after=0.0, batch=64), None, make_fabric("cpu", "32-true"))
    batches = [run.draw(step) for step in range(20)]
    healthy = torch.cat([batch.labels for batch in batches]) == phantoms.reference
    styles = torch.cat([batch.styles for batch in batches])
    natural = float((phantoms.labels[phantoms.indices("train")] == phantoms.reference).mean())
    assert float(healthy.float().mean()) == pytest.approx(0.5 + 0.5 * natural, abs=0.05)
    assert float((styles[healthy] == 1).float().mean()) == pytest.approx(1 / 3, abs=0.06)


def test_free_pairs_begin_late_and_they_alone_are_steered(phantoms: ImageSet) -> None:
    config = tiny_config(kimg=1.0, batch=64, free_share=0.5, free_after=0.5, steer_share=0.5)
    run = Run(phantoms, config, None, make_fabric("cpu", "32-true"))
    run.cams = np.ones((len(phantoms), 3, 2, 2), np.float16)
    early = run.draw(0)
    run.seen = 500
    late = [run.draw(step) for step in range(8)]
    assert not early.free.any()
    assert not early.steered.any()
    free, steered = (torch.cat([getattr(batch, name) for batch in late]) for name in ("free", "steered"))
    assert free.float().mean() == 0.5
    assert not (steered & ~free).any()
    assert float(steered[free].float().mean()) == pytest.approx(0.5, abs=0.1)


def test_the_base_learns_nothing_from_a_disease_in_another_style(phantoms: ImageSet) -> None:
    """The critic would draw the base's picture towards the disease."""
    config = tiny_config(diversity_weight=0.0, detail_weight=0.0, area_weight=0.0, delta_weight=0.0, steer_weight=0.0)
    for free in (True, False):
        run = Run(phantoms, config, None, make_fabric("cpu", "32-true"))
        run._add_lesion_critic()
        batch = run.draw(0)
        every = torch.ones_like(batch.free)
        ill = torch.ones_like(batch.labels)
        batch = replace(batch, free=every & free, labels=ill, styles=ill)
        before = run.nets.G.base_out.weight.clone()
        _terms(run, batch)
        assert torch.equal(run.nets.G.base_out.weight, before) == free
