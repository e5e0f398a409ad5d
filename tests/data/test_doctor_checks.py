"""Each check finds its planted fault, says so with numbers, and keeps quiet on a clean set."""

from pathlib import Path

import numpy as np
import pytest
from plant_faults import Planted, plant

from expressivegan.data.doctor import CHECKS, Case, Diagnosis, Finding, diagnose, open_case
from expressivegan.data.doctor.border import frame_auc, frame_cells
from expressivegan.data.doctor.crossval import out_of_fold, shortcut_severity
from expressivegan.data.doctor.features import patch_features
from expressivegan.data.doctor.labels import confident_issues
from expressivegan.data.phantom import draw_batch
from expressivegan.errors import InputError
from expressivegan.intervals import Interval

IMAGES = 600


def opened(planted: Planted, cache: Path) -> Case:
    return open_case(planted.folder, patient_regex=planted.patient_regex, cache_dir=cache, progress=False)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Case, Planted]]:
    made = {}
    for kind in ("clean", "leak", "exact-duplicate", "resized-copy", "geometry", "border", "label-noise"):
        folder = tmp_path_factory.mktemp(kind)
        planted = plant(kind, folder / "set", IMAGES, seed=1)
        made[kind] = (opened(planted, folder / "cache"), planted)
    return made


@pytest.fixture(scope="module")
def clean(cases: dict[str, tuple[Case, Planted]]) -> Diagnosis:
    return diagnose(cases["clean"][0])


def of(diagnosis: Diagnosis, check: str) -> Finding:
    return next(f for f in diagnosis.findings if f.check == check)


def test_a_clean_set_raises_no_alarm_and_every_check_speaks(clean: Diagnosis) -> None:
    assert {f.check for f in clean.findings} == set(CHECKS)
    assert {f.check: f.severity for f in clean.findings if f.severity in ("high", "medium")} == {}
    assert all(f.severity != "skipped" for f in clean.findings)
    assert clean.worst() == "low"
    assert [row[0] for row in clean.overview.rows] == ["train", "test"]
    assert sum(int(row[1]) for row in clean.overview.rows) == IMAGES


def test_severities_come_in_order(clean: Diagnosis) -> None:
    order = ["high", "medium", "low", "ok", "skipped"]
    found = [order.index(f.severity) for f in clean.findings]
    assert found == sorted(found)


def test_leaking_patients_are_named(cases: dict[str, tuple[Case, Planted]]) -> None:
    case, planted = cases["leak"]
    finding = of(diagnose(case, ["patients-across-splits"]), "patients-across-splits")
    assert finding.severity == "high"
    told = {frozenset(item["paths"]) for item in finding.items}
    for pair in planted.truth["leak"].pairs:
        assert any(frozenset(pair) <= item for item in told)
    assert len(told) == len(planted.truth["leak"].pairs)


@pytest.mark.parametrize(
    ("kind", "check"), [("exact-duplicate", "exact-duplicates"), ("resized-copy", "near-duplicates")]
)
def test_copies_are_listed_with_their_originals(cases: dict[str, tuple[Case, Planted]], kind: str, check: str) -> None:
    case, planted = cases[kind]
    finding = of(diagnose(case, [check]), check)
    assert finding.severity == "high"  # half of them lie in the other split
    told = [set(item["paths"]) for item in finding.items]
    strangers = [t for t, item in zip(told, finding.items, strict=True) if "patients" in item]
    assert sorted(map(sorted, strangers)) == sorted(map(sorted, planted.truth[kind].pairs))
    assert finding.pictures[0].pixels.ndim == 2


def test_an_exact_copy_is_no_near_duplicate(cases: dict[str, tuple[Case, Planted]]) -> None:
    case, planted = cases["exact-duplicate"]
    finding = of(diagnose(case, ["near-duplicates"]), "near-duplicates")
    told = [set(item["paths"]) for item in finding.items]
    assert not any(set(pair) == t for pair in planted.truth["exact-duplicate"].pairs for t in told)


@pytest.mark.parametrize(("kind", "check"), [("geometry", "geometry-shortcut"), ("border", "border-shortcut")])
def test_shortcuts_are_high(cases: dict[str, tuple[Case, Planted]], kind: str, check: str) -> None:
    finding = of(diagnose(cases[kind][0], [check]), check)
    assert finding.severity == "high"
    worst = max(finding.figures, key=lambda f: abs(f.value - 0.5) if "AUC" in f.name else 0)
    assert worst.low is not None
    assert worst.high is not None
    assert max(worst.low, 1 - worst.high) > 0.7
    assert worst.expected == 0.5
    assert finding.remedy
    assert finding.consequence


