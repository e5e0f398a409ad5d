"""`expressivegan data …`: what it shows, writes and refuses."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import Refused, call
from expressivegan.data import Manifest, load_images
from expressivegan.data.phantom import CLASSES, draw_batch

pytestmark = pytest.mark.filterwarnings("ignore:.*EVERY IMAGE COUNTS AS A PATIENT", "ignore:.*training images show")
KEY = ["--patient-regex", r"(child\d+)"]


@pytest.fixture(scope="module")
def sick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 children; one picture stands twice under two names, one child in both splits, one file is no image."""
    folder = tmp_path_factory.mktemp("sick")
    pictures, _ = draw_batch(range(90), [CLASSES[i % 3] for i in range(90)], 64)
    for i, picture in enumerate(pictures):
        path = folder / ("test" if i % 5 == 0 else "train") / CLASSES[i % 3] / f"child{i:03}-0.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    twin = folder / "train" / CLASSES[1] / "child900-0.png"
    twin.write_bytes((folder / "train" / CLASSES[1] / "child001-0.png").read_bytes())
    shot, _ = draw_batch([3], [CLASSES[0]], 64, [1])
    Image.fromarray(shot[0]).save(folder / "test" / CLASSES[0] / "child003-1.png")
    (folder / "train" / CLASSES[0] / "notes.png").write_text("no image")
    return folder


def findings(out: Path) -> dict[str, dict[str, object]]:
    return {f["check"]: f for f in json.loads((out / "doctor.json").read_text("utf-8"))["findings"]}


