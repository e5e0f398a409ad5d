"""Masks of lungs and heart by torchxrayvision's PSPNet, where its weights can be had.

The network was fitted on ChestX-Det (Lian et al., *A Structure-Aware Relation Network for Thoracic Diseases Detection
and Segmentation*, TMI 2021), radiographs of adults.
"""

import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from expressivegan.atomic import replacing
from expressivegan.errors import CheckpointError
from expressivegan.evaluation.anatomy.curves import SIDE, Masks, Pixels
from expressivegan.teacher.backbone import download_weights

URL = "https://github.com/mlmed/torchxrayvision/releases/download/v1/pspnet_chestxray_best_model_4.pth"
TARGETS = (
    "Left Clavicle", "Right Clavicle", "Left Scapula", "Right Scapula", "Left Lung", "Right Lung",
    "Left Hilus Pulmonis", "Right Hilus Pulmonis", "Heart", "Aorta", "Facies Diaphragmatica", "Mediastinum", "Weasand",
    "Spine",
)  # fmt: skip
_RESOLUTION = 512
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, per channel
_BATCH = 4


class PSPNetMasks:
    """A source of masks for `landmarks`. Takes seconds an image on a CPU.

    Args:
        cache_dir: folder of the weight file; the default is torchxrayvision's own.
        device: where the network runs.

    Raises:
        OfflineError: the file is neither here nor can it be downloaded.
        CheckpointError: the file is damaged or holds something else.
    """

    def __init__(self, cache_dir: Path | None = None, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._network = _load(cache_dir).to(self._device).eval()

    @torch.inference_mode()
    def __call__(self, images: Pixels) -> Masks:
        """uint8 (N, H, W) → masks (N, 64, 64); a pixel belongs to a structure of which it is more likely than not."""
        found = []
        for start in range(0, len(images), _BATCH):
            x = torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH], np.float32))[:, None]
            x = F.interpolate(x.to(self._device), (_RESOLUTION, _RESOLUTION), mode="bilinear", antialias=True) / 255
            mean, std = (torch.tensor(v, device=self._device).view(1, 3, 1, 1) for v in (_MEAN, _STD))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the network calls a deprecated name of PyTorch's
                logits: Tensor = self._network((x - mean) / std)
            chance = F.adaptive_avg_pool2d(logits.sigmoid(), SIDE)
            found.append((chance > 0.5).cpu().numpy())
        masks = np.concatenate(found)
        right, left, heart = (masks[:, TARGETS.index(name)] for name in ("Right Lung", "Left Lung", "Heart"))
        return Masks(right, left, heart)


def _library() -> tuple[Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import would silence every warning of the process
        import torchxrayvision as xrv
        from torchxrayvision.baseline_models.chestx_det.ptsemseg.pspnet import pspnet
    return xrv, pspnet


def _load(cache_dir: Path | None) -> nn.Module:
    xrv, pspnet = _library()
    folder = Path(cache_dir or xrv.utils.get_cache_dir()).expanduser()
    source = folder / URL.rsplit("/", 1)[1]
    converted = source.with_suffix(".safetensors")
    if not converted.exists():
        if not source.exists():
            instead = "leave them out: landmarks are measured without them"
            download_weights(xrv, URL, source, "PSPNet's weights", instead)
        _convert(source, converted)
    network: nn.Module = pspnet(len(TARGETS))
    try:
        network.load_state_dict(load_file(converted))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise CheckpointError(f"{converted} is not a converted PSPNet; delete it and try again") from error
    return network


def _convert(source: Path, target: Path) -> None:
    """Reads the official file with PyTorch's restricted unpickler, once, and keeps its tensors as safetensors."""
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
        tensors = {str(k).removeprefix("module."): v.contiguous() for k, v in state.items() if isinstance(v, Tensor)}
    except Exception as error:
        raise CheckpointError(
            f"{source} is not torchxrayvision's PSPNet file ({type(error).__name__}: {str(error)[:120]}); "
            "delete it and let it be downloaded again"
        ) from error
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    with replacing(target) as temporary:
        save_file(tensors, temporary, metadata={"source_sha256": digest})
