"""Pairs of made images that are held against each other, all at once: a loop over groups takes longer than its sums."""

import functools
from typing import NamedTuple

import torch
from torch import Tensor

GROUP = 8
"""Consecutive images of a batch that are held against each other; a process holds whole groups."""


class Pairs(NamedTuple):
    """All pairs within groups of consecutive images, of which the last may be smaller.

    Attributes:
        first, second: (P,) places of the two.
        group: (P,) of which group they are.
        sizes: (G,) images in each group.
    """

    first: Tensor
    second: Tensor
    group: Tensor
    sizes: Tensor


@functools.lru_cache(maxsize=16)
def pairs_within(count: int, group: int, device: torch.device) -> Pairs:
    """The pairs of `count` images in groups of `group`.

    >>> [t.tolist() for t in pairs_within(5, 3, torch.device("cpu"))]
    [[0, 0, 1, 3], [1, 2, 2, 4], [0, 0, 0, 1], [3, 2]]
    """
    groups = torch.split(torch.arange(count), group)
    first, second = torch.cat([torch.combinations(g) for g in groups]).T
    found = (first, second, first // group, torch.tensor([len(g) for g in groups]))
    return Pairs(*(t.to(device) for t in found))


def mean_by_group(values: Tensor, chosen: Tensor, pairs: Pairs) -> Tensor:
    """Values (P,) of pairs, and which of them count → (G,), the mean of each group's; 0 where a group has none."""
    none = values.new_zeros(len(pairs.sizes))
    counts = none.index_add(0, pairs.group, chosen.to(none))
    return none.index_add(0, pairs.group, values * chosen) / counts.clamp_min(1)
