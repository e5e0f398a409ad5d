"""Features are computed once for the same pixels in the same space, and what is read has been checked."""

from pathlib import Path

import numpy as np
import pytest

from expressivegan.errors import DataError, InputError
from expressivegan.evaluation.features import FloatArray, cache, cached_features

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (150, 8, 8)).astype(np.uint8)


class Corners:
    """Four pixels of each image; counts the images that it is asked for."""

    def __init__(self, identity: str | None = "corners-1") -> None:
        self.name, self.identity, self.asked = "my corners/é", identity, 0

    def features(self, images: np.ndarray) -> FloatArray:
        self.asked += len(images)
        return images.reshape(len(images), -1)[:, [0, 7, 56, 63]].astype(np.float32)


def test_the_second_time_nothing_is_computed(tmp_path: Path) -> None:
    space, calls = Corners(), []
    first = cached_features(space, IMAGES, tmp_path / "new", progress=lambda *c: calls.append(c))
    np.testing.assert_array_equal(first, IMAGES[:, ::7, ::7].reshape(150, 4))
    assert (first.dtype, space.asked) == (np.float32, 150)
    assert calls == [(0, 150), (64, 150), (128, 150), (150, 150)]
    calls.clear()
    np.testing.assert_array_equal(
        cached_features(space, IMAGES, tmp_path / "new", progress=lambda *c: calls.append(c)), first
    )
    assert (space.asked, calls) == (150, [(150, 150)])
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_other_pixels_or_another_space_are_computed_anew(tmp_path: Path) -> None:
    cached_features(Corners(), IMAGES, tmp_path)
    changed = IMAGES.copy()
    changed[149, 7, 7] ^= 1
    for images in (changed, IMAGES[:-1], IMAGES[::-1], IMAGES.reshape(150, 4, 16), IMAGES.transpose(0, 2, 1)):
        space = Corners()
        np.testing.assert_array_equal(cached_features(space, images, tmp_path), Corners().features(images))
        assert space.asked == len(images)
    other = Corners("corners-2")
    cached_features(other, IMAGES, tmp_path)
    assert other.asked == 150
    assert len(list(tmp_path.iterdir())) == 7


def test_no_identity_or_no_folder_keeps_nothing(tmp_path: Path) -> None:
    for space, folder in ((Corners(None), tmp_path), (Corners(), None)):
        for _ in range(2):
            cached_features(space, IMAGES, folder)
        assert space.asked == 300
    assert not list(tmp_path.iterdir())


def test_repeated_images_are_computed_once_and_equal_to_the_bit(tmp_path: Path) -> None:
    class Noisy(Corners):
        def features(self, images: np.ndarray) -> FloatArray:
            return super().features(images) + RNG.random((len(images), 1)).astype(np.float32)

    space = Noisy()
    found = cached_features(space, IMAGES[[3, 1, 3, 3, 1]], tmp_path)
    assert space.asked == 2
    np.testing.assert_array_equal(found, found[[0, 1, 0, 0, 1]])
    assert np.abs(found[0] - found[1]).max() > 0
    np.testing.assert_array_equal(cached_features(space, IMAGES[[3, 3, 1]], tmp_path), found[[0, 0, 1]])
    assert space.asked == 2


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "swapped"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: str) -> None:
    expected = cached_features(Corners(), IMAGES, tmp_path)
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    if damage == "swapped":  # a whole file, of other images, under this name
        path.unlink()
        cached_features(Corners(), IMAGES[::-1], tmp_path)
        next(iter(tmp_path.iterdir())).replace(path)
    elif damage == "flipped":
        data[-5] ^= 1
        path.write_bytes(data)
    else:
        path.write_bytes(data[: len(data) // 2] if damage == "truncated" else b"")
    for asked in (150, 0):
        space = Corners()
        np.testing.assert_array_equal(cached_features(space, IMAGES, tmp_path), expected)
        assert space.asked == asked


def test_an_interrupted_computation_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stops(Corners):
        def __init__(self, fail: type[BaseException], after: int) -> None:
            super().__init__()
            self.fail, self.after = fail, after

        def features(self, images: np.ndarray) -> FloatArray:
            if self.asked >= self.after:
                raise self.fail
            return super().features(images)

    with pytest.raises(KeyboardInterrupt):
        cached_features(Stops(KeyboardInterrupt, 64), IMAGES, tmp_path)
    (part,) = tmp_path.iterdir()
    assert part.suffix == ".part"
    monkeypatch.setattr(cache, "_SAVE_SECONDS", -1.0)
    with pytest.raises(MemoryError):  # a kill leaves what was saved last
        cached_features(Stops(MemoryError, 64), IMAGES, tmp_path)
    space, calls = Corners(), []
    found = cached_features(space, IMAGES, tmp_path, progress=lambda *c: calls.append(c))
    assert (space.asked, calls[0]) == (22, (128, 150))
    np.testing.assert_array_equal(found, Corners().features(IMAGES))
    assert [p.suffix for p in tmp_path.iterdir()] == [".safetensors"]


def test_bad_features_and_folders_are_refused_and_not_kept(tmp_path: Path) -> None:
    class Bad(Corners):
        def features(self, images: np.ndarray) -> FloatArray:
            found = super().features(images)
            if self.asked > 64:
                found = found[:, :3] if self.identity == "narrow" else np.where(found > 0, np.nan, found)
            return found

    for identity, said in (
        ("nan", "hold NaN, infinity .* of 64 images"),
        ("narrow", r"shape \(64, 4\).*not .*\(64, 3\)"),
    ):
        with pytest.raises(InputError, match=said):
            cached_features(Bad(identity), IMAGES, tmp_path)
    with pytest.raises(InputError, match="non-empty uint8"):
        cached_features(Corners(), IMAGES[:0], tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cache \(=.*file'\) of features cannot be written"):
        cached_features(Corners(), IMAGES, tmp_path / "file")
