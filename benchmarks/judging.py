"""A generator's averaged images beside real ones, in the few figures by which search.py and trajectory.py rank them."""

import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from expressivegan.data import ImageSet
from expressivegan.evaluation import Comparison, draw_mix, floor_draws, from_model
from expressivegan.evaluation.cases import Yardstick

SPACES = ("judge", "selfsup")
MADE = 1200
FLOORS = 4
FIGURES = ("fid", "recall", "coverage")


class Judging:
    """The real side: reference images, floor, feature spaces."""

    def __init__(self, data: ImageSet) -> None:
        self.data = data
        self.yardstick: Yardstick | None = None
        self.counts: list[int] = []
        self.floor: dict[str, float] = {}

    def _prepare(self, comparison: Comparison) -> None:
        data = self.data
        reference, training = data.indices("reference"), data.indices("train")
        rows, _, self.counts = comparison.mix()
        judge: Any = comparison.space("judge")

        def look(space: str) -> Any:
            return lambda images: comparison.features(space, images)

        self.yardstick = Yardstick(
            {space: look(space) for space in SPACES},
            lambda images: judge.classify(comparison.features("judge", images)),
            np.asarray(data.images[reference])[rows],
            data.labels[reference][rows],
            data.patients[reference][rows],
            data.classes,
        )
        draws = [training[d] for d in floor_draws(data.labels[training], self.counts, FLOORS)]
        scores = [self.yardstick.score(np.asarray(data.images[d]), data.labels[d]) for d in draws]
        self.floor = {name: float(np.mean([s[name].value for s in scores])) for name in scores[0]}

    def score(self, model: Path) -> dict[str, float]:
        """Figures of a run's averaged generator, each over the floor's; agreement less that on reference images."""
        made = from_model(model, self.data.classes, MADE)
        if self.yardstick is None:
            self._prepare(Comparison(self.data, made))
        assert self.yardstick is not None
        assert made.labels is not None
        rows = draw_mix(made.labels, self.counts, 0, "generated")
        found = self.yardstick.score(made.images[rows], made.labels[rows])
        figures = {
            f"{space}/{figure}": found[f"{space}/{figure}"].value / self.floor[f"{space}/{figure}"]
            for space in SPACES
            for figure in FIGURES
        }
        figures["agreement"] = found["agreement"].value
        figures["score"] = statistics.mean(
            math.log(max(figures[f"{space}/fid"], 1e-3))
            - sum(math.log(max(figures[f"{space}/{figure}"], 1e-3)) for figure in ("recall", "coverage"))
            for space in SPACES
        )
        return figures


def line(figures: Mapping[str, float]) -> str:
    """One arm's figures in one line."""
    pairs = [f"{figure} {figures[f'judge/{figure}']:.2f} · {figures[f'selfsup/{figure}']:.2f}" for figure in FIGURES]
    return "; ".join([*pairs, f"agreement {figures['agreement']:+.3f}", f"score {figures['score']:.2f}"])
