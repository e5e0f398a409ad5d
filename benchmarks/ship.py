"""Packs a finished run as a model that comes with the package, into src/expressivegan/weights/NAME.

    expressivegan evaluate --data DIR --model RUN --out evaluation
    python benchmarks/ship.py RUN NAME --data DIR --results evaluation/results.json

The folder is a run directory with what using it needs and no more: generator (the averaged one), discriminator and
teacher as model directories, settings without local paths, what real images say (explain.ckpt, so that `explain` works
without the data), samples, and the card, whose figures are read from results.json. Results of another model or of
other data are refused; without results the card says that there are none. A second call replaces the folder at once.
"""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ending import leave
from ship_card import model_card

import expressivegan.weights
from expressivegan.atomic import replacing_directory, write_text
from expressivegan.checkpoint import read_json, save_model
from expressivegan.config import TrainConfig
from expressivegan.data import load_images
from expressivegan.errors import InputError
from expressivegan.evaluation import open_for_evaluation
from expressivegan.evaluation.collect import Model
from expressivegan.explain import open_explainer
from expressivegan.explain.baseline import keep_baseline, model_hash
from expressivegan.models import GeneratorWithCAMGuidance
from expressivegan.synthesis.origin import check_data
from expressivegan.synthesis.sheets import write_samples
from expressivegan.training import RunDirectory

ROOT = Path(expressivegan.weights.__file__).parent
LIMIT = 25_000_000
"""Bytes of all models of the package together."""
_PATH = re.compile(r"(?:^|[\s\"'`(=:])(?:/[\w.-]+/|[A-Za-z]:\\|~/)", re.M)


def pack(run: Path, name: str, data: str, results: Path | None, root: Path = ROOT, faults: Sequence[str] = ()) -> Path:
    """Writes root/name. Raises ExpressiveGANError: the run, its data or the results cannot be shipped."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise InputError(f"NAME (={name!r}) must be small letters, digits and single hyphens, such as kermany-64")
    opened = open_for_evaluation(run)
    settings = RunDirectory(run).settings()
    config = TrainConfig.from_json(settings["config"])
    explainer = open_explainer(run, data=data, methods=(), device="cpu")
    network, teacher, discriminator = opened.network, explainer.teacher, explainer.discriminator
    if discriminator is None or not isinstance(network, GeneratorWithCAMGuidance):
        raise InputError(f"RUN (={run}) must hold a CAM-guided generator and a discriminator that explains")
    images = load_images(data, config.resolution, fit=config.fit)
    check_data(opened.origin, images)
    of_teacher = without_paths(read_json(teacher_folder(run, settings) / "expressivegan.json"))
    if of_teacher.get("data_hash") != images.data_hash:
        raise InputError(f"the teacher of RUN (={run}) was fitted on other data, so its patients are not known")
    found = None if results is None else _read_results(results, opened, images.data_hash)
    of_generator = read_json(run / "generator" / "expressivegan.json")
    start = _start(settings)
    if start is not None:
        settings["init"]["path"] = start
    card = model_card(name, config, of_teacher["config"], images, of_generator["images_seen"], found, start, faults)
    with replacing_directory(root / name) as folder:
        save_model(network, folder / "generator", card.replace("(samples.png)", "(../samples.png)"), of_generator)
        save_model(discriminator, folder / "discriminator", _part_card(name, card), of_generator)
        words = (teacher_folder(run, settings) / "README.md").read_text(encoding="utf-8")
        words = words.removesuffix(_RIGHTS).rstrip()  # a teacher that came with the package has them already
        save_model(teacher, folder / "teacher", f"{words}\n\n{_RIGHTS}", of_teacher)
        own = without_paths({k: v for k, v in settings.items() if k != "device"})
        write_text(folder / "settings.json", json.dumps(own | {"teacher": None}, indent=2) + "\n")  # null: ./teacher
        if explainer.baseline is not None:
            key = model_hash(teacher, discriminator, explainer.fit)
            keep_baseline(explainer.baseline, folder, key, with_model=True)
        write_samples(network, folder / "samples.png")
        write_text(folder / "README.md", card)
        for file in folder.rglob("*.*"):
            file.chmod(0o644)  # safetensors are written for their owner alone, and a wheel keeps that
        for file in sorted([*folder.rglob("*.json"), *folder.rglob("*.md")]):
            local = _PATH.search(file.read_text(encoding="utf-8"))
            if local:
                raise InputError(f"{file.relative_to(folder)} would hold a local path ({local.group().strip()}...)")
        total = size_of(folder) + sum(size_of(other) for other in root.glob("[!.]*") if other.name != name)
        if total > LIMIT:
            raise InputError(f"all models of the package together would take {total / 1e6:.1f} MB, of {LIMIT / 1e6:g}")
    return root / name


def size_of(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def without_paths(value: Any) -> Any:
    """A JSON value, with the last part alone of every local path in it."""
    if isinstance(value, dict):
        return {key: without_paths(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_paths(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def teacher_folder(run: Path, settings: dict[str, Any]) -> Path:
    """Where the teacher of a run stands."""
    name = settings.get("teacher")
    return run / "teacher" if name is None else expressivegan.weights.find_teacher(name)


def _start(settings: dict[str, Any]) -> str | None:
    """What the run went on from: a model of the package with the same weights, or else the name of its folder."""
    init = settings.get("init")
    if init is None:
        return None
    for shipped in expressivegan.weights.shipped_models():
        if open_for_evaluation(shipped.folder).hash == init["G"]:
            return shipped.name
    return Path(init["path"]).name


def _read_results(path: Path, model: Model, data_hash: str) -> dict[str, Any]:
    found = read_json(path)
    if "sections" not in found:
        raise InputError(f"--results (={path}) is no results.json of expressivegan evaluate")
    for what, said, is_ in (
        ("another model", found["generated"]["model_hash"], model.hash),
        ("other data", found["data"]["hash"], data_hash),
    ):
        if said != is_:
            hashes = f"{str(said)[:12]}, not {is_[:12]}"
            raise InputError(f"--results (={path}) are of {what} ({hashes}); evaluate RUN first")
    return found


def _part_card(name: str, card: str) -> str:
    licence = next(line for line in card.splitlines() if line.startswith("license: "))
    return f"""---
library_name: expressivegan
{licence}
tags: [chest-x-ray, gan, explainability]
---
# Discriminator of {name}

**Not for diagnosis.** It judges whether an image looks real and shows the evidence, map and score alike. {_RIGHTS}"""


_RIGHTS = "Data, patients, figures, licence and attribution: `../README.md`.\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--data", required=True)
    parser.add_argument("--results", type=Path)
    parser.add_argument(
        "--fault", action="append", default=[], metavar="SENTENCE", help="seen in its pictures, for the card's limits"
    )
    arguments = parser.parse_args()
    folder = pack(arguments.run, arguments.name, arguments.data, arguments.results, faults=arguments.fault)
    print(f"{folder}: {size_of(folder) / 1e6:.1f} MB")
    if arguments.results is None:
        print("without --results: the card says that the model was not evaluated")
    return 0


if __name__ == "__main__":
    leave(main)
