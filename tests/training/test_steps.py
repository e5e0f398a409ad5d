"""The generator learns from the critic's own backward pass: what it gets must be what a pass of its own would give."""

from dataclasses import replace

import pytest
import torch

from expressivegan.data import ImageSet
from expressivegan.devices import make_fabric
from expressivegan.training.loop import Run
from expressivegan.training.losses import relativistic
from expressivegan.training.steps import Judging, _judge
from tiny import noise, phantom_set, pictures, randomise, tiny_config


@pytest.fixture(scope="module")
def phantoms() -> ImageSet:
    return phantom_set(60, 32)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_the_wish_is_the_gradient_of_the_generators_loss(phantoms: ImageSet, gamma: float) -> None:
    run = Run(phantoms, tiny_config(batch=8, precision="64-true"), None, make_fabric("cpu", "64-true"))
    randomise(run.nets.D)
    batch = replace(run.draw(0), gamma=gamma)
    real, fake = pictures(8, seed=1).double(), pictures(8, seed=2).double()
    rows = torch.tensor([0, 2, 3, 5, 7])
    judging = Judging("d", run.nets.D, run.nets.optimiser_d, rows)
    verdict = _judge(judging, batch, real, fake, guided=False, config=run.config)
    torch.stack(list(verdict.terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    found = verdict.wish(len(real))

    leaf = fake[rows].requires_grad_()
    labels = batch.labels[rows]
    loss = relativistic(run.nets.D.score(leaf, labels), run.nets.D.score(real[rows], labels))
    (wanted,) = torch.autograd.grad(len(rows) / len(real) * loss, leaf)
    assert wanted.abs().max() > 0
    assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-15)


def test_a_wish_stays_finite_where_the_critic_is_certain(phantoms: ImageSet) -> None:
    run = Run(phantoms, tiny_config(batch=8), None, make_fabric("cpu", "32-true"))
    with torch.no_grad():
        run.nets.D.place.mul_(1e5)
    batch = replace(run.draw(0), gamma=0.0)
    judging = Judging("d", run.nets.D, run.nets.optimiser_d, torch.arange(8))
    verdict = _judge(judging, batch, pictures(8, seed=1), noise(8, 1, 32, 32).tanh(), guided=False, config=run.config)
    torch.stack(list(verdict.terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert verdict.gap.abs().max() > 100
    assert torch.isfinite(verdict.wish(8)).all()
