"""The examples run as they stand, in a process of their own."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(name: str, out: Path, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), "--quick", "--out", str(out), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=out.parent, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_five_steps_runs_and_leaves_images_maps_and_labels(tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = run("five_steps.py", out)
    assert [line[0] for line in said.splitlines() if line[1:2] == "."] == list("12345")
    assert "score is the mean of the evidence: True" in said
    for name in ("generated.png", "pairs.png", "teacher/cams.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 100
    rows = (out / "images" / "labels.csv").read_text().splitlines()
    assert len(rows) == 7
    assert all((out / "images" / row.split(",")[0]).is_file() for row in rows[1:])


@pytest.mark.parametrize(
    ("arguments", "classes", "reference"),
    [([], "blob, plain", "None"), (["--reference"], "normal, blob", "normal")],
    ids=["no-reference", "reference"],
)
def test_shapes_runs_on_images_that_are_no_xrays(
    tmp_path: Path, arguments: list[str], classes: str, reference: str
) -> None:
    out = tmp_path / "out"
    said = run("shapes.py", out, *arguments)
    assert f"classes {classes}; reference {reference}" in said
    with Image.open(out / "shapes.png") as picture:
        assert min(picture.size) > 100


def test_an_example_does_not_write_over_an_earlier_run(tmp_path: Path) -> None:
    (tmp_path / "out" / "set").mkdir(parents=True)
    command = [sys.executable, str(EXAMPLES / "shapes.py"), "--quick", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "choose another folder" in done.stderr
