"""Every term of the objective, worked out by hand."""

import math

import pytest
import torch

from expressivegan.training.losses import (
    area_cost,
    base_hinge,
    censored_match,
    gradient_penalty,
    hidden_change,
    image_hinge,
    lost_diversity,
    map_match,
    relativistic,
)
from tiny import noise, pictures


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_relativistic_by_hand() -> None:
    better, worse = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [3.0]])
    assert relativistic(better, worse).item() == pytest.approx((softplus(-1) + softplus(3)) / 2)
    offset = torch.tensor([[5.0], [-2.0]])  # a pair's common offset means nothing
    assert torch.allclose(relativistic(better + offset, worse + offset), relativistic(better, worse))


def test_gradient_penalty_of_a_linear_score_is_its_weight_squared() -> None:
    w, x = noise(1, 1, 4, 4).requires_grad_(), pictures(3, 4, seed=1).requires_grad_()
    found, gradient = gradient_penalty((w * x).sum(dim=(2, 3)), x)
    assert found.shape == (3,)
    assert torch.equal(gradient, w.expand(3, -1, -1, -1))
    assert torch.allclose(found, w.square().sum().expand(3), rtol=1e-5)
    found.mean().backward()
    assert w.grad is not None
    assert torch.allclose(w.grad, 2 * w, rtol=1e-5)


def test_gradient_penalty_of_a_square() -> None:
    x = pictures(2, 4).requires_grad_()
    found, _ = gradient_penalty(x.square().sum(dim=(1, 2, 3))[:, None], x)
    assert torch.allclose(found, 4 * x.square().sum((1, 2, 3)))


@pytest.mark.parametrize(
    ("value", "target", "cost"),
    [
        (0.5, 0.5, 0.0),
        (0.2, 0.5, 0.09),
        (-3.0, 0.0, 0.0),  # less than a bound of 0 costs nothing
        (4.0, 1.0, 0.0),  # nor does more than a bound of 1
        (-1.0, 0.5, 2.25),  # below the range, where a value was measured
        (2.0, 0.5, 2.25),
        (2.0, 0.0, 4.0),
        (-1.0, 1.0, 4.0),
    ],
)
def test_censored_match_by_hand(value: float, target: float, cost: float) -> None:
    maps = torch.tensor([value], requires_grad=True)
    found = censored_match(maps, torch.tensor([target]))
    assert found.item() == pytest.approx(cost, abs=1e-6)
    (gradient,) = torch.autograd.grad(found, maps)
    # the whole way to the target counts, also from just outside the range
    assert gradient.item() == pytest.approx(2 * (value - target) if cost > 0 else 0.0)


def test_area_costs_what_exceeds_the_limit() -> None:
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, :, :2] = 1  # half
    mask[1, :, :1] = 0.4  # a tenth
    assert area_cost(mask, 0.2).item() == pytest.approx((0.3 + 0) / 2)
    assert area_cost(mask, 0.5).item() == 0


def test_hidden_change_counts_where_m_is_closed() -> None:
    delta, mask = torch.tensor([[[[2.0, -2.0, 1.0]]]]), torch.tensor([[[[1.0, 0.0, 0.5]]]], requires_grad=True)
    assert hidden_change(delta, mask).item() == pytest.approx((0 + 2 + 0.5) / 3)
    assert not hidden_change(delta, mask).requires_grad  # M shall not grow to make δ cheap


def test_map_match_pools_m_to_the_teachers_grid() -> None:
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, :2] = 1.0
    mask[..., 2:, 2:] = 0.5
    cams = torch.tensor([[[1.0, 0.0], [0.0, 0.5]]])
    assert map_match(cams, mask).item() == pytest.approx(0, abs=1e-7)
    assert map_match(cams + torch.tensor([[[0.0, 0.2], [0.0, 0.0]]]), mask).item() == pytest.approx(0.05)
    # beyond the range the way back is there, and flat
    far = torch.tensor([[[3.0, 0.0], [0.0, 0.5]]], requires_grad=True)
    found = map_match(far, mask)
    assert found.item() == pytest.approx(0.05 * 2 / 4)
    (gradient,) = torch.autograd.grad(found, far)
    assert gradient[0, 0, 0].item() == pytest.approx(0.05 / 4)


