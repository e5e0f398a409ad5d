import io
import tracemalloc
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expressivegan.data import arrays, read_manifest
from expressivegan.data.decode import load_pixels
from expressivegan.data.layout.medmnist import NAMES
from expressivegan.data.store import open_store
from expressivegan.errors import DataError, InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*EVERY IMAGE COUNTS AS A PATIENT")
SIZES = {"train": 40, "val": 12, "test": 16}


def arrays_of(shape: tuple[int, ...] = (28, 28), findings: int = 1) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for split, count in SIZES.items():
        made[f"{split}_images"] = draw.integers(0, 256, (count, *shape), dtype=np.uint8)
        labels = np.arange(count)[:, None] % 2 if findings == 1 else draw.random((count, findings)) < 1.5 / findings
        made[f"{split}_labels"] = labels.astype(np.uint8)
    return made


def saved(path: Path, content: dict[str, Any], packed: bool = True) -> Path:
    (np.savez_compressed if packed else np.savez)(path, **content)
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", [(28, 28), (64, 64), (28, 28, 3)])
def test_every_row_is_a_picture(tmp_path: Path, shape: tuple[int, ...], packed: bool) -> None:
    content = arrays_of(shape)
    manifest = read_manifest(saved(tmp_path / "pneumoniamnist.npz", content, packed), progress=False)
    assert (manifest.source, manifest.classes, manifest.reference_class) == (
        "medmnist", ("normal", "pneumonia"), "normal",
    )  # fmt: skip
    assert not manifest.patients_known
    assert Counter(r.official for r in manifest.records) == SIZES
    assert {r.group for r in manifest.records if r.official == "test"} == {"test"}
    assert {r.group for r in manifest.records if r.official != "test"} == {"train", "judge", "reference"}
    store = open_store(manifest.root)
    for record in manifest.records:
        split, number = record.path.split("/")
        i = int(number.partition(".")[0])
        assert record.label == ("normal", "pneumonia")[int(content[f"{split}_labels"][i, 0])]
        got = load_pixels(store.read(record.path), shape[0], "stretch")
        expected = content[f"{split}_images"][i]
        if len(shape) == 2:
            assert (got == expected).all()
        else:
            assert np.abs(got - expected @ [0.299, 0.587, 0.114]).max() <= 1


def test_the_labels_names_are_the_published_ones() -> None:
    info = pytest.importorskip("medmnist.info").INFO
    assert {flag: tuple(info[flag]["label"].values()) for flag in NAMES} == NAMES


def test_several_findings_need_a_rule(tmp_path: Path) -> None:
    content = arrays_of(findings=14)
    path = saved(tmp_path / "chestmnist_64.npz", content)
    with pytest.raises(InputError, match=r"classes \(=None\) .* effusion \(\d+\).*try classes="):
        read_manifest(path, progress=False)
    manifest = read_manifest(path, classes="NORMAL,Chest=Mass|nodule", progress=False)
    assert manifest.classes == ("NORMAL", "Chest")
    rows = np.concatenate([content[f"{s}_labels"] for s in SIZES])
    counts = Counter(r.label for r in manifest.records)
    assert counts == {"NORMAL": (rows.sum(1) == 0).sum(), "Chest": rows[:, 4:6].any(1).sum()}
    assert len(manifest.records) + len(manifest.rejected) == len(rows)


def test_an_unknown_set_has_numbers_for_classes(tmp_path: Path) -> None:
    content = arrays_of()
    content["train_labels"][3] = 10
    path = saved(tmp_path / "mine.npz", content)
    assert read_manifest(path, progress=False).classes == ("0", "1", "10")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"val_images": None}, "has no array val_images"),
        ({"train_images": np.array([[1, "a"]], object)}, "Python objects, which are never loaded"),
        ({"test_labels": np.array([{}] * 16, object)}, "Python objects, which are never loaded"),
        ({"test_labels": np.zeros((15, 1), np.uint8)}, "16 images but 15 labels"),
        ({"train_images": np.zeros((40, 28, 28), np.float32)}, "must be uint8"),
        ({"train_images": np.zeros((40, 28, 28, 28), np.uint8)}, "must be uint8"),
        ({"train_images": np.asfortranarray(np.zeros((40, 28, 28), np.uint8))}, "ascontiguousarray"),
        ({"train_labels": np.zeros((40, 1), np.float32)}, "must be integers"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, change: dict[str, Any], match: str) -> None:
    content = {k: v for k, v in (arrays_of() | change).items() if v is not None}
    with pytest.raises(DataError, match=match):
        read_manifest(saved(tmp_path / "set.npz", content), progress=False)


def test_a_shape_that_lies_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "set.npz", arrays_of())
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "lies.npz", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"(40, 28, 28)", b"(90, 99, 99)"))
    with pytest.raises(DataError, match="does not have the size that its shape"):
        read_manifest(tmp_path / "lies.npz", progress=False)


def test_a_damaged_array_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path / "set.npz", arrays_of(), packed=False)
    data = bytearray(path.read_bytes())
    data[data.index(b"train_images.npy") + 5000] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"train_images.npy is damaged in the archive \(CRC\)"):
        read_manifest(path, progress=False)


@pytest.mark.parametrize("packed", [False, True])
def test_rows_come_in_any_order_from_any_thread_within_little_memory(tmp_path: Path, packed: bool) -> None:
    """60 MB of pictures, a few chunks of 2 MiB in memory."""
    images = np.zeros((1200, 224, 224), np.uint8)
    images += np.arange(1200, dtype=np.uint16)[:, None, None].astype(np.uint8)
    images[:, 0, 0] = np.arange(1200) // 256
    content = arrays_of((224, 224)) | {"train_images": images, "train_labels": np.zeros((1200, 1), np.uint8)}
    path = saved(tmp_path / "set.npz", content, packed)
    expected = [(int(i // 256), int(i % 256)) for i in range(1200)]
    content.clear()
    del images
    order = [int(i) for i in np.random.default_rng(1).permutation(1200)[:150]]
    order += list(range(1200))

    def row(i: int) -> tuple[int, int]:
        data = store.read(f"train/{i:06}.pgm")
        pixels = np.frombuffer(data[-224 * 224 :], np.uint8)
        return int(pixels[0]), int(pixels[1])

    tracemalloc.start()
    store = open_store(path)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(row, order)) == [expected[i] for i in order]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (arrays._KEPT_CHUNKS + 6) * arrays._CHUNK_BYTES + 8e6


def test_bytes_of_labels_are_numpys(tmp_path: Path) -> None:
    content = arrays_of()
    store = open_store(saved(tmp_path / "set.npz", content))
    read = np.load(io.BytesIO(store.read("val_labels.npy")), allow_pickle=False)
    assert (read == content["val_labels"]).all()
