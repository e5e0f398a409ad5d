"""`expressivegan data …` on the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitSubcommandPrefixes, Positional, subcommand

Fit = Literal["stretch", "pad", "crop"]
Kind = Literal["duplicate", "leak", "marker", "border", "geometry"]
Check = Literal[
    "unreadable-files",
    "odd-files",
    "small-splits",
    "patients-across-splits",
    "exact-duplicates",
    "near-duplicates",
    "patient-keys",
    "geometry-shortcut",
    "border-shortcut",
    "markers",
    "prevalence-shift",
    "covariate-shift",
    "exposure",
    "label-noise",
]


@dataclass
class Show:
    """Show what a data set holds: classes, patients, groups, files left out."""

    data: Positional[str]
    """Folder, ZIP, .npz (MedMNIST), table (CSV, Parquet), saved manifest, or phantom[:COUNT]."""
    out: Path | None = None
    """Where to write the manifest (one JSON line an image)."""
    patient_regex: str | None = None
    """Regular expression with one group that finds the patient in a file's path."""
    classes: str | None = None
    """Which classes to tell apart, in order: "NORMAL,Pneumonia", or "NORMAL,Opacity=Pneumonia|Consolidation"."""
    seed: int = 0
    """Of the deal of patients into training, judging and reference groups."""

    def run(self) -> None:
        from expressivegan import data_commands

        data_commands.show(self.data, self.out, self.patient_regex, self.classes, self.seed)


@dataclass
class Doctor:
    """Find what is wrong with a data set before a network learns it."""

    data: Positional[str]
    """Folder, ZIP, .npz (MedMNIST), table (CSV, Parquet), saved manifest, or phantom[:COUNT]."""
    out: Path = Path("doctor")
    """Folder for doctor.html (one page with pictures) and doctor.json (all of it, for programs)."""
    checks: tuple[Check, ...] = ()
    """Which to run; default all."""
    patient_regex: str | None = None
    """Regular expression with one group that finds the patient in a file's path."""
    classes: str | None = None
    """Which classes to tell apart, in order: "NORMAL,Pneumonia", or "NORMAL,Opacity=Pneumonia|Consolidation"."""
    seed: int = 0
    """Of phantoms, and of the sample in which markers are searched."""
    fail_on: Literal["never", "high", "medium"] = "never"
    """Exit with code 1 if a finding is that severe or worse, for use in scripts."""

    def run(self) -> int:
        from expressivegan import data_commands

        return data_commands.doctor(
            self.data, self.out, self.checks, self.patient_regex, self.classes, self.seed, self.fail_on
        )


@dataclass
class Fix:
    """Write a repaired manifest: no image is touched, every change is listed and can be undone."""

    data: Positional[str]
    """What the doctor examined, or a manifest that was fixed before."""
    out: Path
    """Manifest to write; give it wherever a folder may stand."""
    report: Path | None = None
    """doctor.json: drops the duplicates and moves the leaking patients that it found."""
    near: Literal["join", "drop", "keep"] = "join"
    """Near-duplicates of the report: count their patients as one, drop all but one, or leave them."""
    duplicates: bool = False
    """Keep one of each group of equal files, the one furthest from training."""
    leaks: bool = False
    """Move a patient who is in several groups wholly into one."""
    leaks_to: Literal["test", "train"] = "test"
    """Which one: furthest from training, or nearest."""
    markers: bool = False
    """Paint over letters and other marks, where the report lists them or, without one, where they are found now."""
    border: float = 0.0
    """Cut this share of width and height off each side, such as 0.05."""
    geometry: bool = False
    """Cut every picture to one aspect ratio, the one that costs the least area."""
    aspect: float | None = None
    """Width / height to cut to; implies --geometry."""
    undo: tuple[Kind, ...] | None = None
    """Take changes of these kinds back, or all of them where none is named."""
    patient_regex: str | None = None
    """Regular expression with one group that finds the patient in a file's path."""
    classes: str | None = None
    """Which classes to tell apart, in order: "NORMAL,Pneumonia"."""
    seed: int = 0
    """Of the deal of patients into groups."""

    def run(self) -> None:
        from expressivegan import data_commands

        data_commands.fix(
            self.data,
            self.out,
            report=self.report,
            near=self.near,
            duplicates=self.duplicates,
            leaks=self.leaks,
            leaks_to=self.leaks_to,
            mask_markers=self.markers,
            border=self.border,
            geometry=self.geometry,
            aspect=self.aspect,
            take_back=self.undo,
            patient_regex=self.patient_regex,
            classes=self.classes,
            seed=self.seed,
        )


@dataclass
class Prepare:
    """Make manifest and cache once, for sets of any size; an interrupted run goes on where it stopped."""

    data: Positional[str]
    """Folder, ZIP, .npz (MedMNIST), table (CSV, Parquet), saved manifest, or phantom[:COUNT]."""
    resolution: tuple[int, ...] = (64,)
    """Sides of the square images in pixels, 16..2048; several are made from one reading."""
    fit: Fit = "stretch"
    """How a picture becomes square."""
    out: Path | None = None
    """Where to write the manifest as well."""
    patient_regex: str | None = None
    """Regular expression with one group that finds the patient in a file's path."""
    classes: str | None = None
    """Which classes to tell apart, in order: "NORMAL,Pneumonia"."""
    seed: int = 0
    """Of the deal of patients into groups."""

    def run(self) -> None:
        from expressivegan import data_commands

        data_commands.prepare(
            self.data, self.resolution, self.fit, self.out, self.patient_regex, self.classes, self.seed
        )


@dataclass
class Download:
    """Fetch a public data set from its official home: resumable, checked, with its licence."""

    name: Positional[
        Literal["kermany", "pneumoniamnist", "pneumoniamnist-64", "pneumoniamnist-128", "pneumoniamnist-224"]
    ]
    """Kermany's chest X-rays of children (1.2 GB), or MedMNIST's squares of them."""
    out: Path = Path()
    """Folder to write to; an interrupted download there goes on."""

    def run(self) -> None:
        from expressivegan import data_commands

        data_commands.download(self.name, self.out)


@dataclass
class Data:
    """Show, examine, repair, prepare or download a data set."""

    command: OmitSubcommandPrefixes[
        Annotated[Show, subcommand("show")]
        | Annotated[Doctor, subcommand("doctor")]
        | Annotated[Fix, subcommand("fix")]
        | Annotated[Prepare, subcommand("prepare")]
        | Annotated[Download, subcommand("download")]
    ]

    def run(self) -> int | None:
        return self.command.run()
