"""Sets of equal size and class mix."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from expressivegan.errors import InputError
from expressivegan.evaluation.distances import Index
from expressivegan.streams import derive_seed


def draw_mix(labels: npt.ArrayLike, counts: Sequence[int], seed: int, *names: int | str) -> Index:
    """A random subset with given counts per class, so that two sets are compared at equal n and class mix.

    Args:
        labels: (n,) class indices.
        counts: images wanted of class 0, 1, …
        seed: root seed; `names` tell draws of one seed apart.

    Returns:
        int64 indices, class by class, without repetition.

    Raises:
        InputError: a class holds fewer images than wanted.
    """
    given = np.asarray(labels)
    draw = np.random.default_rng(derive_seed(seed, "evaluation.draw", *names))
    parts = []
    for label, count in enumerate(counts):
        pool = np.flatnonzero(given == label)
        if len(pool) < count:
            raise InputError(f"class {label} holds {len(pool)} images, {count} are needed")
        parts.append(draw.permutation(pool)[:count])
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)
