"""Against a real HTTP server that misbehaves on purpose."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from expressivegan.data.download import HOMES, Home, download, talk
from expressivegan.data.download.fetch import Fetch
from expressivegan.errors import DataError, InputError, OfflineError

BODY = np.random.default_rng(0).bytes(3_000_000)
Fault = Callable[["Handler"], bool]
"""Answers a request in its own way and returns True, or False for the right answer."""


@dataclass
class Script:
    """What the server does: the first request meets the first fault, and so on; after them all goes well."""

    body: bytes = BODY
    etag: str | None = '"one"'
    modified: str | None = None
    faults: list[Fault] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    encodings: set[str] = field(default_factory=set)
    pace: float = 0.0  # seconds a chunk of 100 kB


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass

    @property
    def script(self) -> Script:
        return self.server.script  # type: ignore[attr-defined]

    def do_GET(self) -> None:
        if self.path == "/moved":
            self.answer(302, {"Location": "/file", "Content-Length": "0"})
            return
        self.script.ranges.append(self.headers.get("Range"))
        self.script.encodings.add(self.headers.get("Accept-Encoding", ""))
        fault = self.script.faults.pop(0) if self.script.faults else None
        if fault is None or not fault(self):
            self.right()

    def answer(self, code: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.script.etag and code in (200, 206):
            self.send_header("ETag", self.script.etag)
        if self.script.modified and code in (200, 206):
            self.send_header("Last-Modified", self.script.modified)
        self.end_headers()
        for i in range(0, len(body), 100_000):
            self.wfile.write(body[i : i + 100_000])
            time.sleep(self.script.pace)

    def right(self, cut: int | None = None) -> None:
        """Everything from the byte that was asked for, or `cut` bytes of it before the connection drops."""
        body, wanted, condition = self.script.body, self.headers.get("Range"), self.headers.get("If-Range")
        if wanted is None or (condition is not None and condition not in (self.script.etag, self.script.modified)):
            self.answer(200, {"Content-Length": str(len(body))}, body[:cut])
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(body):
            self.answer(416, {"Content-Range": f"bytes */{len(body)}", "Content-Length": "0"})
            return
        span = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
        rest = body[start:]
        self.answer(206, {**span, "Content-Length": str(len(rest))}, rest if cut is None else rest[:cut])


def cut(after: int) -> Fault:
    def fault(handler: Handler) -> bool:
        handler.right(after)
        return True

    return fault


def code(number: int, **headers: str) -> Fault:
    def fault(handler: Handler) -> bool:
        handler.answer(number, {"Content-Length": "0", **{k.replace("_", "-"): v for k, v in headers.items()}})
        return True

    return fault


def whole_whatever_is_asked(handler: Handler) -> bool:
    handler.answer(200, {"Content-Length": str(len(handler.script.body))}, handler.script.body)
    return True


def other_bytes(handler: Handler) -> bool:
    handler.answer(200, {"Content-Length": str(len(BODY))}, bytes(len(BODY)))
    return True


def length(announced: int) -> Fault:
    def fault(handler: Handler) -> bool:
        handler.answer(200, {"Content-Length": str(announced)}, BODY[:announced])
        return True

    return fault


def endless(handler: Handler) -> bool:
    """Chunks without an announced length, as long as anybody listens."""
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.close_connection = True
    for _ in range(400):
        handler.wfile.write(b"%x\r\n%s\r\n" % (100_000, bytes(100_000)))
    return True


def silent(seconds: float) -> Fault:
    def fault(handler: Handler) -> bool:
        time.sleep(seconds)
        return True

    return fault


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


def home_of(url: str, body: bytes = BODY, file: str = "set.npz", md5: bool = True) -> Home:
    digest = hashlib.md5(body).hexdigest() if md5 else None
    return Home("A set", "https://page", url, file, len(body), digest, "CC BY 4.0", "Somebody (2018)")


@dataclass
class Get:
    """get() downloads the server's file into `out` without really waiting; `waits` are the pauses that it wanted."""

    url: str
    script: Script
    out: Path
    waits: list[float] = field(default_factory=list)

    def __call__(self, home: Home | None = None, **options: Any) -> Path:
        homes = {"set": home or home_of(self.url, self.script.body)}
        return download("set", self.out, homes=homes, wait=self.waits.append, **{"timeout": 5.0, **options})

    @property
    def part(self) -> Path:
        return self.out / "set.npz.part"

    def names(self) -> set[str]:
        return {p.name for p in self.out.iterdir()}


