"""benchmarks/compare.py on phantoms: what it trains, how it goes on, and what it says."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from command_line import call
from expressivegan.checkpoint import read_json, save_model
from expressivegan.config import PRESETS, preset
from expressivegan.data import load_images
from expressivegan.data.phantom import CLASSES, draw_batch
from expressivegan.errors import ExpressiveGANError, InputError
from expressivegan.evaluation import JudgeRecipe, SelfSupervisedRecipe
from expressivegan.intervals import Interval
from tiny import tiny_generator

DATA = "phantom:400"
REAL = "real, other patients"
TINY = {"resolution": 32, "width": 8, "min_width": 4, "z_dim": 8, "batch": 4}


@pytest.fixture
def benchmark() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        import compare

        yield compare
    for name in ("compare", "methods"):
        sys.modules.pop(name, None)


@pytest.fixture
def commands(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were called: in this process, and with tiny networks."""
    called: list[list[str]] = []

    class Done:
        def __init__(self, code: int) -> None:
            self.returncode = code

    def run(command: list[str], check: bool) -> Done:
        called.append(command[3:])
        return Done(call(*command[3:]))

    for name in benchmark.METHODS.values():
        monkeypatch.setitem(PRESETS, name, replace(PRESETS[name], config=replace(PRESETS[name].config, **TINY)))
    monkeypatch.setattr(benchmark.ensure_run.__globals__["subprocess"], "run", run)
    return called


def test_unguided_is_ours_without_guidance() -> None:
    ours, plain = preset("cpu-64").config, preset("unguided").config
    changed = {name: value for name, value in plain.to_json().items() if value != ours.to_json()[name]}
    assert set(changed.values()) == {0}
    kept = {"class_weight", "diversity_weight", "detail_weight"}  # neither asks a teacher, nor looks at M
    guiding = {
        n for n, v in ours.to_json().items() if v and ("_weight" in n or n.startswith(("steer_", "free_", "guided_")))
    } - kept
    assert set(changed) == guiding
    assert not plain.guided


def test_methods_are_trained_once_and_go_on(
    benchmark: ModuleType, commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = benchmark.Budget(None, 0.016)
    known = load_images("phantom:60", 32, progress=False).data_hash
    train = partial(
        benchmark.ensure_run,
        data="phantom:60",
        data_hash=known,
        out=tmp_path,
        budget=budget,
        teacher="none",
        seed=3,
    )
    for name, method in (("unguided", "expressive"), ("dcgan", "dcgan")):
        run = train(name)
        settings = json.loads((run / "settings.json").read_text())
        assert (settings["config"]["method"], settings["config"]["seed"], settings["teacher"]) == (method, 3, "none")
        assert (run / "generator" / "model.safetensors").exists()
        assert train(name) == run
    assert len(commands) == 2  # the second time there was nothing to do
    assert set(benchmark.cpu_minutes(tmp_path)) == {"unguided", "dcgan"}

    # As a kill leaves it: the last checkpoint is older than the end.
    end = run / "checkpoints" / "0000000016.ckpt"
    monkeypatch.chdir(tmp_path)
    assert call("train", "--preset", "dcgan", "--data", "phantom:60", "--out", "half", "--teacher", "none",
                "--kimg", 0.008, "--seed", 3) == 0  # fmt: skip
    end.write_bytes((tmp_path / "half" / "checkpoints" / "0000000008.ckpt").read_bytes())
    end.rename(end.with_name("0000000008.ckpt"))
    train("dcgan")
    assert commands[2] == ["train", "--resume", "--out", str(run)]
    assert end.exists()

    for change, sentence in (
        ({"budget": benchmark.Budget(None, 5)}, r"trained with budget --kimg 0.016, not --kimg 5; choose another"),
        ({"seed": 4}, r"trained with --seed 3, not 4; choose another"),
        ({"data_hash": "f00d"}, rf"trained with data hash {known}, not f00d; choose another"),
        ({"teacher": "xrv:all"}, r"trained with --teacher none, not xrv:all; choose another"),
    ):
        with pytest.raises(InputError, match=sentence):
            train("dcgan", **change)
    monkeypatch.setitem(benchmark.METHODS, "dcgan", "unguided")
    with pytest.raises(InputError, match=r"trained with --method dcgan, not expressive"):
        train("dcgan")
    monkeypatch.setitem(benchmark.METHODS, "unguided", "cpu-64")
    with pytest.raises(InputError, match=r"trained with --cam-weight-d 0.0, not 0.3"):
        train("unguided")
    assert len(commands) == 3
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "model.safetensors").touch()
    (tmp_path / "teacher" / "expressivegan.json").write_text('{"data_hash": "f00d"}', encoding="utf-8")
    with pytest.raises(InputError, match=r"teacher was fitted on other data than phantom:60; choose another --out"):
        train("ours", teacher="fit")
    with pytest.raises(ExpressiveGANError, match=r"ours: expressivegan train ended with code 2; the same command"):
        train("ours", data=str(tmp_path / "nowhere"))


