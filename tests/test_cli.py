"""A user's mistake is one sentence and exit code 2; it leaves nothing behind. What is right goes all the way."""

import json
import re
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from command_line import Refused, call, tree
from expressivegan import cli, commands, data_commands
from expressivegan.checkpoint import load_checkpoint, save_model
from expressivegan.synthesis import read_provenance
from expressivegan.teacher.fit import write_teacher
from tiny import tiny_generator, tiny_teacher

pytestmark = pytest.mark.filterwarnings("ignore:.*EVERY IMAGE COUNTS AS A PATIENT")

SMALL = ["--resolution", "32", "--width", "8", "--min-width", "4", "--z-dim", "8", "--batch", "4", "--precision",
         "32-true", "--device", "cpu"]  # fmt: skip


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    save_model(tiny_teacher(), tmp_path / "teacher", "card")
    return tmp_path / "teacher"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model(tiny_generator(), tmp_path / "model", "card")
    return tmp_path / "model"


def pictures(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["data", "show"],
        ["teach", "--out", "new/t", "--data"],
        ["train", "--out", "new/run", "--teacher", "none", "--data"],
    ],
)
def test_a_missing_folder(refused: Refused, command: list[str]) -> None:
    said = refused(*command, "no/such/folder")
    assert "no/such/folder" in said


@pytest.mark.parametrize(
    "command", [["data", "show"], ["teach", "--out", "t", "--data"], ["train", "--out", "run", "--data"]]
)
def test_an_empty_class_folder(refused: Refused, tmp_path: Path, command: list[str]) -> None:
    pictures(tmp_path / "set" / "A", 12)
    (tmp_path / "set" / "B").mkdir()
    assert re.search(r"\bB\b", refused(*command, tmp_path / "set"))


def test_a_folder_without_a_picture(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "set" / "A").mkdir(parents=True)
    (tmp_path / "set" / "A" / "x.png").write_text("no picture")
    refused("data", "show", tmp_path / "set")


def test_a_file_that_is_no_manifest(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("no picture")
    assert "x.png" in refused("train", "--data", tmp_path / "x.png", "--out", "run")


def test_an_unknown_preset(refused: Refused) -> None:
    said = refused("train", "--data", "phantom:30", "--out", "run", "--preset", "gpu-9000")
    assert "preset (='gpu-9000') must be one of cpu-64" in said
    assert "gpu-9000" in refused("train", "--data", "phantom:30", "--preset=gpu-9000")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("resolution", "100", r"resolution \(=100\).*try 112 or 128"),
        ("gamma", "-1", r"gamma \(=-1.0\)"),
        ("cam-weight-d", "-0.5", r"cam_weight_d \(=-0.5\)"),
        ("batch", "1", r"batch \(=1\)"),
        ("kimg", "0", r"kimg \(=0.0\)"),
        ("minutes", "-3", r"minutes \(=-3.0\)"),
        ("minutes", "nan", r"minutes \(=nan\)"),
        ("minutes", "inf", r"minutes \(=inf\)"),
        ("augment", "2", r"augment \(=2.0\)"),
        ("width", "2", r"width \(=2\) must be at least 4"),
        ("method", "dcgan", r"gamma \(=3.0\) must be 0 with method dcgan.*--preset dcgan"),
        ("preset", "grow-128", "--preset grow-128 goes on from trained networks.*--init"),
    ],
)
def test_settings_out_of_range(refused: Refused, option: str, value: str, message: str) -> None:
    said = refused("train", "--data", "phantom:30", "--out", "run", "--teacher", "none", f"--{option}", value)
    assert re.search(message, said)


def test_teach_at_an_odd_resolution(refused: Refused) -> None:
    said = refused("teach", "--data", "phantom:30", "--out", "t", "--epochs", "0")
    assert said.strip() == "expressivegan: epochs (=0) must be at least 1"
    assert "resolution (=100)" in refused("teach", "--data", "phantom:30", "--out", "t", "--resolution", "100")


def test_minutes_and_kimg_contradict(refused: Refused) -> None:
    said = refused("train", "--data", "phantom:30", "--minutes", "1", "--kimg", "1")
    assert "--minutes and --kimg" in said


def test_no_data(refused: Refused) -> None:
    assert "--data is missing" in refused("train", "--out", "run")
    assert "phantom:COUNT" in refused("train", "--data", "phantom:x", "--out", "run")


@pytest.mark.parametrize("argv", [["train", "--colour", "red"], ["paint"], ["generate"], ["train", "--kimg", "many"]])
def test_an_option_that_does_not_exist(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*argv) == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.err + said.out
    assert argv[-1] in said.err + said.out or "--model" in said.err + said.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("below", ["", "/below"])
