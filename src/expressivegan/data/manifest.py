"""The manifest: which image is whose, shows what, and may be used for what. One readable file.

On disk it is JSON lines. The first line is a header (`format`, `version`, `source`, `root`, `classes`, ...), each
further line one image (`{"path": ..., "label": ..., ...}`) or one refusal (`{"rejected": path, "reason": ...}`).
"""

import hashlib
import json
import os
import uuid
from collections import Counter
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from expressivegan.errors import DataError

FORMAT = "expressivegan-manifest"
VERSION = 1
GROUPS = ("train", "judge", "reference", "test")


@dataclass(frozen=True)
class Record:
    """One usable image."""

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
    """Pixels in the file, before any EXIF rotation."""
    height: int
    mode: str
    """Pillow's name of the pixel format in the file."""
    sha256: str
    """Of the file's bytes."""


@dataclass(frozen=True)
class Rejected:
    """One file that was found and is not used."""

    path: str
    reason: str


def write_atomically(path: Path, data: bytes) -> None:
    """Writes under a temporary name, flushes, renames: a reader sees the old file or the new one, never half of one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class Manifest:
    """The whole data set, without pixels."""

    source: str
    """"kermany", "folder" or "phantom"."""
    root: Path
    """Folder that the paths of the records are relative to."""
    classes: tuple[str, ...]
    """Class names; label number i is classes[i]."""
    reference_class: str | None
    """The class without disease, or None."""
    patients_known: bool
    """False where every image had to be taken for a patient of its own."""
    records: tuple[Record, ...]
    rejected: tuple[Rejected, ...] = ()

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 over the classes and the sorted (label, patient, group, sha256) of all records; paths don't count."""
        rows = sorted((r.label, r.patient, r.group, r.sha256) for r in self.records)
        return hashlib.sha256(json.dumps([list(self.classes), rows]).encode()).hexdigest()

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over the files' hashes in the order of the records: what the pixels depend on, and nothing else."""
        return hashlib.sha256("\n".join(r.sha256 for r in self.records).encode()).hexdigest()

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
        lines: list[dict[str, Any]] = [header, *(asdict(r) for r in self.records)]
        lines += [{"rejected": r.path, "reason": r.reason} for r in self.rejected]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        try:
            write_atomically(Path(path), text.encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise DataError(f"cannot write the manifest {path}: {error}; choose a writable folder") from error

    @classmethod
    def read(cls, path: Path | str) -> "Manifest":
        """Reads what `write` wrote, and checks it against the hash that it carries.

        Raises:
            DataError: missing, not a manifest, of another version, damaged, or with a path that leaves its root.
        """
        try:
            text = Path(path).read_bytes().decode("utf-8", "surrogateescape")
        except OSError as error:
            raise DataError(f"cannot read the manifest {path}: {error}") from error
        try:
            return cls._parse(text, path)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{path} is no readable manifest ({error}); write it anew with Manifest.write") from error

    @classmethod
    def _parse(cls, text: str, path: Path | str) -> "Manifest":
        first, _, rest = text.partition("\n")
        header = json.loads(first)
        if header.get("format") != FORMAT:
            raise ValueError(f"its first line does not say format={FORMAT!r}")
        if header["version"] != VERSION:
            raise DataError(f"{path} has manifest version {header['version']}, this program reads {VERSION}; remake it")
        names = {f.name for f in fields(Record)}
        records, rejected = [], []
        for number, line in enumerate(rest.splitlines(), start=2):
            row = json.loads(line)
            if "rejected" in row:
                rejected.append(Rejected(row["rejected"], row["reason"]))
                continue
            if set(row) != names:
                raise ValueError(f"line {number} has the fields {sorted(row)}")
            record = Record(**row)
            pure = PurePosixPath(record.path)
            if pure.is_absolute() or ".." in pure.parts or Path(record.path).is_absolute():
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
        )
        if manifest.data_hash != header["data_hash"] or len(records) != header["images"]:
            raise ValueError("its lines do not match the data_hash of its header")
        return manifest
