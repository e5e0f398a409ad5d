"""Models that come with the package, and the one place where a name becomes a folder.

Each stands in a folder of its own beside this file: a run directory with what using it needs and no more. Nothing is
ever written there: an installed package may be read-only, and belongs to all who use it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from expressivegan.errors import CheckpointError

_ROOT = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Shipped:
    """A model that comes with the package.

    Attributes:
        name: what `--model` takes.
        folder: a run directory: `generator`, `discriminator` and `teacher` within it are model directories.
        resolution: side of its images in pixels.
        classes: their labels, in the model's order.
    """

    name: str
    folder: Path
    resolution: int
    classes: tuple[str, ...]


def shipped_models() -> tuple[Shipped, ...]:
    """All models that come with the package, by name.

    >>> [model.name for model in shipped_models() if model.resolution == 64]
    ['kermany-64']
    """
    found = []
    for file in sorted(_ROOT.glob("*/generator/config.json")):
        folder, config = file.parents[1], json.loads(file.read_text(encoding="utf-8"))
        if not folder.name.startswith("."):  # one that is being packed
            found.append(Shipped(folder.name, folder, int(config["resolution"]), tuple(config["classes"])))
    return tuple(found)


def find_model(model: str | Path, argument: str = "model") -> Path:
    """The folder of a model: a path that exists, or else the name of one that comes with the package.

    A folder of such a name that holds no model, like the pictures that `expressivegan demo` makes of it, is passed by.

    Args:
        model: a run or a model directory, or a name such as `kermany-64`.
        argument: what the user calls it.

    Raises:
        CheckpointError: it is neither.
    """
    by_name = {shipped.name: shipped.folder for shipped in shipped_models()}
    here = any((Path(model) / part).exists() for part in ("generator", "teacher", "settings.json", "config.json"))
    if Path(model).exists() and (here or str(model) not in by_name):
        return Path(model)
    if str(model) not in by_name:
        raise CheckpointError(
            f"{argument} (={model}) does not exist; give a run or a model directory, or a model that comes with the "
            f"package: {', '.join(by_name) or 'none'}"
        )
    return by_name[str(model)]


def find_teacher(teacher: str | Path) -> Path:
    """The model directory of a teacher: that of a run or shipped model is the `teacher` within it.

    Raises:
        CheckpointError: there is no such folder.
    """
    found = find_model(teacher, "teacher")
    return found / "teacher" if (found / "teacher").is_dir() else found


def lasting_name(teacher: str) -> str:
    """What a run calls a teacher, to be found again from anywhere: a name of the package, else an absolute path.

    Raises:
        CheckpointError: there is no such folder.
    """
    folder = find_teacher(teacher)
    return teacher if is_shipped(folder) else str(folder.resolve())


def is_shipped(path: Path) -> bool:
    """Whether a folder stands among the models of the package, where nothing may be written."""
    return _ROOT in (path.resolve(), *path.resolve().parents)