@pytest.mark.parametrize("command", ["teach", "train", "generate"])
def test_out_is_a_file(refused: Refused, tmp_path: Path, model: Path, command: str, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    source = ["--model", model] if command == "generate" else ["--data", "phantom:30"]
    extra = ["--teacher", "none"] if command == "train" else []
    assert re.search(r"file", refused(command, *source, *extra, "--out", f"file{below}"))


@pytest.mark.parametrize("command", [["train", "--out", "run", *SMALL]])
def test_named_weights_offline(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torchxrayvision as xrv

    def offline(*_: object) -> None:
        raise ConnectionError("Name or service not known")

    (tmp_path / "weights").mkdir()
    monkeypatch.setattr(xrv.utils, "download", offline)
    monkeypatch.setattr(xrv.utils, "get_cache_dir", lambda: str(tmp_path / "weights"))
    said = refused(*command, "--data", "phantom:30", "--teacher", "xrv:densenet121-res224-all")
    assert "could not be downloaded" in said
    assert "expressivegan teach" in said
    assert "xrv:nothing" in refused(*command, "--data", "phantom:30", "--teacher", "xrv:nothing")


def test_a_teacher_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    save_model(tiny_teacher(classes=("a", "b"), reference="a"), tmp_path / "other", "card")
    assert "no/teacher" in refused("train", "--data", "phantom:30", "--out", "run", *SMALL, "--teacher", "no/teacher")
    said = refused("train", "--data", "phantom:30", "--out", "run", *SMALL, "--teacher", tmp_path / "other")
    assert "are not the data's" in said


def test_resume_of_nothing(refused: Refused, tmp_path: Path) -> None:
    assert "holds no run" in refused("train", "--resume", "--out", "nowhere")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text("{")
    assert "damaged" in refused("train", "--resume", "--out", "run")


def test_generate_mistakes(refused: Refused, tmp_path: Path, model: Path) -> None:
    assert "'COVID'" in refused("generate", "--model", model, "--out", "o", "--label", "COVID")
    assert "nowhere" in refused("generate", "--model", "nowhere", "--out", "o")
    assert "num (=0)" in refused("generate", "--model", model, "--out", "o", "--num", "0")
    assert "truncation (=3.0)" in refused("generate", "--model", model, "--out", "o", "--truncation", "3")
    (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-9])
    assert "damaged" in refused("generate", "--model", model, "--out", "o")


def test_teach_takes_nobodys_files_away(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    assert "something else than a model" in refused("teach", "--data", "phantom:30", "--out", "mine")
    assert "something else than a model" in refused("teach", "--data", "phantom:30", "--out", ".")


def test_a_manifest_that_cannot_be_written(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "file" in refused("data", "show", "phantom:30", "--out", "file/manifest.jsonl")


def test_the_demo_overwrites_nothing(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "x").write_text("mine")
    assert "not empty" in refused("demo", "--out", "demo")


# --- what resume takes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--batch", "8"], "--batch cannot be given"),
        (["--cam-weight-d", "0.125"], "--cam-weight-d cannot be given"),
        (["--batch", "32"], "--batch"),  # the preset's own value is not the run's
        (["--minutes", "3"], "--minutes"),
        (["--preset", "unguided"], "--preset cannot be given"),
        (["--dry-run"], "--dry-run"),
    ],
)
def test_resume_goes_on_with_its_own_settings(refused: Refused, argv: list[str], message: str) -> None:
    assert message in refused("train", "--resume", "--out", "run", *argv)


def test_a_longer_run_may_be_as_long_as_the_preset_says(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(commands, "resume", lambda *a: told.append(a[3]))
    default = cli.preset("cpu-64").config.kimg
    assert call("train", "--resume", "--out", "run", "--kimg", default) == 0
    assert call("train", "--resume", "--out", "run", f"--kimg={default + 1}") == 0
    assert call("train", "--resume", "--out", "run") == 0
    assert told == [default, default + 1, None]


# --- help and dry run -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    ["data show", "data doctor", "data fix", "data prepare", "data download", "teach", "train", "generate", "demo"],
)
def test_help_says_what_the_defaults_are(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*command.split(), "--help") == 0
    said = capsys.readouterr().out
    assert "default" in said
    assert "--out" in said


def test_help_shows_the_preset_that_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for name in ("cpu-64", "gpu-224"):
        assert call("train", "--preset", name, "--help") == 0
        said = capsys.readouterr().out
        match = re.search(r"--resolution INT.*?\(default:\s*(\d+)\)", said, re.DOTALL)
        assert match is not None
        found[name] = int(match[1])
    assert found == {"cpu-64": 64, "gpu-224": 224}
    assert call("--help") == 0
    assert "Not for diagnosis" in capsys.readouterr().out


def test_a_dry_run_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("train", "--data", "phantom:60", "--out", tmp_path / "run", *SMALL, "--kimg", "1", "--dry-run") == 0
    assert list(tmp_path.iterdir()) == []
    said = capsys.readouterr().err
    for word in ("resolution", "32", "M parameters", "images/s", "minutes", "GiB", "cpu"):
        assert word in said


def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(data_commands, "show", interrupted)
    assert call("data", "show", "phantom:30") == 130
    assert capsys.readouterr().err == "expressivegan: interrupted\n"


# --- the way that it is meant -----------------------------------------------------------------------------------------


def test_teach_train_resume_generate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "write_teacher", partial(write_teacher, rounds=30))
    data, run = ["--data", "phantom:200"], tmp_path / "run"
    assert call("data", "show", "phantom:200", "--out", tmp_path / "manifest.jsonl") == 0
    assert (tmp_path / "manifest.jsonl").stat().st_size > 1000
    assert call("teach", *data, "--out", tmp_path / "t", "--resolution", "32", "--epochs", "2", "--device", "cpu") == 0
    report = json.loads((tmp_path / "t" / "report.json").read_text())
    assert set(report["groups"]) == {"judge", "test"}
    options = [*SMALL, "--sample-every", "0.016", "--checkpoint-every", "0.016", "--gamma", "2"]
    assert call("train", *data, "--out", run, "--teacher", tmp_path / "t", *options, "--kimg", "0.032") == 0
    assert load_checkpoint(run / "checkpoints" / "0000000032.ckpt")["seen"] == 32
    assert (run / "curves.png").is_file()
    assert json.loads((run / "settings.json").read_text())["config"]["gamma"] == 2.0

    capsys.readouterr()
    assert call("train", *data, "--out", run, "--teacher", tmp_path / "t", *options) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert call("train", "--resume", "--out", run, "--kimg", "0.048", "--device", "cpu") == 0
    assert load_checkpoint(run / "checkpoints" / "0000000048.ckpt")["seen"] == 48
    assert call("train", "--resume", "--out", run, "--data", "phantom:60", "--device", "cpu") == 2
    assert "other data" in capsys.readouterr().err

    assert call("generate", "--model", run, "--out", tmp_path / "out", "--num", "4", "--label", "VIRUS") == 0
    table = (tmp_path / "out" / "labels.csv").read_text().splitlines()
    assert table[0] == "file,label,index,seed,style_label"
    assert len(table) == 5
    provenance = read_provenance(tmp_path / "out" / table[1].split(",")[0])
    assert provenance is not None
    assert provenance["label"] == "VIRUS"
    assert call("generate", "--model", run, "--out", tmp_path / "out", "--num", "4", "--seed", "1") == 2
    assert "choose another folder" in capsys.readouterr().err

    for path in (run / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:500])
    before = tree(run)
    assert call("train", "--resume", "--out", run, "--device", "cpu") == 2
    assert re.search(r"no checkpoint in .* can be read", capsys.readouterr().err.splitlines()[-1])
    assert tree(run) == before


