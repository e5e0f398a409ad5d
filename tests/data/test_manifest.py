import json
from dataclasses import replace
from pathlib import Path

import pytest

from expressivegan.data import Manifest, Record, Rejected
from expressivegan.errors import DataError


def record(number: int, label: str = "NORMAL", group: str = "train") -> Record:
    split = "test" if group == "test" else "train"
    return Record(f"{label}/ü{number}.png", label, f"p{number}", split, group, 100, 80, "L", f"{number:064x}")


@pytest.fixture
def manifest() -> Manifest:
    records = (record(1), record(2, "VIRUS", "judge"), record(3, "VIRUS", "test"))
    refused = (Rejected("NORMAL/bad.png", "empty file (0 bytes)"),)
    return Manifest("folder", Path("/data/set"), ("NORMAL", "VIRUS"), "NORMAL", True, records, refused)


def test_round_trip(manifest: Manifest, tmp_path: Path) -> None:
    manifest.write(tmp_path / "m.jsonl")
    assert Manifest.read(tmp_path / "m.jsonl") == manifest
    lines = (tmp_path / "m.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 1 + 3 + 1
    assert json.loads(lines[0])["data_hash"] == manifest.data_hash
    assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]  # no temporary file is left


def test_hash_says_what_matters(manifest: Manifest) -> None:
    moved = tuple(replace(r, path="elsewhere/" + r.path) for r in reversed(manifest.records))
    assert replace(manifest, records=moved, root=Path("/other")).data_hash == manifest.data_hash
    for change in ({"label": "VIRUS"}, {"patient": "q"}, {"group": "judge"}, {"sha256": "0" * 64}):
        other = (replace(manifest.records[0], **change), *manifest.records[1:])
        assert replace(manifest, records=other).data_hash != manifest.data_hash
    assert replace(manifest, classes=("VIRUS", "NORMAL")).data_hash != manifest.data_hash


def test_counts(manifest: Manifest) -> None:
    assert manifest.counts()["judge"] == {"NORMAL": 0, "VIRUS": 1}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"format": "expressivegan-manifest"', '"format": "other"'),
        ('"label": "VIRUS"', '"label": "COVID"'),
        ('"patient": "p1"', '"patient": "p9"'),
        ('"path": "NORMAL/ü1.png"', '"path": "../../etc/passwd"'),
        ('"path": "NORMAL/ü1.png"', '"path": "/etc/passwd"'),
        ('"mode": "L"', '"mood": "L"'),
        ('"sha256"', '"sha'),
    ],
)
def test_damage_is_noticed(manifest: Manifest, tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "m.jsonl"
    manifest.write(path)
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(DataError, match=r"m\.jsonl is no readable manifest"):
        Manifest.read(path)


def test_a_lost_line_is_noticed(manifest: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    manifest.write(path)
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]), "utf-8")
    with pytest.raises(DataError, match="do not match"):
        Manifest.read(path)


def test_other_version_missing_and_unwritable(manifest: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    manifest.write(path)
    path.write_text(path.read_text("utf-8").replace('"version": 2', '"version": 99'), "utf-8")
    with pytest.raises(DataError, match="manifest version 99"):
        Manifest.read(path)
    with pytest.raises(DataError, match="cannot read"):
        Manifest.read(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="cannot write"):
        manifest.write(tmp_path / "no" / "folder.jsonl")
