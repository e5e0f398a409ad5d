"""Fixed networks with published weights. Their files are looked for, downloaded where that is possible, never run."""

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import inception

from expressivegan.atomic import replacing
from expressivegan.errors import CheckpointError, InputError, OfflineError
from expressivegan.evaluation.features.frame import INCEPTION, RAD_DINO, XRV
from expressivegan.evaluation.features.space import NetworkSpace
from expressivegan.teacher.backbone import DenseNet121, load_xrv

_INCEPTION_FILES = ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")
_INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{_INCEPTION_FILES[0]}"
_RAD_DINO = "microsoft/rad-dino"


# ---------------------------------------------------------------------------------------------------------------------
# torchxrayvision


class _Pooled(nn.Module):
    """(B, 1, S, S) in [-1, 1] → (B, 1024): what torchxrayvision calls `features2`."""

    def __init__(self, backbone: DenseNet121) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone.features(x).mean((2, 3))


def open_xrv(name: str, cache: Path | None = None) -> NetworkSpace:
    """torchxrayvision's DenseNet-121 (Cohen et al., MIDL 2022): 1,024 features in front of its head, at 224 px.

    Args:
        name: as that library names its weights, for example `densenet121-res224-all`.
        cache: folder of the weight files; the default is that library's own.

    Raises:
        InputError: no such weights.
        OfflineError: the file is neither here nor can it be downloaded.
        CheckpointError: the file is damaged or holds something else.
    """
    backbone, _ = load_xrv(name, cache)
    return NetworkSpace(f"xrv:{name}", _Pooled(backbone), XRV, batch=16)


# ---------------------------------------------------------------------------------------------------------------------
# Inception


class _InceptionA(inception.InceptionA):  # type: ignore[misc]
    def _forward(self, x: Tensor) -> list[Tensor]:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        pooled = self.branch_pool(_average(x))
        return [self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, pooled]


class _InceptionC(inception.InceptionC):  # type: ignore[misc]
    def _forward(self, x: Tensor) -> list[Tensor]:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return [self.branch1x1(x), single, double, self.branch_pool(_average(x))]


class _InceptionE(inception.InceptionE):  # type: ignore[misc]
    def __init__(self, channels: int, maximum: bool) -> None:
        super().__init__(channels)
        self.maximum = maximum

    def _forward(self, x: Tensor) -> list[Tensor]:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        # The published graph takes the maximum in its last block, where other Inceptions take the average.
        pooled = F.max_pool2d(x, 3, 1, 1) if self.maximum else _average(x)
        return [
            self.branch1x1(x),
            torch.cat([self.branch3x3_2a(single), self.branch3x3_2b(single)], 1),
            torch.cat([self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)], 1),
            self.branch_pool(pooled),
        ]


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)  # as TensorFlow does


class InceptionV3(nn.Module):
    """The Inception v3 of 2015 that FID is defined by (Heusel et al. 2017): (B, 3, 299, 299) → (B, 2048).

    torchvision's network, with the pooling of the TensorFlow graph; names of its weights as in torch-fidelity's file.
    """

    def __init__(self) -> None:
        super().__init__()
        body = inception.Inception3(num_classes=1008, aux_logits=False, init_weights=False)
        body.Mixed_5b = _InceptionA(192, pool_features=32)
        body.Mixed_5c = _InceptionA(256, pool_features=64)
        body.Mixed_5d = _InceptionA(288, pool_features=64)
        body.Mixed_6b = _InceptionC(768, channels_7x7=128)
        body.Mixed_6c = _InceptionC(768, channels_7x7=160)
        body.Mixed_6d = _InceptionC(768, channels_7x7=160)
        body.Mixed_6e = _InceptionC(768, channels_7x7=192)
        body.Mixed_7b = _InceptionE(1280, maximum=False)
        body.Mixed_7c = _InceptionE(2048, maximum=True)
        body.fc = nn.Identity()
        self.body = body
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x.contiguous(memory_format=torch.channels_last))
        return out