def test_the_baseline_and_no_teacher(tmp_path: Path) -> None:
    common = ["--data", "phantom:60", "--teacher", "none", *SMALL, "--kimg", "0.008"]
    assert call("train", *common, "--out", tmp_path / "dcgan", "--preset", "dcgan") == 0
    assert call("generate", "--model", tmp_path / "dcgan", "--out", tmp_path / "images", "--num", "2") == 0
    assert call("train", *common, "--out", tmp_path / "plain") == 0


def test_a_run_that_asks_no_teacher_fits_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_fit", lambda *_: pytest.fail("a teacher was fitted"))
    asks = ["--data", "phantom:60", "--preset", "unguided", *SMALL, "--kimg", "0.008"]
    assert call("train", *asks, "--out", tmp_path / "run") == 0
    assert call("train", *asks, "--out", tmp_path / "none", "--dry-run") == 0


def test_terms_that_a_short_run_never_reaches_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["train", "--data", "phantom:60", "--teacher", "none", *SMALL]
    assert call(*common, "--out", tmp_path / "run", "--kimg", "0.008", "--logit-kimg", "0.004") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "detail_weight (=0.3) does nothing in this run: it begins after 40 thousand images" in said
    assert "logit_weight" not in said
    assert call(*common, "--out", tmp_path / "dry", "--minutes", "0.001", "--dry-run") == 0
    assert "logit_weight (=0.03) does nothing" in " ".join(capsys.readouterr().err.split())