def write(folder: Path, pictures: np.ndarray) -> Path:
    """Class folders, going round the classes."""
    for i, picture in enumerate(pictures):
        (folder / CLASSES[i % 3]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / CLASSES[i % 3] / f"{i}.png")
    return folder


@pytest.mark.slow
def test_the_table(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = benchmark.Bench.memorisation

    def memorisation(of: Any, name: str, case: Any, step: Any) -> dict[str, Any]:
        """Of the noise, one class gives patients away, which all images together do not show."""
        return measured(of, name, case, step) | ({"flagged": False, "suspect": True} if name == "noise" else {})

    monkeypatch.setattr(benchmark.Bench, "memorisation", memorisation)
    good = write(tmp_path / "good", draw_batch(range(5000, 5090), list(CLASSES) * 30, 64)[0])
    noise = write(tmp_path / "noise", np.random.default_rng(0).integers(0, 256, (90, 64, 64), dtype=np.uint8))
    recipes: dict[str, Any] = {
        "cache": tmp_path / "cache",
        "judge_recipe": JudgeRecipe(resolution=32, epochs=3),
        "selfsup_recipe": SelfSupervisedRecipe(resolution=32, epochs=1),
    }
    out = tmp_path / "out"
    code = benchmark.main(
        ["--data", DATA, "--methods", "none", "--run", f"ours={good}", "--run", f"noise={noise}", "--out", str(out)],
        **recipes,
    )
    found = read_json(out / "compare.json")
    wrong = bool(found["exposed"][REAL]) or any(not found["exposed"][rung] for rung in found["rungs"])
    assert code == wrong
    said = capsys.readouterr().out
    assert "training images, copied: exposed in" in said
    exposed = found["exposed"]
    assert "copies" in exposed["training images, copied"]
    assert {"judge/fid", "selfsup/fid", "judge/coverage", "judge/recall", "copies"} <= set(exposed["noise"])
    assert len(exposed["ours"]) < len(exposed["noise"])
    for space in ("judge", "selfsup"):
        ratio = found["ratios"]["ours/noise"][f"{space}/fid"]
        assert ratio["low"] <= ratio["value"] <= ratio["high"] < 1
        by_hand = found["figures"]["ours"][f"{space}/fid"]["value"] / found["figures"]["noise"][f"{space}/fid"]["value"]
        assert ratio["value"] == pytest.approx(by_hand)
    assert set(found["rungs"]) < set(found["figures"])


@pytest.mark.parametrize(
    ("exposed", "code", "says"),
    [
        ({"real, other patients": [], "blur": ["judge/fid"]}, 0, ""),
        ({"real, other patients": ["judge/fid"], "blur": ["judge/fid"]}, 1, "real images are exposed by judge/fid"),
        ({"real, other patients": [], "blur": []}, 1, "the rung 'blur' is exposed by nothing"),
    ],
)
def test_a_table_that_tells_nothing_apart_fails(
    benchmark: ModuleType,
    exposed: dict[str, list[str]],
    code: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = [f"{space}/{name}" for space in benchmark.SPACES for name in benchmark.COLUMNS]
    row = {name: Interval(1, 0, 2) for name in (*names, "agreement")}
    found = {
        "counts": [9], "patients": 9, "floor": {name: {"mean": 1.0, "spread": 0.1} for name in row},
        "figures": dict.fromkeys(exposed, row), "ratios": {}, "exposed": exposed, "rungs": ["blur"],
    }  # fmt: skip
    monkeypatch.setattr(benchmark, "compare", lambda *given, **recipes: found)
    assert benchmark.main(["--data", "phantom:60", "--methods", "none", "--out", str(tmp_path / "out")]) == code
    assert says in capsys.readouterr().err
    assert read_json(tmp_path / "out" / "compare.json")["faults"] == ([says] if says else [])


def test_a_run_of_other_data_is_not_compared(benchmark: ModuleType, tmp_path: Path) -> None:
    save_model(tiny_generator(), tmp_path / "model", "card", {"data_hash": "f00d"})
    with pytest.raises(InputError, match=r"was trained on f00d"):
        benchmark.collect(tmp_path / "model", load_images("phantom:60", 32, progress=False), 30, lambda *step: None)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--methods", "ours"], "ours must be trained: give either --minutes or --kimg"),
        (["--methods", "gan", "--kimg", "1"], "--methods (=gan) must be among ours, unguided, dcgan, or none"),
        (["--methods", "none", "--run", "ours=no/such"], "--run (=ours=no/such) must be NAME=RUN"),
    ],
)
def test_mistakes(benchmark: ModuleType, words: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        benchmark.main(["--data", DATA, "--out", str(tmp_path / "out"), *words])
    assert not (tmp_path / "out").exists()
