"""MedMNIST's arrays: names of the labels, and what each row shows. `store.NpzStore` hands the rows out as files."""

import io
import re
from pathlib import PurePosixPath

import numpy as np

from expressivegan.data.decode import UnusableError
from expressivegan.data.layout.listing import Listing
from expressivegan.data.layout.plan import NO_PATIENT, Found, Layout, Reader, in_order, own_patient, patient_in
from expressivegan.data.manifest import Rejected
from expressivegan.errors import DataError

SPLITS = ("train", "val", "test")
NO_FINDING = "normal"
_ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left", "lung-right",
    "pancreas", "spleen",
)  # fmt: skip
# From medmnist 3.0.2; the grey sets alone, since that is what the networks see.
NAMES: dict[str, tuple[str, ...]] = {
    "chestmnist": (
        "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia", "pneumothorax",
        "consolidation", "edema", "emphysema", "fibrosis", "pleural", "hernia",
    ),
    "pneumoniamnist": ("normal", "pneumonia"),
    "breastmnist": ("malignant", "normal, benign"),
    "octmnist": ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    "organamnist": _ORGANS,
    "organcmnist": _ORGANS,
    "organsmnist": _ORGANS,
}  # fmt: skip


def fits(listing: Listing) -> bool:
    """Whether the listing is that of an array archive."""
    return all(f"{split}_labels.npy" in listing.files for split in SPLITS)


def flag_of(name: str) -> str | None:
    """The data set's name, from the name of its file: "pneumoniamnist_64.npz" is "pneumoniamnist"."""
    stem = PurePosixPath(name.replace("\\", "/")).name.lower()
    return next((flag for flag in NAMES if re.search(rf"(?<![a-z]){flag}(?![a-z])", stem)), None)


def read(listing: Listing, name: str, reader: Reader, pattern: "re.Pattern[str] | None") -> Layout:
    """Labels from the archive, their names from the file's name where it is a known set; patients are not told.

    Raises:
        DataError: the labels cannot be read.
    """
    flag = flag_of(name)
    layout = Layout("medmnist", "", (), pattern is not None)
    for split in SPLITS:
        try:
            labels = np.load(io.BytesIO(reader(f"{split}_labels.npy")), allow_pickle=False)
        except (UnusableError, ValueError, EOFError) as error:
            raise DataError(f"{name} holds labels that cannot be read ({split}_labels: {error})") from None
        rows = labels if labels.ndim == 2 else labels[:, None]
        paths = [f for f in listing.below(split) if "/" not in f]
        findings = _findings(rows, flag)
        for file, shown in zip(paths, findings, strict=True):
            path = f"{split}/{file}"
            patient = patient_in(path, pattern) if pattern else own_patient(path)
            label = shown[0] if len(shown) == 1 else ""
            if patient is None:
                layout.rejected.append(Rejected(path, NO_PATIENT))
                continue
            layout.found.append(Found(path, label, patient, "test" if split == "test" else "train", split, shown))
    layout.classes = in_order({finding for f in layout.found for finding in f.findings})
    return layout


def _findings(rows: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]", flag: str | None) -> list[tuple[str, ...]]:
    """(N, L) numbers → the names of what each row shows. One column numbers the class, several mark each finding."""
    names = NAMES.get(flag or "", ())
    values: list[list[int]] = rows.tolist()
    if rows.shape[1] == 1:
        return [(names[v] if 0 <= v < len(names) else str(v),) for (v,) in values]
    if len(names) != rows.shape[1]:
        names = tuple(str(i) for i in range(rows.shape[1]))
    return [tuple(n for n, v in zip(names, row, strict=True) if v) or (NO_FINDING,) for row in values]
