"""One file on its way: resumed by ranges, tried again, and never beyond what was announced."""

import errno
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from expressivegan.atomic import write_bytes
from expressivegan.data.download.check import writing
from expressivegan.data.download.homes import Home
from expressivegan.data.download.talk import MB, transfer_bar
from expressivegan.errors import DataError, OfflineError

if TYPE_CHECKING:
    from requests import Response

_CHUNK = 1 << 16  # what a broken connection may cost: the piece that had not come whole
_LONGEST_WAIT = 60.0
_MARGIN = 100 * MB  # left free on the disk, for the cache and for everybody else
_FLEETING = (408, 425, 429)  # 4xx answers that mean "later"


class TryAgainError(Exception):
    """The connection failed in a way that may pass; the text says how."""

    def __init__(self, why: str, after: float = 0.0) -> None:
        super().__init__(why)
        self.after = after  # seconds that the server asked to wait


@dataclass
class Fetch:
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
        with writing(self.out):
            self.state.unlink(missing_ok=True)
            self.part.unlink(missing_ok=True)

    def prepare(self) -> None:
        """Makes sure that there is a folder with enough space, and a part that the URL is the right one for."""
        with writing(self.out):
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
            except TryAgainError as error:
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
        """One connection. Raises TryAgainError if it ends early."""
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
            raise TryAgainError(f"no answer for {self.timeout:g} s") from error
        except (exceptions.ConnectionError, exceptions.ChunkedEncodingError, exceptions.ContentDecodingError) as error:
            raise TryAgainError(f"the connection broke: {_innermost(error)}") from error
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
            raise TryAgainError(f"the server's file no longer reaches to byte {have}")
        if code >= 500 or code in _FLEETING:
            after = response.headers.get("Retry-After", "")
            raise TryAgainError(f"the server answers {code} {response.reason}", float(after) if after.isdigit() else 0)
        if code == 206:
            start, etag = _first_byte(response), response.headers.get("ETag")
            same = known.get("etag") in (None, etag) and known.get("length") in (None, str(_whole(response)))
            if start != have or not same:  # a server that pays no heed to If-Range, or a cache in between
                self.forget()
                raise TryAgainError("the server sends another part or another file than was asked for")
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
        with writing(self.out):
            self.open_part(anew=True).close()
            write_bytes(self.state, json.dumps({k: v for k, v in heard.items() if v}).encode())
        return 0, total

    def receive(self, response: "Response", start: int, total: int | None) -> None:
        with writing(self.out):
            file = self.open_part()
        limit = total or self.home.size
        with file, transfer_bar(self.home.file, start, limit, self.progress) as advance:
            done = start
            for piece in response.iter_content(_CHUNK):
                if done + len(piece) > limit:
                    self.forget()
                    raise self.unreachable(
                        f"the server sends more than the file's {limit:,} bytes", f"look at {self.home.page}"
                    )
                self.check_space(limit - done)
                with writing(self.part):
                    rest = memoryview(piece)
                    while rest:
                        rest = rest[file.write(rest) :]
                done += len(piece)
                if self.part.stat().st_size != done:
                    raise DataError(f"{self.part} is being written by another download; wait for it, or stop it")
                advance(done)
        if total is not None and done < total:
            raise TryAgainError(f"the connection broke at {done / MB:,.1f} of {total / MB:,.1f} MB")


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
