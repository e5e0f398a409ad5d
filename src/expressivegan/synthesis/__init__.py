"""Model directory → images, pairs, maps."""

from expressivegan.synthesis.counterfactual import Pair, Strip, counterfactual_pairs, counterfactual_strip, edit_real
from expressivegan.synthesis.counterfactual_files import Item, Scorer, write_counterfactuals
from expressivegan.synthesis.files import write_images
from expressivegan.synthesis.generate import Made, generate, open_generator
from expressivegan.synthesis.projection import Projection, project
from expressivegan.synthesis.provenance import read_provenance
from expressivegan.synthesis.steering import ZONES, steering_map

__all__ = [
    "ZONES",
    "Item",
    "Made",
    "Pair",
    "Projection",
    "Scorer",
    "Strip",
    "counterfactual_pairs",
    "counterfactual_strip",
    "edit_real",
    "generate",
    "open_generator",
    "project",
    "read_provenance",
    "steering_map",
    "write_counterfactuals",
    "write_images",
]
