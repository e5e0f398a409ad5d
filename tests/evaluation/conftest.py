"""The whole evaluation of honest images, done once."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from short_evaluations import SIDE, honest, judged

from expressivegan.data import ImageSet, load_images


@pytest.fixture(scope="session")
def real_set() -> ImageSet:
    return load_images("phantom:500", SIDE, progress=False)


@pytest.fixture(scope="session")
def fit_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="session")
def results_schema() -> Draft202012Validator:
    text = resources.files("expressivegan.evaluation").joinpath("results.schema.json").read_text("utf-8")
    Draft202012Validator.check_schema(json.loads(text))
    return Draft202012Validator(json.loads(text))


@pytest.fixture(scope="session")
def honest_run(
    real_set: ImageSet, fit_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("out")
    return judged(real_set, honest(), fit_cache).run(out), out
