"""How benchmarks/search.py reads its own results."""

import json
from pathlib import Path

import pytest

from benchmark_module import benchmark
from expressivegan.errors import InputError

search = benchmark("search")


def test_a_difference_by_hand() -> None:
    first = {0: {"score": 1.0}, 1: {"score": 1.5}, 2: {"score": 4.0}, 7: {"score": 9.0}}
    arm = {2: {"score": 7.0}, 0: {"score": 2.0}, 1: {"score": 3.5}, 5: {"score": -90.0}}
    # +1, +2, +3 where both have the seed; 4.303 · 1 / √3 of two degrees of freedom
    assert search.against(arm, first, "score") == "+2.00 ±2.48"
    assert search.against(first, first, "score") == ""
    assert search.against({0: {"score": 2.0}}, first, "score") == ""


def test_only_searches_of_one_kind_are_shown_together(tmp_path: Path) -> None:
    of = {"arms": "guidance", "data": "abc", "minutes": 20}
    there = {"search": of, "figures": {"5": {"all, seed 1": {"score": 1.0}}}}
    (tmp_path / "search.json").write_text(json.dumps(there))
    found = search.merge({"search": of, "figures": {"5": {"all, seed 0": {"score": 2.0}}}}, [tmp_path])
    assert set(found["figures"]["5"]) == {"all, seed 0", "all, seed 1"}
    with pytest.raises(InputError, match="--also"):
        search.merge({"search": of | {"minutes": 5}}, [tmp_path])
