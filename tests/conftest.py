"""Fixtures that all tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import pytest
import torch

from command_line import Refused, call, tree
from expressivegan.data import ImageSet
from expressivegan.teacher import CXR_CAM_Teacher
from tiny import phantom_set, tiny_teacher

mpl.use("Agg")
torch.set_num_threads(1)  # tiny networks gain nothing from more, and lose much beside another job


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPRESSIVEGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def kermany_dir() -> Path:
    """The real chest X-rays: $EXPRESSIVEGAN_DATA, or ../shared/data beside the repository."""
    given = os.environ.get("EXPRESSIVEGAN_DATA")
    path = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (path / "chest_xray").is_dir():
        reason = f"no real data: {path} holds no chest_xray folder; set EXPRESSIVEGAN_DATA"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def phantoms(_own_cache: None) -> ImageSet:
    """120 phantoms at 32 px."""
    return phantom_set(120)


@pytest.fixture
def teacher() -> CXR_CAM_Teacher:
    """An unfitted compact teacher at 32 px, the same in every test."""
    return tiny_teacher()


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """refused(*argv): exit code 2, no traceback, nothing written; returns the sentence."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: object, lines: int = 1) -> str:
        before = tree(tmp_path)
        capsys.readouterr()
        assert call(*argv) == 2
        assert tree(tmp_path) == before, "something was written"
        said = capsys.readouterr()
        assert "Traceback" not in said.err + said.out
        last = said.err.splitlines()[-lines:]
        assert last[0].startswith("expressivegan: "), said.err
        if lines == 1 and len(said.err.splitlines()) > 1:  # what the data hold may stand above
            assert "phantom" in said.err
        return last[0]

    return run
