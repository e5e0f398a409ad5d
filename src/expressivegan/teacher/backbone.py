"""The three backbones. Each ends in ReLU → global average pooling → linear, the form for which a CAM is exact."""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from expressivegan.atomic import replacing
from expressivegan.errors import CheckpointError, InputError, OfflineError
from expressivegan.images import check_resolution

XRV_PREFIX = "xrv:"
UNTRAINED = "untrained-output-"


class Backbone(nn.Module):
    """A classifier whose logits are the spatial mean of linear maps of its last, rectified features.

    Attributes:
        resolution: side of the images that it was made for.
        classifier: the linear head, (K, C).
        input_scale: factor from [-1, 1] to the range that the features expect.
        smoothing: passes of `smooth` over its maps; logits do not change with it.
    """

    resolution: int
    classifier: nn.Linear
    input_scale: float = 1.0
    smoothing: int = 0

    def features(self, images: Tensor) -> Tensor:
        """(B, 1, resolution, resolution) in [-1, 1] → (B, C, h, w) ≥ 0."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, 1, resolution, resolution) in [-1, 1]."""
        logits: Tensor = self.classifier(self.features(images).mean(dim=(2, 3)))
        return logits


class _Block(nn.Module):
    """conv-norm-ReLU-conv-norm with a shortcut; `halve` halves the grid.

    Kernels that halve the grid are even, so that a cell of it lies in the middle of the pixels that it stands for. Odd
    ones centre it on the first of them: at three halvings a map is drawn 3.5 pixels from where it was seen.
    """

    def __init__(self, inputs: int, outputs: int, halve: bool) -> None:
        super().__init__()
        kernel, side = (4, 2) if halve else (3, 1)
        first = nn.Conv2d(inputs, outputs, kernel, side, 1, bias=False)
        self.first = nn.Sequential(first, nn.BatchNorm2d(outputs))
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = (
            nn.Identity()
            if inputs == outputs and not halve
            else nn.Sequential(nn.Conv2d(inputs, outputs, side, side, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.second(F.relu(self.first(x))))


class CompactCNN(Backbone):
    """A small residual network for small images and CPUs (He et al., CVPR 2016, at a tenth of the size).

    Args:
        classes: number of classes K.
        resolution: 7·2^k or 4·2^k; the last grid is 8x8 or 14x14.
        width: channels of the first stage; doubled with every stage up to `4 * width`.
        fine: twice the last grid, with half the channels there, about the same cost; its maps are smoothed by about a
            cell, since the peak of so fine a map is otherwise one cell's.
    """

    def __init__(self, classes: int, resolution: int = 64, width: int = 32, fine: bool = False) -> None:
        super().__init__()
        _, doublings = check_resolution(resolution)
        self.resolution = resolution
        self.smoothing = 2 if fine else 0
        stages = doublings - 1
        widths = [min(width * 2**s, (2 if fine else 4) * width) for s in range(stages)]
        kernel, side = (6, 2) if stages else (5, 1)
        self.stem = nn.Sequential(nn.Conv2d(1, width, kernel, side, 2, bias=False), nn.BatchNorm2d(width))
        blocks: list[nn.Module] = []
        for s, channels in enumerate(widths):
            blocks.append(_Block(widths[max(s - 1, 0)], channels, 0 < s < stages - fine))
        blocks.append(_Block(widths[-1], widths[-1], False))
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(widths[-1], classes)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # PyTorch would list kernels of other sizes, and not say what to do.
        stem, own = state_dict.get(f"{prefix}stem.0.weight"), self.stem[0]
        if isinstance(stem, Tensor) and isinstance(own, nn.Conv2d) and own.kernel_size[1] == stem.shape[-1] + 1:
            raise RuntimeError(
                "an earlier version fitted it, with odd kernels whose maps are drawn beside what they saw; "
                "fit it anew: expressivegan teach"
            )
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def features(self, images: Tensor) -> Tensor:
        conv, norm = self.stem
        assert isinstance(conv, nn.Conv2d)
        weight, pad = conv.weight, 2
        if conv.stride == (2, 2):
            # The same sums, with 2x2 pixels as channels: gradients by one channel at stride 2 take 10x as long on CPUs.
            images, weight, pad = F.pixel_unshuffle(images, 2), F.pixel_unshuffle(weight, 2), 1
        x = F.conv2d(images.contiguous(memory_format=torch.channels_last), weight, conv.bias, padding=pad)
        found: Tensor = self.blocks(F.relu(norm(x)))
        return found


class DenseNet121(Backbone):
    """torchxrayvision's DenseNet-121, with its named weights or with a fresh head for other classes.

    Args:
        classes: number of classes K.
        resolution: side of the images; the network itself is fully convolutional.
    """

    input_scale = 1024.0

    def __init__(self, classes: int, resolution: int = 224) -> None:
        super().__init__()
        self.resolution = resolution
        with _quiet_xrv() as xrv:
            network = xrv.models.DenseNet(num_classes=classes)
        self.body = network.features
        self.classifier = network.classifier

    def features(self, images: Tensor) -> Tensor:
        # The library's own forward rectifies in place, which would change what a hook or a second reader sees.
        x = images.contiguous(memory_format=torch.channels_last) * self.input_scale
        return F.relu(self.body(x))


BACKBONES: dict[str, Callable[[int, int], Backbone]] = {
    "compact": CompactCNN,
    "compact-fine": partial(CompactCNN, fine=True),
    "densenet121": DenseNet121,
}


def make_backbone(name: str, classes: int, resolution: int) -> Backbone:
    """A fresh backbone by name.

    Raises:
        InputError: an unknown name or an unsupported resolution.
    """
    if name not in BACKBONES:
        raise InputError(f"backbone (={name!r}) must be one of {sorted(BACKBONES)}")
    return BACKBONES[name](classes, resolution)


@contextmanager
def _quiet_xrv() -> Iterator[Any]:
    """Imports torchxrayvision without letting it silence every warning of the process, as its import does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torchxrayvision as xrv

        yield xrv


def xrv_labels(name: str) -> list[str]:
    """Label names of a named torchxrayvision DenseNet-121; names of untrained outputs are empty.

    Raises:
        InputError: no such weights.
    """
    with _quiet_xrv() as xrv:
        known = {k: v for k, v in xrv.models.model_urls.items() if k.startswith("densenet121-")}
        if name not in known:
            raise InputError(f"teacher weights (=xrv:{name}) must be one of {', '.join(XRV_PREFIX + k for k in known)}")
        return list(known[name]["labels"])


def load_xrv(name: str, cache_dir: Path | None = None) -> tuple[DenseNet121, list[str]]:
    """torchxrayvision's named DenseNet-121 and its labels, downloaded by that library on first use.

    The official file is a pickled module. It is read by PyTorch's restricted unpickler, which builds nothing but the
    layers of this network, converted once to safetensors beside it, and never unpickled again.

    Args:
        name: for example `densenet121-res224-all`.
        cache_dir: folder of the weight files; the default is torchxrayvision's own.

    Raises:
        InputError: no such weights.
        OfflineError: the file is neither here nor can it be downloaded.
        CheckpointError: the file is damaged or holds something else.
    """
    labels = xrv_labels(name)
    with _quiet_xrv() as xrv:
        folder = Path(cache_dir or xrv.utils.get_cache_dir()).expanduser()
        url = str(xrv.models.model_urls[name]["weights_url"])
        source = folder / url.rsplit("/", 1)[1]
        converted = source.with_suffix(".safetensors")
        if not converted.exists():
            if not source.exists():
                download_weights(
                    xrv, url, source, f"teacher weights xrv:{name}", "fit your own teacher: expressivegan teach"
                )
            _convert(source, converted, xrv)
    backbone = DenseNet121(len(labels))
    try:
        with safe_open(str(converted), framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        backbone.load_state_dict(state)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise CheckpointError(f"{converted} is not a converted DenseNet-121; delete it and try again") from error
    return backbone.eval(), labels


def download_weights(xrv: Any, url: str, source: Path, what: str, instead: str) -> None:
    """Fetches a file of torchxrayvision's to `source`, by that library and complete.

    Args:
        xrv: the library.
        url: where it stands.
        source: where it shall stand; its folder is made.
        what: is missing, and `instead`: what else the user can do, both for the sentence below.

    Raises:
        OfflineError: it cannot be downloaded.
    """
    try:
        source.parent.mkdir(parents=True, exist_ok=True)
        with replacing(source) as partial:
            xrv.utils.download(url, str(partial))
    except Exception as error:  # requests' many errors, and the file system's
        raise OfflineError(
            f"{what} could not be downloaded ({type(error).__name__}); on a machine with internet access save {url} "
            f"as {source}, or {instead}"
        ) from error


def _convert(source: Path, target: Path, xrv: Any) -> None:
    models = xrv.models
    layers: list[Any] = [models.DenseNet, models._DenseBlock, models._DenseLayer, models._Transition]
    layers += [nn.Sequential, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.Linear, set]
    try:
        with torch.serialization.safe_globals(layers):
            module = torch.load(source, map_location="cpu", weights_only=True)
        # Read the parameters without calling anything of the loaded object but Module's own traversal.
        state = {k: v for k, v in nn.Module.state_dict(module).items() if k != "op_threshs"}
        state = {
            ("body." + k.removeprefix("features.") if k.startswith("features.") else k): v for k, v in state.items()
        }
    except Exception as error:
        raise CheckpointError(
            f"{source} is not torchxrayvision's DenseNet-121 file ({type(error).__name__}: {str(error)[:120]}); "
            "delete it and let it be downloaded again"
        ) from error
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    with replacing(target) as temporary:
        save_file({k: v.contiguous() for k, v in state.items()}, temporary, metadata={"source_sha256": digest})


def smooth(maps: Tensor) -> Tensor:
    """Maps (B, K, h, w) smoothed with 1-2-1 over 4 along both axes; their means are exactly what they were.

    The edge is repeated beyond itself, so that what a cell gives away never leaves the map.
    """
    kernel = maps.new_tensor([1.0, 2.0, 1.0]) / 4
    weight = torch.outer(kernel, kernel).expand(maps.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(maps, (1, 1, 1, 1), mode="replicate"), weight, groups=maps.shape[1])


def probabilities(logits: Tensor, multi_label: bool) -> Tensor:
    """(B, K) probabilities: sigmoid for multi-label heads, else softmax."""
    return logits.sigmoid() if multi_label else logits.softmax(1)


def topk_count(candidates: int, classes: int) -> int:
    """How many classes `topk` merges: min(3, K-1), and 1 where K ≤ 3, since 3 of 3 would be the mean."""
    return max(1, min(1 if classes <= 3 else 3, candidates, classes - 1))


def class_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Names of the outputs; unnamed ones get their index.

    >>> class_names(["Edema", ""])
    ('Edema', 'untrained-output-1')
    """
    return tuple(name or f"{UNTRAINED}{i}" for i, name in enumerate(classes))
