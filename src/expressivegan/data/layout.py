"""What a folder of images means: class, patient and official split of each file, from names alone.

Nothing here opens a file. `look` lists a folder once; `recognise` reads the listing.
"""

import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from expressivegan.data.manifest import Rejected
from expressivegan.errors import DataError, InputError

KERMANY_CLASSES = ("NORMAL", "BACTERIA", "VIRUS")
_KERMANY_FOLDERS = ("NORMAL", "PNEUMONIA")
_SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),  # Kaggle's val belongs to the training patients
    "test": ("test", "testing"),
}
_OUTSIDE = "stands outside the class folders"
_JUNK = ("thumbs.db", "desktop.ini", "__macosx")

# Kaggle and Mendeley version 2: IM-0115-0001, NORMAL2-IM-1427-0001-0002, person12_bacteria_47.
# Mendeley version 3 renamed the same files: NORMAL-1003233-0001, BACTERIA-1008087-0001, VIRUS-1980593-0001.
_NORMAL_NAME = re.compile(r"((?:NORMAL\d*-)?IM-\d+|NORMAL-\d+)-\d+", re.IGNORECASE)
_PNEUMONIA_NAME = re.compile(r"(person\d+_(bacteria|virus))(?![a-z])|((BACTERIA|VIRUS)-\d+)-\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Listing:
    """A folder's contents: file → (bytes, modified in ns), and all folders; paths relative, with forward slashes."""

    files: dict[str, tuple[int, int]]
    folders: set[str]

    def within(self, folder: str) -> list[str]:
        """Names of the folders that stand in `folder` ("" is the top), sorted."""
        prefix = f"{folder}/" if folder else ""
        rest = (f[len(prefix) :] for f in self.folders if f.startswith(prefix) and f != folder)
        return sorted(name for name in rest if name and "/" not in name)


@dataclass(frozen=True)
class Found:
    """A file whose name says what it is."""

    path: str
    label: str
    patient: str
    split: str
    """"train" or "test"."""
    official: str | None = None
    """The folder's own split: "train", "val" or "test"."""


@dataclass
class Layout:
    """What a listing means."""

    source: str
    base: str
    """Folder, relative to the listing's top, that the paths below are relative to."""
    classes: tuple[str, ...]
    patients_known: bool
    has_test: bool
    found: list[Found] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


def look(directory: Path) -> Listing:
    """Lists a folder and everything below it, without hidden files and what operating systems leave behind.

    Raises:
        DataError: it does not exist, is no folder, or cannot be listed.
    """
    if not directory.exists():
        raise DataError(f"directory (={str(directory)!r}) does not exist; give the folder that holds the images")
    if not directory.is_dir():
        raise DataError(f"directory (={str(directory)!r}) is not a folder")
    listing = Listing({}, set())
    visited: set[str] = set()

    def walk(folder: str, prefix: str) -> None:
        real = os.path.realpath(folder)
        if real in visited:  # a link that leads back up
            return
        visited.add(real)
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                if entry.name.startswith(".") or entry.name.lower() in _JUNK:
                    continue
                relative = prefix + entry.name
                if entry.is_dir():
                    listing.folders.add(relative)
                    walk(entry.path, relative + "/")
                elif entry.is_file():
                    status = entry.stat()
                    listing.files[relative] = (status.st_size, status.st_mtime_ns)
                else:  # a dead link, a pipe: never opened, but named
                    listing.files[relative] = (-1, 0)

    try:
        walk(str(directory), "")
    except OSError as error:
        raise DataError(f"directory (={str(directory)!r}) cannot be listed: {error}") from error
    return listing


def recognise(listing: Listing, name: str, patient_regex: str | None = None) -> Layout:
    """Reads the layout off a listing.

    Args:
        listing: of the folder.
        name: of the folder, for messages.
        patient_regex: found in the path of each image; its one group is the patient.

    Raises:
        DataError: no class folders, several data sets, or an empty class folder.
        InputError: `patient_regex` is no regular expression with exactly one group.
    """
    pattern = _compile(patient_regex)
    base = _kermany_base(listing, name)
    if base is not None:
        return _kermany(listing, base, pattern)
    return _folder(listing, name, pattern)


def natural(text: str) -> list[tuple[int, int, str]]:
    """Sort key that puts "grade2" before "grade10"."""
    return [(0, int(p), "") if p.isdigit() else (1, 0, p.lower()) for p in re.split(r"(\d+)", text) if p]


def reference_class(classes: tuple[str, ...]) -> str | None:
    """The class called "normal" in any case, or None."""
    return next((c for c in classes if c.lower() == "normal"), None)


def _compile(patient_regex: str | None) -> "re.Pattern[str] | None":
    if patient_regex is None:
        return None
    try:
        pattern = re.compile(patient_regex)
    except re.error as error:
        raise InputError(f"patient_regex (={patient_regex!r}) is not a regular expression: {error}") from error
    if pattern.groups != 1:
        raise InputError(
            f"patient_regex (={patient_regex!r}) must have exactly one group, the patient; try r'(patient\\d+)'"
        )
    return pattern


def _kermany_folders(listing: Listing) -> list[str]:
    """All folders laid out like Kermany's."""
    candidates = []
    for folder in ("", *listing.folders):
        if f"{folder}/train".lstrip("/") not in listing.folders:
            continue
        classes = [f"{folder}/{split}/{c}".lstrip("/") for split in ("train", "test") for c in _KERMANY_FOLDERS]
        pneumonia = [f"{folder}/{split}/PNEUMONIA/".lstrip("/") for split in ("train", "test", "val")]
        if all(c in listing.folders for c in classes[:2]) and any(
            f.startswith(tuple(pneumonia)) and _PNEUMONIA_NAME.match(PurePosixPath(f).stem) for f in listing.files
        ):
            candidates.append(folder)
    return candidates


def _kermany_base(listing: Listing, name: str) -> str | None:
    """The shallowest folder laid out like Kermany's, or None; a copy nested inside it is thereby ignored."""
    candidates = _kermany_folders(listing)
    if not candidates:
        return None
    depth = {c: c.count("/") + bool(c) for c in candidates}
    nearest = sorted(c for c in candidates if depth[c] == min(depth.values()))
    if len(nearest) > 1:
        raise DataError(f"{name} holds several chest X-ray sets ({', '.join(nearest)}); give one of them")
    return nearest[0]


def _below(listing: Listing, folder: str) -> list[str]:
    prefix = f"{folder}/" if folder else ""
    return sorted(f[len(prefix) :] for f in listing.files if f.startswith(prefix))


def _kermany(listing: Listing, base: str, pattern: "re.Pattern[str] | None") -> Layout:
    prefix = f"{base}/" if base else ""
    splits = [s for s in ("train", "val", "test") if prefix + s in listing.folders]
    layout = Layout("kermany", base, KERMANY_CLASSES, True, "test" in splits)
    for split in splits:
        for folder in _KERMANY_FOLDERS:
            files = _below(listing, f"{prefix}{split}/{folder}")
            if not files and (split != "val" or prefix + f"{split}/{folder}" in listing.folders):
                raise DataError(f"class {folder} has no image in {prefix}{split}/{folder}; fill or remove the folder")
            for file in files:
                path = f"{split}/{folder}/{file}"
                found = _kermany_file(path, folder, split, pattern)
                if isinstance(found, Found):
                    layout.found.append(found)
                else:
                    layout.rejected.append(found)
    copies = [c[len(prefix) :] for c in _kermany_folders(listing) if c != base and c.startswith(prefix)]
    layout.rejected += [Rejected(c, "a second copy of the data set inside the first") for c in copies]
    classes = tuple(f"{split}/{folder}/" for split in splits for folder in _KERMANY_FOLDERS)
    ignored = classes + tuple(f"{c}/" for c in copies)
    layout.rejected += [Rejected(f, _OUTSIDE) for f in _below(listing, base) if not f.startswith(ignored)]
    return layout


def _kermany_file(path: str, folder: str, split: str, pattern: "re.Pattern[str] | None") -> Found | Rejected:
    stem = PurePosixPath(path).stem
    if folder == "NORMAL":
        match = _NORMAL_NAME.match(stem)
        label, patient = "NORMAL", match and match[1]
    else:
        match = _PNEUMONIA_NAME.match(stem)
        if match is None:
            return Rejected(path, "its name says neither bacteria nor virus")
        label, patient = (match[2] or match[4]).upper(), match[1] or match[3]
    if pattern is not None:
        given = pattern.search(path)
        patient = given and given[1]
    if not patient:
        return Rejected(path, "its name holds no patient number")
    return Found(path, label, patient, "test" if split == "test" else "train", split)


def _folder(listing: Listing, name: str, pattern: "re.Pattern[str] | None") -> Layout:
    base = ""
    while True:  # an archive often unpacks into a folder of its own
        inner = listing.within(base)
        path = f"{base}/{inner[0]}".lstrip("/") if len(inner) == 1 else ""
        if not path or not listing.within(path) or any("/" not in f for f in _below(listing, base)):
            break
        base = path
    top = listing.within(base)
    if not top:
        raise DataError(
            f"{name} has no class folders ({len(_below(listing, base))} files); lay it out as class/image.png "
            "or train/class/image.png and test/class/image.png"
        )
    split_of = {f: name for name, known in _SPLIT_NAMES.items() for f in top if f.lower() in known}
    is_split = set(split_of) == set(top) and not {"train", "val"}.isdisjoint(split_of.values())
    prefix = f"{base}/" if base else ""
    places: dict[str, list[tuple[str, str | None]]] = defaultdict(list)  # class → (folder, split)
    for folder in top if is_split else [""]:
        for label in listing.within(f"{prefix}{folder}".rstrip("/")):
            places[label].append((f"{folder}/{label}".lstrip("/"), split_of.get(folder)))
    if not places:
        raise DataError(f"{name} has no class folders in {', '.join(top)}; lay it out as train/class/image.png")
    reference = reference_class(tuple(places))
    classes = tuple(sorted(places, key=lambda c: (c != reference, natural(c), c)))
    has_test = "test" in split_of.values() if is_split else False
    layout = Layout("folder", base, classes, pattern is not None, has_test)
    taken: set[str] = set()
    for label, folders in places.items():
        for folder, official in folders:
            split = "test" if official == "test" else "train"
            files = [f"{folder}/{f}" for f in _below(listing, prefix + folder)]
            if not files:
                raise DataError(f"class {label} has no image in {prefix}{folder}; fill or remove the folder")
            taken.update(files)
            for path in files:
                given = pattern.search(path) if pattern else None
                if pattern is None:
                    # The whole path, since 001.png may stand in every class folder and is not one child.
                    layout.found.append(Found(path, label, str(PurePosixPath(path).with_suffix("")), split, official))
                elif given is None or not given[1]:
                    layout.rejected.append(Rejected(path, "patient_regex finds no patient in its path"))
                else:
                    layout.found.append(Found(path, label, given[1], split, official))
    layout.rejected += [Rejected(f, _OUTSIDE) for f in _below(listing, base) if f not in taken]
    return layout
