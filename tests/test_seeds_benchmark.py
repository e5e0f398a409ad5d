"""Means and intervals over seeds, of the arms of a search and of whole runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmark_module import benchmark
from expressivegan.errors import InputError

seeds = benchmark("seeds")


def test_a_difference_by_hand() -> None:
    first = {0: {"score": 1.0}, 1: {"score": 1.5}, 2: {"score": 4.0}, 7: {"score": 9.0}}
    arm = {2: {"score": 7.0}, 0: {"score": 2.0}, 1: {"score": 3.5}, 5: {"score": -90.0}}
    # +1, +2, +3 where both have the seed; 4.303 · 1 / √3 of two degrees of freedom
    assert seeds.against(arm, first, "score") == "+2.00 ±2.48"
    assert seeds.against(first, first, "score") == ""
    assert seeds.against({0: {"score": 2.0}}, first, "score") == ""


def test_a_ratio_by_hand() -> None:
    first = {seed: {"judge/fid": fid} for seed, fid in enumerate((2.0, 1.0, 4.0))}
    arm = {seed: {"judge/fid": fid} for seed, fid in enumerate((2.0, 2.0, 16.0))}
    # 1, 2 and 4 times: ln 2 ± 4.303 · ln 2 / √3, and e to that
    assert seeds.against(arm, first, "judge/fid") == "2.00 [0.36, 11.19]"


def test_whole_runs_are_paired_by_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trajectory = benchmark("trajectory")
    same = {f"{space}/{name}": 1.0 for space in seeds.SPACES for name in seeds.FIGURES} | {"agreement": 0.0}
    runs = {
        f"{name}, seed {seed}": {
            "0000020000": same | {"judge/fid": 50.0, "score": 9.0},  # an early checkpoint, which must not count
            f"{kimg:07d}000": same | {"judge/fid": fid * 3**seed, "score": 1.0},
        }
        for name, fid, kimg in (("ours", 1.0, 240), ("none", 2.0, 270))
        for seed in (0, 1)
    }
    (tmp_path / "trajectory.json").write_text(json.dumps({"runs": runs | {"another": runs["ours, seed 0"]}}))
    assert trajectory.main(["--out", str(tmp_path), "--against", "none"]) == 0
    said = capsys.readouterr().out
    assert "0.50 [0.50," in said  # half of it in either seed, to whatever the seed amounts
    assert "270" in said
    with pytest.raises(InputError, match=r"--against \(=another\) must be among ours, none"):
        trajectory.main(["--out", str(tmp_path), "--against", "another"])


def test_figures_of_a_name_are_those_of_one_run(tmp_path: Path) -> None:
    trajectory = benchmark("trajectory")

    def trained(**settings: object) -> dict[str, Path]:
        (tmp_path / "settings.json").write_text(json.dumps({"data_hash": "d", "config": {"seed": 0}} | settings))
        return {"ours": tmp_path}

    results: dict[str, Any] = {}
    trajectory.claim_names(trained(warnings=[]), results)
    results["runs"] = {"ours": {"0000020000": {"score": 1.0}}}
    results = json.loads(json.dumps(results))
    trajectory.claim_names(trained(warnings=["20 images: what does not matter"]), results)
    for other in ({"config": {"seed": 1}}, {"teacher_hash": "t"}, {"init": {"model": "m"}}, {"data_hash": "e"}):
        with pytest.raises(InputError, match=r"is not the run that the figures of 'ours' are of.*another name"):
            trajectory.claim_names(trained(**other), results)
    del results["identities"]  # as files were before
    trajectory.claim_names(trained(), results)
    assert "ours" not in results["identities"]  # nobody knows
