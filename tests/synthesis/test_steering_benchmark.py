"""What benchmarks/steering.py and its instruments say, of pictures whose disease stands where it is known."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmark_module import benchmark
from expressivegan.images import from_uint8
from tiny import phantom_set, tiny_generator

steering, instruments = benchmark("steering"), benchmark("instruments")
Identity = torch.nn.Identity


def judge_of(body: Any) -> Any:
    """A judge whose last features are those of this body, and whose one weight is 1."""
    network = SimpleNamespace(
        encode=SimpleNamespace(body=body, border=0.1), head=SimpleNamespace(weight=torch.tensor([[0.0], [1.0]]))
    )
    return instruments.Judge(SimpleNamespace(_network=network, recipe=SimpleNamespace(resolution=64)))


def spot(y: int, x: int) -> Any:
    pixels = np.full((1, 64, 64), 128, np.uint8)
    pixels[0, y, x] = 255
    return pixels


def test_shifts_are_even_and_bring_no_chest_round_the_edge() -> None:
    seen: list[tuple[int, int]] = []

    def conv1(x: torch.Tensor) -> torch.Tensor:
        seen.append((int(x[0, 0].argmax()) // 64, int(x[0, 0].argmax()) % 64))
        return x.abs()

    layers = {f"layer{n}": Identity() for n in (1, 2, 3, 4)}
    judge = judge_of(SimpleNamespace(conv1=conv1, bn1=Identity(), relu=Identity(), **layers))
    for corner in (6, 57):  # the first and the last pixel that the judge sees
        seen.clear()
        judge.maps(spot(corner, corner), 1, 0)
        moved = np.array(seen) - corner
        assert np.abs(moved).max() == 4  # nowhere round the edge
        assert (moved.sum(0) == 0).all()
        assert len(set(seen)) == 9


def centre(change: torch.Tensor) -> tuple[float, float]:
    weight = change[0] / change.sum()
    at = torch.arange(weight.shape[-1], dtype=torch.float32)
    return float((weight.sum(1) * at).sum()), float((weight.sum(0) * at).sum())


@pytest.mark.parametrize("where", [(32, 32), (30, 21), (26, 40)])
def test_maps_are_drawn_where_the_networks_looked(where: tuple[int, int]) -> None:
    """Of the strides of a ResNet and of the patches, all weights equal: the map's middle is the spot that was seen."""

    def conv() -> torch.nn.Module:
        found = torch.nn.Conv2d(1, 1, 3, 2, 1, bias=False)
        torch.nn.init.ones_(found.weight)
        return found

    body = SimpleNamespace(conv1=conv(), bn1=Identity(), relu=Identity(), layer1=Identity())
    body.layer2, body.layer3, body.layer4 = conv(), conv(), conv()
    patches = instruments.PatchNetwork(2, 0.1, width=2).eval()
    for p in patches.parameters():
        torch.nn.init.ones_(p) if p.ndim > 1 else torch.nn.init.zeros_(p)
    for norm in patches.body[1::3]:
        torch.nn.init.ones_(norm.weight)
    with torch.no_grad():
        patches.head.weight[0].zero_()
    for judge, tolerance in ((judge_of(body), 3.0), (instruments.Patches(patches, 64), 1.0)):
        change = judge.maps(spot(*where), 1, 0) - judge.maps(np.full((1, 64, 64), 128, np.uint8), 1, 0)
        assert centre(change) == pytest.approx(where, abs=tolerance)


def test_a_patch_is_seen_by_its_own_cells_alone() -> None:
    network = instruments.PatchNetwork(3, 0.1).eval()
    x = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    network.cells(x)[0, 1, 7, 7].backward()
    rows = torch.nonzero(x.grad[0, 0].abs().sum(1))[:, 0]
    assert int(rows.max() - rows.min()) + 1 <= instruments.PATCH
    assert float(rows.float().mean()) == pytest.approx(4 * 7 + 1.5, abs=1)


class Bright:
    """Sees the second class where it is bright, and everywhere alike in the third: a stub with a perfect map."""

    name = "bright"

    def predict(self, pixels: Any) -> Any:
        ill = pixels[:, 12:52, 12:52].mean((1, 2)) > 131
        return np.stack([~ill, ill, np.zeros(len(ill))], 1).astype(np.float32)

    def maps(self, pixels: Any, label: int, reference: int) -> torch.Tensor:
        return from_uint8(pixels) * (label == 1)


def test_opacities_are_located_where_they_were_painted_and_elsewhere_not() -> None:
    without = np.full((12, 64, 64), 128, np.uint8)
    scored = steering.Scored(Bright(), 1, 0, without)
    zone, elsewhere = (steering.zones_of(z, 64) for z in (scored.zones, scored.others))
    flat = from_uint8(without)[:, None]
    found = scored.rows("right", steering.pixels_of(steering.painted(flat, zone)))
    wrong = scored.rows("wrong", steering.pixels_of(steering.painted(flat, elsewhere)))
    assert found["located, right"].value > 0.9
    assert wrong["located, wrong"].value < -0.9
    assert found["flipped, right"].value == 1.0
    assert scored.flipped(without).value == 0.0
    blind = steering.Scored(Bright(), 2, 0, without).rows("blind", steering.pixels_of(steering.painted(flat, zone)))
    assert blind["located, blind"].value == pytest.approx(0, abs=1e-6)
    assert (steering.dilated(zone) >= (zone > 0)).all()
    assert steering.levels(2 * zone, (zone > 0).float()).max() <= 255


def test_a_model_and_real_patients_are_scored_by_the_same_figures() -> None:
    model = tiny_generator(resolution=64)
    found = steering.measure(model, Bright(), 1, 6)
    assert {"located, steered", "located, unsteered", "located, random", "healthy before"} < set(found)
    assert {f"{f}, steered, NORMAL's style" for f in ("located", "flipped", "inside", "levels")} < set(found)
    assert found["inside, steered"].value == pytest.approx(1)
    assert found["inside, unsteered"].value < 0.6
    data = phantom_set(120, 64)
    drawn = steering.ceiling(data, Bright(), 1)
    assert {"AUC", "pointing", "located, painted"} < set(drawn)
    assert "located, real tissue" not in drawn
    real = steering.ceiling(replace(data, masks=None), Bright(), 1)
    assert real["located, painted"] == drawn["located, painted"]
    assert "flipped, both lungs" in real
    assert "located, both lungs" not in real  # both lungs are no zone
    assert real["levels, real tissue"].value > 1
