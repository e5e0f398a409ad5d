"""Kermany's paediatric chest X-rays, as Kaggle or Mendeley lay them out."""

import re
from pathlib import PurePosixPath

from expressivegan.data.layout.listing import Listing
from expressivegan.data.layout.plan import OUTSIDE, Found, Layout, patient_in
from expressivegan.data.manifest import Rejected
from expressivegan.errors import DataError

KERMANY_CLASSES = ("NORMAL", "BACTERIA", "VIRUS")
_FOLDERS = ("NORMAL", "PNEUMONIA")

# Kaggle and Mendeley version 2: IM-0115-0001, NORMAL2-IM-1427-0001-0002, person12_bacteria_47.
# Mendeley version 3 renamed the same files: NORMAL-1003233-0001, BACTERIA-1008087-0001, VIRUS-1980593-0001.
_NORMAL_NAME = re.compile(r"((?:NORMAL\d*-)?IM-\d+|NORMAL-\d+)-\d+", re.IGNORECASE)
_PNEUMONIA_NAME = re.compile(r"(person\d+_(bacteria|virus))(?![a-z])|((BACTERIA|VIRUS)-\d+)-\d+", re.IGNORECASE)


def _folders(listing: Listing) -> list[str]:
    """All folders laid out like Kermany's."""
    candidates = []
    for folder in ("", *listing.folders):
        if f"{folder}/train".lstrip("/") not in listing.folders:
            continue
        classes = [f"{folder}/{split}/{c}".lstrip("/") for split in ("train", "test") for c in _FOLDERS]
        pneumonia = [f"{folder}/{split}/PNEUMONIA/".lstrip("/") for split in ("train", "test", "val")]
        if all(c in listing.folders for c in classes[:2]) and any(
            f.startswith(tuple(pneumonia)) and _PNEUMONIA_NAME.match(PurePosixPath(f).stem) for f in listing.files
        ):
            candidates.append(folder)
    return candidates


def base_of(listing: Listing, name: str) -> str | None:
    """The shallowest folder laid out like Kermany's, or None; a copy nested inside it is thereby ignored."""
    candidates = _folders(listing)
    if not candidates:
        return None
    depth = {c: c.count("/") + bool(c) for c in candidates}
    nearest = sorted(c for c in candidates if depth[c] == min(depth.values()))
    if len(nearest) > 1:
        raise DataError(f"{name} holds several chest X-ray sets ({', '.join(nearest)}); give one of them")
    return nearest[0]


def read(listing: Listing, base: str, pattern: "re.Pattern[str] | None") -> Layout:
    """Classes and patients from folders and file names."""
    prefix = f"{base}/" if base else ""
    splits = [s for s in ("train", "val", "test") if prefix + s in listing.folders]
    aliases = {"PNEUMONIA": ("BACTERIA", "VIRUS")}
    layout = Layout("kermany", base, KERMANY_CLASSES, True, aliases=aliases)
    for split in splits:
        for folder in _FOLDERS:
            files = listing.below(f"{prefix}{split}/{folder}")
            if not files and (split != "val" or prefix + f"{split}/{folder}" in listing.folders):
                raise DataError(f"class {folder} has no image in {prefix}{split}/{folder}; fill or remove the folder")
            for file in files:
                found = _file(f"{split}/{folder}/{file}", folder, split, pattern)
                if isinstance(found, Found):
                    layout.found.append(found)
                else:
                    layout.rejected.append(found)
    copies = [c[len(prefix) :] for c in _folders(listing) if c != base and c.startswith(prefix)]
    layout.rejected += [Rejected(c, "a second copy of the data set inside the first") for c in copies]
    classes = tuple(f"{split}/{folder}/" for split in splits for folder in _FOLDERS)
    ignored = classes + tuple(f"{c}/" for c in copies)
    layout.rejected += [Rejected(f, OUTSIDE) for f in listing.below(base) if not f.startswith(ignored)]
    return layout


def _file(path: str, folder: str, split: str, pattern: "re.Pattern[str] | None") -> Found | Rejected:
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
        patient = patient_in(path, pattern)
    if not patient:
        return Rejected(path, "its name holds no patient number")
    return Found(path, label, patient, "test" if split == "test" else "train", split)
