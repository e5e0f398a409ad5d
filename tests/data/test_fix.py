"""Remedies, one by one and all together, and the way back."""

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from PIL import Image

from expressivegan.data import Manifest, Record, load_images, read_manifest
from expressivegan.data.fix import (
    KINDS,
    area_kept,
    best_aspect,
    crop_border,
    describe,
    drop_duplicates,
    equalise_geometry,
    fix,
    keep_patients_together,
    mask_markers,
    plan_from_report,
    read_report,
    same_files,
    undo,
    within,
)
from expressivegan.errors import DataError, InputError


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


# --- duplicates -------------------------------------------------------------------------------------------------------


def test_the_copy_furthest_from_training_stays() -> None:
    m = manifest_with(image("a"), image("b", group="test"), image("c", group="judge"), image("d"))
    fixed = drop_duplicates(m, [["a", "b", "c"]])
    assert paths(fixed) == ["b", "d"]
    assert {c.path: c.why for c in fixed.changes} == {"a": "a copy of b", "c": "a copy of b"}


def test_an_undealt_manifest_keeps_the_copy_in_the_test_folder() -> None:
    tested = replace(image("b"), split="test")  # as a survey of a folder gives it: every group is "train"
    assert paths(drop_duplicates(manifest_with(image("a"), tested), [["a", "b"]])) == ["b"]


def test_among_equals_the_largest_least_compressed_and_first_stays() -> None:
    small, large = image("a", width=100), image("b", quality=60)
    png, other = image("c"), image("d")
    m = manifest_with(small, large, png, other)
    assert paths(drop_duplicates(m, [["b", "a"]])) == ["b", "c", "d"]
    assert paths(drop_duplicates(m, [["b", "c"]])) == ["a", "c", "d"]
    assert paths(drop_duplicates(m, [["d", "c"]])) == ["a", "b", "c"]
    assert paths(drop_duplicates(m, [["b", "c"], ["d", "b"]])) == ["a", "c"]  # groups that overlap are one


def test_copies_under_two_classes_all_go() -> None:
    m = manifest_with(image("a"), image("b", label="VIRUS"), image("c"), image("d", label="VIRUS"))
    fixed = drop_duplicates(m, [["a", "b"]])
    assert paths(fixed) == ["c", "d"]
    assert "under NORMAL and VIRUS" in fixed.changes[0].why


# --- patients ---------------------------------------------------------------------------------------------------------


def leaking() -> Manifest:
    return manifest_with(
        image("a", "p"), image("b", "p", "test"), image("c", "q"), image("d", "r", "judge"), image("e", "s")
    )


def test_a_leaking_patient_goes_to_test() -> None:
    fixed = keep_patients_together(leaking())
    assert (of(fixed, "a").split, of(fixed, "a").group) == ("test", "test")
    assert [c.path for c in fixed.changes] == ["a"]
    assert "patient p is in test and train" in fixed.changes[0].why


def test_a_patient_leaks_between_folders_that_were_not_dealt_yet() -> None:
    tested = replace(image("b", "p"), split="test")
    fixed = keep_patients_together(manifest_with(image("a", "p"), tested, image("c")))
    assert [(r.split, r.group) for r in fixed.records] == [("test", "train"), ("test", "train"), ("train", "train")]


def test_or_to_train_where_that_is_asked_for() -> None:
    fixed = keep_patients_together(leaking(), to="train")
    assert (of(fixed, "b").split, of(fixed, "b").group) == ("train", "train")
    with pytest.raises(InputError, match=r"leaks_to \(='judge'\)"):
        keep_patients_together(leaking(), to="judge")  # type: ignore[arg-type]


def test_patients_who_are_one_get_one_name_and_one_group() -> None:
    fixed = keep_patients_together(leaking(), [["r", "q"]])
    assert of(fixed, "c").patient == of(fixed, "d").patient == "q"
    assert of(fixed, "c").group == of(fixed, "d").group == "judge"
    assert describe(fixed.changes)[0].why == "2 images moved, 1 patients joined to another"


def test_a_shared_duplicate_makes_patients_one_though_one_copy_is_gone() -> None:
    m = manifest_with(
        image("a1", "a"), image("a2", "a"), image("b1", "b", "test"), image("b2", "b", "test"), image("z")
    )
    fixed = fix(m, duplicates=[["a1", "b1"]], leaks=True)
    assert paths(fixed) == ["a2", "b1", "b2", "z"]
    assert {(r.patient, r.group) for r in fixed.records[:3]} == {("a", "test")}
    assert of(fix(m, duplicates=[["a1", "b1"]]), "a2").group == "train"


