from pathlib import Path

import numpy as np
import pytest
import torch
from data_trees import Tree, kermany_paths
from PIL import Image

from expressivegan.data import GROUPS, ImageSet, Manifest, decode, load_images, read_manifest
from expressivegan.errors import DataError, InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*EVERY IMAGE COUNTS AS A PATIENT")


@pytest.fixture
def images(tree: Tree) -> ImageSet:
    return load_images(tree(kermany_paths(12)), 24, progress=False)


def test_everything_has_one_index(images: ImageSet) -> None:
    n = len(images)
    assert images.images.shape == (n, 24, 24)
    assert images.images.dtype == np.uint8
    assert images.labels.dtype == np.int64
    for i, record in enumerate(images.manifest.records):
        assert images.classes[images.labels[i]] == record.label
        assert (images.patients[i], images.groups[i]) == (record.patient, record.group)
        file = Image.open(images.manifest.root / record.path).resize((24, 24), Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(file).astype(int) - images.images[i]).max() <= 1
    assert (images.classes, images.reference, images.masks) == (("NORMAL", "BACTERIA", "VIRUS"), 0, None)
    assert (images.resolution, images.fit) == (24, "stretch")


def test_groups_cover_the_set(images: ImageSet) -> None:
    parts = [images.indices(group) for group in GROUPS]
    assert (np.sort(np.concatenate(parts)) == np.arange(len(images))).all()
    assert all(part.dtype == np.int64 and len(part) for part in parts)
    parts[0][:] = -1  # what is handed out is the caller's own
    assert images.indices("train").min() >= 0
    with pytest.raises(InputError, match=r"group \(='valid'\) must be one of train, judge, reference, test"):
        images.indices("valid")


def test_batch(images: ImageSet) -> None:
    chosen = [5, 0, 5, len(images) - 1]
    x, y = images.batch(chosen)
    assert (x.shape, x.dtype, y.dtype) == ((4, 1, 24, 24), torch.float32, torch.int64)
    assert torch.equal(x[0], x[2])
    assert x.min() >= -1
    assert x.max() <= 1
    assert torch.equal(((x + 1) * 127.5).round().to(torch.uint8)[:, 0], torch.from_numpy(images.images[chosen]))
    assert y.tolist() == images.labels[chosen].tolist()
    for same in (np.array(chosen), torch.tensor(chosen)):
        assert torch.equal(images.batch(same)[0], x)


@pytest.mark.parametrize("wrong", [[-1], [10**6], [0.5], [[1]], [True]])
def test_wrong_indices(images: ImageSet, wrong: list[object]) -> None:
    with pytest.raises(InputError, match="indices"):
        images.batch(wrong)  # type: ignore[arg-type]


def test_a_saved_manifest_keeps_its_groups(tree: Tree, tmp_path: Path) -> None:
    root = tree(kermany_paths(12))
    manifest = read_manifest(root, seed=7, fractions=(0.5, 0.25, 0.25), progress=False)
    manifest.write(tmp_path / "set.jsonl")
    images = load_images(tmp_path / "set.jsonl", 16, progress=False)
    assert images.manifest == manifest == Manifest.read(tmp_path / "set.jsonl")
    assert images.data_hash == manifest.data_hash


def test_files_that_changed_since_are_not_used(tree: Tree, tmp_path: Path) -> None:
    root = tree(kermany_paths(12))
    read_manifest(root, progress=False).write(tmp_path / "set.jsonl")
    file = root / "chest_xray" / "train" / "NORMAL" / "IM-0003-0001.jpeg"
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(DataError, match=r"IM-0003-0001\.jpeg: its contents changed"):
        load_images(tmp_path / "set.jsonl", 16, cache_dir=tmp_path / "new", progress=False)
    file.unlink()
    with pytest.raises(DataError, match=r"IM-0003-0001\.jpeg: cannot be read"):
        load_images(tmp_path / "set.jsonl", 16, cache_dir=tmp_path / "new", progress=False)


def test_wrong_arguments(tmp_path: Path) -> None:
    for resolution in (8, 4096, 64.0, True):
        with pytest.raises(InputError, match="resolution"):
            load_images("phantom", resolution)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="fit"):
        load_images("phantom", 64, fit="squeeze")  # type: ignore[arg-type]
    for source in ("phantom:x", "phantom:", "phantom:3"):
        with pytest.raises(InputError, match="phantom:COUNT"):
            load_images(source, 64)
    with pytest.raises(DataError, match="does not exist"):
        load_images(tmp_path / "none", 64)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(DataError, match="no readable manifest"):
        load_images(tmp_path / "text", 64)


@pytest.mark.parametrize("told", [{"patient_regex": "(p)"}, {"classes": "NORMAL,VIRUS"}])
def test_what_a_source_has_told_is_not_asked_again(tree: Tree, tmp_path: Path, told: dict[str, str]) -> None:
    read_manifest(tree(kermany_paths(12)), progress=False).write(tmp_path / "set.jsonl")
    for source in (tmp_path / "set.jsonl", "phantom:30"):
        with pytest.raises(InputError, match=rf"{next(iter(told))} \(=.*changes nothing"):
            load_images(source, 16, progress=False, **told)  # type: ignore[arg-type]


def test_phantoms_are_a_source(tmp_path: Path) -> None:
    images = load_images("phantom:90", 32, progress=False)
    assert len(images) == 90
    assert images.masks is not None
    assert images.masks.shape == images.images.shape
    assert not images.masks[images.labels == images.reference].any()
    assert images.masks[images.labels != images.reference].any((1, 2)).all()
    assert {*images.groups} == {*GROUPS}
    assert len({*images.patients}) < 90
    images.manifest.write(tmp_path / "phantoms.jsonl")
    again = load_images(tmp_path / "phantoms.jsonl", 32, cache_dir=tmp_path, progress=False)
    assert (again.images == images.images).all()
    assert again.manifest == images.manifest
    other = load_images("phantom:90", 32, seed=1, progress=False)
    assert other.data_hash != images.data_hash
    assert (other.images != images.images).any((1, 2)).all()


def test_real_images(kermany_dir: Path) -> None:
    images = load_images(kermany_dir, 64, progress=False)
    assert len(images) == 4732
    # The heart is on the left, which is the right of the image; a mirrored or shuffled set would fail here.
    mean = images.images[images.labels == 0].mean(0)
    assert mean[34:44, 36:42].mean() > mean[34:44, 22:28].mean() + 10
    x, _ = images.batch(images.indices("judge"))
    assert 0.2 < x.std() < 0.7


def test_originals_agree_with_the_copies_that_others_made(kermany_dir: Path) -> None:
    """The set holds 224-pixel copies of these files, resized elsewhere: grey, draft and stretching must agree."""
    apart = []
    for path in sorted((kermany_dir / "originals").rglob("*.jpeg")):
        copy = kermany_dir / path.relative_to(kermany_dir / "originals")
        large, small = (decode.load_pixels(p.read_bytes(), 224, "stretch").astype(float) for p in (path, copy))
        apart.append(np.abs(large - small).mean())
    assert len(apart) == 72
    assert max(apart) < 6
    assert np.median(apart) < 2.5
