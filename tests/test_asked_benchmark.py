"""What benchmarks refuse before they compute anything."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmark_module import benchmark
from expressivegan.checkpoint import save_model
from expressivegan.data import load_images
from expressivegan.errors import InputError
from expressivegan.evaluation import JudgeClassifier
from tiny import tiny_generator

asked = benchmark("asked")
CLASSES = ("NORMAL", "BACTERIA", "VIRUS")


def trained(folder: Path, data_hash: str, fit: str = "stretch", **options: Any) -> Path:
    """A run that says which data it is of."""
    save_model(tiny_generator(**options), folder / "generator", "card")
    settings = {"data_hash": data_hash, "config": {"fit": fit}, "teacher": "none"}
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def test_data_are_those_of_the_training_made_square_in_its_way(tmp_path: Path) -> None:
    known = load_images("phantom:60", 32, progress=False).data_hash
    run = trained(tmp_path, known, "pad")
    assert asked.data_of_model(run, CLASSES, 32, "phantom:60", False).fit == "pad"
    with pytest.raises(InputError, match="training patients may stand in any group"):
        asked.data_of_model(run, CLASSES, 32, "phantom:90", False)
    assert asked.data_of_model(run, CLASSES, 32, "phantom:90", True).fit == "pad"
    with pytest.raises(InputError, match=r"knows VIRUS, BACTERIA, NORMAL, and .* hold NORMAL, BACTERIA, VIRUS"):
        asked.data_of_model(run, CLASSES[::-1], 32, "phantom:60", False)


@pytest.mark.parametrize("name", ["maps", "steering", "faithfulness"])
@pytest.mark.parametrize("mistake", ["other data", "other order"])
def test_a_judge_is_not_fitted_on_what_the_model_may_know(
    name: str, mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = load_images("phantom:60", 32, progress=False).data_hash
    run = trained(tmp_path, "f00d") if mistake == "other data" else trained(tmp_path, known, classes=CLASSES[::-1])
    monkeypatch.setattr(JudgeClassifier, "fit", lambda *_, **__: pytest.fail("fitted"))
    monkeypatch.setattr("sys.argv", [name, "--data", "phantom:60", "--model", str(run)])
    with pytest.raises(InputError, match="f00d" if mistake == "other data" else "knows VIRUS, BACTERIA, NORMAL"):
        benchmark(name).main()


@pytest.mark.parametrize("name", ["maps", "steering", "faithfulness", "memorisation", "metrics"])
def test_where_results_go_is_known_before_anything_is_done(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    model = ["--model", "nowhere"] if name in ("maps", "steering", "faithfulness") else []
    data = [] if name == "metrics" else ["--data", "nowhere"]
    for out, sentence in (
        (tmp_path, "is a folder; name the file"),
        (tmp_path / "file" / "out.json", "cannot be written"),
    ):
        monkeypatch.setattr("sys.argv", [name, *data, *model, "--out", str(out)])
        with pytest.raises(InputError, match=sentence):
            benchmark(name).main()
    asked.results_file(tmp_path / "new" / "out.json")
    assert (tmp_path / "new").is_dir()