# --- pixels -----------------------------------------------------------------------------------------------------------


def test_crops_compose() -> None:
    m = manifest_with(image("a", crop=(0.5, 0.0, 1.0, 0.5)))
    assert crop_border(m, 0.1).records[0].crop == pytest.approx((0.55, 0.05, 0.95, 0.45))
    with pytest.raises(InputError, match=r"border \(=0\.5\)"):
        crop_border(m, 0.5)
    with pytest.raises(DataError, match="leaves less than 16 pixels of a"):
        crop_border(manifest_with(image("a", width=24, height=24)), 0.2)


def test_masks_add_up_and_do_not_repeat() -> None:
    m = manifest_with(image("a", masks=((0.0, 0.0, 0.1, 0.1),)))
    fixed = mask_markers(m, {"a": [(0.0, 0.0, 0.1, 0.1), (0.9, 0.0, 1.0, 0.1), (0.9, 0.0, 1.0, 0.1)]})
    assert fixed.records[0].masks == ((0.0, 0.0, 0.1, 0.1), (0.9, 0.0, 1.0, 0.1))
    assert mask_markers(fixed, {"a": [(0.9, 0.0, 1.0, 0.1)]}) == fixed
    for box in [(0.5, 0.0, 0.5, 1.0), (0.0, 0.0, 1.1, 1.0), (0.0, 0.0, float("nan"), 1.0), (0.0, 0.5)]:
        with pytest.raises(InputError, match=r"markers\['a'\]"):
            mask_markers(m, {"a": [box]})  # type: ignore[list-item]


def test_geometry_is_equal_afterwards_whatever_was_cropped_before() -> None:
    m = manifest_with(image("wide", width=800), image("tall", height=900), image("cut", crop=(0.0, 0.0, 0.5, 1.0)))
    fixed = equalise_geometry(m, aspect=1.25)
    for r in fixed.records:
        left, top, right, bottom = r.crop or (0, 0, 1, 1)
        assert r.width * (right - left) / (r.height * (bottom - top)) == pytest.approx(1.25)
    wide = of(fixed, "wide").crop
    assert wide is not None
    assert (wide[0] + wide[2]) / 2 == pytest.approx(0.5)  # out of the centre
    cut = of(fixed, "cut").crop
    assert cut is not None
    assert cut[0] == 0.0
    assert cut[2] == 0.5
    assert "aspect 2.67 cut to 1.25, 53.1% of the area lost" in fixed.changes[0].why
    assert equalise_geometry(fixed, aspect=1.25) == fixed  # nothing left to do


@given(st.lists(st.floats(0.2, 5.0), min_size=1, max_size=30))
def test_no_aspect_costs_less_than_the_best(ratios: list[float]) -> None:
    def kept(aspect: float) -> float:
        return float(np.mean([area_kept(r, aspect) for r in ratios]))

    best = kept(best_aspect(ratios))
    assert all(kept(a) <= best + 1e-12 for a in [*ratios, *np.geomspace(0.2, 5.0, 200)])


