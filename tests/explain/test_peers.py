"""Methods by other libraries, on networks where the answer is known."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from expressivegan.errors import InputError
from expressivegan.explain import peers
from expressivegan.explain.peers import Margins, occlusion, peer_maps
from expressivegan.teacher import CXR_CAM_Teacher
from tiny import pictures, tiny_teacher

pytest.importorskip("captum")
pytest.importorskip("pytorch_grad_cam")


@pytest.mark.parametrize("backbone", ["compact", "compact-fine"])
def test_grad_cam_is_our_referenced_map_rectified_before_smoothing(backbone: str) -> None:
    """Pooling and one linear layer have a gradient that is the same in each cell (Selvaraju et al., section 3.1)."""
    teacher = tiny_teacher(backbone=backbone)
    smoothed = teacher.raw_cams(pictures(4))[0]
    teacher.backbone.smoothing = 0
    assert torch.equal(smoothed, teacher.raw_cams(pictures(4))[0]) == (backbone == "compact")
    x = pictures(4)
    focus = [1, 2, 1, 2]
    ours = teacher.referenced(teacher.raw_cams(x)[0])[torch.arange(4), focus].relu().detach().numpy()
    theirs = np.stack([m["grad-cam"].values for m in peer_maps(teacher, x, focus, ["grad-cam"])])
    assert ours.max() > 1e-3
    assert np.abs(theirs - ours).max() < 1e-5 * max(ours.max(), 1)


def test_grad_cam_plus_plus_by_hand(teacher: CXR_CAM_Teacher) -> None:
    """Chattopadhyay et al., WACV 2018, equation 19, with gradients that are the same in each cell."""
    x = pictures(2)
    found = peer_maps(teacher, x, [2, 2], ["grad-cam++"])
    features = teacher.backbone.features(x).detach()
    w = (teacher.backbone.classifier.weight[2] - teacher.backbone.classifier.weight[0]).detach()
    g = (w / features[0, 0].numel())[None, :, None, None]
    alpha = g**2 / (2 * g**2 + features.sum((2, 3), keepdim=True) * g**3 + 1e-7)
    weights = (alpha.expand_as(features) * g.relu()).sum((2, 3), keepdim=True)
    by_hand = (weights * features).sum(1).relu()
    for i in range(2):
        cell = found[i]["grad-cam++"].values
        assert cell.min() == pytest.approx(0, abs=1e-3)
        assert cell.max() == pytest.approx(1, abs=1e-3)
        small = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(cell)[None, None], 8)[0, 0]
        assert np.corrcoef(small.flatten(), by_hand[i].flatten())[0, 1] > 0.9


class _Mean(nn.Module):
    """(B, 2): the mean grey of the left half, and of the right."""

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        return torch.stack([x[..., :half].mean((1, 2, 3)), x[..., half:].mean((1, 2, 3))], 1)


def test_occlusion_by_hand() -> None:
    x = torch.full((1, 1, 16, 16), -1.0)
    x[..., 4:6, 4:6] = 1.0  # four bright pixels of 256: the mean grey is -1 + 8/256
    lost = occlusion(_Mean(), x, [0])[0]
    grey = -1 + 8 / 256
    # A 2x2 square on the bright pixels takes 4 (1 - grey) from a sum over 128 pixels; each pixel is covered by up to
    # four squares, one step apart, and the mean of what they take is what it gets: 4, 2, 2 and 1 pixels in common.
    full, half, quarter = ((k * (1 - grey) + (4 - k) * (-1 - grey)) / 128 for k in (4, 2, 1))
    assert float(lost[4, 4]) == pytest.approx((full + 2 * half + quarter) / 4, abs=1e-6)
    assert float(lost.max()) == pytest.approx(float(lost[4, 4]), abs=1e-6)
    assert float(lost[12, 12]) == pytest.approx(0, abs=1e-6)  # the right half has no say
    assert float(lost[4, 0]) < 0  # covering black with grey adds


def test_focus_and_methods_are_honoured(teacher: CXR_CAM_Teacher) -> None:
    x = pictures(1)
    one, two = (peer_maps(teacher, x, [k], ["occlusion"])[0]["occlusion"] for k in (1, 2))
    assert "BACTERIA" in one.title
    assert "VIRUS" in two.title
    assert np.abs(one.values - two.values).max() > 1e-5
    assert peer_maps(teacher, x, [1], []) == [{}]


def test_a_teacher_is_left_as_it_was(teacher: CXR_CAM_Teacher) -> None:
    peer_maps(teacher, pictures(1), [1])
    assert all(p.grad is None and p.requires_grad for p in teacher.parameters())
    assert not any(m._forward_hooks for m in teacher.modules())


def test_margins_are_logits_against_the_reference(teacher: CXR_CAM_Teacher) -> None:
    x = pictures(2)
    logits = teacher(x).logits
    assert torch.allclose(Margins(teacher)(x), logits - logits[:, :1], atol=1e-6)


def test_mistakes(teacher: CXR_CAM_Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"methods \(='lime'\) must be among grad-cam"):
        peer_maps(teacher, pictures(1), [1], ["lime"])  # type: ignore[list-item]
    monkeypatch.setattr(peers, "missing_library", lambda: "captum")
    with pytest.raises(InputError, match=r"captum, which is not installed: pip install 'expressivegan\[explain\]'"):
        peer_maps(teacher, pictures(1), [1], ["occlusion"])
