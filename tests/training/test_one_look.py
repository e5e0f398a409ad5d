"""The generator moves along the critics' own gradients: those are the gradients of its cost."""

import copy
from dataclasses import replace

import pytest
import torch

from expressivegan.data import ImageSet
from expressivegan.devices import make_fabric
from expressivegan.training import steps
from expressivegan.training.losses import relativistic
from expressivegan.training.run import Run
from tiny import tiny_config

QUIET = {"diversity_weight": 0.0, "detail_weight": 0.0, "area_weight": 0.0, "delta_weight": 0.0, "steer_weight": 0.0}


def gradients(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("gamma", [0.0, 3.0])
@pytest.mark.parametrize("free", [0.0, 0.25])
def test_the_generator_gets_the_gradient_of_its_cost(phantoms: ImageSet, gamma: float, free: float) -> None:
    config = tiny_config(batch=8, precision="64-true", free_share=free, free_after=0.0, augment=0.5, **QUIET)
    run = Run(phantoms, config, None, make_fabric("cpu", "64-true"))
    for _ in range(3):
        run.step(lambda terms: None)
    batch = replace(run.draw(3), gamma=gamma)
    nets = copy.deepcopy(run.nets)
    found = steps.adversarial_step(
        run.nets, batch, config, autocast=run.fabric.autocast, check=lambda terms: None,
        average_gradients=lambda network: None,
    )  # fmt: skip

    nets.G.zero_grad()
    real = steps._shown(batch.real, batch.free, batch.augment_real)
    _, fake = steps._generator_loss(nets, batch, config)
    critics = nets.critics(batch.free)
    assert len(critics) == (2 if free else 1)
    cost = torch.zeros((), dtype=torch.float64)
    for judging in critics:  # the definition: as they were before their step
        rows, labels = judging.rows, batch.labels[judging.rows]
        scores = [judging.critic.score(images[rows], labels) for images in (fake, real)]
        cost = cost + len(rows) / len(real) * relativistic(*scores)
    cost.backward()  # type: ignore[no-untyped-call]

    assert found["g_adversarial"].item() == pytest.approx(cost.item(), rel=1e-12)
    ours, theirs = gradients(run.nets.G), gradients(nets.G)
    assert set(theirs) <= set(ours)
    for name, gradient in theirs.items():
        assert torch.allclose(ours[name], gradient, rtol=1e-7, atol=1e-12), name


def test_a_critic_that_is_too_sure_leaves_the_generator_without_a_gradient_not_with_nan(phantoms: ImageSet) -> None:
    config = tiny_config(batch=8, gamma=0.0, **QUIET)
    run = Run(phantoms, config, None, make_fabric("cpu", "32-true"))
    run.step(lambda terms: None)
    with torch.no_grad():
        run.nets.D.evidence_head.weight.mul_(1e6)
        run.nets.D.projection.weight.mul_(1e6)
    run.step(lambda terms: None)
    assert all(torch.isfinite(g).all() for g in gradients(run.nets.G).values())
