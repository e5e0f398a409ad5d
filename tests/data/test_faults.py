"""The planted faults are what they say, and nothing else."""

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plant_faults import (
    BRIGHTER,
    CHECKS,
    FRAME,
    KINDS,
    LABEL_NOISE,
    PATIENT_REGEX,
    SIDE,
    TARGET,
    Planted,
    digest,
    plant,
)

from expressivegan.data.doctor.case import open_case

COUNT = 60
COPIES = ("exact-duplicate", "near-duplicate", "shifted-copy", "flipped-copy", "recompressed-copy", "resized-copy")
Make = Callable[[str], tuple[Planted, dict[str, str]]]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A set of one kind, and the hashes of its files; each made once."""

    @lru_cache
    def one(kind: str) -> tuple[Planted, dict[str, str]]:
        folder = tmp_path_factory.mktemp(kind)
        return plant(kind, folder, COUNT), digest(folder)

    return one


def pixels(planted: Planted, path: str) -> np.ndarray:
    with Image.open(planted.folder / path) as picture:
        return np.asarray(picture).astype(float)


def coarseness(planted: Planted, path: str) -> int:
    """Sum of the JPEG's quantisation table."""
    with Image.open(planted.folder / path) as picture:
        return sum(picture.quantization[0])  # type: ignore[attr-defined]


def patient(path: str) -> str:
    found = re.search(PATIENT_REGEX, path)
    assert found
    return found[1]


@pytest.mark.parametrize("kind", ["clean", "all", *KINDS])
def test_a_seed_is_a_set(kind: str, make: Make, tmp_path: Path) -> None:
    first, files = make(kind)
    again = plant(kind, tmp_path / "again", COUNT)
    assert digest(again.folder) == files
    assert again.truth == first.truth
    assert set(first.truth) == (set() if kind == "clean" else set(KINDS) if kind == "all" else {kind})


def test_another_seed_is_another_set(make: Make, tmp_path: Path) -> None:
    other = digest(plant("clean", tmp_path / "set", COUNT, seed=1).folder)
    assert not set(other.values()) & set(make("clean")[1].values())


def test_the_clean_set(make: Make, tmp_path: Path) -> None:
    planted, files = make("clean")
    assert len(files) == len(set(files.values())) == COUNT
    case = open_case(planted.folder, patient_regex=planted.patient_regex, cache_dir=tmp_path, progress=False)
    assert case.manifest.patients_known
    assert case.manifest.classes == ("NORMAL", "BACTERIA", "VIRUS")
    assert not case.manifest.rejected
    assert np.bincount(case.labels).min() > COUNT / 5
    assert not set(case.patients[case.splits == "train"]) & set(case.patients[case.splits == "test"])
    assert 0.1 < (case.splits == "test").mean() < 0.3
    assert len(set(case.patients)) < COUNT  # some come twice


@pytest.mark.parametrize("kind", COPIES)
def test_copies_stand_under_new_patients_and_cross_splits(kind: str, make: Make) -> None:
    planted, files = make(kind)
    clean = make("clean")[1]
    pairs = planted.truth[kind].pairs
    assert len(pairs) == 2
    assert {path: files[path] for path in clean} == clean  # nothing else changed
    assert set(files) - set(clean) == {copy for _, copy in pairs}
    for original, copy in pairs:
        assert original in clean
        assert original.split("/")[1] == copy.split("/")[1]  # the class
        assert patient(copy) not in {patient(path) for path in clean}
    assert len({a.split("/")[0] == b.split("/")[0] for a, b in pairs}) == 2


def test_what_the_copies_are(make: Make) -> None:
    for kind in COPIES:
        planted, files = make(kind)
        for a, b in planted.truth[kind].pairs:
            if kind == "exact-duplicate":
                assert files[a] == files[b]
                continue
            assert files[a] != files[b]
            first, second = pixels(planted, a), pixels(planted, b)
            if kind == "resized-copy":
                assert second.shape[0] in {64, 90, 183, 256}
                second = np.asarray(Image.fromarray(second.astype(np.uint8)).resize((SIDE, SIDE))).astype(float)
                assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.98
            elif kind == "shifted-copy":
                apart = np.abs(first - second).mean()
                moved = {
                    (y, x): np.abs(np.roll(first, (y, x), (0, 1)) - second)[13:-13, 13:-13].mean()
                    for y in range(-13, 14)
                    for x in range(-13, 14)
                }
                best = min(moved, key=lambda k: moved[k])
                assert all(4 <= abs(step) <= 13 for step in best)
                assert moved[best] < 5
                assert moved[best] < apart / 2
            elif kind == "flipped-copy":
                assert np.abs(first[:, ::-1] - second).mean() < 4 < np.abs(first - second).mean()
            elif kind == "recompressed-copy":
                assert 0.3 < np.abs(first - second).mean() < 6
                assert coarseness(planted, b) > 3 * coarseness(planted, a)
            else:
                assert 1 < np.abs(first - second).mean() < 14
                assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.97


