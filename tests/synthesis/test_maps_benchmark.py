"""What benchmarks/maps.py says of the maps' levels, of generators whose levels act and of planted ones that do not."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmark_module import benchmark
from expressivegan.models import GeneratorWithCAMGuidance
from tiny import tiny_generator

maps = benchmark("maps")
N = 24


def bright(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    ill = pixels.mean((1, 2)) > 110
    return np.stack([~ill, ill], 1).astype(np.float32)


def levels(model: GeneratorWithCAMGuidance) -> dict[str, Any]:
    found: dict[str, Any] = maps.measure_levels(model, SimpleNamespace(predict=bright), 1, N)
    return found


def acting() -> GeneratorWithCAMGuidance:
    """A generator of random weights whose levels each draw a map of their own and pass features on."""
    model = tiny_generator()
    with torch.no_grad():
        for module in (*model.map_outs, model.delta_out):
            module.weight.mul_(20)
        model.map_bias.fill_(0.0)
    return model


def still(model: GeneratorWithCAMGuidance, *those: int) -> GeneratorWithCAMGuidance:
    """The same, but these levels add a constant."""
    with torch.no_grad():
        for level in those:
            model.map_outs[level].weight.zero_()
            model.map_outs[level].bias.fill_(0.7)
    return model


def test_levels_that_act_are_not_exposed() -> None:
    found = levels(acting())
    assert list(found) == ["8x8", "16x16"]
    for row in found.values():
        assert row["exposed"] == "no"
        assert row["spread over pixels"].value > 0.02
        assert row["spread over images"].value > 0.02
        for what in maps.ABLATIONS:
            assert row[f"{what}: levels under M"].value > 0.01
    assert found["16x16"]["correlation with the coarser"].value < 0.98


def test_a_constant_level_is_exposed() -> None:
    row = levels(still(acting(), 0))["8x8"]
    assert row["spread over pixels"].value == pytest.approx(0, abs=1e-6)
    assert row["spread over images"].value == pytest.approx(0, abs=1e-6)
    assert row["map: M changes by"].value == pytest.approx(0, abs=1e-6)
    assert row["gate: levels under M"].value < 0.05  # but for the frame, a constant gate is its mean
    assert row["exposed"] == "constant, redundant, idle"


def test_a_level_that_repeats_the_coarser_one_is_exposed() -> None:
    row = levels(still(acting(), 1))["16x16"]
    assert row["spread over pixels"].value > 0.02  # which alone would not tell
    assert row["correlation with the coarser"].value == pytest.approx(1, abs=1e-4)
    assert row["map: M changes by"].value == pytest.approx(0, abs=1e-6)
    assert row["map: levels under M"].value == pytest.approx(0, abs=1e-4)
    assert row["features: levels under M"].value > 0.5  # the level does act, but its map says nothing of its own
    assert row["exposed"] == "redundant"


def test_an_ablation_changes_its_own_part_and_leaves_nothing_behind() -> None:
    model = still(acting(), 1)
    z = torch.stack([maps.latent(0, i, model.z_dim) for i in range(N)])
    with torch.no_grad():
        parts = model.compose(z, torch.ones(N, dtype=torch.long))
        changed = {what: compose(model, what, z) for what in maps.ABLATIONS}
        again = model.compose(z, torch.ones(N, dtype=torch.long))
    assert torch.equal(parts.image, again.image)  # no hook stays
    assert torch.equal(parts.base, changed["map"].base)
    mask = changed["map"].attention[0][:, 0, 2:-2, 2:-2]
    assert float(mask.std()) == pytest.approx(0, abs=1e-6)
    assert float(parts.attention[0][:, 0, 2:-2, 2:-2].std()) > 0.02
    for what in ("gate", "features"):
        assert torch.equal(changed[what].attention[0], parts.attention[0])
        assert not torch.equal(changed[what].image, parts.image)


def compose(model: GeneratorWithCAMGuidance, what: str, z: torch.Tensor) -> Any:
    with maps.ablated(model, 0, what):
        return model.compose(z, torch.ones(len(z), dtype=torch.long))
