"""The classes of a network: their names, their order, and which of them has no lesion."""

from collections.abc import Sequence

import torch
from torch import Tensor

from expressivegan.errors import InputError


class ClassSet:
    """Class names in their fixed order, with an optional reference class.

    Args:
        names: class names; empty for a network without classes.
        reference: the class that has no lesion, or None.

    Raises:
        InputError: a name twice, or a reference that is not among the names.
    """

    def __init__(self, names: Sequence[str], reference: str | None) -> None:
        self.names = tuple(names)
        if len(set(self.names)) != len(self.names):
            raise InputError(f"classes (={list(names)}) must be different names")
        # An unconditional network has no class that could be without a lesion, whatever the default says.
        self.reference = self.names.index(reference) if reference in self.names else None
        if self.names and reference is not None and self.reference is None:
            raise InputError(f"reference (={reference!r}) must be one of {list(self.names)} or None")

    @property
    def count(self) -> int:
        """How many embeddings are needed: at least one."""
        return max(1, len(self.names))

    def check(self, labels: Tensor, batch: int) -> Tensor:
        """`labels` if they are (batch,) integers of known classes.

        Raises:
            InputError: wrong shape, type or value.
        """
        if labels.shape != (batch,) or labels.is_floating_point() or labels.is_complex():
            raise InputError(f"labels must be integers of shape ({batch},), not {labels.dtype} {tuple(labels.shape)}")
        if labels.device.type != "meta" and batch and not (int(labels.min()) >= 0 and int(labels.max()) < self.count):
            raise InputError(
                f"labels must be 0 to {self.count - 1} ({', '.join(self.names) or 'no classes'}), "
                f"not {int(labels.min())} to {int(labels.max())}"
            )
        return labels

    def has_lesion(self, labels: Tensor) -> Tensor:
        """(B,) bool: every class but the reference."""
        return torch.ones_like(labels, dtype=torch.bool) if self.reference is None else labels != self.reference
