"""A source → its manifest: every file opened once, every refusal named, every patient dealt to one group."""

import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from expressivegan.data import layout, people, split
from expressivegan.data.examine import examine
from expressivegan.data.layout import Layout, Listing
from expressivegan.data.manifest import Manifest, Record, Rejected
from expressivegan.data.store import FolderStore, TableStore, open_store
from expressivegan.errors import DataError


def read_manifest(
    directory: Path | str,
    *,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    patient_regex: str | None = None,
    classes: str | None = None,
    progress: bool = True,
) -> Manifest:
    """Reads a folder, an archive or a table of images, recognising its layout by looking.

    These are known, and looked for in this order:

    - *Kermany*, the paediatric pneumonia set as Kaggle or Mendeley lay it out (`chest_xray/train/{NORMAL,PNEUMONIA}`):
      its classes are NORMAL, BACTERIA and VIRUS, its patients stand in the file names, Kaggle's `val` counts as train;
    - *MedMNIST*, a `.npz` file with its published arrays;
    - *NIH ChestX-ray14* (`Data_Entry_2017*.csv` beside its images), and the *RSNA* pneumonia challenge
      (`stage_2_*.csv`);
    - *table*: a CSV, TSV or Parquet file with the columns path and label, and perhaps patient, split, sex and age;
    - *folder*: any other tree, as `class/image`, or `train/class/image` and `test/class/image`.

    Each may stand in a ZIP archive, apart from MedMNIST's. Images outside the test split are dealt to the groups train,
    judge and reference, patient by patient; without such a split 15% of the patients become the test group first.

    Args:
        directory: the folder, or one that contains it; or a `.zip`, a `.npz`, or the table.
        seed: of the deal; the order of the files never matters.
        fractions: shares of the groups train, judge and reference, summing to 1.
        patient_regex: regular expression with one group, searched for in each path relative to the data set's root;
            the group is the patient. Without it, and where neither layout nor DICOM headers tell the patients, every
            image is its own patient.
        classes: which findings become classes, in order: "NORMAL,Pneumonia", or "NORMAL,Opacity=Pneumonia|Edema" to
            gather several. Needed where images show several findings.
        progress: show a bar on standard error (if that is a terminal).

    Returns:
        The manifest. Files that cannot be used stand in `rejected`, with the reason.

    Raises:
        DataError: the source is missing or holds no images, or a class holds none that can be used for training.
        InputError: `fractions`, `patient_regex` or `classes` make no sense.
    """
    directory = Path(directory)
    listing = open_store(directory).listing()
    return manifest_of(directory, listing, seed, fractions, patient_regex, progress, classes=classes)


def survey(
    directory: Path, listing: Listing, patient_regex: str | None, progress: bool, *, classes: str | None = None
) -> Manifest:
    """Everything readable in a source as it lies there: not dealt to groups, nothing moved, contradictions kept.

    The doctor looks at this; `manifest_of` makes of it what may be trained on.

    Args:
        directory: the folder, archive or table.
        listing: what its store listed.
        patient_regex: see `read_manifest`, as for classes.
        progress: show a bar.
        classes: which findings become classes.
    """
    if not listing.files:
        refused = next(iter(listing.refused.items()), None)
        why = (
            f" that may be touched (of {len(listing.refused)} refused, {refused[0]!r}: {refused[1]})" if refused else ""
        )
        raise DataError(f"directory (={str(directory)!r}) holds no files{why}; give the folder that holds the images")
    store = open_store(directory)
    table = store.table if isinstance(store, TableStore) else None
    plan = layout.recognise(listing, str(directory), patient_regex, classes=classes, read=store.read, table_name=table)
    if store.root.is_dir():
        store = FolderStore((store.root / plan.base).resolve())
    else:  # names within an archive stay whole
        store.root = store.root.resolve()
        plan = _from_the_top(plan)
    records, rejected = examine(store, plan, progress)
    records, known = people.settled(records, plan.patients_known)
    return Manifest(
        source=plan.source,
        root=store.root,
        classes=plan.classes,
        reference_class=layout.reference_class(plan.classes),
        patients_known=known,
        records=tuple(records),
        rejected=tuple(sorted([*plan.rejected, *rejected], key=lambda r: r.path)),
    )


def _from_the_top(plan: Layout) -> Layout:
    if not plan.base:
        return plan
    found = [replace(f, path=f"{plan.base}/{f.path}") for f in plan.found]
    rejected = [replace(r, path=f"{plan.base}/{r.path}") for r in plan.rejected]
    return replace(plan, base="", found=found, rejected=rejected)


def manifest_of(
    directory: Path,
    listing: Listing,
    seed: int,
    fractions: tuple[float, float, float],
    patient_regex: str | None,
    progress: bool,
    *,
    classes: str | None = None,
) -> Manifest:
    """`read_manifest` for a source that has been listed already."""
    split.group_fractions(fractions, carve_test=False)  # a wrong argument shall not cost a scan
    seen = survey(directory, listing, patient_regex, progress, classes=classes)
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
    for label in seen.classes:
        if not any(r.label == label and r.group == "train" for r in records):
            raise DataError(
                f"class {label} has no training patient left in {directory}: all of its patients stand in other splits "
                "too, or were dealt to other groups; give more patients, or other splits"
            )
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
            common = Counter(r.reason for r in rejected).most_common(1)
            why = f"; {len(rejected)} files were rejected, most often since: {common[0][0]}" if common else ""
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
