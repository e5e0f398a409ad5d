"""What `expressivegan data …` does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from expressivegan.checkpoint import new_directory
from expressivegan.console import console, progress_bar
from expressivegan.data import ImageSet, Manifest, load_images
from expressivegan.data import prepare as prepare_data
from expressivegan.data.cache import cache_root
from expressivegan.data.decode import Fit
from expressivegan.data.doctor import Case, Severity, diagnose, markers, open_case
from expressivegan.data.doctor.finding import SEVERITIES
from expressivegan.data.download import download as fetch
from expressivegan.data.fix import KINDS, describe, plan_from_report, read_report, undo
from expressivegan.data.fix import fix as repair
from expressivegan.data.fix.remedies import same_files
from expressivegan.data.load import manifest_for
from expressivegan.errors import InputError
from expressivegan.report.doctor import print_diagnosis, write_html, write_json

_SHOWN = 10


def show(source: str, out: Path | None, patient_regex: str | None, classes: str | None, seed: int) -> None:
    """Prints classes × groups and the rejected files; writes the manifest."""
    images = load_images(source, 64, seed=seed, patient_regex=patient_regex, classes=classes)
    data_table(images)
    if out is not None:
        images.manifest.write(out)
        console.print(f"manifest: {out}", highlight=False, markup=False)


def data_table(images: ImageSet) -> None:
    """Classes × groups, and what was left out."""
    table = Table(title=f"{images.manifest.source}: {len(images)} images, data hash {images.data_hash[:12]}")
    table.add_column("group")
    table.add_column("patients", justify="right")
    for name in images.classes:
        table.add_column(name, justify="right")
    for group in ("train", "judge", "reference", "test"):
        chosen = images.indices(group)
        counts = [str(int((images.labels[chosen] == k).sum())) for k in range(len(images.classes))]
        table.add_row(group, str(len(set(images.patients[chosen]))), *counts)
    console.print(table)
    _rejected(images.manifest)


def _rejected(manifest: Manifest) -> None:
    for item in manifest.rejected[:_SHOWN]:
        path = item.path.encode("utf-8", "replace").decode()
        console.print(f"left out: {path}: {item.reason}", highlight=False, markup=False, style="yellow")
    if len(manifest.rejected) > _SHOWN:
        console.print(f"… and {len(manifest.rejected) - _SHOWN} more; the manifest lists them all")


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
    case = open_case(source, patient_regex=patient_regex, classes=classes, seed=seed)
    with new_directory(out):
        with progress_bar("doctor") as bar:
            diagnosis = diagnose(case, checks or None, bar)
        write_json(diagnosis, out / "doctor.json")
        write_html(diagnosis, out / "doctor.html")
    print_diagnosis(diagnosis, console)
    console.print(f"page: {out / 'doctor.html'}\ndata: {out / 'doctor.json'}", highlight=False, markup=False)
    limit: Severity | None = None if fail_on == "never" else fail_on
    bad = limit is not None and SEVERITIES.index(diagnosis.worst()) <= SEVERITIES.index(limit)
    return int(bad)


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
    if out.is_dir():
        raise InputError(f"--out (={str(out)!r}) is a folder; name the manifest to write, such as fixed.jsonl")
    if out.exists() and Path(source).exists() and out.samefile(source):
        raise InputError(f"--out (={str(out)!r}) is the data set itself; name another file, so that nothing is lost")
    manifest = manifest_for(source, cache_root(), [], seed, patient_regex, classes, progress=True)
    if take_back is not None:
        if report or duplicates or leaks or mask_markers or border or geometry or aspect:
            raise InputError("--undo takes changes back and makes none; leave the other remedies out")
        kinds = set(take_back) or None
        restored = undo(manifest, kinds)
        restored.write(out)
        gone = len(manifest.changes) - len(restored.changes)
        console.print(f"{gone} changes taken back, {len(restored.changes)} left; manifest: {out}", markup=False)
        return
    wanted: dict[str, Any] = {"duplicates": (), "same_patient": (), "leaks": leaks, "markers": {}}
    if report is not None:
        plan = plan_from_report(read_report(report), near).for_manifest(manifest)
        wanted |= plan.arguments()
        wanted["leaks"] |= leaks
        if wanted["markers"] and not mask_markers:
            console.print(f"markers of {len(wanted['markers'])} images are left; --markers paints over them")
            wanted["markers"] = {}
        for note in plan.notes:
            console.print(f"note: {note}", highlight=False, markup=False)
    elif mask_markers:
        wanted["markers"] = markers.search(Case(source, manifest, cache_root(), seed, dealt=True))
    if duplicates and not wanted["duplicates"]:
        wanted["duplicates"] = same_files(manifest)
    if report is None and not (duplicates or leaks or mask_markers or border or geometry or aspect):
        raise InputError("nothing to do: give --report, --duplicates, --leaks, --markers, --border or --geometry")
    fixed = repair(
        manifest, **wanted, leaks_to=leaks_to, border=border, geometry=geometry, aspect=aspect, progress=True
    )
    made = fixed.changes[len(manifest.changes) :]
    table = Table(title=f"{len(made)} changes, {len(fixed.records)} of {len(manifest.records)} images left")
    for name in ("kind", "images", "for example", "why"):
        table.add_column(name)
    for row in describe(made):
        table.add_row(row.kind, str(row.images), row.example, row.why)
    fixed.write(out)
    console.print(table)
    console.print(f"manifest: {out} (give it wherever a folder may stand)", highlight=False, markup=False)


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
    made = prepare_data(source, resolutions, fit=fit, patient_regex=patient_regex, classes=classes, seed=seed)
    _rejected(made.manifest)
    console.print(str(made), highlight=False, markup=False)
    console.print(f"cache: {cache_root()}", highlight=False, markup=False)
    if out is not None:
        made.manifest.write(out)
        console.print(f"manifest: {out}", highlight=False, markup=False)


def download(name: str, out: Path) -> None:
    """Fetches a public data set."""
    path = fetch(name, out)
    console.print(f"data set: {path}\nnext: expressivegan data doctor {path}", highlight=False, markup=False)


UNDOABLE = KINDS
