"""The doctor's report: JSON for programs, one HTML page and a table in the terminal for people."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from expressivegan.atomic import write_bytes
from expressivegan.data.doctor.finding import SEVERITIES, Diagnosis, Finding, Table
from expressivegan.errors import DataError
from expressivegan.intervals import plain
from expressivegan.report.page import page
from expressivegan.report.terminal import print_diagnosis

__all__ = ["FORMAT", "VERSION", "as_json", "print_diagnosis", "write_html", "write_json"]

FORMAT = "expressivegan-doctor"
VERSION = 1
"""Rises with every change of the fields, and with it doctor.schema.json."""
WIDTH = 120
"""Of a line of JSON, where it can be broken."""

# Characters that JSON allows as they are, and that a reader of the file should not meet so: halves of pairs (no UTF-8
# can hold them), and those that turn the direction of the text
_ESCAPED = re.compile("[\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis in plain dicts, lists, strings and numbers, as doctor.schema.json says.

    Findings stand in order of severity. Pictures are counted, not kept. Numbers that are not finite become None.

    Raises:
        TypeError: an item of a finding holds an object that JSON does not know.
    """
    count = Counter(f.severity for f in diagnosis.findings)
    return {
        "format": FORMAT,
        "version": VERSION,
        "package_version": diagnosis.version,
        "source": diagnosis.source,
        "kind": diagnosis.kind,
        "data_hash": diagnosis.data_hash,
        "classes": list(diagnosis.classes),
        "worst": diagnosis.worst(),
        "counts": {severity: count[severity] for severity in SEVERITIES},
        "overview": _table(diagnosis.overview),
        "findings": [_finding(f) for f in sorted(diagnosis.findings, key=lambda f: SEVERITIES.index(f.severity))],
        "seconds": plain(diagnosis.seconds),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "severity": finding.severity,
        "title": finding.title,
        "figures": [plain(figure._asdict()) for figure in finding.figures],
        "consequence": finding.consequence,
        "remedy": finding.remedy,
        "table": None if finding.table is None else _table(finding.table),
        "pictures": len(finding.pictures),
        "items": [plain(item) for item in finding.items],
    }


def _table(table: Table) -> dict[str, Any]:
    return {"header": list(table.header), "rows": [list(row) for row in table.rows]}


def write_json(diagnosis: Diagnosis, path: Path | str) -> None:
    """Writes what `as_json` gives, atomically, as UTF-8.

    Bytes of a file name that are no UTF-8 are escaped as U+DC80..U+DCFF: `os.fsencode` gives the name back.

    Raises:
        DataError: the file cannot be written.
    """
    text = _ESCAPED.sub(lambda found: f"\\u{ord(found.group()):04x}", _lines(as_json(diagnosis)))
    _write(path, text + "\n")


def _lines(value: Any, margin: str = "") -> str:
    """JSON in which whatever fits stands on one line: a file, a figure, a row."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if len(line) <= WIDTH or not isinstance(value, dict | list):
        return line
    inner = margin + " "
    if isinstance(value, dict):
        parts = [f"{json.dumps(key, ensure_ascii=False)}: {_lines(v, inner)}" for key, v in value.items()]
    else:
        parts = [_lines(v, inner) for v in value]
    return f"{line[0]}\n{inner}" + f",\n{inner}".join(parts) + f"\n{margin}{line[-1]}"


def write_html(diagnosis: Diagnosis, path: Path | str) -> None:
    """Writes one page that needs nothing but itself, atomically: no scripts, no requests, pictures within.

    The same diagnosis gives the same bytes.

    Raises:
        DataError: the file cannot be written.
    """
    _write(path, page(diagnosis))


def _write(path: Path | str, text: str) -> None:
    data = text.encode()
    try:
        write_bytes(Path(path), data)
    except OSError as error:
        raise DataError(f"cannot write the report {path}: {error}; choose a writable folder") from error
