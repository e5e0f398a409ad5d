"""Remedies for what the doctor's report says."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_manifests import image, leaking, of, paths

from expressivegan.data.fix import describe, fix, plan_from_report, read_report
from expressivegan.errors import DataError, InputError


def report() -> dict[str, Any]:
    def finding(check: str, *items: dict[str, Any], severity: str = "high", **more: Any) -> dict[str, Any]:
        return {"check": check, "severity": severity, "items": list(items), **more}

    return {
        "findings": [
            finding("exact-duplicates", {"paths": ["c", "e"]}),
            finding("near-duplicates", {"paths": ["a", "d"]}, {"paths": ["a", "lost"]}),
            finding("patients-across-splits", {"paths": ["a", "b"]}),
            finding("markers", {"paths": ["b"], "boxes": [[0.1, 0.1, 0.2, 0.2], [0, 0, 0.1, 0.1]]}),
            finding("geometry-shortcut"),
            finding("label-noise", remedy="look at them"),
            finding("prevalence", severity="ok"),
        ]
    }


def test_a_plan_repairs_what_the_doctor_found() -> None:
    plan = plan_from_report(json.loads(json.dumps(report())))
    assert plan.leaks
    assert [note.partition(":")[0] for note in plan.notes] == ["geometry-shortcut", "label-noise"]
    with pytest.raises(InputError, match="'lost', which is not in the manifest"):
        fix(leaking(), **plan.arguments())
    plan = plan.for_manifest(leaking())
    assert "1 images of the report are not in the manifest, such as lost" in plan.notes[-1]
    more = replace(leaking(), records=(*leaking().records, image("f", group="judge")))
    fixed = fix(more, **plan.arguments())
    assert paths(fixed) == ["a", "b", "c", "d", "f"]
    assert {r.patient for r in fixed.records if r.path in "abd"} == {"p"}
    assert {r.group for r in fixed.records if r.path in "abd"} == {"test"}
    assert len(of(fixed, "b").masks) == 2
    assert [(row.kind, row.images) for row in describe(fixed.changes)] == [("duplicate", 1), ("leak", 2), ("marker", 1)]


def test_near_duplicates_can_be_dropped_or_left() -> None:
    assert plan_from_report(report(), near="drop").duplicates == (("c", "e"), ("a", "d"), ("a", "lost"))
    assert plan_from_report(report(), near="drop").same_patient == ()
    kept = plan_from_report(report(), near="keep")
    assert (kept.duplicates, kept.same_patient) == ((("c", "e"),), ())
    with pytest.raises(InputError, match=r"near \(='x'\)"):
        plan_from_report(report(), near="x")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "broken", [{}, {"findings": [{"check": "markers", "items": [{"paths": ["a"]}]}]}, {"findings": 3}]
)
def test_a_report_of_another_layout_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="not laid out as data doctor writes it"):
        plan_from_report(broken)


def test_a_report_that_cannot_be_read(tmp_path: Path) -> None:
    for content in (b"{", b"[]", b"\xff"):
        (tmp_path / "r.json").write_bytes(content)
        with pytest.raises(DataError, match=r"report .*r\.json.* data doctor wrote"):
            read_report(tmp_path / "r.json")
    with pytest.raises(DataError, match="cannot read the report"):
        read_report(tmp_path / "none.json")