def test_wrong_labels_are_listed_with_what_they_look_like(cases: dict[str, tuple[Case, Planted]]) -> None:
    case, planted = cases["label-noise"]
    finding = of(diagnose(case, ["label-noise"]), "label-noise")
    assert finding.severity == "medium"
    told = {item["paths"][0] for item in finding.items}
    wrong = set(planted.truth["label-noise"].paths)
    assert len(told & wrong) >= 0.5 * len(wrong)  # the classifier itself is right in four of five
    assert len(told - wrong) <= 0.05 * IMAGES
    assert all(item["label"] != item["looks_like"] for item in finding.items)


def test_unknown_check_is_refused(cases: dict[str, tuple[Case, Planted]]) -> None:
    with pytest.raises(InputError, match="checks \\(='colour'\\) must be among unreadable-files"):
        diagnose(cases["clean"][0], ["colour"])


def test_progress_counts_the_checks(cases: dict[str, tuple[Case, Planted]]) -> None:
    seen: list[tuple[int, int, str]] = []
    diagnose(cases["clean"][0], ["odd-files", "small-splits"], lambda *a: seen.append(a))
    assert seen == [(0, 2, "odd-files"), (1, 2, "small-splits"), (2, 2, "")]


def test_a_set_without_patients_says_so(tmp_path: Path) -> None:
    planted = plant("clean", tmp_path / "set", 60)
    case = open_case(planted.folder, cache_dir=tmp_path / "cache", progress=False)
    finding = of(diagnose(case, ["patients-across-splits"]), "patients-across-splits")
    assert finding.severity == "medium"
    assert "--patient-regex" in finding.remedy


# --- the parts --------------------------------------------------------------------------------------------------------


def test_features_do_not_depend_on_what_stands_beside_a_picture_but_for_the_dictionary() -> None:
    pictures = draw_batch(range(60), ["NORMAL", "BACTERIA"] * 30, 64)[0]
    found = patch_features(pictures, seed=3)
    assert found.shape == (60, 59)
    np.testing.assert_array_equal(found, patch_features(pictures, seed=3))
    assert not np.allclose(found, patch_features(pictures, seed=4))


def test_out_of_fold_knows_nothing_of_a_patients_other_images() -> None:
    """Features that name the patient and nothing else: whoever learns from other patients is at chance."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.array([f"p{i}" for i in range(60)]), 4)
    labels = np.repeat(rng.integers(0, 2, 60), 4)
    features = np.repeat(rng.normal(size=(60, 30)), 4, axis=0)
    chance = out_of_fold(features, labels, patients, strength=1.0)
    accuracy = (chance.argmax(1) == labels).mean()
    assert 0.25 < accuracy < 0.75
    np.testing.assert_allclose(chance.sum(1), 1)


@pytest.mark.parametrize(
    ("low", "high", "severity"),
    [(0.71, 0.9, "high"), (0.1, 0.29, "high"), (0.62, 0.9, "medium"), (0.56, 0.7, "low"), (0.45, 0.9, "ok")],
)
def test_severity_goes_by_the_nearer_end_of_the_interval(low: float, high: float, severity: str) -> None:
    assert shortcut_severity([Interval((low + high) / 2, low, high)]) == severity


def test_frame_cells_do_not_see_the_middle() -> None:
    pictures = draw_batch(range(4), ["NORMAL"] * 4, 64)[0]
    other = pictures.copy()
    other[:, 8:-8, 8:-8] = 0
    np.testing.assert_array_equal(frame_cells(pictures), frame_cells(other))
    other[:, 0, :] += 9
    assert not np.array_equal(frame_cells(pictures), frame_cells(other))


def test_frame_auc_needs_patients_on_both_sides() -> None:
    pictures = draw_batch(range(24), ["NORMAL"] * 24, 64)[0]
    few = np.arange(24) < 4
    assert frame_auc(pictures, few, np.arange(24).astype(str)) is None


def test_doubt_by_hand() -> None:
    # Thresholds: class 0 mean(.9, .7, .4) = 2/3, class 1 mean(.8, .6) = .7; the third image reaches neither.
    chance = np.array([[0.9, 0.1], [0.7, 0.3], [0.4, 0.6], [0.2, 0.8], [0.4, 0.6]])
    assert confident_issues(chance, np.array([0, 0, 0, 1, 1])).tolist() == [-1] * 5
    chance[2] = [0.2, 0.8]  # thresholds .6 and .7: now it is confidently of class 1
    assert confident_issues(chance, np.array([0, 0, 0, 1, 1])).tolist() == [-1, -1, 1, -1, -1]
