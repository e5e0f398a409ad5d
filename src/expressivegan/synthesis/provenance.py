"""Synthetic images say that they are: text chunks inside every PNG."""

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from PIL import Image

KEY = "expressivegan"


def package_version() -> str:
    """Version of the installed package, or `unknown` in a bare checkout."""
    try:
        return version("expressivegan")
    except PackageNotFoundError:
        return "unknown"


def png_text(facts: dict[str, Any]) -> dict[str, str]:
    """Text chunks for `images.save_png`: human-readable ones, and all facts as JSON.

    >>> png_text({"seed": 0})["Synthetic"]
    'yes'
    """
    return {
        "Synthetic": "yes",
        "Software": f"expressivegan {package_version()}",
        "Description": "Synthetic image made by a generative model; it shows no patient. Not for diagnosis.",
        KEY: json.dumps(facts, sort_keys=True),
    }


def read_provenance(path: Path) -> dict[str, Any] | None:
    """The facts inside a PNG that this package made, or None."""
    try:
        with Image.open(path) as image:
            text = getattr(image, "text", {})
            image.load()  # a file cut short has a header, too
        found = json.loads(text[KEY])
    except (OSError, KeyError, ValueError, SyntaxError):
        return None
    return found if isinstance(found, dict) else None


def is_whole(path: Path) -> bool:
    """Whether a file is a picture that can be read to its end."""
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, ValueError, SyntaxError):
        return False
    return True
