"""How benchmarks/search.py reads its own results."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmark_module import benchmark
from expressivegan.data import ImageSet
from expressivegan.errors import InputError, TrainingError
from tiny import tiny_teacher

search = benchmark("search")


def test_arms_are_held_against_the_one_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = {f"{space}/{name}": 1.0 for space in search.SPACES for name in search.FIGURES}
    rows = {
        f"{arm}, seed {seed}": figures | {"images": 30000, "agreement": 0.0, "score": score + seed}
        for arm, score in (("all", 0.5), ("none", 2.5))
        for seed in (0, 1)
    }
    of = {"arms": "guidance", "data": "abc", "kimg": 30.0}
    (tmp_path / "search.json").write_text(json.dumps({"search": of, "figures": {"30": rows}}))
    assert search.main(["--out", str(tmp_path), "--against", "none"]) == 0
    said = capsys.readouterr().out
    assert "against none" in said
    assert "-2.00 ±0.00" in said
    assert (tmp_path / "search.png").stat().st_size > 10_000
    with pytest.raises(InputError, match=r"--against \(=nothing\) must be among all, "):
        search.main(["--out", str(tmp_path), "--against", "nothing"])
    with pytest.raises(InputError, match="holds no search yet"):
        search.main(["--out", str(tmp_path / "empty")])


def test_only_searches_of_one_kind_are_shown_together(tmp_path: Path) -> None:
    of = {"arms": "guidance", "data": "abc", "minutes": 20}
    there = {"search": of, "figures": {"5": {"all, seed 1": {"score": 1.0}}}}
    (tmp_path / "search.json").write_text(json.dumps(there))
    found = search.merge({"search": of, "figures": {"5": {"all, seed 0": {"score": 2.0}}}}, [tmp_path])
    assert set(found["figures"]["5"]) == {"all, seed 0", "all, seed 1"}
    with pytest.raises(InputError, match="--also"):
        search.merge({"search": of | {"minutes": 5}}, [tmp_path])


def test_the_table_says_what_a_rung_is(tmp_path: Path) -> None:
    figures = {f"{space}/{name}": 1.0 for space in search.SPACES for name in search.FIGURES}
    rows = {"all, seed 0": figures | {"images": 30000, "agreement": 0.0, "score": 0.5}}
    for unit, title in (("kimg", "30 kimg"), ("minutes", "30 minutes of one core")):
        of = {"arms": "guidance", "data": "abc", unit: 30.0}
        screen = Console(record=True, width=150)
        search.show({"search": of, "figures": {"30": rows}}, screen)
        assert title in screen.export_text()


def test_rungs_of_images_are_alike_for_all_arms(
    phantoms: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything but training and judging: those take minutes."""
    asked: list[tuple[str, float, int]] = []

    def advance(trial: Any, images: ImageSet, guide: Any, out: Path, target: int, quiet: bool) -> int:
        asked.append((trial.key, trial.config.kimg, target))
        return target

    figures = {f"{space}/{name}": 1.0 for space in search.SPACES for name in search.FIGURES}
    monkeypatch.setattr(search, "advance", advance)
    monkeypatch.setattr(search, "load_images", lambda *_: phantoms)
    monkeypatch.setattr(search, "open_teacher", lambda *_: tiny_teacher())
    monkeypatch.setattr(search.Judging, "score", lambda self, run: figures | {"agreement": 0.0, "score": 0.5})
    monkeypatch.setattr(search, "measure_speeds", lambda *_, **__: pytest.fail("speeds were measured"))
    asks = ["--data", "x", "--teacher", "t", "--arms", "guidance", "--only", "all", "none", "--out", str(tmp_path)]
    assert search.main([*asks, "--kimg", "0.5", "1", "--keep", "1"]) == 0
    assert asked == [(f"{name}, seed 0", 1.0, target) for target in (500, 1000) for name in ("all", "none")]
    with pytest.raises(InputError, match="holds figures of something else"):
        search.main([*asks, "--rungs", "20"])
    monkeypatch.setattr(search, "open_teacher", lambda *_: tiny_teacher(seed=1))
    with pytest.raises(InputError, match="holds figures of something else"):
        search.main([*asks, "--kimg", "0.5", "1", "--keep", "1"])


class FakeBench(search.Bench):  # type: ignore[misc, name-defined]
    """Trains nothing: an attempt's figure is its target, and one below 0 diverges."""

    def __init__(self) -> None:
        pass

    def figures(self, attempt: Any, out: Path, quiet: bool) -> tuple[dict[str, float], dict[str, float]]:
        if attempt.target < 0:
            raise TrainingError("d_adversarial became nan")
        return {"images": attempt.target}, {"judge/fid": 2.0}


def test_arms_side_by_side_come_back_with_their_own_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_bench", FakeBench())
    trials = [search.Trial("all", seed, search.arm({})) for seed in range(5)]
    attempts = [search.Attempt(trial, 100 * trial.seed) for trial in trials]
    with ThreadPoolExecutor(2) as pool:
        found = list(search.run_all(attempts, FakeBench(), pool, tmp_path, "2 minutes"))
    assert {a.trial.seed: figures["images"] for a, figures, _ in found} == {k: 100 * k for k in range(5)}
    assert all(floor == {"judge/fid": 2.0} for *_, floor in found)


def test_an_arm_that_diverges_does_not_end_the_search(tmp_path: Path) -> None:
    trials = [search.Attempt(search.Trial("all", seed, search.arm({})), target) for seed, target in ((0, -1), (1, 8))]
    (_, first, _), (_, second, _) = search.run_all(trials, FakeBench(), None, tmp_path, "2 minutes")
    assert first == "d_adversarial became nan"
    assert second == {"images": 8}


def test_an_arm_whose_settings_changed_is_not_mixed_with_its_old_figures(tmp_path: Path) -> None:
    results: dict[str, Any] = {}
    search.claim_settings(results, {"all": search.arm({})}, tmp_path)
    search.claim_settings(results, {"all": search.arm({}, seed=3, kimg=5.0), "none": search.arm({})}, tmp_path)
    with pytest.raises(InputError, match="'all' with another gamma; choose"):
        search.claim_settings(results, {"all": search.arm({"gamma": 1.0})}, tmp_path)
