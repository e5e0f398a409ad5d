"""Patients, sex and age, as data sets write them."""

import re
from collections.abc import Sequence
from dataclasses import replace

from expressivegan.data.manifest import Record

_AGE = re.compile(r"\s*(\d{1,4}(?:\.\d+)?)\s*([YMWD]?)(?:EARS?|R|RS)?\s*", re.IGNORECASE)
_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_OLDEST = 120.0  # above that it is a slip of the keyboard: NIH's table knows a patient of 414 years


def sex_of(text: str) -> str | None:
    """ "F" or "M", or None where the text says neither.

    >>> [sex_of(t) for t in ("F", "male", "O", "")]
    ['F', 'M', None, None]
    """
    return {"F": "F", "FEMALE": "F", "M": "M", "MALE": "M"}.get(text.strip().upper())


def age_of(text: str) -> float | None:
    """Years, of a number or of DICOM's age string; None where it is neither, or above 120.

    >>> [age_of(t) for t in ("058Y", "58", "006M", "414", "old", "")]
    [58.0, 58.0, 0.5, None, None, None]
    """
    match = _AGE.fullmatch(text)
    if match is None:
        return None
    years = float(match[1]) * _YEARS[match[2].upper()]
    return years if years <= _OLDEST else None


_BETWEEN = "\0"


def both(by_layout: str, by_header: str | None) -> str:
    """A key that holds the patient as the layout and as the file's own header names them, until `settled` decides."""
    return by_layout if by_header is None else f"{by_layout}{_BETWEEN}{by_header}"


def settled(records: Sequence[Record], known: bool) -> tuple[list[Record], bool]:
    """Decides which patients count.

    The layout's do where it knows any. Else the headers' do, if every file names one and they are not all the same, as
    they are where a whole set was made anonymous under one name.

    Args:
        records: with patients as `both` gave them.
        known: whether the layout knows the patients.

    Returns:
        The records with plain patients, and whether these are known.
    """
    pairs = [record.patient.partition(_BETWEEN) for record in records]
    headers = not known and all(by_header for _, _, by_header in pairs) and len({p[2] for p in pairs}) > 1
    return [
        replace(record, patient=pair[2] if headers else pair[0]) if pair[1] else record
        for record, pair in zip(records, pairs, strict=True)
    ], known or headers