@pytest.fixture
def get(server: tuple[str, Script], tmp_path: Path) -> Get:
    return Get(*server, tmp_path / "new" / "folder")


def test_a_plain_download(get: Get, capsys: pytest.CaptureFixture[str]) -> None:
    path = get()
    assert path == get.out / "set.npz"
    assert path.read_bytes() == BODY
    assert get.names() == {"set.npz", "LICENSE.txt"}
    assert get.script.encodings == {"identity"}  # a range of compressed bytes could not be continued
    licence = (get.out / "LICENSE.txt").read_text("utf-8")
    said = capsys.readouterr().err
    for text in ("CC BY 4.0", "Somebody (2018)", "3.0 MB", "https://page"):
        assert text in licence
        assert text in said
    assert "complete and verified" in said


def test_what_is_there_and_right_is_not_downloaded_again(get: Get, capsys: pytest.CaptureFixture[str]) -> None:
    get()
    before = (get.out / "LICENSE.txt").read_text("utf-8")
    get()
    assert len(get.script.ranges) == 1
    assert "nothing to download" in capsys.readouterr().err
    assert (get.out / "LICENSE.txt").read_text("utf-8") == before


def test_what_is_there_and_wrong_is_neither_taken_nor_overwritten(get: Get) -> None:
    get.out.mkdir(parents=True)
    (get.out / "set.npz").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"set\.npz is there already, but has the MD5 .* move it away"):
        get()
    assert (get.out / "set.npz").read_bytes() == b"mine"
    assert get.script.ranges == []


def test_two_sets_and_a_foreign_licence_share_a_folder(get: Get) -> None:
    get()
    get(home_of(get.url, file="other.npz"))
    both = (get.out / "LICENSE.txt").read_text("utf-8")
    assert both.count("Licence: CC BY 4.0") == 2
    (get.out / "LICENSE.txt").write_text("MIT License", "utf-8")
    (get.out / "other.npz").unlink()
    get(home_of(get.url, file="other.npz"))
    assert (get.out / "LICENSE.txt").read_text("utf-8") == "MIT License"
    assert "CC BY 4.0" in (get.out / "other.npz.LICENSE.txt").read_text("utf-8")


def test_cut_connections_are_continued(get: Get) -> None:
    get.script.faults = [cut(1_100_000), cut(700_000), cut(0), cut(100_000)]
    assert get().read_bytes() == BODY
    assert get.script.ranges[0] is None
    starts = [int(r.removeprefix("bytes=").removesuffix("-")) for r in get.script.ranges[1:] if r]
    assert len(starts) == 4
    assert starts == sorted(starts)
    assert starts[0] > 1_000_000  # nearly all of the first connection was kept
    assert starts[1] > 1_650_000


def test_it_gives_up_after_so_many_failures_without_progress(get: Get) -> None:
    get.script.faults = [cut(2_000_000), *[cut(0)] * 20]
    with pytest.raises(OfflineError, match=r"5 times in a row.*MB are kept.*fetch it by hand and put it at .*set\.npz"):
        get()
    assert get.waits == sorted(get.waits)  # each pause is at least as long as the one before
    assert get.waits[-1] >= 8
    kept = get.part.read_bytes()
    assert kept
    assert BODY.startswith(kept)
    get.script.faults = []
    assert get().read_bytes() == BODY


def test_a_server_that_never_gets_beyond_a_byte_is_not_asked_for_ever(get: Get) -> None:
    def upto(byte: int) -> Fault:
        def fault(handler: Handler) -> bool:
            handler.answer(200, {"Content-Length": str(len(BODY))}, BODY[:byte])
            return True

        return fault

    get.script.faults = [upto(2_000_000), upto(1_000_000)] * 20
    with pytest.raises(OfflineError, match="in a row"):
        get()
    assert len(get.script.ranges) <= 10


def test_a_server_that_ignores_ranges_starts_again(get: Get, capsys: pytest.CaptureFixture[str]) -> None:
    get.script.faults = [cut(1_500_000), whole_whatever_is_asked]
    assert get().read_bytes() == BODY
    assert "starts from the first byte" in capsys.readouterr().err


