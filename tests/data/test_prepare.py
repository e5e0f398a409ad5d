import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_trees import Tree
from PIL import Image

from expressivegan.data import decode, examine, load_images, onepass
from expressivegan.data.manifest import Manifest
from expressivegan.data.prepare import prepare
from expressivegan.errors import DataError, InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*EVERY IMAGE COUNTS AS A PATIENT")
RESOLUTIONS = (16, 33)
PATHS = [f"{c}/{i:03}.{kind}" for c in "ab" for i, kind in enumerate(["png", "jpeg", "bmp"] * 30)]


@pytest.fixture
def files(tree: Tree) -> Path:
    folder = tree(PATHS)
    (folder / "a" / "004.jpeg").write_bytes((folder / "a" / "001.jpeg").read_bytes()[:-200])
    Image.new("L", (40, 40), 9).save(folder / "b" / "005.bmp")
    return folder


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "_FILES", 4)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read since the list was emptied."""
    names: list[str] = []
    real = decode.read_bytes

    def read(path: Path) -> bytes:
        names.append(f"{path.parent.name}/{path.name}")
        return real(path)

    monkeypatch.setattr(decode, "read_bytes", read)
    return names


def quietly(files: Path, cache: Path, resolutions: tuple[int, ...] = RESOLUTIONS) -> Manifest:
    return prepare(files, resolutions, cache_dir=cache, progress=False).manifest


def stored(cache: Path) -> dict[str, bytes]:
    """What users of the cache see."""
    return {p.name: p.read_bytes() for folder in ("arrays", "manifests") for p in (cache / folder).iterdir()}


def expect_fresh(files: Path, cache: Path, fresh: Path) -> None:
    """The arrays of the folder as it is now are those that an undisturbed run in an empty cache makes."""
    known = quietly(files, fresh)
    for resolution in RESOLUTIONS:
        for end in (".npy", ".json"):
            name = onepass.array_name(known, (resolution, "stretch")) + end
            assert (cache / "arrays" / name).read_bytes() == (fresh / "arrays" / name).read_bytes()
        expected = [
            decode.load_pixels((known.root / r.path).read_bytes(), resolution, "stretch") for r in known.records
        ]
        images = load_images(files, resolution, cache_dir=cache, progress=False)
        assert (images.images == np.stack(expected)).all()
        assert images.manifest == known


def test_each_file_is_read_once(files: Path, tmp_path: Path, opened: list[str]) -> None:
    done = prepare(files, RESOLUTIONS, cache_dir=tmp_path / "cache", progress=False)
    assert sorted(opened) == sorted(PATHS)
    assert (done.images, done.rejected) == (178, 2)
    assert done.bytes == 178 * (16**2 + 33**2)
    assert re.search(r"178 images at 16 px, 33 px \(stretch\), 2 files rejected, 0\.2 MB .* images/s", str(done))
    opened.clear()
    for resolution in RESOLUTIONS:
        load_images(files, resolution, cache_dir=tmp_path / "cache", progress=False)
    assert opened == []
    assert not list((tmp_path / "cache").rglob("*.part"))
    expect_fresh(files, tmp_path / "cache", tmp_path / "fresh")


def test_loading_reads_once_too(files: Path, tmp_path: Path, opened: list[str]) -> None:
    load_images(files, 16, cache_dir=tmp_path / "cache", progress=False)
    assert sorted(opened) == sorted(PATHS)


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_sizes_are_what_load_images_makes_of_them(tree: Tree, tmp_path: Path, fit: decode.Fit) -> None:
    folder = tree([f"{c}/{i}.jpeg" for c in "ab" for i in range(6)], side=520)
    wanted = (16, 24, 65, 130, 257)  # decoded at an eighth, an eighth, a quarter, a half, and in full
    prepare(folder, wanted, fit=fit, cache_dir=tmp_path / "all", progress=False)
    for resolution in wanted:
        alone = load_images(folder, resolution, fit=fit, cache_dir=tmp_path / f"{resolution}", progress=False)
        together = load_images(folder, resolution, fit=fit, cache_dir=tmp_path / "all", progress=False)
        direct = [decode.load_pixels((alone.manifest.root / r.path).read_bytes(), resolution, fit)
                  for r in alone.manifest.records]  # fmt: skip
        assert (alone.images == together.images).all()
        assert (alone.images == np.stack(direct)).all()


def test_a_copy_under_two_labels_costs_no_second_decoding(files: Path, tmp_path: Path, opened: list[str]) -> None:
    shutil.copy(files / "a" / "010.jpeg", files / "b" / "500.jpeg")
    known = quietly(files, tmp_path / "cache")
    assert len(opened) == len(PATHS) + 1
    assert [r.path for r in known.rejected if "stands under" in r.reason] == ["a/010.jpeg", "b/500.jpeg"]
    expect_fresh(files, tmp_path / "cache", tmp_path / "fresh")


def test_a_folder_that_has_changed_is_read_where_it_has(files: Path, tmp_path: Path, opened: list[str]) -> None:
    cache = tmp_path / "cache"
    quietly(files, cache)
    for step in range(3):
        changed = {f"a/{step}-new.png", f"b/{step}-new.png", f"b/02{step}.bmp"} - {"b/020.bmp"}
        for number, name in enumerate(sorted(changed)):
            pixels = np.random.default_rng([step, number]).integers(0, 256, (30, 30), dtype=np.uint8)
            Image.fromarray(pixels).save(files / name)
        (files / "a" / f"03{step}.png").unlink(missing_ok=True)
        opened.clear()
        quietly(files, cache)
        assert sorted(opened) == sorted(changed)
        expect_fresh(files, cache, tmp_path / f"fresh{step}")


@pytest.mark.skipif(sys.platform == "win32", reason="has no time of status")
def test_a_file_replaced_under_its_size_and_time_is_read_again(files: Path, tmp_path: Path, opened: list[str]) -> None:
    def put(value: int) -> None:
        pixels = np.full((40, 40), value, np.uint8)
        pixels[0] = 255 - value
        Image.fromarray(pixels).save(files / "a" / "002.bmp")
        os.utime(files / "a" / "002.bmp", (10**9, 10**9))

    put(50)
    quietly(files, tmp_path / "cache")
    opened.clear()
    time.sleep(0.05)  # the system's clock for files may tick only so often
    put(60)
    quietly(files, tmp_path / "cache")
    assert opened == ["a/002.bmp"]
    expect_fresh(files, tmp_path / "cache", tmp_path / "fresh")


def test_what_a_killed_copy_left_is_removed(files: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    quietly(files, cache)
    folder = pass_folder(cache)
    for name in ("0123-16-stretch.89abcdef.copy", "journal.copy"):
        (folder / name).write_bytes(bytes(5000))
    (files / "a" / "007.jpeg").unlink()
    quietly(files, cache)
    assert [p.name for p in folder.iterdir()] == ["journal.jsonl"]
    expect_fresh(files, cache, tmp_path / "fresh")


def test_a_cache_that_lost_its_arrays_is_made_anew(files: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    quietly(files, cache)
    for path in (cache / "arrays").iterdir():
        path.unlink()
    (files / "a" / "999.png").write_bytes((files / "a" / "000.png").read_bytes())
    quietly(files, cache)
    expect_fresh(files, cache, tmp_path / "fresh")


@pytest.fixture
def interrupted(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Path]:
    """interrupted(n) is a cache whose making was broken off by Ctrl-C at the n-th chunk."""

    def make(chunk: int) -> Path:
        real, calls = onepass.OnePass.commit, 0

        def commit(self: onepass.OnePass, *arguments: object) -> list[int]:
            nonlocal calls
            calls += 1
            if calls == chunk:
                raise KeyboardInterrupt
            return real(self, *arguments)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(onepass.OnePass, "commit", commit)
            with pytest.raises(KeyboardInterrupt):
                quietly(files, tmp_path / "cache")
        return tmp_path / "cache"

    return make


def pass_folder(cache: Path) -> Path:
    (folder,) = (cache / "passes").iterdir()
    return folder


@pytest.mark.parametrize("chunk", [1, 2, 20, 45])
def test_an_interruption_is_gone_on_with(
    interrupted: Callable[[int], Path], files: Path, tmp_path: Path, opened: list[str], chunk: int
) -> None:
    cache = interrupted(chunk)
    assert stored(cache) == {}
    opened.clear()
    quietly(files, cache)
    assert sorted(opened) == sorted(PATHS)[4 * (chunk - 1) :]
    expect_fresh(files, cache, tmp_path / "fresh")


@pytest.mark.parametrize(
    "harm", ["torn", "short", "shorter", "long", "flipped", "no pixels", "empty", "garbage", "other"]
)
def test_what_an_interruption_left_is_not_trusted(
    interrupted: Callable[[int], Path], files: Path, tmp_path: Path, opened: list[str], harm: str
) -> None:
    cache = interrupted(30)
    folder = pass_folder(cache)
    journal, part = folder / "journal.jsonl", folder / "33-stretch.0.part"
    size, kept = part.stat().st_size, 29 * 4
    if harm == "torn":
        os.truncate(journal, journal.stat().st_size - 30)
        kept -= 4
    elif harm == "short":
        os.truncate(part, size - 1)
        kept -= 4
    elif harm == "shorter":
        os.truncate(part, 128 + 33**2 * 11 + 5)
        kept = 8  # a/004.jpeg is rejected: the third chunk ends with row 11, and needs all of it
        kept += 4
    elif harm == "long":
        with part.open("ab") as file:
            file.write(b"x" * 5000)
    elif harm == "flipped":
        with part.open("r+b") as file:
            file.seek(size - 5)
            byte = file.read(1)[0]
            file.seek(size - 5)
            file.write(bytes([byte ^ 1]))
        kept -= 4
    elif harm == "no pixels":
        part.unlink()
        kept = 0
    elif harm == "empty":
        journal.write_bytes(b"")
        kept = 0
    elif harm == "garbage":
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join([*lines[:11], b"\0" * 900 + b"\n", *lines[12:]]))
        kept = 40
    else:
        header, _, rest = journal.read_text().partition("\n")
        journal.write_text(json.dumps(json.loads(header) | {"version": 0}) + "\n" + rest)
        kept = 0
    opened.clear()
    quietly(files, cache)
    assert sorted(opened) == sorted(PATHS)[kept:]
    expect_fresh(files, cache, tmp_path / "fresh")


def test_files_that_change_between_the_runs(
    interrupted: Callable[[int], Path], files: Path, tmp_path: Path, opened: list[str]
) -> None:
    cache = interrupted(30)
    (files / "a" / "000.png").unlink()
    (files / "a" / "003.png").write_bytes((files / "b" / "003.png").read_bytes() + b" ")
    (files / "a" / "0000.png").write_bytes((files / "b" / "006.png").read_bytes() + b" ")
    opened.clear()
    quietly(files, cache)
    assert sorted(opened) == sorted(["a/003.png", "a/0000.png", *sorted(PATHS)[29 * 4 :]])
    expect_fresh(files, cache, tmp_path / "fresh")


@pytest.mark.parametrize("step", ["finish", "replace", "rewrite", "remember"])
def test_an_interruption_at_the_very_end(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[str], step: str
) -> None:
    """Between the arrays, between array and journal, between journal and manifest."""
    cache = tmp_path / "cache"
    if step == "rewrite":
        shutil.copy(files / "a" / "010.jpeg", files / "b" / "500.jpeg")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step == "finish":
            real, calls = onepass.Growing.finish, []

            def finish(self: onepass.Growing, final: Path) -> None:
                if calls:
                    raise KeyboardInterrupt
                calls.append(final)
                real(self, final)

            patch.setattr(onepass.Growing, "finish", finish)
        elif step == "replace":
            patch.setattr(onepass.OnePass, "_complete_move", stop)
        elif step == "rewrite":
            patch.setattr(onepass.OnePass, "_rewrite_journal", stop)
        else:
            patch.setattr(onepass.cache, "remember", stop)
        with pytest.raises(KeyboardInterrupt):
            quietly(files, cache)
    opened.clear()
    quietly(files, cache)
    assert opened == []
    expect_fresh(files, cache, tmp_path / "fresh")


RUN = """
import sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from expressivegan.data import examine, prepare as _, decode
from expressivegan.data.prepare import prepare
examine._FILES = 4
real = decode.read_bytes
def slow(path):
    time.sleep(float(sys.argv[3]))
    return real(path)
