"""The way back from any remedies, all or some of them."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from small_manifests import image, leaking, manifest_with, paths

from expressivegan.data import Manifest, Record
from expressivegan.data.fix import KINDS, drop_duplicates, fix, mask_markers, undo
from expressivegan.errors import DataError, InputError

# --- all together -----------------------------------------------------------------------------------------------------


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