def open_inception(path: Path | None = None) -> NetworkSpace:
    """Inception v3 as torch-fidelity, torchmetrics and pytorch-fid define it: 2,048 features at 299 px.

    Args:
        path: torch-fidelity's or pytorch-fid's weights file, or the same weights as safetensors. The default is either
            file in torch's hub folder, downloaded where that is possible. Pickled files are read by PyTorch's
            restricted unpickler, which builds tensors only.

    Raises:
        CheckpointError: the path does not exist, or the file holds something else.
        OfflineError: no path was given, and the file is neither here nor can it be downloaded.
    """
    source = _inception_file() if path is None else path.expanduser()
    if not source.is_file():
        raise CheckpointError(
            f"inception weights (={str(source)!r}) is not a file; give the path of {_INCEPTION_FILES[0]}"
        )
    try:
        state = (
            load_file(source)
            if source.suffix == ".safetensors"
            else torch.load(source, map_location="cpu", weights_only=True)
        )
        network = InceptionV3()
        kept = {f"body.{k}": v for k, v in dict(state).items() if not k.startswith(("fc.", "AuxLogits."))}
        network.load_state_dict(kept)
    except Exception as error:  # the unpickler's many errors
        raise CheckpointError(
            f"inception weights (={str(source)!r}) are not those of torch-fidelity's Inception v3 "
            f"({type(error).__name__}); get {_INCEPTION_URL}"
        ) from error
    return NetworkSpace("inception", network, INCEPTION, batch=16)


def _inception_file() -> Path:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for name in _INCEPTION_FILES:
        if (folder / name).is_file():
            return folder / name
    target = folder / _INCEPTION_FILES[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(target) as partial:
            torch.hub.download_url_to_file(_INCEPTION_URL, str(partial), progress=False)
    except Exception as error:  # urllib's many errors, and the file system's
        raise OfflineError(
            f"features inception: the weights could not be downloaded ({type(error).__name__}); on a machine with "
            f"internet access save {_INCEPTION_URL} as {target}, or name the file: inception:PATH"
        ) from error
    return target


# ---------------------------------------------------------------------------------------------------------------------
# RAD-DINO


class _ClassToken(nn.Module):
    """(B, 3, 518, 518) → (B, 768): the class token after the last normalisation, which its authors classify from."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        token: Tensor = self.network(pixel_values=x).pooler_output
        return token


def open_rad_dino(path: Path | None = None) -> NetworkSpace:
    """RAD-DINO (Pérez-García et al., Nature Machine Intelligence 2025): 768 features of a ViT-B/14 at 518 px.

    Args:
        path: a folder with `config.json` and `model.safetensors` as published; the default is the Hugging Face
            cache, downloaded where that is possible.

    Raises:
        InputError: the optional package transformers is missing.
        CheckpointError: the folder holds something else.
        OfflineError: no path was given, and the weights are neither here nor can they be downloaded.
    """
    try:
        transformers: Any = importlib.import_module("transformers")
        build = transformers.Dinov2Model.from_pretrained
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"features rad-dino need the package transformers ({type(error).__name__}: {error}); "
            "install it: pip install transformers"
        ) from error
    if path is None:
        try:
            network, loading = build(_RAD_DINO, use_safetensors=True, output_loading_info=True)
        except Exception as error:
            raise OfflineError(
                f"features rad-dino: the weights could not be downloaded ({type(error).__name__}); on a machine with "
                f"internet access run `hf download {_RAD_DINO}`, copy that folder and name it: rad-dino:PATH"
            ) from error
        return _rad_dino(network, loading, _RAD_DINO)
    folder = path.expanduser()
    missing = [name for name in ("config.json", "model.safetensors") if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"rad-dino folder (={str(folder)!r}) holds no {' and no '.join(missing)}; download {_RAD_DINO} there"
        )
    try:  # safetensors only: nothing is unpickled
        network, loading = build(str(folder), use_safetensors=True, local_files_only=True, output_loading_info=True)
    except Exception as error:
        raise CheckpointError(
            f"rad-dino folder (={str(folder)!r}) does not hold a DINOv2 network ({type(error).__name__}); "
            f"download {_RAD_DINO} there"
        ) from error
    return _rad_dino(network, loading, str(folder))


def _rad_dino(network: nn.Module, loading: Mapping[str, Iterable[str]], source: str) -> NetworkSpace:
    # That library fills what a file lacks with random numbers, and says so in a log only.
    lacking = sorted(key for key in loading["missing_keys"] if "mask_token" not in key)  # used in training alone
    if lacking:
        raise CheckpointError(
            f"rad-dino weights (={source!r}) lack {len(lacking)} tensors of a DINOv2 network, {lacking[0]} among them; "
            f"download {_RAD_DINO} again"
        )
    return NetworkSpace("rad-dino", _ClassToken(network.float()), RAD_DINO, batch=4)
