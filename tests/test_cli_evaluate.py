"""`expressivegan evaluate` as a user calls it: killed and called again, and on what it cannot judge."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from command_line import Refused, call
from expressivegan.atomic import write_text
from expressivegan.checkpoint import save_model
from expressivegan.data import load_images
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
    # two looks at the test patients, though only one came to an end: the first has shown a section
    entries = read_log(run / NAME)
    assert [e["hash"] for e in entries] == [results["generated"]["model_hash"]] * 2
    assert ["figures" in e for e in entries] == [False, True]
    assert results["test_log"]["times"] == 2
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
    monkeypatch.setattr("expressivegan.evaluation.collect.version", lambda package: "0.0")
    told.clear()
    from_model(run, CLASSES, 200, seed=1, progress=lambda done, *rest: told.append(done), keep=keep)
    assert told[0] == 64  # another version may make them otherwise
    keep.write_bytes(b"PK damaged")
    assert from_model(run, CLASSES, 200, keep=keep).content_hash == whole.content_hash


def test_a_model_is_judged_on_its_own_data_made_square_in_its_way(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the results of another evaluation do not stay beside those of this one."""
    known = load_images("phantom:300", 32, progress=False).data_hash
    out = tmp_path / "out"
    command = (*DATA, "--model", run, "--num", 90, "--out", out, "--sections", "shortcuts")
    (run / "settings.json").write_text(json.dumps({"data_hash": "f00d", "config": {"fit": "pad"}}), encoding="utf-8")
    assert call(*command) == 2
    said = capsys.readouterr().err
    assert known[:12] in said
    assert "was trained on f00d" in said
    assert not out.exists()
    assert call(*command, "--other-data") == 0
    results = json.loads((out / "results.json").read_text("utf-8"))
    assert (results["data"]["fit"], results["generated"]["trained_on"]) == ("pad", "f00d")
    (run / "settings.json").write_text(json.dumps({"data_hash": known}), encoding="utf-8")
    assert (out / "figures" / "shortcuts.png").exists()
    capsys.readouterr()
    (tmp_path / "empty").mkdir()
    assert call(*(*DATA, "--images", tmp_path / "empty", "--out", out)) == 2  # refused before anything is taken away
    assert (out / "results.json").exists()
    assert call(*command[:-1], "memorisation") == 0
    assert "the earlier results" in capsys.readouterr().err
    assert [path.name for path in (out / "figures").iterdir()] == ["memorisation.png"]
    assert json.loads((out / "results.json").read_text("utf-8"))["data"]["fit"] == "stretch"


def test_an_interrupted_evaluation_leaves_no_earlier_results(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command = (*DATA, "--model", run, "--num", 90, "--sections", "shortcuts", "--out", out)
    assert call(*command) == 0

    def stop(*given: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("expressivegan.evaluate_command.from_model", stop)
    assert call(*command) != 0
    assert not (out / "results.json").exists()
    assert not (out / "results.csv").exists()
    assert not list(out.rglob("*.png"))
    assert (out / "parts" / "shortcuts.json").exists()


def test_a_kill_between_the_results_leaves_a_folder_that_goes_on(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command = (*DATA, "--model", run, "--num", 90, "--sections", "shortcuts", "--out", out)
    whole = ("results.csv", "results.json")
    for attribute in ("expressivegan.evaluate_command.write_text", "pathlib.Path.unlink"):
        work, done = (write_text, []) if attribute.endswith("write_text") else (Path.unlink, [])

        def stop(path: Path, *given: Any, work: Any = work, done: list[str] = done, **options: Any) -> None:
            if path.name in whole and done:
                raise KeyboardInterrupt
            work(path, *given, **options)
            done += [path.name] * (path.name in whole)

        with monkeypatch.context() as patch:
            patch.setattr(attribute, stop)
            assert call(*command) != 0
        assert len([name for name in whole if (out / name).exists()]) == 1  # of two
        assert call(*command) == 0
        assert all((out / name).exists() for name in whole)


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
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "results.json").write_text('{"accuracy": 0.9}')
    for argv, sentence in (
        (("--images", "texts"), "images (='texts') holds no image"),
        (("--images", "few"), "holds 16 images; at least 24"),
        (("--images", "strange"), "have the labels CATS, DOGS, and the data set has NORMAL, BACTERIA, VIRUS"),
        (("--images", "flat", "--features", "beauty"), "features (='beauty') must be one of"),
        (("--images", "flat", "--sections", "anatomy"), "needs labels, and the images have none"),
        (("--images", "flat", "--out", "file"), "--out (=file) cannot be written to"),
        (("--model", "other"), "makes A, B, and the data set holds NORMAL, BACTERIA, VIRUS"),
        (("--model", "flat"), "no model directory"),
        (("--model", "flat", "--fit", "pad"), "--fit (=pad) goes with --images"),
        (("--images", "flat", "--other-data"), "--other-data says that a model"),
        (("--images", "flat", "--seed", "-1"), "--seed (=-1) must be 0 or more"),
        (("--images", "flat", "--num", "9"), "--num (=9) says how many images a model shall make"),
        (("--images", "flat", "--resolution", "0"), "resolution (=0)"),
        (("--images", "flat", "--features"), "--features is empty"),
        (("--images", "flat", "--out", "mine"), "holds a results.json of something else"),
        (("--images", "flat", "--out", "flat/judged"), "--out (=flat/judged) lies in --images (=flat)"),
        (("--images", "flat", "--out", "flat"), "--out (=flat) lies in --images (=flat)"),
    ):
        out = () if "--out" in argv else ("--out", "out")
        assert sentence in refused(*DATA, *argv, *out)
    assert "--out (=evaluation) lies in --images (=.)" in refused(*DATA, "--images", ".")
    assert (tmp_path / "mine" / "results.json").read_text() == '{"accuracy": 0.9}'
