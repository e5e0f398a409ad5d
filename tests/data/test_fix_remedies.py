"""Remedies, one by one, and what they refuse."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_manifests import image, leaking, manifest_with, of, paths

from expressivegan.data import read_manifest
from expressivegan.data.fix import (
    area_kept,
    best_aspect,
    crop_border,
    describe,
    drop_duplicates,
    equalise_geometry,
    fix,
    keep_patients_together,
    mask_markers,
    within,
)
from expressivegan.errors import DataError, InputError

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


def test_a_box_of_a_cropped_picture_can_be_told_in_shares_of_the_whole() -> None:
    assert within(None, (0.1, 0.2, 0.3, 0.4)) == pytest.approx((0.1, 0.2, 0.3, 0.4))
    assert within((0.2, 0.2, 0.6, 0.4), (0.5, 0.0, 1.0, 1.0)) == pytest.approx((0.4, 0.2, 0.6, 0.4))


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
