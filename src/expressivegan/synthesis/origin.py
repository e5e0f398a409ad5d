"""What a model knows of the data that it was trained on, and whether other data are those."""

from dataclasses import dataclass
from pathlib import Path

from expressivegan.checkpoint import read_json
from expressivegan.data import ImageSet
from expressivegan.data.decode import Fit
from expressivegan.errors import InputError


@dataclass(frozen=True)
class Origin:
    """What stands in a run or a model directory of the data behind it."""

    path: Path
    """The run or model directory, as the user named it."""
    data_hash: str | None
    """Of the manifest; None where nobody wrote it down."""
    fit: Fit
    """How pictures became square; "stretch" where nobody wrote it down."""
    source: str | None
    """Where the data were, if the run remembers."""


def origin_of(path: Path) -> Origin:
    """Reads expressivegan.json of the generator, or else settings.json of its run.

    Args:
        path: a run, the generator within it, or a model directory that was copied elsewhere.
    """
    model = path / "generator" if (path / "generator").is_dir() else path
    own = read_json(model / "expressivegan.json")
    run = model.absolute().parent if model.name == "generator" else path
    settings = read_json(run / "settings.json")
    found = own.get("data_hash") or settings.get("data_hash")
    config = own.get("config") or settings.get("config") or {}
    source = read_json(run / "data.json").get("source")
    return Origin(path, found, config.get("fit", "stretch"), source)


def check_data(origin: Origin, data: ImageSet, *, other_data: bool = False) -> None:
    """Raises unless the groups of patients are those of the training.

    Of other data, or of the same dealt anew, a patient of any group may have been trained on.

    Args:
        origin: of the model.
        data: to judge it by.
        other_data: they are meant to be others, such as another hospital's; a model without a hash passes in any case.

    Raises:
        InputError: other data than the model's, or made square in another way.
    """
    if origin.data_hash not in (None, data.data_hash) and not other_data:
        where = (
            f"{origin.source!r}, says its data.json" if origin.source else "the manifest of its run, or the same deal"
        )
        raise InputError(
            f"data (={data.manifest.source!r}) have the hash {data.data_hash[:12]}, and model "
            f"(={str(origin.path)!r}) was trained on {str(origin.data_hash)[:12]}, so that its training patients may "
            f"stand in any group; give the data as they were in training ({where}), or hold it against others on "
            "purpose: --other-data"
        )
    if data.fit != origin.fit:
        raise InputError(
            f"fit (={data.fit!r}) of the data is not that of model (={str(origin.path)!r}); load them with "
            f"{origin.fit!r}"
        )
