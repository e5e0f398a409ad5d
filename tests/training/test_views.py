"""What the discriminator sees of pairs that no real image has, and the ellipses to steer by."""

from dataclasses import replace

import pytest
import torch

from expressivegan.data import ImageSet
from expressivegan.devices import make_fabric
from expressivegan.streams import generator
from expressivegan.synthesis.steering import ellipse_maps
from expressivegan.training.loop import Run
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


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_of_a_free_pair_the_discriminator_cannot_see_the_frame(phantoms: ImageSet, share: float) -> None:
    found = []
    for brighter in (False, True):
        config = tiny_config(free_share=share, free_after=0.0, augment=0.0, diversity_weight=0.0)
        run = Run(phantoms, config, None, make_fabric("cpu", "32-true"))
        batch = run.draw(0)
        assert batch.free.all() == bool(share)
        if not share:
            assert torch.equal(batch.styles, batch.labels)
        real = batch.real.clone()
        if brighter:
            real[..., :3, :] = 1.0
        found.append(_terms(run, replace(batch, real=real))["d_adversarial"])
    assert (found[0] == pytest.approx(found[1], rel=1e-5)) == bool(share)


def test_half_of_the_free_pairs_are_healthy_in_any_style(phantoms: ImageSet) -> None:
    run = Run(phantoms, tiny_config(free_share=1.0, free_after=0.0, batch=64), None, make_fabric("cpu", "32-true"))
    batches = [run.draw(step) for step in range(20)]
    healthy = torch.cat([batch.labels for batch in batches]) == phantoms.reference
    styles = torch.cat([batch.styles for batch in batches])
    natural = float((phantoms.labels[phantoms.indices("train")] == phantoms.reference).mean())
    assert float(healthy.float().mean()) == pytest.approx(0.5 + 0.5 * natural, abs=0.05)
    assert float((styles[healthy] == 1).float().mean()) == pytest.approx(1 / 3, abs=0.06)


def test_free_pairs_and_ellipses_begin_late(phantoms: ImageSet) -> None:
    config = tiny_config(kimg=1.0, free_share=1.0, free_after=0.5, steer_share=1.0, steer_drawn=1.0)
    run = Run(phantoms, config, None, make_fabric("cpu", "32-true"))
    early = run.draw(0)
    run.seen = 500
    late = run.draw(0)
    assert not early.free.any()
    assert not early.drawn.any()
    assert late.free.all()
    assert late.drawn.all()


def test_the_base_learns_nothing_from_a_disease_in_an_ellipse(phantoms: ImageSet) -> None:
    """The critic would draw the base's picture towards the disease that the ellipse leaves no room for."""
    config = tiny_config(steer_drawn=1.0, diversity_weight=0.0, area_weight=0.0, delta_weight=0.0, steer_weight=0.0)
    for drawn in (True, False):
        run = Run(phantoms, config, None, make_fabric("cpu", "32-true"))
        batch = run.draw(0)
        every = torch.ones_like(batch.free)
        ill = torch.ones_like(batch.labels)
        batch = replace(batch, steered=every, drawn=every & drawn, labels=ill, styles=ill)
        before = run.nets.G.base_out.weight.clone()
        _terms(run, batch)
        assert torch.equal(run.nets.G.base_out.weight, before) == drawn
