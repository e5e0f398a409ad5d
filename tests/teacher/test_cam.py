"""CAMs are exact, and merging them does not depend on what softmax ignores."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from expressivegan.errors import CheckpointError, InputError
from expressivegan.teacher import CXR_CAM_Teacher, minmax, open_teacher
from expressivegan.teacher.backbone import class_names, topk_count
from tiny import noise, pictures, tiny_teacher

# one row of two cells; NORMAL, BACTERIA, VIRUS
RAW = torch.tensor([[[[1.0, 2.0]], [[2.0, 6.0]], [[4.0, 3.0]]]])
LOGITS = torch.tensor([[0.2, 0.6, 0.2]]).log()  # softmax gives these shares back


def merged(meth: str, cams: Tensor = RAW, logits: Tensor = LOGITS, **options: Any) -> list[float]:
    teacher = tiny_teacher(meth=meth, scale=options.pop("scale", 4.0), **options)
    found = teacher.merge(cams, logits)
    assert found.shape == (len(cams), 1, *cams.shape[2:])
    return [round(v, 5) for v in found.flatten().tolist()]


@pytest.mark.parametrize(
    ("meth", "expected"),
    [
        # against NORMAL: BACTERIA 1, 4 and VIRUS 3, 1; then over the scale of 4
        ("max", [0.75, 1.0]),
        ("mean", [0.5, 0.625]),
        ("weighted", [0.375, 0.8125]),  # shares 0.75 and 0.25 of what is not NORMAL
        ("topk", [0.25, 1.0]),  # k = 1: BACTERIA alone
    ],
)
def test_the_four_merges_by_hand(meth: str, expected: list[float]) -> None:
    assert merged(meth) == expected


@pytest.mark.parametrize("meth", ["max", "mean", "weighted", "topk"])
def test_a_map_common_to_all_classes_changes_nothing(meth: str) -> None:
    cams, logits = noise(3, 3, 4, 4), noise(3, 3, seed=1)
    # Without a reference the mean over classes is what is subtracted, so merging by mean would leave nothing.
    for reference in ("NORMAL", None)[: 1 if meth == "mean" else 2]:
        before = merged(meth, cams, logits, reference=reference, scale=1.0)
        after = merged(meth, cams + 5 * noise(3, 1, 4, 4, seed=2), logits + 3.0, reference=reference, scale=1.0)
        assert after == pytest.approx(before, abs=1e-4)
        assert max(before) > 0.1


@pytest.mark.parametrize("meth", ["max", "mean", "weighted", "topk"])
def test_a_constant_map_becomes_zero(meth: str) -> None:
    cams = torch.zeros(1, 3, 4, 4)
    cams[:, 1], cams[:, 2] = 3.0, 2.0
    assert set(merged(meth, cams)) == {0.0}
    assert set(merged(meth, cams + noise(1, 1, 4, 4))) == {0.0}  # constant once the common map is gone


@pytest.mark.parametrize("meth", ["max", "mean", "weighted", "topk"])
def test_a_confident_normal_is_dark(meth: str) -> None:
    cams = torch.stack([4 + noise(4, 4).abs(), -noise(4, 4, seed=1).abs(), -noise(4, 4, seed=2).abs()])[None]
    assert max(merged(meth, cams, cams.mean(dim=(2, 3)))) == 0


def test_the_reference_is_left_out() -> None:
    # NORMAL is by far the likeliest, and its own map (0 after referencing) would win a maximum over negative ones
    cams = torch.tensor([[[[8.0, 0.0]], [[4.0, 2.0]], [[0.0, 1.0]]]])
    logits = torch.tensor([[5.0, 1.0, 0.0]])
    assert merged("topk", cams, logits) == [0.0, 0.5]
    assert merged("mean", cams, logits) == [0.0, 0.375]
    other = cams[:, [1, 0, 2]]  # the same under another order
    assert merged("topk", other, logits[:, [1, 0, 2]], classes=("B", "N", "V"), reference="N") == [0.0, 0.5]


def test_sigmoid_heads_need_no_reference() -> None:
    found = merged("max", RAW, LOGITS, multi_label=True, reference=None, scale=8.0)
    assert found == [0.5, 0.75]
    many = torch.arange(5.0).view(1, 5, 1, 1) * torch.tensor([1.0, 2.0])
    found = merged("topk", many, torch.arange(5.0)[None], classes=tuple("abcde"), multi_label=True, reference=None,
                   scale=8.0)  # fmt: skip
    assert found == [3 / 8, 6 / 8]  # the mean of the likeliest three: 2, 3, 4


@pytest.mark.parametrize(("classes", "reference", "k"), [(2, True, 1), (3, True, 1), (4, True, 3), (18, False, 3)])
def test_how_many_topk_takes(classes: int, reference: bool, k: int) -> None:
    assert topk_count(classes - reference, classes) == k


@pytest.mark.parametrize("side", [16, 32, 48, 224])
@torch.no_grad()
def test_shapes_at_other_sizes(teacher: CXR_CAM_Teacher, side: int) -> None:
    cams, ups, logits = teacher(pictures(2, side))
    assert cams.shape == (2, 1, side, side)
    assert ups.shape == (2, 3, side, side)
    assert logits.shape == (2, 3)
    assert cams.min() >= 0
    assert cams.max() <= 1
    assert ups.min() < 0


@torch.no_grad()
def test_ups_are_the_raw_maps(teacher: CXR_CAM_Teacher) -> None:
    x = pictures(2)
    raw, logits = teacher.raw_cams(x)
    found = teacher(x)
    assert torch.allclose(found.logits, logits)
    assert torch.allclose(found.ups.mean(dim=(2, 3)) + teacher.backbone.classifier.bias, logits, atol=1e-4)
    signed, _ = teacher.class_cams(x)
    assert torch.allclose(signed, (raw - raw[:, :1]) / teacher.scale, atol=1e-5)


@pytest.mark.parametrize("images", [pictures(1) * 1024, pictures(1) + 0.5, torch.zeros(1, 3, 32, 32), torch.zeros(4)])
def test_the_range_is_a_contract(teacher: CXR_CAM_Teacher, images: Tensor) -> None:
    with pytest.raises(InputError, match="images must"):
        teacher(images)


def test_gradients_reach_the_image(teacher: CXR_CAM_Teacher) -> None:
    x = pictures(2).requires_grad_()
    teacher.requires_grad_(False)
    teacher.class_cams(x)[0].sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_calibration_is_a_quantile_of_peaks(teacher: CXR_CAM_Teacher) -> None:
    x, y = pictures(40), torch.arange(40) % 3
    with torch.no_grad():
        peaks = teacher.referenced(teacher.raw_cams(x)[0])[torch.arange(40), y].amax(dim=(1, 2))[y != 0]
    scale = teacher.calibrate(x, y, quantile=0.75, batch=7)
    assert scale == pytest.approx(max(1e-3, float(peaks.quantile(0.75))), rel=1e-4)
    assert float(teacher.scale) == pytest.approx(scale)


def test_minmax_is_for_display() -> None:
    maps = torch.stack([torch.full((1, 2, 2), 7.0), torch.tensor([[[1.0, 2.0], [3.0, 5.0]]])])
    assert minmax(maps).flatten(1).tolist() == [[0, 0, 0, 0], [0, 0.25, 0.5, 1]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"meth": "sum"}, r"meth \(='sum'\) must be one of max, mean, weighted, topk"),
        ({"scale": 0.0}, r"scale \(=0.0\)"),
        ({"weights": "imagenet"}, r"weights \(='imagenet'\)"),
        ({"weights": "xrv:resnet9000"}, r"xrv:resnet9000\) must be one of .*densenet121-res224-all"),
        ({"classes": ("a",), "reference": None}, r"\['a'\]\) must name at least two"),
        ({"reference": "HEALTHY"}, r"reference \(='HEALTHY'\)"),
        ({"backbone": "vgg"}, r"backbone \(='vgg'\) must be one of"),
        ({"resolution": 100}, r"resolution \(=100\)"),
    ],
)
def test_bad_options_raise(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CXR_CAM_Teacher(**({"weights": None, "resolution": 32} | options))


def test_opening_what_is_not_there(tmp_path: Any) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        open_teacher(str(tmp_path / "nowhere"))


def test_names_of_outputs() -> None:
    assert class_names(["Edema", "", "Mass"]) == ("Edema", "untrained-output-1", "Mass")
    assert math.isfinite(float(tiny_teacher().scale))


def test_calibration_needs_a_diseased_image(teacher: CXR_CAM_Teacher) -> None:
    with pytest.raises(InputError, match="name no diseased image"):
        teacher.calibrate(pictures(4), torch.zeros(4, dtype=torch.long))
