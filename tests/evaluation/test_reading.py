"""Synthetic images are read from folders, as they are found there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from short_evaluations import SIDE, honest

from expressivegan.data import ImageSet
from expressivegan.data.phantom import CLASSES
from expressivegan.errors import DataError, InputError
from expressivegan.evaluation import read_generated
from expressivegan.evaluation.results import summary


def test_reading_a_folder_with_classes_in_any_order_and_case(tmp_path: Path) -> None:
    made = honest()
    assert made.labels is not None
    for i in range(60):
        folder = tmp_path / "set" / CLASSES[made.labels[i]].lower()
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(made.images[i]).save(folder / f"{i:03}.png")
    found = read_generated(str(tmp_path / "set"), CLASSES, SIDE)
    assert found.labels is not None
    assert np.bincount(found.labels).tolist() == [20, 20, 20]
    first = next(i for i in range(60) if np.array_equal(made.images[i], found.images[0]))
    assert made.labels[first] == found.labels[0]
    with pytest.raises(InputError, match=r"labels .*virus.* data set has A, B"):
        read_generated(str(tmp_path / "set"), ("A", "B"), SIDE)


def test_reading_images_without_labels_beside_a_note(tmp_path: Path) -> None:
    for i, picture in enumerate(honest().images[:30]):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    (tmp_path / "note.txt").write_text("made today")
    found = read_generated(str(tmp_path), CLASSES, SIDE)
    assert (found.labels, len(found.images)) == (None, 30)


@pytest.mark.parametrize("labelled", [False, True])
def test_images_of_a_folder_become_square_as_asked(tmp_path: Path, labelled: bool) -> None:
    folder = tmp_path / "NORMAL" if labelled else tmp_path
    folder.mkdir(exist_ok=True)
    draw = np.random.default_rng(0)
    for i in range(30):
        Image.fromarray(draw.integers(100, 256, (20, 40), dtype=np.uint8)).save(folder / f"{i}.png")
    black = {fit: (read_generated(str(tmp_path), CLASSES, SIDE, fit).images == 0).any() for fit in ("stretch", "pad")}
    assert black == {"stretch": False, "pad": True}


def test_only_a_lack_of_labels_makes_images_unlabelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, picture in enumerate(honest().images[:30]):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")

    def broken(*given: Any, **options: Any) -> ImageSet:
        raise DataError("the cache of 'no class folders' is damaged")

    monkeypatch.setattr("expressivegan.evaluation.collect.load_images", broken)
    with pytest.raises(DataError, match="is damaged"):
        read_generated(str(tmp_path), CLASSES, SIDE)


def test_pictures_that_say_nothing_are_counted_against_the_set(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 40), dtype=np.uint8)
    for label in ("NORMAL", "VIRUS"):
        folder = tmp_path / label
        folder.mkdir()
        Image.fromarray(np.full((40, 40), 7, np.uint8)).save(folder / "grey.png")
        Image.fromarray(noise[0]).save(folder / "both.png")
        for i in range(1, 30):
            Image.fromarray(noise[i] // (1 if label == "VIRUS" else 2)).save(folder / f"{i}.png")
    (tmp_path / "note.txt").write_text("made today")  # no picture, and no fault of the generator
    made = read_generated(str(tmp_path), ("NORMAL", "VIRUS"), 32)
    assert len(made.images) == 58
    assert len(made.unusable) == 4
    assert "4 synthetic pictures were left out" in summary({}, unusable=len(made.unusable))[0]
    (tmp_path / "VIRUS" / "cut.png").write_bytes((tmp_path / "VIRUS" / "1.png").read_bytes()[:200])
    alone = read_generated(str(tmp_path / "VIRUS"), ("NORMAL", "VIRUS"), 32)
    assert len(alone.images) == 30
    assert [r.path for r in alone.unusable] == ["cut.png", "grey.png"]  # without labels no less than with them


def test_reading_colour_and_unequal_sizes(tmp_path: Path) -> None:
    for i, picture in enumerate(honest().images[:30]):
        tall = Image.fromarray(picture).resize((40, 64 + i))
        (tall.convert("RGB") if i % 2 else tall).save(tmp_path / f"{i:02}.png")
    found = read_generated(str(tmp_path), CLASSES, SIDE)
    assert found.images.shape == (30, SIDE, SIDE)
    assert np.abs(found.images[1].astype(float) - honest().images[1]).mean() < 12


def test_too_few_or_no_images(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for i in range(30):
        (tmp_path / "texts" / f"{i}.txt").write_text("no image")
    with pytest.raises(DataError, match="holds no image"):
        read_generated(str(tmp_path / "texts"), CLASSES, SIDE)
    Image.fromarray(honest().images[0]).save(tmp_path / "texts" / "one.png")
    with pytest.raises(InputError, match="holds 1 images; at least 24"):
        read_generated(str(tmp_path / "texts"), CLASSES, SIDE)
