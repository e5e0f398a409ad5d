"""A folder → its manifest: every file opened once, every refusal named, every patient dealt to one group."""

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from expressivegan.data import layout, split
from expressivegan.data.examine import examine
from expressivegan.data.layout import Listing
from expressivegan.data.manifest import Manifest, Record, Rejected
from expressivegan.data.store import FolderStore
from expressivegan.errors import DataError


def read_manifest(
    directory: Path | str,
    *,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    patient_regex: str | None = None,
    progress: bool = True,
) -> Manifest:
    """Reads a folder of images, recognising its layout by looking.

    Two layouts are known. *Kermany* is the paediatric pneumonia set as Kaggle or Mendeley lay it out
    (`chest_xray/train/{NORMAL,PNEUMONIA}`); its classes are NORMAL, BACTERIA and VIRUS, its patients stand in the file
    names, and Kaggle's `val` counts as train. Any other tree is read as `class/image` or `train/class/image` and
    `test/class/image`. Images below `train` are dealt to the groups train, judge and reference, patient by patient;
    without a `test` folder 15% of the patients become the test group first.

    Args:
        directory: the folder, or one that contains it.
        seed: of the deal; the order of the files never matters.
        fractions: shares of the groups train, judge and reference, summing to 1.
        patient_regex: regular expression with one group, searched for in each path relative to the data set's root;
            the group is the patient. Without it every image of a folder that is not Kermany's is its own patient.
        progress: show a bar on standard error (if that is a terminal).

    Returns:
        The manifest. Files that cannot be used stand in `rejected`, with the reason.

    Raises:
        DataError: the folder is missing or holds no images, or a class holds none that can be used for training.
        InputError: `fractions` or `patient_regex` make no sense.
    """
    directory = Path(directory)
    return manifest_of(directory, layout.look(directory), seed, fractions, patient_regex, progress)


def survey(directory: Path, listing: Listing, patient_regex: str | None, progress: bool) -> Manifest:
    """Everything readable in a folder as it lies there: not dealt to groups, nothing moved, contradictions kept.

    The doctor looks at this; `manifest_of` makes of it what may be trained on.
    """
    if not listing.files:
        raise DataError(f"directory (={str(directory)!r}) holds no files; give the folder that holds the images")
    plan = layout.recognise(listing, str(directory), patient_regex)
    root = (directory / plan.base).resolve()
    records, rejected = examine(FolderStore(root), plan, progress)
    return Manifest(
        source=plan.source,
        root=root,
        classes=plan.classes,
        reference_class=layout.reference_class(plan.classes),
        patients_known=plan.patients_known,
        records=tuple(records),
        rejected=tuple(sorted([*plan.rejected, *rejected], key=lambda r: r.path)),
    )


def manifest_of(
    directory: Path,
    listing: Listing,
    seed: int,
    fractions: tuple[float, float, float],
    patient_regex: str | None,
    progress: bool,
) -> Manifest:
    """`read_manifest` for a folder that has been listed already."""
    split.group_fractions(fractions, carve_test=False)  # a wrong argument shall not cost a scan
    seen = survey(directory, listing, patient_regex, progress)
    if not seen.patients_known:
        warnings.warn(
            f"{directory}: nothing says which patient an image belongs to, so EVERY IMAGE COUNTS AS A PATIENT. If some "
            "show the same patient, groups leak into each other and every evaluation is too good; give patient_regex.",
            stacklevel=3,
        )
    records, doubtful = _without_contradictions(seen.records)
    rejected = tuple(sorted([*seen.rejected, *doubtful], key=lambda r: r.path))
    _check_classes(seen.classes, records, rejected, seen.root)
    has_test = any(r.official == "test" for r in seen.records)
    records = _deal(records, split.group_fractions(fractions, carve_test=not has_test), seed, directory)
    return replace(seen, records=tuple(records), rejected=rejected)


def _without_contradictions(records: Sequence[Record]) -> tuple[list[Record], list[Rejected]]:
    labels: dict[str, set[str]] = defaultdict(set)
    for record in records:
        labels[record.sha256].add(record.label)
    doubtful = {r.path: sorted(labels[r.sha256]) for r in records if len(labels[r.sha256]) > 1}
    rejected = [Rejected(path, f"the same file stands under {' and '.join(of)}") for path, of in doubtful.items()]
    return [r for r in records if r.path not in doubtful], rejected


def _check_classes(classes: Sequence[str], records: Sequence[Record], rejected: Sequence[Rejected], root: Path) -> None:
    usable = {r.label for r in records if r.split == "train"}
    for label in classes:
        if label not in usable:
            why = f"; {len(rejected)} files were rejected, the first: {rejected[0].reason}" if rejected else ""
            raise DataError(f"class {label} has no usable image for training in {root}{why}")


def _deal(records: list[Record], shares: dict[str, float], seed: int, directory: Path) -> list[Record]:
    joined = split.join((r.patient, r.sha256) for r in records)
    official_test = {joined[r.patient] for r in records if r.split == "test"}
    straddling = [r for r in records if r.split == "train" and joined[r.patient] in official_test]
    if straddling:
        warnings.warn(
            f"{directory}: {len(straddling)} training images show patients who are also in the test folder, or are "
            "copies of test images; they are moved to the test group.",
            stacklevel=4,
        )
    labels: dict[str, list[str]] = defaultdict(list)
    for r in records:
        if joined[r.patient] not in official_test:
            labels[joined[r.patient]].append(r.label)
    group_of = split.assign(labels, shares, seed) | dict.fromkeys(official_test, "test")
    dealt = []
    for r in records:
        group = group_of[joined[r.patient]]
        dealt.append(replace(r, split="test" if group == "test" else "train", group=group))
    return dealt
