"""The log of test evaluations: how often a model has been held against the test patients.

Test figures are honest once. Whoever evaluates, changes something and evaluates again chooses by them, and they turn
into training figures; so each look is written down beside the model, and the results say how many there were.
"""

import json
import os
from collections.abc import Mapping
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


def read_log(path: Path) -> list[dict[str, Any]]:
    """The entries, oldest first; none where there is no file. A line that cannot be read has the hash None.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"the log of test evaluations {path} cannot be read ({error.strerror})") from error
    return [_entry(line) for line in lines]


def _entry(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:  # cut short by a power cut, perhaps
        found = None
    return found if isinstance(found, dict) and "hash" in found else {"hash": None}


def append_log(path: Path, entry: Mapping[str, Any]) -> int:
    """Writes an entry as one line, in one write, and flushes it.

    Args:
        path: of the log.
        entry: what JSON knows, with the `hash` of the model or images.

    Returns:
        How often that hash stands in the log now; lines that cannot be read may have been of any model, and count.

    Raises:
        DataError: the log cannot be read or written.
    """
    times = 1 + sum(old["hash"] in (entry["hash"], None) for old in read_log(path))
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
    return times


def ordinal(times: int) -> str:
    """
    >>> [ordinal(n) for n in (1, 2, 3, 11, 22)]
    ['1st', '2nd', '3rd', '11th', '22nd']
    """
    ending = "th" if times % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(times % 10, "th")
    return f"{times}{ending}"
