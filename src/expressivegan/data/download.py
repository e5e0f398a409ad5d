"""Data sets from their official homes: resumed, checked, and with their licence beside them."""

import errno
import hashlib
import io
import json
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from expressivegan.atomic import write_bytes
from expressivegan.console import LINE_EVERY, console
from expressivegan.errors import DataError, ExpressiveGANError, InputError, OfflineError

if TYPE_CHECKING:
    from requests import Response

MB = 1_000_000
_CHUNK = 1 << 16  # what a broken connection may cost: the piece that had not come whole
_LONGEST_WAIT = 60.0
_MARGIN = 100 * MB  # left free on the disk, for the cache and for everybody else
_FLEETING = (408, 425, 429)  # 4xx answers that mean "later"
_LICENCE_HEAD = "The files named below were made by others, and are theirs."


@dataclass(frozen=True, slots=True)
class Home:
    """Where a data set lives, and what its makers say about it."""

    title: str
    page: str
    """For people."""
    url: str
    """Of the file itself."""
    file: str
    """Its name on disk."""
    size: int
    """Bytes, as published."""
    md5: str | None
    """As published; None where nothing is."""
    licence: str
    citation: str


def _pneumoniamnist(suffix: str, side: int, size: int, md5: str) -> Home:
    file = f"pneumoniamnist{suffix}.npz"
    return Home(
        title=f"PneumoniaMNIST, {side}x{side}, of MedMNIST",
        page="https://zenodo.org/records/10519652",
        url=f"https://zenodo.org/records/10519652/files/{file}?download=1",
        file=file,
        size=size,
        md5=md5,
        licence="CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
        citation="J. Yang et al.: MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image "
        "classification. Scientific Data 10, 41 (2023), https://doi.org/10.1038/s41597-022-01721-8. The pictures: "
        "D. S. Kermany et al.: Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep Learning. "
        "Cell 172, 1122-1131 (2018), https://doi.org/10.1016/j.cell.2018.02.010",
    )


HOMES: dict[str, Home] = {
    "kermany": Home(
        title="Chest X-ray images of Kermany, Zhang and Goldbaum, version 2",
        page="https://data.mendeley.com/datasets/rscbjbr9sj/2",
        url="https://data.mendeley.com/public-files/datasets/rscbjbr9sj/files/"
        "f12eaf6d-6023-432f-acc9-80c9d7393433/file_downloaded",
        file="ChestXRay2017.zip",
        size=1_235_512_464,
        md5=None,  # none is published; what came is recorded in a side file, and the ZIP's own CRCs are checked
        licence="CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
        citation="D. Kermany, K. Zhang, M. Goldbaum: Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images "
        "for Classification. Mendeley Data, V2 (2018), https://doi.org/10.17632/rscbjbr9sj.2. The article: "
        "D. S. Kermany et al.: Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep Learning. "
        "Cell 172, 1122-1131 (2018), https://doi.org/10.1016/j.cell.2018.02.010",
    ),
    # MD5 sums as in medmnist.INFO
    "pneumoniamnist": _pneumoniamnist("", 28, 4_170_669, "28209eda62fecd6e6a2d98b1501bb15f"),
    "pneumoniamnist-64": _pneumoniamnist("_64", 64, 20_606_998, "8f4eceb4ccffa70c672198ea285246c6"),
    "pneumoniamnist-128": _pneumoniamnist("_128", 128, 75_506_212, "05b46931834c231683c68f40c47b2971"),
    "pneumoniamnist-224": _pneumoniamnist("_224", 224, 214_384_716, "d6a3c71de1b945ea11211b03746c1fe1"),
}


