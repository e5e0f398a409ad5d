"""Warps move what they say, by as much as they say."""

import math

import pytest
import torch

from expressivegan.streams import generator
from expressivegan.warp import random_affine, warp
from tiny import pictures

IDENTITY = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])


def test_nothing_asked_nothing_moved() -> None:
    matrices = random_affine(4, generator(0))
    assert torch.equal(matrices, IDENTITY.expand(4, -1, -1))
    x = pictures(4, 16)
    assert torch.allclose(warp(x, matrices), x, atol=1e-5)


def test_a_shift_is_a_share_of_the_side() -> None:
    matrix = IDENTITY.clone()
    matrix[0, 0, 2] = 2 * 0.25  # output to input: a quarter of the side to the left
    x = torch.zeros(1, 1, 16, 16)
    x[0, 0, 5, 9] = 1
    found = warp(x, matrix)
    assert found[0, 0, 5, 5] == pytest.approx(1, abs=1e-5)
    assert found.sum() == pytest.approx(1, abs=1e-4)


def test_beyond_the_frame_is_outside() -> None:
    matrix = IDENTITY.clone()
    matrix[0, 0, 2] = 4.0
    assert (warp(torch.zeros(1, 1, 8, 8), matrix, outside=-1.0) == -1).all()
    assert (warp(torch.ones(1, 1, 8, 8), matrix) == 0).all()


def test_draws_stay_within_what_was_asked() -> None:
    found = random_affine(2000, generator(0), shift=0.125, scale=0.1, rotation=10.0)
    size = 1 / torch.linalg.det(found[:, :, :2]).sqrt()
    angle = torch.atan2(found[:, 1, 0], found[:, 0, 0])
    assert found[:, :, 2].abs().max() <= 0.25 + 1e-6
    assert found[:, :, 2].abs().max() > 0.24
    assert size.min() > 1 / 1.1 - 1e-5
    assert size.max() < 1.1 + 1e-5
    assert size.max() - size.min() > 0.18
    assert math.radians(9.5) < angle.abs().max() <= math.radians(10) + 1e-6


def test_no_draw_is_a_flip() -> None:
    found = random_affine(2000, generator(1), shift=0.125, scale=0.3, rotation=30.0)
    assert (torch.linalg.det(found[:, :, :2]) > 0).all()
    assert (found[:, 0, 0] > 0).all()


def test_a_warp_is_differentiable_and_keeps_the_type() -> None:
    x = pictures(2, 8).double().requires_grad_()
    found = warp(x, random_affine(2, generator(0), shift=0.1, rotation=5.0))
    assert found.dtype == torch.float64
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
