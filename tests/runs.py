"""Short runs of training, and what they leave."""

import json
from pathlib import Path
from typing import Any

import torch

from expressivegan.checkpoint import newest_checkpoint
from expressivegan.config import TrainConfig
from expressivegan.data import ImageSet
from expressivegan.training import Guide, train

EVERY_STEP = 0.004  # thousand images: one batch of `tiny_config`


class Killed(BaseException):
    """What a power cut looks like from within."""


def go(images: ImageSet, config: TrainConfig, out: Path, guide: Guide | None, **options: Any) -> Any:
    return train(images, config, out, guide, device="cpu", **options)


def last_state(out: Path) -> dict[str, Any]:
    found = newest_checkpoint(out / "checkpoints")
    assert found is not None
    return found[1]


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [path]
    if isinstance(a, dict):
        assert list(a) == list(b), path
        return [x for k in a for x in differences(a[k], b[k], f"{path}.{k}")]
    if isinstance(a, list):
        return [x for i, (u, v) in enumerate(zip(a, b, strict=True)) for x in differences(u, v, f"{path}.{i}")]
    return [] if a == b else [path]


def metrics(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
