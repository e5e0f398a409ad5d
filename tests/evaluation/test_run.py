"""The whole evaluation, with networks fitted for a moment: what it says of honest images, copies and collapse."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from short_evaluations import N, honest, judged

from expressivegan.data import ImageSet, load_images
from expressivegan.data.phantom import CLASSES, draw_batch
from expressivegan.errors import DataError, InputError
from expressivegan.evaluation import Comparison, Generated, JudgeRecipe
from expressivegan.evaluation.plan import Plan
from expressivegan.evaluation.results import main_figures, summary
from expressivegan.evaluation.run import SECTIONS
from expressivegan.evaluation.sections import SUITES


def test_every_section_speaks_in_plain_json(honest_run: tuple[dict[str, Any], Path]) -> None:
    found, _ = honest_run
    assert set(found["sections"]) | set(found["left_out"]) == set(SUITES["standard"])
    assert {"fidelity", "diversity", "agreement", "memorisation"} <= set(found["sections"])
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again == found
    assert found["generated"]["by_class"] == dict.fromkeys(CLASSES, N // 3)
    assert found["summary"]


def test_honest_images_are_near_the_floor_and_copy_nobody(honest_run: tuple[dict[str, Any], Path]) -> None:
    sections = honest_run[0]["sections"]
    for space in sections["fidelity"]["spaces"].values():
        assert space["over_floor"]["fid"] < 2
        assert space["over_floor"]["coverage"] > 0.8
        assert space["ladder"]["1 per class, repeated"]["coverage"] < 0.5
    assert sections["memorisation"]["copies_share"]["value"] < 0.02
    assert abs(sections["fidelity"]["n"] - sum(sections["fidelity"]["counts"].values())) == 0


def test_collapse_is_said(real_set: ImageSet, fit_cache: Path, tmp_path: Path) -> None:
    good = honest()
    rows = np.arange(N) % 3  # one image a class, over and over
    bad = Generated("collapsed", good.images[rows], good.labels[rows] if good.labels is not None else None)
    found = judged(real_set, bad, fit_cache, spaces=["judge"]).run(tmp_path, ["fidelity", "diversity"])
    assert any("repeats itself" in sentence for sentence in found["summary"])
    for space in found["sections"]["fidelity"]["spaces"].values():
        assert space["over_floor"]["coverage"] < 0.5


def test_a_few_strays_of_a_class_do_not_make_the_set_small(real_set: ImageSet, fit_cache: Path) -> None:
    good = honest()
    assert good.labels is not None
    full = judged(real_set, good, fit_cache).mix()[2]
    kept = np.concatenate([np.flatnonzero(good.labels != 2), np.flatnonzero(good.labels == 2)[:1]])
    rows, _, counts = judged(real_set, Generated("strays", good.images[kept], good.labels[kept]), fit_cache).mix()
    assert counts == [*full[:2], 0]
    assert len(rows) == sum(counts)
    said = summary({"fidelity": {"spaces": {}, "counts": {"NORMAL": 20, "VIRUS": 0}}})
    assert said == ["Fidelity knows nothing of VIRUS: there is no real image, no synthetic one, or hardly one."]


def test_an_absent_class_does_not_silence_diversity(
    real_set: ImageSet,
    fit_cache: Path,
    tmp_path: Path,
    honest_run: tuple[dict[str, Any], Path],
    results_schema: Draft202012Validator,
) -> None:
    good = honest()
    assert good.labels is not None
    whole = honest_run[0]["sections"]["diversity"]["spaces"]["judge"]
    for strays, figures in ((0, False), (2, False), (3, True)):
        kept = np.concatenate([np.flatnonzero(good.labels != 1), np.flatnonzero(good.labels == 1)[:strays]])
        made = Generated("strays", good.images[kept], good.labels[kept])
        (tmp_path / str(strays)).mkdir()
        found = judged(real_set, made, fit_cache, spaces=["judge"]).run(tmp_path / str(strays), ["diversity"])
        results_schema.validate(found)
        space = found["sections"]["diversity"]["spaces"]["judge"]
        assert {name: space[name] for name in ("NORMAL", "VIRUS")} == {
            name: whole[name] for name in ("NORMAL", "VIRUS")
        }
        assert ("BACTERIA" in space) == figures
        said = [sentence for sentence in found["summary"] if "nothing of BACTERIA" in sentence]
        assert said == ([] if figures else [
            "Diversity knows nothing of BACTERIA: that takes 3 synthetic images, and 6 real ones of 2 patients."
        ])  # fmt: skip


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
    sections["diversity"]["spaces"]["judge"]["VIRUS"] = row
    sections["diversity"]["spaces"]["judge"]["NORMAL"] = row | {"duplicate_rate": 0.0, "diversity_ratio": 0.82}
    narrow, twins = summary(sections)  # a class without twins does not repeat itself, and does not hide another's
    assert narrow.startswith("NORMAL varies too little in the features of judge: its spread is 0.82 of real")
    assert twins.startswith("VIRUS has the most near-twins")
    (quiet,) = summary({"shortcuts": {"warnings": []}})
    assert "0.05 of AUC" in quiet


def test_copies_are_said(real_set: ImageSet, fit_cache: Path, tmp_path: Path) -> None:
    rows = real_set.indices("train")[:N]
    copied = Generated("copied", np.asarray(real_set.images[rows]), real_set.labels[rows])
    found = judged(real_set, copied, fit_cache).run(tmp_path, ["memorisation"])
    assert found["sections"]["memorisation"]["flagged"]
    assert found["sections"]["memorisation"]["copies_share"]["value"] > 0.9


def test_an_interrupted_evaluation_goes_on(
    real_set: ImageSet, fit_cache: Path, honest_run: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, out = honest_run
    for name, section in SECTIONS.items():
        again = replace(section, measure=lambda of, progress: pytest.fail("it was computed again"))
        monkeypatch.setitem(SECTIONS, name, again)
    kept = list(found["sections"])
    assert judged(real_set, honest(), fit_cache).run(out, kept)["sections"] == found["sections"]
    with pytest.raises(pytest.fail.Exception):  # other images, another key
        judged(real_set, honest(9000), fit_cache).run(out, kept)


def test_the_key_covers_what_a_section_depends_on(real_set: ImageSet, fit_cache: Path) -> None:
    made = honest()
    plain = judged(real_set, made, fit_cache)
    judge, free = plain.key("agreement"), plain.key("memorisation")
    assert judged(real_set, made, fit_cache).key("agreement") == judge
    refitted = judged(real_set, made, fit_cache, epochs=1)
    assert refitted.key("agreement") != judge  # another recipe, another judge
    assert refitted.key("memorisation") == free  # which memorisation does not ask
    for other in (
        judged(real_set, made, fit_cache, group="test"),
        judged(real_set, made, fit_cache, seed=1),
        judged(real_set, Generated("other labels", made.images, np.zeros(N, np.int64)), fit_cache),
        judged(real_set, Generated("fewer", made.images[:-1], None), fit_cache),
    ):
        assert other.key("memorisation") != free
    assert plain.key("anatomy") != free


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


def test_progress_runs_to_the_end_and_never_back(real_set: ImageSet, fit_cache: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    evaluation = judged(real_set, honest(), fit_cache, progress=lambda done, total, words: told.append((done, total)))
    evaluation.run(tmp_path, ["anatomy", "agreement"])
    assert {total for _, total in told} == {1000}
    assert [done for done, _ in told] == sorted(done for done, _ in told)


# --- what images allow ------------------------------------------------------------------------------------------------


def test_one_class_alone(
    real_set: ImageSet, fit_cache: Path, tmp_path: Path, results_schema: Draft202012Validator
) -> None:
    made = honest()
    one = Generated("one class", made.images, np.zeros(N, np.int64))
    found = judged(real_set, one, fit_cache).run(tmp_path, ["diversity", "agreement", "shortcuts"])
    results_schema.validate(found)
    assert set(found["left_out"]) == {"shortcuts"}
    assert set(found["sections"]["diversity"]["spaces"]["judge"]) == {"NORMAL"}
    assert any(said.startswith("Diversity knows nothing of BACTERIA, VIRUS:") for said in found["summary"])
    assert any("BACTERIA has no synthetic image" in sentence for sentence in found["summary"])
    floor = found["sections"]["agreement"]["floor"]
    assert set(floor) == {"NORMAL", "all"}
    assert floor["all"]["accuracy"]["value"] == floor["NORMAL"]["accuracy"]["value"]


def test_agreement_stands_beside_real_images_of_the_training_patients(
    real_set: ImageSet, fit_cache: Path, tmp_path: Path
) -> None:
    train = real_set.indices("train")
    copies = Generated("copies", np.asarray(real_set.images[train]), real_set.labels[train])
    found = {}
    for of in (honest(), copies):
        (tmp_path / of.source).mkdir()
        run = judged(real_set, of, fit_cache).run(tmp_path / of.source, ["agreement"])
        found[of.source] = run["sections"]["agreement"]
    floor = found["copies"]["floor"]
    assert floor == found["honest"]["floor"]  # whatever is judged
    for name in (*CLASSES, "all"):
        own = found["copies"]["figures"][name]
        assert floor[name]["n"] == own["n_fake"]
        assert floor[name]["accuracy"]["value"] == own["accuracy_fake"]["value"]
        assert floor[name]["accuracy_difference"]["value"] == own["accuracy_difference"]["value"]


def test_nothing_can_be_measured_of_a_handful(real_set: ImageSet, fit_cache: Path, tmp_path: Path) -> None:
    few = Generated("few", honest().images[:4], None)
    with pytest.raises(DataError, match=r"nothing can be measured: .*memorisation"):
        judged(real_set, few, fit_cache).run(tmp_path, ["memorisation"])
    assert not any(tmp_path.iterdir())


def test_images_without_labels_where_nobody_has_the_last_class(real_set: ImageSet, fit_cache: Path) -> None:
    rest = np.where((real_set.groups == "reference") & (real_set.labels == 2), "train", real_set.groups)
    made = Generated("bare", honest().images, None)
    of = judged(replace(real_set, groups=rest), made, fit_cache, spaces=["judge"])
    found = SECTIONS["fidelity"].measure(of, lambda *_: None)
    assert found["counts"]["VIRUS"] == 0
    assert sum(found["counts"].values()) == found["n"] > 0


def test_images_without_labels_have_fidelity_and_memorisation(
    real_set: ImageSet, fit_cache: Path, tmp_path: Path, results_schema: Draft202012Validator
) -> None:
    made = Generated("bare", honest().images, None)
    found = judged(real_set, made, fit_cache, spaces=["judge"]).run(tmp_path)
    assert set(found["sections"]) == {"fidelity", "memorisation"}
    results_schema.validate(found)
    with pytest.raises(InputError, match=r"agreement.*needs labels"):
        judged(real_set, made, fit_cache).run(tmp_path, ["agreement"])
    with pytest.raises(InputError, match="must be among fidelity"):
        judged(real_set, made, fit_cache).run(tmp_path, ["beauty"])


def test_sizes_must_agree(real_set: ImageSet, fit_cache: Path) -> None:
    with pytest.raises(InputError, match=r"images are \(64, 64\).*32 px"):
        judged(real_set, Generated("large", np.zeros((30, 64, 64), np.uint8), None), fit_cache)


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
