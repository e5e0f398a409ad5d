import math

import pytest
import torch
from torch import Tensor

from expressivegan.teacher import referenced
from expressivegan.training.energy import energy_distance, evenly, log_power, real_points
from tiny import noise


def test_energy_distance_by_hand() -> None:
    told = torch.tensor([[0.0], [2.0], [0.0], [3.0]])
    real = real_points(told, torch.tensor([0, 0, 1, 1]), 2)
    assert real.spread.tolist() == pytest.approx([2.0, 3.0], abs=1e-4)
    assert evenly(torch.zeros(4, dtype=torch.long), 2, most=3).tolist() == [0, 1, 3]
    logits = torch.tensor([[0.0, 0.0], [0.0, 2.0], [5.0, 5.0], [9.0, 12.0]])  # less the first: 0, 2; 0, 3
    shifted = logits + torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    assert torch.equal(referenced(shifted, 0), referenced(logits, 0))  # softmax ignores a number that is added to all
    made, labels = torch.tensor([[1.0], [4.0], [7.0]]), torch.tensor([0, 0, 1])
    # of class 0: 1 is 1 from the real ones on average, 4 is 3, and they are 3 apart; class 1 has no pair
    kinds = torch.zeros(3, dtype=torch.bool)
    assert energy_distance(made, labels, kinds, real, 4).item() == pytest.approx(1 + 3 - 3 - 2, abs=1e-4)
    assert energy_distance(made[[0, 2, 1]], labels[[0, 2, 1]], kinds, real, 2).item() == 0  # no pair in any group
    assert energy_distance(made, labels, torch.tensor([True, False, False]), real, 4).item() == 0  # nor of any kind


def test_energy_distance_is_least_where_the_distributions_agree() -> None:
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(2000)

    def drawn(spread: float, shift: float = 0.0) -> Tensor:
        clean = torch.nn.functional.one_hot(labels, 3) * 2.0
        return clean + shift + spread * torch.randn(6000, 3, generator=g)

    real = real_points(drawn(1.0), labels, 3)
    kinds = torch.zeros_like(labels)
    same, narrower, wider, moved = (
        energy_distance(drawn(*how), labels, kinds, real, 8) for how in ((1.0,), (0.3,), (2.0,), (1.0, 0.5))
    )
    assert same.item() == pytest.approx(0, abs=0.03)
    assert min(narrower, wider, moved).item() > 0.1  # all alike are charged, too


def test_power_by_hand() -> None:
    x = noise(4, 1, 32, 32)
    power = log_power(x)
    assert power.shape == (4, 15)  # rings of 2 to 16 cycles
    assert torch.allclose(log_power(x + 0.5), power, atol=1e-4)  # brightness is no detail
    assert torch.allclose(log_power(2 * x) - power, torch.tensor(math.log(4) / math.sqrt(15)), atol=1e-4)
    soft = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    lost = power - log_power(soft)
    assert (lost[:, 10:] > 0).all()
    assert lost[:, 10:].mean() > 4 * lost[:, :3].mean()  # mostly the finest


def test_too_little_detail_asks_for_more() -> None:
    real, labels = noise(16, 1, 32, 32), torch.zeros(16, dtype=torch.long)
    points = real_points(log_power(real), labels, 1)

    def cost(images: Tensor) -> Tensor:
        return energy_distance(log_power(images), labels[: len(images)], labels[: len(images)], points, 8)

    soft = torch.nn.functional.avg_pool2d(noise(8, 1, 32, 32, seed=1), 3, 1, 1).requires_grad_()
    found = cost(soft)
    assert found.item() > 10 * abs(cost(noise(8, 1, 32, 32, seed=2)).item())
    (slope,) = torch.autograd.grad(found, soft)
    assert (slope * soft).sum().item() < 0
    flat = torch.zeros(8, 1, 32, 32, requires_grad=True)
    (slope,) = torch.autograd.grad(cost(flat), flat)
    assert torch.isfinite(slope).all()
