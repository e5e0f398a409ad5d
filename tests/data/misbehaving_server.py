"""An HTTP server that misbehaves on purpose, and downloads from it."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np

from expressivegan.data.download import Home, download

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
