"""The baseline: the original's networks. DCGAN (Radford et al., ICLR 2016) with maps beside the image that do not act.

Same interface as ours, so that one loop, one generation and one evaluation serve both.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from expressivegan.errors import InputError
from expressivegan.images import check_resolution
from expressivegan.models.classes import ClassSet
from expressivegan.models.layers import expressive_weights_init


def _widths(width: int, min_width: int, doublings: int) -> list[int]:
    return [max(min_width, width * 2 // 2**level) for level in range(doublings)]


class DCGANGenerator(nn.Module, PyTorchModelHubMixin, library_name="expressivegan"):
    """Transposed convolutions and batch norm; the label is embedded and appended to the latent vector.

    Args:
        z_dim, resolution, classes, reference: as in `GeneratorWithCAMGuidance`.
        width: half the channels after the stem.
        min_width: fewest channels.
    """

    def __init__(
        self,
        z_dim: int = 100,
        resolution: int = 64,
        classes: Sequence[str] = ("NORMAL", "BACTERIA", "VIRUS"),
        reference: str | None = "NORMAL",
        width: int = 128,
        min_width: int = 16,
    ) -> None:
        super().__init__()
        self.z_dim, self.resolution = z_dim, resolution
        self.class_set = ClassSet(classes, reference)
        start, doublings = check_resolution(resolution)
        widths = _widths(width, min_width, doublings)
        self.embedding = nn.Embedding(self.class_set.count, 16)

        def stage(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> nn.Sequential:
            return nn.Sequential(
                nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            )

        self.stem = stage(z_dim + 16, widths[0], start, 1, 0)
        self.stages = nn.ModuleList(stage(widths[n - 1], widths[n], 4, 2, 1) for n in range(1, doublings))
        self.map_outs = nn.ModuleList(nn.Conv2d(widths[n], 1, 1) for n in range(1, doublings))
        self.out = nn.ConvTranspose2d(widths[-1], 1, 4, 2, 1)
        self.apply(expressive_weights_init)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return self.class_set.names

    def forward(
        self, z: Tensor, labels: Tensor | None = None, steer: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Images (B, 1, H, W) in [-1, 1] and maps, coarse to fine, the last one (B, 1, H, W); they do not act.

        Raises:
            InputError: wrong shapes, or a map to follow, which this baseline cannot.
        """
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise InputError(f"z must have shape (B, {self.z_dim}), not {tuple(z.shape)}")
        if steer is not None:
            raise InputError("steer is not supported by the dcgan baseline, whose maps do not act")
        if labels is None:
            labels = torch.zeros(len(z), dtype=torch.long, device=z.device)
        labels = self.class_set.check(labels, len(z))
        x = self.stem(torch.cat([z, self.embedding(labels)], 1)[:, :, None, None])
        attention = []
        for stage, map_out in zip(self.stages, self.map_outs, strict=True):
            x = stage(x)
            attention.append(torch.sigmoid(map_out(x)))
        image = torch.tanh(self.out(x))
        attention.append(F.interpolate(attention[-1], image.shape[-2:], mode="bilinear", align_corners=False))
        return image, attention


class DCGANDiscriminator(nn.Module, PyTorchModelHubMixin, library_name="expressivegan"):
    """Strided convolutions and batch norm; the label's embedding is a second input channel.

    Args:
        resolution, classes, reference: as in `DiscriminatorWithExplain`.
        width: half the channels before the head.
        min_width: fewest channels.
    """

    def __init__(
        self,
        resolution: int = 64,
        classes: Sequence[str] = ("NORMAL", "BACTERIA", "VIRUS"),
        reference: str | None = "NORMAL",
        width: int = 128,
        min_width: int = 16,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.class_set = ClassSet(classes, reference)
        start, doublings = check_resolution(resolution)
        widths = _widths(width, min_width, doublings)[::-1]
        self.embedding = nn.Embedding(self.class_set.count, 16 * 16)
        layers: list[nn.Module] = [nn.Conv2d(2, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for n in range(1, doublings):
            layers += [
                nn.Conv2d(widths[n - 1], widths[n], 4, 2, 1, bias=False),
                nn.BatchNorm2d(widths[n]),
                nn.LeakyReLU(0.2),
            ]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(widths[-1], 1, start)
        self.map_out = nn.Conv2d(widths[-1], 1, 1)
        self.apply(expressive_weights_init)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return self.class_set.names

    def forward(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logit (B, 1) and heatmap (B, 1, H, W) in [0, 1]."""
        if labels is None:
            labels = torch.zeros(len(images), dtype=torch.long, device=images.device)
        plane = self.embedding(self.class_set.check(labels, len(images))).view(-1, 1, 16, 16)
        plane = F.interpolate(plane, images.shape[-2:], mode="nearest")
        features = self.body(torch.cat([images, plane.to(images)], 1))
        heat = F.interpolate(self.map_out(features), images.shape[-2:], mode="bilinear", align_corners=False)
        return self.head(features).flatten(1), torch.sigmoid(heat)
