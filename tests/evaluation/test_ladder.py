"""The rungs are what they say; what the figures say of them: test_ranking.py."""

import numpy as np
import pytest

from expressivegan.errors import InputError
from expressivegan.evaluation import floor_draws, make_ladder, place_on_ladder

CLASSES = ("NORMAL", "BACTERIA", "VIRUS")


def test_rungs_are_what_they_say() -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (60, 32, 40), dtype=np.uint8)
    labels = np.repeat(np.arange(3), 20)
    extra = draw.integers(0, 256, (30, 32, 40), dtype=np.uint8)
    rungs = make_ladder(images, labels, CLASSES, extra_images=extra, extra_labels=np.arange(30) % 3)
    assert list(rungs) == [
        "blur 0.5", "blur 1", "blur 1.5", "noise 5", "noise 15", "5 per class, repeated", "1 per class, repeated",
        "no VIRUS", "flipped", "shifted by 1/8", "training images, copied",
    ]  # fmt: skip
    for name, (made, given) in rungs.items():
        assert made.shape == images.shape, name
        assert made.dtype == np.uint8, name
        assert given.shape == labels.shape, name
        if name != "no VIRUS":
            assert (given == labels).all(), name
    spread = [np.diff(rungs[f"blur {s}"][0].astype(float), axis=1).std() for s in ("0.5", "1", "1.5")]
    assert spread == sorted(spread, reverse=True)
    for count in (5, 1):
        made, given = rungs[f"{count} per class, repeated"]
        assert [len(np.unique(made[given == c], axis=0)) for c in range(3)] == [count] * 3
    missing, given = rungs["no VIRUS"]
    assert set(given.tolist()) == {0, 1}
    assert len(np.unique(missing, axis=0)) == 60  # filled with other images, not with the same again
    assert (rungs["flipped"][0] == images[:, :, ::-1]).all()
    shifted = rungs["shifted by 1/8"][0]
    assert (shifted[:, :, 5:] == images[:, :, :-5]).all()
    assert (shifted[:, :, :5] == images[:, :, :1]).all()
    copied = rungs["training images, copied"][0].astype(int) - images
    assert np.abs(copied).max() == 1
    again = make_ladder(images, labels, CLASSES, extra_images=extra, extra_labels=np.arange(30) % 3)
    assert all((rungs[name][0] == again[name][0]).all() for name in rungs)


def test_repetition_needs_more_images_than_are_repeated() -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (230, 8, 8), dtype=np.uint8)
    labels = np.repeat([0, 1], [130, 100])
    made, given = make_ladder(images, labels, ("A", "B"))["100 per class, repeated"]
    assert (given == labels).all()
    assert [len(np.unique(made[labels == c], axis=0)) for c in range(2)] == [100, 100]
    kept = labels == 1
    assert "100 per class, repeated" not in make_ladder(images[kept], labels[kept], ("A", "B"))


def test_blur_is_in_pixels_of_64() -> None:
    for side in (64, 128):
        image = np.zeros((1, side, side), np.uint8)
        image[:, :, : side // 2] = 200
        made = make_ladder(image, [0], ("A",))["blur 1"][0][0, 0].astype(float)
        edge = -np.diff(made)
        at = np.arange(side - 1)
        width = np.sqrt((edge * at**2).sum() / edge.sum() - ((edge * at).sum() / edge.sum()) ** 2)
        assert width == pytest.approx(side / 64, rel=0.05)


def test_unfit_images_are_named() -> None:
    with pytest.raises(InputError, match=r"images must be uint8 \(N, H, W\)"):
        make_ladder(np.zeros((2, 8, 8)), [0, 0], ("A",))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"labels span 0\.\.1 but there are 1"):
        make_ladder(np.zeros((2, 8, 8), np.uint8), [0, 1], ("A",))
    with pytest.raises(InputError, match=r"draws \(=0\)"):
        floor_draws([0, 1], [1, 1], 0)


def test_places() -> None:
    rungs = {"blur 1": 10.0, "floor": 0.8, "blur 0.5": 1.1, "absent": float("nan")}
    assert place_on_ladder(2.0, rungs) == 'between "blur 0.5" and "blur 1"'
    assert place_on_ladder(1.1, rungs) == 'at "blur 0.5"'
    assert place_on_ladder(0.5, rungs) == 'better than "floor", the best'
    assert place_on_ladder(99, rungs) == 'worse than "blur 1", the worst'
    falling = {"floor": 0.9, "blur 0.5": 0.7, "blur 1": 0.2}
    assert place_on_ladder(0.5, falling, higher_is_better=True) == 'between "blur 0.5" and "blur 1"'
    assert place_on_ladder(0.95, falling, higher_is_better=True) == 'better than "floor", the best'
    with pytest.raises(InputError, match=r"figure \(=nan\)"):
        place_on_ladder(float("nan"), rungs)
