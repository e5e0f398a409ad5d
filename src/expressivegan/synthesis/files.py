"""Images of a run of generation as files, completed where one was interrupted."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from expressivegan.atomic import replacing, write_text
from expressivegan.checkpoint import make_directory, state_hash
from expressivegan.devices import Precision
from expressivegan.errors import InputError
from expressivegan.images import overlay, save_png, to_uint8
from expressivegan.synthesis.generate import (
    Plan,
    check_batch,
    generate,
    known_precision,
    label_number,
    open_generator,
)
from expressivegan.synthesis.provenance import is_whole, png_text, read_provenance
from expressivegan.synthesis.steering import steering_map


def write_images(
    path: str | Path,
    out: Path,
    count: int,
    *,
    seed: int = 0,
    label: str | None = None,
    truncation: float = 1.0,
    steer: Sequence[str | Path] = (),
    style_label: str | None = None,
    shortcut_free: bool = False,
    batch: int | None = None,
    deterministic: bool = False,
    device: str = "cpu",
    precision: Precision = "32-true",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes PNGs with provenance, their maps (NPZ and overlays) and labels.csv; goes on where it was interrupted.

    Layout of `out`: `images/000000-LABEL.png`, `maps/000000.npz` (`level_0` coarse … and `mask`), `overlays/…png`,
    `labels.csv` (`file,label,index,seed,style_label`), written last.

    Args:
        path: a run, a model directory, or the name of a model that is shipped.
        out: the folder; images of the same run of generation that stand there are kept.
        count: number of images.
        steer: regions that are joined, see `steering_map`; none leaves the place to the model.
        seed, label, truncation, style_label, shortcut_free, batch, deterministic, device, precision: see `generate`;
            here labels are names.
        progress: called with (done, count).

    Returns:
        Path of labels.csv.

    Raises:
        InputError: an argument out of range, or a folder that holds other images.
        CheckpointError: no such model.
    """
    if count < 1:
        raise InputError(f"num (={count}) must be at least 1")
    model = open_generator(path)
    number = None if label is None else label_number(model, label)
    style = None if style_label is None else label_number(model, style_label, "style_label")
    region = steering_map(steer, model.resolution) if steer else None
    plan = Plan(seed, number, truncation, region, style, shortcut_free)
    plan.check(model)
    check_batch(batch)
    precision = known_precision(precision, device)
    names = model.class_set.names or ("IMAGE",)
    digest = state_hash(model)
    mark = None if region is None else hashlib.sha256(region.numpy().tobytes()).hexdigest()[:16]
    make_directory(out)
    for name in ("images", "maps", "overlays"):
        make_directory(out / name)

    def facts(index: int) -> dict[str, Any]:
        return {
            "model": digest,
            "seed": seed,
            "index": index,
            "label": names[plan.label_of(index, len(names))],
            "style_label": names[plan.style_of(index, len(names))],
            "steer": mark,
            "truncation": truncation,
            "precision": precision,
            "deterministic": deterministic,
        }

    def png(index: int) -> Path:
        return out / "images" / f"{index:06d}-{file_name(facts(index)['label'])}.png"

    def is_done(index: int) -> bool:
        if not png(index).exists():
            return False
        found = read_provenance(png(index))
        if found is None and not is_whole(png(index)):
            return False  # cut short, by a full disk for example
        if found != facts(index):
            differ = [name for name, value in facts(index).items() if found is None or found.get(name) != value]
            raise InputError(
                f"--out (={out}) holds images that differ in {', '.join(differ)} ({png(index).name}); choose another "
                "folder"
            )
        return (out / "maps" / f"{index:06d}.npz").exists() and (out / "overlays" / png(index).name).exists()

    ours = {png(i) for i in range(count)}
    others = [p for p in sorted((out / "images").glob("*.png")) if p not in ours]
    if others:
        raise InputError(f"--out (={out}) holds more or other images, such as {others[0].name}; choose another folder")
    missing = [i for i in range(count) if not is_done(i)]
    done = count - len(missing)
    how: dict[str, Any] = {"batch": batch, "deterministic": deterministic, "device": device, "precision": precision}
    how |= {"seed": seed, "label": number, "truncation": truncation}
    how |= {"steer": region, "style_label": style, "shortcut_free": shortcut_free}
    for made in generate(model, missing, **how):
        target = png(made.index)
        arrays = {f"level_{n}": m[0, 0].half().numpy() for n, m in enumerate(made.attention)}
        _write_npz(out / "maps" / f"{made.index:06d}.npz", arrays | {"mask": arrays[f"level_{len(arrays) - 1}"]})
        text = png_text(facts(made.index))
        save_png(out / "overlays" / target.name, overlay(made.image, made.attention[-1])[0], text)
        save_png(target, to_uint8(made.image)[0, 0].numpy(), text)  # last: it says that the others are there
        done += 1
        if progress is not None:
            progress(done, count)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["file", "label", "index", "seed", "style_label"])
    for i in range(count):
        writer.writerow([f"images/{png(i).name}", facts(i)["label"], i, seed, facts(i)["style_label"]])
    write_text(out / "labels.csv", table.getvalue())
    asked: dict[str, Any] = {"count": count, "label": label, "style_label": style_label, "shortcut_free": shortcut_free}
    asked["steer"] = {"regions": [str(s) for s in steer], "sha256": mark} if steer else None
    of_all = {name: value for name, value in facts(0).items() if name != "index"}
    write_text(out / "generation.json", json.dumps(of_all | asked, indent=2) + "\n")
    return out / "labels.csv"


def file_name(label: str) -> str:
    """A label as part of a file name; labels are the user's and may hold anything."""
    safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in label)[:40]
    return safe if safe == label else f"{safe}-{hashlib.sha256(label.encode()).hexdigest()[:6]}"


def _write_npz(path: Path, arrays: dict[str, Any]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
