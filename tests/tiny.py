"""Small sets, networks and settings that tests share."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from expressivegan.config import TrainConfig
from expressivegan.data import ImageSet, load_images
from expressivegan.models import DiscriminatorWithExplain, GeneratorWithCAMGuidance
from expressivegan.teacher import CXR_CAM_Teacher

CLASSES = ("NORMAL", "BACTERIA", "VIRUS")


def phantom_set(count: int, resolution: int = 32) -> ImageSet:
    return load_images(f"phantom:{count}", resolution, progress=False)


def enlarged(images: ImageSet, resolution: int, count: int) -> ImageSet:
    """The first `count` images at a multiple of their size: drawing phantoms at 512 px takes its time."""
    times = resolution // images.resolution
    pixels = np.repeat(np.repeat(np.asarray(images.images[:count]), times, 1), times, 2)
    groups = np.full(count, "train")
    return replace(
        images,
        images=pixels,
        labels=images.labels[:count],
        patients=images.patients[:count],
        groups=groups,
        masks=None,
        resolution=resolution,
    )


def tiny_config(**changes: Any) -> TrainConfig:
    """Three steps of four images at 32 px."""
    defaults: dict[str, Any] = {
        "resolution": 32, "width": 8, "min_width": 4, "z_dim": 8, "batch": 4, "kimg": 0.012, "penalty_every": 2,
        "augment": 0.5, "free_share": 0.25, "free_after": 0.4, "guided_after": 0.0,
        "sample_every": 1000.0, "checkpoint_every": 1000.0,
        "logit_kimg": 0.003,  # after the first step: the margin is seen, and the spread of logits
        "detail_kimg": 0.006,
        "precision": "32-true", "seed": 0,
    }  # fmt: skip
    return TrainConfig(**(defaults | changes))


def randomise(network: torch.nn.Module, seed: int = 0, std: float = 0.3) -> None:
    """Adds noise to every parameter, so that branches that start at zero act."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in network.named_parameters():
            if name.endswith("modulate.weight"):  # apart, so that all else is as without it
                p.add_(0.003 * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)))
            elif name.startswith("grain."):  # a tenth: images of this network shall still be told apart
                p.add_(0.03 * torch.randn(p.shape, generator=g))
            else:
                p.add_(std / max(1, p[0].numel()) ** 0.5 * torch.randn(p.shape, generator=g) if p.ndim > 1
                       else 0.1 * torch.randn(p.shape, generator=g))  # fmt: skip


def tiny_generator(seed: int = 0, **options: Any) -> GeneratorWithCAMGuidance:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = GeneratorWithCAMGuidance(
            **({"z_dim": 8, "resolution": 32, "width": 8, "min_width": 4, "style_dim": 16} | options)
        )
        randomise(found, seed)
    return found.eval()


def tiny_discriminator(seed: int = 0, **options: Any) -> DiscriminatorWithExplain:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = DiscriminatorWithExplain(**({"resolution": 32, "width": 8, "min_width": 4} | options))
        randomise(found, seed)
    return found.eval()


def tiny_teacher(seed: int = 0, **options: Any) -> CXR_CAM_Teacher:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = CXR_CAM_Teacher(**({"weights": None, "backbone": "compact", "resolution": 32, "scale": 0.2} | options))
    return found.eval()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(batch: int, resolution: int = 32, seed: int = 0) -> torch.Tensor:
    """(B, 1, H, W) in [-1, 1]."""
    return torch.rand(batch, 1, resolution, resolution, generator=torch.Generator().manual_seed(seed)) * 2 - 1
