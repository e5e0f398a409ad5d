from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from plant_faults import Planted, plant

from expressivegan.data.doctor import letters, markers
from expressivegan.data.doctor.case import Case, open_case
from expressivegan.data.doctor.letters import SIDE, marks
from expressivegan.data.phantom import CLASSES, draw_batch, film

Box = tuple[float, float, float, float]


def opened(planted: Planted, cache: Path) -> Case:
    return open_case(planted.folder, patient_regex=planted.patient_regex, cache_dir=cache, progress=False)


def covers(box: Box, ink: np.ndarray) -> float:
    """Share of the ink inside a box in pixels."""
    left, top, right, bottom = (int(v) for v in box)
    return float(ink[top:bottom, left:right].sum() / ink.sum())


@pytest.fixture(scope="module")
def stamped() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Phantoms with and without their R or L, and where its ink is: each (48, 224, 224)."""
    labels = [CLASSES[i % 3] for i in range(48)]
    pictures, _ = draw_batch(range(48), labels, SIDE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(film, "stamps", lambda shot, size: np.zeros((len(shot()), size, size), np.float32))
        bare, _ = draw_batch(range(48), labels, SIDE)
    return pictures, bare, np.abs(pictures.astype(int) - bare) > 40


def test_recall_and_precision_on_phantoms(stamped: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    pictures, bare, ink = stamped
    shown = [i for i in range(48) if ink[i].sum() > 20]  # on white ground a white letter is not to be seen
    assert len(shown) > 30
    found = [max((covers(m.box, ink[i]) for m in marks(pictures[i])), default=0.0) > 0.6 for i in shown]
    assert np.mean(found) >= 0.9
    right = [covers(m.box, ink[i]) > 0.3 if ink[i].any() else False for i in range(48) for m in marks(pictures[i])]
    assert np.mean(right) >= 0.9
    assert sum(len(marks(picture)) > 0 for picture in bare) <= 3


def test_other_fonts_words_and_dark_ink() -> None:
    quiet = np.full((SIDE, SIDE), 60, np.uint8)
    quiet[:, 60:170] = np.linspace(90, 160, 110).astype(np.uint8)
    assert marks(quiet) == []
    for text, size in (("L", 14), ("12:34:56", 12), ("A-P", 16), ("PORTABLE", 10)):
        for ground, ink, dark in ((60, 230, False), (210, 20, True)):
            picture = Image.fromarray(np.full((SIDE, SIDE), ground, np.uint8))
            pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
            pen.text((20, 30), text, fill=ink, font=font)
            drawn = np.abs(np.asarray(picture).astype(int) - ground) > 60
            found = marks(np.asarray(picture))
            assert [m.dark for m in found] == [dark], text
            assert covers(found[0].box, drawn) > 0.85


def test_what_is_no_letter() -> None:
    line = np.arange(SIDE)
    cable = np.full((SIDE, SIDE), 40, np.uint8)
    for y in line:
        cable[y, int(100 + 20 * np.sin(y / 30)) : int(103 + 20 * np.sin(y / 30))] = 220
    assert marks(cable) == []
    blob = 60 + 120 * np.exp(-((line[:, None] - 100) ** 2 + (line[None] - 100) ** 2) / 200)
    assert marks(blob.astype(np.uint8)) == []
    edge = np.zeros((SIDE, SIDE), np.uint8)
    edge[:, 30:] = 200
    assert marks(edge) == []
    assert marks(np.zeros((SIDE, SIDE), np.uint8)) == []


def test_a_telling_marker_is_high(tmp_path: Path) -> None:
    planted = plant("marker", tmp_path / "set", 120)
    case = opened(planted, tmp_path / "cache")
    finding = markers.check(case)
    assert (finding.check, finding.severity) == ("markers", "high")
    assert "BACTERIA against the rest" in finding.title
    auc = next(f for f in finding.figures if f.name.startswith("AUC of BACTERIA"))
    assert auc.low is not None
    assert auc.low > markers.HIGH
    boxes = {item["paths"][0]: item["boxes"] for item in finding.items}
    hits = 0
    for path, (left, top, right, bottom) in planted.truth["marker"].boxes.items():
        middle = (left + right) / 2, (top + bottom) / 2
        hits += any(b[0] < middle[0] < b[2] and b[1] < middle[1] < b[3] for b in boxes.get(path, []))
    assert hits >= 0.9 * len(planted.truth["marker"].boxes)
    assert "fix" in finding.remedy
    assert finding.consequence
    montage, heat = finding.pictures
    assert montage.pixels.shape[0] % 3 == heat.pixels.shape[1] % 3 == 0  # a row, a panel per class
    for picture in (montage, heat):
        assert picture.pixels.dtype == np.uint8
        assert (picture.pixels[..., 0].astype(int) - picture.pixels[..., 1] > 100).any()  # red
    red = heat.pixels[..., 0].astype(int) - heat.pixels[..., 1] > 60
    per_class = red[:, : SIDE * 3].reshape(SIDE, 3, SIDE)[: SIDE // 6, :, int(0.8 * SIDE) :].sum((0, 2))
    assert per_class.argmax() == list(case.manifest.classes).index("BACTERIA")


def test_markers_that_do_not_tell_are_low(tmp_path: Path) -> None:
    case = opened(plant("clean", tmp_path / "set", 120), tmp_path / "cache")
    finding = markers.check(case)
    assert finding.severity == "low"
    share = finding.figures[0]
    assert share.low is not None
    assert share.low < share.value == len(finding.items) / 120
    assert share.value > 0.5
    assert finding.table is not None
    assert sum(int(row[2]) for row in finding.table.rows) == 120
    assert sum(int(row[3]) for row in finding.table.rows) == len(finding.items)
    again = markers.check(case)
    assert again.figures == finding.figures
    assert again.items == finding.items


def test_none_are_ok(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film, "stamps", lambda shot, size: np.zeros((len(shot()), size, size), np.float32))
    finding = markers.check(open_case("phantom:36", cache_dir=tmp_path, progress=False, seed=5))
    assert finding.severity == "ok"
    assert finding.items == ()


def test_few_patients_and_one_class_without_marks(tmp_path: Path) -> None:
    case = open_case("phantom:30", cache_dir=tmp_path, progress=False)
    few = replace(case, manifest=replace(case.manifest, records=case.records[:8]))
    assert markers.check(few).severity == "low"
    assert "so few patients" in markers.check(few).title


def test_a_sample_of_a_large_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markers, "MOST", 40)
    case = open_case("phantom:60", cache_dir=tmp_path, progress=False)
    finding = markers.check(case)
    assert "a sample of 40 images" in finding.title
    assert "without --report all images are searched" in finding.remedy
    listed = {item["paths"][0]: item["boxes"] for item in finding.items}
    everywhere = markers.search(case)
    assert 20 < len(listed) <= 40 < len(everywhere)
    assert {path: [list(box) for box in everywhere[path]] for path in listed} == listed


def test_boxes_are_shares_of_the_uncropped_picture(tmp_path: Path) -> None:
    record = open_case("phantom:30", cache_dir=tmp_path, progress=False).records[0]
    mark = letters.Mark((0, 56, 111, 112), 5.0, False)
    assert markers.boxes_of([mark], record) == [(0.0, round(55 / 224, 5), 0.5, round(113 / 224, 5))]
    cropped = replace(record, crop=(0.5, 0.0, 1.0, 0.5))
    assert markers.boxes_of([mark], cropped) == [(0.5, round(55 / 448, 5), 0.75, round(113 / 448, 5))]


def test_real_pictures(kermany_dir: Path, tmp_path: Path) -> None:
    case = open_case(kermany_dir / "originals" / "chest_xray", cache_dir=tmp_path, progress=False)
    found = markers.check(case)
    assert len(found.items) > 0.7 * len(case.records)  # nearly all of them carry an R
    places = np.array([(b[0] + b[2]) / 2 for item in found.items for b in item["boxes"][:1]])
    assert np.mean(places < 0.5) > 0.75  # on the child's right, the picture's left
