"""M acts, M is bounded, and where M is 0 the two routes of the class cannot meet."""

from typing import Any

import pytest
import torch
from torch import Tensor

from expressivegan.checkpoint import state_hash
from expressivegan.errors import InputError
from expressivegan.models import GeneratorWithCAMGuidance
from expressivegan.models.generator import DELTA_BOUND, Grain
from tiny import noise, tiny_generator

NORMAL, BACTERIA, VIRUS = 0, 1, 2
LESION = ("asks", "lesion_", "map_", "delta_")


def labels(*values: int) -> Tensor:
    return torch.tensor(values)


def box(batch: int, resolution: int = 32) -> Tensor:
    """1 in the upper right quarter, 0 elsewhere."""
    found = torch.zeros(batch, 1, resolution, resolution)
    found[:, :, 2 : resolution // 2, resolution // 2 : -3] = 1
    return found


@pytest.mark.parametrize("resolution", [28, 32, 64, 128, 224, 256, 512])
@torch.no_grad()
def test_shapes_and_ranges(resolution: int) -> None:
    G = tiny_generator(resolution=resolution)
    image, attention = G(noise(2, 8), labels(NORMAL, VIRUS))
    assert image.shape == (2, 1, resolution, resolution)
    assert image.abs().max() <= 1
    sides = [m.shape[-1] for m in attention]
    assert sides == sorted(set(sides))
    assert sides[-1] == resolution
    assert all(m.shape == (2, 1, s, s) for m, s in zip(attention, sides, strict=True))
    assert all((m.min() >= 0) and (m.max() <= 1) for m in attention)
    assert (attention[-1][0] == 0).all()
    assert attention[-1][1].max() > 0


@torch.no_grad()
def test_the_last_map_is_m_and_composes_the_image() -> None:
    G = tiny_generator()
    parts = G.compose(noise(3, 8), labels(NORMAL, BACTERIA, VIRUS))
    assert torch.equal(parts.attention[-1], parts.mask)
    assert torch.equal(parts.image, torch.tanh(parts.base + parts.mask * parts.delta))
    assert parts.delta.abs().max() <= DELTA_BOUND
    image, attention = G(noise(3, 8), labels(NORMAL, BACTERIA, VIRUS))
    assert torch.equal(image, parts.image)
    assert torch.equal(attention[-1], parts.mask)


@torch.no_grad()
def test_normal_has_no_lesion_to_the_bit() -> None:
    parts = tiny_generator().compose(noise(4, 8), labels(0, 0, 0, 0), steer=torch.ones(4, 1, 32, 32))
    assert all((m == 0).all() for m in parts.attention)
    assert torch.equal(parts.image, parts.base_image)


@torch.no_grad()
def test_the_maps_act() -> None:
    parts = tiny_generator().compose(noise(4, 8), labels(1, 1, 2, 2))
    changed = (parts.image - parts.base_image).abs()
    assert (changed[parts.mask > 0.01] > 0).float().mean() > 0.95
    assert changed.amax(dim=(1, 2, 3)).min() > 1e-3


@pytest.mark.parametrize("disease", [BACTERIA, VIRUS])
@torch.no_grad()
def test_one_child_with_and_without_the_disease(disease: int) -> None:
    G, z = tiny_generator(), noise(3, 8)
    style = labels(1, 2, 0)
    ill = G.compose(z, torch.full((3,), disease), style_labels=style, steer=box(3))
    well = G.compose(z, torch.zeros(3, dtype=torch.long), style_labels=style)
    assert torch.equal(ill.base, well.base)
    outside = box(3) == 0
    assert (ill.mask[outside] == 0).all()
    assert torch.equal(ill.image[outside], well.image[outside])
    assert not torch.equal(ill.image, well.image)


@torch.no_grad()
def test_style_and_disease_are_two_routes() -> None:
    G, z = tiny_generator(), noise(2, 8)
    one = G.compose(z, labels(1, 1), style_labels=labels(1, 1))
    assert torch.equal(one.image, G.compose(z, labels(1, 1)).image)  # the style follows the label by default
    other_style = G.compose(z, labels(1, 1), style_labels=labels(2, 2))
    assert not torch.equal(one.base, other_style.base)
    other_disease = G.compose(z, labels(2, 2), style_labels=labels(1, 1))
    assert torch.equal(one.base, other_disease.base)
    assert not torch.equal(one.mask, other_disease.mask)


@torch.no_grad()
def test_steering_bounds_m() -> None:
    G, z, y = tiny_generator(), noise(3, 8), labels(1, 2, 1)
    steer = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    found = G.compose(z, y, steer=steer)
    assert (found.mask <= steer).all()
    assert found.mask.amax() > 0
    for level in found.attention[:-1]:
        most = torch.nn.functional.adaptive_max_pool2d(steer, level.shape[-2:])
        assert (level <= most).all()
    free = G.compose(z, y)
    assert torch.equal(G.compose(z, y, steer=torch.ones(3, 1, 32, 32)).image, free.image)
    nowhere = G.compose(z, y, steer=torch.zeros(3, 1, 32, 32))
    assert torch.equal(nowhere.image, nowhere.base_image)
    assert torch.equal(nowhere.base, free.base)


@torch.no_grad()
def test_a_region_makes_no_edge_but_its_own() -> None:
    """δ knows of the region what `asks` says and nothing else: it is not cut off at the edge."""
    G, z, y = tiny_generator(), noise(2, 8), labels(1, 2)
    for ask in G.asks:
        torch.nn.init.zeros_(ask.weight)
    steer = box(2)
    free, steered = G.compose(z, y), G.compose(z, y, steer=steer)
    assert torch.equal(steered.delta, free.delta)
    assert torch.equal(steered.mask, torch.minimum(free.mask * steer, free.mask))
    for ask in G.asks:
        torch.nn.init.ones_(ask.weight)
    assert not torch.equal(G.compose(z, y, steer=steer).delta, free.delta)


@torch.no_grad()
def test_no_map_reaches_the_frame() -> None:
    G = tiny_generator()
    G.map_bias.fill_(20.0)  # as much of M as can be
    for steer in (None, torch.ones(2, 1, 32, 32)):
        M = G.compose(noise(2, 8), labels(1, 2), steer=steer).mask
        assert M[..., 5:-5, 5:-5].min() > 0.99
        for edge in (M[..., :3], M[..., -3:], M[..., :3, :], M[..., -3:, :]):
            assert edge.abs().max() == 0
    assert tiny_generator(frame=0.0).window.min() == 1


def test_the_hash_covers_the_frame_and_older_states_open() -> None:
    G, other = tiny_generator(), tiny_generator(frame=0.0)
    assert state_hash(G) != state_hash(other)
    older = {name: value for name, value in G.state_dict().items() if name != "window"}
    other.load_state_dict(older)
    assert other.window.min() == 1
    with pytest.raises(RuntimeError, match="map_bias"):
        G.load_state_dict({name: value for name, value in older.items() if name != "map_bias"})


def test_grain_is_white_and_belongs_to_the_latent() -> None:
    """√2·cos of a uniform phase: mean 0, variance 1, and nothing in common between pixels or images."""
    grain, z = Grain(100, 32, 4, 8), torch.randn(300, 100, generator=torch.Generator().manual_seed(0))
    drawn = grain.noise(z)[:, 0]
    assert torch.equal(drawn, grain.noise(z)[:, 0])
    assert torch.allclose(drawn, grain.noise(3 * z)[:, 0], atol=1e-3)  # truncation leaves it alone
    assert abs(float(drawn.mean())) < 0.01
    assert float(drawn.var()) == pytest.approx(1, abs=0.01)
    for shift in ((0, 1), (1, 0), (1, 1)):
        assert abs(float((drawn * drawn.roll(shift, (1, 2))).mean())) < 0.01
    power = torch.fft.fft2(drawn).abs().square().mean(0)
    assert 0.6 < float((power / power.mean()).min()) <= float((power / power.mean()).max()) < 1.4
    between = torch.corrcoef(drawn.flatten(1)) - torch.eye(300)
    assert float(between.abs().max()) < 0.2
    assert float(between.abs().mean()) == pytest.approx((2 / torch.pi) ** 0.5 / 32, rel=0.1)


def test_grain_starts_silent_is_learnt_and_is_the_same_with_and_without_the_disease() -> None:
    G, z = GeneratorWithCAMGuidance(z_dim=8, resolution=32, width=8, min_width=4), noise(2, 8)
    parts = G.compose(z, labels(1, 2))
    parts.image.square().sum().backward()  # type: ignore[no-untyped-call]
    for grain in G.grain:
        assert isinstance(grain, Grain)
        assert not grain.gain.any()
        assert grain.gain.grad is not None
        assert grain.gain.grad.any()
        torch.nn.init.ones_(grain.gain)
    louder = G.compose(z, labels(1, 2))
    assert not torch.equal(louder.base, parts.base)
    healthy = G.compose(z, labels(0, 0), style_labels=labels(1, 2))
    assert torch.equal(healthy.base, louder.base)


def test_how_grainy_an_image_is_depends_on_its_style() -> None:
    """x + noise · (gain + W·style), by hand."""
    grain = Grain(8, 4, 2, 3)
    with torch.no_grad():
        grain.gain.copy_(torch.tensor([0.5, 1.0]).view(1, 2, 1, 1))
        grain.modulate.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]]))
    x, drawn = torch.zeros(2, 2, 4, 4), grain.noise(noise(2, 8))
    found = grain(x, drawn, torch.tensor([[1.0, 9.0, -0.5], [0.0, 9.0, 1.0]]))
    for image, gains in enumerate(((1.5, 0.0), (0.5, 3.0))):
        for channel, gain in enumerate(gains):
            assert torch.allclose(found[image, channel], gain * drawn[image, 0])


