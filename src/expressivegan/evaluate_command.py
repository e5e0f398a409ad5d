"""What `expressivegan evaluate` does."""

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.table import Table

from expressivegan.atomic import write_text
from expressivegan.checkpoint import new_directory, read_json
from expressivegan.console import console, progress_bar, say
from expressivegan.data import load_images
from expressivegan.data.decode import Fit
from expressivegan.errors import ExpressiveGANError, InputError
from expressivegan.evaluation import SUITES, Evaluation, Model, from_model, read_generated
from expressivegan.evaluation.collect import check_classes, open_for_evaluation
from expressivegan.evaluation.comparison import check_groups, feature_side
from expressivegan.evaluation.faithfulness import Networks
from expressivegan.evaluation.features.opening import check_space
from expressivegan.evaluation.results import FORMAT
from expressivegan.explain.opening import networks_of_run
from expressivegan.report.evaluation import remove_figures, write_figures
from expressivegan.report.evaluation_galleries import remove_galleries, write_galleries
from expressivegan.report.faithfulness import tables
from expressivegan.synthesis.origin import check_data
from expressivegan.teacher import open_teacher

_MAKING = 0.1  # share of the bar for making images

_IMAGES = {"standard": 2000, "faithfulness": 300}
"""Of a model, unless --num says otherwise."""

Told = Callable[[int, int, str], None]


