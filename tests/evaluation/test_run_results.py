"""What an evaluation leaves: results that follow the schema, figures and galleries."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from PIL import Image
from short_evaluations import honest, judged

from expressivegan.data import ImageSet
from expressivegan.evaluation import Generated
from expressivegan.report.evaluation import draw_anatomy, draw_ladder, write_figures
from expressivegan.report.evaluation_galleries import contact_sheet, write_galleries

# --- the schema -------------------------------------------------------------------------------------------------------


def test_results_follow_the_schema(
    honest_run: tuple[dict[str, Any], Path], results_schema: Draft202012Validator
) -> None:
    found = honest_run[0]
    results_schema.validate(found)
    assert found["$schema"] == results_schema.schema["$id"] == f"urn:expressivegan:evaluation:{found['version']}"


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(version=1),
        lambda r: r.pop("$schema"),
        lambda r: r["data"].pop("held_against"),
        lambda r: r["data"]["groups"]["train"].update(image=3),
        lambda r: r["generated"].update(images="120"),
        lambda r: r.update(test_log={"file": "x", "times": 0}),
        lambda r: r["sections"].update(beauty={}),
        lambda r: r["left_out"].update(beauty="none"),
        lambda r: r["sections"]["fidelity"]["spaces"]["judge"]["floor"].pop("fid"),
        lambda r: r["sections"]["fidelity"]["spaces"]["judge"]["generated"]["overall"]["figures"].update(is_={}),
        lambda r: r["sections"]["diversity"]["spaces"]["judge"]["NORMAL"].update(twins=0),
        lambda r: r["sections"]["diversity"]["ms_ssim"]["real"].update(NORMAL=[0.1, 0.0, 0.2]),
        lambda r: r["sections"]["agreement"]["figures"]["all"].pop("auc_fake"),
        lambda r: r["sections"]["agreement"]["floor"]["all"].pop("n"),
        lambda r: r["sections"]["anatomy"]["figures"]["all"]["landmarks"]["ctr"].update(mean=0.5),
        lambda r: r["sections"]["anatomy"]["worst"][0].pop("reason"),
        lambda r: r["sections"]["shortcuts"]["figures"]["frame"]["real"].update(middle=0.5),
        lambda r: r["sections"]["memorisation"].pop("verdict"),
        lambda r: r["sections"]["memorisation"].pop("suspect"),
        lambda r: r["generated"].pop("trained_on"),
        lambda r: r["sections"]["memorisation"]["gallery"][0].update(generated=-1),
    ],
)
def test_a_changed_field_breaks_the_schema(
    honest_run: tuple[dict[str, Any], Path],
    results_schema: Draft202012Validator,
    change: Callable[[dict[str, Any]], object],
) -> None:
    broken = copy.deepcopy(honest_run[0])
    change(broken)
    with pytest.raises(ValidationError):
        results_schema.validate(broken)


def test_every_field_is_documented(results_schema: Draft202012Validator) -> None:
    page = (Path(__file__).parents[2] / "docs" / "results.md").read_text("utf-8")

    def names(node: Any) -> set[str]:
        if isinstance(node, list):
            return set().union(*map(names, node))
        if not isinstance(node, dict):
            return set()
        own = set(node["properties"]) if isinstance(node.get("properties"), dict) else set()
        return own.union(*(names(value) for key, value in node.items() if key != "required"))

    missing = sorted(name for name in names(results_schema.schema) if f"`{name}`" not in page)
    assert not missing


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_figures_and_galleries(
    real_set: ImageSet, fit_cache: Path, honest_run: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    found = honest_run[0]
    drawn = write_figures(found, tmp_path) + write_galleries(found, judged(real_set, honest(), fit_cache), tmp_path)
    assert {p.relative_to(tmp_path).as_posix() for p in drawn} == {
        "figures/ladder-judge.png",
        "figures/ladder-selfsup.png",
        "figures/agreement.png",
        "figures/anatomy.png",
        "figures/shortcuts.png",
        "figures/memorisation.png",
        "contact-sheet.png",
        "closest-pairs.png",
        "anatomy-violations.png",
    }
    for path in drawn:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert np.asarray(picture).std() > 5
    (tmp_path / "figures" / "mine.png").touch()
    again = {"sections": {"shortcuts": found["sections"]["shortcuts"]}, "data": found["data"]}
    before = (tmp_path / "figures" / "shortcuts.png").read_bytes()
    assert write_figures(again, tmp_path) == [tmp_path / "figures" / "shortcuts.png"]
    assert (tmp_path / "figures" / "shortcuts.png").read_bytes() == before
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {"shortcuts.png", "mine.png"}  # no other evaluation's
    bare = judged(real_set, Generated("bare", honest().images, None), fit_cache)
    assert write_galleries(again, bare, tmp_path) == [tmp_path / "contact-sheet.png"]
    assert [p.name for p in tmp_path.glob("*.png")] == ["contact-sheet.png"]


def test_the_ladder_shows_the_order_of_fid(honest_run: tuple[dict[str, Any], Path]) -> None:
    space = copy.deepcopy(honest_run[0]["sections"]["fidelity"]["spaces"]["judge"])
    for fid, place in ((1e6, -1), (1e-6, 0)):
        space["generated"]["overall"]["figures"]["fid"] = {"value": fid, "low": None, "high": None, "note": "few"}
        axis = draw_ladder("judge", space, 60).axes[0]
        assert [label.get_text() for label in axis.get_yticklabels()][place] == "synthetic images"
    space["generated"]["overall"]["figures"]["recall"] = dict.fromkeys(("value", "low", "high", "note"))
    assert "too small to say" in [text.get_text() for text in draw_ladder("judge", space, 60).axes[1].texts]


def test_a_landmark_that_differs_is_drawn_so(honest_run: tuple[dict[str, Any], Path]) -> None:
    anatomy = copy.deepcopy(honest_run[0]["sections"]["anatomy"])
    for row in anatomy["figures"]["all"]["landmarks"].values():
        row["differs"] = False
    anatomy["figures"]["all"]["landmarks"]["ctr"]["differs"] = True
    names = [label.get_text() for label in draw_anatomy(anatomy).axes[0].get_yticklabels()]
    assert [name for name in names if "differs" in name] == ["ctr (differs)"]


def test_the_contact_sheet_holds_images_of_both_sides(real_set: ImageSet, fit_cache: Path) -> None:
    made = honest()
    white = Generated("white", np.full_like(made.images, 255), made.labels)
    sheet = contact_sheet(judged(real_set, white, fit_cache))
    tile = 32 * 4
    assert sheet.shape == (6 * (tile + 3) - 3, 150 + 10 * (tile + 3) - 3)
    assert (sheet[:tile, 150:] == 255).all()  # synthetic above real
    assert sheet[tile + 3 : 2 * tile, 150:].std() > 20
    bare = contact_sheet(judged(real_set, Generated("bare", made.images, None), fit_cache))
    assert len(bare) == 2 * (tile + 3) - 3
