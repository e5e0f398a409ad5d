"""Grad-CAM, Grad-CAM++ and occlusion by libraries that others maintain, beside our own maps.

Each explains what ours do: the class's logit against the reference class (softmax ignores what is added to all), at the
last, rectified features. There Grad-CAM (Selvaraju et al., ICCV 2017) is our referenced CAM before smoothing, rectified
and divided by the number of cells: the teacher's backbone `compact-fine` smooths its own maps by about a cell, the
libraries do not. Grad-CAM++ (Chattopadhyay et al., WACV 2018) and occlusion (Zeiler and Fergus, ECCV 2014) are not.
"""

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from expressivegan.errors import InputError
from expressivegan.explain.maps import Map, rival, to_array
from expressivegan.teacher import CXR_CAM_Teacher

Method = Literal["grad-cam", "grad-cam++", "occlusion"]
METHODS: tuple[Method, ...] = ("grad-cam", "grad-cam++", "occlusion")
_WINDOWS = 8  # the covered square is an eighth of the side, and moves by half of itself


class Margins(nn.Module):
    """A teacher's logits (B, K) against its reference, with its last features at hand as the output of `seam`."""

    def __init__(self, teacher: CXR_CAM_Teacher) -> None:
        super().__init__()
        self.teacher = teacher
        self.seam = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        features = self.seam(self.teacher.backbone.features(images))
        logits = self.teacher.backbone.classifier(features.mean(dim=(2, 3)))
        return self.teacher.referenced(logits[:, :, None, None])[:, :, 0, 0]


def missing_library() -> str | None:
    """The library of the extra `explain` that is not installed, if any."""
    from importlib.util import find_spec

    absent = [name for name in ("captum", "pytorch_grad_cam") if find_spec(name) is None]
    return absent[0] if absent else None


def check_methods(methods: Sequence[str]) -> None:
    """Raises InputError for an unknown method, or one whose library is not installed."""
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise InputError(f"methods (={unknown[0]!r}) must be among {', '.join(METHODS)}")
    if methods and (absent := missing_library()):
        raise InputError(
            f"methods (={', '.join(methods)}) need {absent}, which is not installed: pip install "
            "'expressivegan[explain]', or leave them out"
        )


def peer_maps(
    teacher: CXR_CAM_Teacher, images: Tensor, focus: Sequence[int], methods: Sequence[Method] = METHODS
) -> list[dict[str, Map]]:
    """Maps by other methods.

    Args:
        teacher: in evaluation mode.
        images: (B, 1, R, R) in [-1, 1] at the teacher's own resolution.
        focus: for each the class to explain; not the reference, whose margin is 0.
        methods: which.

    Returns:
        For each image its maps by method.

    Raises:
        InputError: an unknown method, or the extra `explain` is not installed.
    """
    check_methods(methods)
    network = Margins(copy.deepcopy(teacher)).eval().requires_grad_(False)  # the libraries leave gradients behind
    makers = {"grad-cam": _grad_cam, "grad-cam++": _grad_cam_plus_plus, "occlusion": occlusion}
    found: list[dict[str, Map]] = [{} for _ in images]
    for method in methods:
        values = makers[method](network, images, list(focus))
        for maps, k, seen in zip(found, focus, values, strict=True):
            maps[method] = _described(method, seen, f"class {teacher.classes[k]}", rival(teacher))
    return found


def _described(method: Method, values: Tensor, of: str, against: str) -> Map:
    end = max(float(values.abs().max()), 1e-6)
    if method == "occlusion":
        unit = f"{against}, lost where it is covered"
        return Map(f"occlusion, {of}", to_array(values), unit, -end, end, own_range=True)
    if method == "grad-cam":
        return Map(f"Grad-CAM, {of}", to_array(values), against, 0.0, end, own_range=True)
    return Map(f"Grad-CAM++, {of}", to_array(values), "share of its own range", 0.0, 1.0, own_range=True)


def _grad_cam(network: Margins, images: Tensor, focus: list[int]) -> Tensor:
    """(B, h, w) ≥ 0, times the number of cells: in logits, as our CAMs; never smoothed."""
    from captum.attr import LayerGradCam

    found: Tensor = LayerGradCam(network, network.seam).attribute(
        images.clone().requires_grad_(), target=torch.tensor(focus, device=images.device), relu_attributions=True
    )
    return found[:, 0].detach() * found[0, 0].numel()


def _grad_cam_plus_plus(network: Margins, images: Tensor, focus: list[int]) -> Tensor:
    """(B, R, R) in [0, 1], as the library scales it: by each image's own range."""
    from pytorch_grad_cam import GradCAMPlusPlus
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets: list[Any] = [ClassifierOutputTarget(k) for k in focus]
    with GradCAMPlusPlus(model=network, target_layers=[network.seam]) as method:
        return torch.from_numpy(method(input_tensor=images.clone().requires_grad_(), targets=targets))


def occlusion(network: nn.Module, images: Tensor, focus: list[int]) -> Tensor:
    """(B, R, R): how much of a class's output is lost when a square around a pixel is covered with the mean grey."""
    from captum.attr import Occlusion

    side = max(2, images.shape[-1] // _WINDOWS)
    grey = images.mean(dim=(2, 3), keepdim=True).expand_as(images).contiguous()
    with torch.no_grad():
        found: Tensor = Occlusion(network).attribute(
            images,
            (1, side, side),
            strides=(1, side // 2, side // 2),
            baselines=grey,
            target=torch.tensor(focus, device=images.device),
            perturbations_per_eval=8,
        )
    return found[:, 0]
