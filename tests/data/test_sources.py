"""From every kind of source to pixels in memory, and back through a saved manifest."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_trees import Tree, kermany_paths
from test_dicom import RAMP, dataset, folder_of, stored
from test_medmnist import arrays_of, saved
from test_store import zipped

from expressivegan.data import Manifest, load_images
from expressivegan.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:.*EVERY IMAGE COUNTS AS A PATIENT")


def table(tree: Tree, folder: Path) -> Path:
    root = tree([f"{i}.png" for i in range(12)])
    (root / "index.csv").write_text("path,label\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(12)))
    return root / "index.csv"


SOURCES: dict[str, Callable[[Tree, Path], Path]] = {
    "zip": lambda tree, folder: zipped(tree(kermany_paths(8)), above="deep/"),
    "npz": lambda tree, folder: saved(folder / "pneumoniamnist.npz", arrays_of()),
    "table": table,
    "zipped table": lambda tree, folder: zipped(table(tree, folder).parent, above="deep/"),
    "dicom": lambda tree, folder: folder_of(folder / "dicom", lambda label, i: f"{label}{i}"),
    "zipped dicom": lambda tree, folder: zipped(folder_of(folder / "dicom", lambda label, i: f"{label}{i}")),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_images(kind: str, tree: Tree, tmp_path: Path) -> None:
    source = SOURCES[kind](tree, tmp_path)
    images = load_images(source, 16, cache_dir=tmp_path / "cache", progress=False)
    assert len(images) >= 12
    assert images.images.std() > 10
    assert len(np.unique(images.images.reshape(len(images), -1), axis=0)) == len(images)
    again = load_images(source, 16, cache_dir=tmp_path / "cache", progress=False)
    assert again.manifest == images.manifest
    images.manifest.write(tmp_path / "saved.jsonl")
    assert Manifest.read(tmp_path / "saved.jsonl") == images.manifest
    back = load_images(tmp_path / "saved.jsonl", 16, cache_dir=tmp_path / "other", progress=False)
    assert (back.images == images.images).all()


def test_an_archive_that_changed_is_noticed(tree: Tree, tmp_path: Path) -> None:
    path = zipped(tree([f"{c}/{i}.png" for c in "ab" for i in range(8)]))
    load_images(path, 16, cache_dir=tmp_path / "cache", progress=False).manifest.write(tmp_path / "saved.jsonl")
    with zipfile.ZipFile(path) as old:
        content = {name: old.read(name) for name in old.namelist()}
    content["a/0.png"], content["a/1.png"] = content["a/1.png"], content["a/0.png"]
    with zipfile.ZipFile(path, "w") as new:
        for name, data in content.items():
            new.writestr(name, data)
    with pytest.raises(DataError, match="its contents changed after the manifest was written"):
        load_images(tmp_path / "saved.jsonl", 16, cache_dir=tmp_path / "other", progress=False)


def test_classes_by_rule_for_class_folders(tree: Tree, tmp_path: Path) -> None:
    source = tree(kermany_paths(8))
    both = load_images(source, 16, classes="NORMAL,PNEUMONIA", cache_dir=tmp_path, progress=False)
    three = load_images(source, 16, cache_dir=tmp_path, progress=False)
    assert both.classes == ("NORMAL", "PNEUMONIA")
    assert (both.labels == np.minimum(three.labels, 1)).all()
    bacteria = load_images(source, 16, classes="VIRUS,normal", cache_dir=tmp_path, progress=False)
    assert (bacteria.classes, bacteria.reference) == (("VIRUS", "normal"), 1)
    assert len(bacteria) == (three.labels != 1).sum()


def test_dicom_pixels_are_those_of_a_viewer(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / "set" / label).mkdir(parents=True)
        for i in range(8):
            made = dataset(
                np.tile((RAMP[:, :24] + i).astype(np.uint16), (1, 1)), 12, WindowCenter=1000, WindowWidth=500
            )
            made.PatientID = f"{label}{i}"
            if label == "b":
                made.PhotometricInterpretation = "MONOCHROME1"
            (tmp_path / "set" / label / str(i)).write_bytes(stored(made))
    images = load_images(tmp_path / "set", 24, cache_dir=tmp_path / "cache", progress=False)
    a, b = (images.images[[r.path == f"{c}/3" for r in images.manifest.records]][0].astype(int) for c in "ab")
    assert np.abs(a + b - 255).max() <= 1
    assert (a[RAMP[:, :24] < 740] == 0).all()
    assert (a[RAMP[:, :24] > 1260] == 255).all()