def test_sizes_are_those_of_the_upright_picture(tmp_path: Path) -> None:
    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50), np.uint8))
    for name, orientation in [("flat", 1), ("turned", 6)]:
        (tmp_path / "A").mkdir(exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = orientation
        pixels.save(tmp_path / "A" / f"{name}.jpg", exif=exif)
    pixels.rotate(90, expand=True).save(tmp_path / "A" / "z.png")
    with pytest.warns(UserWarning, match="EVERY IMAGE COUNTS AS A PATIENT"):
        m = read_manifest(tmp_path, progress=False)
    assert {r.path: (r.width, r.height) for r in m.records} == {
        "A/flat.jpg": (50, 30),
        "A/turned.jpg": (30, 50),
        "A/z.png": (30, 50),
    }
    fixed = fix(m, aspect=1.0)
    assert of(fixed, "A/turned.jpg").crop == of(fixed, "A/z.png").crop == pytest.approx((0, 0.2, 1, 0.8))


def test_what_cannot_be_done_to_phantoms_is_refused(phantoms: Any) -> None:
    m = phantoms.manifest
    for remedy in ({"markers": {m.records[0].path: [(0, 0, 0.1, 0.1)]}}, {"border": 0.1}, {"geometry": True}):
        with pytest.raises(InputError, match="cannot be applied to phantoms"):
            fix(m, **remedy)


# --- all together -----------------------------------------------------------------------------------------------------


def test_unknown_paths_are_named() -> None:
    for remedy in ({"duplicates": [["a", "x"]]}, {"same_patient": [["x", "a"]]}, {"markers": {"x": []}}):
        with pytest.raises(InputError, match=r"names 'x', which is not in the manifest"):
            fix(leaking(), **remedy)  # type: ignore[arg-type]


def test_a_path_that_stands_there_twice_is_refused() -> None:
    with pytest.raises(DataError, match="a stands in the manifest more than once"):
        fix(manifest_with(image("a"), image("a")))


def test_nothing_may_be_emptied() -> None:
    m = manifest_with(image("a"), image("b", label="VIRUS"), image("c"), image("d", "p", "test"), image("e", "p"))
    with pytest.raises(DataError, match="class VIRUS would have no image left"):
        fix(m, duplicates=[["a", "b"]])
    with pytest.raises(DataError, match="group test would have no image left"):
        fix(m, leaks=True, leaks_to="train")
    only = manifest_with(image("a", "p"), image("b", "p", "test"), image("c", label="VIRUS"))
    with pytest.raises(DataError, match="class NORMAL of the training images would have no image left"):
        fix(only, leaks=True)


BOXES = st.tuples(*[st.floats(0, 0.45)] * 2, *[st.floats(0.55, 1)] * 2)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    groups = [("train", "train"), ("train", "judge"), ("train", "reference"), ("test", "test"), ("test", "train")]
    records = [  # of these no remedy takes anything away, so that nothing is emptied
        replace(image(f"{label}/{split}/{group}.png", label=label), split=split, group=group)
        for label in "NV"
        for split, group in groups
    ]
    for number in range(draw(st.integers(3, 12))):
        group = draw(st.sampled_from(["train", "train", "judge", "reference", "test"]))
        split = "test" if group == "test" else "train"
        if draw(st.booleans()):
            group = "train"  # not dealt
        records.append(
            Record(
                path=f"{number}ü.png",
                label=draw(st.sampled_from(["N", "V"])),
                patient=f"p{draw(st.integers(0, 5))}",
                split=split,
                group=group,
                width=draw(st.integers(100, 900)),
                height=draw(st.integers(100, 900)),
                mode="L",
                sha256=f"{number:064x}",
                quality=draw(st.sampled_from([None, 75])),
                official=draw(st.sampled_from([None, "val"])),
                crop=draw(st.none() | BOXES),
                masks=tuple(draw(st.lists(BOXES, max_size=1))),
            )
        )
    return manifest_with(*draw(st.permutations(records)))


@st.composite
def remedies(draw: st.DrawFn, m: Manifest) -> dict[str, Any]:
    """Arguments of `fix`."""
    names = st.sampled_from([path for path in paths(m) if "/" not in path])
    groups = st.lists(st.lists(names, max_size=3), max_size=3)
    return {
        "duplicates": draw(groups),
        "same_patient": draw(groups),
        "leaks": draw(st.booleans()),
        "leaks_to": draw(st.sampled_from(["test", "train"])),
        "markers": draw(st.dictionaries(names, st.lists(BOXES, max_size=2), max_size=3)),
        "border": draw(st.sampled_from([0.0, 0.05])),
        "geometry": draw(st.booleans()),
    }


OFF: dict[str, dict[str, Any]] = {
    "duplicate": {"duplicates": []},
    "leak": {"same_patient": [], "leaks": False},
    "marker": {"markers": {}},
    "border": {"border": 0.0},
    "geometry": {"geometry": False},
}


def tried(m: Manifest, arguments: dict[str, Any]) -> Manifest:
    """`fix`, or the manifest as it is where that would empty a class or group."""
    known = set(paths(m))
    arguments = {
        **arguments,
        "duplicates": [[p for p in g if p in known] for g in arguments["duplicates"]],
        "same_patient": [[p for p in g if p in known] for g in arguments["same_patient"]],
        "markers": {p: b for p, b in arguments["markers"].items() if p in known},
    }
    try:
        return fix(m, **arguments)
    except DataError:
        event("would be emptied")
        return m


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_undo_gives_back_exactly_what_was_there(data: st.DataObject) -> None:
    m = data.draw(manifests())
    once = tried(m, data.draw(remedies(m)))
    twice = tried(once, data.draw(remedies(m)))
    assert undo(once) == m
    assert undo(twice) == m
    assert undo(twice).data_hash == m.data_hash
    assert paths(undo(twice)) == paths(m)
    count = len(twice.changes) - len(once.changes)
    assert twice.changes[: len(once.changes)] == once.changes
    assert count >= 0


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_the_last_kinds_can_be_undone_and_the_first_stay(data: st.DataObject) -> None:
    m = data.draw(manifests())
    arguments = data.draw(remedies(m))
    cut = data.draw(st.integers(0, len(KINDS)))
    first = dict(arguments)
    for kind in KINDS[cut:]:
        first |= OFF[kind]
    if cut == 1:  # without leaks, duplicates alone
        first["leaks"] = False
    try:
        fixed, expected = fix(m, **arguments), fix(m, **first)
    except DataError:
        return
    assert undo(fixed, kinds=KINDS[cut:]) == expected


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_any_partial_undo_is_refused_or_consistent(data: st.DataObject) -> None:
    m = data.draw(manifests())
    fixed = tried(tried(m, data.draw(remedies(m))), data.draw(remedies(m)))
    kinds = data.draw(st.sets(st.sampled_from(KINDS)))
    changed = sorted({c.path for c in fixed.changes})
    some = data.draw(st.none() | st.sets(st.sampled_from(changed))) if changed else None
    try:
        part = undo(fixed, kinds, some)
    except InputError as error:
        said = str(error)
        event("refused")
    else:
        said = "first"
        event("undone")
        check_partial(m, fixed, part, kinds, some)
    assert "first" in said  # a refusal says what to undo before


def check_partial(m: Manifest, fixed: Manifest, part: Manifest, kinds: set[str], some: set[str] | None) -> None:
    gone = [c for c in fixed.changes if c.kind in kinds and (some is None or c.path in some)]
    assert part.changes == tuple(c for c in fixed.changes if c not in gone)
    assert undo(part) == m  # the rest can still be undone
    moved = {c.path for c in part.changes if c.kind == "leak"}
    for r in part.records:
        if r.path in moved:  # whoever was brought together is together still, but for images that nobody moved
            apart = [o for o in part.records if o.patient == r.patient and (o.split, o.group) != (r.split, r.group)]
            assert all(o.path not in {c.path for c in gone} for o in apart)


# --- undo -------------------------------------------------------------------------------------------------------------


def test_undo_says_what_to_undo_first() -> None:
    m = manifest_with(image("a", width=900, height=300), image("b", width=400, height=300))
    fixed = fix(m, border=0.1, aspect=1.0)
    with pytest.raises(InputError, match=r"border change of b cannot be undone alone.* undo geometry first"):
        undo(fixed, kinds={"border"})
    assert undo(fixed, kinds={"geometry"}) == fix(m, border=0.1)
    dropped = drop_duplicates(mask_markers(m, {"a": [(0, 0, 0.1, 0.1)]}), [["a", "b"]])
    gone = dropped.changes[-1].path
    assert gone == "b"
    masked_then_dropped = drop_duplicates(mask_markers(m, {"b": [(0, 0, 0.1, 0.1)]}), [["a", "b"]])
    with pytest.raises(InputError, match=r"marker change of b .* undo duplicate first"):
        undo(masked_then_dropped, kinds={"marker"})


def test_a_patient_is_not_taken_apart_by_half() -> None:
    m = manifest_with(image("a", "p"), image("b", "p"), image("c", "p", "test"), image("d"))
    fixed = fix(m, leaks=True)
    with pytest.raises(InputError, match="would split patient p"):
        undo(fixed, paths={"a"})
    assert undo(fixed, paths={"a", "b"}) == m
    copied = fix(m, duplicates=[["a", "c"]], leaks=True)
    with pytest.raises(InputError, match=r"would split patient p.* undo leak"):
        undo(copied, kinds={"duplicate"})
    more = replace(m, records=(*m.records, image("e", "q"), image("f", "q"), image("g")))
    renamed = fix(more, duplicates=[["d", "e"]], same_patient=[["e", "b"]])
    with pytest.raises(InputError, match="would split patient"):
        undo(renamed, kinds={"duplicate"})


def test_undo_refuses_nonsense_and_foreign_edits() -> None:
    fixed = fix(leaking(), leaks=True, duplicates=[["c", "e"]])
    with pytest.raises(InputError, match=r"kinds names 'crop', which must be one of duplicate"):
        undo(fixed, kinds={"crop"})
    with pytest.raises(InputError, match=r"paths names 'd', which no change has touched"):
        undo(fixed, paths={"d"})
    edited = tuple(replace(r, group="judge") for r in fixed.records)
    with pytest.raises(DataError, match="does not fit its record"):
        undo(replace(fixed, records=edited))
    with pytest.raises(DataError, match="do not fit its images"):
        undo(replace(fixed, records=(*fixed.records, image("e"))))


# --- the doctor's report ----------------------------------------------------------------------------------------------


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


# --- from files to pixels and back ------------------------------------------------------------------------------------


def encoded(pixels: "np.ndarray[Any, Any]") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_from_a_folder_to_repaired_pixels_and_back(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    files: dict[str, bytes] = {}
    for split, patients in [("train", range(12)), ("test", range(100, 104))]:
        for label in ("NORMAL", "SICK"):
            for p in patients:
                files[f"{split}/{label}/{label}{p}_1.png"] = encoded(noise.integers(80, 120, (64, 96)))
    marked = np.full((64, 96), 100)
    marked[4:10, 6:18] = 255
    marked[20:44, 40:60] = noise.integers(0, 60, (24, 20))
    files["train/NORMAL/NORMAL0_1.png"] = encoded(marked)
    files["train/SICK/SICK3_2.png"] = files["train/SICK/SICK3_1.png"]  # a copy
    files["train/SICK/SICK100_2.png"] = encoded(noise.integers(80, 120, (64, 64)))  # a leak
    for path, data in files.items():
        (tmp_path / "set" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / path).write_bytes(data)
    with pytest.warns(UserWarning, match="also in the test folder"):
        m = read_manifest(tmp_path / "set", patient_regex=r"/([A-Z]+\d+)_", progress=False)
    leaky = replace(  # as it would be, had nobody looked
        m, records=tuple(replace(r, split="train", group="train") if "SICK100_2" in r.path else r for r in m.records)
    )
    before = load_images_of(leaky, tmp_path)
    assert same_files(leaky) == [["train/SICK/SICK3_1.png", "train/SICK/SICK3_2.png"]]
    fixed = fix(
        leaky,
        duplicates=same_files(leaky),
        leaks=True,
        markers={"train/NORMAL/NORMAL0_1.png": [(6 / 96, 4 / 64, 18 / 96, 10 / 64)]},
        border=1 / 32,
        aspect=1.0,
    )
    fixed.write(tmp_path / "fixed.jsonl")
    again = Manifest.read(tmp_path / "fixed.jsonl")
    assert again == fixed
    after = load_images(tmp_path / "fixed.jsonl", 60, progress=False)
    assert len(after) == len(before) - 1
    assert after.manifest.counts()["test"]["SICK"] == before.manifest.counts()["test"]["SICK"] + 1
    where = paths(fixed).index("train/NORMAL/NORMAL0_1.png")
    painted = marked.copy()
    painted[4:10, 6:18] = 100
    middle = painted[2:62, 18:78]  # 1/32 off each side leaves 60 x 90, and the centre of that is 60 x 60
    assert np.array_equal(after.images[where], middle)
    assert {path: (tmp_path / "set" / path).read_bytes() for path in files} == files  # no image was touched
    undone = undo(again)
    assert undone == leaky
    assert undone.data_hash == leaky.data_hash
    assert np.array_equal(load_images_of(undone, tmp_path).images, before.images)


def load_images_of(manifest: Manifest, folder: Path) -> Any:
    manifest.write(folder / "temporary.jsonl")
    return load_images(folder / "temporary.jsonl", 60, progress=False)


def test_a_box_of_a_cropped_picture_can_be_told_in_shares_of_the_whole() -> None:
    assert within(None, (0.1, 0.2, 0.3, 0.4)) == pytest.approx((0.1, 0.2, 0.3, 0.4))
    assert within((0.2, 0.2, 0.6, 0.4), (0.5, 0.0, 1.0, 1.0)) == pytest.approx((0.4, 0.2, 0.6, 0.4))