def test_base_hinge_by_hand() -> None:
    base = torch.tensor([[0.0, 0.0, -1.0], [0.0, 2.0, 0.0], [10.0, 0.0, 0.0]])
    assert base_hinge(base, 0).tolist() == [1 + 0, 1 + 2, 0]
    assert base_hinge(base[:, [1, 0, 2]], 1).tolist() == [1, 3, 0]  # another reference


def test_image_hinge_by_hand() -> None:
    labels = torch.tensor([0, 1, 2])
    image = torch.tensor([[3.0, 2.5, 1.0], [0.0, 0.25, 0.0], [1.0, 0.0, 5.0]])
    # NORMAL is ahead by 0.5, BACTERIA by 0.25 of the margin of 1; VIRUS by 4
    assert image_hinge(image, labels, 0).item() == pytest.approx((0.5 + 0.75 + 0) / 3)
    assert image_hinge(torch.eye(3) * 10, labels, 0).item() == 0


def test_lost_diversity() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])
    real = pictures(8, 32)
    assert lost_diversity(real, real, labels).item() == pytest.approx(0, abs=1e-6)
    one_a_class = real[[0, 0, 0, 3, 3, 3, 6, 6]]
    assert lost_diversity(real, one_a_class, labels).item() == pytest.approx(1, abs=0.01)
    assert lost_diversity(real, real * 0.3 + 0.2, labels).item() == pytest.approx(0, abs=0.02)  # only exposure
    assert lost_diversity(one_a_class + 0.01 * real, real, labels).item() == 0  # more than real costs nothing
    assert lost_diversity(real[:2], real[:2], torch.tensor([0, 1])).item() == 0  # nothing to compare


def test_lost_diversity_drives_images_that_are_nearly_alike_apart() -> None:
    """Images that are alike to the bit have no direction to part in: their gradient is 0."""
    real, labels = pictures(8, 32, seed=1), torch.zeros(8, dtype=torch.long)
    fake = (pictures(1, 32) + 0.02 * pictures(8, 32, seed=2)).requires_grad_()
    before = lost_diversity(real, fake, labels)
    before.backward()  # type: ignore[no-untyped-call]
    assert fake.grad is not None
    apart = fake - 0.3 * fake.grad / fake.grad.norm()
    assert lost_diversity(real, apart, labels) < before - 0.005
    assert (apart - apart.mean(0)).norm() > (fake - fake.mean(0)).norm()


def test_lost_diversity_is_0_for_the_real_images_and_1_for_one_repeated() -> None:
    real = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    labels = torch.zeros(8, dtype=torch.long)
    assert lost_diversity(real, real, labels).item() == pytest.approx(0.0, abs=1e-4)
    assert lost_diversity(real, real[:1].repeat(8, 1, 1, 1), labels).item() == pytest.approx(1.0, abs=1e-2)


def test_lost_diversity_of_constant_images_has_a_gradient() -> None:
    real = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    fake = torch.full((8, 1, 32, 32), -1.0, requires_grad=True)
    lost_diversity(real, fake, torch.zeros(8, dtype=torch.long)).backward()
    assert fake.grad is not None
    assert torch.isfinite(fake.grad).all()


def test_lost_diversity_does_not_depend_on_how_groups_are_spread() -> None:
    g = torch.Generator().manual_seed(0)
    real, fake = (torch.rand(16, 1, 32, 32, generator=g) * 2 - 1 for _ in range(2))
    labels = torch.randint(3, (16,), generator=g)
    fake = 0.8 * fake[:1] + 0.2 * fake  # much alike
    halves = [lost_diversity(real[s], fake[s], labels[s]) for s in (slice(0, 8), slice(8, 16))]
    whole = lost_diversity(real, fake, labels)
    assert whole > 0.3
    assert whole.item() == pytest.approx((halves[0] + halves[1]).item() / 2, rel=1e-5)
