"""What a teacher sees of a training image: everything can be turned off, and what is drawn anew stays in its place."""

import pytest
import torch

from expressivegan.config import TeachConfig
from expressivegan.errors import InputError
from expressivegan.streams import generator
from expressivegan.teacher.augment import augment, expose, paste_marks, replace_frames
from tiny import pictures

OFF = TeachConfig(shift=0, zoom=0, stretch=0, rotation=0, exposure=0, border=0, marks=0, focus_weight=0)


def test_nothing_changes_when_all_is_off() -> None:
    x = pictures(6)
    seen, matrices = augment(x, OFF, generator(0))
    assert torch.allclose(seen, x, atol=1e-5)
    assert torch.allclose(matrices, torch.eye(2, 3).expand(6, 2, 3), atol=1e-6)


def test_settings_do_not_shift_each_others_draws() -> None:
    x = pictures(6)
    plain = augment(x, TeachConfig(border=0, marks=0, border_width=0.1), generator(0))[1]
    other = augment(x, TeachConfig(border=1, marks=1, border_width=0.1), generator(0))[1]
    assert torch.equal(plain, other)


def test_only_the_frame_is_replaced_and_all_of_its_outer_half() -> None:
    x = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 32, 32) / 10 - 0.4  # every image has its own grey
    seen = replace_frames(x, 1.0, 0.25, generator(1))
    assert torch.equal(seen[:, :, 8:24, 8:24], x[:, :, 8:24, 8:24])
    # Noise of a constant image is that constant, and so is its mean: what differs came from another image.
    pasted = ((seen - x).abs() > 1e-4).any(dim=(1, 2, 3))
    assert 2 <= pasted.sum() <= 7
    for i in torch.nonzero(pasted).flatten():
        donor = seen[i, 0, 0, 0]
        assert (donor - x[:, 0, 0, 0]).abs().min() < 1e-6
        assert torch.equal(seen[i, 0, :4], donor.expand(4, 32))
        assert torch.equal(seen[i, 0, :, -4:], donor.expand(32, 4))
    assert torch.equal(replace_frames(x, 0.0, 0.25, generator(1)), x)


def test_frames_are_filled_in_three_ways() -> None:
    x = pictures(200, 16) * 0.5
    edge = replace_frames(x, 1.0, 0.25, generator(0))[:, 0, 0]
    others = (edge[:, None] == x[None, :, 0, 0]).all(2).any(1)
    means = (edge == edge[:, :1]).all(1)
    noise = ~others & ~means
    assert others.float().mean() == pytest.approx(0.6, abs=0.12)
    assert means.float().mean() == pytest.approx(0.2, abs=0.1)
    assert noise.float().mean() == pytest.approx(0.2, abs=0.1)
    some = replace_frames(x, 0.3, 0.25, generator(0))
    assert (some != x).any(dim=(1, 2, 3)).float().mean() == pytest.approx(0.3, abs=0.1)


def test_patches_lie_beside_the_chest() -> None:
    x = torch.stack([torch.full((1, 64, 64), v) for v in torch.linspace(-1, 1, 300).tolist()])
    changed = paste_marks(x, 1.0, generator(0)) != x
    where = changed.float().mean(dim=(0, 1))
    assert where[24:, 22:42].max() == 0  # the middle of the chest
    assert min(where[:16, :16].mean(), where[:16, -16:].mean()) > 0.01
    area = changed.float().mean(dim=(1, 2, 3))
    assert area.max() <= (0.22 * 64 + 1) ** 2 / 64**2
    assert torch.equal(paste_marks(x, 0.0, generator(0)), x)


def test_exposure_keeps_range_and_order() -> None:
    x = torch.linspace(-1, 1, 64).view(1, 1, 8, 8).expand(50, 1, 8, 8)
    lit = expose(x, 1.0, generator(0)).flatten(1)
    assert lit.min() >= -1
    assert lit.max() <= 1
    assert (lit.diff(dim=1) >= 0).all()
    assert lit[:, 32].std() > 0.1
    assert torch.equal(expose(x, 0.0, generator(0)), x)


def test_proportions_change_and_the_area_does_not() -> None:
    _, m = augment(pictures(100, 8), TeachConfig(shift=0, zoom=0, rotation=0, stretch=0.2, exposure=0), generator(0))
    ratio = m[:, 0, 0] / m[:, 1, 1]
    assert torch.allclose(m[:, 0, 0] * m[:, 1, 1], torch.ones(100), atol=1e-5)
    assert ratio.max() == pytest.approx(torch.e**0.4, rel=0.1)
    assert ratio.min() == pytest.approx(torch.e**-0.4, rel=0.1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("border", 1.5), ("marks", -0.1), ("border_width", 0.5), ("shift", 0.6), ("stretch", -1.0), ("exposure", 2.5),
     ("zoom", float("nan")), ("rotation", 181.0), ("focus_weight", -1.0)],
)  # fmt: skip
def test_bad_settings_are_named(name: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"{name} \(={value}\) must be from 0 to"):
        TeachConfig(**{name: value})
