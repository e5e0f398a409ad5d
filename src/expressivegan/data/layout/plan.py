"""What a listing means: the images found, and what the layouts share."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from expressivegan.data.manifest import Rejected
from expressivegan.errors import InputError

Reader = Callable[[str], bytes]
"""The bytes of a file of the listing. Raises `decode.UnusableError` with the reason."""

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),  # Kaggle's val belongs to the training patients
    "test": ("test", "testing"),
}
OUTSIDE = "stands outside the class folders"
UNNAMED = "does not name it"
"""What a refusal ends with where a table leaves a file out."""
NO_PATIENT = "patient_regex finds no patient in its path"
_REFERENCE = ("normal", "no finding")


@dataclass(frozen=True)
class Found:
    """A file of which the layout knows what it is."""

    path: str
    label: str
    """The class; "" as long as several findings wait for a rule."""
    patient: str
    split: str
    """"train" or "test"."""
    official: str | None = None
    """The data set's own split: "train", "val" or "test"."""
    labels: tuple[str, ...] = ()
    """All findings of the image, where that is more or less than the label alone."""
    sex: str | None = None
    age: float | None = None
    """Years."""

    @property
    def findings(self) -> tuple[str, ...]:
        """All findings, also of the layouts that know one per image."""
        return self.labels or ((self.label,) if self.label else ())


@dataclass
class Layout:
    """What a listing means."""

    source: str
    base: str
    """Folder, relative to the listing's top, that the paths below are relative to."""
    classes: tuple[str, ...]
    patients_known: bool
    found: list[Found] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names that a rule may use for several findings at once."""


def natural(text: str) -> list[tuple[int, int, str]]:
    """Sort key that puts "grade2" before "grade10"."""
    # isdecimal, not isdigit: a superscript two is a digit, and no int
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p.lower()) for p in re.split(r"(\d+)", text) if p]


def reference_class(classes: tuple[str, ...]) -> str | None:
    """The class called "normal" or "no finding" in any case, or None."""
    return next((c for name in _REFERENCE for c in classes if c.lower() == name), None)


def in_order(classes: set[str]) -> tuple[str, ...]:
    """The reference first, then by name, numbers by value."""
    reference = reference_class(tuple(sorted(classes)))
    return tuple(sorted(classes, key=lambda c: (c != reference, natural(c), c)))


def compiled(patient_regex: str | None) -> "re.Pattern[str] | None":
    """Raises InputError unless it is a regular expression with exactly one group."""
    if patient_regex is None:
        return None
    try:
        pattern = re.compile(patient_regex)
    except re.error as error:
        raise InputError(f"patient_regex (={patient_regex!r}) is not a regular expression: {error}") from error
    if pattern.groups != 1:
        raise InputError(
            f"patient_regex (={patient_regex!r}) must have exactly one group, the patient; try r'(patient\\d+)'"
        )
    return pattern


def printable(name: str) -> str:
    r"""A name whose bytes are no UTF-8, as text that can be printed and hashed.

    >>> print(printable("R\xf6ntgen \udcff"))
    Röntgen \udcff
    """
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def patient_in(path: str, pattern: "re.Pattern[str]") -> str | None:
    """What the pattern's group finds in the path."""
    match = pattern.search(path)
    return printable(match[1]) if match and match[1] else None


def own_patient(path: str) -> str:
    """The key of an image whose patient nobody knows."""
    # The whole path, since 001.png may stand in every class folder and is not one child. What follows the last dot is
    # no suffix in 1.2.840.113619.7.
    whole = PurePosixPath(path)
    return printable(str(whole.with_suffix("") if whole.suffix[1:2].isalpha() else whole))


def split_named(text: str) -> str | None:
    """ "train", "val" or "test" for what people write instead, in any case; None for other words."""
    return next((name for name, known in SPLIT_NAMES.items() if text.strip().lower() in known), None)


def shallowest(paths: list[str]) -> list[str]:
    """The files that stand least deep, sorted."""
    least = min((p.count("/") for p in paths), default=0)
    return sorted(p for p in paths if p.count("/") == least)


def folder_of(path: str) -> str:
    """The folder that a file stands in; "" at the top."""
    return path.rpartition("/")[0]


def is_stray(reason: str) -> bool:
    """Whether a file was refused because nothing counts it as part of the set, rather than for what it holds."""
    return reason == OUTSIDE or reason.endswith(UNNAMED)
