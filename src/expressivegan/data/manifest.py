"""The manifest: which image is whose, shows what, and may be used for what. One readable file.

On disk it is JSON lines. The first line is a header (`format`, `version`, `source`, `root`, `classes`, ...), each
further line one image (`{"path": ..., "label": ..., ...}`) or one refusal (`{"rejected": path, "reason": ...}`).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from expressivegan.atomic import replacing
from expressivegan.errors import DataError

FORMAT = "expressivegan-manifest"
VERSION = 2
_READABLE = (1, 2)  # version 1 lacks the optional fields of a record, and changes
GROUPS = ("train", "judge", "reference", "test")
_LINES = 1000  # hashed at once
_REPEATED = ("label", "patient", "split", "group", "mode", "official", "sex")


Box = tuple[float, float, float, float]
"""left, top, right, bottom, as shares of width and height of the upright picture, 0..1."""


@dataclass(frozen=True, slots=True)
class Record:
    """One usable image. The optional fields are left out of the file where they hold their defaults."""

    path: str
    """File, relative to the manifest's root, with forward slashes."""
    label: str
    """One of the manifest's classes."""
    patient: str
    """Key of the patient; two images of one key are never in two groups."""
    split: str
    """"train" or "test"."""
    group: str
    """"train" (generator and teacher), "judge" (classifiers that judge), "reference" (distances) or "test"."""
    width: int
    """Pixels of the picture as it is seen, after any EXIF rotation."""
    height: int
    mode: str
    """Pillow's name of the pixel format in the file."""
    sha256: str
    """Of the file's bytes."""
    bytes: int = 0
    """Size of the file; 0 where that means nothing, as for phantoms."""
    quality: int | None = None
    """JPEG quality, 1..100, estimated from the quantisation tables; None for other files."""
    official: str | None = None
    """The split that the data set itself puts it in ("train", "val", "test"), None where it brings none."""
    sex: str | None = None
    """As the data set says: "F", "M"."""
    age: float | None = None
    """Years."""
    crop: Box | None = None
    """The part of the picture that is used; None: all of it."""
    masks: tuple[Box, ...] = ()
    """Parts, in shares of the uncropped picture, that are painted over with the grey around them."""

    @property
    def pixel_key(self) -> str:
        """What the pixels depend on: the file's hash, and the edits."""
        if self.crop is None and not self.masks:
            return self.sha256
        return hashlib.sha256(json.dumps([self.sha256, self.crop, self.masks]).encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """The fields, without those that hold their defaults."""
        return {name: value for name, default in _RECORD_FIELDS if (value := getattr(self, name)) != default}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Record":
        """What `as_json` gave. Raises TypeError or ValueError for other fields or values."""
        edits: dict[str, Any] = {}
        if row.get("crop") is not None:
            edits["crop"] = _box(row["crop"])
        if "masks" in row:
            edits["masks"] = tuple(_box(b) for b in row["masks"])
        return cls(**{**row, **edits})


_RECORD_FIELDS = tuple((f.name, f.default) for f in fields(Record))
_NEEDED = frozenset(name for name, default in _RECORD_FIELDS if default is MISSING)
_ALLOWED = frozenset(name for name, _ in _RECORD_FIELDS)


def _box(values: Any) -> Box:
    left, top, right, bottom = (float(v) for v in values)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(f"box {values} must be left < right and top < bottom within 0..1")
    return left, top, right, bottom


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that `fix` did to one image, with all it takes to undo it."""

    kind: str
    """"duplicate", "leak", "marker", "border" or "geometry"."""
    path: str
    before: dict[str, Any] | None
    """The fields of the record that changed, as they were; where it was dropped all of it, and its "position"."""
    after: dict[str, Any] | None
    """The same fields, as they are; None where the record was dropped."""
    why: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """One file that was found and is not used."""

    path: str
    reason: str


def _leaves(path: str) -> bool:
    if path.startswith("/") or (".." in path and ".." in PurePosixPath(path).parts):
        return True
    return (":" in path or "\\" in path) and Path(path).is_absolute()  # only Windows has those


def is_manifest(path: Path) -> bool:
    """Whether a file begins as `Manifest.write` begins."""
    with path.open("rb") as file:
        return f'"format": "{FORMAT}"'.encode() in file.read(200)


@dataclass(frozen=True)
class Manifest:
    """The whole data set, without pixels."""

    source: str
    """The layout: "kermany", "medmnist", "nih", "rsna", "table", "folder", or "phantom"."""
    root: Path
    """Folder or archive that the paths of the records are relative to."""
    classes: tuple[str, ...]
    """Class names; label number i is classes[i]."""
    reference_class: str | None
    """The class without disease, or None."""
    patients_known: bool
    """False where every image had to be taken for a patient of its own."""
    records: tuple[Record, ...]
    rejected: tuple[Rejected, ...] = ()
    changes: tuple[Change, ...] = ()
    """What was done to the manifest since the folder was read, in order."""

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 over the classes and the sorted (label, patient, group, pixel key) of all records, not over paths."""
        rows = sorted((r.label, r.patient, r.group, r.pixel_key) for r in self.records)
        digest = hashlib.sha256(f"[{json.dumps(list(self.classes))}, [".encode())  # one list, never whole in memory
        for start in range(0, len(rows), _LINES):
            text = json.dumps(rows[start : start + _LINES])[1:-1]
            digest.update(f"{', ' if start else ''}{text}".encode())
        digest.update(b"]]")
        return digest.hexdigest()

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over the pixel keys in the order of the records: what the pixels depend on, and nothing else."""
        digest = hashlib.sha256()
        for start in range(0, len(self.records), _LINES):
            text = "\n".join(r.pixel_key for r in self.records[start : start + _LINES])
            digest.update(f"{chr(10) if start else ''}{text}".encode())
        return digest.hexdigest()

    def counts(self) -> dict[str, dict[str, int]]:
        """Images per group and class: counts()["train"]["NORMAL"]."""
        counted = Counter((r.group, r.label) for r in self.records)
        return {group: {label: counted[group, label] for label in self.classes} for group in GROUPS}

    def write(self, path: Path | str) -> None:
        """Writes the manifest atomically.

        Raises:
            DataError: the file cannot be written.
        """
        header = {
            "format": FORMAT,
            "version": VERSION,
            "source": self.source,
            "root": self.root.as_posix(),
            "classes": list(self.classes),
            "reference_class": self.reference_class,
            "patients_known": self.patients_known,
            "data_hash": self.data_hash,
            "images": len(self.records),
            "rejected": len(self.rejected),
        }
        changes = (
            {"change": c.kind, "path": c.path, "before": c.before, "after": c.after, "why": c.why} for c in self.changes
        )
        rejected = ({"rejected": r.path, "reason": r.reason} for r in self.rejected)
        lines = chain([header], (r.as_json() for r in self.records), changes, rejected)
        encode = json.JSONEncoder(ensure_ascii=False).encode
        try:
            with replacing(Path(path)) as temporary, temporary.open("wb") as file:
                for line in lines:
                    file.write(f"{encode(line)}\n".encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise DataError(f"cannot write the manifest {path}: {error}; choose a writable folder") from error

    @classmethod
    def read(cls, path: Path | str) -> "Manifest":
        """Reads what `write` wrote, and checks it against the hash that it carries.

        Raises:
            DataError: missing, not a manifest, of another version, damaged, or with a path that leaves its root.
        """
        try:
            with Path(path).open("rb") as file:
                return cls._parse((line.decode("utf-8", "surrogateescape") for line in file), path)
        except OSError as error:
            raise DataError(f"cannot read the manifest {path}: {error}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{path} is no readable manifest ({error}); write it anew with Manifest.write") from error

    @classmethod
    def _parse(cls, lines: Iterator[str], path: Path | str) -> "Manifest":
        header = json.loads(next(lines, ""))
        if header.get("format") != FORMAT:
            raise ValueError(f"its first line does not say format={FORMAT!r}")
        if header["version"] not in _READABLE:
            raise DataError(f"{path} has manifest version {header['version']}, this program reads {VERSION}; remake it")
        records, rejected, changes = [], [], []
        shared: dict[str, str] = {}
        for number, line in enumerate(lines, start=2):
            row = json.loads(line)
            if "rejected" in row:
                rejected.append(Rejected(row["rejected"], row["reason"]))
                continue
            if "change" in row:
                changes.append(Change(row["change"], row["path"], row["before"], row["after"], row["why"]))
                continue
            if not _NEEDED <= row.keys() <= _ALLOWED:
                raise ValueError(f"line {number} has the fields {sorted(row)}")
            for name in _REPEATED:
                value = row.get(name)
                if isinstance(value, str):  # one object for all the images that share it
                    row[name] = shared.setdefault(value, value)
            record = Record.from_json(row)
            if _leaves(record.path):
                raise ValueError(f"line {number} names {record.path!r}, which leaves the root")
            if record.label not in header["classes"] or record.group not in GROUPS:
                raise ValueError(f"line {number} has the label {record.label!r} and the group {record.group!r}")
            records.append(record)
        manifest = cls(
            source=str(header["source"]),
            root=Path(header["root"]),
            classes=tuple(header["classes"]),
            reference_class=header["reference_class"],
            patients_known=bool(header["patients_known"]),
            records=tuple(records),
            rejected=tuple(rejected),
            changes=tuple(changes),
        )
        if manifest.data_hash != header["data_hash"] or len(records) != header["images"]:
            raise ValueError("its lines do not match the data_hash of its header")
        return manifest
