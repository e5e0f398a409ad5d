"""Evaluations of honest images, with networks fitted for a moment."""

from pathlib import Path
from typing import Any

import numpy as np

from expressivegan.data import ImageSet
from expressivegan.data.phantom import CLASSES, draw_batch
from expressivegan.evaluation import Evaluation, Generated, JudgeRecipe, SelfSupervisedRecipe

N = 120
SIDE = 32


def honest(seed: int = 5000) -> Generated:
    labels = np.arange(N) % 3
    pictures = draw_batch(range(seed, seed + N), [CLASSES[k] for k in labels], SIDE)[0]
    return Generated("honest", pictures, labels.astype(np.int64))


def judged(data: ImageSet, made: Generated, cache: Path, epochs: int = 2, **options: Any) -> Evaluation:
    return Evaluation(
        data,
        made,
        cache=cache,
        judge_recipe=JudgeRecipe(resolution=32, epochs=epochs),
        selfsup_recipe=SelfSupervisedRecipe(resolution=32, epochs=2),
        **options,
    )
