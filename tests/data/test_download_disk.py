"""The part on the disk: links, space, what others write, and going on after the process died."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import namedtuple
from pathlib import Path

import pytest
from misbehaving_server import BODY, Get, cut, home_of

from expressivegan.data.download import talk
from expressivegan.data.download.fetch import Fetch
from expressivegan.errors import DataError, InputError, OfflineError


def test_a_part_longer_than_the_file_is_dropped(get: Get) -> None:
    get.script.faults = [cut(1_500_000)]
    with pytest.raises(OfflineError):
        get(attempts=1)
    with get.part.open("ab") as file:
        file.write(bytes(5_000_000))
    assert get().read_bytes() == BODY


@pytest.mark.parametrize("kind", ["file", "nothing"])
def test_a_part_that_is_a_link_is_not_written_through(get: Get, tmp_path: Path, kind: str) -> None:
    get.out.mkdir(parents=True)
    target = tmp_path / "precious"
    if kind == "file":
        target.write_bytes(b"")
    get.part.symlink_to(target)
    with pytest.raises(DataError, match=r"set\.npz\.part is a link; remove it"):
        get()
    assert get.part.is_symlink()
    assert not target.exists() or target.read_bytes() == b""
    assert get.script.ranges == []


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="the platform cannot open without following")
def test_a_link_that_is_put_there_meanwhile(get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "precious").write_bytes(b"all")
    real = Fetch.check_encrypted

    def meddle(self: Fetch, urls: list[str]) -> None:
        self.part.unlink()
        self.part.symlink_to(tmp_path / "precious")
        real(self, urls)

    monkeypatch.setattr(Fetch, "check_encrypted", meddle)
    monkeypatch.setattr(Path, "is_symlink", lambda path: False)
    with pytest.raises(DataError, match="is a link"):
        get()
    assert (tmp_path / "precious").read_bytes() == b"all"


def test_a_part_of_another_url_is_dropped(get: Get) -> None:
    get.out.mkdir(parents=True)
    get.part.write_bytes(bytes(1000))
    (get.out / "set.npz.part.json").write_text(json.dumps({"url": "http://elsewhere/"}), "utf-8")
    assert get().read_bytes() == BODY
    assert get.script.ranges == [None]


def test_a_complete_part_needs_no_server(get: Get) -> None:
    get.script.faults = [cut(1_500_000)]
    with pytest.raises(OfflineError):
        get(attempts=1)
    get.part.write_bytes(BODY)
    asked = len(get.script.ranges)
    assert get().read_bytes() == BODY
    assert len(get.script.ranges) == asked


def test_too_little_space(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 50_000_000))
    with pytest.raises(DataError, match=r"has 50 MB free, and 103 MB are needed; make room"):
        get()
    assert get.script.ranges == []
    assert get.names() == set()


def test_space_that_others_take_on_the_way(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    free = iter([500, 500, *[110] * 5])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, next(free, 90) * 1_000_000))
    with pytest.raises(DataError, match=r"has 90 MB free, and 10\d MB are needed; make room"):
        get()
    assert 0 < get.part.stat().st_size < len(BODY)
    monkeypatch.undo()
    assert get().read_bytes() == BODY


def test_a_disk_that_fills_up_on_the_way(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, where every write says that the disk is full")
    get.out.mkdir(parents=True)
    monkeypatch.setattr(Fetch, "part", Path("/dev/full"))
    with pytest.raises(DataError, match=r"cannot write to /dev/full: No space left"):
        Fetch(home_of(get.url), get.out, False, 1, 5.0, get.waits.append, print).connect()


def test_a_folder_that_cannot_be_written(get: Get, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    get.out = tmp_path / "file" / "below"
    with pytest.raises(DataError, match=r"cannot write to .*choose another folder"):
        get()
    get.out = tmp_path / "file"
    with pytest.raises(InputError, match=r"out \(=.*is a file"):
        get()
    assert get.script.ranges == []


def test_ctrl_c_keeps_what_came(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk, "LINE_EVERY", 0.0)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if "ETA" in line and line.startswith("set.npz: 1."):
            raise KeyboardInterrupt

    monkeypatch.setattr(talk, "say", say)
    with pytest.raises(KeyboardInterrupt):
        get()
    kept = get.part.stat().st_size
    assert 900_000 < kept < len(BODY)
    monkeypatch.undo()
    assert get().read_bytes() == BODY
    assert get.script.ranges == [None, f"bytes={kept}-"]


def test_two_downloads_into_one_file_do_not_mix(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    def meddle(line: str) -> None:
        if "ETA" in line:
            with get.part.open("ab") as file:
                file.write(b"x")

    monkeypatch.setattr(talk, "LINE_EVERY", 0.0)
    monkeypatch.setattr(talk, "say", meddle)
    with pytest.raises(DataError, match="being written by another download"):
        get()


def test_killed_and_continued_in_another_process(get: Get) -> None:
    get.script.pace = 0.1
    home = home_of(get.url)
    program = textwrap.dedent(
        f"""
        from pathlib import Path
        from expressivegan.data import download as module
        module.download("set", {str(get.out)!r}, homes={{"set": module.{home!r}}})
        """
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, env={**os.environ})
    deadline = time.monotonic() + 120
    while not (get.part.exists() and get.part.stat().st_size >= 500_000):
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = get.part.stat().st_size
    assert not (get.out / "set.npz").exists()
    get.script.pace = 0.0
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Going on at" in done.stderr
    assert get.script.ranges == [None, f"bytes={kept}-"]
    assert (get.out / "set.npz").read_bytes() == BODY
