"""ExpressiveGAN-CXR: labelled synthetic chest X-rays with attention maps that act.

The public names stand here; everything else lives in the layer that owns it (docs/architecture.md).
"""

from expressivegan.data import ImageSet, load_images
from expressivegan.errors import ExpressiveGANError
from expressivegan.images import show_image_tensor
from expressivegan.models import DiscriminatorWithExplain, GeneratorWithCAMGuidance, expressive_weights_init
from expressivegan.synthesis import counterfactual_pairs, generate, write_images
from expressivegan.teacher import CXR_CAM_Teacher

__all__ = [
    "CXR_CAM_Teacher",
    "DiscriminatorWithExplain",
    "ExpressiveGANError",
    "GeneratorWithCAMGuidance",
    "ImageSet",
    "counterfactual_pairs",
    "expressive_weights_init",
    "generate",
    "load_images",
    "show_image_tensor",
    "write_images",
]