def test_grain_may_be_alike_in_all_images() -> None:
    older = tiny_generator(grain_by_style=False)
    assert not any("modulate" in name for name in older.state_dict())
    newer = GeneratorWithCAMGuidance(z_dim=8, resolution=32, width=8, min_width=4)  # its modulation is still 0
    plain = GeneratorWithCAMGuidance(z_dim=8, resolution=32, width=8, min_width=4, grain_by_style=False)
    newer.load_state_dict(plain.state_dict())
    assert torch.equal(newer(noise(2, 8), labels(1, 2))[0], plain(noise(2, 8), labels(1, 2))[0])


def test_two_maps_agree_outside_both() -> None:
    G, z, y = tiny_generator(), noise(2, 8), labels(1, 2)
    here, there = box(2), box(2).flip(-1)
    one, other = G(z, y, here)[0], G(z, y, there)[0]
    outside = (here + there) == 0
    assert torch.equal(one[outside], other[outside])
    assert not torch.equal(one, other)


@torch.no_grad()
def test_strength_scales_m() -> None:
    G, z, y = tiny_generator(), noise(2, 8), labels(1, 2)
    off = G.compose(z, y, strength=0.0)
    assert torch.equal(off.image, off.base_image)
    half, full = G.compose(z, y, strength=0.5), G.compose(z, y)
    assert torch.equal(half.base, full.base)
    assert half.mask.sum() < full.mask.sum()
    each = G.compose(z, y, strength=torch.tensor([0.0, 1.0]).view(2, 1, 1, 1))
    assert (each.mask[0] == 0).all()
    assert torch.equal(each.mask[1], full.mask[1])