def test_a_file_that_changed_meanwhile_is_not_mixed(get: Get) -> None:
    get.script.faults = [cut(1_500_000)]
    with pytest.raises(OfflineError):
        get(attempts=1)
    get.script.body, get.script.etag = bytes(reversed(BODY)), '"two"'
    assert get().read_bytes() == bytes(reversed(BODY))


def test_a_changed_date_is_enough_where_there_is_no_etag(get: Get) -> None:
    get.script.etag, get.script.modified = None, "Mon, 01 Jan 2018 00:00:00 GMT"
    get.script.faults = [cut(1_500_000)]
    with pytest.raises(OfflineError):
        get(attempts=1)
    get.script.body, get.script.modified = bytes(reversed(BODY)), "Tue, 02 Jan 2018 00:00:00 GMT"
    assert get().read_bytes() == bytes(reversed(BODY))
    assert len(get.script.ranges) == 2  # the server saw it, so nothing had to be thrown away after a wrong checksum


def test_a_changed_file_is_noticed_though_the_server_ignores_if_range(
    get: Get, capsys: pytest.CaptureFixture[str]
) -> None:
    def part_of_another(handler: Handler) -> bool:
        del handler.headers["If-Range"]
        handler.right()
        return True

    get.script.faults = [cut(1_500_000)]
    with pytest.raises(OfflineError):
        get(attempts=1)
    get.script.body, get.script.etag = bytes(reversed(BODY)), '"two"'
    get.script.faults = [part_of_another]
    assert get().read_bytes() == bytes(reversed(BODY))
    said = capsys.readouterr().err
    assert "another file than was asked for" in said
    assert "What came is not the file" not in said


def test_a_wrong_checksum_is_tried_once_more_from_the_first_byte(get: Get, capsys: pytest.CaptureFixture[str]) -> None:
    get.script.faults = [other_bytes]
    assert get().read_bytes() == BODY
    assert "The part is deleted" in capsys.readouterr().err
    assert get.script.ranges == [None, None]


def test_a_checksum_that_stays_wrong_is_an_error_and_leaves_nothing(get: Get) -> None:
    get.script.faults = [other_bytes] * 5
    with pytest.raises(DataError, match=r"downloaded twice and has the MD5 .* not the published"):
        get()
    assert get.names() == set()
    assert len(get.script.ranges) == 2


@pytest.mark.parametrize("number", [403, 404, 410])
def test_a_refusal_fails_at_once(get: Get, number: int) -> None:
    get.script.faults = [code(number)] * 5
    with pytest.raises(OfflineError, match=rf"the server answers {number} .*https://page, or fetch it by hand"):
        get()
    assert get.names() == set()
    assert get.waits == []


def test_server_errors_and_please_wait_are_tried_again(get: Get) -> None:
    get.script.faults = [code(503), code(500), code(429, Retry_After="7"), code(503, Retry_After="86400")]
    assert get().read_bytes() == BODY
    assert get.waits == [1, 2, 7, 60]


def test_a_server_that_says_nothing_is_tried_again(get: Get, capsys: pytest.CaptureFixture[str]) -> None:
    get.script.faults = [silent(1.0)]
    assert get(timeout=0.3).read_bytes() == BODY
    assert "No answer for 0.3 s" in capsys.readouterr().err


def test_redirects_are_followed_and_continued(get: Get) -> None:
    get.script.faults = [cut(1_500_000)]
    home = home_of(get.url.replace("/file", "/moved"))
    assert get(home).read_bytes() == BODY
    assert [r is None for r in get.script.ranges] == [True, False]


def test_a_length_that_promises_too_much(get: Get) -> None:
    get.script.faults = [length(len(BODY) + 1000)]
    assert get().read_bytes() == BODY
    assert len(get.waits) <= 2


def test_a_length_that_promises_too_little(get: Get, capsys: pytest.CaptureFixture[str]) -> None:
    get.script.faults = [length(len(BODY) - 1000)]
    assert get().read_bytes() == BODY
    assert "2,999,000 bytes are announced, not the 3,000,000" in capsys.readouterr().err


