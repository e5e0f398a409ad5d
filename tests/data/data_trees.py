"""Names of files, as data sets lay them out."""

from collections.abc import Callable
from pathlib import Path

Tree = Callable[..., Path]


def kermany_paths(patients: int = 12) -> list[str]:
    """As Kaggle lays it out, two images for every third patient."""
    paths = []
    for split in ("train", "test"):
        base = 0 if split == "train" else 1000
        for i in range(base, base + patients):
            for image in range(2 if i % 3 == 0 else 1):
                paths += [
                    f"chest_xray/{split}/NORMAL/IM-{i:04}-000{image + 1}.jpeg",
                    f"chest_xray/{split}/PNEUMONIA/person{i}_bacteria_{i * 2 + image}.jpeg",
                    f"chest_xray/{split}/PNEUMONIA/person{i}_virus_{i * 2 + image}.jpeg",
                ]
    return paths
