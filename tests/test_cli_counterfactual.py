"""`expressivegan counterfactual`, as a user would call it."""

import contextlib
import json
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from command_line import Refused, call, tree
from expressivegan import counterfactual_command
from expressivegan.checkpoint import save_model
from expressivegan.errors import DataError, InputError
from expressivegan.evaluation import JudgeClassifier, JudgeRecipe
from expressivegan.images import to_uint8
from expressivegan.models.dcgan import DCGANGenerator
from expressivegan.synthesis import (
    counterfactual_files,
    counterfactual_strip,
    generate,
    project,
    projection,
    read_provenance,
)
from expressivegan.synthesis.projection import Projection
from tiny import phantom_set, tiny_generator, tiny_teacher


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with generator and teacher, trained on phantom:120."""
    (tmp_path / "run").mkdir()
    trained = {"data_hash": phantom_set(120).data_hash, "config": {"method": "expressive", "fit": "stretch"}}
    save_model(tiny_generator(), tmp_path / "run" / "generator", "card", trained)
    save_model(tiny_teacher(), tmp_path / "run" / "teacher", "card")
    return tmp_path / "run"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits in a second; a network of random weights draws flat images, which are harder to hit."""

    def shorter(*args: Any, **options: Any) -> Projection:
        return project(*args, **options, draws=32, starts=2, steps=(50, 5))

    monkeypatch.setattr(counterfactual_command, "project", shorter)
    monkeypatch.setattr(projection, "POOR", 0.7)


