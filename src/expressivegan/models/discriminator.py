"""The discriminator: a score that *is* the mean of its evidence map, and a class map matched to the teacher's."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from expressivegan.errors import InputError
from expressivegan.images import check_images, check_resolution
from expressivegan.models.classes import ClassSet
from expressivegan.models.layers import Conv, PenalisedConv, ResidualBlock, activate, downsample, upsample


class Explanation(NamedTuple):
    """What `DiscriminatorWithExplain` has to say about a batch.

    Attributes:
        score: (B, 1), realness; relativistic, so its zero point means nothing.
        evidence: (B, 1, h, w), whose mean is the score.
        class_maps: (B, K, h, w), referenced class maps in units of the teacher's `cams` (not clipped).
        class_logits: (B, K).
    """

    score: Tensor
    evidence: Tensor
    class_maps: Tensor
    class_logits: Tensor


class DiscriminatorWithExplain(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="expressivegan",
    tags=["chest-x-ray", "gan", "explainability"],
):
    """Tells real from made images, and says where it looked.

    The projection conditioning (Miyato and Koyama, *cGANs with Projection Discriminator*, ICLR 2018) is applied in
    every cell and the score is the mean over cells, so the evidence map is an exact decomposition of the score.
    A second head, global average pooling → linear over the same features, classifies; its class-activation map,
    referenced to the class without a lesion, is what training matches to the teacher's.

    Args:
        resolution: height and width of the image, 7·2^k or 4·2^k.
        classes: class names in their fixed order; an empty sequence makes an unconditional discriminator.
        reference: the class without a lesion, or None.
        width: channels at the coarsest levels; halved with every doubling past 8x8 (7·2).
        min_width: floor of the channels at the finest levels.

    Raises:
        InputError: an unsupported resolution, size or class.

    >>> discriminator = DiscriminatorWithExplain(resolution=32, width=16)
    >>> score, cam = discriminator(torch.zeros(2, 1, 32, 32), torch.tensor([0, 2]))
    >>> score.shape, cam.shape
    (torch.Size([2, 1]), torch.Size([2, 1, 32, 32]))
    """

    def __init__(
        self,
        resolution: int = 224,
        classes: Sequence[str] = ("NORMAL", "BACTERIA", "VIRUS"),
        reference: str | None = "NORMAL",
        width: int = 128,
        min_width: int = 16,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.class_set = ClassSet(classes, reference)
        start, doublings = check_resolution(resolution)
        # Coarse to fine, as in the generator, less the finest: 2x2 pixels become channels first, which loses nothing
        # and halves the cost of a step. The network runs from fine to coarse.
        widths = [max(min_width, min(width, width * 2 // 2**level)) for level in range(doublings)]
        self.stem = PenalisedConv(4, widths[-1])
        self.blocks = nn.ModuleList(
            ResidualBlock(widths[min(level + 1, doublings - 1)], widths[level]) for level in reversed(range(doublings))
        )
        C = widths[0]
        self.join = PenalisedConv(C, C, 1)  # the context of the coarsest level, brought to the grid of the evidence
        # What counts as evidence differs from place to place: lungs belong at the sides, the spine in the middle. A
        # head that is the same everywhere let the generator repeat one anatomy per class (docs/networks.md). Signs are
        # mixed, and of a size that makes the mean over cells about 1.
        grid = start * 2
        self.place = nn.Parameter(torch.empty(1, C, grid, grid))
        nn.init.normal_(self.place, 0.0, float(grid))
        self.evidence_head = Conv(C, 1, 1)
        self.projection = nn.Embedding(self.class_set.count, C)
        nn.init.normal_(self.projection.weight, 0.0, 1 / math.sqrt(C))
        self.class_head = Conv(C, self.class_set.count, 1)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return self.class_set.names

    def features(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) in [-1, 1] → (B, C, h, w), on the grid of the evidence: 8x8 or 14x14."""
        x = F.pixel_unshuffle(images, 2).contiguous(memory_format=torch.channels_last)
        x = fine = self.stem(x)
        for level, block in zip(reversed(range(len(self.blocks))), self.blocks, strict=True):
            x = block(x)
            if level == 1:
                fine = x
            if level > 0:
                x = downsample(x)
        return activate(fine + self.join(upsample(x)))

    def _evidence(self, features: Tensor, labels: Tensor | None) -> Tensor:
        # The decomposition is exact in the precision of the weights only; features may come in bf16.
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(self.evidence_head.weight.dtype) * self.place
            evidence = F.conv2d(features, self.evidence_head.weight, self.evidence_head.bias)
            if self.class_set.names:
                if labels is None:  # no label: the evidence of the average class
                    direction = self.projection.weight.mean(0, keepdim=True)
                else:
                    direction = self.projection(self.class_set.check(labels, len(features)))
                evidence = evidence + (features * direction[:, :, None, None]).sum(1, keepdim=True)
            return evidence

    def score(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, 1) realness alone, without checking the images: the score of `explain`."""
        return self._evidence(self.features(images), labels).mean(dim=(2, 3))

    def explain(self, images: Tensor, labels: Tensor | None = None) -> Explanation:
        """Score, evidence, class maps and class logits of images (B, 1, H, W) in [-1, 1].

        Raises:
            InputError: wrong shape, size, range or label.
        """
        check_images(images)
        if images.shape[2:] != (self.resolution, self.resolution):
            raise InputError(
                f"images must be {self.resolution}x{self.resolution}, as the discriminator's, not "
                f"{images.shape[2]}x{images.shape[3]}"
            )
        return self.explain_unchecked(images, labels)

    def explain_unchecked(self, images: Tensor, labels: Tensor | None = None) -> Explanation:
        """`explain` without the range check, for augmented images in training."""
        features = self.features(images)
        evidence = self._evidence(features, labels)
        with torch.autocast(features.device.type, enabled=False):
            maps = F.conv2d(features.to(self.class_head.weight.dtype), self.class_head.weight)
            logits = maps.mean(dim=(2, 3))
            if self.class_head.bias is not None:
                logits = logits + self.class_head.bias
        if self.class_set.reference is not None:
            maps = maps - maps[:, self.class_set.reference : self.class_set.reference + 1]
        else:
            maps = maps - maps.mean(1, keepdim=True)
        return Explanation(evidence.mean(dim=(2, 3)), evidence, maps, logits)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Score (B, 1) and class map (B, 1, H, W) in [0, 1].

        The map is that of the label's class; without a label, or where the label is the reference, that of the
        likeliest class with a lesion.

        Raises:
            InputError: wrong shape, size, range or label.
        """
        found = self.explain(images, labels)
        maps = found.class_maps
        if len(self.class_set.names) < 2:
            # Nothing to tell apart: the evidence, minus its smallest value, is the only map there is.
            cam = found.evidence - found.evidence.amin(dim=(2, 3), keepdim=True)
        else:
            logits = found.class_logits.clone()
            if self.class_set.reference is not None:
                logits[:, self.class_set.reference] = -torch.inf
            chosen = logits.argmax(1)
            if labels is not None:
                chosen = torch.where(self.class_set.has_lesion(labels), labels, chosen)
            cam = maps[torch.arange(len(maps), device=maps.device), chosen].unsqueeze(1)
        cam = F.interpolate(cam, images.shape[-2:], mode="bilinear", align_corners=False)
        return found.score, cam.clamp(0, 1)
