"""The whole evaluation, with networks fitted for a moment: what it says of honest images, copies and collapse."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from PIL import Image

from expressivegan.checkpoint import save_model
from expressivegan.data import ImageSet, load_images
from expressivegan.data.phantom import CLASSES, draw_batch
from expressivegan.errors import DataError, InputError
from expressivegan.evaluation import (
    Comparison,
    Evaluation,
    Generated,
    JudgeRecipe,
    Model,
    SelfSupervisedRecipe,
    open_for_evaluation,
    read_generated,
)
from expressivegan.evaluation.plan import Plan
from expressivegan.evaluation.results import main_figures, summary
from expressivegan.evaluation.run import SECTIONS
from expressivegan.evaluation.sections import SUITES
from expressivegan.evaluation.testlog import NAME, begin_look, check_log, end_look, read_log
from expressivegan.report.evaluation import draw_anatomy, draw_ladder, write_figures
from expressivegan.report.evaluation_galleries import contact_sheet, write_galleries
from expressivegan.synthesis.origin import origin_of
from tiny import tiny_generator

N = 120
SIDE = 32


@pytest.fixture(scope="module")
def data() -> ImageSet:
    return load_images("phantom:500", SIDE, progress=False)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


def honest(seed: int = 5000) -> Generated:
    labels = np.arange(N) % 3
    pictures = draw_batch(range(seed, seed + N), [CLASSES[k] for k in labels], SIDE)[0]
    return Generated("honest", pictures, labels.astype(np.int64))


def judged(data: ImageSet, made: Generated, cache: Path, epochs: int = 2, **options: Any) -> Evaluation:
    return Evaluation(
        data,
        made,
        cache=cache,
        judge_recipe=JudgeRecipe(resolution=32, epochs=epochs),
        selfsup_recipe=SelfSupervisedRecipe(resolution=32, epochs=2),
        **options,
    )


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    text = resources.files("expressivegan.evaluation").joinpath("results.schema.json").read_text("utf-8")
    Draft202012Validator.check_schema(json.loads(text))
    return Draft202012Validator(json.loads(text))


@pytest.fixture(scope="module")
def results(data: ImageSet, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("out")
    return judged(data, honest(), cache).run(out), out


def test_every_section_speaks_in_plain_json(results: tuple[dict[str, Any], Path]) -> None:
    found, _ = results
    assert set(found["sections"]) | set(found["left_out"]) == set(SUITES["standard"])
    assert {"fidelity", "diversity", "agreement", "memorisation"} <= set(found["sections"])
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again == found
    assert found["generated"]["by_class"] == dict.fromkeys(CLASSES, N // 3)
    assert found["summary"]


def test_honest_images_are_near_the_floor_and_copy_nobody(results: tuple[dict[str, Any], Path]) -> None:
    sections = results[0]["sections"]
    for space in sections["fidelity"]["spaces"].values():
        assert space["over_floor"]["fid"] < 2
        assert space["over_floor"]["coverage"] > 0.8
        assert space["ladder"]["1 per class, repeated"]["coverage"] < 0.5
    assert sections["memorisation"]["copies_share"]["value"] < 0.02
    assert abs(sections["fidelity"]["n"] - sum(sections["fidelity"]["counts"].values())) == 0


def test_collapse_is_said(data: ImageSet, cache: Path, tmp_path: Path) -> None:
    good = honest()
    rows = np.arange(N) % 3  # one image a class, over and over
    bad = Generated("collapsed", good.images[rows], good.labels[rows] if good.labels is not None else None)
    found = judged(data, bad, cache, spaces=["judge"]).run(tmp_path, ["fidelity", "diversity"])
    assert any("repeats itself" in sentence for sentence in found["summary"])
    for space in found["sections"]["fidelity"]["spaces"].values():
        assert space["over_floor"]["coverage"] < 0.5


def test_a_few_strays_of_a_class_do_not_make_the_set_small(data: ImageSet, cache: Path) -> None:
    good = honest()
    assert good.labels is not None
    full = judged(data, good, cache).mix()[2]
    kept = np.concatenate([np.flatnonzero(good.labels != 2), np.flatnonzero(good.labels == 2)[:1]])
    rows, _, counts = judged(data, Generated("strays", good.images[kept], good.labels[kept]), cache).mix()
    assert counts == [*full[:2], 0]
    assert len(rows) == sum(counts)
    said = summary({"fidelity": {"spaces": {}, "counts": {"NORMAL": 20, "VIRUS": 0}}})
    assert said == ["Fidelity and diversity know nothing of VIRUS: there is no synthetic image, or hardly one."]


def test_what_gives_patients_away_is_a_fault_even_if_it_is_one_class_alone() -> None:
    for suspect, place in ((True, 0), (False, -1)):
        found = {"flagged": False, "suspect": suspect, "verdict": "NORMAL stands out.", "p_value": 0.3}
        sections = {"memorisation": found, "shortcuts": {"warnings": []}}
        assert summary(sections)[place] == "NORMAL stands out."
        assert main_figures(sections)["memorisation suspect"] is suspect


def test_what_is_too_small_to_be_a_fault_is_said_with_the_limit() -> None:
    row = {"duplicate_rate": 0.041, "duplicate_rate_real": 0.0, "diversity_ratio": 0.99}
    sections = {"diversity": {"spaces": {"judge": {"NORMAL": row | {"duplicate_rate": 0.0}, "VIRUS": row}}}}
    (said,) = summary(sections)
    assert said.startswith("VIRUS has the most near-twins in the features of judge, 4.1 points more than real images")
    sections["diversity"]["spaces"]["judge"]["VIRUS"] = row | {"duplicate_rate": 0.06}
    (said,) = summary(sections)
    assert said.startswith("VIRUS repeats itself in the features of judge")
    (quiet,) = summary({"shortcuts": {"warnings": []}})
    assert "0.05 of AUC" in quiet


def test_copies_are_said(data: ImageSet, cache: Path, tmp_path: Path) -> None:
    rows = data.indices("train")[:N]
    copied = Generated("copied", np.asarray(data.images[rows]), data.labels[rows])
    found = judged(data, copied, cache).run(tmp_path, ["memorisation"])
    assert found["sections"]["memorisation"]["flagged"]
    assert found["sections"]["memorisation"]["copies_share"]["value"] > 0.9


def test_an_interrupted_evaluation_goes_on(
    data: ImageSet, cache: Path, results: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, out = results
    for name, section in SECTIONS.items():
        again = replace(section, measure=lambda of, progress: pytest.fail("it was computed again"))
        monkeypatch.setitem(SECTIONS, name, again)
    kept = list(found["sections"])
    assert judged(data, honest(), cache).run(out, kept)["sections"] == found["sections"]
    with pytest.raises(pytest.fail.Exception):  # other images, another key
        judged(data, honest(9000), cache).run(out, kept)


def test_the_key_covers_what_a_section_depends_on(data: ImageSet, cache: Path) -> None:
    made = honest()
    plain = judged(data, made, cache)
    judge, free = plain.key("agreement"), plain.key("memorisation")
    assert judged(data, made, cache).key("agreement") == judge
    refitted = judged(data, made, cache, epochs=1)
    assert refitted.key("agreement") != judge  # another recipe, another judge
    assert refitted.key("memorisation") == free  # which memorisation does not ask
    for other in (
        judged(data, made, cache, group="test"),
        judged(data, made, cache, seed=1),
        judged(data, Generated("other labels", made.images, np.zeros(N, np.int64)), cache),
        judged(data, Generated("fewer", made.images[:-1], None), cache),
    ):
        assert other.key("memorisation") != free
    assert plain.key("anatomy") != free


# --- the schema -------------------------------------------------------------------------------------------------------


def test_results_follow_the_schema(results: tuple[dict[str, Any], Path], schema: Draft202012Validator) -> None:
    found = results[0]
    schema.validate(found)
    assert found["$schema"] == schema.schema["$id"] == f"urn:expressivegan:evaluation:{found['version']}"


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
    results: tuple[dict[str, Any], Path], schema: Draft202012Validator, change: Callable[[dict[str, Any]], object]
) -> None:
    broken = copy.deepcopy(results[0])
    change(broken)
    with pytest.raises(ValidationError):
        schema.validate(broken)


def test_every_field_is_documented(schema: Draft202012Validator) -> None:
    page = (Path(__file__).parents[2] / "docs" / "results.md").read_text("utf-8")

    def names(node: Any) -> set[str]:
        if isinstance(node, list):
            return set().union(*map(names, node))
        if not isinstance(node, dict):
            return set()
        own = set(node["properties"]) if isinstance(node.get("properties"), dict) else set()
        return own.union(*(names(value) for key, value in node.items() if key != "required"))

    missing = sorted(name for name in names(schema.schema) if f"`{name}`" not in page)
    assert not missing


# --- whose data -----------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(data: ImageSet, tmp_path: Path) -> Callable[..., Model]:
    """A model directory with the given facts in expressivegan.json."""

    def make(**facts: Any) -> Model:
        save_model(tiny_generator(), tmp_path / "model", "card", facts)
        return open_for_evaluation(tmp_path / "model")

    return make


def test_a_model_is_held_against_its_own_data(
    data: ImageSet, cache: Path, tmp_path: Path, trained: Callable[..., Model], schema: Draft202012Validator
) -> None:
    other = Generated("model", honest().images, honest().labels, trained(data_hash="f00d" * 16))
    with pytest.raises(
        InputError, match=rf"hash {data.data_hash[:12]}, .* was trained on f00df00df00d, .*--other-data"
    ):
        judged(data, other, cache)
    on_purpose = judged(data, other, cache, other_data=True)
    with pytest.raises(InputError, match=r"'memorisation'\) needs the training images"):
        on_purpose.run(tmp_path, ["memorisation"])
    assert "memorisation" not in on_purpose._chosen(None)
    found = on_purpose.run(tmp_path, ["shortcuts"])
    schema.validate(found)
    assert found["generated"]["trained_on"] == "f00d" * 16
    assert found["summary"][0].startswith(f"Held against other data (hash {data.data_hash[:12]}) than the model was")


def test_a_model_that_does_not_name_its_data_is_judged_with_a_warning(
    data: ImageSet, cache: Path, tmp_path: Path, trained: Callable[..., Model]
) -> None:
    for facts, sentence in (({}, "The model does not say which data"), ({"data_hash": data.data_hash}, "")):
        made = Generated("model", honest().images, honest().labels, trained(**facts))
        found = judged(data, made, cache).run(tmp_path, ["shortcuts"])
        assert found["generated"]["trained_on"] == facts.get("data_hash")
        said = found["summary"][0].startswith("The model does not say which data")
        assert said == bool(sentence)
    assert len(on_own := judged(data, made, cache)._chosen(None)) == len(SUITES["standard"]), on_own


def test_pictures_are_made_square_as_in_training(data: ImageSet, cache: Path, trained: Callable[..., Model]) -> None:
    made = Generated("model", honest().images, None, trained(data_hash=data.data_hash, config={"fit": "pad"}))
    assert judged(replace(data, fit="pad"), made, cache).data.fit == "pad"
    with pytest.raises(InputError, match=r"fit \(='stretch'\).*load them with 'pad'"):
        judged(data, made, cache)


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
    data: ImageSet, cache: Path, tmp_path: Path, results: tuple[dict[str, Any], Path], schema: Draft202012Validator
) -> None:
    for times in (1, 2):
        out = tmp_path / f"look {times}"
        out.mkdir()
        sections = ["agreement", "memorisation"][:times]
        found = judged(data, honest(), cache, group="test").run(out, sections)
        schema.validate(found)
        assert found["test_log"] == {"file": str(tmp_path / NAME), "times": times}
        assert found["data"]["held_against"] == "test"
        assert f"the {('1st', '2nd')[times - 1]} time" in found["summary"][0]
    entries = read_log(tmp_path / NAME)
    assert [e["hash"] for e in entries] == [honest().content_hash] * 2
    entry = entries[0]
    assert entry["data_hash"] == data.data_hash
    assert entry["test"]["images"] == len(data.indices("test"))
    assert entry["figures"]["agreement"] == found["sections"]["agreement"]["figures"]["all"]["accuracy_fake"]["value"]
    assert {"time", "package_version", "images", "source"} <= set(entry)
    # another group of real images for agreement; held-out patients of memorisation stay those of the training's source
    assert found["sections"]["agreement"]["figures"]["all"]["n_real"] == len(data.indices("test"))
    assert found["sections"]["memorisation"] == results[0]["sections"]["memorisation"]
    assert results[0]["test_log"] is None


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
    data: ImageSet, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(of: object, progress: object) -> dict[str, Any]:
        assert len(read_log(tmp_path / NAME)) == 1  # written down before anything is seen
        raise KeyboardInterrupt

    monkeypatch.setitem(SECTIONS, "memorisation", replace(SECTIONS["memorisation"], measure=stop))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(KeyboardInterrupt):
        judged(data, honest(), cache, group="test").run(out, ["memorisation"])
    (look,) = read_log(tmp_path / NAME)
    assert look["hash"] == honest().content_hash
    assert "figures" not in look


def test_an_evaluation_that_cannot_be_logged_is_refused(data: ImageSet, cache: Path, tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(InputError, match=r"group \(='test'\).*cannot be written"):
        judged(data, honest(), cache, group="test").run(tmp_path / "out", ["memorisation"])
    check_log(tmp_path / "free.jsonl")
    assert not (tmp_path / "free.jsonl").exists()


def test_groups_must_be_there_and_apart(data: ImageSet, cache: Path) -> None:
    with pytest.raises(InputError, match=r"group \(='judge'\) must be one of reference, test"):
        judged(data, honest(), cache, group="judge")
    nobody = replace(data, groups=np.where(data.groups == "test", "train", data.groups))
    with pytest.raises(DataError, match="the group test has no patient"):
        judged(nobody, honest(), cache, group="test")
    twice = data.patients.copy()
    twice[data.indices("test")[0]] = twice[data.indices("train")[0]]
    with pytest.raises(DataError, match="group test stand in train too"):
        judged(replace(data, patients=twice), honest(), cache, group="test")


def test_networks_fitted_here_see_what_only_large_images_show(tmp_path: Path) -> None:
    data = load_images("phantom:60", 128, progress=False)
    labels = np.arange(30) % 3
    made = Generated("m", draw_batch(range(30), [CLASSES[k] for k in labels], 128)[0], labels.astype(np.int64))
    assert Comparison(data, made, cache=tmp_path).feature_resolution == 128
    fine = np.where((np.indices((128, 128)).sum(0) % 2).astype(bool), 40, 0).astype(np.uint8)
    moved = {}
    for side in (64, 128):
        space = Comparison(data, made, cache=tmp_path, judge_recipe=JudgeRecipe(resolution=side, epochs=1)).space(
            "judge"
        )
        plain = space.features(made.images // 2)
        spread = plain.std(0).mean()
        moved[side] = float(
            np.abs(space.features(made.images // 2 + fine) - space.features(made.images // 2 + 20)).mean() / spread
        )
    assert 10 * moved[64] < moved[128]
    with pytest.raises(InputError, match="feature_resolution"):
        Comparison(data, made, cache=tmp_path, feature_resolution=4)


# --- the bar ----------------------------------------------------------------------------------------------------------


def test_one_bar_over_all_steps() -> None:
    told: list[int] = []
    plan = Plan({"short": 1, "kept": 50, "long": 3}, lambda done, total, words: told.append(done * 1000 // total))
    plan.step("short")(1, 1, "")
    plan.done("short")
    plan.skip("kept")
    for done in range(4):
        plan.step("long")(done, 3, "")
    assert told == [18, 250, 500, 750, 1000]  # nothing was done in no time: the whole is shorter


def test_progress_runs_to_the_end_and_never_back(data: ImageSet, cache: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    evaluation = judged(data, honest(), cache, progress=lambda done, total, words: told.append((done, total)))
    evaluation.run(tmp_path, ["anatomy", "agreement"])
    assert {total for _, total in told} == {1000}
    assert [done for done, _ in told] == sorted(done for done, _ in told)


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_figures_and_galleries(
    data: ImageSet, cache: Path, results: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    found = results[0]
    drawn = write_figures(found, tmp_path) + write_galleries(found, judged(data, honest(), cache), tmp_path)
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
    bare = judged(data, Generated("bare", honest().images, None), cache)
    assert write_galleries(again, bare, tmp_path) == [tmp_path / "contact-sheet.png"]
    assert [p.name for p in tmp_path.glob("*.png")] == ["contact-sheet.png"]


def test_the_ladder_shows_the_order_of_fid(results: tuple[dict[str, Any], Path]) -> None:
    space = copy.deepcopy(results[0]["sections"]["fidelity"]["spaces"]["judge"])
    for fid, place in ((1e6, -1), (1e-6, 0)):
        space["generated"]["overall"]["figures"]["fid"] = {"value": fid, "low": None, "high": None, "note": "few"}
        axis = draw_ladder("judge", space, 60).axes[0]
        assert [label.get_text() for label in axis.get_yticklabels()][place] == "synthetic images"
    space["generated"]["overall"]["figures"]["recall"] = dict.fromkeys(("value", "low", "high", "note"))
    assert "too small to say" in [text.get_text() for text in draw_ladder("judge", space, 60).axes[1].texts]


def test_a_landmark_that_differs_is_drawn_so(results: tuple[dict[str, Any], Path]) -> None:
    anatomy = copy.deepcopy(results[0]["sections"]["anatomy"])
    for row in anatomy["figures"]["all"]["landmarks"].values():
        row["differs"] = False
    anatomy["figures"]["all"]["landmarks"]["ctr"]["differs"] = True
    names = [label.get_text() for label in draw_anatomy(anatomy).axes[0].get_yticklabels()]
    assert [name for name in names if "differs" in name] == ["ctr (differs)"]


def test_the_contact_sheet_holds_images_of_both_sides(data: ImageSet, cache: Path) -> None:
    made = honest()
    white = Generated("white", np.full_like(made.images, 255), made.labels)
    sheet = contact_sheet(judged(data, white, cache))
    tile = 32 * 4
    assert sheet.shape == (6 * (tile + 3) - 3, 150 + 10 * (tile + 3) - 3)
    assert (sheet[:tile, 150:] == 255).all()  # synthetic above real
    assert sheet[tile + 3 : 2 * tile, 150:].std() > 20
    bare = contact_sheet(judged(data, Generated("bare", made.images, None), cache))
    assert len(bare) == 2 * (tile + 3) - 3


# --- what images allow ------------------------------------------------------------------------------------------------


def test_one_class_alone(data: ImageSet, cache: Path, tmp_path: Path, schema: Draft202012Validator) -> None:
    made = honest()
    one = Generated("one class", made.images, np.zeros(N, np.int64))
    found = judged(data, one, cache).run(tmp_path, ["diversity", "agreement", "shortcuts"])
    schema.validate(found)
    assert set(found["left_out"]) == {"diversity", "shortcuts"}
    assert any("BACTERIA has no synthetic image" in sentence for sentence in found["summary"])


def test_nothing_can_be_measured_of_a_handful(data: ImageSet, cache: Path, tmp_path: Path) -> None:
    few = Generated("few", honest().images[:4], None)
    with pytest.raises(DataError, match=r"nothing can be measured: .*memorisation"):
        judged(data, few, cache).run(tmp_path, ["memorisation"])
    assert not any(tmp_path.iterdir())


def test_images_without_labels_have_fidelity_and_memorisation(
    data: ImageSet, cache: Path, tmp_path: Path, schema: Draft202012Validator
) -> None:
    made = Generated("bare", honest().images, None)
    found = judged(data, made, cache, spaces=["judge"]).run(tmp_path)
    assert set(found["sections"]) == {"fidelity", "memorisation"}
    schema.validate(found)
    with pytest.raises(InputError, match=r"agreement.*needs labels"):
        judged(data, made, cache).run(tmp_path, ["agreement"])
    with pytest.raises(InputError, match="must be among fidelity"):
        judged(data, made, cache).run(tmp_path, ["beauty"])


def test_sizes_must_agree(data: ImageSet, cache: Path) -> None:
    with pytest.raises(InputError, match=r"images are \(64, 64\).*32 px"):
        judged(data, Generated("large", np.zeros((30, 64, 64), np.uint8), None), cache)


# --- reading ----------------------------------------------------------------------------------------------------------


def test_reading_a_folder_with_classes_in_any_order_and_case(tmp_path: Path) -> None:
    made = honest()
    assert made.labels is not None
    for i in range(60):
        folder = tmp_path / "set" / CLASSES[made.labels[i]].lower()
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(made.images[i]).save(folder / f"{i:03}.png")
    found = read_generated(str(tmp_path / "set"), CLASSES, SIDE)
    assert found.labels is not None
    assert np.bincount(found.labels).tolist() == [20, 20, 20]
    first = next(i for i in range(60) if np.array_equal(made.images[i], found.images[0]))
    assert made.labels[first] == found.labels[0]
    with pytest.raises(InputError, match=r"labels .*virus.* data set has A, B"):
        read_generated(str(tmp_path / "set"), ("A", "B"), SIDE)


def test_reading_images_without_labels_beside_a_note(tmp_path: Path) -> None:
    for i, picture in enumerate(honest().images[:30]):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    (tmp_path / "note.txt").write_text("made today")
    found = read_generated(str(tmp_path), CLASSES, SIDE)
    assert (found.labels, len(found.images)) == (None, 30)


@pytest.mark.parametrize("labelled", [False, True])
def test_images_of_a_folder_become_square_as_asked(tmp_path: Path, labelled: bool) -> None:
    folder = tmp_path / "NORMAL" if labelled else tmp_path
    folder.mkdir(exist_ok=True)
    draw = np.random.default_rng(0)
    for i in range(30):
        Image.fromarray(draw.integers(100, 256, (20, 40), dtype=np.uint8)).save(folder / f"{i}.png")
    black = {fit: (read_generated(str(tmp_path), CLASSES, SIDE, fit).images == 0).any() for fit in ("stretch", "pad")}
    assert black == {"stretch": False, "pad": True}


def test_only_a_lack_of_labels_makes_images_unlabelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, picture in enumerate(honest().images[:30]):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")

    def broken(*given: Any, **options: Any) -> ImageSet:
        raise DataError("the cache of 'no class folders' is damaged")

    monkeypatch.setattr("expressivegan.evaluation.collect.load_images", broken)
    with pytest.raises(DataError, match="is damaged"):
        read_generated(str(tmp_path), CLASSES, SIDE)


def test_pictures_that_say_nothing_are_counted_against_the_set(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 40), dtype=np.uint8)
    for label in ("NORMAL", "VIRUS"):
        folder = tmp_path / label
        folder.mkdir()
        Image.fromarray(np.full((40, 40), 7, np.uint8)).save(folder / "grey.png")
        Image.fromarray(noise[0]).save(folder / "both.png")
        for i in range(1, 30):
            Image.fromarray(noise[i] // (1 if label == "VIRUS" else 2)).save(folder / f"{i}.png")
    (tmp_path / "note.txt").write_text("made today")  # no picture, and no fault of the generator
    made = read_generated(str(tmp_path), ("NORMAL", "VIRUS"), 32)
    assert len(made.images) == 58
    assert len(made.unusable) == 4
    assert "4 synthetic pictures were left out" in summary({}, unusable=len(made.unusable))[0]
    (tmp_path / "VIRUS" / "cut.png").write_bytes((tmp_path / "VIRUS" / "1.png").read_bytes()[:200])
    alone = read_generated(str(tmp_path / "VIRUS"), ("NORMAL", "VIRUS"), 32)
    assert len(alone.images) == 31  # without labels a grey picture is scored as it is
    assert [r.path for r in alone.unusable] == ["cut.png"]


def test_reading_colour_and_unequal_sizes(tmp_path: Path) -> None:
    for i, picture in enumerate(honest().images[:30]):
        tall = Image.fromarray(picture).resize((40, 64 + i))
        (tall.convert("RGB") if i % 2 else tall).save(tmp_path / f"{i:02}.png")
    found = read_generated(str(tmp_path), CLASSES, SIDE)
    assert found.images.shape == (30, SIDE, SIDE)
    assert np.abs(found.images[1].astype(float) - honest().images[1]).mean() < 12


def test_too_few_or_no_images(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for i in range(30):
        (tmp_path / "texts" / f"{i}.txt").write_text("no image")
    with pytest.raises(DataError, match="holds no image"):
        read_generated(str(tmp_path / "texts"), CLASSES, SIDE)
    Image.fromarray(honest().images[0]).save(tmp_path / "texts" / "one.png")
    with pytest.raises(InputError, match="holds 1 images; at least 24"):
        read_generated(str(tmp_path / "texts"), CLASSES, SIDE)
