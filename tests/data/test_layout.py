import os
import sys
from pathlib import Path
from time import sleep

import pytest
from data_trees import Tree, kermany_paths

from expressivegan.data import layout
from expressivegan.data.layout import Layout, Listing
from expressivegan.errors import DataError, InputError, UnlabelledError


def listing(paths: list[str], empty: tuple[str, ...] = ()) -> Listing:
    folders = set(empty) | {str(p) for path in [*paths, *(f"{e}/x" for e in empty)] for p in Path(path).parents} - {"."}
    return Listing(dict.fromkeys(paths, (1, 1)), folders)


def read(paths: list[str], empty: tuple[str, ...] = (), regex: str | None = None) -> Layout:
    return layout.recognise(listing(paths, empty), "set", regex)


def folder(label: str) -> str:
    return "NORMAL" if label == "NORMAL" else "PNEUMONIA"


KERMANY = kermany_paths(3)


@pytest.mark.parametrize(
    ("file", "label", "patient"),
    [
        ("IM-0115-0001.jpeg", "NORMAL", "IM-0115"),
        ("IM-0429-0001-0002.jpeg", "NORMAL", "IM-0429"),
        ("NORMAL2-IM-0115-0001.jpeg", "NORMAL", "NORMAL2-IM-0115"),
        ("NORMAL2-IM-0374-0001-0001.jpeg", "NORMAL", "NORMAL2-IM-0374"),
        ("person12_bacteria_46.jpeg", "BACTERIA", "person12_bacteria"),
        ("person12_virus_31.jpeg", "VIRUS", "person12_virus"),
        ("person112_virus_31.jpeg", "VIRUS", "person112_virus"),
        ("NORMAL-1003233-0002.jpeg", "NORMAL", "NORMAL-1003233"),
        ("BACTERIA-1008087-0001.jpeg", "BACTERIA", "BACTERIA-1008087"),
        ("VIRUS-1980593-0001.jpeg", "VIRUS", "VIRUS-1980593"),
    ],
)
def test_kermany_names(file: str, label: str, patient: str) -> None:
    found = {f.path: f for f in read([*KERMANY, f"chest_xray/train/{folder(label)}/{file}"]).found}
    one = found[f"train/{folder(label)}/{file}"]
    assert (one.label, one.patient, one.split) == (label, patient, "train")


@pytest.mark.parametrize("above", ["", "chest_xray/", "archive/chest_xray/", "CellData/chest_xray/"])
def test_kermany_is_found_wherever_it_stands(above: str) -> None:
    plan = read([p.replace("chest_xray/", above) for p in KERMANY])
    assert (plan.source, plan.base, len(plan.found)) == ("kermany", above.rstrip("/"), len(KERMANY))
    assert plan.classes == ("NORMAL", "BACTERIA", "VIRUS")
    assert {f.split for f in plan.found} == {"train", "test"}
    assert plan.patients_known


def test_kaggles_val_belongs_to_train() -> None:
    plan = read([*KERMANY, "chest_xray/val/NORMAL/NORMAL2-IM-1427-0001.jpeg"])
    assert {f.split for f in plan.found if f.path.startswith("val/")} == {"train"}


def test_a_nested_copy_is_named_once() -> None:
    plan = read([*KERMANY, *(f"chest_xray/{p}" for p in KERMANY)])
    assert len(plan.found) == len(KERMANY)
    assert [(r.path, r.reason) for r in plan.rejected] == [
        ("chest_xray", "a second copy of the data set inside the first")
    ]


def test_two_sets_side_by_side_are_not_guessed_at() -> None:
    with pytest.raises(DataError, match=r"several chest X-ray sets \(a/chest_xray, b/chest_xray\)"):
        read([f"{top}/{p}" for p in KERMANY for top in "ab"])


def test_kermany_refuses_to_guess() -> None:
    odd = ["train/PNEUMONIA/scan7.jpeg", "train/NORMAL/child.jpeg", "train/loose.jpeg", "readme.txt"]
    plan = read([*KERMANY, *(f"chest_xray/{p}" for p in odd)])
    assert {r.path: r.reason for r in plan.rejected} == {
        odd[0]: "its name says neither bacteria nor virus",
        odd[1]: "its name holds no patient number",
        odd[2]: "stands outside the class folders",
        odd[3]: "stands outside the class folders",
    }
    assert len(plan.found) == len(KERMANY)


def test_same_folders_with_other_names_are_no_kermany() -> None:
    plan = read(["train/NORMAL/a.png", "train/PNEUMONIA/b.png", "test/NORMAL/c.png"])
    assert (plan.source, plan.classes) == ("folder", ("NORMAL", "PNEUMONIA"))


