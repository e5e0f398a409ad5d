"""All checks, one after the other."""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version

from expressivegan.data.doctor import border, duplicates, exposure, files, geometry, labels, markers, patients, shift
from expressivegan.data.doctor.case import Case
from expressivegan.data.doctor.finding import NOT_ASKED, SEVERITIES, Diagnosis, Finding
from expressivegan.errors import InputError

CHECKS: dict[str, Callable[[Case], Finding]] = {
    "unreadable-files": files.unreadable,
    "odd-files": files.odd,
    "small-splits": files.small_splits,
    "patients-across-splits": patients.across_splits,
    "exact-duplicates": duplicates.exact,
    "near-duplicates": duplicates.near,
    "patient-keys": patients.keys,
    "geometry-shortcut": geometry.check,
    "border-shortcut": border.check,
    "markers": markers.check,
    "prevalence-shift": shift.prevalence,
    "covariate-shift": shift.covariate,
    "exposure": exposure.check,
    "label-noise": labels.check,
}
"""Name of each check → the function that does it."""


def diagnose(
    case: Case,
    checks: Sequence[str] | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> Diagnosis:
    """Examines a data set.

    Args:
        case: what `open_case` returned.
        checks: names from `CHECKS`; default all.
        progress: called with (checks done, checks in all, the one that begins).

    Raises:
        InputError: no such check.
    """
    chosen = list(CHECKS) if checks is None else list(checks)
    for name in chosen:
        if name not in CHECKS:
            raise InputError(f"checks (={name!r}) must be among {', '.join(CHECKS)}")
    findings, seconds = [], {}
    if not case.records:
        return _nothing_usable(case, chosen)
    for done, name in enumerate(chosen):
        progress(done, len(chosen), name)
        start = time.perf_counter()
        found = CHECKS[name](case)
        case.release()
        findings.append(replace(found, remedy=found.remedy.replace(" DATA ", f" {shlex.quote(case.source)} ")))
        seconds[name] = round(time.perf_counter() - start, 2)
    findings += [Finding(name, "skipped", NOT_ASKED) for name in CHECKS if name not in chosen]
    progress(len(chosen), len(chosen), "")
    manifest = case.manifest
    return Diagnosis(
        source=case.source,
        kind=manifest.source,
        data_hash=manifest.data_hash,
        version=version("expressivegan"),
        classes=manifest.classes,
        overview=files.overview(case),
        findings=tuple(sorted(findings, key=lambda f: SEVERITIES.index(f.severity))),
        seconds=seconds,
    )


def _nothing_usable(case: Case, chosen: Sequence[str]) -> Diagnosis:
    """No picture can be read: the reasons are all there is to say."""
    unusable = replace(files.unreadable(case), severity="high")
    skipped = [Finding(name, "skipped", "No image can be used") for name in chosen if name != unusable.check]
    return Diagnosis(
        source=case.source,
        kind=case.manifest.source,
        data_hash=case.manifest.data_hash,
        version=version("expressivegan"),
        classes=case.manifest.classes,
        overview=files.overview(case),
        findings=(unusable, *skipped),
    )