def test_a_leak_moves_another_view_to_test(make: Make) -> None:
    planted, files = make("leak")
    clean = make("clean")[1]
    pairs = planted.truth["leak"].pairs
    assert len(pairs) >= 1
    moved = {b for _, b in pairs}
    assert set(files) - set(clean) == moved
    assert sorted(files.values()) == sorted(clean.values())
    for a, b in pairs:
        assert patient(a) == patient(b)
        assert (a.split("/")[0], b.split("/")[0]) == ("train", "test")


def test_label_noise_moves_files_to_another_class(make: Make) -> None:
    planted, files = make("label-noise")
    clean = make("clean")[1]
    wrong = planted.truth["label-noise"].paths
    assert len(wrong) == round(LABEL_NOISE * COUNT)
    assert set(files) - set(clean) == set(wrong)
    for path in wrong:
        split, label, name = path.split("/")
        before = [p for p in clean if p.endswith(name)]
        assert [clean[p] for p in before] == [files[path]]
        assert before[0].split("/")[0] == split
        assert before[0].split("/")[1] != label


def test_shortcuts_change_one_class(make: Make) -> None:
    for kind in ("border", "marker"):
        planted, files = make(kind)
        base, clean = make("clean")
        changed = {path for path in clean if files[path] != clean[path]}
        assert set(files) == set(clean)
        assert {path.split("/")[1] for path in changed} == {TARGET}
        of_class = sum(path.split("/")[1] == TARGET for path in clean)
        if kind == "marker":
            truth = planted.truth[kind]
            assert changed == set(truth.paths) == set(truth.boxes)
            assert 0.3 < len(changed) / of_class < 0.9
            for path, box in truth.boxes.items():
                assert box[0] > 0.75
                left, top, right, bottom = (round(v * SIDE) for v in box)
                change = np.abs(pixels(planted, path) - pixels(base, path))
                assert change[top:bottom, left:right].max() > 40
                change[max(top - 8, 0) : bottom + 8, left - 8 : right + 8] = 0  # blocks of the JPEG
                assert change.max() < 30
        else:
            assert len(changed) == of_class
            wide = round(FRAME * SIDE) + 8
            for path in changed:
                change = pixels(planted, path) - pixels(base, path)
                assert np.abs(change[wide:-wide, wide:-wide]).mean() < 0.5
                assert change[:5].mean() == pytest.approx(BRIGHTER, abs=1.5)


def test_geometry_shows_in_the_files_alone(make: Make) -> None:
    planted, files = make("geometry")
    assert set(files) == set(make("clean")[1])
    aspects: dict[bool, list[float]] = {True: [], False: []}
    for path in files:
        picture = pixels(planted, path)
        aspects[path.split("/")[1] == TARGET].append(picture.shape[1] / picture.shape[0])
        square, before = (
            np.asarray(Image.fromarray(p.astype(np.uint8)).resize((64, 64), Image.Resampling.BOX)).astype(float)
            for p in (picture, pixels(make("clean")[0], path))
        )
        assert np.abs(square - before).mean() < 8
    assert np.mean(aspects[True]) > np.mean(aspects[False]) + 0.2


def test_the_shift_is_in_test_alone(make: Make) -> None:
    planted, files = make("covariate-shift")
    base, clean = make("clean")
    assert {p for p in clean if files[p] != clean[p]} == {p for p in clean if p.startswith("test/")}
    for path in list(clean)[:5]:
        if path.startswith("test/"):
            assert pixels(planted, path).std() < 0.9 * pixels(base, path).std()


def test_all_at_once(make: Make) -> None:
    planted, files = make("all")
    assert set(CHECKS) == set(KINDS) == set(planted.truth)
    for truth in planted.truth.values():
        for path in [*truth.paths, *(p for pair in truth.pairs for p in pair), *truth.boxes]:
            assert path in files
    for a, b in planted.truth["exact-duplicate"].pairs:
        assert files[a] == files[b]
    touched = [patient(a) for kind in ("leak", *COPIES) for a, _ in planted.truth[kind].pairs]
    touched += [patient(path) for path in planted.truth["label-noise"].paths]
    assert len(touched) == len(set(touched))
    with pytest.raises(KeyError):
        plant("nothing", planted.folder / "x", COUNT)
