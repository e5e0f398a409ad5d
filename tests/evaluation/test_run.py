"""The whole evaluation, with networks fitted for a moment: what it says of honest images, copies and collapse."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from expressivegan.data import ImageSet, load_images
from expressivegan.data.phantom import CLASSES, draw_batch
from expressivegan.errors import DataError, InputError
from expressivegan.evaluation import Evaluation, Generated, JudgeRecipe, SelfSupervisedRecipe, read_generated
from expressivegan.evaluation.run import SECTIONS, UNLABELLED

N = 150
SIDE = 32


@pytest.fixture(scope="module")
def data() -> ImageSet:
    return load_images("phantom:600", SIDE, progress=False)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


def honest(seed: int = 5000) -> Generated:
    labels = np.arange(N) % 3
    pictures = draw_batch(range(seed, seed + N), [CLASSES[k] for k in labels], SIDE)[0]
    return Generated("honest", pictures, labels.astype(np.int64))


def judged(data: ImageSet, made: Generated, cache: Path) -> Evaluation:
    return Evaluation(
        data,
        made,
        cache=cache,
        judge_recipe=JudgeRecipe(resolution=32, epochs=3),
        selfsup_recipe=SelfSupervisedRecipe(resolution=32, epochs=2),
    )


@pytest.fixture(scope="module")
def results(data: ImageSet, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("out")
    return judged(data, honest(), cache).run(out), out


def test_every_section_speaks_in_plain_json(results: tuple[dict[str, Any], Path]) -> None:
    found, _ = results
    assert set(found["sections"]) | set(found["left_out"]) == set(SECTIONS)
    assert {"fidelity", "diversity", "agreement", "memorisation"} <= set(found["sections"])
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again == found
    assert found["generated"]["by_class"] == dict.fromkeys(CLASSES, N // 3)
    assert found["summary"]


def test_honest_images_are_near_the_floor_and_copy_nobody(results: tuple[dict[str, Any], Path]) -> None:
    sections = results[0]["sections"]
    for space in sections["fidelity"]["spaces"].values():
        assert space["over_floor"]["fid"] < 2
        assert space["over_floor"]["coverage"] > 0.8
        assert space["ladder"]["1 per class, repeated"]["coverage"] < 0.5
    assert sections["memorisation"]["copies_share"]["value"] < 0.02
    assert abs(sections["fidelity"]["n"] - sum(sections["fidelity"]["counts"].values())) == 0


def test_collapse_is_said(data: ImageSet, cache: Path, tmp_path: Path) -> None:
    good = honest()
    rows = np.arange(N) % 3  # one image a class, over and over
    bad = Generated("collapsed", good.images[rows], good.labels[rows] if good.labels is not None else None)
    found = judged(data, bad, cache).run(tmp_path, ["fidelity", "diversity"])
    assert any("repeats itself" in sentence for sentence in found["summary"])
    for space in found["sections"]["fidelity"]["spaces"].values():
        assert space["over_floor"]["coverage"] < 0.5


def test_copies_are_said(data: ImageSet, cache: Path, tmp_path: Path) -> None:
    rows = data.indices("train")[:N]
    copied = Generated("copied", np.asarray(data.images[rows]), data.labels[rows])
    found = judged(data, copied, cache).run(tmp_path, ["memorisation"])
    assert found["sections"]["memorisation"]["flagged"]
    assert found["sections"]["memorisation"]["copies_share"]["value"] > 0.9


def test_an_interrupted_evaluation_goes_on(
    data: ImageSet, cache: Path, results: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, out = results
    for name in SECTIONS:
        monkeypatch.setattr(Evaluation, name, lambda self: pytest.fail("it was computed again"))
    kept = list(found["sections"])
    assert judged(data, honest(), cache).run(out, kept)["sections"] == found["sections"]
    with pytest.raises(pytest.fail.Exception):  # other images, another key
        judged(data, honest(9000), cache).run(out, kept)


def test_images_without_labels_have_fidelity_and_memorisation(data: ImageSet, cache: Path, tmp_path: Path) -> None:
    made = Generated("bare", honest().images, None)
    found = judged(data, made, cache).run(tmp_path)
    assert set(found["sections"]) == set(UNLABELLED)
    with pytest.raises(InputError, match=r"agreement.*needs labels"):
        judged(data, made, cache).run(tmp_path, ["agreement"])
    with pytest.raises(InputError, match="must be among fidelity"):
        judged(data, made, cache).run(tmp_path, ["beauty"])


def test_sizes_must_agree(data: ImageSet, cache: Path) -> None:
    with pytest.raises(InputError, match=r"images are \(64, 64\).*32 px"):
        judged(data, Generated("large", np.zeros((30, 64, 64), np.uint8), None), cache)


# --- reading ----------------------------------------------------------------------------------------------------------


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


def test_too_few_or_no_images(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for i in range(30):
        (tmp_path / "texts" / f"{i}.txt").write_text("no image")
    with pytest.raises(DataError, match="holds no image"):
        read_generated(str(tmp_path / "texts"), CLASSES, SIDE)
    Image.fromarray(honest().images[0]).save(tmp_path / "texts" / "one.png")
    with pytest.raises(InputError, match="holds 1 images; at least 24"):
        read_generated(str(tmp_path / "texts"), CLASSES, SIDE)
