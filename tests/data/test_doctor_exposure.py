from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from expressivegan.data.doctor import exposure
from expressivegan.data.doctor.case import Case, open_case
from expressivegan.data.phantom import CLASSES, draw_batch

COUNT = 240
Write = Callable[[np.ndarray], Case]


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """(240, 64, 64), class i % 3."""
    return draw_batch(range(COUNT), [CLASSES[i % 3] for i in range(COUNT)])[0]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Pictures → the case of a folder of them, in their order within each class."""

    def made(pictures: np.ndarray) -> Case:
        for i, picture in enumerate(pictures):
            path = tmp_path / "set" / CLASSES[i % 3] / f"child{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
        return open_case(tmp_path / "set", patient_regex=r"(child\d+)", cache_dir=tmp_path / "cache", progress=False)

    return made


def faulty(pictures: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
    """With one picture of each fault, and what each should be called."""
    rng = np.random.default_rng(0)
    changed = pictures.copy()
    grey = pictures.astype(float)
    told = {
        3: ("inverted", 255 - grey[3]),
        10: ("inverted", 250 - 0.9 * grey[10]),
        23: ("nearly all black", grey[23] * 0.03),
        40: ("over-exposed", grey[40] * 3 + 60),
        59: ("flat", 110 + 0.05 * (grey[59] - 110)),
        80: ("too bright", 200 + 0.25 * grey[80]),
        101: ("blurred", gaussian_filter(grey[101], 2.5)),
        130: ("noisy", grey[130] + rng.normal(0, 45, (64, 64))),
        150: ("unlike the others", np.tile(np.linspace(40, 200, 64), (64, 1)) + rng.normal(0, 8, (64, 64))),
    }
    for i, (_, picture) in told.items():
        changed[i] = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return changed, {i: reason for i, (reason, _) in told.items()}


def test_each_fault_is_named(pictures: np.ndarray, write: Write) -> None:
    changed, expected = faulty(pictures)
    finding = exposure.check(write(changed))
    assert finding.severity == "high"  # two negatives among 240
    said = {Path(item["paths"][0]).stem: item["reasons"] for item in finding.items}
    assert set(said) == {f"child{i:03}" for i in expected}
    for i, reason in expected.items():
        assert any(text.startswith(f"{reason}: ") for text in said[f"child{i:03}"]), (i, said[f"child{i:03}"])
    inverted = next(f for f in finding.figures if f.name == "share inverted")
    assert inverted.value == pytest.approx(2 / COUNT)
    assert inverted.low is not None
    assert inverted.high is not None
    assert inverted.low < inverted.value < inverted.high
    assert finding.items[0]["reasons"][0].startswith("inverted")  # worst first
    assert finding.table is not None
    assert ("inverted", "2", "0.83%") in finding.table.rows
    (sheet,) = finding.pictures
    assert sheet.pixels.shape == (2 * (128 + 14), 6 * 128)  # nine pictures in rows of six
    names = sheet.pixels[128:142]
    assert (names > 128).any()


def test_a_clean_set_is_ok(pictures: np.ndarray, write: Write) -> None:
    finding = exposure.check(write(pictures))
    assert finding.severity == "ok"
    assert finding.items == ()
    assert all(figure.value == 0 for figure in finding.figures)


def test_one_odd_picture_is_worth_knowing(pictures: np.ndarray, write: Write) -> None:
    changed = pictures.copy()
    changed[7] = 0
    changed[7, 30, 30] = 9  # a constant picture would be rejected
    finding = exposure.check(write(changed))
    assert finding.severity == "low"
    assert [item["paths"] for item in finding.items] == [["BACTERIA/child007.png"]]
    assert "1 of 240" in finding.title


def test_one_negative_among_many_is_no_catastrophe(pictures: np.ndarray) -> None:
    changed = pictures.copy()
    changed[5] = 255 - changed[5]
    labels = np.arange(COUNT) % 3
    measured = exposure.measure(np.concatenate([changed, pictures]))
    reasons = exposure.outliers(measured, np.concatenate([labels, labels]))
    assert np.flatnonzero(reasons["inverted"]).tolist() == [5]
    assert exposure._severity(1, 1, 480) == "medium"


def test_a_brighter_class_is_not_an_outlier(pictures: np.ndarray) -> None:
    brighter = pictures.copy()
    sick = np.arange(COUNT) % 3 == 1
    brighter[sick] = np.clip(brighter[sick] * 0.5 + 120, 0, 255).astype(np.uint8)
    reasons = exposure.outliers(exposure.measure(brighter), sick.astype(np.int64))
    assert not any(found.any() for found in reasons.values())


def test_measures_by_hand() -> None:
    half = np.zeros((64, 64), np.uint8)
    half[:, 32:] = 255
    measured = exposure.measure(np.stack([half, half, 255 - half, np.full((64, 64), 7, np.uint8)]))
    assert measured.mean.tolist() == [127.5, 127.5, 127.5, 7]
    assert measured.spread.tolist() == [127.5, 127.5, 127.5, 0]
    assert measured.black.tolist() == [0.5, 0.5, 0.5, 1]
    assert measured.white.tolist() == [0.5, 0.5, 0.5, 0]
    assert measured.likeness == pytest.approx([1, 1, -1, 0], abs=1e-6)
    assert measured.centre == pytest.approx([0, 0, 0, 0], abs=1e-6)
    assert measured.sharpness[3] == 0


def test_pieces_make_no_difference(pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = exposure.measure(pictures)
    monkeypatch.setattr(exposure, "_PIECE", 50)
    parts = exposure.measure(pictures)
    for name in vars(whole):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-4, abs=1e-5)


def test_real_pictures_have_few(kermany_dir: Path, tmp_path: Path) -> None:
    case = open_case(kermany_dir / "originals" / "chest_xray", cache_dir=tmp_path, progress=False)
    finding = exposure.check(case)
    assert finding.severity in {"ok", "low"}
    assert len(finding.items) <= 2
