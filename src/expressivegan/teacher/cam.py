"""Class-activation maps (Zhou et al., *Learning Deep Features for Discriminative Localization*, CVPR 2016, section 2).

For a network that ends in ReLU → global average pooling → linear, `CAM_k = Σ_c w_kc · relu(f_c)` is exact:
`mean(CAM_k) + b_k = logit_k`. Softmax ignores a map that is added to all classes, so under softmax a single class's CAM
is arbitrary up to a common map: before merging, the reference class's CAM is subtracted and the reference left out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from expressivegan.config import Merge
from expressivegan.errors import InputError
from expressivegan.images import check_images
from expressivegan.teacher.backbone import (
    UNTRAINED,
    XRV_PREFIX,
    Backbone,
    class_names,
    load_xrv,
    make_backbone,
    probabilities,
    smooth,
    topk_count,
    xrv_labels,
)
from expressivegan.weights import find_teacher

DEFAULT_WEIGHTS = "xrv:densenet121-res224-all"


class TeacherOutput(NamedTuple):
    """What the teacher says: it unpacks as `cams, ups, logits = teacher(images)`.

    Attributes:
        cams: (B, 1, H, W) in [0, 1], the merged, referenced map; near 0 on a confident NORMAL.
        ups: (B, K, H, W), the raw signed CAMs, upsampled.
        logits: (B, K).
    """

    cams: Tensor
    ups: Tensor
    logits: Tensor


class CXR_CAM_Teacher(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="expressivegan",
    tags=["chest-x-ray", "class-activation-map"],
):
    """A classifier that shows where it sees each class.

    Args:
        meth: how the referenced maps of the classes are merged: `max` over classes, `mean`, `weighted` by probability,
            or `topk`, the mean over the likeliest min(3, K-1) classes (1 where K ≤ 3).
        weights: `xrv:NAME` for torchxrayvision's DenseNet-121 (downloaded on first use), or None for fresh weights.
        backbone: architecture of fresh weights: `compact-fine`, `compact` or `densenet121`, see docs/teacher.md.
        classes: class names of fresh weights.
        reference: the class without disease, or None; named weights have none.
        resolution: side of the images that the network works at; others are resized to it.
        scale: the CAM value that counts as 1, in logits; `calibrate` measures it.
        multi_label: sigmoid outputs, as torchxrayvision's, rather than softmax.

    Raises:
        InputError: an unknown merge, backbone, class or weights.
        OfflineError: named weights that are neither here nor can be downloaded.

    >>> teacher = CXR_CAM_Teacher("max", weights=None, backbone="compact", resolution=32).eval()
    >>> cams, ups, logits = teacher(torch.zeros(2, 1, 32, 32))
    >>> cams.shape, ups.shape, logits.shape
    (torch.Size([2, 1, 32, 32]), torch.Size([2, 3, 32, 32]), torch.Size([2, 3]))
    """

    def __init__(
        self,
        meth: Merge = "topk",
        weights: str | None = DEFAULT_WEIGHTS,
        backbone: str = "compact",
        classes: Sequence[str] = ("NORMAL", "BACTERIA", "VIRUS"),
        reference: str | None = "NORMAL",
        resolution: int = 64,
        scale: float = 4.0,
        multi_label: bool = False,
        pretrained_head: bool = True,
    ) -> None:
        super().__init__()
        if meth not in get_args(Merge):
            raise InputError(f"meth (={meth!r}) must be one of {', '.join(get_args(Merge))}")
        if not scale > 0:
            raise InputError(f"scale (={scale}) must be positive")
        self.meth: Merge = meth
        self.backbone: Backbone
        if weights is not None:
            if not weights.startswith(XRV_PREFIX):
                raise InputError(
                    f"weights (={weights!r}) must be 'xrv:NAME' or None; open a folder with "
                    "CXR_CAM_Teacher.from_pretrained(folder)"
                )
            name = weights.removeprefix(XRV_PREFIX)
            if pretrained_head:
                self.backbone, labels = load_xrv(name)
            else:  # a fitted or re-opened copy: its own weights follow
                labels = xrv_labels(name)
                self.backbone = make_backbone("densenet121", len(labels), 224)
            classes, reference, multi_label = class_names(labels), None, True
        else:
            if len(classes) < 2:
                raise InputError(f"classes (={list(classes)}) must name at least two classes to tell apart")
            if reference is not None and reference not in classes:
                raise InputError(f"reference (={reference!r}) must be one of {list(classes)} or None")
            self.backbone = make_backbone(backbone, len(classes), resolution)
        self.classes = tuple(classes)
        # Named weights leave some outputs untrained, without a label: their maps are noise and are never merged.
        self.trained = [k for k, name in enumerate(self.classes) if not (multi_label and name.startswith(UNTRAINED))]
        self.reference = self.classes.index(reference) if reference is not None else None
        self.multi_label = multi_label
        if meth == "mean" and not multi_label and self.reference is None:
            raise InputError("meth (='mean') needs a reference class: the mean of maps less their mean is 0")
        self.register_buffer("scale", torch.tensor(float(scale)))
        self.scale: Tensor

    def save_pretrained(self, save_directory: str | Path, *, config: Any = None, **kwargs: Any) -> str | None:
        """Writes a directory that opens without the file of the named weights: they are in it."""
        found = cast("dict[str, Any]", config or self._hub_mixin_config or {})
        return super().save_pretrained(save_directory, config=found | {"pretrained_head": False}, **kwargs)

    @property
    def resolution(self) -> int:
        """Side of the images that the network works at."""
        return self.backbone.resolution

    def raw_cams(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Raw signed CAMs (B, K, h, w) on the network's own grid, and logits (B, K). No range check."""
        side = self.resolution
        if images.shape[-2:] != (side, side):
            images = F.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=True)
        features = self.backbone.features(images)
        head = self.backbone.classifier
        with torch.autocast(features.device.type, enabled=False):  # the identity holds in the head's precision
            features = features.to(head.weight.dtype)
            cams = F.conv2d(features, head.weight[:, :, None, None])
            for _ in range(self.backbone.smoothing):
                cams = smooth(cams)
            return cams, cams.mean(dim=(2, 3)) + head.bias

    def referenced(self, cams: Tensor) -> Tensor:
        """Raw CAMs (B, K, h, w) → what speaks for each class, against the reference (itself 0), unscaled."""
        return cams if self.multi_label else referenced(cams, self.reference)

    def class_cams(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Referenced CAMs (B, K, h, w) in units of `scale`, signed, on the network's grid, and logits (B, K).

        This is what guides training: differentiable, per class, no range check.
        """
        cams, logits = self.raw_cams(images)
        return self.referenced(cams) / self.scale, logits

    def merge(self, cams: Tensor, logits: Tensor) -> Tensor:
        """Raw CAMs (B, K, h, w) and logits (B, K) → merged map (B, 1, h, w) in [0, 1].

        A map that is the same everywhere says nothing about where, and becomes 0.
        """
        maps = self.referenced(cams)
        keep = [k for k in self.trained if k != self.reference]
        maps, scores = maps[:, keep], probabilities(logits, self.multi_label)[:, keep]
        if self.meth == "max":
            merged = maps.amax(1, keepdim=True)
        elif self.meth == "mean":
            merged = maps.mean(1, keepdim=True)
        elif self.meth == "weighted":
            weights = scores / scores.sum(1, keepdim=True).clamp_min(1e-12)
            merged = (maps * weights[:, :, None, None]).sum(1, keepdim=True)
        else:
            k = topk_count(len(keep), len(self.trained))
            chosen = scores.topk(k, dim=1).indices[:, :, None, None].expand(-1, -1, *maps.shape[2:])
            merged = maps.gather(1, chosen).mean(1, keepdim=True)
        spread = merged.amax(dim=(2, 3), keepdim=True) - merged.amin(dim=(2, 3), keepdim=True)
        return (merged / self.scale).clamp(0, 1) * (spread > 1e-6 * self.scale)

    def forward(self, images: Tensor) -> TeacherOutput:
        """Maps and logits of images (B, 1, H, W) in [-1, 1].

        Raises:
            InputError: wrong shape or range.
        """
        check_images(images)
        cams, logits = self.raw_cams(images)
        size = images.shape[-2:]
        ups = F.interpolate(cams, size, mode="bilinear", align_corners=False)
        merged = F.interpolate(self.merge(cams, logits), size, mode="bilinear", align_corners=False)
        return TeacherOutput(merged, ups, logits)

    @torch.no_grad()
    def calibrate(self, images: Tensor, labels: Tensor, quantile: float = 0.9, batch: int = 256) -> float:
        """Sets `scale` so that the given quantile of the peaks of diseased images' own CAMs becomes 1.

        Args:
            images: (N, 1, H, W) in [-1, 1].
            labels: (N,).
            quantile: share of images whose map stays below 1 everywhere.
            batch: images at a time.

        Returns:
            The scale, in logits.

        Raises:
            InputError: no image is diseased.
        """
        peaks = []
        for x, y in zip(torch.split(images, batch), torch.split(labels, batch), strict=True):
            maps = self.referenced(self.raw_cams(x)[0])[torch.arange(len(x)), y]
            peaks.append(maps.amax(dim=(1, 2))[y != (-1 if self.reference is None else self.reference)])
        if not sum(map(len, peaks)):
            raise InputError("labels name no diseased image, and the scale of the maps is taken from those")
        self.scale.fill_(max(float(torch.cat(peaks).quantile(quantile)), 1e-3))
        return float(self.scale)


def referenced(x: Tensor, reference: int | None) -> Tensor:
    """Logits (B, K) or maps (B, K, h, w) less the reference class's, or where there is none less their mean: softmax
    knows no more."""
    return x - (x.mean(1, keepdim=True) if reference is None else x[:, reference : reference + 1])


def minmax(maps: Tensor) -> Tensor:
    """Scales each map (B, C, H, W) to its own [0, 1], for display only; a constant map becomes 0."""
    low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
    return torch.where(high - low > 1e-6, (maps - low) / (high - low).clamp_min(1e-6), torch.zeros_like(maps))


def open_teacher(name: str, meth: Merge | None = None) -> CXR_CAM_Teacher:
    """A teacher in evaluation mode, from `xrv:NAME`, a model directory, or a run or shipped model that holds one.

    Raises:
        OfflineError: named weights that cannot be had.
        CheckpointError: the directory is missing or damaged.
    """
    from expressivegan.checkpoint import open_model

    if name.startswith(XRV_PREFIX):
        teacher = CXR_CAM_Teacher(meth or "topk", weights=name)
    else:
        teacher = open_model(CXR_CAM_Teacher, find_teacher(name))
    if meth is not None:
        teacher.meth = meth
    return teacher.eval()
