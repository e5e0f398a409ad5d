"""Sizes and value ranges, against pixels worked out by hand and Pillow's filter."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from expressivegan.evaluation.features.frame import INCEPTION, RAD_DINO, XRV, Frame, resize
from expressivegan.images import from_uint8


@pytest.mark.parametrize(
    ("frame", "channels", "values"),
    [
        (Frame(64), 1, (-1.0, 0.2, 1.0)),  # 153 / 127.5 - 1
        (XRV, 1, (-1.0, 0.2, 1.0)),  # times 1024 in the network: see test_xrv_features_are_that_librarys_own
        (INCEPTION, 3, (-1.0, 0.1953125, 0.9921875)),  # (0 - 128) / 128, (153 - 128) / 128, (255 - 128) / 128
        (RAD_DINO, 3, (-2.0545877, 0.2682927, 1.8168796)),  # (0 - 0.5307) / 0.2583, (0.6 - 0.5307) / 0.2583, ...
    ],
)
def test_value_range_of_each_network(frame: Frame, channels: int, values: tuple[float, ...]) -> None:
    pixels = np.stack([np.full((8, 8), v, np.uint8) for v in (0, 153, 255)])
    x = frame.prepare(pixels)
    assert x.shape == (3, channels, frame.side, frame.side)
    assert x.dtype == torch.float32
    for row, value in zip(x, values, strict=True):
        torch.testing.assert_close(row, torch.full_like(row, value), atol=2e-6, rtol=0)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (2, height, width)).astype(np.uint8)


@pytest.mark.parametrize(("height", "width", "side"), [(64, 64, 224), (64, 64, 299), (224, 224, 64), (90, 140, 64)])
def test_resize_is_pillows(height: int, width: int, side: int) -> None:
    images = noise(height, width)
    ours = (resize(from_uint8(images).unsqueeze(1), side) + 1) * 127.5
    pillow = np.stack(
        [
            np.asarray(Image.fromarray(i.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC))
            for i in images
        ]
    ).clip(0, 255)
    assert np.abs(ours[:, 0].numpy() - pillow).max() < 2e-3  # of 255; clean-fid takes Pillow's in floating point, too


def test_without_antialiasing_the_pattern_would_differ() -> None:
    stripes = np.zeros((1, 256, 256), np.uint8)
    stripes[:, :, ::4] = stripes[:, :, 1::4] = 255  # period 4, reduced 4-fold: grey
    x = from_uint8(stripes).unsqueeze(1)
    naive = F.interpolate(x, (60, 60), mode="bicubic", align_corners=False)
    assert naive.std() > 0.5
    assert resize(x, 60).std() < 0.1
    assert resize(x, 60).mean().abs() < 0.05
    images = noise(224, 224)
    x = from_uint8(images).unsqueeze(1)
    naive = F.interpolate(x, (64, 64), mode="bicubic", align_corners=False)
    assert (resize(x, 64) - naive).abs().mean() * 127.5 > 20  # grey levels


def test_overshoot_is_clipped_and_own_size_untouched() -> None:
    edge = np.zeros((1, 8, 8), np.uint8)
    edge[:, :, 4:] = 255
    x = Frame(32).prepare(edge)
    assert (float(x.min()), float(x.max())) == (-1, 1)
    raw = F.interpolate(from_uint8(edge).unsqueeze(1), (32, 32), mode="bicubic", align_corners=False, antialias=True)
    assert raw.max() > 1.01
    images = noise(16, 16)
    assert torch.equal(Frame(16).prepare(images)[:, 0], from_uint8(images))
    assert Frame(None, channels=3).prepare(noise(5, 7)).shape == (2, 3, 5, 7)
