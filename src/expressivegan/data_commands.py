"""What `expressivegan data …` does."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.markup import escape
from rich.table import Table

from expressivegan.checkpoint import new_directory
from expressivegan.console import console, progress_bar, say
from expressivegan.data import ImageSet, Manifest, load_images
from expressivegan.data import prepare as prepare_data
from expressivegan.data.cache import cache_root
from expressivegan.data.decode import Fit
from expressivegan.data.fix import describe, plan_from_report, read_report, undo
from expressivegan.data.fix import fix as repair
from expressivegan.data.fix.remedies import same_files
from expressivegan.data.load import manifest_for
from expressivegan.data.manifest import is_manifest
from expressivegan.errors import InputError

if TYPE_CHECKING:
    from expressivegan.data.doctor import Diagnosis

_SHOWN = 10


def show(source: str, out: Path | None, patient_regex: str | None, classes: str | None, seed: int) -> None:
    """Prints classes × groups and the rejected files; writes the manifest."""
    _check_out(out, source)
    images = load_images(source, 64, seed=seed, patient_regex=patient_regex, classes=classes)
    data_table(images)
    if out is not None:
        images.manifest.write(out)
        say(f"manifest: {out}")


def _check_out(out: Path | None, source: str) -> None:
    """Raises InputError unless a manifest may be written there without losing anything that is no manifest."""
    if out is None:
        return
    if out.is_dir():
        raise InputError(f"--out (={str(out)!r}) is a folder; name the manifest to write, such as manifest.jsonl")
    if not out.exists():
        return
    if Path(source).exists() and out.samefile(source):
        raise InputError(f"--out (={str(out)!r}) is the data set itself; name another file, so that nothing is lost")
    if not is_manifest(out):
        raise InputError(f"--out (={str(out)!r}) holds something else than a manifest; name another file")


def data_table(images: ImageSet) -> None:
    """Classes × groups, and what was left out."""
    table = Table(title=f"{images.manifest.source}: {len(images)} images, data hash {images.data_hash[:12]}")
    table.add_column("group")
    table.add_column("patients", justify="right")
    for name in images.classes:
        table.add_column(escape(name), justify="right")
    for group in ("train", "judge", "reference", "test"):
        chosen = images.indices(group)
        counts = [str(int((images.labels[chosen] == k).sum())) for k in range(len(images.classes))]
        table.add_row(group, str(len(set(images.patients[chosen]))), *counts)
    console.print(table)
    _rejected(images.manifest)


def _rejected(manifest: Manifest) -> None:
    for item in manifest.rejected[:_SHOWN]:
        path = item.path.encode("utf-8", "replace").decode()
        say(f"left out: {path}: {item.reason}", "yellow")
    if len(manifest.rejected) > _SHOWN:
        say(f"… and {len(manifest.rejected) - _SHOWN} more; the manifest lists them all")


def doctor(
    source: str,
    out: Path,
    checks: Sequence[str],
    patient_regex: str | None,
    classes: str | None,
    seed: int,
    fail_on: Literal["never", "high", "medium"],
) -> int:
    """Examines a data set, prints what it finds, writes doctor.json and doctor.html; 1 if worse than allowed."""
    from expressivegan.data.doctor import diagnose, open_case  # brings scikit-learn, which nothing else here needs
    from expressivegan.data.doctor.finding import SEVERITIES
    from expressivegan.report.doctor import print_diagnosis, write_html, write_json

    if Path(source).is_dir() and Path(source).resolve() in (out.resolve(), *out.resolve().parents):
        raise InputError(f"--out (={out}) lies in the data set, where it would count as a class; name a folder outside")
    case = open_case(source, patient_regex=patient_regex, classes=classes, seed=seed)
    told = {"--patient-regex": patient_regex, "--classes": classes}
    with new_directory(out):
        with progress_bar("doctor") as bar:
            diagnosis = _with_names(diagnose(case, checks or None, bar), out / "doctor.json", source, told)
        write_json(diagnosis, out / "doctor.json")
        write_html(diagnosis, out / "doctor.html")
    print_diagnosis(diagnosis, console)
    say(f"page: {out / 'doctor.html'}\ndata: {out / 'doctor.json'}")
    return int(fail_on != "never" and SEVERITIES.index(diagnosis.worst()) <= SEVERITIES.index(fail_on))


def _with_names(diagnosis: "Diagnosis", report: Path, source: str, told: Mapping[str, str | None]) -> "Diagnosis":
    """With remedies that can be pasted: where the report stands, a manifest that is not the source itself, and what the
    doctor was told of patients and classes."""
    fixed = "fixed-again.jsonl" if Path(source).name == "fixed.jsonl" else "fixed.jsonl"
    fixed += "".join(f" {option} {shlex.quote(value)}" for option, value in told.items() if value is not None)
    findings = tuple(
        replace(
            f,
            remedy=f.remedy.replace(" doctor.json", f" {shlex.quote(str(report))}").replace(
                "--out fixed.jsonl", f"--out {fixed}"
            ),
        )
        for f in diagnosis.findings
    )
    return replace(diagnosis, findings=findings)


def fix(
    source: str,
    out: Path,
    *,
    report: Path | None,
    near: Literal["join", "drop", "keep"],
    duplicates: bool,
    leaks: bool,
    leaks_to: Literal["test", "train"],
    mask_markers: bool,
    border: float,
    geometry: bool,
    aspect: float | None,
    take_back: Sequence[str] | None,
    patient_regex: str | None,
    classes: str | None,
    seed: int,
) -> None:
    """Writes a repaired manifest, or one with repairs taken back."""
    _check_out(out, source)
    manifest = manifest_for(source, cache_root(), [], seed, patient_regex, classes, progress=True)
    if take_back is not None:
        if report or duplicates or leaks or mask_markers or border or geometry or aspect:
            raise InputError("--undo takes changes back and makes none; leave the other remedies out")
        kinds = set(take_back) or None
        restored = undo(manifest, kinds)
        gone = len(manifest.changes) - len(restored.changes)
        if not gone:
            raise InputError(f"--undo finds no such change in {source}; it has {len(manifest.changes)} changes in all")
        restored.write(out)
        say(f"{gone} changes taken back, {len(restored.changes)} left; manifest: {out}")
        return
    wanted: dict[str, Any] = {"duplicates": (), "same_patient": (), "leaks": leaks, "markers": {}}
    if report is not None:
        plan = plan_from_report(read_report(report), near).for_manifest(manifest)
        wanted |= plan.arguments()
        wanted["leaks"] |= leaks
        if wanted["markers"] and not mask_markers:
            say(f"markers of {len(wanted['markers'])} images are left; --markers paints over them")
            wanted["markers"] = {}
        asked = {"border-shortcut": bool(border), "geometry-shortcut": geometry or aspect is not None}
        for note in plan.notes:
            if asked.get(note.split(":")[0]):
                continue
            say(f"note: {note}")
    elif mask_markers:
        from expressivegan.data.doctor import Case, markers

        wanted["markers"] = markers.search(Case(source, manifest, cache_root(), seed, dealt=True))
    if duplicates and not wanted["duplicates"]:
        wanted["duplicates"] = same_files(manifest)
    if report is None and not (duplicates or leaks or mask_markers or border or geometry or aspect):
        raise InputError("nothing to do: give --report, --duplicates, --leaks, --markers, --border or --geometry")
    fixed = repair(manifest, **wanted, leaks_to=leaks_to, border=border, geometry=geometry, aspect=aspect)
    made = fixed.changes[len(manifest.changes) :]
    if not made:
        say("nothing to repair: the manifest is written as it was")
    table = Table(title=f"{len(made)} changes, {len(fixed.records)} of {len(manifest.records)} images left")
    for name in ("kind", "images", "for example", "why"):
        table.add_column(name)
    for row in describe(made):
        table.add_row(row.kind, str(row.images), escape(row.example), escape(row.why))
    fixed.write(out)
    console.print(table)
    say(f"manifest: {out} (give it wherever a folder may stand)")


def prepare(
    source: str,
    resolutions: Sequence[int],
    fit: Fit,
    out: Path | None,
    patient_regex: str | None,
    classes: str | None,
    seed: int,
) -> None:
    """Makes manifest and cache."""
    _check_out(out, source)
    made = prepare_data(source, resolutions, fit=fit, patient_regex=patient_regex, classes=classes, seed=seed)
    _rejected(made.manifest)
    say(str(made))
    say(f"cache: {cache_root()}")
    if out is not None:
        made.manifest.write(out)
        say(f"manifest: {out}")


def download(name: str, out: Path) -> None:
    """Fetches a public data set."""
    from expressivegan.data.download import download as fetch

    path = fetch(name, out)
    say(f"data set: {path}\nnext: expressivegan data doctor {path}")
