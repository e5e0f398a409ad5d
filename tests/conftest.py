"""Fixtures that all tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


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
