"""Networks. CAMs reach them as tensors; they never import the teacher."""

from expressivegan.models.discriminator import DiscriminatorWithExplain, Explanation
from expressivegan.models.generator import Composition, GeneratorWithCAMGuidance
from expressivegan.models.layers import expressive_weights_init

__all__ = [
    "Composition",
    "DiscriminatorWithExplain",
    "Explanation",
    "GeneratorWithCAMGuidance",
    "expressive_weights_init",
]
