"""What a check of the doctor says, in a form that a terminal, a page and a program can all read."""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from expressivegan.intervals import Interval

Severity = Literal["high", "medium", "low", "ok", "skipped"]
SEVERITIES: tuple[Severity, ...] = ("high", "medium", "low", "ok", "skipped")
"""high: results on these data would be wrong; medium: they may be; low: worth knowing; ok: looked for, not found;
skipped: could not be looked for, and the title says why."""
NOT_ASKED = "Not asked for"
"""Title of a check that the user left out."""


class Figure(NamedTuple):
    """A number, with its 95% interval where it has one, and what it would be if nothing were wrong."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    expected: float | None = None

    @classmethod
    def of(cls, name: str, interval: Interval, expected: float | None = None) -> "Figure":
        """A figure from an interval."""
        return cls(name, *interval, expected=expected)


class Table(NamedTuple):
    """Rows of text under a header; `rows` may be long, whoever shows them cuts."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class Picture:
    """Evidence to look at."""

    caption: str
    pixels: npt.NDArray[np.uint8]
    """(H, W) grey or (H, W, 3) RGB."""


@dataclass(frozen=True, eq=False)
class Finding:
    """The result of one check."""

    check: str
    """Stable name, such as "patients-across-splits"."""
    severity: Severity
    title: str
    """One sentence with the numbers that matter."""
    figures: tuple[Figure, ...] = ()
    consequence: str = ""
    """What goes wrong if nothing is done."""
    remedy: str = ""
    """What to do: a command where there is one."""
    table: Table | None = None
    pictures: tuple[Picture, ...] = ()
    items: tuple[dict[str, Any], ...] = ()
    """All files concerned, one JSON object each, with at least "paths": list of names within the data set."""


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """All that the doctor found."""

    source: str
    """As the user named it."""
    kind: str
    """The layout: "kermany", "folder", ..."""
    data_hash: str
    version: str
    """Of this package."""
    classes: tuple[str, ...]
    overview: Table
    """Classes × splits × patients."""
    findings: tuple[Finding, ...]
    """In order of severity."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each check took."""

    def worst(self) -> Severity:
        """The highest severity among the findings."""
        return min((f.severity for f in self.findings), key=SEVERITIES.index, default="ok")
