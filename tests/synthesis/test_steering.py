"""A region is what was asked for, on the side that was asked for; whatever else is one sentence."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from expressivegan.data import load_images
from expressivegan.errors import InputError
from expressivegan.evaluation.anatomy import landmarks
from expressivegan.synthesis import ZONES, steering_map
from expressivegan.synthesis.steering import check_steering


def centre(region: torch.Tensor) -> tuple[float, float]:
    """(x, y) of its mass, as shares of the sides."""
    at = (torch.arange(region.shape[-1]) + 0.5) / region.shape[-1]
    mass = region[0, 0] / region.sum()
    return float((mass.sum(0) * at).sum()), float((mass.sum(1) * at).sum())


def test_a_box_by_hand() -> None:
    found = steering_map("box 0 0 0.5 1", 32)
    assert found.shape == (1, 1, 32, 32)
    assert (found[..., 16:] == 0).all()
    # the fourth column's centre is 3.5/32: 3.5/8 of the way to the middle, beyond the 0.4 where it reaches 1
    assert found[0, 0, 16, 3] == 1
    assert found[0, 0, 16, 0] == pytest.approx(0.5 / 8 / 0.4)


def test_an_ellipse_by_hand() -> None:
    found = steering_map("ellipse 0.25 0.75 0.125 0.25", 64)
    assert centre(found) == pytest.approx((0.25, 0.75), abs=1e-6)
    rows, columns = (found[0, 0] > 0).nonzero().T
    assert (int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())) == (32, 63, 8, 23)
    assert found.max() == 1
    # π·rx·ry is the area of the ellipse; that of the map is smaller by the soft rim
    assert float((found > 0).float().mean()) == pytest.approx(np.pi * 0.125 * 0.25, rel=0.03)


def test_regions_are_joined() -> None:
    one, other = steering_map("right upper", 64), steering_map("box 0.6 0.6 0.9 0.9", 64)
    assert torch.equal(steering_map(["right upper", "box 0.6 0.6 0.9 0.9"], 64), torch.maximum(one, other))


def test_zones_are_the_patients() -> None:
    for name in ZONES:
        x, y = centre(steering_map(name.upper(), 64))
        assert (x < 0.5) == name.startswith("right")
        assert {"upper": y < 0.4, "middle": 0.45 < y < 0.55, "lower": y > 0.6}[name.split()[1]]
    areas = {float(steering_map(name, 64).mean()) for name in ZONES}
    assert max(areas) / min(areas) < 1.03


def test_zones_lie_where_lungs_are(kermany_dir: Path) -> None:
    images = load_images(kermany_dir / "chest_xray", 64, progress=False)
    chosen = images.indices("train")
    found = landmarks(np.asarray(images.images[chosen[images.labels[chosen] == images.reference][:120]]))
    middle, half = np.nanmedian(found.midline), np.nanmedian(found.thorax_width) / 2
    top = np.nanmedian(found.lung_top)
    for name, e in ZONES.items():
        side, level = name.split()
        floor = np.nanmedian(found.right_diaphragm if side == "right" else found.left_diaphragm)
        share = (e.y - top) / (floor - top)
        assert {"upper": 0.1 < share < 0.35, "middle": 0.4 < share < 0.6, "lower": 0.7 < share < 0.9}[level], name
        assert e.y + e.ry < floor + 0.02
        away = middle - e.x if side == "right" else e.x - middle
        assert 0.25 * half < away < 0.85 * half, name
        assert away + e.rx < 1.05 * half  # not beyond the wall, nor across the mid-line
        assert away - e.rx > 0


def test_a_picture(tmp_path: Path) -> None:
    pixels = np.zeros((32, 32), np.uint8)
    pixels[4:8, 20:30] = 255
    pixels[10, 10] = 51
    Image.fromarray(pixels).save(tmp_path / "region.png")
    for what in (tmp_path / "region.png", str(tmp_path / "region.png")):
        assert torch.equal(steering_map(what, 32)[0, 0], torch.from_numpy(pixels / np.float32(255)))
    Image.fromarray(pixels > 60).save(tmp_path / "bits.png")
    assert steering_map(tmp_path / "bits.png", 32).sum() == 40


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("right", r"steer \(='right'\) is neither.*right upper.*patient's"),
        ("right top", "neither a file nor a known region"),
        ("no/such.png", r"'no/such.png'\) is neither a file"),
        ("a" * 300, "is neither a file"),  # longer than a file's name may be
        ("zero\0byte", "neither"),
        ("", "neither"),
        ("ellipse 0.3 0.6 0.12", "must be 'ellipse X Y RX RY' with four finite numbers"),
        ("ellipse 0.3 0.6 0.12 nan", "four finite numbers"),
        ("box a b c d", "must be 'box X0 Y0 X1 Y1'"),
        ("box 0 0 inf 1", "four finite numbers"),
        ("ellipse 0.3 0.6 0 0.1", "no area.*RX and RY above 0"),
        ("box 0.5 0.2 0.5 0.9", "no area.*X0 below X1"),
        ("box 0.6 0.2 0.5 0.9", "no area"),
        ("box 0.6 0.2 1.5 0.9", "outside of the picture.*0.6 to 1.5"),
        ("ellipse 0.05 0.5 0.1 0.1", "outside of the picture"),
        ("ellipse 2 2 0.1 0.1", "outside of the picture"),
        ("ellipse 0.5 0.5 0.001 0.001", "too small to hold a pixel's centre at 32 px"),
        ([], "names no region"),
    ],
)
def test_what_is_no_region(what: str | list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as found:
        steering_map(what, 32)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("mode", "size", "fill", "message"),
    [
        ("L", (32, 32), 0, "black everywhere"),
        ("L", (31, 32), 255, "31x32 pixels.*32x32"),
        ("RGB", (32, 32), (255, 0, 0), "mode RGB; save the region as 8-bit grey"),
        ("RGBA", (32, 32), (255, 0, 0, 9), "mode RGBA"),
        ("I;16", (32, 32), 65535, "mode I;16"),
        ("P", (32, 32), 1, "mode P"),
    ],
)
def test_pictures_that_are_no_region(
    tmp_path: Path, mode: str, size: tuple[int, int], fill: int | tuple[int, ...], message: str
) -> None:
    Image.new(mode, size, fill).save(tmp_path / "region.png")
    with pytest.raises(InputError, match=message):
        steering_map(tmp_path / "region.png", 32)


def test_a_damaged_picture(tmp_path: Path) -> None:
    (tmp_path / "region.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(InputError, match="cannot be read as a picture"):
        steering_map(tmp_path / "region.png", 32)


@pytest.mark.parametrize(
    ("steer", "message"),
    [
        (torch.full((1, 1, 32, 32), float("nan")), "must lie in"),
        (torch.full((1, 1, 32, 32), -0.5), "must lie in"),
        (torch.zeros(1, 1, 32, 32), "0 everywhere"),
        (torch.ones(1, 1, 16, 16), r"must be \(1, 1, 32, 32\)"),
        (torch.ones(32, 32), r"\(B, 1, H, W\)"),
    ],
)
def test_tensors_that_are_no_region(steer: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_steering(steer, 32)
