"""Model directory → images, pairs, maps."""

from expressivegan.synthesis.counterfactual import Pair, counterfactual_pairs
from expressivegan.synthesis.generate import Made, generate, open_generator, write_images
from expressivegan.synthesis.provenance import read_provenance

__all__ = [
    "Made",
    "Pair",
    "counterfactual_pairs",
    "generate",
    "open_generator",
    "read_provenance",
    "write_images",
]
