"""`expressivegan evaluate --suite faithfulness` as a user calls it: whole, again, and on what it cannot judge."""

import json
import shutil
from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from command_line import Refused, call
from expressivegan.checkpoint import save_model
from expressivegan.errors import OfflineError
from expressivegan.evaluate_command import open_networks
from expressivegan.evaluation import JudgeRecipe, open_for_evaluation
from expressivegan.evaluation.faithfulness import faithfulness_section
from expressivegan.evaluation.sections import SECTIONS
from expressivegan.explain import open_explainer
from tiny import tiny_discriminator, tiny_generator, tiny_teacher

DATA = ("evaluate", "--data", "phantom:300", "--suite", "faithfulness")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with all three networks, and a teacher of another seed beside it."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text('{"teacher": null, "config": {}}', encoding="utf-8")
    for name, model in (
        ("run/generator", tiny_generator()),
        ("run/discriminator", tiny_discriminator()),
        ("run/teacher", tiny_teacher()),
        ("other", tiny_teacher(1)),
    ):
        save_model(model, tmp_path / name, "card")
    return tmp_path / "run"


def test_a_run_is_judged_once_and_its_results_follow_the_schema(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = partial(JudgeRecipe, resolution=16, epochs=1)
    monkeypatch.setattr("expressivegan.evaluation.features.judge.JudgeRecipe", quick)
    few = partial(faithfulness_section, rounds=20)
    monkeypatch.setattr("expressivegan.evaluation.sections.faithfulness_section", few)
    out = tmp_path / "out"
    command = [*DATA, "--model", str(run), "--num", "36", "--teachers", str(tmp_path / "other"), "--out", str(out)]
    assert call(*command) == 0
    results = json.loads((out / "results.json").read_text("utf-8"))
    schema = json.loads(resources.files("expressivegan.evaluation").joinpath("results.schema.json").read_text("utf-8"))
    Draft202012Validator(schema).validate(results)
    assert list(results["sections"]) == ["faithfulness"]
    found = results["sections"]["faithfulness"]
    assert (found["images"]["group"], found["images"]["n"], results["generated"]["images"]) == ("reference", 12, 36)
    assert {"removal", "sanity", "evidence", "generator"} <= set(found)
    assert found["sanity"]["teacher"]["repeatability"]["networks"] == 2
    assert set(found["warnings"]) <= set(results["summary"])
    rows = (out / "results.csv").read_text("utf-8").splitlines()
    assert any(row.startswith("faithfulness/removal/maps/teacher/figures/road_combined/map/value,") for row in rows)
    with Image.open(out / "figures" / "faithfulness.png") as picture:
        assert np.asarray(picture).std() > 5

    def again(of: object, progress: object) -> dict[str, object]:
        raise AssertionError("it was measured again")

    monkeypatch.setitem(SECTIONS, "faithfulness", replace(SECTIONS["faithfulness"], measure=again))
    before = (out / "results.json").read_bytes()
    assert call(*command) == 0
    assert (out / "results.json").read_bytes() == before
    save_model(tiny_teacher(2), run / "teacher", "card")  # another teacher, other maps
    with pytest.raises(AssertionError, match="it was measured again"):
        call(*command)


def test_what_has_no_maps_is_said(run: Path, tmp_path: Path, refused: Refused) -> None:
    save_model(tiny_generator(), tmp_path / "alone", "card")
    for argv, sentence in (
        (("--images", "made"), "--images (=made) have no maps, which --suite faithfulness is about"),
        (("--model", "alone"), "explaining needs a teacher; give the run that holds it"),
        (("--model", "run", "--sections", "anatomy"), "--sections (=anatomy) are of the standard suite"),
        (("--model", "run", "--features", "judge"), "--features (=judge) are of the standard suite"),
        (("--model", "run", "--teachers", "nowhere"), "nowhere"),
        (("--model", "run", "--suite", "standard", "--teachers", "other"), "--teachers (=other) go with --suite"),
    ):
        assert sentence in refused(*DATA, *argv, "--out", "out")
    assert not (tmp_path / "out").exists()


def test_a_run_without_a_teacher_has_networks_to_judge(run: Path) -> None:
    shutil.rmtree(run / "teacher")
    (run / "settings.json").write_text('{"teacher": "none", "config": {}}', encoding="utf-8")
    found = open_networks(open_for_evaluation(run))
    assert found.teacher is None
    assert found.discriminator is not None
    assert found.generator is not None


def test_a_teacher_that_cannot_be_had_offline_is_left_out_by_name(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(run / "teacher")
    name = "xrv:densenet121-res224-all"
    (run / "settings.json").write_text(json.dumps({"teacher": name, "config": {}}), encoding="utf-8")

    def offline(asked: str) -> None:
        raise OfflineError(f"teacher weights {asked} could not be downloaded")

    monkeypatch.setattr("expressivegan.explain.opening.open_teacher", offline)
    found = open_networks(open_for_evaluation(run))
    assert found.why == {"teacher": f"teacher weights {name} could not be downloaded"}
    assert (found.teacher, found.discriminator is None) == (None, False)
    with pytest.raises(OfflineError, match="could not be downloaded"):  # there is nothing else to explain with
        open_explainer(run)
