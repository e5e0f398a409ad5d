"""Any tree of `class/image`, or `train/class/image` and `test/class/image`."""

import re
from collections import defaultdict

from expressivegan.data.layout.listing import Listing
from expressivegan.data.layout.plan import (
    NO_PATIENT,
    OUTSIDE,
    Found,
    Layout,
    in_order,
    own_patient,
    patient_in,
    printable,
    split_named,
)
from expressivegan.data.manifest import Rejected
from expressivegan.errors import DataError, UnlabelledError


def read(listing: Listing, name: str, pattern: "re.Pattern[str] | None") -> Layout:
    """Classes from the folders' names, patients from the pattern.

    Raises:
        UnlabelledError: no class folders.
        DataError: an empty one.
    """
    base = ""
    while True:  # an archive often unpacks into a folder of its own
        inner = listing.within(base)
        path = f"{base}/{inner[0]}".lstrip("/") if len(inner) == 1 else ""
        if not path or not listing.within(path) or any("/" not in f for f in listing.below(base)):
            break
        base = path
    top = listing.within(base)
    if not top:
        raise UnlabelledError(
            f"{name} has no class folders ({len(listing.below(base))} files); lay it out as class/image.png "
            "or train/class/image.png and test/class/image.png, or add a table with the columns path and label"
        )
    prefix = f"{base}/" if base else ""
    split_of = {f: split for f in top if (split := split_named(f)) is not None}
    # Beside splits, which hold classes of one name, other folders are no classes: masks, say, or what the doctor wrote.
    shared = [set(listing.within(prefix + f)) for f in split_of]
    is_split = not {"train", "val"}.isdisjoint(split_of.values()) and (
        set(split_of) == set(top) or (len(shared) > 1 and len(set.intersection(*shared)) > 1)
    )
    places: dict[str, list[tuple[str, str | None]]] = defaultdict(list)  # class → (folder, split)
    for folder in split_of if is_split else [""]:
        for label in listing.within(f"{prefix}{folder}".rstrip("/")):
            places[printable(label)].append((f"{folder}/{label}".lstrip("/"), split_of.get(folder)))
    if not places:
        raise UnlabelledError(f"{name} has no class folders in {', '.join(top)}; lay it out as train/class/image.png")
    layout = Layout("folder", base, in_order(set(places)), pattern is not None)
    taken: set[str] = set()
    for label, folders in places.items():
        for folder, official in folders:
            split = "test" if official == "test" else "train"
            files = [f"{folder}/{f}" for f in listing.below(prefix + folder)]
            if not files:
                raise DataError(f"class {label} has no image in {prefix}{folder}; fill or remove the folder")
            taken.update(files)
            for path in files:
                patient = patient_in(path, pattern) if pattern else own_patient(path)
                if patient is None:
                    layout.rejected.append(Rejected(path, NO_PATIENT))
                else:
                    layout.found.append(Found(path, label, patient, split, official))
    layout.rejected += [Rejected(f, OUTSIDE) for f in listing.below(base) if f not in taken]
    return layout
