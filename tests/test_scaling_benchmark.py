"""What benchmarks/scaling.py counts, fits and predicts."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from benchmark_module import benchmark
from expressivegan.config import preset
from expressivegan.errors import InputError

scaling = benchmark("scaling")


def cell(resolution: int, batch: int, width: int) -> dict[str, Any]:
    """Counts like those of a real one, and time and memory that follow the laws to the digit."""
    found = {"flop": 7e6 * resolution * width, "bytes": 6e3 * resolution**2 + 9e4 * width, "parameters": 90 * width**2}
    seconds = 0.02 / batch + 1.7 * found["flop"] / 1e12 + 0.11 * found["bytes"] / 1e9
    gib = 0.05 + 0.02 * found["parameters"] / 1e6 + 0.18 * batch * found["bytes"] / 1e9
    return found | {"seconds": seconds, "gib": 0.8 + gib, "gib_before": 0.8, "operations": 2000.0}


@pytest.fixture
def cells() -> dict[Any, dict[str, Any]]:
    return {c: cell(*c) for c in scaling.design(quick=False)}


def test_planted_laws_are_found_and_a_departure_is_noticed(cells: dict[Any, dict[str, Any]]) -> None:
    found = scaling.laws(cells)
    assert found["time"]["coefficients"] == pytest.approx([0.02, 0.0017, 0.11])
    assert found["memory"]["coefficients"] == pytest.approx([0.05, 0.02, 0.18])
    for name in ("time", "memory"):
        assert abs(found[name]["largest_error"]) < 1e-6
        assert abs(found[name]["largest_error_beyond"]) < 1e-6
    cells[256, 8, 64]["seconds"] *= 2
    for c in cells:
        cells[c]["gib"] += 1.0 * (c[0] > 128)  # the law of small sizes does not hold for large ones
    found = scaling.laws(cells)
    assert found["time"]["of_cell"] == (256, 8, 64)
    assert -0.55 < found["time"]["largest_error"] < -0.4
    assert found["memory"]["largest_error_beyond"] < -0.3


def test_too_few_cells_have_no_laws(cells: dict[Any, dict[str, Any]]) -> None:
    for few in ({}, dict(list(cells.items())[:4]), {c: cells[c] for c in cells if c[0] == 64}):
        with pytest.raises(InputError, match="laws need 5 cells of 2 resolutions"):
            scaling.laws(few)


def test_what_is_counted() -> None:
    x, w = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
    with scaling.Traffic() as found:
        y = F.conv2d(x, w)  # arithmetic, counted elsewhere
        y.view(2, -1).transpose(0, 1)  # nothing moves
        y + y[:1]
    assert found.operations == 2
    assert found.bytes == 4 * (2 * y.numel() + y.numel() // 2)


def test_the_prediction_by_hand() -> None:
    config = replace(preset("gpu-224").config, batch=64, kimg=3.6)
    counted = {"flop": 78e9, "bytes": 1.6e9, "operations": 2500.0}
    found = scaling.prediction(counted, config)
    # an A100: 78e9 / (0.25 * 312e12) + 1.6e9 / (0.8 * 2e12) = 2 ms an image, 3,600 of them
    assert found["1 x A100 at 25%"] == {"hours": pytest.approx(0.002), "limit": "work"}
    # of eight, each has 8 images and 16 ms of work, but takes 20 ms to start 2,500 operations; 56.25 steps
    assert found["8 x A100 at 25%"] == {
        "hours": pytest.approx(56.25 * 0.02 / 0.9 / 3600),
        "limit": "starting operations",
    }
    assert found["8 x A100 at 10%"]["limit"] == "work"


def test_a_killed_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def run(command: list[str], **options: Any) -> Any:
        at = command.index("--cell")
        asked.append("-".join(command[at + 1 : at + 4]))
        if len(asked) == 4:
            raise KeyboardInterrupt
        found = json.dumps(cell(*map(int, command[at + 1 : at + 4])))
        return subprocess.CompletedProcess(command, 0, f"a word of a library\n{found}\n", "")

    monkeypatch.setattr(scaling.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--quick", "--check", "--out", str(tmp_path)])
    with pytest.raises(KeyboardInterrupt):
        scaling.main()
    assert scaling.main() == 0
    assert len(asked) == 10  # the preset, eight cells, and the one that was killed once more
    assert asked[3] == asked[4]
    assert len(set(asked)) == 9
    assert json.loads((tmp_path / "laws.json").read_text())["cells"] == 8
    cells = json.loads((tmp_path / "cells.json").read_text())
    cells["128-16-128"]["seconds"] *= 3
    (tmp_path / "cells.json").write_text(json.dumps(cells))
    assert scaling.main() == 1
    assert "time off by more than 20%" in capsys.readouterr().err


def test_a_real_cell() -> None:
    found = scaling.measure(scaling.settings((32, 4, 16)), 1, "cpu")
    assert found["flop"] > 1e6
    assert found["bytes"] > 1e6
    assert 0 < found["seconds"] < 60
    assert found["penalty_seconds"] > 0
    assert found["gib"] >= found["gib_before"] > 0
