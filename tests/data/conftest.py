"""Small folders of images, and a server that misbehaves on purpose."""

import threading
from collections.abc import Iterable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from data_trees import Tree
from misbehaving_server import Get, Handler, Script
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


@pytest.fixture
def server() -> Iterator[tuple[str, Script]]:
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.handle_error = lambda *a: None  # type: ignore[method-assign]  # the client hangs up in some tests
    running.script = script = Script()  # type: ignore[attr-defined]
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/file", script
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def get(server: tuple[str, Script], tmp_path: Path) -> Get:
    return Get(*server, tmp_path / "new" / "folder")
