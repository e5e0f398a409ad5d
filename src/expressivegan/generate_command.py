"""What `expressivegan generate` does; apart from the others, which import far more than it needs."""

from pathlib import Path
from typing import Any

from expressivegan.console import progress_bar, say
from expressivegan.devices import Device, resolve_device
from expressivegan.synthesis import write_images


def generate(model: str | Path, out: Path, num: int, *, device: Device, **how: Any) -> None:
    """Writes images, maps and labels.csv; `how` as in `write_images`."""
    with progress_bar("images") as bar:
        table = write_images(
            model, out, num, device=resolve_device(device), progress=lambda done, total: bar(done, total, ""), **how
        )
    say(f"{num} images: {table}")