decode.read_bytes = slow
print("ready", flush=True)
print(prepare(sys.argv[1], (16, 33), cache_dir=Path(sys.argv[2]), progress=False).manifest.data_hash)
"""


def start(files: Path, cache: Path, delay: float) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", RUN, str(files), str(cache), str(delay)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a POSIX signal")
def test_kills_at_any_moment(files: Path, tmp_path: Path, opened: list[str]) -> None:
    cache = tmp_path / "cache"
    done = 0
    for wait in (0.0, 0.15, 0.3, 0.3):
        process = start(files, cache, 0.008)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        journals = list((cache / "passes").glob("*/journal.jsonl"))
        lines = journals[0].read_bytes().count(b"\n") if journals else 0
        assert lines >= done
        done = lines
    assert done > 4
    opened.clear()
    quietly(files, cache)
    assert len(opened) <= len(PATHS) - 4 * (done - 1)
    expect_fresh(files, cache, tmp_path / "fresh")


def test_two_processes_prepare_the_same(files: Path, tmp_path: Path) -> None:
    both = [start(files, tmp_path / "cache", 0.002) for _ in range(2)]
    said = {process.communicate()[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(said) == 1
    expect_fresh(files, tmp_path / "cache", tmp_path / "fresh")


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a POSIX signal")
def test_whoever_waits_for_a_killed_process_takes_over(files: Path, tmp_path: Path) -> None:
    first = start(files, tmp_path / "cache", 0.05)
    assert first.stdout is not None
    first.stdout.readline()
    while not list((tmp_path / "cache" / "passes").glob("*/journal.jsonl")):
        time.sleep(0.01)
    second = start(files, tmp_path / "cache", 0.0)
    assert second.stdout is not None
    second.stdout.readline()
    time.sleep(0.2)
    assert second.poll() is None
    first.kill()
    first.communicate()
    second.communicate(timeout=60)
    assert second.returncode == 0
    expect_fresh(files, tmp_path / "cache", tmp_path / "fresh")


def test_space_is_looked_at_before_anything_is_decoded(
    files: Path, tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("usage", (), {"free": 500_000_000})())
    with pytest.raises(DataError, match=r"cache_dir .* has 0\.50 GB free and .* 180 images takes 0\.75 GB; free some"):
        quietly(files, tmp_path / "cache", (2048,))
    assert opened == []


def test_phantoms_and_saved_manifests_are_prepared(files: Path, tmp_path: Path) -> None:
    done = prepare("phantom:30", (28, 32), cache_dir=tmp_path / "cache", progress=False)
    assert (done.images, done.bytes) == (30, 30 * 2 * (28**2 + 32**2))
    quietly(files, tmp_path / "cache").write(tmp_path / "set.jsonl")
    again = prepare(tmp_path / "set.jsonl", (20,), cache_dir=tmp_path / "cache", progress=False)
    assert again.bytes == 178 * 20**2


@pytest.mark.parametrize("wrong", [(), "64", (8,), (64, 4096), (64.0,), 64])
def test_wrong_sizes(tmp_path: Path, wrong: object) -> None:
    with pytest.raises(InputError, match="resolution"):
        prepare("phantom:30", wrong, cache_dir=tmp_path)  # type: ignore[arg-type]