def evaluate(
    model: Path | None,
    images: str | None,
    source: str,
    out: Path,
    *,
    suite: str = "standard",
    num: int | None,
    resolution: int | None,
    fit: Fit | None = None,
    features: Sequence[str],
    feature_resolution: int | None = None,
    sections: Sequence[str],
    teachers: Sequence[Path] = (),
    group: str,
    other_data: bool = False,
    seed: int,
) -> None:
    """Judges a model or a folder of images; writes results.json, results.csv and figures, and says what they mean."""
    if (model is None) == (images is None):
        raise InputError("give either --model or --images: a model of ours, or a folder of images made by any tool")
    if suite != "standard":
        _check_suite(suite, images, sections, features)
    elif teachers:
        raise InputError(f"--teachers (={teachers[0]}) go with --suite faithfulness; leave them out")
    for name, given in (("resolution", resolution), ("fit", fit)):
        if model is not None and given is not None:
            raise InputError(f"--{name} (={given}) goes with --images; a model is judged at its own")
    _check_arguments(images, num, features, seed)
    if images is not None and other_data:
        raise InputError("--other-data says that a model was trained on others; it does not go with --images")
    if images is not None and Path(images).resolve() in (out.resolve(), *out.resolve().parents):
        raise InputError(
            f"--out (={out}) lies in --images (={images}), where its pictures would be judged; name a folder outside"
        )
    opened = None if model is None else open_for_evaluation(model)
    default = 64 if opened is None else opened.network.resolution
    side = default if resolution is None else resolution
    feature_side(side, feature_resolution)
    data = load_images(source, side, fit=fit or ("stretch" if opened is None else opened.origin.fit))
    check_groups(data, group)
    if opened is not None:
        check_classes(opened, data.classes)
        check_data(opened.origin, data, other_data=other_data)
    networks = None if suite == "standard" or opened is None else open_networks(opened, teachers)
    count = _IMAGES[suite] if num is None else num
    with new_directory(out), _nothing_half_written(out):
        made = None if opened is not None else read_generated(str(images), data.classes, side, data.fit)
        _check_results(out)
        _remove_results(out)  # from here on, whatever stands there is of this evaluation
        with progress_bar("evaluate") as bar:
            if made is None:
                assert opened is not None
                told = _share(bar, 0, _MAKING, "making images")
                made = from_model(opened, data.classes, count, seed, told, out / "parts" / "images.npz")
            rest = bar if opened is None else _share(bar, _MAKING, 1)
            spaces = tuple(features) if suite == "standard" else ("judge",)
            evaluation = Evaluation(
                data, made, spaces, seed, feature_resolution=feature_resolution, progress=rest, group=group,
                other_data=other_data, networks=networks,
            )  # fmt: skip
            results = evaluation.run(out, sections or (None if suite == "standard" else SUITES[suite]))
            bar(1000, 1000, "drawing")
            write_figures(results, out)
            write_galleries(results, evaluation, out)
        # results.json says whose both are: the first to come and the last to go, so that a kill leaves no table alone
        write_text(out / "results.json", json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        write_text(out / "results.csv", _csv(results["sections"]))
    _show(results)
    say(f"results: {out / 'results.json'}")


def _check_arguments(images: str | None, num: int | None, features: Sequence[str], seed: int) -> None:
    if seed < 0:
        raise InputError(f"--seed (={seed}) must be 0 or more")
    if not features:
        raise InputError("--features is empty: name a feature space, or leave it out")
    for name in features:
        check_space(name)
    if images is not None and num is not None:
        raise InputError(f"--num (={num}) says how many images a model shall make; of --images all are judged")


def _check_results(out: Path) -> None:
    """Raises InputError where results stand that no evaluation of ours has written."""
    there = [name for name in ("results.json", "results.csv") if (out / name).exists()]
    if there and read_json(out / "results.json").get("format") != FORMAT:
        raise InputError(f"--out (={out}) holds a {there[0]} of something else; choose another folder")


def _remove_results(out: Path) -> None:
    """Takes away the results that stand there, which may be another model's; not what sections are kept for."""
    if (out / "results.json").exists():
        earlier = read_json(out / "results.json").get("generated", {}).get("source")
        say(f"the earlier results in {out}, of {earlier}, are replaced")
    for name in ("results.csv", "results.json"):
        (out / name).unlink(missing_ok=True)
    remove_figures(out)
    remove_galleries(out)


def open_networks(model: Model, teachers: Sequence[Path] = ()) -> Networks:
    """Teacher and discriminator of the run that a generator stands in, as `explain` finds them.

    A teacher whose named weights cannot be had is left out by name: the others are judged without it.

    Args:
        model: opened from a run.
        teachers: folders of teachers fitted alike with other seeds.

    Raises:
        CheckpointError: no such teacher, or one that is damaged.
    """
    missing: dict[str, str] = {}
    teacher, discriminator, _ = networks_of_run(model.home, [], missing)
    others = [open_teacher(str(folder)) for folder in teachers]
    return Networks(teacher, discriminator, model.network, others, missing)


def _check_suite(suite: str, images: str | None, sections: Sequence[str], features: Sequence[str]) -> None:
    if images is not None:
        raise InputError(
            f"--images (={images}) have no maps, which --suite {suite} is about; give a run with --model instead"
        )
    if sections:
        raise InputError(f"--sections (={' '.join(sections)}) are of the standard suite; leave them or --suite out")
    if tuple(features) != tuple(Evaluation.spaces):
        raise InputError(
            f"--features (={' '.join(features)}) are of the standard suite, and --suite {suite} asks the judge alone; "
            "leave them or --suite out"
        )


@contextmanager
def _nothing_half_written(out: Path) -> Iterator[None]:
    """Takes away what a refused evaluation has kept, unless there are figures in it or it stood there before."""
    parts = out / "parts"
    stood = parts.exists()
    try:
        yield
    except ExpressiveGANError:
        if not stood and not any(parts.glob("*.json")):
            shutil.rmtree(parts, ignore_errors=True)
        raise


def _share(bar: Told, start: float, end: float, name: str = "") -> Told:
    """A part of the bar for a part of the work."""

    def told(done: int, total: int, words: str) -> None:
        bar(round(1000 * (start + (end - start) * done / total)), 1000, words or name)

    return told


def _csv(sections: dict[str, Any]) -> str:
    """Every number of the results, one a row: where it stands, and what it is."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["figure", "value"])

    def walk(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{name}/{key}", inner)
        elif isinstance(value, list):
            for place, inner in enumerate(value):
                walk(f"{name}/{place}", inner)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            writer.writerow([name, value])

    for section, found in sections.items():
        walk(section, found)
    return table.getvalue()


def _show(results: dict[str, Any]) -> None:
    for name, space in results["sections"].get("fidelity", {}).get("spaces", {}).items():
        table = Table(title=f"in the features of {name}", caption="value [95% interval]")
        for column in ("figure", "generated", "floor", "place on the ladder"):
            table.add_column(column)
        for figure, entry in space["generated"]["overall"]["figures"].items():
            ends = "" if entry["low"] is None else f" [{entry['low']:.3g}, {entry['high']:.3g}]"
            value = "–" if entry["value"] is None else f"{entry['value']:.3g}{ends}"
            table.add_row(figure, value, f"{space['floor'][figure]:.3g}", space["place"][figure])
        console.print(table)
    for table in tables(results["sections"].get("faithfulness", {})):
        console.print(table)
    for sentence in results["summary"]:
        console.print(f"- {sentence}", highlight=False, markup=False)
    for name, why in results["left_out"].items():
        console.print(f"left out: {name}: {why}", highlight=False, markup=False, style="yellow")
