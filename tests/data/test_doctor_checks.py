"""Each check finds its planted fault, says so with numbers, and keeps quiet on a clean set."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plant_faults import Planted, plant

from expressivegan.data.doctor import CHECKS, Case, Diagnosis, Finding, diagnose, open_case
from expressivegan.data.doctor import patients as keyed
from expressivegan.data.doctor.border import frame_auc, frame_cells
from expressivegan.data.doctor.crossval import certain, out_of_fold, shortcut_severity, told_label, within_folds
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


@pytest.mark.parametrize(
    ("same", "coarser", "child"),
    [
        ((0.85, 0.82, 0.87), (0.51, 0.48, 0.54), True),
        ((0.85, 0.82, 0.87), (0.80, 0.75, 0.84), False),  # a coarser key is the child
        ((0.52, 0.50, 0.54), (0.51, 0.48, 0.54), False),  # neither is
        ((0.62, 0.50, 0.73), (0.51, 0.48, 0.54), False),  # who knows
    ],
)
def test_a_key_is_called_a_child_where_its_pictures_say_so(
    cases: dict[str, tuple[Case, Planted]],
    monkeypatch: pytest.MonkeyPatch,
    same: tuple[float, float, float],
    coarser: tuple[float, float, float],
    child: bool,
) -> None:
    case = cases["clean"][0]
    monkeypatch.setattr(keyed, "_readings", lambda case: {"number": np.full(len(case.records), "1")})
    monkeypatch.setattr(
        keyed, "_resemblance", lambda case, keys, apart=None: Interval(*(same if apart is None else coarser))
    )
    said = keyed.keys(case).consequence or ""
    assert f"with AUC {Interval(*same)}" in said
    assert ("so the key is a child" in said) == child


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
    able = next(f for f in finding.figures if f.name.startswith("balanced accuracy")).value >= 0.85
    assert finding.severity == ("medium" if able else "low")
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
    chance, fold = out_of_fold(features, labels, patients, strength=1.0)
    assert all(len(set(fold[patients == p])) == 1 for p in set(patients))
    accuracy = (chance.argmax(1) == labels).mean()
    assert 0.25 < accuracy < 0.75
    np.testing.assert_allclose(chance.sum(1), 1)


@pytest.mark.parametrize(
    ("low", "high", "severity"), [(0.71, 0.9, "high"), (0.62, 0.9, "medium"), (0.56, 0.7, "low"), (0.45, 0.9, "ok")]
)
def test_severity_goes_by_the_lower_end_of_the_interval(low: float, high: float, severity: str) -> None:
    one = [Interval((low + high) / 2, low, high)]
    assert shortcut_severity(certain(one)) == severity
    mirrored = [Interval(1 - (low + high) / 2, 1 - high, 1 - low)]
    assert certain(mirrored) == 0.5  # a cross-validated score has a direction
    assert certain(mirrored, two_sided=True) <= certain(one) + 1e-12


def test_many_figures_must_be_clearer_than_one() -> None:
    one = Interval(0.7, 0.6, 0.8)
    assert certain([one]) == pytest.approx(0.6)
    # z of 1 - 0.025/10 is 2.807: 0.7 - 0.1 · 2.807/1.960
    assert certain([one] * 10) == pytest.approx(0.5568, abs=1e-4)
    assert certain([Interval(float("nan"), float("nan"), float("nan"))]) == 0.5


def test_ranks_within_folds_by_hand() -> None:
    score, fold = np.array([0.1, 0.9, 0.5, 0.6]), np.array([0, 0, 1, 1])
    np.testing.assert_allclose(within_folds(score, fold), [1 / 3, 2 / 3, 1 / 3, 2 / 3])


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_noise_tells_nothing_of_few_uneven_patients(classes: int) -> None:
    """A patient has one image or forty, and the features are noise: at most two alarms in twenty sets, none high."""
    alarms = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sizes = rng.choice([1, 1, 2, 5, 40], 12 * classes)
        patients = np.repeat(np.array([f"p{i}" for i in range(len(sizes))]), sizes)
        labels = np.repeat(np.arange(len(sizes)) % classes, sizes)
        features = rng.normal(size=(len(labels), 12))
        told = told_label(features, labels, patients, [str(k) for k in range(classes)], strength=0.01)
        alarms.append(shortcut_severity(certain(list(told.values()))))
    assert alarms.count("high") == 0
    assert sum(a != "ok" for a in alarms) <= 2


def test_a_small_class_does_not_silence_the_others() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [60, 60, 5])
    features = rng.normal(size=(125, 3)) + 4 * labels[:, None]
    patients = np.arange(125).astype(str)
    told = told_label(features, labels, patients, ["A", "B", "C"])
    assert list(told) == ["A against the rest"]
    assert told["A against the rest"].value > 0.9
    assert told_label(features[:70], labels[:70], patients[:70], ["A", "B", "C"]) != {}
    assert told_label(features[:62], labels[:62], patients[:62], ["A", "B", "C"]) == {}


def test_a_set_without_a_usable_image_still_says_why(tmp_path: Path) -> None:
    (tmp_path / "set" / "A").mkdir(parents=True)
    (tmp_path / "set" / "A" / "x.png").write_text("no image")
    (tmp_path / "set" / "B").mkdir(parents=True)
    (tmp_path / "set" / "B" / "y.png").write_bytes(b"")
    found = diagnose(open_case(tmp_path / "set", cache_dir=tmp_path / "cache", progress=False))
    assert found.findings[0].check == "unreadable-files"
    assert found.findings[0].severity == "high"
    assert len(found.findings[0].items) == 2
    assert {f.severity for f in found.findings[1:]} == {"skipped"}


def test_turned_pictures_are_no_geometry(tmp_path: Path) -> None:
    """The same upright pictures, those of one class stored turned by a quarter and marked so in EXIF."""
    rng = np.random.default_rng(0)
    turned = Image.Exif()
    turned[0x0112] = 6
    for i in range(60):
        label = "AB"[i % 2]
        (tmp_path / "set" / label).mkdir(parents=True, exist_ok=True)
        upright = Image.fromarray(rng.integers(0, 255, (40, 64 + int(rng.integers(-3, 4))), dtype=np.uint8))
        path = tmp_path / "set" / label / f"{i}.jpeg"
        if label == "A":
            upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=turned)
        else:
            upright.save(path)
    case = open_case(tmp_path / "set", cache_dir=tmp_path / "cache", progress=False)
    assert {r.height for r in case.records} == {40}
    finding = of(diagnose(case, ["geometry-shortcut"]), "geometry-shortcut")
    assert "aspect" not in finding.title


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
