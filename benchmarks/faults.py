"""Does the doctor find what is wrong? Run: python benchmarks/faults.py [--images N] [--kinds leak marker ...]

Writes sets of phantom files, each with one planted fault (tests/data/plant_faults.py), one with all, and a clean one;
examines each, and prints per fault whether the right check reports it as high or medium, which share of what was
planted stands in its list, and what stands there wrongly. Of the clean set it prints every finding: a high one is a
failure, and so is a fault that was not found; then the exit code is 1.
"""

import argparse
import json
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from ending import leave

from expressivegan.data.doctor.case import open_case
from expressivegan.data.doctor.finding import Diagnosis, Finding
from expressivegan.data.doctor.run import diagnose

# The planting is the tests' own; their folder is no package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "data"))
from plant_faults import CHECKS, KINDS, PATIENT_REGEX, Truth, plant

LOUD = ("high", "medium")


@dataclass(frozen=True)
class Score:
    """How one fault was found in one set."""

    set: str
    kind: str
    check: str
    severity: str
    found: bool
    """High or medium."""
    planted: int
    listed: int | None
    """Of the planted items; None where the fault lies in the whole set."""
    false: int | None
    """Items listed that were not planted."""

    @property
    def rate(self) -> float | None:
        """Share of the planted items that are listed."""
        return self.listed / self.planted if self.listed is not None and self.planted else None


def pairs_of(findings: Iterable[Finding]) -> set[frozenset[str]]:
    """Every two files that stand in one item."""
    return {
        frozenset(pair) for f in findings for item in f.items for pair in combinations(sorted(set(item["paths"])), 2)
    }


def score(name: str, kind: str, truth: dict[str, Truth], findings: Sequence[Finding]) -> Score:
    """Compares the findings of the right check with what was planted."""
    check, planted = CHECKS[kind], truth[kind]
    own = [f for f in findings if f.check == check]
    severity = next(
        (s for s in ("high", "medium", "low", "ok", "skipped") if s in {f.severity for f in own}), "missing"
    )
    count, listed, false = 0, None, None
    if planted.pairs:
        told = pairs_of(own)
        count = len(planted.pairs)
        listed = sum(frozenset(pair) in told for pair in planted.pairs)
        # All kinds of copies count: a near-duplicate search may well list exact ones and other views of a leaked child.
        real = {frozenset(pair) for one in truth.values() for pair in one.pairs}
        # Two views of one child are alike in truth, and so are a copy and another view of its original.
        source = {copy: original for one in truth.values() for original, copy in one.pairs}
        false = None if kind == "leak" else sum(len(patients(source.get(p, p) for p in t)) > 1 for t in told - real)
    elif planted.boxes:
        boxes = {p: item["boxes"] for f in own for item in f.items for p in item["paths"]}
        count = len(planted.boxes)
        listed = sum(any(overlap(box, b) for b in boxes.get(path, [])) for path, box in planted.boxes.items())
    elif planted.paths:
        told_paths = {p for f in own for item in f.items for p in item["paths"]}
        count = len(planted.paths)
        listed = len(told_paths & set(planted.paths))
        false = len(told_paths - set(planted.paths))
    return Score(name, kind, check, severity, severity in LOUD, count, listed, false)


def patients(paths: Iterable[str]) -> set[str]:
    """Whose images these are."""
    return {match[1] for path in paths if (match := re.search(PATIENT_REGEX, path))}


def overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether two boxes (left, top, right, bottom) share any area."""
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def examine(kind: str, images: int, seed: int) -> tuple[Diagnosis, dict[str, Truth], float]:
    """Plants a set in a temporary folder and examines it with an empty cache."""
    with tempfile.TemporaryDirectory() as temporary:
        planted = plant(kind, Path(temporary) / "set", images, seed)
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case = open_case(
                planted.folder, patient_regex=planted.patient_regex, cache_dir=Path(temporary) / "cache", progress=False
            )
            diagnosis = diagnose(case)
        return diagnosis, planted.truth, time.perf_counter() - start


def row(cells: Sequence[Any]) -> str:
    return "  ".join(f"{'-' if c is None else c!s:{w}}" for c, w in zip(cells, (7, 18, 24, 9, 7, 9, 6), strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1800, help="per set, before copies: about 1,500 children")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=["clean", *KINDS, "all"], choices=["clean", *KINDS, "all"])
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    scores: list[Score] = []
    others: dict[str, dict[str, str]] = {}
    seconds: dict[str, float] = {}
    print(row(("set", "planted", "check", "severity", "found", "listed", "false")))
    for kind in options.kinds:
        diagnosis, truth, took = examine(kind, options.images, options.seed)
        seconds[kind] = round(took, 1)
        expected = {CHECKS[one] for one in truth}
        others[kind] = {f.check: f.severity for f in diagnosis.findings if f.check not in expected}
        for one in truth:
            new = score(kind if kind == "all" else "alone", one, truth, diagnosis.findings)
            scores.append(new)
            listed = None if new.listed is None else f"{new.listed}/{new.planted}"
            print(row((new.set, one, new.check, new.severity, "yes" if new.found else "NO", listed, new.false)))
        if kind == "clean":
            for finding in diagnosis.findings:
                print(row((kind, "nothing", finding.check, finding.severity, None, None, len(finding.items))))
        sys.stdout.flush()
    missed = [s for s in scores if not s.found]
    alarms = [check for check, severity in others.get("clean", {}).items() if severity == "high"]
    beside = {
        k: [c for c, s in v.items() if s == "high"] for k, v in others.items() if k != "clean" and "high" in v.values()
    }
    print(f"not found: {len(missed)} of {len(scores)}; high alarms on the clean set: {alarms or 'none'}; ", end="")
    print(f"high findings of other checks: {beside or 'none'}")
    result = {
        "images": options.images,
        "seed": options.seed,
        "scores": [{**vars(s), "rate": s.rate} for s in scores],
        "other findings": others,
        "seconds": seconds,
    }
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    else:
        print(json.dumps(result))
    return 1 if missed or alarms else 0


if __name__ == "__main__":
    leave(main)
