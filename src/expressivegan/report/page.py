"""A diagnosis as one HTML page (doctor.html.j2, doctor.css)."""

import base64
import hashlib
import io
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from expressivegan.data.doctor.finding import SEVERITIES, Diagnosis, Finding, Picture, Table
from expressivegan.report.plot import panels
from expressivegan.report.text import files_text, finite, spans, visible

ROWS = 50
"""Rows of a table, and files, that the page shows; the JSON has all."""
PICTURES = 12
"""Pictures that are shown at once; the others can be opened."""
SIDE = 1024
"""Larger pictures are scaled down to this width or height."""

_MARKS = {"high": "▲", "medium": "◆", "low": "●", "ok": "✓", "skipped": "–"}
_MEANS = {
    "high": "results on these data would be wrong",
    "medium": "results may be wrong",
    "low": "worth knowing",
    "ok": "looked for, not found",
    "skipped": "could not be looked for",
}
_VERDICTS = {
    "high": "Do not train on these data yet",
    "medium": "Look before you train",
    "low": "Usable, with a few things to know",
    "ok": "Nothing found",
    "skipped": "Nothing could be looked for",
}
_NUMERIC = re.compile(r"[-+−]?\d[\d,.\s]*%?( [\[(][\d,.\s%−-]+[\])])?|[-–]?|nan", re.IGNORECASE)


class _Grid(NamedTuple):
    """A table, cut and squared."""

    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    kinds: tuple[str, ...]
    """Of the columns: numeric, long (names that must be broken) or nothing."""
    left_out: int


class _Image(NamedTuple):
    caption: str
    uri: str
    width: int
    height: int
    shape: str
    """pixels: shown larger than it is; wide."""


class _Entry(NamedTuple):
    paths: tuple[str, ...]
    more: int
    facts: tuple[tuple[str, str], ...]


class _Shown(NamedTuple):
    """A finding, ready for the template."""

    id: str
    finding: Finding
    panels: list[Any]
    consequence: list[list[Any]]
    remedy: list[list[Any]]
    table: _Grid | None
    pictures: list[_Image]
    files: str
    entries: list[_Entry]


def page(diagnosis: Diagnosis) -> str:
    """The page as text. The same diagnosis gives the same text."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    here = resources.files("expressivegan.report")
    css = here.joinpath("doctor.css").read_text("utf-8").strip()
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Whatever the template prints passes here first, so no file name can be forgotten
        finalize=lambda value: visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )
    template = environment.from_string(here.joinpath("doctor.html.j2").read_text("utf-8"))
    order = sorted(diagnosis.findings, key=lambda f: SEVERITIES.index(f.severity))
    shown = [_show(f, i) for i, f in enumerate(order)]
    found = [s for s in shown if s.finding.severity in ("high", "medium", "low")]
    quiet = [s for s in shown if s.finding.severity in ("ok", "skipped")]
    worst = "skipped" if order and all(f.severity == "skipped" for f in order) else diagnosis.worst()
    return template.render(
        css=Markup(css),
        css_hash=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
        diagnosis=diagnosis,
        overview=_grid(diagnosis.overview),
        counts=[(s, sum(f.severity == s for f in order), next((x.id for x in shown if x.finding.severity == s), ""))
                for s in SEVERITIES],
        found=found,
        quiet=quiet,
        marks=_MARKS,
        means=_MEANS,
        worst=worst,
        verdict=_VERDICTS[worst],
        seconds=sum(finite(*diagnosis.seconds.values())),
        most=ROWS,
        at_once=PICTURES,
    )  # fmt: skip


def _show(finding: Finding, number: int) -> _Shown:
    slug = re.sub(r"[^a-z0-9]+", "-", finding.check.lower()).strip("-")
    paths = sum(len(_names(item)) for item in finding.items)
    return _Shown(
        id=f"{number + 1}-{slug}",
        finding=finding,
        panels=panels(finding.figures),
        consequence=_prose(finding.consequence),
        remedy=_prose(finding.remedy),
        table=None if finding.table is None or not finding.table.rows else _grid(finding.table),
        pictures=[_image(p) for p in finding.pictures],
        files=files_text(paths, len(finding.items)) if finding.items else "",
        entries=[_entry(item) for item in finding.items[:ROWS]],
    )


def _prose(text: str) -> list[list[Any]]:
    """Paragraphs of spans."""
    return [spans(line) for line in text.splitlines() if line.strip()]


def _grid(table: Table) -> _Grid:
    width = max([len(table.header), *(len(row) for row in table.rows[:ROWS])])
    header, *rows = (_padded(row, width) for row in (table.header, *table.rows[:ROWS]))
    kinds = tuple(_column([row[k] for row in rows]) for k in range(width))
    return _Grid(header, rows, kinds, len(table.rows) - len(rows))


def _column(cells: Sequence[str]) -> str:
    if cells and all(_NUMERIC.fullmatch(cell.strip()) for cell in cells):
        return "numeric"
    return "long" if any(len(word) > 24 for cell in cells for word in cell.split()) else ""


def _padded(row: Sequence[str], width: int) -> tuple[str, ...]:
    return (*(str(cell) for cell in row), *[""] * (width - len(row)))


def _names(item: dict[str, Any]) -> tuple[str, ...]:
    paths = item.get("paths", ())
    return (paths,) if isinstance(paths, str) else tuple(str(p) for p in paths)


def _entry(item: dict[str, Any]) -> _Entry:
    names = _names(item)
    facts = tuple((key.replace("_", " "), _fact(value)) for key, value in item.items() if key != "paths")
    return _Entry(names[:ROWS], max(0, len(names) - ROWS), facts)


def _fact(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_fact(v) for v in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_fact(v)}" for key, v in value.items())
    return str(value)


def _image(picture: Picture) -> _Image:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture.pixels))
    if max(image.size) > SIDE:
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    # Small ones are shown larger, in whole steps: every pixel is equally large
    scale = max(1, min(192 // image.height, 900 // image.width))
    shape = [name for name, so in (("pixels", scale > 1), ("wide", image.width > 1.5 * image.height)) if so]
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return _Image(picture.caption, uri, image.width * scale, image.height * scale, " ".join(shape))
