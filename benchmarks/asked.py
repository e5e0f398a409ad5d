"""What the benchmarks refuse alike: unknown names, a folder of other figures, data that a model was not trained on."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from expressivegan.checkpoint import make_directory
from expressivegan.data import ImageSet, load_images
from expressivegan.errors import InputError
from expressivegan.synthesis.origin import check_data, origin_of
from expressivegan.weights import find_model


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


def results_file(out: Path) -> None:
    """Raises InputError unless a file can be written there, rather than when hours of work are to be kept."""
    if out.is_dir():
        raise InputError(f"--out (={out}) is a folder; name the file to write, such as {out / 'results.json'}")
    make_directory(out.absolute().parent)


def data_of_model(model: Path, classes: Sequence[str], resolution: int, source: str, other_data: bool) -> ImageSet:
    """Real images as a model saw them. Raises InputError: a judge might be fitted on patients that it learnt from."""
    origin = origin_of(find_model(model))
    data = load_images(source, resolution, fit=origin.fit)
    check_data(origin, data, other_data=other_data)
    if tuple(data.classes) != tuple(classes):  # labels are numbers from here on
        raise InputError(
            f"--model (={model}) knows {', '.join(classes)}, and --data (={source}) hold {', '.join(data.classes)}; "
            "give the data that it was trained on"
        )
    return data
