"""All remedies together, from files to pixels, and the way back."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_manifests import paths

from expressivegan.data import Manifest, load_images, read_manifest
from expressivegan.data.fix import fix, same_files, undo


def encoded(pixels: "np.ndarray[Any, Any]") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_from_a_folder_to_repaired_pixels_and_back(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    files: dict[str, bytes] = {}
    for split, patients in [("train", range(12)), ("test", range(100, 104))]:
        for label in ("NORMAL", "SICK"):
            for p in patients:
                files[f"{split}/{label}/{label}{p}_1.png"] = encoded(noise.integers(80, 120, (64, 96)))
    marked = np.full((64, 96), 100)
    marked[4:10, 6:18] = 255
    marked[20:44, 40:60] = noise.integers(0, 60, (24, 20))
    files["train/NORMAL/NORMAL0_1.png"] = encoded(marked)
    files["train/SICK/SICK3_2.png"] = files["train/SICK/SICK3_1.png"]  # a copy
    files["train/SICK/SICK100_2.png"] = encoded(noise.integers(80, 120, (64, 64)))  # a leak
    for path, data in files.items():
        (tmp_path / "set" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / path).write_bytes(data)
    with pytest.warns(UserWarning, match="also in the test folder"):
        m = read_manifest(tmp_path / "set", patient_regex=r"/([A-Z]+\d+)_", progress=False)
    leaky = replace(  # as it would be, had nobody looked
        m, records=tuple(replace(r, split="train", group="train") if "SICK100_2" in r.path else r for r in m.records)
    )
    before = load_images_of(leaky, tmp_path)
    assert same_files(leaky) == [["train/SICK/SICK3_1.png", "train/SICK/SICK3_2.png"]]
    fixed = fix(
        leaky,
        duplicates=same_files(leaky),
        leaks=True,
        markers={"train/NORMAL/NORMAL0_1.png": [(6 / 96, 4 / 64, 18 / 96, 10 / 64)]},
        border=1 / 32,
        aspect=1.0,
    )
    fixed.write(tmp_path / "fixed.jsonl")
    again = Manifest.read(tmp_path / "fixed.jsonl")
    assert again == fixed
    after = load_images(tmp_path / "fixed.jsonl", 60, progress=False)
    assert len(after) == len(before) - 1
    assert after.manifest.counts()["test"]["SICK"] == before.manifest.counts()["test"]["SICK"] + 1
    where = paths(fixed).index("train/NORMAL/NORMAL0_1.png")
    painted = marked.copy()
    painted[4:10, 6:18] = 100
    middle = painted[2:62, 18:78]  # 1/32 off each side leaves 60 x 90, and the centre of that is 60 x 60
    assert np.array_equal(after.images[where], middle)
    assert {path: (tmp_path / "set" / path).read_bytes() for path in files} == files  # no image was touched
    undone = undo(again)
    assert undone == leaky
    assert undone.data_hash == leaky.data_hash
    assert np.array_equal(load_images_of(undone, tmp_path).images, before.images)


def load_images_of(manifest: Manifest, folder: Path) -> Any:
    manifest.write(folder / "temporary.jsonl")
    return load_images(folder / "temporary.jsonl", 60, progress=False)
