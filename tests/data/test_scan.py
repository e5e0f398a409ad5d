import shutil
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from data_trees import Tree, kermany_paths
from PIL import Image

from expressivegan.data import Manifest, load_images, read_manifest
from expressivegan.errors import DataError, InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*EVERY IMAGE COUNTS AS A PATIENT")


def nobody_crosses(manifest: Manifest) -> None:
    patients, contents = defaultdict(set), defaultdict(set)
    for record in manifest.records:
        patients[record.patient].add(record.group)
        contents[record.sha256].add(record.group)
        assert (record.group == "test") == (record.split == "test")
    assert all(len(groups) == 1 for groups in patients.values())
    assert all(len(groups) == 1 for groups in contents.values())


# --- the real set -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(kermany_dir: Path) -> Manifest:
    return read_manifest(kermany_dir, progress=False)


def test_kermany_has_the_published_numbers(real: Manifest) -> None:
    assert (real.source, real.classes, real.reference_class) == ("kermany", ("NORMAL", "BACTERIA", "VIRUS"), "NORMAL")
    assert real.patients_known
    assert real.rejected == ()
    images = Counter((r.split, r.label) for r in real.records)
    assert images == {
        ("train", "NORMAL"): 1130, ("train", "BACTERIA"): 2111, ("train", "VIRUS"): 1172,
        ("test", "NORMAL"): 121, ("test", "BACTERIA"): 130, ("test", "VIRUS"): 68,
    }  # fmt: skip
    patients = {s: Counter(r.patient for r in real.records if r.split == s) for s in ("train", "test")}
    assert {s: len(p) for s, p in patients.items()} == {"train": 3101, "test": 218}
    assert sum(n > 1 for n in patients["train"].values()) == 545
    assert not patients["train"].keys() & patients["test"].keys()
    assert {(r.width, r.height, r.mode) for r in real.records} == {(224, 224, "RGB")}
    # Keyed by number alone, children of different causes would become one.
    numbers = Counter(p.split("_")[0] for p in patients["train"] if p.startswith("person"))
    assert max(numbers.values()) == 2


def test_kermany_groups(real: Manifest) -> None:
    nobody_crosses(real)
    counts = real.counts()
    for label in real.classes:
        total = sum(counts[g][label] for g in ("train", "judge", "reference"))
        patients = {g: {r.patient for r in real.records if (r.group, r.label) == (g, label)} for g in counts}
        people = sum(len(patients[g]) for g in ("train", "judge", "reference"))
        several = sum(n > 1 for n in Counter(r.patient for r in real.records if r.label == label).values())
        assert several > 0
        for group, share in (("train", 0.7), ("judge", 0.15), ("reference", 0.15)):
            assert counts[group][label] / total == pytest.approx(share, abs=0.003)
            assert len(patients[group]) / people == pytest.approx(share, abs=0.02)


def test_kermany_again_and_with_another_seed(real: Manifest, kermany_dir: Path) -> None:
    assert load_images(kermany_dir, 64, progress=False).manifest == real
    other = read_manifest(kermany_dir / "chest_xray", seed=1, progress=False)
    assert other.data_hash != real.data_hash
    assert other.content_hash == real.content_hash
    nobody_crosses(other)


def test_original_sizes_and_modes(kermany_dir: Path) -> None:
    manifest = read_manifest(kermany_dir / "originals", progress=False)
    assert Counter(r.label == "NORMAL" for r in manifest.records) == {True: 20, False: 52}
    assert {r.mode for r in manifest.records if r.label != "NORMAL"} == {"L", "RGB"}
    assert {r.mode for r in manifest.records if r.label == "NORMAL"} == {"L"}
    assert {r.group for r in manifest.records} == {"train", "judge", "reference", "test"}  # without a test folder


# --- made-up sets -----------------------------------------------------------------------------------------------------


def test_copies_join_their_patients(tree: Tree) -> None:
    root = tree(kermany_paths(20))
    normal = root / "chest_xray" / "train" / "NORMAL"
    for i in range(0, 18, 2):
        shutil.copy(normal / f"IM-{i:04}-0001.jpeg", normal / f"IM-{i + 1:04}-0009.jpeg")
    for seed in range(5):
        manifest = read_manifest(root, seed=seed, progress=False)
        nobody_crosses(manifest)
        assert len({r.group for r in manifest.records}) == 4
        assert {r.patient for r in manifest.records} >= {"IM-0000", "IM-0001"}  # joined for the deal alone


