"""Counterfactuals as files: images, strips, difference, map and counterfactuals.json."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from expressivegan.atomic import write_text
from expressivegan.checkpoint import state_hash
from expressivegan.errors import InputError
from expressivegan.images import UInt8Array, grid, save_png, to_uint8
from expressivegan.models import GeneratorWithCAMGuidance
from expressivegan.synthesis.counterfactual import Strip
from expressivegan.synthesis.files import file_name
from expressivegan.synthesis.projection import Projection
from expressivegan.synthesis.provenance import package_version, png_text

FORMAT, VERSION = "expressivegan-counterfactuals", 1
"""VERSION rises with every change of the fields, and with it counterfactual.schema.json."""
_SHOWN = 16  # rows of the montage


@dataclass(frozen=True)
class Scorer:
    """A classifier that says what an image shows: uint8 (N, H, W) → probabilities (N, K)."""

    classes: tuple[str, ...]
    predict: Callable[[UInt8Array], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Item:
    """One counterfactual to write: its strip, what it was made from, and how its files are called."""

    strip: Strip
    facts: Mapping[str, Any]
    """JSON values: seed, index, label, style_label; of a real image: image, image_label, fit."""
    projection: Projection | None = None

    @property
    def name(self) -> str:
        """Stem of its files."""
        return f"{self.facts['index']:06d}-{file_name(str(self.facts['label']))}"


def write_counterfactuals(
    out: Path,
    model: GeneratorWithCAMGuidance,
    items: Iterable[Item],
    scorers: Mapping[str, Scorer | None],
    *,
    steer: Tensor | None = None,
    regions: Sequence[str] = (),
    notes: Sequence[str] = (),
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Writes each counterfactual, a montage of the first ones, and counterfactuals.json, which comes last.

    Layout of `out`: `before/`, `after/`, `difference/`, `maps/` and `strips/`, each with `000000-LABEL.png`; of a real
    image also `fitted/`; `montage.png` (rows: strip, map, difference); `counterfactuals.json`, as
    counterfactual.schema.json says.

    Args:
        out: an empty folder.
        model: what made them.
        items: the counterfactuals, in the order of their rows.
        scorers: classifiers by name; None for one that cannot be had, which the JSON says.
        steer: (1, 1, H, W), the region that was asked for.
        regions: its words.
        notes: sentences for the JSON, such as why a scorer is missing.
        progress: called with the number of counterfactuals written.

    Returns:
        Path of counterfactuals.json.
    """
    digest = state_hash(model)
    records: list[dict[str, Any]] = []
    rows: list[Tensor] = []
    for item in items:
        records.append(_write(out, item, digest, scorers, steer))
        if len(records) <= _SHOWN:
            rows += [item.strip.images, item.strip.mask * 2 - 1, item.strip.difference / 2]
        if progress is not None:
            progress(len(records))
    if not records:
        raise InputError("there is no counterfactual to write; ask for one at least")
    columns = len(records[0]["strengths"]) + 2
    save_png(out / "montage.png", grid(torch.cat(rows), columns=columns), png_text({"model": digest}))
    found = {
        "format": FORMAT,
        "version": VERSION,
        "software": f"expressivegan {package_version()}",
        "model": {"sha256": digest, "classes": list(model.classes), "resolution": model.resolution},
        "steer": None
        if steer is None
        else {"regions": list(regions), "area": _number(steer.mean()), "sha256": _mark(steer)},
        "scorers": {name: None if s is None else {"classes": list(s.classes)} for name, s in scorers.items()},
        "notes": list(notes),
        "counterfactuals": records,
    }
    write_text(out / "counterfactuals.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return out / "counterfactuals.json"


def _write(
    out: Path, item: Item, digest: str, scorers: Mapping[str, Scorer | None], steer: Tensor | None
) -> dict[str, Any]:
    strip, name = item.strip, item.name
    text = png_text({"model": digest, **item.facts, "strengths": list(strip.strengths)})
    pixels = to_uint8(strip.images)[:, 0].numpy()
    pictures = {
        "before": pixels[0],
        "after": pixels[-1],
        "difference": _both_ways(strip.difference),
        "maps": (strip.mask[0, 0] * 255).round().to(torch.uint8).numpy(),
        "strips": grid(strip.images, columns=len(pixels)),
    }
    if item.projection is not None:
        pictures["fitted"] = to_uint8(item.projection.image)[0, 0].numpy()
    files = {}
    for kind, picture in pictures.items():
        (out / kind).mkdir(exist_ok=True)
        save_png(out / kind / f"{name}.png", picture, text)
        files[kind] = f"{kind}/{name}.png"
    change = strip.difference.abs()
    return {
        **item.facts,
        "strengths": list(strip.strengths),
        "files": files,
        "scores": {
            k: None if s is None else [[_number(p) for p in row] for row in s.predict(pixels)]
            for k, s in scorers.items()
        },
        "map_area": _number(strip.mask.mean()),
        "change": {"mean": _number(change.mean()), "largest": _number(change.max())},
        "change_in_steer": None if steer is None else _share(change, steer > 0),
        "outside_change": strip.outside_change,
        "outside_share": _number(strip.outside_share),
        "base_change": strip.base_change,
    }


def _both_ways(difference: Tensor) -> UInt8Array:
    """(1, 1, H, W) in [-2, 2] → (H, W, 3): darker is blue, brighter is red, half of the range is full colour."""
    level = difference[0, 0].clamp(-1, 1).add(1).div(2).numpy()
    picture: UInt8Array = (matplotlib.colormaps["coolwarm"](level)[..., :3] * 255).round().astype(np.uint8)
    return picture


def _share(change: Tensor, inside: Tensor) -> float | None:
    """Share of a change that lies inside; None where nothing changes."""
    total = float(change.sum())
    return _number(float((change * inside).sum()) / total) if total > 0 else None


def _number(value: Any) -> float:
    return round(float(value), 6)


def _mark(steer: Tensor) -> str:
    return hashlib.sha256(steer.numpy().tobytes()).hexdigest()[:16]
