"""Which real images an evaluation may hold a model against, and the log of looks at the test patients."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from short_evaluations import honest, judged

from expressivegan.checkpoint import save_model
from expressivegan.data import ImageSet
from expressivegan.errors import DataError, InputError
from expressivegan.evaluation import Generated, Model, open_for_evaluation
from expressivegan.evaluation.run import SECTIONS
from expressivegan.evaluation.sections import SUITES
from expressivegan.evaluation.testlog import NAME, begin_look, check_log, end_look, read_log
from expressivegan.synthesis.origin import origin_of
from tiny import tiny_generator

# --- whose data -----------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(real_set: ImageSet, tmp_path: Path) -> Callable[..., Model]:
    """A model directory with the given facts in expressivegan.json."""

    def make(**facts: Any) -> Model:
        save_model(tiny_generator(), tmp_path / "model", "card", facts)
        return open_for_evaluation(tmp_path / "model")

    return make


def test_a_model_is_held_against_its_own_data(
    real_set: ImageSet,
    fit_cache: Path,
    tmp_path: Path,
    trained: Callable[..., Model],
    results_schema: Draft202012Validator,
) -> None:
    other = Generated("model", honest().images, honest().labels, trained(data_hash="f00d" * 16))
    with pytest.raises(
        InputError, match=rf"hash {real_set.data_hash[:12]}, .* was trained on f00df00df00d, .*--other-data"
    ):
        judged(real_set, other, fit_cache)
    on_purpose = judged(real_set, other, fit_cache, other_data=True)
    with pytest.raises(InputError, match=r"'memorisation'\) needs the training images"):
        on_purpose.run(tmp_path, ["memorisation"])
    assert "memorisation" not in on_purpose._chosen(None)
    found = on_purpose.run(tmp_path, ["shortcuts"])
    results_schema.validate(found)
    assert found["generated"]["trained_on"] == "f00d" * 16
    assert found["summary"][0].startswith(
        f"Held against other data (hash {real_set.data_hash[:12]}) than the model was"
    )


def test_a_model_that_does_not_name_its_data_is_judged_with_a_warning(
    real_set: ImageSet, fit_cache: Path, tmp_path: Path, trained: Callable[..., Model]
) -> None:
    for facts, sentence in (({}, "The model does not say which data"), ({"data_hash": real_set.data_hash}, "")):
        made = Generated("model", honest().images, honest().labels, trained(**facts))
        found = judged(real_set, made, fit_cache).run(tmp_path, ["shortcuts"])
        assert found["generated"]["trained_on"] == facts.get("data_hash")
        said = found["summary"][0].startswith("The model does not say which data")
        assert said == bool(sentence)
    assert len(on_own := judged(real_set, made, fit_cache)._chosen(None)) == len(SUITES["standard"]), on_own


def test_pictures_are_made_square_as_in_training(
    real_set: ImageSet, fit_cache: Path, trained: Callable[..., Model]
) -> None:
    made = Generated("model", honest().images, None, trained(data_hash=real_set.data_hash, config={"fit": "pad"}))
    assert judged(replace(real_set, fit="pad"), made, fit_cache).data.fit == "pad"
    with pytest.raises(InputError, match=r"fit \(='stretch'\).*load them with 'pad'"):
        judged(real_set, made, fit_cache)


def test_a_run_says_what_its_generator_does_not(tmp_path: Path) -> None:
    run = tmp_path / "run"
    save_model(tiny_generator(), run / "generator", "card")
    (run / "settings.json").write_text('{"data_hash": "ab", "config": {"fit": "crop"}}', encoding="utf-8")
    (run / "data.json").write_text('{"source": "chests"}', encoding="utf-8")
    for path in (run, run / "generator"):
        origin = origin_of(path)
        assert (origin.data_hash, origin.fit, origin.source) == ("ab", "crop", "chests")


# --- test patients ----------------------------------------------------------------------------------------------------


def test_each_look_at_the_test_patients_is_written_down_and_said(
    real_set: ImageSet,
    fit_cache: Path,
    tmp_path: Path,
    honest_run: tuple[dict[str, Any], Path],
    results_schema: Draft202012Validator,
) -> None:
    for times in (1, 2):
        out = tmp_path / f"look {times}"
        out.mkdir()
        sections = ["agreement", "memorisation"][:times]
        found = judged(real_set, honest(), fit_cache, group="test").run(out, sections)
        results_schema.validate(found)
        assert found["test_log"] == {"file": str(tmp_path / NAME), "times": times}
        assert found["data"]["held_against"] == "test"
        assert f"the {('1st', '2nd')[times - 1]} time" in found["summary"][0]
    entries = read_log(tmp_path / NAME)
    assert [e["hash"] for e in entries] == [honest().content_hash] * 2
    entry = entries[0]
    assert entry["data_hash"] == real_set.data_hash
    assert entry["test"]["images"] == len(real_set.indices("test"))
    assert entry["figures"]["agreement"] == found["sections"]["agreement"]["figures"]["all"]["accuracy_fake"]["value"]
    assert {"time", "package_version", "images", "source"} <= set(entry)
    # another group of real images for agreement; held-out patients of memorisation stay those of the training's source
    assert found["sections"]["agreement"]["figures"]["all"]["n_real"] == len(real_set.indices("test"))
    assert found["sections"]["memorisation"] == honest_run[0]["sections"]["memorisation"]
    assert honest_run[0]["test_log"] is None


def test_the_log_counts_each_hash_and_survives_a_torn_line(tmp_path: Path) -> None:
    log = tmp_path / NAME
    looks = [begin_look(log, {"hash": h}) for h in "aba"]
    assert [look.times for look in looks] == [1, 1, 2]
    end_look(looks[1], {"fid": 3.0})
    assert [e.get("figures") for e in read_log(log)] == [None, {"fid": 3.0}, None]
    assert begin_look(log, {"hash": "b"}).times == 2  # two lines are one look
    log.write_text(log.read_text("utf-8") + '{"time": "2026', encoding="utf-8")  # the power went
    assert begin_look(log, {"hash": "b"}).times == 4  # the torn line may have been of b
    assert [e["hash"] for e in read_log(log)] == ["a", "b", "a", "b", None, "b"]


def test_a_look_that_is_stopped_half_way_is_a_look(
    real_set: ImageSet, fit_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(of: object, progress: object) -> dict[str, Any]:
        assert len(read_log(tmp_path / NAME)) == 1  # written down before anything is seen
        raise KeyboardInterrupt

    monkeypatch.setitem(SECTIONS, "memorisation", replace(SECTIONS["memorisation"], measure=stop))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(KeyboardInterrupt):
        judged(real_set, honest(), fit_cache, group="test").run(out, ["memorisation"])
    (look,) = read_log(tmp_path / NAME)
    assert look["hash"] == honest().content_hash
    assert "figures" not in look


def test_an_evaluation_that_cannot_be_logged_is_refused(real_set: ImageSet, fit_cache: Path, tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(InputError, match=r"group \(='test'\).*cannot be written"):
        judged(real_set, honest(), fit_cache, group="test").run(tmp_path / "out", ["memorisation"])
    check_log(tmp_path / "free.jsonl")
    assert not (tmp_path / "free.jsonl").exists()


def test_groups_must_be_there_and_apart(real_set: ImageSet, fit_cache: Path) -> None:
    with pytest.raises(InputError, match=r"group \(='judge'\) must be one of reference, test"):
        judged(real_set, honest(), fit_cache, group="judge")
    nobody = replace(real_set, groups=np.where(real_set.groups == "test", "train", real_set.groups))
    with pytest.raises(DataError, match="the group test has no patient"):
        judged(nobody, honest(), fit_cache, group="test")
    twice = real_set.patients.copy()
    twice[real_set.indices("test")[0]] = twice[real_set.indices("train")[0]]
    with pytest.raises(DataError, match="group test stand in train too"):
        judged(replace(real_set, patients=twice), honest(), fit_cache, group="test")
