"""NIH ChestX-ray14 and RSNA as their homes lay them out, and as torchxrayvision reads them."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from data_trees import Tree

from expressivegan.data import read_manifest
from expressivegan.errors import DataError, InputError

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient {},View Position,OriginalImage[Width,"
    "Height],OriginalImagePixelSpacing[x,y]\n"
)
FINDINGS = ["No Finding", "Pneumonia", "Pneumonia|Edema", "Effusion|Mass", "No Finding", "Pneumonia|Effusion"]
IMAGES = [f"{p:08}_{i:03}.png" for p in range(1, 19) for i in range(2)]


def nih(tree: Tree, sex: str = "Gender", age: str = "058Y") -> Path:
    folders = {image: f"images_{1 + i % 2:03}/images/" for i, image in enumerate(IMAGES)}
    root = tree([folders[i] + i for i in IMAGES], root="CXR8", side=40)
    lines = [
        f"{image},{FINDINGS[n % 6]},{n % 2},{n // 2 + 1},{age},{'FM'[n % 2]},{'PA' if n % 3 else 'AP'},99,99,0.1,0.1\n"
        for n, image in enumerate(IMAGES)
    ]
    (root / "Data_Entry_2017.csv").write_text(HEADER.format(sex) + "".join(lines))
    (root / "BBox_List_2017.csv").write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\n")
    return root


def test_nih(tree: Tree) -> None:
    root = nih(tree)
    (root / "train_val_list.txt").write_text("\n".join(IMAGES[:24]))
    (root / "test_list.txt").write_text("\n".join(IMAGES[24:]))
    with pytest.raises(InputError, match=r"No Finding \(12\).*try classes='No Finding,Pneumonia'"):
        read_manifest(root, progress=False)
    manifest = read_manifest(root, classes="NORMAL,Pneumonia,Fluid=Effusion|Edema", progress=False)
    assert (manifest.source, manifest.patients_known) == ("nih", True)
    assert (manifest.classes, manifest.reference_class) == (("NORMAL", "Pneumonia", "Fluid"), "NORMAL")
    assert Counter(r.label for r in manifest.records) == {"NORMAL": 12, "Pneumonia": 6, "Fluid": 6}
    assert Counter(r.reason for r in manifest.rejected) == {
        "ambiguous: shows Pneumonia and Fluid": 12,
        "Data_Entry_2017.csv does not name it": 1,
    }
    first = next(r for r in manifest.records if r.path.endswith("00000003_000.png"))
    assert (first.patient, first.official, first.sex, first.age) == ("3", "train", "F", 58.0)
    assert {r.group for r in manifest.records if r.official == "test"} == {"test"}
    assert {r.official for r in manifest.records if r.group != "test"} == {"train"}


def test_nih_given_by_its_table_and_in_its_later_form(tree: Tree) -> None:
    root = nih(tree, sex="Sex", age="58")
    (root / "Data_Entry_2017.csv").rename(root / "Data_Entry_2017_v2020.csv")
    one = read_manifest(root, classes="Mass,No Finding", progress=False)
    two = read_manifest(root / "Data_Entry_2017_v2020.csv", classes="Mass,No Finding", progress=False)
    assert one.data_hash == two.data_hash
    assert {(r.sex, r.age) for r in one.records} == {("F", 58.0), ("M", 58.0)}
    assert one.reference_class == "No Finding"


@pytest.mark.filterwarnings("ignore:.*also in the test folder")
def test_nih_part_of_the_images_and_contradictions(tree: Tree) -> None:
    root = nih(tree)
    images = sorted(root.rglob("*.png"))
    images[0].unlink()
    (root / "copy").mkdir()
    shutil.copy(images[1], root / "copy" / images[1].name)
    with (root / "Data_Entry_2017.csv").open("a") as table:
        table.write(f"{images[2].name},Hernia,0,1,1,F,PA,9,9,1,1\n")
    (root / "train_val_list.txt").write_text(images[4].name)
    (root / "test_list.txt").write_text("\n".join(i.name for i in images[4:9]))
    reasons = {
        r.path.rpartition("/")[2]: r.reason
        for r in read_manifest(root, classes="NORMAL,Pneumonia", progress=False).rejected
    }
    assert "no such file" in reasons[images[0].name]
    assert "a second file of the name" in reasons[images[1].name]
    assert "contradict each other" in reasons[images[2].name]
    assert reasons[images[4].name] == "stands in both lists of the official split"


def test_torchxrayvision_sees_the_same_in_nih(tree: Tree) -> None:
    import torchxrayvision

    root = nih(tree, age="58")
    flat = root.parent / "flat"
    flat.mkdir()
    for image in root.rglob("*.png"):
        shutil.copy(image, flat / image.name)
    theirs = torchxrayvision.datasets.NIH_Dataset(
        imgpath=str(flat), csvpath=str(root / "Data_Entry_2017.csv"), views=["PA", "AP"], unique_patients=False
    )
    ours = read_manifest(root, classes="Normal,Pneumonia,Other=Edema|Effusion|Mass", progress=False)
    used = {r.path.rpartition("/")[2]: r for r in ours.records}
    assert len(used) > 10
    for i, image in enumerate(theirs.csv["Image Index"]):
        shown = {p for p, on in zip(theirs.pathologies, theirs.labels[i], strict=True) if on}
        if image in used:
            assert used[image].patient == theirs.csv["patientid"][i]
            assert (used[image].sex == "M") == theirs.csv["sex_male"][i]
            assert used[image].age == theirs.csv["age_years"][i]
            groups = dict.fromkeys(("Edema", "Effusion", "Mass"), "Other")
            assert {groups.get(s, s) for s in shown} or {"Normal"} == {used[image].label}
        else:
            assert len(shown) > 1


# --- RSNA -------------------------------------------------------------------------------------------------------------

KINDS = ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity")


def rsna(tree: Tree, suffix: str = "png") -> Path:
    names = [f"{i:04x}-94fd-4e49" for i in range(24)]
    root = tree([f"stage_2_train_images/{n}.{suffix}" for n in names], root="rsna")
    labels, details = ["patientId,x,y,width,height,Target\n"], ["patientId,class\n"]
    for i, name in enumerate(names):
        kind = KINDS[i % 3]
        for _ in range(2 if kind == "Lung Opacity" else 1):  # two boxes
            box = "1.0,2.0,3.0,4.0,1" if kind == "Lung Opacity" else ",,,,0"
            labels.append(f"{name},{box}\n")
            details.append(f"{name},{kind}\n")
    (root / "stage_2_train_labels.csv").write_text("".join(labels))
    (root / "stage_2_detailed_class_info.csv").write_text("".join(details))
    return root


def test_rsna(tree: Tree) -> None:
    root = rsna(tree)
    manifest = read_manifest(root, progress=False)
    assert (manifest.source, manifest.patients_known, manifest.reference_class) == ("rsna", True, "Normal")
    assert manifest.classes == ("Normal", "Lung Opacity", "No Lung Opacity / Not Normal")
    assert Counter(r.label for r in manifest.records) == dict.fromkeys(KINDS, 8)
    assert manifest.rejected == ()
    chosen = read_manifest(root, classes="NORMAL,Pneumonia=Lung Opacity", progress=False)
    assert (chosen.classes, len(chosen.records), len(chosen.rejected)) == (("NORMAL", "Pneumonia"), 16, 8)
    assert read_manifest(root / "stage_2_train_labels.csv", progress=False).data_hash == manifest.data_hash


def test_rsna_without_the_detailed_table(tree: Tree) -> None:
    root = rsna(tree)
    (root / "stage_2_detailed_class_info.csv").unlink()
    manifest = read_manifest(root, progress=False)
    assert Counter(r.label for r in manifest.records) == {"No Lung Opacity": 16, "Lung Opacity": 8}


def test_rsna_contradictions_and_missing_images(tree: Tree) -> None:
    root = rsna(tree)
    images = sorted((root / "stage_2_train_images").iterdir())
    images[0].unlink()
    with (root / "stage_2_train_labels.csv").open("a") as table:
        table.write(f"{images[1].stem},1,1,1,1,1\n")
    (root / "stage_2_test_images").mkdir()
    shutil.copy(images[3], root / "stage_2_test_images" / "new.png")
    rejected = {r.path: r.reason for r in read_manifest(root, progress=False).rejected}
    assert rejected == {
        images[0].stem: "a table names it, but there is no such image",
        f"stage_2_train_images/{images[1].name}": "the tables contradict each other about it, or give it no class",
        "stage_2_test_images/new.png": "no table names it",
    }


def test_torchxrayvision_sees_the_same_in_rsna(tree: Tree) -> None:
    import torchxrayvision

    root = rsna(tree)
    manifest = read_manifest(root, progress=False)
    headers = root / "headers.csv"
    headers.write_text("PatientID,ViewPosition\n" + "".join(f"{r.patient},PA\n" for r in manifest.records))
    theirs = torchxrayvision.datasets.RSNA_Pneumonia_Dataset(
        imgpath=str(root / "stage_2_train_images"),
        csvpath=str(root / "stage_2_train_labels.csv"),
        dicomcsvpath=str(headers),
        extension=".png",
    )
    target = dict(zip(theirs.csv["patientid"], theirs.labels[:, theirs.pathologies.index("Lung Opacity")], strict=True))
    assert {r.patient: float(r.label == "Lung Opacity") for r in manifest.records} == {
        patient: float(np.float32(value)) for patient, value in target.items()
    }


def test_tables_without_their_columns(tree: Tree) -> None:
    root = nih(tree)
    (root / "Data_Entry_2017.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="has no column 'Image Index'"):
        read_manifest(root, progress=False)
    other = rsna(tree)
    (other / "stage_2_train_labels.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="has no column 'patientId'"):
        read_manifest(other, progress=False)
