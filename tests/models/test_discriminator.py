"""The score is the mean of its evidence, and the class map is the teacher's kind of map."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from expressivegan.errors import InputError
from expressivegan.models import DiscriminatorWithExplain
from tiny import pictures, tiny_discriminator

Y = torch.tensor([0, 1, 2])


@pytest.mark.parametrize("resolution", [28, 32, 64, 128, 224, 256, 512])
@torch.no_grad()
def test_shapes_and_the_decomposition(resolution: int) -> None:
    D, x = tiny_discriminator(resolution=resolution), pictures(3, resolution)
    found = D.explain(x, Y)
    assert found.score.shape == (3, 1)
    assert found.class_logits.shape == (3, 3)
    assert found.evidence.shape[:2] == (3, 1)
    assert found.class_maps.shape == (3, 3, *found.evidence.shape[2:])
    assert found.evidence.shape[-1] >= 7
    assert torch.allclose(found.evidence.mean(dim=(2, 3)), found.score, atol=1e-5)
    score, cam = D(x, Y)
    assert torch.allclose(score, found.score)
    assert cam.shape == x.shape
    assert cam.min() >= 0
    assert cam.max() <= 1


@torch.no_grad()
def test_the_decomposition_holds_under_bf16() -> None:
    D, x = tiny_discriminator(), pictures(3)
    with torch.autocast("cpu", torch.bfloat16):
        found = D.explain(x, Y)
        score = D.score(x, Y)
    assert found.score.dtype == found.evidence.dtype == found.class_logits.dtype == torch.float32
    assert torch.allclose(found.evidence.mean(dim=(2, 3)), found.score, atol=1e-5)
    assert torch.equal(score, found.score)
    exact = D.explain(x, Y)
    assert torch.allclose(found.score, exact.score, atol=0.1 * float(exact.evidence.abs().max()))


@pytest.mark.parametrize("bf16", [False, True])
@torch.no_grad()
def test_class_maps_explain_the_class_logits(bf16: bool) -> None:
    D, x = tiny_discriminator(), pictures(3)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        found, features = D.explain(x), D.features(x).float()
    raw = F.conv2d(features, D.class_head.weight)
    assert D.class_head.bias is not None
    assert D.class_head.bias.abs().min() > 0
    assert torch.allclose(raw.mean(dim=(2, 3)) + D.class_head.bias, found.class_logits, atol=1e-5)
    assert torch.allclose(found.class_maps, raw - raw[:, :1], atol=1e-5)
    assert (found.class_maps[:, 0] == 0).all()


@torch.no_grad()
def test_without_a_reference_maps_are_against_the_mean() -> None:
    found = tiny_discriminator(reference=None).explain(pictures(2))
    assert found.class_maps.mean(1).abs().max() < 1e-5
    assert found.class_maps.abs().max() > 1e-3


@torch.no_grad()
def test_the_label_decides_the_evidence() -> None:
    D, x = tiny_discriminator(), pictures(1).expand(3, -1, -1, -1)
    found = D.explain(x, Y)
    assert not torch.allclose(found.score[0], found.score[1])
    assert torch.allclose(found.class_logits[0], found.class_logits[1], atol=1e-6)
    # without a label: the average class, which is the average of the evidence
    assert torch.allclose(D.explain(x[:1]).evidence, found.evidence.mean(0, keepdim=True), atol=1e-5)


@torch.no_grad()
def test_the_map_is_that_of_the_label_or_of_the_likeliest_disease() -> None:
    D, x = tiny_discriminator(), pictures(3)
    found = D.explain(x)

    def cam(index: int, label: int) -> torch.Tensor:
        one = found.class_maps[index, label][None, None]
        return F.interpolate(one, x.shape[-2:], mode="bilinear", align_corners=False).clamp(0, 1)[0]

    likeliest = found.class_logits[:, 1:].argmax(1) + 1
    labelled, free = D(x, Y)[1], D(x)[1]
    for i in range(3):
        assert torch.allclose(free[i], cam(i, int(likeliest[i])), atol=1e-6)
    assert torch.equal(labelled[0], free[0])
    assert torch.allclose(labelled[1], cam(1, 1), atol=1e-6)
    assert torch.allclose(labelled[2], cam(2, 2), atol=1e-6)


@pytest.mark.parametrize("options", [{"classes": ()}, {"classes": ("a",), "reference": None}])
@torch.no_grad()
def test_nothing_to_tell_apart(options: dict[str, Any]) -> None:
    score, cam = tiny_discriminator(**options)(pictures(2))
    assert score.shape == (2, 1)
    assert cam.shape == (2, 1, 32, 32)
    assert cam.min() >= 0
    assert cam.max() <= 1
    assert math.isfinite(float(score.sum()))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (pictures(1) * 1024, None, "1024|must lie in"),
        (torch.full((1, 1, 32, 32), float("nan")), None, "nan"),
        (pictures(1, 64), None, "images must be 32x32, as the discriminator's, not 64x64"),
        (torch.zeros(1, 3, 32, 32), None, r"\(1, 3, 32, 32\)"),
        (pictures(2), torch.tensor([0, 3]), "labels must be 0 to 2.*not 0 to 3"),
        (pictures(2), torch.tensor([0.0, 1.0]), "float32"),
        (pictures(2), torch.tensor([0]), r"shape \(2,\)"),
    ],
)
def test_bad_calls_raise(images: torch.Tensor, labels: torch.Tensor | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_discriminator()(images, labels)


def test_bad_options_raise() -> None:
    with pytest.raises(InputError, match=r"resolution \(=100\)"):
        DiscriminatorWithExplain(resolution=100)


def test_every_parameter_learns() -> None:
    D = tiny_discriminator().train()
    found = D.explain(pictures(3), Y)
    (found.score.sum() + found.class_logits.square().sum()).backward()  # type: ignore[no-untyped-call]
    assert [n for n, p in D.named_parameters() if p.grad is None or not p.grad.any()] == []
