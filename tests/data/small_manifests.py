"""Manifests of a few records, without files."""

import hashlib
from pathlib import Path
from typing import Any

from expressivegan.data import Manifest, Record


def image(path: str, patient: str = "", group: str = "train", label: str = "NORMAL", **fields: Any) -> Record:
    split = "test" if group == "test" else "train"
    given: dict[str, Any] = {
        "width": 400,
        "height": 300,
        "mode": "L",
        "sha256": hashlib.sha256(path.encode()).hexdigest(),
        **fields,
    }
    return Record(path, label, patient or path, split, group, **given)


def manifest_with(*records: Record) -> Manifest:
    labels = tuple(sorted({r.label for r in records}))
    return Manifest("folder", Path("/data/set"), labels, None, True, records)


def paths(manifest: Manifest) -> list[str]:
    return [r.path for r in manifest.records]


def of(manifest: Manifest, path: str) -> Record:
    return next(r for r in manifest.records if r.path == path)


def leaking() -> Manifest:
    return manifest_with(
        image("a", "p"), image("b", "p", "test"), image("c", "q"), image("d", "r", "judge"), image("e", "s")
    )