def test_copies_of_test_images_leave_the_training_set(tree: Tree) -> None:
    root = tree(kermany_paths(6))
    shutil.copy(root / "chest_xray/test/NORMAL/IM-1001-0001.jpeg", root / "chest_xray/train/NORMAL/IM-0004-0002.jpeg")
    with pytest.warns(UserWarning, match="2 training images show patients who are also in the test folder"):
        manifest = read_manifest(root, progress=False)
    nobody_crosses(manifest)
    assert {r.group for r in manifest.records if r.patient == "IM-0004"} == {"test"}


def test_one_file_under_two_labels_is_refused(tree: Tree) -> None:
    root = tree([f"{c}/{i}.png" for c in "ab" for i in range(5)])
    shutil.copy(root / "a" / "3.png", root / "b" / "copy.png")
    manifest = read_manifest(root, progress=False)
    assert {r.path: r.reason for r in manifest.rejected} == dict.fromkeys(
        ("a/3.png", "b/copy.png"), "the same file stands under a and b"
    )
    assert len(manifest.records) == 9


def test_every_bad_file_is_named(tree: Tree) -> None:
    root = tree([f"{c}/{i}.png" for c in "ab" for i in range(8)])
    (root / "a" / "empty.png").touch()
    (root / "a" / "notes.txt").write_text("not an image")
    (root / "b" / "cut.png").write_bytes((root / "b" / "1.png").read_bytes()[:-200])
    Image.new("L", (1, 1)).save(root / "b" / "tiny.png")
    Image.new("L", (64, 64)).save(root / "b" / "black.png")
    manifest = read_manifest(root, progress=False)
    assert [r.path for r in manifest.rejected] == [
        "a/empty.png",
        "a/notes.txt",
        "b/black.png",
        "b/cut.png",
        "b/tiny.png",
    ]
    assert len(manifest.records) == 16


def test_images_as_patients_are_warned_of_loudly(tree: Tree) -> None:
    root = tree([f"{c}/{i}.png" for c in "ab" for i in range(10)])
    with pytest.warns(UserWarning, match="EVERY IMAGE COUNTS AS A PATIENT"):
        manifest = read_manifest(root, progress=False)
    assert not manifest.patients_known
    assert Counter(r.group for r in manifest.records) == {"train": 12, "test": 4, "judge": 2, "reference": 2}


def test_known_patients_are_kept_together_without_a_warning(tree: Tree) -> None:
    root = tree([f"{c}/p{c}{i}_{k}.png" for c in "ab" for i in range(20) for k in range(i % 3 + 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        manifest = read_manifest(root, patient_regex=r"/(p\w\d+)_", progress=False)
    nobody_crosses(manifest)
    assert len({r.patient for r in manifest.records}) == 40


def test_the_time_of_creation_does_not_matter(tree: Tree) -> None:
    paths = [f"{c}/{i}.png" for c in "ab" for i in range(12)]
    one, two = tree(paths, root="one"), tree([], root="two")
    for path in reversed(paths):
        (two / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(one / path, two / path)
    assert read_manifest(one, progress=False).data_hash == read_manifest(two, progress=False).data_hash


def test_nothing_usable(tree: Tree, tmp_path: Path) -> None:
    root = tree([f"a/{i}.png" for i in range(3)])
    (root / "b").mkdir()
    with pytest.raises(DataError, match="class b has no image"):
        read_manifest(root, progress=False)
    (root / "b" / "x.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"class b has no usable image .*not an image that Pillow can read"):
        read_manifest(root, progress=False)
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match="holds no files"):
        read_manifest(tmp_path / "void")
    with pytest.raises(DataError, match="does not exist"):
        read_manifest(tmp_path / "none")
    with pytest.raises(InputError, match="fractions"):
        read_manifest(root, fractions=(1.0, 1.0, 1.0))


def test_fractions(tree: Tree) -> None:
    root = tree([f"{s}/{c}/{i}.png" for s in ("train", "test") for c in "ab" for i in range(10)])
    pixels = np.full((20, 20), 9, np.uint8)
    pixels[3] = 200
    for i in range(10):
        pixels[0, 0] = i
        Image.fromarray(pixels).save(root / "test" / "a" / f"{i}.png")
    manifest = read_manifest(root, fractions=(0.5, 0.5, 0), progress=False)
    assert Counter(r.group for r in manifest.records) == {"test": 20, "train": 10, "judge": 10}
