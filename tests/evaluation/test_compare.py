"""benchmarks/compare.py on phantoms: what it trains, how it goes on, and what it says."""

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from command_line import call
from expressivegan.checkpoint import read_json
from expressivegan.config import preset
from expressivegan.data.phantom import CLASSES, draw_batch
from expressivegan.errors import ExpressiveGANError, InputError
from expressivegan.evaluation import JudgeRecipe, SelfSupervisedRecipe

DATA = "phantom:400"
TINY = ["--resolution", "32", "--width", "8", "--min-width", "4", "--z-dim", "8", "--batch", "4"]


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
        words = command[3:]
        called.append(words)
        tiny = TINY if words[0] == "train" and "--resume" not in words else []
        return Done(call(*words, *tiny))

    monkeypatch.setattr(benchmark.ensure_run.__globals__["subprocess"], "run", run)
    return called


def test_unguided_is_ours_without_guidance() -> None:
    ours, plain = preset("cpu-64").config, preset("unguided").config
    changed = {name: value for name, value in plain.to_json().items() if value != ours.to_json()[name]}
    assert set(changed.values()) == {0}
    kept = {"class_weight", "diversity_weight"}  # neither asks a teacher, nor looks at M
    guiding = {n for n in ours.to_json() if "_weight" in n or n.startswith(("steer_", "free_"))} - kept
    assert set(changed) == guiding
    assert not plain.guided


def test_methods_are_trained_once_and_go_on(
    benchmark: ModuleType, commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = benchmark.Budget(None, 0.016)
    train = partial(benchmark.ensure_run, data="phantom:60", out=tmp_path, budget=budget, teacher="none", seed=3)
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
                "--kimg", 0.008, "--seed", 3, *TINY) == 0  # fmt: skip
    end.write_bytes((tmp_path / "half" / "checkpoints" / "0000000008.ckpt").read_bytes())
    end.rename(end.with_name("0000000008.ckpt"))
    train("dcgan")
    assert commands[2] == ["train", "--resume", "--out", str(run)]
    assert end.exists()

    with pytest.raises(InputError, match=r"trained with --kimg 0.016 --seed 3, not --kimg 5 --seed 3; choose another"):
        train("dcgan", budget=benchmark.Budget(None, 5))
    with pytest.raises(ExpressiveGANError, match=r"ours: expressivegan train ended with code 2; the same command"):
        train("ours", data=str(tmp_path / "nowhere"))


def write(folder: Path, pictures: np.ndarray) -> Path:
    """Class folders, going round the classes."""
    for i, picture in enumerate(pictures):
        (folder / CLASSES[i % 3]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / CLASSES[i % 3] / f"{i}.png")
    return folder


@pytest.mark.slow
def test_the_table(benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert code == (1 if found["faults"] else 0)
    said = capsys.readouterr().out
    assert "training images, copied: exposed in" in said
    exposed = found["exposed"]
    assert "copies" in exposed["training images, copied"]
    assert {"judge/fid", "selfsup/fid", "judge/coverage", "judge/recall"} <= set(exposed["noise"])
    assert len(exposed["ours"]) < len(exposed["noise"])
    for space in ("judge", "selfsup"):
        ratio = found["ratios"]["ours/noise"][f"{space}/fid"]
        assert ratio["low"] <= ratio["value"] <= ratio["high"] < 1
        by_hand = found["figures"]["ours"][f"{space}/fid"]["value"] / found["figures"]["noise"][f"{space}/fid"]["value"]
        assert ratio["value"] == pytest.approx(by_hand)
    assert set(found["rungs"]) < set(found["figures"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--methods", "ours"], "ours must be trained: give either --minutes or --kimg"),
        (["--methods", "gan", "--kimg", "1"], "--methods (=gan) must be among ours, unguided, dcgan, or none"),
        (["--methods", "none", "--run", "ours=no/such"], "--run (=ours=no/such) must be NAME=RUN"),
    ],
)
def test_mistakes(
    benchmark: ModuleType, words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark.main(["--data", DATA, "--out", str(tmp_path / "out"), *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
