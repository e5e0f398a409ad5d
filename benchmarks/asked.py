"""What the benchmarks refuse alike: names that no table has, and a folder that holds figures of something else."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from expressivegan.errors import InputError


def among(option: str, names: Sequence[str], known: Iterable[str]) -> None:
    """Raises InputError: one of the names given for `option` is not known."""
    known = list(known)
    strange = [name for name in names if name not in known]
    if strange:
        raise InputError(f"{option} (={', '.join(strange)}) must be among {', '.join(known)}")


def claim(kept: dict[str, Any], key: str, asked: dict[str, Any], out: Path) -> None:
    """Notes under `key` what the figures in `kept` are of. Raises InputError: they are of something else."""
    if kept.setdefault(key, asked) != asked:
        raise InputError(f"--out (={out}) holds figures of something else ({kept[key]}); choose another folder")
