"""What a listing means: class, patient and official split of each file, from names and tables alone.

Nothing here opens an image. `look` lists a folder once; `recognise` reads the listing, one module per layout.
"""

import re
from dataclasses import replace

from expressivegan.data.classes import choose
from expressivegan.data.decode import UnusableError
from expressivegan.data.layout import folder, kermany, medmnist, nih, rsna, table
from expressivegan.data.layout.kermany import KERMANY_CLASSES
from expressivegan.data.layout.listing import Listing, is_junk, look
from expressivegan.data.layout.plan import Found, Layout, Reader, compiled, natural, own_patient, reference_class
from expressivegan.data.manifest import Rejected

__all__ = [
    "KERMANY_CLASSES",
    "Found",
    "Layout",
    "Listing",
    "Reader",
    "is_junk",
    "look",
    "natural",
    "own_patient",
    "recognise",
    "reference_class",
]


def recognise(
    listing: Listing,
    name: str,
    patient_regex: str | None = None,
    *,
    classes: str | None = None,
    read: Reader | None = None,
    table_name: str | None = None,
) -> Layout:
    """Reads the layout off a listing.

    Args:
        listing: of the folder or archive.
        name: of the folder or archive, for messages, and to know MedMNIST's sets by.
        patient_regex: found in the path of each image; its one group is the patient.
        classes: which findings become classes; see `classes.choose`.
        read: reads a file of the listing; without it tables are not looked at.
        table_name: the table to go by, where the user gave one.

    Raises:
        DataError: no class folders and no table, several data sets, or an empty class folder.
        InputError: `patient_regex` is no regular expression with exactly one group, or `classes` does not fit.
    """

    def allowed(path: str) -> bytes:
        if path in listing.refused:
            raise UnusableError(listing.refused[path])
        assert read is not None
        return read(path)

    reader = None if read is None else allowed
    layout = choose(_recognise(listing, name, compiled(patient_regex), reader, table_name), classes, name)
    return _without_refused(layout, listing)


def _recognise(
    listing: Listing, name: str, pattern: "re.Pattern[str] | None", read: Reader | None, table_name: str | None
) -> Layout:
    if read is not None and table_name is not None:
        return table.read(listing, table_name, read, pattern, all_files=False)
    base = kermany.base_of(listing, name)
    if base is not None:
        return kermany.read(listing, base, pattern)
    if read is not None:
        if medmnist.fits(listing):
            return medmnist.read(listing, name, read, pattern)
        entries = nih.table_of(listing, name)
        if entries is not None:
            return nih.read(listing, entries, read, pattern)
        base = rsna.base_of(listing)
        if base is not None:
            return rsna.read(listing, base, read, pattern)
        chosen = table.choose_table(listing, read, name)
        if chosen is not None:
            return table.read(listing, chosen, read, pattern, all_files=True)
    return folder.read(listing, name, pattern)


def _without_refused(layout: Layout, listing: Listing) -> Layout:
    """Names what must not be opened, by the reason that the listing has."""
    if not listing.refused:
        return layout
    prefix = f"{layout.base}/" if layout.base else ""
    reasons = {path.removeprefix(prefix): reason for path, reason in listing.refused.items()}
    kept = [r for r in layout.rejected if r.path not in reasons]
    found = [f for f in layout.found if f.path not in reasons]
    return replace(layout, found=found, rejected=kept + [Rejected(*item) for item in reasons.items()])
