"""Value ranges raise, conversions round-trip, pictures say what they are."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from expressivegan.errors import InputError
from expressivegan.images import (
    check_images,
    check_maps,
    check_resolution,
    from_uint8,
    grid,
    overlay,
    save_png,
    show_image_tensor,
    to_uint8,
    to_xrv,
)
from tiny import pictures


@pytest.mark.parametrize(
    ("resolution", "found"),
    [(28, (7, 2)), (32, (4, 3)), (56, (7, 3)), (64, (4, 4)), (128, (4, 5)), (224, (7, 5)), (256, (4, 6)),
     (448, (7, 6)), (512, (4, 7)), (1024, (4, 8))],
)  # fmt: skip
def test_supported_resolutions(resolution: int, found: tuple[int, int]) -> None:
    assert check_resolution(resolution) == found
    assert found[0] * 2 ** found[1] == resolution


@pytest.mark.parametrize(
    ("resolution", "advice"),
    [(100, "try 112 or 128"), (0, "try 28 or 32"), (-64, "try 28 or 32"), (7, "try 28"), (16, "try 28"),
     (65, "try 64 or 56"), (96, "try"), (2048, "try 1024")],
)  # fmt: skip
def test_other_resolutions_raise_with_advice(resolution: int, advice: str) -> None:
    with pytest.raises(InputError, match=rf"resolution \(={resolution}\) must be .*{advice}"):
        check_resolution(resolution)


@pytest.mark.parametrize("convert", [check_images, to_uint8, to_xrv])
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((1, 1, 2, 2), 255.0), "255"),
        (torch.full((1, 1, 2, 2), -1024.0), "-1024"),
        (torch.full((1, 1, 2, 2), 1.01), r"1\.01"),
        (torch.tensor([[[[0.0, float("nan")]]]]), "nan"),
        (torch.tensor([[[[0.0, float("inf")]]]]), "inf"),
        (torch.zeros(1, 3, 2, 2), r"\(1, 3, 2, 2\)"),
        (torch.zeros(1, 2, 2), r"\(1, 2, 2\)"),
        (torch.zeros(0, 1, 2, 2), r"\(0, 1, 2, 2\)"),
        (torch.zeros(1, 1, 2, 2, dtype=torch.uint8), "uint8.*from_uint8"),
    ],
)
def test_images_out_of_range_raise(convert: object, images: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        convert(images)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (torch.full((1, 1, 2, 2), 1.5), r"1\.5"),
        (torch.full((1, 1, 2, 2), -0.25), r"-0\.25"),
        (torch.full((1, 1, 2, 2), float("nan")), "nan"),
        (torch.zeros(1, 2, 2, 2), r"\(1, 2, 2, 2\)"),
        (torch.zeros(1, 1, 2, 2, dtype=torch.bool), "bool"),
    ],
)
def test_maps_out_of_range_raise(maps: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=f"steer.*{message}"):
        check_maps(maps, "steer")


def test_every_grey_level_survives_the_round_trip() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    there = from_uint8(levels)
    assert there.dtype == torch.float32
    assert (there.min(), there.max()) == (-1, 1)
    assert torch.equal(to_uint8(there), levels)
    assert torch.equal(from_uint8(levels.numpy()), there)


def test_from_uint8_wants_bytes() -> None:
    with pytest.raises(InputError, match="float32"):
        from_uint8(torch.zeros(1, 1, 2, 2))


def test_xrv_range() -> None:
    found = to_xrv(torch.tensor([[[[-1.0, 0.0, 0.5, 1.0]]]]))
    assert found.tolist() == [[[[-1024, 0, 512, 1024]]]]


def test_grid_tiles_row_by_row() -> None:
    tiles = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((1, 3, 3), np.uint8)
    found = grid(tiles, columns=2, pad=1)
    assert found.shape == (11, 7)
    assert [found[1, 1], found[1, 5], found[5, 1], found[5, 5], found[9, 1]] == [0, 1, 2, 3, 4]
    assert (found[3] == 255).all()
    assert (found[8:, 4:] == 255).all()
    assert grid(np.zeros((4, 3, 3, 3), np.uint8), pad=0).shape == (6, 6, 3)
    with pytest.raises(InputError, match="non-empty"):
        grid(np.zeros((0, 3, 3), np.uint8))


def test_overlay_leaves_the_image_where_the_map_is_zero() -> None:
    images, maps = pictures(2, 8), torch.zeros(2, 1, 8, 8)
    maps[:, :, 2:4, 2:4] = 1.0
    found = overlay(images, maps)
    grey = to_uint8(images)[:, 0].numpy()
    outside = maps[:, 0].numpy() == 0
    for channel in range(3):
        assert (found[..., channel][outside] == grey[outside]).all()
    assert not np.array_equal(found[..., 0][~outside], found[..., 2][~outside])


def test_overlay_wants_maps_of_the_image_size() -> None:
    with pytest.raises(InputError, match=r"\(1, 1, 4, 4\).*\(1, 1, 8, 8\)"):
        overlay(pictures(1, 8), torch.zeros(1, 1, 4, 4))


def test_png_keeps_pixels_and_text(tmp_path: Path) -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    save_png(tmp_path / "x.png", pixels, {"Synthetic": "yes", "label": "VIRUS"})
    with Image.open(tmp_path / "x.png") as image:
        assert image.text == {"Synthetic": "yes", "label": "VIRUS"}  # type: ignore[attr-defined]
        assert np.array_equal(np.asarray(image), pixels)
    save_png(tmp_path / "x.png", np.zeros((4, 4, 3), np.uint8))
    with Image.open(tmp_path / "x.png") as image:
        assert (image.mode, image.size) == ("RGB", (4, 4))
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_a_png_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.png").write_bytes(b"before")

    def full(self: Image.Image, file: Path, **_: object) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space"):
        save_png(tmp_path / "x.png", np.zeros((4, 4), np.uint8))
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]
    assert (tmp_path / "x.png").read_bytes() == b"before"


@pytest.mark.parametrize("attention", [False, True])
def test_show_image_tensor_draws_a_figure(attention: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[bool] = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    images = pictures(5, 8).requires_grad_()
    maps = torch.rand(5, 1, 8, 8).requires_grad_() if attention else None
    figure = show_image_tensor(images, 4, attention=maps, titles=["a", "b"])
    assert isinstance(figure, Figure)
    drawn = [axis for axis in figure.axes if axis.images]
    assert len(drawn) == 4
    assert [axis.get_title() for axis in drawn] == ["a", "b", "", ""]
    assert drawn[0].images[0].get_array().shape == ((8, 8, 3) if attention else (8, 8))
    assert shown == [True]
    plt.close(figure)


def test_show_image_tensor_takes_one_image_and_checks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("show=False"))
    plt.close(show_image_tensor(pictures(1, 8)[0], attention=torch.zeros(1, 8, 8), show=False))
    with pytest.raises(InputError, match=r"image_tensor.*255"):
        show_image_tensor(torch.full((1, 1, 4, 4), 255.0), show=False)
    assert plt.get_fignums() == []
