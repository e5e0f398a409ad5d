"""The models that come with the package: whole, small, honest, and never written to."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from PIL import Image

from benchmark_module import benchmark
from command_line import Refused, call, tree
from expressivegan import GeneratorWithCAMGuidance, commands, find_model, open_generator, shipped_models
from expressivegan.checkpoint import open_model, read_json, state_hash
from expressivegan.data import ImageSet
from expressivegan.errors import CheckpointError, InputError
from expressivegan.evaluation import Evaluation, open_for_evaluation
from expressivegan.evaluation.collect import Generated
from expressivegan.explain.baseline import find_baseline, model_hash
from expressivegan.explain.opening import networks_of_run, open_explainer
from expressivegan.models import DiscriminatorWithExplain
from expressivegan.synthesis.provenance import read_provenance
from expressivegan.synthesis.sheets import write_samples
from expressivegan.teacher import open_teacher
from expressivegan.weights import Shipped, find_teacher, is_shipped, lasting_name

ship = benchmark("ship")
ROOT = Path(__file__).resolve().parents[1]
SHIPPED = pytest.mark.parametrize("model", shipped_models(), ids=lambda model: model.name)


def package() -> dict[str, bytes]:
    return {name: data for name, data in tree(ship.ROOT).items() if "__pycache__" not in name}


def test_something_is_shipped_and_it_is_small() -> None:
    names = [model.name for model in shipped_models()]
    assert "kermany-64" in names
    assert sum(ship.size_of(model.folder) for model in shipped_models()) <= ship.LIMIT


@SHIPPED
def test_a_shipped_run_opens_as_what_it_says(model: Shipped) -> None:
    opened = open_generator(model.name)
    assert isinstance(opened, GeneratorWithCAMGuidance)
    assert (opened.resolution, opened.classes) == (model.resolution, model.classes)
    assert all(p.dtype == torch.float32 for p in opened.parameters())
    known = GeneratorWithCAMGuidance.from_pretrained(str(find_model(model.name) / "generator"))
    assert state_hash(known) == state_hash(opened)
    teacher, discriminator, fit = networks_of_run(find_model(model.name), [])
    assert teacher is not None
    assert discriminator is not None
    assert teacher.classes == opened.classes == discriminator.class_set.names
    assert state_hash(open_teacher(model.name)) == state_hash(teacher)
    assert find_baseline(model.folder, model_hash(teacher, discriminator, fit)) is not None


@SHIPPED
def test_its_samples_are_what_it_makes(model: Shipped, tmp_path: Path) -> None:
    opened = open_generator(model.name)
    assert isinstance(opened, GeneratorWithCAMGuidance)
    write_samples(opened, tmp_path / "samples.png")
    with Image.open(model.folder / "samples.png") as kept, Image.open(tmp_path / "samples.png") as made:
        difference = np.abs(np.asarray(kept, int) - np.asarray(made, int))
    # half a grey level of the float image shows as one level, and only where it crosses a rounding boundary
    assert difference.max() <= 1
    assert difference.mean() < 0.05
    assert (read_provenance(model.folder / "samples.png") or {})["model"] == state_hash(opened)


@SHIPPED
def test_the_card_says_how_good_it_is_and_from_whom(model: Shipped) -> None:
    card = (model.folder / "README.md").read_text(encoding="utf-8")
    for words in (
        "Not for diagnosis",
        "x the floor",
        "patients",
        "Memorisation",
        "AUC",
        "expressivegan train",
        model.name,
    ):
        assert words in card
    if model.name.startswith("kermany"):
        for words in ("CC BY 4.0", "rscbjbr9sj", "Kermany", "Zhang", "Goldbaum", "license: cc-by-4.0"):
            assert words in card


@SHIPPED
def test_nothing_in_it_names_a_machine_or_a_path(model: Shipped) -> None:
    texts = [*model.folder.rglob("*.json"), *model.folder.rglob("*.md")]
    assert len(texts) > 8
    for file in texts:
        assert ship._PATH.search(file.read_text(encoding="utf-8")) is None, file
    assert ship._PATH.search('"teacher": "/home/someone/t"')  # the search finds what it is for
    settings = read_json(model.folder / "settings.json")
    assert settings["teacher"] is None
    assert not (model.folder / "data.json").exists()


@pytest.mark.parametrize("builder", [WheelBuilder, SdistBuilder])
def test_wheel_and_sdist_hold_every_file(builder: type) -> None:
    packed = {Path(file.path) for file in builder(str(ROOT)).recurse_included_files()}
    for model in shipped_models():
        files = {path for path in model.folder.rglob("*") if path.is_file()}
        assert files <= packed, files - packed
        assert all(path.stat().st_mode & 0o044 == 0o044 for path in files)  # a wheel keeps who may read


# --- names ------------------------------------------------------------------------------------------------------------


def test_a_model_that_is_here_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_shipped(find_model("kermany-64"))
    assert is_shipped(find_model(Path("kermany-64")))
    Path("kermany-64").mkdir()
    (Path("kermany-64") / "samples.png").touch()  # as `expressivegan demo` leaves it
    assert is_shipped(find_model("kermany-64"))
    (Path("kermany-64") / "generator").mkdir()
    assert find_model("kermany-64") == Path("kermany-64")
    assert not is_shipped(find_model("kermany-64"))


def test_a_teacher_is_found_within_a_run_or_as_itself() -> None:
    own = find_teacher("kermany-64")
    assert own == find_model("kermany-64") / "teacher"
    assert find_teacher(own) == own


def test_what_a_run_calls_its_teacher_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "teacher").mkdir(parents=True)
    assert lasting_name("kermany-64") == "kermany-64"
    assert lasting_name("run") == str(tmp_path / "run" / "teacher")
    with pytest.raises(CheckpointError, match="does not exist"):
        lasting_name("nowhere")


@pytest.mark.parametrize("name", ["kermany-65", "..", "", "weights/kermany-64x", "Kermany-64"])
def test_only_shipped_names_lead_into_the_package(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if Path(name).exists():
        assert find_model(name) == Path(name)
        return
    with pytest.raises(CheckpointError, match=r"does not exist; .* comes with the package: .*kermany-64"):
        find_model(name)


@pytest.mark.parametrize(
    "argv",
    [
        ("generate", "--out", "o"),
        ("counterfactual", "--label", "VIRUS", "--out", "o"),
        ("evaluate", "--data", "phantom:60", "--out", "o"),
        ("explain", str(Path(__file__).parent), "--out", "o"),
    ],
    ids=lambda argv: argv[0],
)
def test_an_unknown_name_is_one_sentence_that_lists_what_there_is(refused: Refused, argv: tuple[str, ...]) -> None:
    said = refused(*argv, "--model", "kermany-65")
    assert "model (=kermany-65) does not exist" in said
    assert said.endswith(", ".join(model.name for model in shipped_models()))


def test_an_unknown_teacher_too(refused: Refused) -> None:
    assert "teacher (=kermany-65) does not exist" in refused("train", "--data", "phantom:60", "--teacher", "kermany-65")


def test_help_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("generate", "counterfactual", "evaluate", "explain"):
        assert call(command, "--help") == 0
        assert "kermany-64" in capsys.readouterr().out


# --- use --------------------------------------------------------------------------------------------------------------


def test_generating_imports_no_more_than_it_needs(tmp_path: Path) -> None:
    code = (
        "import sys; from expressivegan import cli;"
        "assert cli.main(['generate', '--model', 'kermany-64', '--num', '3', '--out', 'o']) == 0;"
        "heavy = {'torchvision', 'torchxrayvision', 'sklearn', 'skimage', 'lightning_fabric', 'tensorboard', 'pandas'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "o" / "labels.csv").read_text().splitlines()[1:]
    assert [row.split(",")[1] for row in rows] == ["NORMAL", "BACTERIA", "VIRUS"]


def test_nothing_is_written_into_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = package()
    name = ("--model", "kermany-64")
    assert call("generate", *name, "--num", 3, "--out", "made") == 0
    assert call("explain", *name, "made/images/000001-BACTERIA.png", "--methods", "grad-cam", "--out", "explained") == 0
    assert call("counterfactual", *name, "--label", "VIRUS", "--out", "pairs") == 0
    commands._show_shipped(tmp_path)
    assert package() == before
    assert {path.name for path in (tmp_path / "kermany-64").iterdir()} == {
        "README.md", "samples.png", "attention-overlays.png", "counterfactual-pairs.png"
    }  # fmt: skip
    explained = json.loads((tmp_path / "explained" / "explanations.json").read_text())
    assert all(row["familiarity"] is not None for row in explained["images"])  # without the data
    assert all(row["discriminator"]["referenced"] is not None for row in explained["images"])


def test_looks_at_test_patients_are_logged_beside_out_instead(phantoms: ImageSet, tmp_path: Path) -> None:
    model = open_for_evaluation("kermany-64")
    made = Generated("made", np.zeros((24, 32, 32), np.uint8), np.zeros(24, np.int64), model)
    assert Evaluation(phantoms, made, group="test", other_data=True)._log(tmp_path / "out").parent == tmp_path
    shutil.copytree(find_model("kermany-64"), tmp_path / "mine")
    made = replace(made, model=open_for_evaluation(tmp_path / "mine"))
    assert Evaluation(phantoms, made, group="test", other_data=True)._log(tmp_path / "out").parent == tmp_path / "mine"


def test_storing_beside_a_shipped_model_is_refused(refused: Refused, tmp_path: Path) -> None:
    before = package()
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "x.png")
    assert "comes with" in refused("explain", "--model", "kermany-64", tmp_path / "x.png", "--out", "o", "--store")
    with pytest.raises(InputError, match="store"):
        open_explainer("kermany-64", data="phantom:60", methods=(), store=True)
    assert package() == before


def test_the_discriminator_opens_alone() -> None:
    found = open_model(DiscriminatorWithExplain, find_model("kermany-64") / "discriminator").eval()
    image = torch.zeros(1, 1, 64, 64)
    shown = found.explain(image, torch.tensor([1]))
    torch.testing.assert_close(shown.evidence.mean(dim=(1, 2, 3)), shown.score[:, 0], rtol=0, atol=1e-4)
