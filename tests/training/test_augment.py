"""Augmentation stays in range, takes the maps along, and never flips."""

import torch

from expressivegan.streams import generator
from expressivegan.training.augment import Augmentation, augment_images, augment_maps, draw_augmentation
from tiny import pictures


def draw(batch: int = 64, probability: float = 1.0, seed: int = 0) -> Augmentation:
    return draw_augmentation(batch, probability, generator(seed))


def without_holes(found: Augmentation) -> Augmentation:
    return found._replace(hole=torch.zeros_like(found.hole))


def test_probability_zero_is_identity() -> None:
    x, maps = pictures(8), torch.rand(8, 3, 8, 8)
    found = draw(8, 0.0)
    assert augment_images(x, found) is x
    assert augment_maps(maps, found) is maps


def test_the_share_of_images_is_the_probability() -> None:
    found = draw(4000, 0.3)
    assert 0.26 < len(found.which) / 4000 < 0.34
    x = pictures(8)
    half = draw(8, 0.5, seed=3)
    assert 0 < len(half.which) < 8
    left = [i for i in range(8) if i not in half.which.tolist()]
    changed = augment_images(x, half)
    assert torch.equal(changed[left], x[left])
    assert (changed[half.which] != x[half.which]).any(dim=(1, 2, 3)).all()


def test_images_stay_in_range() -> None:
    x = pictures(64)
    for images in (x, torch.ones_like(x), -torch.ones_like(x)):
        found = augment_images(images, draw())
        assert found.min() >= -1
        assert found.max() <= 1
        assert found.shape == images.shape


def test_maps_stay_in_range() -> None:
    found = augment_maps(torch.ones(64, 3, 8, 8), draw())
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6


def test_a_blob_keeps_its_map() -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    blob = torch.exp(-((y - 20) ** 2 + (x - 40) ** 2) / 60).expand(32, 1, 64, 64)
    found = without_holes(draw(32))
    images = augment_images(blob * 2 - 1, found)[:, 0]
    maps = augment_maps(torch.nn.functional.avg_pool2d(blob, 4), found)[:, 0]

    def centre(m: torch.Tensor) -> torch.Tensor:
        m = (m - m.amin(dim=(1, 2), keepdim=True)).square().square()
        at = (torch.arange(m.shape[-1]) + 0.5) / m.shape[-1]
        return torch.stack([(m.sum(2) * at).sum(1), (m.sum(1) * at).sum(1)], 1) / m.sum(dim=(1, 2))[:, None]

    moved = (centre(images) - torch.tensor([20.5 / 64, 40.5 / 64])).norm(dim=1)
    assert moved.max() > 0.08  # it is a test only if something moves
    assert (centre(images) - centre(maps)).norm(dim=1).max() < 0.025


def test_what_is_cut_out_of_the_image_is_cut_out_of_the_map() -> None:
    found = draw(64)
    cut = found.hole[:, 2] > 0
    assert 0.3 < cut.float().mean() < 0.7
    straight = found._replace(
        matrices=torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(64, 2, 3),
        contrast=torch.ones(64, 1, 1, 1),
        brightness=torch.zeros(64, 1, 1, 1),
    )
    images = augment_images(torch.ones(64, 1, 32, 32), straight)
    maps = augment_maps(torch.ones(64, 1, 8, 8), straight)
    pooled = torch.nn.functional.avg_pool2d((images + 1) / 2, 4)
    assert (pooled - maps).abs().max() < 0.3
    assert (pooled - maps).abs().mean() < 0.01
    assert (images.amin(dim=(1, 2, 3)) < -0.99).equal(cut)


def test_part_splits_a_draw() -> None:
    x, maps = pictures(12), torch.rand(12, 3, 8, 8)
    whole = draw(12, 0.6)
    parts = [(whole.part(a, a + 4), slice(a, a + 4)) for a in (0, 4, 8)]
    assert torch.equal(torch.cat([augment_images(x[s], p) for p, s in parts]), augment_images(x, whole))
    assert torch.equal(torch.cat([augment_maps(maps[s], p) for p, s in parts]), augment_maps(maps, whole))
    assert sum(len(p.which) for p, _ in parts) == len(whole.which)


def test_the_stream_moves_by_as_much_whatever_the_probability() -> None:
    states = []
    for probability in (0.0, 0.5, 1.0):
        g = generator(0)
        draw_augmentation(8, probability, g)
        states.append(g.get_state())
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


def test_the_heart_stays_on_the_left() -> None:
    x = torch.full((200, 1, 32, 32), -0.8)
    x[:, :, 8:24, 20:28] = 0.8
    found = augment_images(x, without_holes(draw(200)))
    right, left = found[..., 18:].mean(dim=(1, 2, 3)), found[..., :14].mean(dim=(1, 2, 3))
    assert (right > left).all()
    assert (found[:, :, 14:18, 22:26].mean(dim=(1, 2, 3)) > found[:, :, 14:18, 4:8].mean(dim=(1, 2, 3))).all()


def test_gradients_pass() -> None:
    x = (pictures(8) * 0.5).requires_grad_()
    augment_images(x, draw(8)).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert (x.grad.abs().sum(dim=(1, 2, 3)) > 0).all()
