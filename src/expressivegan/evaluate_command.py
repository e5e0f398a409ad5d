"""What `expressivegan evaluate` does."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from expressivegan.atomic import write_text
from expressivegan.checkpoint import new_directory
from expressivegan.console import console, progress_bar
from expressivegan.data import load_images
from expressivegan.errors import InputError
from expressivegan.evaluation import Evaluation, from_model, read_generated
from expressivegan.synthesis import open_generator


def evaluate(
    model: Path | None,
    images: str | None,
    source: str,
    out: Path,
    *,
    num: int,
    resolution: int | None,
    features: Sequence[str],
    sections: Sequence[str],
    seed: int,
) -> None:
    """Judges a model or a folder of images; writes results.json and results.csv, and says what they mean."""
    if (model is None) == (images is None):
        raise InputError("give either --model or --images: a model of ours, or a folder of images made by any tool")
    if model is not None and resolution is not None:
        raise InputError(f"--resolution (={resolution}) goes with --images; a model is judged at its own")
    side = resolution or (64 if model is None else open_generator(model).resolution)
    data = load_images(source, side)
    with new_directory(out):
        with progress_bar("evaluate") as bar:
            if model is not None:
                made = from_model(model, data.classes, num, seed, lambda done, of, _: bar(done, of, "making images"))
            else:
                assert images is not None
                made = read_generated(images, data.classes, side)
            evaluation = Evaluation(data, made, tuple(features), seed, progress=bar)
            results = evaluation.run(out, sections or None)
        write_text(out / "results.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        write_text(out / "results.csv", _csv(results["sections"]))
    _show(results)
    console.print(f"results: {out / 'results.json'}", highlight=False, markup=False, soft_wrap=True)


def _csv(sections: dict[str, Any]) -> str:
    """Every number of the results, one a row: where it stands, and what it is."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["figure", "value"])

    def walk(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{name}/{key}", inner)
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
    for sentence in results["summary"]:
        console.print(f"- {sentence}", highlight=False, markup=False)
    for name, why in results["left_out"].items():
        console.print(f"left out: {name}: {why}", highlight=False, markup=False, style="yellow")