def test_the_doctor_writes_page_and_data_and_prints(
    sick: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "doctor"
    assert call("data", "doctor", sick, *KEY, "--out", out) == 0
    found = findings(out)
    assert found["patients-across-splits"]["severity"] == "high"
    assert found["patients-across-splits"]["items"][0]["patient"] == "child003"  # type: ignore[index]
    assert found["exact-duplicates"]["severity"] == "medium"
    assert found["unreadable-files"]["items"][0]["paths"] == ["train/NORMAL/notes.png"]  # type: ignore[index]
    page = (out / "doctor.html").read_text("utf-8")
    assert "child003" in page
    said = capsys.readouterr().err
    assert "1 of 91 patients stand in more than one split" in " ".join(said.split())
    assert "doctor.html" in said
    # what the doctor was told of patients is said again
    assert rf"data fix {sick} --out fixed.jsonl --patient-regex '(child\d+)' --leaks" in " ".join(said.split())


def test_the_doctor_does_not_write_into_the_set(sick: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sick)
    assert "lies in the data set" in refused("data", "doctor", ".")
    assert not (sick / "doctor").exists()


@pytest.mark.parametrize(("limit", "code"), [("never", 0), ("high", 1), ("medium", 1)])
def test_the_exit_code_is_for_scripts(sick: Path, tmp_path: Path, limit: str, code: int) -> None:
    arguments = ["--checks", "patients-across-splits", "--fail-on", limit, "--out", tmp_path / "d"]
    assert call("data", "doctor", sick, *KEY, *arguments) == code
    assert call("data", "doctor", sick, *KEY, "--checks", "odd-files", "--fail-on", limit, "--out", tmp_path / "e") == 0


def test_what_the_doctor_finds_can_be_fixed_and_undone(sick: Path, tmp_path: Path) -> None:
    out, fixed, back = tmp_path / "doctor", tmp_path / "fixed.jsonl", tmp_path / "back.jsonl"
    checks = ["--checks", "exact-duplicates", "near-duplicates", "patients-across-splits"]
    assert call("data", "doctor", sick, *KEY, "--out", out, *checks) == 0
    assert call("data", "show", sick, *KEY, "--out", tmp_path / "raw.jsonl") == 0
    assert call("data", "fix", tmp_path / "raw.jsonl", "--out", fixed, "--report", out / "doctor.json",
                "--border", 0.05) == 0  # fmt: skip
    before, after = Manifest.read(tmp_path / "raw.jsonl"), Manifest.read(fixed)
    assert len(after.records) == len(before.records) - 1
    assert {c.kind for c in after.changes} == {"duplicate", "border"}
    assert call("data", "doctor", fixed, "--out", tmp_path / "after", *checks) == 0
    assert {f["severity"] for f in findings(tmp_path / "after").values()} <= {"ok", "low", "skipped"}
    images = load_images(fixed, 64)
    whole = load_images(tmp_path / "raw.jsonl", 64)
    at = {r.path: i for i, r in enumerate(whole.manifest.records)}
    inner = np.asarray(Image.fromarray(whole.images[at[after.records[0].path]][3:61, 3:61]).resize((64, 64)))
    assert np.abs(images.images[0].astype(int) - inner).mean() < 6
    assert call("data", "fix", fixed, "--out", back, "--undo") == 0
    assert Manifest.read(back) == before
    assert call("data", "fix", fixed, "--out", back, "--undo", "border") == 0
    assert {c.kind for c in Manifest.read(back).changes} == {"duplicate"}


def test_prepare_opens_at_once_afterwards(sick: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("data", "prepare", sick, *KEY, "--resolution", 32, 64, "--out", tmp_path / "m.jsonl") == 0
    said = capsys.readouterr().err
    assert "92 images at 32 px, 64 px" in " ".join(said.split())
    assert "notes.png" in said
    assert load_images(tmp_path / "m.jsonl", 32).images.shape == (92, 32, 32)


def test_classes_by_rule(sick: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.jsonl"
    assert call("data", "show", sick, *KEY, "--classes", "NORMAL,SICK=BACTERIA|VIRUS", "--out", out) == 0
    assert Manifest.read(out).classes == ("NORMAL", "SICK")


def test_mistakes_are_one_sentence(sick: Path, refused: Refused, tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    load_images(sick, 64, patient_regex=KEY[1]).manifest.write(manifest)
    assert "does not exist" in refused("data", "doctor", "no/such/place")
    assert "nothing to do" in refused("data", "fix", sick, *KEY, "--out", "x.jsonl")
    assert "is a folder" in refused("data", "fix", sick, *KEY, "--out", ".", "--leaks")
    assert "is the data set itself" in refused("data", "fix", manifest, "--out", manifest, "--leaks")
    assert "--undo takes changes back" in refused("data", "fix", manifest, "--out", "x.jsonl", "--undo", "--leaks")
    assert "border (=0.7)" in refused("data", "fix", manifest, "--out", "x.jsonl", "--border", 0.7)
    assert "cannot read the report" in refused("data", "fix", manifest, "--out", "x.jsonl", "--report", "no.json")
    assert "Fracture" in refused("data", "doctor", sick, "--classes", "NORMAL,Fracture")
    assert "16" in refused("data", "prepare", manifest, "--resolution", 8)
    assert "has 0 changes" in refused("data", "fix", manifest, "--out", "x.jsonl", "--undo")
    for missing in (["data", sick], ["data", "--data", sick]):
        assert f"try: expressivegan data show {sick}" in refused(*missing)


def test_nothing_but_a_manifest_is_written_over(sick: Path, refused: Refused, tmp_path: Path) -> None:
    picture = tmp_path / "mine.png"
    picture.write_bytes((sick / "train" / "NORMAL" / "child003-0.png").read_bytes())
    for command in (["show", sick], ["prepare", sick], ["fix", sick, "--geometry"]):
        assert "holds something else than a manifest" in refused("data", *command, *KEY, "--out", picture)
    assert call("data", "show", sick, *KEY, "--out", tmp_path / "m.jsonl") == 0
    assert call("data", "show", sick, *KEY, "--out", tmp_path / "m.jsonl") == 0  # our own may be renewed


def test_a_report_of_other_data_is_refused(sick: Path, refused: Refused, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(sick, other)
    Image.fromarray(draw_batch([500], ["BACTERIA"], 64)[0][0]).save(other / "train" / "BACTERIA" / "child001-0.png")
    assert call("data", "doctor", sick, *KEY, "--checks", "exact-duplicates", "--out", tmp_path / "d") == 0
    said = refused("data", "fix", other, *KEY, "--report", tmp_path / "d" / "doctor.json", "--out", "x.jsonl")
    assert "child001-0.png" in said
    assert "run the doctor on these data again" in said


def test_looking_at_data_needs_no_networks(tmp_path: Path) -> None:
    """A gigabyte is what the worst input may cost; what is imported must leave room for it."""
    code = (
        "import sys; from expressivegan import cli; code = cli.main(['data', 'show', 'no/such/place']);"
        "print(code, [m for m in ('torchvision', 'lightning_fabric', 'sklearn') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stdout.strip() == "2 []"