def test_a_short_run_is_told_to_be_guided_from_the_start() -> None:
    late = cli.preset("cpu-64").config
    assert not late.notes()
    (said,) = replace(late, kimg=60.0).notes()
    assert "--guided-after 0 makes better images" in said
    assert not replace(late, kimg=60.0, guided_after=0.0).notes()
    assert not replace(cli.preset("unguided").config, kimg=60.0).notes()


def test_a_run_is_made_longer_and_never_shorter(tmp_path: Path, refused: Refused) -> None:
    run = tmp_path / "run"
    common = ["--data", "phantom:60", "--teacher", "none", *SMALL, "--free-after", "0.5", "--guided-after", "0.25"]
    assert call("train", *common, "--out", run, "--kimg", "0.008") == 0
    assert "--kimg (=0.004) must be at least the run's own 0.008" in refused(
        "train", "--resume", "--out", run, "--kimg", "0.004", "--device", "cpu"
    )
    assert call("train", "--resume", "--out", run, "--kimg", "0.016", "--device", "cpu") == 0
    settings = json.loads((run / "settings.json").read_text(encoding="utf-8"))
    assert settings["config"]["free_after"] == 0.25  # free pairs had begun, and go on
    assert settings["config"]["guided_after"] == 0.125
    ended = json.loads((run / "settings.json").read_text(encoding="utf-8"))["config"]
    assert (ended["rate"], ended["gamma"]) == (ended["rate_end"], ended["gamma_end"])  # schedules do not start again


def test_a_run_is_made_longer_from_the_newest_checkpoint_that_can_be_read(tmp_path: Path) -> None:
    run = tmp_path / "run"
    common = ["--data", "phantom:60", "--teacher", "none", *SMALL, "--free-after", "0.75"]
    assert call("train", *common, "--out", run, "--kimg", "0.008", "--checkpoint-every", "0.004") == 0
    (run / "checkpoints" / "0000000008.ckpt").write_bytes(b"cut short")
    assert call("train", "--resume", "--out", run, "--kimg", "0.016", "--device", "cpu") == 0
    config = json.loads((run / "settings.json").read_text(encoding="utf-8"))["config"]
    assert config["free_after"] == 0.75  # after 4 of 8 images nothing had begun or ended
    assert config["rate"] > config["rate_end"]


def test_a_run_fits_its_own_teacher_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[int] = []

    def fit(images: object, out: Path, *_: object) -> None:
        fitted.append(1)
        save_model(tiny_teacher(), out, "card")

    monkeypatch.setattr(commands, "_fit", fit)
    run = tmp_path / "run"
    assert call("train", "--data", "phantom:60", "--out", run, *SMALL, "--kimg", "0.008") == 0
    assert call("train", "--resume", "--out", run, "--kimg", "0.012", "--device", "cpu") == 0
    assert fitted == [1]
    assert (run / "teacher" / "model.safetensors").is_file()
    settings = json.loads((run / "settings.json").read_text(encoding="utf-8"))
    assert settings["config"]["kimg"] == 0.012  # made longer, and it stays so


def test_a_teacher_left_by_a_run_on_other_data_is_not_reused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    save_model(tiny_teacher(), run / "teacher", "card", {"data_hash": "another"})
    assert call("train", "--data", "phantom:60", "--out", run, *SMALL, "--kimg", "0.008") == 2
    assert "was fitted on other data" in capsys.readouterr().err


# --- evaluating -------------------------------------------------------------------------------------------------------


def test_evaluate_takes_a_model_or_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: Path, refused: Refused
) -> None:
    assert "either --model or --images" in refused("evaluate", "--data", "phantom:300")
    assert "goes with --images" in refused("evaluate", "--data", "phantom:300", "--model", model, "--resolution", 64)
    assert "does not exist" in refused("evaluate", "--data", "phantom:300", "--images", "no/such", "--out", "e")
    assert "num (=3)" in refused("evaluate", "--data", "phantom:300", "--model", model, "--num", 3, "--out", "e")
    out = tmp_path / "evaluation"
    command = ["evaluate", "--data", "phantom:300", "--model", model, "--num", 90, "--out", out]
    assert call(*command, "--sections", "memorisation", "anatomy") == 0
    results = json.loads((out / "results.json").read_text("utf-8"))
    assert set(results["sections"]) | set(results["left_out"]) == {"memorisation", "anatomy"}
    assert results["generated"]["images"] == 90
    rows = (out / "results.csv").read_text("utf-8").splitlines()
    assert rows[0] == "figure,value"
    assert len(rows) > 20
    said = capsys.readouterr().err
    assert "results.json" in said
    assert "- " in said
