import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from data_trees import Tree

from expressivegan.data import cache, decode, load_images
from expressivegan.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:.*EVERY IMAGE COUNTS AS A PATIENT")
PATHS = [f"{c}/{i}.png" for c in "ab" for i in range(8)]


@pytest.fixture
def files(tree: Tree) -> Path:
    return tree(PATHS)


@pytest.fixture
def load(files: Path, tmp_path: Path) -> Callable[..., np.ndarray]:
    def loaded(resolution: int = 16, **options: object) -> np.ndarray:
        return load_images(files, resolution, cache_dir=tmp_path / "cache", progress=False, **options).images  # type: ignore[arg-type]

    return loaded


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def forbid() -> None:
        def refuse(*_: object) -> None:
            raise AssertionError("a warm start must not read images")

        for name in ("inspect", "load_pixels", "read_bytes"):
            monkeypatch.setattr(decode, name, refuse)

    return forbid


def arrays(tmp_path: Path, pattern: str = "*.npy") -> list[Path]:
    return sorted((tmp_path / "cache" / "arrays").glob(pattern))


def test_the_second_time_reads_no_image(load: Callable[..., np.ndarray], no_decoding: Callable[[], None]) -> None:
    first = load()
    no_decoding()
    second = load()
    assert (first == second).all()
    assert not second.flags.writeable


def test_another_deal_shares_the_pixels(load: Callable[..., np.ndarray], tmp_path: Path) -> None:
    load()
    load(seed=1)
    assert len(arrays(tmp_path)) == 1
    load(fit="pad")
    load(20)
    assert len(arrays(tmp_path)) == 3


def test_changed_files_are_noticed(load: Callable[..., np.ndarray], files: Path, tmp_path: Path) -> None:
    first = load()
    (files / "a" / "3.png").write_bytes((files / "b" / "5.png").read_bytes())
    (files / "b" / "5.png").unlink()
    second = load()
    assert len(first) == 16
    assert len(second) == 15
    assert len(arrays(tmp_path)) == 2


def test_a_touched_file_costs_a_scan_and_no_new_array(
    load: Callable[..., np.ndarray], files: Path, tmp_path: Path
) -> None:
    load()
    before = arrays(tmp_path)[0].stat().st_mtime_ns
    os.utime(files / "a" / "0.png", (1, 1))
    load()
    assert [p.stat().st_mtime_ns for p in arrays(tmp_path)] == [before]


@pytest.mark.parametrize("harm", ["cut", "flip", "side", "shape", "empty"])
def test_a_damaged_cache_is_rebuilt_with_a_warning(load: Callable[..., np.ndarray], tmp_path: Path, harm: str) -> None:
    good = load().copy()
    (path,) = arrays(tmp_path)
    data = bytearray(path.read_bytes())
    if harm == "cut":
        path.write_bytes(data[:-100])
    elif harm == "flip":
        data[-50] ^= 1
        path.write_bytes(data)
    elif harm == "empty":
        path.write_bytes(b"")
    elif harm == "side":
        path.with_suffix(".json").write_text("{")
    else:
        said = json.loads(path.with_suffix(".json").read_text())
        path.with_suffix(".json").write_text(json.dumps(said | {"shape": [1, 2, 3]}))
    with pytest.warns(UserWarning, match="it is built anew"):
        again = load()
    assert (again == good).all()
    load()  # silent again


def test_a_damaged_manifest_is_reread(load: Callable[..., np.ndarray], tmp_path: Path) -> None:
    good = load().copy()
    (path,) = (tmp_path / "cache" / "manifests").glob("*.jsonl")
    path.write_text(path.read_text()[:-200])
    assert (load() == good).all()


def test_an_interruption_leaves_nothing(
    load: Callable[..., np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    real = decode.load_pixels

    def interrupted(*arguments: object) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls > 5:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(decode, "load_pixels", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load()
    assert arrays(tmp_path, "*") == []
    monkeypatch.setattr(decode, "load_pixels", real)
    assert len(load()) == 16


KILLED = """
import os, signal, sys
import numpy as np
from expressivegan.data import cache

def rows():
    yield np.zeros((1, 8, 8), np.uint8)
    os.kill(os.getpid(), signal.SIGKILL)

cache.array(cache.cache_root(sys.argv[1]), "x", (2, 8, 8), rows)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a POSIX signal")
def test_a_killed_process_leaves_no_half_array(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = (tmp_path / "arrays").iterdir()
    assert left.suffix == ".tmp"
    ones = np.ones((2, 8, 8), np.uint8)
    assert (cache.array(tmp_path, "x", (2, 8, 8), lambda: [ones]) == 1).all()
    assert left.exists()  # another process might still be writing it ...
    os.utime(left, (1, 1))
    cache.array(tmp_path, "y", (2, 8, 8), lambda: [ones])
    assert not left.exists()  # ... but not a day later


def test_several_builders_at_once(tmp_path: Path) -> None:
    root = cache.cache_root(tmp_path)
    expected = np.random.default_rng(0).integers(0, 256, (40, 16, 16), dtype=np.uint8)

    def rows() -> Iterator[np.ndarray]:
        for row in expected:
            time.sleep(0.001)
            yield row[None]

    with ThreadPoolExecutor(6) as pool:
        built = list(pool.map(lambda _: cache.array(root, "x", expected.shape, rows), range(6)))
    assert all((one == expected).all() for one in built)
    assert sorted(p.name for p in (root / "arrays").iterdir()) == ["x.json", "x.npy"]


BUILDER = """
import sys
from expressivegan.data import load_images
print(load_images("phantom:60", 32, cache_dir=sys.argv[1], progress=False).images.sum())
"""


def test_two_processes_build_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILDER, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    said = {process.communicate()[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert said == {b"%d\n" % load_images("phantom:60", 32, cache_dir=tmp_path, progress=False).images.sum()}


def test_a_cache_that_cannot_be_made(files: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cache_dir .* cannot be written.*EXPRESSIVEGAN_CACHE"):
        load_images(files, 16, cache_dir=tmp_path / "file", progress=False)


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    def rows() -> Iterator[np.ndarray]:
        yield np.zeros((1, 8, 8), np.uint8)
        raise OSError(28, "No space left on device")

    root = cache.cache_root(tmp_path)
    with pytest.raises(DataError, match="No space left on device"):
        cache.array(root, "x", (2, 8, 8), rows)
    assert list((root / "arrays").iterdir()) == []


def test_where_the_cache_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPRESSIVEGAN_CACHE", str(tmp_path / "env"))
    assert cache.cache_root() == tmp_path / "env"
    assert cache.cache_root(tmp_path / "given") == tmp_path / "given"
    monkeypatch.delenv("EXPRESSIVEGAN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert cache.cache_root() == tmp_path / "expressivegan"


def test_warm_start_on_the_real_set(kermany_dir: Path, no_decoding: Callable[[], None]) -> None:
    first = load_images(kermany_dir, 64, progress=False)
    no_decoding()
    start = time.perf_counter()
    second = load_images(kermany_dir, 64, progress=False)
    assert time.perf_counter() - start < 1
    assert len(second) == 4732
    assert second.data_hash == first.data_hash
