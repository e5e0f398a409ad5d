"""Real or synthetic images → maps, scores, and whether they are of the kind that the model knows."""

from expressivegan.explain.api import Explanations, explain_images
from expressivegan.explain.explainer import Explained, Explainer
from expressivegan.explain.familiar import Verdict
from expressivegan.explain.maps import Judged, Map
from expressivegan.explain.opening import open_explainer
from expressivegan.explain.peers import METHODS, Method, peer_maps
from expressivegan.explain.write import write_explanations

__all__ = [
    "METHODS",
    "Explained",
    "Explainer",
    "Explanations",
    "Judged",
    "Map",
    "Method",
    "Verdict",
    "explain_images",
    "open_explainer",
    "peer_maps",
    "write_explanations",
]
