"""MS-SSIM: identity, a value by hand, the peer's value, and what it says of a set."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from expressivegan.errors import InputError
from expressivegan.evaluation import ms_ssim, ssim_diversity
from expressivegan.evaluation.ssim import _WEIGHTS, scales_for


def pictures(n: int, side: int, seed: int = 0) -> np.ndarray:
    rough = gaussian_filter(np.random.default_rng(seed).normal(size=(n, side, side)), (0, 3, 3))
    return (rough / rough.std() * 40 + 128).clip(0, 255).astype(np.uint8)


def test_equal_images_score_one() -> None:
    x = pictures(3, 64)
    assert ms_ssim(x, x) == pytest.approx(np.ones(3), abs=1e-12)


def test_by_hand() -> None:
    # Constant images: contrast and structure are 1; luminance (2·100·200 + c1)/(100² + 200² + c1), c1 = 2.55², with the
    # exponent of the third and last scale.
    c1 = 2.55**2
    luminance = (2 * 100 * 200 + c1) / (100**2 + 200**2 + c1)
    a, b = np.full((1, 64, 64), 100, np.uint8), np.full((1, 64, 64), 200, np.uint8)
    assert ms_ssim(a, b)[0] == pytest.approx(luminance ** (0.3001 / (0.0448 + 0.2856 + 0.3001)))


def test_scales_by_size() -> None:
    assert [scales_for(side) for side in (11, 21, 22, 64, 128, 175, 176, 1024)] == [1, 1, 2, 3, 4, 4, 5, 5]


@pytest.mark.parametrize("side", [64, 96, 192])
def test_agrees_with_torchmetrics(side: int) -> None:
    # Its own MS-SSIM averages the last scale over a padded rim, unlike Wang et al., and refuses 96 px at 4 scales; its
    # SSIM gives the same terms scale by scale.
    peer = pytest.importorskip("torchmetrics.functional.image").structural_similarity_index_measure
    x, y = pictures(3, side, 0), pictures(3, side, 1)
    y = (x // 2 + y // 2).astype(np.uint8)
    scales = scales_for(side)
    weights = [w / sum(_WEIGHTS[:scales]) for w in _WEIGHTS[:scales]]
    a, b = (torch.from_numpy(i.astype(np.float64))[:, None] for i in (x, y))
    expected = torch.ones(3, dtype=torch.float64)
    for scale, weight in enumerate(weights):
        settings = {"data_range": 255.0, "reduction": "none"}
        if scale == scales - 1:
            term = peer(a, b, return_full_image=True, **settings)[1][..., 5:-5, 5:-5]
        else:
            term = peer(a, b, return_contrast_sensitivity=True, **settings)[1]
        expected *= term.reshape(3, -1).mean(1).clamp(min=0) ** weight
        a, b = (torch.nn.functional.avg_pool2d(i, 2) for i in (a, b))
    assert ms_ssim(x, y) == pytest.approx(expected.numpy(), rel=1e-6)


def test_repetition_and_likeness_lower_diversity() -> None:
    varied, alike = pictures(60, 32), pictures(60, 32)
    alike = (alike.astype(float) * 0.2 + alike[:1] * 0.8).astype(np.uint8)
    images = np.concatenate([varied, alike, varied[np.arange(60) % 1]])
    report = ssim_diversity(images, np.repeat(np.arange(3), 60), ("varied", "alike", "one"), pairs=200)
    assert report["varied"].low > report["alike"].high
    assert report["alike"].low > 0.01
    assert report["one"].value == pytest.approx(0, abs=1e-12)
    assert report["varied"].low < report["varied"].value < report["varied"].high
    assert report == ssim_diversity(images, np.repeat(np.arange(3), 60), ("varied", "alike", "one"), pairs=200)


def test_pairs_of_one_patient_are_left_out() -> None:
    x = np.repeat(pictures(20, 32), 2, 0)
    none = np.zeros(40, int)
    assert ssim_diversity(x, none, ("A",), patients=np.arange(40) // 2)["A"].value > (
        ssim_diversity(x, none, ("A",))["A"].value
    )
    assert np.isnan(ssim_diversity(x, none, ("A",), patients=["a"] * 40)["A"].value)
    assert np.isnan(ssim_diversity(x, none, ("A", "B"))["B"].value)


def test_unfit_images_are_named() -> None:
    x = pictures(2, 32)
    with pytest.raises(InputError, match=r"uint8 \(N, H, W\), not float64"):
        ms_ssim(x / 255, x)
    with pytest.raises(InputError, match="one shape"):
        ms_ssim(x, x[:1])
    with pytest.raises(InputError, match="at least 11 pixels"):
        ms_ssim(x[:, :8, :8], x[:, :8, :8])
    with pytest.raises(InputError, match=r"rounds \(=3\)"):
        ssim_diversity(x, [0, 0], ("A",), rounds=3)
