"""Named, seeded random streams: the only source of randomness in the package.

Every stream is a `torch.Generator` whose seed is the SHA-256 of (root seed, names), so streams are independent of each
other, of the order in which they are made and of Python's hash seed, and their state fits into a checkpoint.
"""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from expressivegan.errors import CheckpointError


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any sequence of integers and names.

    >>> derive_seed(0, "latents") == derive_seed(0, "latents")
    True
    >>> derive_seed(0, "latents") == derive_seed(0, "data")
    False
    """
    digest = hashlib.sha256("\x1f".join(f"{type(p).__name__}:{p}" for p in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by `derive_seed(*parts)`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


class Streams:
    """The random streams of one run, by name, with a state that can be stored.

    Args:
        seed: root seed of the run.
        names: the streams that the run draws from.
    """

    def __init__(self, seed: int, names: tuple[str, ...]) -> None:
        self.seed = seed
        self._generators = {name: generator(seed, name) for name in names}

    def __getitem__(self, name: str) -> torch.Generator:
        return self._generators[name]

    def state_dict(self) -> dict[str, Tensor]:
        """The state of every stream, as uint8 tensors."""
        return {name: g.get_state() for name, g in self._generators.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Puts every stream back.

        Raises:
            CheckpointError: the state names other streams than this run's.
        """
        if set(state) != set(self._generators):
            raise CheckpointError(
                f"random streams {sorted(state)} in the checkpoint are not this run's {sorted(self._generators)}"
            )
        for name, g in self._generators.items():
            g.set_state(state[name])
