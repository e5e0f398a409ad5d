import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_trees import Tree

from expressivegan.data import cache, decode, growing, load_images, onepass, scan
from expressivegan.data.layout import Listing
from expressivegan.data.manifest import Manifest
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

        for name in ("inspect_and_fit", "load_pixels", "read_bytes"):
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


@pytest.mark.parametrize("harm", ["cut", "flip", "side", "shape", "empty", "version", "no version", "list"])
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
    elif harm == "list":
        path.with_suffix(".json").write_text("[]")
    elif harm in ("version", "no version"):
        said = json.loads(path.with_suffix(".json").read_text())
        said["version"] -= 1
        if harm == "no version":
            del said["version"]
        path.with_suffix(".json").write_text(json.dumps(said))
    else:
        said = json.loads(path.with_suffix(".json").read_text())
        path.with_suffix(".json").write_text(json.dumps(said | {"shape": [1, 2, 3]}))
    with pytest.warns(UserWarning, match="it is built anew"):
        again = load()
    assert (again == good).all()
    load()  # silent again


def test_another_version_gives_other_pixels(load: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    first = load().copy()
    real = decode._fitted
    for module in (cache, growing, onepass):
        monkeypatch.setattr(module, "VERSION", growing.VERSION + 1)
    monkeypatch.setattr(decode, "_fitted", lambda *a, **k: 255 - real(*a, **k))
    assert (load() == 255 - first).all()


def test_another_layout_reads_the_folder_again(
    load: Callable[..., np.ndarray], files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load()
    asked: list[Path] = []
    real = scan.layout.recognise
    monkeypatch.setattr(scan.layout, "recognise", lambda *a, **k: (asked.append(files), real(*a, **k))[1])
    load()
    assert asked == []
    monkeypatch.setattr(cache, "LAYOUT_VERSION", cache.LAYOUT_VERSION + 1)
    load()
    assert asked == [files]


def test_a_manifest_never_passes_for_that_of_another_listing(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes that read one folder for two sizes store the same manifest file, in any order of their steps."""
    root, key = cache.cache_root(tmp_path / "cache"), ("set",)
    old = load_images(files, 16, cache_dir=root, progress=False).manifest
    new = replace(old, records=old.records[1:])
    cache.remember(root, key, "old", old)
    (side,) = [p for p in (root / "manifests").glob("*.json") if "old" in p.read_text()]
    kept = side.read_bytes()
    cache.remember(root, key, "new", new)
    assert cache.recall(root, key, "new") == new
    side.write_bytes(kept)
    assert cache.recall(root, key, "old") is None

    real = cache.write_bytes

    def overtaken(path: Path, data: bytes) -> None:
        monkeypatch.setattr(cache, "write_bytes", real)
        cache.remember(root, key, "new", new)
        real(path, data)

    monkeypatch.setattr(cache, "write_bytes", overtaken)
    cache.remember(root, key, "old", old)
    assert cache.recall(root, key, "old") is None
    assert cache.recall(root, key, "new") is None

    cache.remember(root, key, "old", old)
    read = Manifest.read

    def replaced(path: Path) -> Manifest:
        cache.remember(root, key, "new", new)
        return read(path)

    monkeypatch.setattr(Manifest, "read", replaced)
    assert cache.recall(root, key, "old") is None


def test_what_is_refused_belongs_to_the_fingerprint() -> None:
    plain = Listing({"a/1.png": (5, 1)}, {"a"})
    assert cache.fingerprint(plain) != cache.fingerprint(replace(plain, refused={"../x.png": "leaves the archive"}))


def test_a_damaged_manifest_is_reread(load: Callable[..., np.ndarray], tmp_path: Path) -> None:
    good = load().copy()
    (path,) = (tmp_path / "cache" / "manifests").glob("*.jsonl")
    path.write_text(path.read_text()[:-200])
    assert (load() == good).all()


KILLED = """
import os, signal, sys
import numpy as np
from expressivegan.data import cache, growing

def rows(start):
    yield np.full((3, 512, 512), 7, np.uint8)
    yield np.full((64, 512, 512), 8, np.uint8)  # more than a note's worth
    yield np.full((2, 512, 512), 9, np.uint8)
    os.kill(os.getpid(), signal.SIGKILL)

cache.array(cache.cache_root(sys.argv[1]), "x", (70, 512, 512), rows)
"""


def whole() -> np.ndarray:
    return np.repeat(np.uint8([7, 8, 9, 10]), [3, 64, 2, 1])[:, None, None] * np.ones((512, 512), np.uint8)


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert sorted(p.name for p in (tmp_path / "arrays").iterdir()) == ["x.part", "x.rows"]
    return tmp_path


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a POSIX signal")
@pytest.mark.parametrize("harm", ["none", "torn note", "short", "flipped", "garbage", "other version"])
def test_a_killed_building_is_gone_on_with(killed: Path, harm: str) -> None:
    part, notes = killed / "arrays" / "x.part", killed / "arrays" / "x.rows"
    if harm == "torn note":
        notes.write_text(notes.read_text() + "[69, 12")
    elif harm == "short":
        os.truncate(part, 1 << 20)
    elif harm == "flipped":
        with part.open("r+b") as file:
            file.seek(1 << 20)
            file.write(b"\1")
    elif harm == "other version":
        version, *certain = json.loads(notes.read_text())
        notes.write_text(json.dumps([version - 1, *certain]) + "\n")
    elif harm == "garbage":
        notes.write_bytes(b"\xff{}[1]\n")
    asked = []

    def rows(start: int) -> list[np.ndarray]:
        asked.append(start)
        return [whole()[start:]]

    built = cache.array(killed, "x", (70, 512, 512), rows)
    assert (built == whole()).all()
    assert asked == [67 if harm in ("none", "torn note") else 0]
    assert sorted(p.name for p in (killed / "arrays").iterdir()) == ["x.json", "x.npy"]
    cache.array(cache.cache_root(killed / "other"), "x", (70, 512, 512), lambda _: [whole()])
    for name in ("x.json", "x.npy"):
        assert (killed / "arrays" / name).read_bytes() == (killed / "other" / "arrays" / name).read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a POSIX signal")
def test_what_nobody_goes_on_with_is_swept_after_a_while(killed: Path) -> None:
    part = killed / "arrays" / "x.part"
    old, listed = killed / "arrays" / "z.1.tmp", killed / "manifests" / ".z.jsonl.1.tmp"
    old.touch()
    listed.touch()
    ones = np.ones((2, 8, 8), np.uint8)

    def build(name: str, age_in_days: float) -> None:
        for left in (part, old, listed):
            if left.exists():
                os.utime(left, (time.time() - age_in_days * 86400,) * 2)
        cache.array(killed, name, ones.shape, lambda _: [ones])

    build("a", 0.5)
    assert (part.exists(), old.exists(), listed.exists()) == (True, True, True)
    build("b", 2)
    assert (part.exists(), old.exists(), listed.exists()) == (True, False, False)
    with cache.locked(killed, "x"):
        build("c", 30)
        assert part.exists()  # somebody is building on it
    build("d", 30)
    assert not part.exists()


def test_several_builders_at_once(tmp_path: Path) -> None:
    root = cache.cache_root(tmp_path)
    expected = np.random.default_rng(0).integers(0, 256, (40, 16, 16), dtype=np.uint8)

    built_by = []

    def rows(start: int) -> Iterator[np.ndarray]:
        built_by.append(start)
        for row in expected[start:]:
            time.sleep(0.001)
            yield row[None]

    with ThreadPoolExecutor(6) as pool:
        built = list(pool.map(lambda _: cache.array(root, "x", expected.shape, rows), range(6)))
    assert all((one == expected).all() for one in built)
    assert built_by == [0]  # the others waited
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


def test_a_full_disk_is_told_and_costs_nothing_that_was_done(tmp_path: Path) -> None:
    def rows(_: int) -> Iterator[np.ndarray]:
        yield np.zeros((70, 512, 512), np.uint8)
        raise OSError(28, "No space left on device")

    root = cache.cache_root(tmp_path)
    with pytest.raises(DataError, match="No space left on device"):
        cache.array(root, "x", (71, 512, 512), rows)
    asked = []

    def rest(start: int) -> list[np.ndarray]:
        asked.append(start)
        return [np.zeros((71 - start, 512, 512), np.uint8)]

    assert not cache.array(root, "x", (71, 512, 512), rest).any()
    assert asked == [70]


def test_space_is_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("usage", (), {"free": 1_000_000})())
    root = cache.cache_root(tmp_path)

    def rows(_: int) -> list[np.ndarray]:
        raise AssertionError("must not begin")

    with pytest.raises(
        DataError, match=r"cache_dir .* has 0\.00 GB free and x \(5000 images\) takes 0\.02 GB; free some"
    ):
        cache.array(root, "x", (5000, 64, 64), rows)


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