def download(
    name: str,
    out: Path | str,
    *,
    progress: bool = True,
    homes: Mapping[str, Home] = HOMES,
    attempts: int = 5,
    timeout: float = 30.0,
    wait: Callable[[float], None] = time.sleep,
) -> Path:
    """Downloads a data set from its official home; goes on where an earlier download stopped.

    Licence, citation and size are shown first, and stored as LICENSE.txt. Until it is complete and verified the file is
    called FILE.part. Verified means: the published MD5; where none is published, the ZIP's own checksums the first
    time, and from then on the SHA-256 that was recorded in FILE.sha256. A ZIP is not unpacked: it is read as it is.

    Args:
        name: a key of `homes`.
        out: folder to write to; made if it is missing.
        progress: say what happens on standard error, with a bar if that is a terminal.
        homes: where the data sets live.
        attempts: connections in a row that may bring nothing new before it gives up.
        timeout: seconds without a byte after which a connection counts as broken.
        wait: called with the seconds to wait before the next attempt.

    Returns:
        The file.

    Raises:
        InputError: no such data set, or `out` is not a folder.
        DataError: too little space, a folder that cannot be written, or a file that does not verify.
        OfflineError: the home cannot be reached, or no longer has the file.
    """
    if name not in homes:
        raise InputError(f"name (={name!r}) must be one of {', '.join(homes)}")
    home, out = homes[name], Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"out (={str(out)!r}) is a file; give a folder")
    say = _say if progress else _silent
    path = out / home.file
    if path.exists():
        wrong = _fault(path, path, home)
        if wrong:
            raise DataError(f"{path} is there already, but {wrong}; move it away and download again")
        _keep_licence(home, out)
        say(f"{path} is there already, and complete: nothing to download")
        return path
    for line in _introduction(home):
        say(line)
    fetch = _Fetch(home, out, progress, attempts, timeout, wait, say)
    for second in (False, True):
        try:
            fetch.prepare()
            fetch.run()
        except ExpressiveGANError:
            if not fetch.have():
                fetch.forget()
            raise
        say("Checking what came")
        wrong = _fault(fetch.part, path, home)
        if not wrong:
            break
        fetch.forget()
        if second:
            raise DataError(
                f"{home.url} was downloaded twice and {wrong}; the part is deleted: look at {home.page} whether the "
                "file was replaced, or try again through another network"
            )
        say(f"What came is not the file: it {wrong}. The part is deleted; starting again from the first byte")
    with _writing(out):
        _keep_licence(home, out)
        fetch.part.replace(path)
        fetch.state.unlink(missing_ok=True)
    say(f"{path} is complete and verified")
    return path


def _introduction(home: Home) -> Iterator[str]:
    yield f"{home.title}: {home.size / MB:,.1f} MB from {home.page}"
    yield f"Licence: {home.licence}"
    yield f"Please cite: {home.citation}"


