"""`expressivegan evaluate` as a user calls it: killed and called again, and on what it cannot judge."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import Refused, call
from expressivegan.checkpoint import save_model
from expressivegan.evaluation import from_model
from expressivegan.evaluation.collect import open_for_evaluation
from expressivegan.evaluation.testlog import NAME, read_log
from tiny import CLASSES, tiny_generator

DATA = ("evaluate", "--data", "phantom:300")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with a generator."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text("{}", encoding="utf-8")
    save_model(tiny_generator(), tmp_path / "run" / "generator", "card")
    return tmp_path / "run"


def pictures(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        draw = np.random.default_rng([i, *folder.name.encode()])
        Image.fromarray(draw.integers(0, 256, (40, 40), dtype=np.uint8)).save(folder / f"{i}.png")


def test_a_killed_evaluation_goes_on(tmp_path: Path, run: Path) -> None:
    out = tmp_path / "out"
    command = [
        "evaluate",
        "--data",
        "phantom:480",
        "--model",
        str(run),
        "--num",
        "130",
        "--out",
        str(out),
        "--group",
        "test",
    ]
    command += ["--sections", "anatomy", "memorisation"]
    with subprocess.Popen([sys.executable, "-m", "expressivegan.cli", *command], stderr=subprocess.DEVNULL) as killed:
        deadline = time.monotonic() + 200
        while not (out / "parts" / "anatomy.json").exists() and time.monotonic() < deadline and killed.poll() is None:
            time.sleep(0.005)
        killed.send_signal(signal.SIGKILL)
    assert (out / "parts" / "anatomy.json").exists()
    assert not (out / "results.json").exists()
    kept = [out / "parts" / name for name in ("images.npz", "anatomy.json")]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in kept]
    assert call(*command) == 0
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in kept] == before
    results = json.loads((out / "results.json").read_text("utf-8"))
    assert results["sections"]["anatomy"] == json.loads(before[1][0])["found"]
    assert set(results["sections"]) == {"anatomy", "memorisation"}
    assert not list(out.rglob(".*"))
    # one look at the test patients, since only one came to an end
    entries = read_log(run / NAME)
    assert [e["hash"] for e in entries] == [results["generated"]["model_hash"]]
    assert results["test_log"]["times"] == 1
    rows = (out / "results.csv").read_text("utf-8").splitlines()
    assert any(row.startswith("anatomy/figures/all/landmarks/ctr/fake/low,") for row in rows)
    assert (out / "figures" / "anatomy.png").is_file()


def test_interrupted_images_go_on(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("expressivegan.evaluation.collect._SAVE_SECONDS", 0)
    keep = tmp_path / "parts" / "images.npz"
    whole = from_model(run, CLASSES, 200)

    def stop(done: int, total: int, words: str) -> None:
        if done == 128:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        from_model(run, CLASSES, 200, progress=stop, keep=keep)
    told: list[int] = []
    again = from_model(run, CLASSES, 200, progress=lambda done, *rest: told.append(done), keep=keep)
    assert told == [128, 192, 200]  # the first 64 were kept
    assert again.content_hash == whole.content_hash
    assert from_model(run, CLASSES, 200, seed=1, keep=keep).content_hash != whole.content_hash
    keep.write_bytes(b"PK damaged")
    assert from_model(run, CLASSES, 200, keep=keep).content_hash == whole.content_hash


def test_a_generator_within_a_run_is_logged_in_the_run(run: Path) -> None:
    assert open_for_evaluation(run).home == open_for_evaluation(run / "generator").home == run
    model = run.parent / "model"
    save_model(tiny_generator(), model, "card")
    assert open_for_evaluation(model).home == model
    assert open_for_evaluation(model).hash == open_for_evaluation(run).hash


def test_what_cannot_be_judged_is_said(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "texts").mkdir()
    for i in range(30):
        (tmp_path / "texts" / f"{i}.txt").write_text("no image", encoding="utf-8")
    for folder in ("few/NORMAL", "few/VIRUS"):
        pictures(tmp_path / folder, 8)
    for folder in ("strange/CATS", "strange/DOGS"):
        pictures(tmp_path / folder, 30)
    pictures(tmp_path / "flat", 30)
    save_model(tiny_generator(classes=("A", "B"), reference=None), tmp_path / "other", "card")
    (tmp_path / "file").touch()
    for argv, sentence in (
        (("--images", "texts"), "images (='texts') holds no image"),
        (("--images", "few"), "holds 16 images; at least 24"),
        (("--images", "strange"), "have the labels CATS, DOGS, and the data set has NORMAL, BACTERIA, VIRUS"),
        (("--images", "flat", "--features", "beauty"), "features (='beauty') must be one of"),
        (("--images", "flat", "--sections", "anatomy"), "needs labels, and the images have none"),
        (("--images", "flat", "--out", "file"), "--out (=file) cannot be written to"),
        (("--model", "other"), "makes A, B, and the data set holds NORMAL, BACTERIA, VIRUS"),
        (("--model", "flat"), "no model directory"),
    ):
        out = () if "--out" in argv else ("--out", "out")
        assert sentence in refused(*DATA, *argv, *out)
