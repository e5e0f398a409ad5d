"""ExpressiveGAN-CXR: labelled synthetic chest X-rays with attention maps that act.

The public names stand here; everything else lives in the layer that owns it (docs/architecture.md). They are imported
on first use, since looking at a folder of X-rays needs no network.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from expressivegan.data import ImageSet, load_images
    from expressivegan.errors import ExpressiveGANError
    from expressivegan.images import show_image_tensor
    from expressivegan.models import DiscriminatorWithExplain, GeneratorWithCAMGuidance, expressive_weights_init
    from expressivegan.synthesis import counterfactual_pairs, generate, open_generator, write_images
    from expressivegan.teacher import CXR_CAM_Teacher
    from expressivegan.weights import find_model, shipped_models

__all__ = [
    "CXR_CAM_Teacher",
    "DiscriminatorWithExplain",
    "ExpressiveGANError",
    "GeneratorWithCAMGuidance",
    "ImageSet",
    "counterfactual_pairs",
    "expressive_weights_init",
    "find_model",
    "generate",
    "load_images",
    "open_generator",
    "shipped_models",
    "show_image_tensor",
    "write_images",
]

_HOME = {
    "CXR_CAM_Teacher": "teacher",
    "DiscriminatorWithExplain": "models",
    "ExpressiveGANError": "errors",
    "GeneratorWithCAMGuidance": "models",
    "ImageSet": "data",
    "counterfactual_pairs": "synthesis",
    "expressive_weights_init": "models",
    "find_model": "weights",
    "generate": "synthesis",
    "load_images": "data",
    "open_generator": "synthesis",
    "shipped_models": "weights",
    "show_image_tensor": "images",
    "write_images": "synthesis",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"expressivegan.{_HOME[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
