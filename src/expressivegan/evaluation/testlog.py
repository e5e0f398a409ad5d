"""The log of test evaluations: how often a model has been held against the test patients.

Test figures are honest once. Whoever evaluates, changes something and evaluates again chooses by them, and they turn
into training figures; so each look is written down beside the model, and the results say how many there were.
"""

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from expressivegan.errors import DataError, InputError

NAME = "test-evaluations.jsonl"


def check_log(path: Path) -> None:
    """Raises before anything is computed where a test evaluation could not be written down.

    Raises:
        InputError: the file, or one in its folder, cannot be written.
    """
    existed = path.exists()
    try:
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise InputError(
            f"group (='test') writes each evaluation down in {path}, which cannot be written ({error.strerror}); "
            "copy the model to a folder of yours"
        ) from error


@dataclass(frozen=True)
class Look:
    """An evaluation on the test patients that has been written down."""

    file: Path
    """The log."""
    id: str
    """Stands in both of its lines."""
    hash: str
    """Of the model or images."""
    times: int
    """How many looks of that hash are in the log, this one included."""


def read_log(path: Path) -> list[dict[str, Any]]:
    """The looks, oldest first; none where there is no file.

    Both lines of a look are one entry, without `figures` where it did not come to its end. A line that cannot be read
    is an entry with the hash None.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"the log of test evaluations {path} cannot be read ({error.strerror})") from error
    looks: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines):
        entry = _entry(line)
        key = str(entry.get("look", f"line {number}"))
        looks[key] = entry | looks.get(key, {})
    return list(looks.values())


def _entry(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:  # cut short by a power cut, perhaps
        found = None
    return found if isinstance(found, dict) and "hash" in found else {"hash": None}


def begin_look(path: Path, entry: Mapping[str, Any]) -> Look:
    """Writes a look down, before anything is measured: whoever stops it half-way has looked, too.

    Args:
        path: of the log.
        entry: what JSON knows, with the `hash` of the model or images.

    Returns:
        The look; lines that cannot be read may have been of any model, and count.

    Raises:
        DataError: the log cannot be read or written.
    """
    times = 1 + sum(old["hash"] in (entry["hash"], None) for old in read_log(path))
    look = Look(path, uuid.uuid4().hex, entry["hash"], times)
    _append(path, {"look": look.id, **entry})
    return look


def end_look(look: Look, figures: Mapping[str, Any]) -> None:
    """Writes down what a look has shown. Raises DataError: the log cannot be written."""
    _append(look.file, {"look": look.id, "hash": look.hash, "figures": dict(figures)})


def _append(path: Path, entry: Mapping[str, Any]) -> None:
    """One line, in one write, flushed."""
    line = json.dumps({"time": datetime.now(timezone.utc).isoformat(timespec="seconds"), **entry}, ensure_ascii=False)
    try:
        torn = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, f"{chr(10) if torn else ''}{line}\n".encode())
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        raise DataError(f"the log of test evaluations {path} cannot be written ({error}); free its folder") from error


def ordinal(times: int) -> str:
    """
    >>> [ordinal(n) for n in (1, 2, 3, 11, 22)]
    ['1st', '2nd', '3rd', '11th', '22nd']
    """
    ending = "th" if times % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(times % 10, "th")
    return f"{times}{ending}"
