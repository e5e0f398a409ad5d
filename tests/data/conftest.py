"""Small folders of images."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from data_trees import Tree
from PIL import Image


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """tree(paths, root="set") writes one image of noise per path, all different, and returns their folder."""

    def make(paths: Iterable[str], root: str = "set", side: int = 24) -> Path:
        folder = tmp_path / root
        for number, path in enumerate(paths):
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (side, side + 4), dtype=np.uint8)
            Image.fromarray(pixels).save(file)
        return folder

    return make
