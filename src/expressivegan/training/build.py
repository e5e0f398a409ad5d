"""Settings → networks."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from expressivegan.config import TrainConfig
from expressivegan.models import DiscriminatorWithExplain, GeneratorWithCAMGuidance
from expressivegan.models.dcgan import DCGANDiscriminator, DCGANGenerator


def make_networks(config: TrainConfig, classes: Sequence[str], reference: int | None) -> tuple[nn.Module, nn.Module]:
    """Fresh generator and discriminator.

    Args:
        config: method, resolution and widths.
        classes: class names.
        reference: label of the class without a lesion, or None.
    """
    G, D = (
        (GeneratorWithCAMGuidance, DiscriminatorWithExplain)
        if config.method == "expressive"
        else (DCGANGenerator, DCGANDiscriminator)
    )
    shared: dict[str, Any] = {
        "resolution": config.resolution,
        "classes": tuple(classes),
        "reference": None if reference is None else classes[reference],
        "width": config.width,
        "min_width": config.min_width,
    }
    return G(z_dim=config.z_dim, **shared), D(**shared)