def written(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "counterfactuals.json").read_text(encoding="utf-8"))
    schema = json.loads(files("expressivegan.synthesis").joinpath("counterfactual.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(found)
    return found


def grey(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.fixture
def quick_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    real_fit = JudgeClassifier.fit

    def fit(*args: Any, **options: Any) -> JudgeClassifier:
        return real_fit(*args, **options, recipe=JudgeRecipe(resolution=32, epochs=1))

    monkeypatch.setattr(counterfactual_command.JudgeClassifier, "fit", fit)


@pytest.mark.usefixtures("quick_judge")
def test_synthetic_children(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    regions = ["right lower", "box 0.6 0.2 0.9 0.5"]
    asked = ["--label", "virus", "--num", 2, "--seed", 5, "--steps", 3, "--strength", 0.9, "--steer", *regions]
    assert call("counterfactual", "--model", run, "--out", out, "--data", "phantom:120", *asked) == 0
    found = written(out)
    assert found["steer"]["regions"] == regions
    assert found["notes"] == []
    assert set(found["scorers"]) == {"teacher", "independent"}
    assert [c["index"] for c in found["counterfactuals"]] == [0, 1]
    for one in found["counterfactuals"]:
        assert one["strengths"] == [0.0, 0.45, 0.9]
        assert (one["outside_change"], one["base_change"], one["change_in_steer"]) == (0.0, 0.0, 1.0)
        assert one["outside_share"] > 0.5
        for name in ("teacher", "independent"):
            rows = np.array(one["scores"][name])
            assert rows.shape == (3, 3)
            assert np.allclose(rows.sum(1), 1, atol=1e-4)
        before, after, mask = (grey(out / one["files"][k]) for k in ("before", "after", "maps"))
        assert before.shape == after.shape == mask.shape == (32, 32)
        assert not np.array_equal(before, after)
        assert (before == after)[mask == 0].mean() > 0.99  # a map below 1/510 is black in 8 bits
        assert grey(out / one["files"]["strips"]).shape == (32, 3 * 34 - 2)
        for name in one["files"].values():
            facts = read_provenance(out / name)
            assert facts is not None
            assert (facts["seed"], facts["label"]) == (5, "VIRUS")
    assert grey(out / "montage.png").shape == (2 * 34 - 2, 5 * 34 - 2)
    assert not [p for p in out.rglob("*") if p.name.startswith(".")]
    assert call("counterfactual", "--model", run, "--out", out, "--label", "VIRUS") == 2  # not empty


@pytest.mark.usefixtures("quick_judge")
def test_data_that_the_model_was_not_trained_on(run: Path, tmp_path: Path, refused: Refused) -> None:
    """Dealt anew, judge patients may be the generator's; only on purpose, and then it is said."""
    asked = ["counterfactual", "--model", run, "--label", "VIRUS", "--steps", 2]
    said = refused(*asked, "--out", "new/o", "--data", "phantom:130")
    assert re.search("was trained on .*training patients may stand in any group.*--other-data", said)
    assert call(*asked, "--out", tmp_path / "others", "--data", "phantom:130", "--other-data") == 0
    found = written(tmp_path / "others")
    assert found["notes"] == [
        "the independent classifier may know the generator's patients: the model was trained on other data"
    ]
    (run / "data.json").write_text('{"source": "phantom:130"}')  # what stands there has changed since
    assert call(*asked, "--out", tmp_path / "changed") == 0
    found = written(tmp_path / "changed")
    assert found["scorers"]["independent"] is None
    assert "the run's data cannot be used" in found["notes"][0]


def test_a_generator_within_a_run_finds_teacher_data_and_fit(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = {"data_hash": phantom_set(120).data_hash, "config": {"method": "expressive", "fit": "pad"}}
    save_model(tiny_generator(), run / "generator", "card", trained)
    (run / "settings.json").write_text(json.dumps({"teacher": None} | trained))
    (run / "data.json").write_text('{"source": "phantom:120"}')
    loaded: list[tuple[Any, Any]] = []
    seen: list[Any] = []

    def load(source: Any, resolution: int, **how: Any) -> Any:
        loaded.append((source, how["fit"]))
        raise DataError("enough")

    def fitted(model: Any, real: Any, *args: Any, **options: Any) -> Any:
        seen.append(real)
        raise InputError("enough")

    monkeypatch.setattr(counterfactual_command, "load_images", load)
    monkeypatch.setattr(counterfactual_command, "project", fitted)
    white = tmp_path / "white.png"
    Image.new("L", (32, 64), 255).save(white)
    for model in (run, run / "generator"):
        loaded.clear()
        out = tmp_path / f"of-{model.name}"
        assert call("counterfactual", "--model", model, "--out", out, "--label", "VIRUS", "--steps", 2) == 0
        assert written(out)["scorers"]["teacher"] == {"classes": list(tiny_teacher().classes)}
        assert loaded == [("phantom:120", "pad")]
        seen.clear()
        assert call("counterfactual", "--model", model, "--out", "o", "--label", "VIRUS", "--image", white) == 2
        assert seen[0][0, 0, 16].tolist() == [-1.0] * 8 + [1.0] * 16 + [-1.0] * 8  # black to the left and right


def test_an_interrupted_run_goes_on(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counterfactual_files, "_SHOWN", 1)
    made: list[int] = []
    stop = [3]

    def strip(model: Any, index: int, *args: Any, **options: Any) -> Any:
        if index == stop[0]:
            raise KeyboardInterrupt
        made.append(index)
        return counterfactual_strip(model, index, *args, **options)

    monkeypatch.setattr(counterfactual_command, "counterfactual_strip", strip)
    asked = ["counterfactual", "--model", run, "--label", "VIRUS", "--num", 5, "--steps", 2]
    out = tmp_path / "out"
    with contextlib.suppress(KeyboardInterrupt):
        call(*asked, "--out", out)
    assert not (out / "counterfactuals.json").exists()
    assert made == [0, 1, 2]
    with (out / "unfinished.jsonl").open("a") as file:
        file.write('{"index": 3, "fil')  # as a power cut leaves it
    (out / "maps" / "000002-VIRUS.png").write_bytes(b"")
    stop.clear()
    stop.append(-1)
    before = tree(out)
    assert call(*asked, "--out", out, "--seed", 1) == 2  # other children
    assert call(*asked, "--out", out, "--num", 2) == 2  # the third would lie about
    assert tree(out) == before
    made.clear()
    assert call(*asked, "--out", out) == 0
    assert made == [0, 2, 3, 4]  # 0 for the montage
    assert call(*asked, "--out", tmp_path / "whole") == 0
    assert tree(out) == tree(tmp_path / "whole")
    assert [c["index"] for c in written(out)["counterfactuals"]] == [0, 1, 2, 3, 4]


KILLED = """
import os, signal, sys
from pathlib import Path
from expressivegan.atomic import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("{")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_a_run_killed_during_its_first_write_blocks_no_second(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".probe.17").touch()
    for name in ("unfinished.jsonl", "notes.txt"):
        subprocess.run([sys.executable, "-c", KILLED, out / name], check=False)
    assert len(list(out.iterdir())) == 3
    asked = ["counterfactual", "--model", run, "--label", "VIRUS", "--steps", 2, "--out", out]
    before = tree(out)
    assert call(*asked) == 2  # the temporary file of notes.txt is none of ours
    assert tree(out) == before
    for left in out.glob(".notes.txt.*"):
        left.rename(out / ".probe.18")
    assert call(*asked) == 2  # ours are empty
    (out / ".probe.18").unlink()
    assert call(*asked, "--strength", 2) == 2
    assert len(list(out.iterdir())) == 2  # what is refused tidies nothing up
    assert call(*asked) == 0
    assert call(*asked[:-1], tmp_path / "whole") == 0
    assert tree(out) == tree(tmp_path / "whole")


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_what_a_kill_left_later_goes_and_what_is_the_users_stays(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    asked = ["counterfactual", "--model", run, "--label", "VIRUS", "--steps", 2, "--out"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "unfinished.jsonl").write_text("a list of mine")
    assert call(*asked, tmp_path / "out") == 2
    assert (tmp_path / "out" / "unfinished.jsonl").read_text() == "a list of mine"
    (tmp_path / "out" / "unfinished.jsonl").unlink()
    with monkeypatch.context() as stopped, contextlib.suppress(KeyboardInterrupt):
        stopped.setattr(counterfactual_command, "counterfactual_strip", interrupt)
        call(*asked, tmp_path / "out")
    (tmp_path / "out" / "maps").mkdir()
    for name in ("maps/000000-VIRUS.png", "montage.png", "maps/mine.png"):
        subprocess.run([sys.executable, "-c", KILLED, tmp_path / "out" / name], check=False)
    for name in ("out", "whole"):
        assert call(*asked, tmp_path / name) == 0
    (mine,) = (tmp_path / "out").rglob(".*")
    assert mine.name.startswith(".mine.png.")
    mine.unlink()
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_without_data_and_teacher(tmp_path: Path) -> None:
    save_model(tiny_generator(), tmp_path / "model", "card")
    assert call("counterfactual", "--model", tmp_path / "model", "--out", tmp_path / "o", "--label", "BACTERIA") == 0
    found = written(tmp_path / "o")
    assert found["scorers"] == {"teacher": None, "independent": None}
    assert len(found["notes"]) == 2
    assert "without --data" in found["notes"][1]


@pytest.mark.usefixtures("quick")
def test_a_real_image(run: Path, tmp_path: Path) -> None:
    for label, mode in ((0, "RGB"), (1, "L")):
        image = next(iter(generate(tiny_generator(), [0], label=label))).image
        picture = Image.fromarray(to_uint8(image)[0, 0].numpy()).convert(mode)
        # of another size than the model's, and not square
        picture.resize((64, 96), Image.Resampling.NEAREST).save(tmp_path / f"{mode}.png")
    command = ["counterfactual", "--model", run, "--image"]
    assert call(*command, tmp_path / "RGB.png", "--out", tmp_path / "add", "--label", "VIRUS") == 0
    one = written(tmp_path / "add")["counterfactuals"][0]
    assert (one["image"], one["image_label"], one["label"]) == ("RGB.png", "NORMAL", "VIRUS")
    assert one["fit"]["residual_kept"] is True
    assert 0 <= one["fit"]["latent_unexplained"] < 0.7
    assert one["outside_change"] == 0
    assert (tmp_path / "add" / one["files"]["fitted"]).is_file()
    take = ["--label", "NORMAL", "--image-label", "BACTERIA", "--no-keep-residual"]
    assert call(*command, tmp_path / "L.png", "--out", tmp_path / "take", *take) == 0
    one = written(tmp_path / "take")["counterfactuals"][0]
    assert (one["image_label"], one["label"], one["fit"]["residual_kept"]) == ("BACTERIA", "NORMAL", False)


@pytest.mark.usefixtures("quick")
def test_an_image_that_the_model_cannot_draw(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    before = tree(tmp_path)
    image = ["--image", tmp_path / "noise.png", "--label", "VIRUS"]
    assert call("counterfactual", "--model", run, "--out", tmp_path / "new" / "o", *image) == 2
    assert "expressivegan: image cannot be drawn by this model" in capsys.readouterr().err.splitlines()[-1]
    assert tree(tmp_path) == before


@pytest.mark.usefixtures("quick", "quick_judge")
def test_an_image_unlike_those_that_the_model_knows(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "POOR", 2.0)  # here it is not the fit that is refused
    upright = np.asarray(phantom_set(120).images[phantom_set(120).indices("reference")[0]])
    for name, pixels in (("upright", upright), ("upside down", upright[::-1])):
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / f"{name}.png")
    own = {"data_hash": phantom_set(300).data_hash, "config": {"method": "expressive", "fit": "stretch"}}
    save_model(tiny_generator(), run / "generator", "card", own)
    command = ["counterfactual", "--model", run, "--data", "phantom:300", "--label", "VIRUS", "--image"]
    before = tree(tmp_path)
    assert call(*command, tmp_path / "upside down.png", "--out", tmp_path / "o") == 2
    assert tree(tmp_path) == before
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"--image \(=.*upside down.png\) is unlike the X-rays that this model learnt from", said)
    assert "--any-image" in said
    assert call(*command, tmp_path / "upside down.png", "--out", tmp_path / "anyway", "--any-image") == 0
    assert call(*command, tmp_path / "upright.png", "--out", tmp_path / "upright") == 0


@pytest.mark.usefixtures("quick", "quick_judge")
def test_other_data_do_not_say_what_the_model_knows(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "POOR", 2.0)
    Image.fromarray(np.asarray(phantom_set(120).images[0])[::-1].copy()).save(tmp_path / "turned.png")
    other = ["--data", "phantom:300", "--other-data", "--out", tmp_path / "o"]
    assert call("counterfactual", "--model", run, "--label", "VIRUS", "--image", tmp_path / "turned.png", *other) == 0
    assert "whether the image is like those that the model learnt from" in " ".join(capsys.readouterr().err.split())


def test_files_that_are_no_image(refused: Refused, run: Path, tmp_path: Path) -> None:
    add = ["counterfactual", "--model", run, "--out", "new/o", "--label", "VIRUS", "--image"]
    (tmp_path / "text.png").write_text("no picture")
    assert re.search(r"--image \(=.*text.png\) cannot be used: not an image", refused(*add, tmp_path / "text.png"))
    assert "none.png" in refused(*add, tmp_path / "none.png")
    Image.new("L", (8, 8)).save(tmp_path / "small.png")
    assert "8x8 pixels" in refused(*add, tmp_path / "small.png")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label", "COVID"], r"label \(='COVID'\) must be one of NORMAL"),
        (["--label", "NORMAL"], r"label \(='NORMAL'\) has no lesion"),
        (["--label", "NORMAL", "--steer", "right lower"], "no lesion"),
        (["--label", "VIRUS", "--strength", "1.2"], r"strength \(=1.2\)"),
        (["--label", "VIRUS", "--strength", "nan"], r"strength \(=nan\)"),
        (["--label", "VIRUS", "--num", "0"], r"--num \(=0\)"),
        (["--label", "VIRUS", "--steps", "1"], r"steps \(=1\)"),
        (
            ["--label", "VIRUS", "--steer", "right", "lower"],
            r"right lower\) is one region, .*in quotes",
        ),
        (["--label", "VIRUS", "--steer", "right"], r"'right'.*the right lung is on the picture's left"),
        (["--label", "VIRUS", "--steer", "box 0 0 2 1"], "outside of the picture"),
        (["--label", "VIRUS", "--steer", "ellipse 0.5 0.5 0 0"], "no area"),
        (["--label", "VIRUS", "--steer", "colour.png"], "mode RGB"),
        (["--label", "VIRUS", "--steer", "large.png"], "64x64 pixels"),
        (["--label", "VIRUS", "--steer", "black.png"], "black everywhere"),
        (["--label", "VIRUS", "--image-label", "NORMAL"], "give --image"),
        (["--label", "VIRUS", "--no-keep-residual"], "give --image"),
        (["--label", "VIRUS", "--image", "grey.png", "--num", "2"], "do not go with --image"),
        (["--label", "VIRUS", "--image", "grey.png", "--image-label", "BACTERIA"], "adds a disease to a child without"),
        (["--label", "NORMAL", "--image", "grey.png", "--image-label", "NORMAL"], "no disease to take away"),
        (["--label", "NORMAL", "--image", "grey.png", "--steer", "left upper"], "taken away"),
        (["--label", "VIRUS", "--data", "no/such"], "no/such"),
    ],
)
def test_mistakes(refused: Refused, run: Path, tmp_path: Path, options: list[str], message: str) -> None:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "colour.png")
    Image.new("L", (64, 64), 255).save(tmp_path / "large.png")
    Image.new("L", (32, 32)).save(tmp_path / "black.png")
    Image.fromarray(np.arange(1024, dtype=np.uint32).reshape(32, 32).astype(np.uint8)).save(tmp_path / "grey.png")
    said = refused("counterfactual", "--model", run, "--out", "new/o", *options)
    assert re.search(message, said), said


def test_models_that_cannot(refused: Refused, run: Path, tmp_path: Path) -> None:
    dcgan = tmp_path / "dcgan"
    save_model(DCGANGenerator(8, 32, width=8), dcgan, "card", {"config": {"method": "dcgan"}})
    asked = ["--out", "o", "--label", "VIRUS"]
    assert "is a dcgan, whose maps do not act" in refused("counterfactual", "--model", dcgan, *asked)
    steer = ["--steer", "right lower"]
    assert "steer needs a CAM-guided" in refused("generate", "--model", dcgan, *asked, *steer)
    assert "nowhere" in refused("counterfactual", "--model", "nowhere", *asked)
    plain = tmp_path / "plain"
    save_model(tiny_generator(classes=("A", "B"), reference=None), plain, "card")
    Image.new("L", (32, 32)).save(tmp_path / "grey.png")
    said = refused("counterfactual", "--model", plain, "--out", "o", "--label", "A", "--image", tmp_path / "grey.png")
    assert "none" in said


def test_generate_with_its_options(refused: Refused, run: Path, tmp_path: Path) -> None:
    assert "'COVID'" in refused("generate", "--model", run, "--out", "o", "--style-label", "COVID")
    both = ["--style-label", "NORMAL", "--shortcut-free"]
    assert "shortcut_free draws" in refused("generate", "--model", run, "--out", "o", *both)
    assert "goes round the classes" in refused("generate", "--model", run, "--out", "o", "--steer", "right lower")
    asked = ["generate", "--model", run, "--out", tmp_path / "o", "--num", 3, "--label", "VIRUS"]
    assert call(*asked, "--steer", "right lower", "left upper", "--shortcut-free") == 0
    facts = json.loads((tmp_path / "o" / "generation.json").read_text())
    assert facts["steer"]["regions"] == ["right lower", "left upper"]
    assert facts["shortcut_free"] is True
    assert call(*asked) == 2  # the folder holds steered images