def test_image_folder() -> None:
    plan = read(["grade10/a.png", "grade2/a.png", "Normal/deep/a.png", "notes.txt"])
    assert plan.classes == ("Normal", "grade2", "grade10")
    assert layout.reference_class(plan.classes) == "Normal"
    assert {f.patient for f in plan.found} == {"grade10/a", "grade2/a", "Normal/deep/a"}
    assert not plan.patients_known
    assert {f.split for f in plan.found} == {"train"}
    assert [r.path for r in plan.rejected] == ["notes.txt"]


def test_image_folder_with_splits_inside_an_archive() -> None:
    plan = read(["x/Train/b/1.png", "x/Train/a/1.png", "x/valid/a/2.png", "x/Test/a/3.png"])
    assert (plan.base, plan.classes) == ("x", ("a", "b"))
    assert {f.path: f.split for f in plan.found}["valid/a/2.png"] == "train"
    assert {f.path: f.split for f in plan.found}["Test/a/3.png"] == "test"


def test_what_stands_beside_splits_is_no_class() -> None:
    splits = [f"{split}/{label}/{split}{i}.png" for split in ("train", "test") for label in "ab" for i in range(2)]
    plan = read([*splits, "masks/train0.png", "doctor/doctor.html"])
    assert plan.classes == ("a", "b")
    assert sorted(r.path for r in plan.rejected) == ["doctor/doctor.html", "masks/train0.png"]
    assert read(["train/x.png", "plane/x.png", "bus/x.png"]).classes == ("bus", "plane", "train")  # no splits at all


def test_names_that_end_in_numbers_are_whole() -> None:
    plan = read([f"{label}/1.2.840.113619.{i}" for label in "ab" for i in range(3)])
    assert len({f.patient for f in plan.found}) == 6
    assert {f.patient for f in read(["a/1.png", "b/1.nii.gz"]).found} == {"a/1", "b/1.nii"}


def test_one_class_will_do() -> None:
    plan = read(["chests/1.png", "chests/2.png"])
    assert plan.classes == ("chests",)
    assert layout.reference_class(plan.classes) is None


def test_patient_regex() -> None:
    plan = read(["a/p1_x.png", "a/p1_y.png", "b/p2_x.png", "b/stray.png"], regex=r"(p\d+)_")
    assert [f.patient for f in sorted(plan.found, key=lambda f: f.path)] == ["p1", "p1", "p2"]
    assert [(r.path, r.reason) for r in plan.rejected] == [
        ("b/stray.png", "patient_regex finds no patient in its path")
    ]
    assert plan.patients_known


@pytest.mark.parametrize("regex", ["(", r"p\d+", "(a)(b)"])
def test_wrong_regex(regex: str) -> None:
    with pytest.raises(InputError, match="patient_regex"):
        read(["a/1.png"], regex=regex)


@pytest.mark.parametrize(
    ("paths", "empty", "match"),
    [
        (["a/1.png"], ("b",), "class b has no image"),
        (["train/a/1.png", "train/b/1.png"], ("test/b",), "class b has no image in test/b"),
        ([p for p in KERMANY if "test/NORMAL" not in p], ("chest_xray/test/NORMAL",), "class NORMAL has no image"),
        (["1.png", "2.png"], (), r"no class folders \(2 files\)"),
        (["train/1.png", "test/1.png"], (), "no class folders in test, train"),
    ],
)
def test_no_classes(paths: list[str], empty: tuple[str, ...], match: str) -> None:
    with pytest.raises(DataError, match=match):
        read(paths, empty)


@pytest.mark.parametrize("paths", [["1.png", "2.png"], ["train/1.png", "test/1.png"]])
def test_files_without_classes_have_an_error_of_their_own(paths: list[str]) -> None:
    with pytest.raises(UnlabelledError):
        read(paths, ())


def test_looking(tree: Tree) -> None:
    root = tree(["a/1.png", "a/.DS_Store.png", "__MACOSX/a/._1.png", "a/Thumbs.db.png"])
    (root / "a" / "Thumbs.db").write_bytes(b"x")
    (root / "a" / "loop").symlink_to(root)
    (root / "a" / "dead.png").symlink_to(root / "nowhere")
    seen = layout.look(root)
    assert sorted(seen.files) == ["a/1.png", "a/Thumbs.db.png", "a/dead.png"]
    assert seen.folders == {"a", "a/loop"}


@pytest.mark.parametrize("time", [1, 2**32])  # long ago, and to come
@pytest.mark.skipif(sys.platform == "win32", reason="has no time of status")
def test_a_file_that_keeps_size_and_time_of_another_is_not_it(tree: Tree, time: int) -> None:
    root = tree(["a/1.png"])
    file = root / "a" / "1.png"
    seen = []
    for _ in range(2):
        file.write_bytes(file.read_bytes()[::-1])
        os.utime(file, (time, time))
        seen.append(layout.look(root).files["a/1.png"])
        assert layout.look(root).files["a/1.png"] == seen[-1]
        sleep(0.05)  # the system's clock for files may tick only so often
    assert seen[0] != seen[1]


def test_looking_at_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        layout.look(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is not a folder"):
        layout.look(tmp_path / "file")
