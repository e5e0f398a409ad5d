"""Counterfactuals as files: images, strips, difference, map and counterfactuals.json."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
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
from expressivegan.synthesis.provenance import is_whole, package_version, png_text

FORMAT, VERSION = "expressivegan-counterfactuals", 1
"""VERSION rises with every change of the fields, and with it counterfactual.schema.json."""
UNFINISHED = "unfinished.jsonl"
"""While a run goes on: a line that says what was asked for, then one for each counterfactual whose files are whole."""
_SHOWN = 16  # rows of the montage
_FOLDERS = ("before", "after", "difference", "maps", "strips", "fitted")
# What `atomic.replacing` and `make_directory` write to while they are at it, under the names of this module's files.
_PARTIAL = re.compile(
    r"\.(unfinished\.jsonl|montage\.png|counterfactuals\.json|\d{6,}-.+\.png)\.\d+\.[0-9a-f]{8}\.tmp|\.probe\.\d+"
)


@dataclass(frozen=True)
class Scorer:
    """A classifier that says what an image shows: uint8 (N, H, W) → probabilities (N, K)."""

    classes: tuple[str, ...]
    identity: str
    """Of its weights."""
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


def is_free(out: Path) -> bool:
    """Whether counterfactuals may be written there: nothing stands there but what a killed run of ours left."""
    if not out.exists():
        return True
    return out.is_dir() and ((out / UNFINISHED).exists() or all(_is_partial(path) for path in out.iterdir()))


def _is_partial(path: Path) -> bool:
    """Whether it is a file of this module that a kill cut short, under its temporary name."""
    if not _PARTIAL.fullmatch(path.name) or path.is_symlink() or not path.is_file():
        return False
    return path.suffix == ".tmp" or path.stat().st_size == 0  # a probe is empty


def write_counterfactuals(
    out: Path,
    model: GeneratorWithCAMGuidance,
    items: Sequence[Callable[[], Item]],
    scorers: Mapping[str, Scorer | None],
    asked: Mapping[str, Any],
    *,
    steer: Tensor | None = None,
    regions: Sequence[str] = (),
    notes: Sequence[str] = (),
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Writes each counterfactual, a montage of the first ones, and counterfactuals.json, which comes last.

    Goes on where it was interrupted: `UNFINISHED` stands there until counterfactuals.json does.

    Layout of `out`: `before/`, `after/`, `difference/`, `maps/` and `strips/`, each with `000000-LABEL.png`; of a real
    image also `fitted/`; `montage.png` (rows: strip, map, difference); `counterfactuals.json`, as
    counterfactual.schema.json says.

    Args:
        out: a folder that `is_free`.
        model: what made them.
        items: what makes each counterfactual, in the order of their rows; those that are there are not made again.
        scorers: classifiers by name; None for one that cannot be had, which the JSON says.
        asked: JSON values that, with model, scorers and region, settle every counterfactual.
        steer: (1, 1, H, W), the region that was asked for.
        regions: its words.
        notes: sentences for the JSON, such as why a scorer is missing.
        progress: called with the number of counterfactuals written.

    Returns:
        Path of counterfactuals.json.

    Raises:
        InputError: nothing to write, or the folder holds what was interrupted of something else.
    """
    if not items:
        raise InputError("there is no counterfactual to write; ask for one at least")
    digest = state_hash(model)
    known = {name: None if s is None else s.identity for name, s in scorers.items()}
    begun = {**asked, "num": len(items), "model": digest, "scorers": known}
    begun["steer"] = None if steer is None else _mark(steer)
    kept = _kept(out, begun)
    for partial in [p for folder in (out, *(out / name for name in _FOLDERS)) for p in folder.glob(".*")]:
        if _is_partial(partial):
            partial.unlink(missing_ok=True)
    write_text(out / UNFINISHED, "".join(json.dumps(line) + "\n" for line in (begun, *kept)))
    records: list[dict[str, Any]] = []
    rows: list[Tensor] = []
    for n, make in enumerate(items):
        item = make() if n < _SHOWN or n >= len(kept) else None
        if n < len(kept):
            records.append(kept[n])
        elif item is not None:
            records.append(_write(out, item, digest, scorers, steer))
            with (out / UNFINISHED).open("a", encoding="utf-8") as file:
                file.write(json.dumps(records[-1]) + "\n")
        if item is not None and n < _SHOWN:
            rows += [item.strip.images, item.strip.mask * 2 - 1, item.strip.difference / 2]
        if progress is not None:
            progress(len(records))
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
    (out / UNFINISHED).unlink()
    return out / "counterfactuals.json"


def _kept(out: Path, begun: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Records of an interrupted run, as far as their files are whole.

    Raises:
        InputError: something else was begun there. So it is where the first line cannot be read: a kill spares it,
            since it was written in one piece, so the file is not ours.
    """
    if not (out / UNFINISHED).exists():
        return []
    lines: list[dict[str, Any]] = []
    for line in (out / UNFINISHED).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break  # cut short
    if lines[:1] != [json.loads(json.dumps(begun))]:
        raise InputError(
            f"--out (={out}) holds what was interrupted of another model, number, label, seed, strength, image, "
            "region or classifier; choose another folder or delete it"
        )
    whole = (all(is_whole(out / name) for name in line["files"].values()) for line in lines[1:])
    return [line for line, _ in zip(lines[1:], takewhile(bool, whole), strict=False)]


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
