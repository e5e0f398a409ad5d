"""Explanations → folders of pictures, numbers for other programs, and one JSON file (explain.schema.json)."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from expressivegan.atomic import replacing, write_text
from expressivegan.explain.drawing import draw_montage, draw_overlay
from expressivegan.explain.explainer import Explained, Explainer
from expressivegan.explain.familiar import VIEWS, Verdict
from expressivegan.explain.maps import Map
from expressivegan.images import save_png
from expressivegan.synthesis.provenance import package_version

FORMAT = "expressivegan-explanations"
VERSION = 1
"""Rises with every change of the fields, and with it explain.schema.json."""
FILE = "explanations.json"


def write_explanations(
    out: Path, explainer: Explainer, found: Iterable[Explained | tuple[str, str]], model: str
) -> dict[str, Any]:
    """Writes what was found, image by image, and `explanations.json` last.

    Layout of `out`: `000-name/montage.png`, `000-name/<map>.png` with a colour bar, `000-name/maps.npz` (float16 on
    each map's own grid), and `explanations.json`.

    Args:
        out: an existing folder.
        explainer: that explains.
        found: explanations, and (name, reason) of what could not be read.
        model: as the user named it.

    Returns:
        What stands in `explanations.json`.
    """
    images: list[dict[str, Any]] = []
    rejected: list[tuple[str, str]] = []
    for entry in found:
        if not isinstance(entry, Explained):
            rejected.append(entry)
            continue
        folder = f"{len(images):03d}-{_safe(Path(entry.picture.name).stem)}"
        (out / folder).mkdir(exist_ok=True)
        _write_image(out / folder, entry)
        images.append(_image(entry, folder))
    made = _report(explainer, images, rejected, model)
    write_text(out / FILE, json.dumps(made, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return made


def _write_image(folder: Path, entry: Explained) -> None:
    arrays = {name: m.values.astype(np.float16) for name, m in entry.maps.items()}
    with replacing(folder / "maps.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    for name, shown in entry.maps.items():
        save_png(folder / f"{_safe(name)}.png", draw_overlay(entry.picture, shown))
    save_png(folder / "montage.png", draw_montage(entry))


def _safe(name: str) -> str:
    """A name as part of a file name, whatever a user's file or class is called."""
    return re.sub(r"[^\w.+-]", "_", name)[:60] or "image"


def _report(
    explainer: Explainer, images: Sequence[dict[str, Any]], rejected: Sequence[tuple[str, str]], model: str
) -> dict[str, Any]:
    teacher, baseline = explainer.teacher, explainer.baseline
    familiarity = None if baseline is None else baseline.familiarity
    return {
        "format": FORMAT,
        "version": VERSION,
        "package_version": package_version(),
        "model": model,
        "resolution": explainer.resolution,
        "fit": explainer.fit,
        "classes": list(teacher.classes),
        "reference": None if teacher.reference is None else teacher.classes[teacher.reference],
        "scale": float(teacher.scale),
        "baseline": None if baseline is None else {
            "data_hash": baseline.data_hash,
            "evidence": baseline.reference is not None,
            "calibration_patients": 0 if familiarity is None else familiarity.patients,
        },
        "notes": list(explainer.notes),
        "images": list(images),
        "rejected": [{"name": name, "reason": reason} for name, reason in rejected],
    }  # fmt: skip


def _image(entry: Explained, folder: str) -> dict[str, Any]:
    facts, judged = entry.picture.facts, entry.judged
    return {
        "name": entry.picture.name,
        "folder": folder,
        "file": None if facts is None else {
            "width": facts.width, "height": facts.height, "mode": facts.mode, "sha256": facts.sha256
        },
        "synthetic": entry.picture.made,
        "label": entry.label,
        "likeliest": entry.likeliest,
        "focus": entry.focus,
        "teacher": {"probabilities": _rounded(entry.probabilities), "logits": _rounded(entry.logits)},
        "discriminator": None if judged is None else {
            "label": judged.label,
            "score": round(judged.score, 6),
            "referenced": None if judged.referenced is None else round(judged.referenced, 6),
            "real_range": None if judged.real_range is None else [round(v, 6) for v in judged.real_range],
            "probabilities": _rounded(judged.probabilities),
        },
        "familiarity": None if entry.verdict is None else _verdict(entry.verdict),
        "warnings": list(entry.warnings),
        "maps": {name: {"file": f"{folder}/{_safe(name)}.png"} | _map(m) for name, m in entry.maps.items()},
    }  # fmt: skip


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "distance": round(verdict.distance, 4),
        "strange": verdict.strange,
        "views": {name: verdict.views[name] for name in VIEWS},
        "hint": verdict.hint,
    }


def _map(found: Map) -> dict[str, Any]:
    y, x = np.unravel_index(int(found.values.argmax()), found.values.shape)
    h, w = found.values.shape
    return {
        "title": found.title,
        "unit": found.unit,
        "bar": [round(found.low, 6), round(found.high, 6)],
        "own_range": found.own_range,
        "grid": [h, w],
        "mean": round(float(found.values.mean()), 6),
        "least": round(float(found.values.min()), 6),
        "most": round(float(found.values.max()), 6),
        "peak": [round((int(x) + 0.5) / w, 4), round((int(y) + 0.5) / h, 4)],
    }


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in values.items()}