def _say(line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _silent(line: str) -> None:
    """Says nothing."""


@contextmanager
def _writing(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot write to {where}: {error.strerror or error}; choose another folder") from error


def _keep_licence(home: Home, out: Path) -> None:
    text = "\n\n".join([f"{home.file}\n{'-' * len(home.file)}", *_introduction(home)]) + "\n"
    path = out / "LICENSE.txt"
    with _writing(out):
        known = path.read_text("utf-8", "replace") if path.exists() else _LICENCE_HEAD + "\n"
        if not known.startswith(_LICENCE_HEAD):  # somebody else's: a project's own, perhaps
            path, known = out / f"{home.file}.LICENSE.txt", _LICENCE_HEAD + "\n"
        if text not in known:
            write_bytes(path, f"{known}\n{text}".encode())


def _digest(path: Path, kind: str) -> str:
    summed = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            summed.update(piece)
    return summed.hexdigest()


def _fault(file: Path, final: Path, home: Home) -> str | None:
    """What is wrong with a complete file that is or shall become `final`, or None. Records what it found to be right.

    Raises:
        DataError: it cannot be read, or the record of its checksum cannot be written.
    """
    record = final.with_name(f"{final.name}.sha256")
    try:
        if home.md5 is not None:
            found = _digest(file, "md5")
            return None if found == home.md5 else f"has the MD5 {found}, not the published {home.md5}"
        found = _digest(file, "sha256")
        known = record.read_text("utf-8", "replace").split() if record.exists() else []
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from error
    if known:
        if found == known[0]:
            return None
        return f"has the SHA-256 {found}, not {known[0]} as before (recorded in {record})"
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except Exception as error:  # zipfile and zlib raise anything over damaged bytes
        return f"is no sound ZIP file ({error})"
    if damaged is not None:
        return f"is a ZIP file with a damaged member ({damaged})"
    with _writing(record):
        write_bytes(record, f"{found}  {final.name}\n".encode())
    return None


class _TryAgainError(Exception):
    """The connection failed in a way that may pass; the text says how."""

    def __init__(self, why: str, after: float = 0.0) -> None:
        super().__init__(why)
        self.after = after  # seconds that the server asked to wait


@dataclass
class _Fetch:
    """One file on its way: what is on disk of it, and how to get the rest."""

    home: Home
    out: Path
    progress: bool
    attempts: int
    timeout: float
    wait: Callable[[float], None]
    say: Callable[[str], None]

    @property
    def part(self) -> Path:
        return self.out / f"{self.home.file}.part"

    @property
    def state(self) -> Path:
        """What the server said about the file that `part` is a part of."""
        return self.out / f"{self.home.file}.part.json"

    def have(self) -> int:
        try:
            return self.part.lstat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return 0

    def open_part(self, anew: bool = False) -> io.FileIO:
        """Opens `part` to append to it, or `anew` empty; unbuffered, so that closing it on a full disk writes nothing.

        Raises:
            DataError: it is a link, through which the download would be written to anywhere.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if anew else 0)
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        link = DataError(f"{self.part} is a link; remove it and download again, or choose another folder")
        if self.part.is_symlink():
            raise link
        try:
            return io.FileIO(os.open(self.part, flags, 0o666), "ab")
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise link from error
            raise

    def forget(self) -> None:
        with _writing(self.out):
            self.state.unlink(missing_ok=True)
            self.part.unlink(missing_ok=True)

    def prepare(self) -> None:
        """Makes sure that there is a folder with enough space, and a part that the URL is the right one for."""
        with _writing(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
            self.open_part().close()
        if self.have() and _read_json(self.state).get("url") != self.home.url:
            self.forget()
        self.check_space(self.home.size - self.have())

    def check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.out).free
        if free < needed + _MARGIN:
            raise DataError(
                f"{self.out} has {free / MB:,.0f} MB free, and {(needed + _MARGIN) / MB:,.0f} MB are needed; make room "
                "or choose another folder"
            )

    def run(self) -> None:
        """Connects until all is there. Only bytes that were never had before count as progress."""
        furthest, failures = self.have(), 0
        if furthest:
            self.say(f"Going on at {furthest / MB:,.1f} MB")
        while True:
            try:
                self.connect()
                return
            except _TryAgainError as error:
                why, asked = str(error), error.after
            failures = 1 if self.have() > furthest else failures + 1
            furthest = max(furthest, self.have())
            if failures >= self.attempts:
                have = self.have()
                kept = f"; {have / MB:,.1f} MB are kept and the same command goes on from there" if have else ""
                raise self.unreachable(f"{why}, {failures} times in a row{kept}")
            pause = min(_LONGEST_WAIT, max(asked, 2.0 ** (failures - 1)))
            self.say(f"{why[0].upper()}{why[1:]}; trying again in {pause:.0f} s ({failures + 1} of {self.attempts})")
            self.wait(pause)

    def unreachable(self, why: str, advice: str = "try again later") -> OfflineError:
        target = self.out / self.home.file
        return OfflineError(
            f"cannot download {self.home.url} ({why}); {advice}, or fetch it by hand and put it at {target}"
        )

    def connect(self) -> None:
        """One connection. Raises _TryAgainError if it ends early."""
        import requests  # slow to import, and needed by few commands
        from requests import exceptions

        have, known = self.have(), _read_json(self.state)
        if have and known.get("length") == str(have):
            return  # interrupted between the last byte and the check
        headers = {"User-Agent": "expressivegan (python-requests)", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            mark = known.get("etag") or known.get("modified")
            if mark:
                headers["If-Range"] = mark
        try:
            with requests.get(self.home.url, headers=headers, stream=True, timeout=self.timeout) as response:
                self.check_encrypted([*(hop.url for hop in response.history), response.url])
                start, total = self.judge(response, have, known)
                if start is not None:
                    self.receive(response, start, total)
        except exceptions.SSLError as error:
            raise self.unreachable(f"no trusted connection: {_innermost(error)}") from error
        except exceptions.Timeout as error:
            raise _TryAgainError(f"no answer for {self.timeout:g} s") from error
        except (exceptions.ConnectionError, exceptions.ChunkedEncodingError, exceptions.ContentDecodingError) as error:
            raise _TryAgainError(f"the connection broke: {_innermost(error)}") from error
        except exceptions.RequestException as error:
            raise self.unreachable(_innermost(error)) from error

    def check_encrypted(self, urls: Sequence[str]) -> None:
        """Raises OfflineError where redirects lead from https to anything else."""
        bare = next((url for url in urls if not url.lower().startswith("https:")), None)
        if bare is not None and self.home.url.startswith("https:"):
            raise self.unreachable(f"it leads on to {bare}, without encryption", f"look at {self.home.page}")

    def judge(self, response: "Response", have: int, known: Mapping[str, str]) -> tuple[int | None, int | None]:
        """What an answer means: (offset of its first byte, or None if all is there; length of the whole file)."""
        code = response.status_code
        if code == 416:
            if _whole(response) == have:
                return None, have
            self.forget()
            raise _TryAgainError(f"the server's file no longer reaches to byte {have}")
        if code >= 500 or code in _FLEETING:
            after = response.headers.get("Retry-After", "")
            raise _TryAgainError(f"the server answers {code} {response.reason}", float(after) if after.isdigit() else 0)
        if code == 206:
            start, etag = _first_byte(response), response.headers.get("ETag")
            same = known.get("etag") in (None, etag) and known.get("length") in (None, str(_whole(response)))
            if start != have or not same:  # a server that pays no heed to If-Range, or a cache in between
                self.forget()
                raise _TryAgainError("the server sends another part or another file than was asked for")
            return have, _whole(response)
        if code != 200:
            raise self.unreachable(f"the server answers {code} {response.reason}", f"look at {self.home.page}")
        if have:
            self.say("The server starts from the first byte, so what was there is dropped")
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
        if total is not None and total != self.home.size:
            self.say(f"Note: {total:,} bytes are announced, not the {self.home.size:,} that are published")
        self.check_space((total or self.home.size) - have)
        etag = response.headers.get("ETag", "")
        heard = {
            "url": self.home.url,
            "etag": "" if etag.startswith("W/") else etag,  # a weak one does not vouch for single bytes
            "modified": response.headers.get("Last-Modified", ""),
            "length": length,
        }
        with _writing(self.out):
            self.open_part(anew=True).close()
            write_bytes(self.state, json.dumps({k: v for k, v in heard.items() if v}).encode())
        return 0, total

    def receive(self, response: "Response", start: int, total: int | None) -> None:
        with _writing(self.out):
            file = self.open_part()
        limit = total or self.home.size
        with file, _bar(self.home.file, start, limit, self.progress) as advance:
            done = start
            for piece in response.iter_content(_CHUNK):
                if done + len(piece) > limit:
                    self.forget()
                    raise self.unreachable(
                        f"the server sends more than the file's {limit:,} bytes", f"look at {self.home.page}"
                    )
                self.check_space(limit - done)
                with _writing(self.part):
                    rest = memoryview(piece)
                    while rest:
                        rest = rest[file.write(rest) :]
                done += len(piece)
                if self.part.stat().st_size != done:
                    raise DataError(f"{self.part} is being written by another download; wait for it, or stop it")
                advance(done)
        if total is not None and done < total:
            raise _TryAgainError(f"the connection broke at {done / MB:,.1f} of {total / MB:,.1f} MB")


def _read_json(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _first_byte(response: "Response") -> int | None:
    start = response.headers.get("Content-Range", "").removeprefix("bytes").strip().partition("-")[0]
    return int(start) if start.isdigit() else None


def _whole(response: "Response") -> int | None:
    whole = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(whole) if whole.isdigit() else None


def _innermost(error: BaseException) -> str:
    """The last words of an error that wraps others: "Connection refused" rather than the pool's whole story."""
    while True:
        inside = [getattr(error, "reason", None), *reversed(error.args)]
        deeper = next((e for e in inside if isinstance(e, BaseException)), None)
        if deeper is None:
            return str(error).rpartition("] ")[2].rstrip(")") or type(error).__name__
        error = deeper


@contextmanager
def _bar(title: str, start: int, total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the bytes that are there: a bar on a terminal, else a line now and then."""
    if not shown:
        yield lambda done: None
        return
    if sys.stderr.isatty():
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, refresh_per_second=4) as bar:
            task = bar.add_task(title, total=total, completed=start)
            yield lambda done: bar.update(task, completed=done)
        return
    began = spoke = time.monotonic()

    def line(done: int) -> None:
        nonlocal spoke
        now = time.monotonic()
        if now - spoke < LINE_EVERY:
            return
        spoke = now
        rate = max(done - start, 1) / max(now - began, 1e-6)
        left = int(max(total - done, 0) / rate)
        speed = f"{rate / MB:.1f} MB/s, ETA {left // 60}:{left % 60:02d}"
        _say(f"{title}: {done / MB:,.1f} of {total / MB:,.1f} MB, {speed}")

    yield line
