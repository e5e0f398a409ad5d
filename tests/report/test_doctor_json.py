"""The doctor's JSON: its schema, and that nothing is lost or changed on the way."""

import json
import os
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import doctor_examples as examples
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from expressivegan.data.doctor.finding import Diagnosis, Figure, Finding
from expressivegan.errors import DataError
from expressivegan.report.doctor import as_json, write_json


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    text = resources.files("expressivegan.report").joinpath("doctor.schema.json").read_text("utf-8")
    return dict(json.loads(text))


@pytest.fixture
def written(tmp_path: Path) -> Any:
    write_json(examples.full(), tmp_path / "doctor.json")
    return json.loads((tmp_path / "doctor.json").read_bytes().decode("utf-8"), parse_constant=pytest.fail)


def test_the_schema_is_a_schema(schema: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("diagnosis", [examples.full(), examples.clean(), replace(examples.full(), findings=())])
def test_output_follows_the_schema(schema: dict[str, Any], diagnosis: Diagnosis, tmp_path: Path) -> None:
    write_json(diagnosis, tmp_path / "doctor.json")
    Draft202012Validator(schema).validate(json.loads((tmp_path / "doctor.json").read_text("utf-8")))


@pytest.mark.parametrize(
    ("key", "value"),
    [("version", 2), ("worst", "fatal"), ("unknown", 1), ("counts", {}), ("findings", [{"check": "x"}])],
)
def test_the_schema_refuses_what_is_wrong(schema: dict[str, Any], key: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Draft202012Validator(schema).validate({**as_json(examples.full()), key: value})


def test_every_field_is_documented(schema: dict[str, Any]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "doctor-report.md").read_text("utf-8")
    fields = [
        *schema["properties"],
        *schema["$defs"]["finding"]["properties"],
        *schema["$defs"]["figure"]["properties"],
    ]
    assert [name for name in fields if f"`{name}`" not in page] == []


def test_the_documented_example_follows_the_schema(schema: dict[str, Any]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "doctor-report.md").read_text("utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    Draft202012Validator(schema).validate(json.loads(example))


def test_findings_stand_by_severity_and_are_counted() -> None:
    diagnosis = examples.full()
    found = as_json(replace(diagnosis, findings=diagnosis.findings[::-1]))
    assert [f["severity"] for f in found["findings"]] == (
        ["high"] * 2 + ["medium"] * 3 + ["low"] * 2 + ["ok"] * 4 + ["skipped"] * 2
    )
    assert found["counts"] == {"high": 2, "medium": 3, "low": 2, "ok": 4, "skipped": 2}
    assert found["worst"] == "high"


def test_all_items_and_rows_are_kept_and_pictures_are_counted(written: Any) -> None:
    by_check = {f["check"]: f for f in written["findings"]}
    assert len(by_check["label-noise"]["items"]) == 5000
    assert by_check["label-noise"]["pictures"] == 15
    assert len(by_check["patients-across-splits"]["table"]["rows"]) == 180
    assert by_check["covariate-shift"]["table"] is None
    assert by_check["exact-duplicates"]["items"][3] == {"paths": ["train/a3.jpeg", "train/b3.jpeg"], "distance": 0.75}


def test_what_is_not_finite_becomes_null(written: Any) -> None:
    markers = next(f for f in written["findings"] if f["check"] == "markers")
    assert markers["figures"][0] == {"name": "AUC, marker", "value": None, "low": None, "high": None, "expected": 0.5}
    assert written["seconds"]["markers"] is None
    item = {"paths": [], "x": [np.float64("inf"), np.int64(3), np.bool_(True), float("-inf")], "y": {"z": np.arange(2)}}
    diagnosis = replace(examples.clean(), findings=(Finding("a", "low", "b", (Figure("c", np.nan),), items=(item,)),))
    assert as_json(diagnosis)["findings"][0]["items"] == [{"paths": [], "x": [None, 3, True, None], "y": {"z": [0, 1]}}]


def test_an_object_that_json_does_not_know_is_named() -> None:
    finding = Finding("a", "low", "b", items=({"paths": [], "x": object()},))
    with pytest.raises(TypeError, match="of type object"):
        as_json(replace(examples.clean(), findings=(finding,)))


def test_names_come_back_as_they_were(written: Any, tmp_path: Path) -> None:
    items = next(f for f in written["findings"] if f["check"] == "patients-across-splits")["items"]
    names = [item["paths"][0] for item in items]
    assert names == list(examples.HOSTILE)
    assert os.fsencode(names[3]) == b"caf\xe9/\xff.jpg"
    write_json(examples.full(), tmp_path / "again.json")
    text = (tmp_path / "again.json").read_bytes().decode("utf-8")
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert "שלום/肺.png" in text


def test_the_file_says_what_as_json_gives_with_a_file_on_each_line(tmp_path: Path) -> None:
    write_json(examples.full(), tmp_path / "doctor.json")
    text = (tmp_path / "doctor.json").read_text("utf-8")
    assert json.loads(text) == as_json(examples.full())
    assert sum('"paths": ["train/VIRUS/' in line for line in text.splitlines()) == 5000


def test_the_same_diagnosis_gives_the_same_bytes(tmp_path: Path) -> None:
    write_json(examples.full(), tmp_path / "a.json")
    write_json(examples.full(), tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_failing_write_leaves_nothing_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "doctor.json"
    target.write_text("before")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(DataError, match=r"doctor\.json.*No space left.*choose a writable folder"):
        write_json(examples.full(), target)
    assert [p.name for p in tmp_path.iterdir()] == ["doctor.json"]
    assert target.read_text() == "before"


def test_a_missing_folder_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="choose a writable folder"):
        write_json(examples.clean(), tmp_path / "missing" / "doctor.json")
    assert list(tmp_path.iterdir()) == []
