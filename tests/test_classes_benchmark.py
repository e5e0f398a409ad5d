"""Several classifiers on the labels of made images."""

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmark_module import benchmark
from expressivegan.checkpoint import save_model
from expressivegan.errors import InputError
from tiny import tiny_generator

classes = benchmark("classes")


def test_one_label_in_ten_is_wrong_in_every_class() -> None:
    labels = np.repeat([0, 1, 2], [10, 20, 35])
    wrong = classes.mislabelled(labels, 3)
    assert [(wrong[labels == k] != k).sum() for k in range(3)] == [1, 2, 4]
    assert set(wrong[(labels == 2) & (wrong != 2)]) == {0}
    assert (labels == np.repeat([0, 1, 2], [10, 20, 35])).all()  # the given ones are left as they are


@pytest.mark.parametrize("options", [["--judges", "1"], ["--num", "3"]])
def test_too_few_are_refused(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["classes.py", "--data", "phantom:60", "--model", str(tmp_path), *options])
    with pytest.raises(InputError, match=options[0]):
        classes.main()


def test_models_of_another_size_are_refused(tmp_path: Path) -> None:
    models = [tmp_path / "a", tmp_path / "b"]
    for path, size in zip(models, (32, 64), strict=True):
        save_model(tiny_generator(resolution=size), path, "card")
    with pytest.raises(InputError, match="another size"):
        classes.open_data(models, "phantom:60", True)