def test_a_part_longer_than_the_file_is_dropped(get: Get) -> None:
    get.script.faults = [cut(1_500_000)]
    with pytest.raises(OfflineError):
        get(attempts=1)
    with get.part.open("ab") as file:
        file.write(bytes(5_000_000))
    assert get().read_bytes() == BODY


def test_a_server_that_sends_without_end_is_stopped(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    real = Fetch.forget

    def forget(self: Fetch) -> None:
        nonlocal largest
        largest = max(largest, self.have())
        real(self)

    monkeypatch.setattr(Fetch, "forget", forget)
    get.script.faults = [endless]
    with pytest.raises(
        OfflineError, match=r"sends more than the file's 3,000,000 bytes\); look at https://page.*by hand"
    ):
        get()
    assert 0 < largest <= len(BODY)
    assert get.names() == set()
    assert get.waits == []


def test_a_redirect_may_not_drop_encryption(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    real = requests.get
    monkeypatch.setattr(requests, "get", lambda url, **k: real(url.replace("https:", "http:"), **k))
    home = home_of(get.url.replace("http:", "https:").replace("/file", "/moved"))
    with pytest.raises(OfflineError, match=r"leads on to http://.*, without encryption\); look at https://page"):
        get(home)
    assert get.names() == set()


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


def test_no_server(get: Get) -> None:
    home = home_of("http://127.0.0.1:9/file")
    with pytest.raises(OfflineError, match=r"http://127\.0\.0\.1:9/file.*refused.*by hand and put it at .*set\.npz"):
        get(home, attempts=2)
    assert get.waits == [1]


def test_an_unknown_name(get: Get) -> None:
    with pytest.raises(InputError, match=r"name \(='nih'\) must be one of kermany, pneumoniamnist"):
        download("nih", get.out)


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


def zipped(damaged: bool = False, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("chest_xray/test/NORMAL/a.jpeg", bytes(b & 63 for b in BODY[:50_000]))
    whole = bytearray(buffer.getvalue())
    if damaged:
        whole[25_000] ^= 255
    return bytes(whole)


def test_without_a_published_checksum_what_came_is_recorded(get: Get) -> None:
    get.script.body = zipped()
    home = home_of(get.url, get.script.body, "set.zip", md5=False)
    path = get(home)
    record = (get.out / "set.zip.sha256").read_text("utf-8")
    assert record == f"{hashlib.sha256(get.script.body).hexdigest()}  set.zip\n"  # as sha256sum -c reads it
    get(home)
    assert len(get.script.ranges) == 1
    path.write_bytes(zipped(damaged=True))
    with pytest.raises(DataError, match=r"has the SHA-256 .* as before \(recorded in .*set\.zip\.sha256"):
        get(home)
    path.unlink()
    get.script.faults = [cut(100)]
    assert get(home).read_bytes() == get.script.body


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (zipped(damaged=True), "damaged member"),
        (zipped(True, zipfile.ZIP_DEFLATED), "ZIP file"),
        (b"<html>", "no sound"),
    ],
)
def test_a_zip_that_came_damaged_is_refused(get: Get, body: bytes, why: str) -> None:
    get.script.body = body
    with pytest.raises(DataError, match=f"downloaded twice and .*{why}"):
        get(home_of(get.url, body, "set.zip", md5=False))
    assert get.names() == set()


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


def test_a_terminal_sees_a_bar_with_speed_and_time(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    screen = io.StringIO()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(talk, "console", Console(file=screen, force_terminal=True, width=120))
    get()
    assert "3.0/3.0 MB" in screen.getvalue()
    assert "MB/s" in screen.getvalue()


def test_the_homes_agree_with_medmnist() -> None:
    info = pytest.importorskip("medmnist.info", reason="medmnist is not installed").INFO["pneumoniamnist"]
    for name, suffix in [("", ""), ("-64", "_64"), ("-128", "_128"), ("-224", "_224")]:
        home = HOMES[f"pneumoniamnist{name}"]
        assert home.url == info[f"url{suffix}"]
        assert home.md5 == info[f"MD5{suffix}"]
        assert home.licence.startswith(info["license"])
    assert len({home.file for home in HOMES.values()}) == len(HOMES)
    assert replace(HOMES["kermany"], md5=None) == HOMES["kermany"]  # nobody publishes one; do not invent it
