"""Whether benchmarks/planted.py calls failed what failed, and tells unnoticed faults from false alarms."""

import pytest

from benchmark_module import benchmark

planted = benchmark("planted")
GOOD = {"judge/recall": 0.8, "selfsup/recall": 0.7, "agreement": -0.05}


@pytest.mark.parametrize(
    ("change", "failed"),
    [({}, False), ({"selfsup/recall": 0.4}, True), ({"judge/recall": 0.4}, True), ({"agreement": -0.4}, True)],
)
def test_failure_is_seen_in_images(change: dict[str, float], failed: bool) -> None:
    assert planted.failed(GOOD | change) is failed


def test_warnings_are_held_against_what_happened() -> None:
    noticed, healthy = {"warnings": ["collapsed"], "failed": True}, {"warnings": [], "failed": False}
    assert planted.mistakes({"a": noticed, "b": healthy}) == []
    missed, alarm = {"warnings": [], "failed": True}, {"warnings": ["collapsed"], "failed": False}
    assert planted.mistakes({"a": missed, "b": alarm}) == ["a went unnoticed", "b warned"]
    assert planted.mistakes({"b": healthy}) == ["nothing failed, so nothing could be noticed"]