def test_the_base_never_reads_the_lesion() -> None:
    G = tiny_generator().train()
    parts = G.compose(noise(3, 8), labels(0, 1, 2))
    parts.base.square().sum().backward()  # type: ignore[no-untyped-call]
    for name, p in G.named_parameters():
        if name.startswith(LESION):
            assert p.grad is None or not p.grad.any(), name
        else:
            assert p.grad is not None, name


def test_every_parameter_learns_from_diseased_images() -> None:
    G = tiny_generator().train()
    image, _ = G(noise(6, 8), labels(0, 1, 2, 0, 1, 2))
    (image * noise(6, 1, 32, 32, seed=1)).sum().backward()
    silent = [n for n, p in G.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_a_normal_image_teaches_the_lesion_nothing() -> None:
    G = tiny_generator().train()
    G(noise(3, 8), labels(0, 0, 0))[0].square().sum().backward()
    assert [n for n, p in G.named_parameters() if n.startswith(LESION) and p.grad is not None and p.grad.any()] == []


@torch.no_grad()
def test_an_image_does_not_depend_on_its_neighbours() -> None:
    G, z, y = tiny_generator(), noise(4, 8), labels(0, 1, 2, 1)
    together, alone = G(z, y)[0], torch.cat([G(z[i : i + 1], y[i : i + 1])[0] for i in range(4)])
    assert torch.allclose(together, alone, atol=1e-5)


@torch.no_grad()
def test_without_labels_each_latent_has_its_class() -> None:
    G = tiny_generator()
    z = noise(600, 8)
    found = G.labels_for(z)
    shares = torch.bincount(found, minlength=3) / 600
    assert ((shares > 0.25) & (shares < 0.42)).all()
    assert torch.equal(G.labels_for(z.flip(0)), found.flip(0))
    z = z[:5]
    image, _ = G(z)
    assert torch.equal(image, G(z)[0])
    assert torch.equal(image, G(z, G.labels_for(z))[0])


@torch.no_grad()
def test_unconditional() -> None:
    G = tiny_generator(classes=())
    image, attention = G(noise(2, 8))
    assert image.shape == (2, 1, 32, 32)
    assert attention[-1].max() > 0
    assert G.classes == ()
    with pytest.raises(InputError, match="labels must be 0 to 0"):
        G(noise(1, 8), labels(1))


@torch.no_grad()
def test_without_a_reference_every_class_has_a_lesion() -> None:
    G = tiny_generator(classes=("a", "b"), reference=None)
    assert (G.compose(noise(2, 8), labels(0, 1)).mask.amax(dim=(1, 2, 3)) > 0).all()


@torch.no_grad()
def test_another_reference() -> None:
    G = tiny_generator(classes=("ILL", "WELL"), reference="WELL")
    peaks = G.compose(noise(2, 8), labels(0, 1)).mask.amax(dim=(1, 2, 3))
    assert peaks[0] > 0
    assert peaks[1] == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"z": noise(2, 9)}, r"z must have shape \(B, 8\), not \(2, 9\)"),
        ({"z": noise(8)}, r"not \(8,\)"),
        ({"labels": labels(0, 3)}, r"labels must be 0 to 2 \(NORMAL, BACTERIA, VIRUS\), not 0 to 3"),
        ({"labels": labels(-1, 0)}, "not -1 to 0"),
        ({"labels": labels(0)}, r"shape \(2,\), not torch.int64 \(1,\)"),
        ({"labels": torch.zeros(2)}, "float32"),
        ({"style_labels": labels(0, 7)}, "not 0 to 7"),
        ({"steer": torch.full((2, 1, 32, 32), 1.5)}, r"steer must lie in \[0, 1\] but span \[1.5, 1.5\]"),
        ({"steer": torch.full((2, 1, 32, 32), -0.5)}, r"-0\.5"),
        ({"steer": torch.zeros(2, 1, 16, 16)}, r"steer must be \(2, 1, 32, 32\), not \(2, 1, 16, 16\)"),
        ({"steer": torch.zeros(1, 1, 32, 32)}, r"not \(1, 1, 32, 32\)"),
        ({"strength": 1.5}, r"strength \(=1.5\) must be from 0 to 1"),
    ],
)
def test_bad_calls_raise_with_their_value(call: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_generator()(**({"z": noise(2, 8)} | call))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 100}, r"resolution \(=100\) must be .*try 112 or 128"),
        ({"z_dim": 0}, r"z_dim \(=0\)"),
        ({"width": 3}, r"\(=3, "),
        ({"classes": ("a", "a"), "reference": None}, "different"),
        ({"reference": "HEALTHY"}, r"reference \(='HEALTHY'\) must be one of"),
    ],
)
def test_bad_options_raise_with_their_value(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        GeneratorWithCAMGuidance(**({"resolution": 32, "width": 8, "min_width": 4} | options))
