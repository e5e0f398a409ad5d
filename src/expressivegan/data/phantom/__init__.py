"""Chest X-rays drawn from geometry: image, label and lesion mask from a seed, for tests, demos and ground truth.

A phantom is built in three steps that draw from three streams of random numbers: the *child* (size, bones, heart, ...)
from its seed, the *shot* (pose, exposure, frame, marker, noise) from seed and view, the *lesion* from seed and label.
So nothing but the lesion knows the label, and one seed under two labels is one child with and without the disease.

Coordinates are the body's: x grows towards the right of the image, which is the patient's left, y downwards; the chest
fills about -0.8..0.8. Densities add up as absorption does, and become grey levels at the end.
"""

from expressivegan.data.phantom.dataset import DEFAULT_COUNT, manifest, parse_source, rows
from expressivegan.data.phantom.drawing import CLASSES, LEAST_CHANGE, Phantom, draw, draw_batch

__all__ = [
    "CLASSES",
    "DEFAULT_COUNT",
    "LEAST_CHANGE",
    "Phantom",
    "draw",
    "draw_batch",
    "manifest",
    "parse_source",
    "rows",
]
