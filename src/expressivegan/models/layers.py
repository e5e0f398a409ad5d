"""Building blocks shared by generator and discriminator, and their initialisation.

Residual blocks without normalisation layers, after R3GAN (Huang et al., *The GAN is dead; long live the GAN!*, NeurIPS
2024, section 3), with dense instead of grouped convolutions, which are faster on CPUs under double backward.
"""

import functools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from expressivegan.models.penalised import penalised_conv2d


class Conv(nn.Conv2d):
    """A same-padded convolution that knows the gain with which `expressive_weights_init` shall initialise it."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, bias: bool = True, gain: float = 1.0) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
        self.gain = gain
        expressive_weights_init(self)


class PenalisedConv(Conv):
    """A `Conv` whose gradient penalty is cheap; see `penalised_conv2d`."""

    def forward(self, input: Tensor) -> Tensor:
        return penalised_conv2d(input, self.weight, self.bias, int(self.padding[0]))


class Dense(nn.Linear):
    """A linear layer that knows the gain with which `expressive_weights_init` shall initialise it."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True, gain: float = 1.0) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.gain = gain
        expressive_weights_init(self)


def expressive_weights_init(module: nn.Module) -> None:
    """Initialises one module; use it as `network.apply(expressive_weights_init)`.

    Our own layers get a normal distribution of variance gain² / fan_in (the branch that ends a residual block has gain
    0, as in fix-up initialisation, Zhang et al. 2019). Plain DCGAN-style modules get the values of Radford et al. 2016:
    normal(0, 0.02) for convolutions, normal(1, 0.02) for the weights of norms, zero biases; linears get Xavier.

    >>> network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).apply(expressive_weights_init)
    >>> network[0].bias.abs().sum().item()
    0.0
    """
    if isinstance(module, (Conv, Dense)):
        std = module.gain / math.sqrt(module.weight[0].numel())
        nn.init.normal_(module.weight, 0.0, std) if std > 0 else nn.init.zeros_(module.weight)
    elif isinstance(module, (nn.modules.conv._ConvNd,)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)):
        if module.weight is not None:
            nn.init.normal_(module.weight, 1.0, 0.02)
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
    else:
        return
    if isinstance(module.bias, Tensor):
        nn.init.zeros_(module.bias)


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2."""
    return F.leaky_relu(x, 0.2)


def branch(first: nn.Module, second: nn.Module, x: Tensor) -> Tensor:
    """A pre-activated residual branch. What lies between its convolutions is activated in place: memory is dear."""
    out: Tensor = second(F.leaky_relu_(first(activate(x)), 0.2))
    return out


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


@functools.lru_cache(maxsize=64)
def _shares(channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(C, 1, 4, 4): what the cells around it have of each, (1, 3, 3, 1) / 4 along both axes."""
    share = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=dtype, device=device) / 4
    return torch.outer(share, share).expand(channels, 1, 4, 4).contiguous()


class _Upsample(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _doubled(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        found: Tensor = _Gather.apply(grad)
        return found


class _Gather(Function):
    """The adjoint of `_Upsample`: each cell's share of the finer ones around it."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor) -> Tensor:
        weight = _shares(grad.shape[1], grad.dtype, grad.device)
        return F.conv2d(F.pad(grad, (1, 1, 1, 1), mode="replicate"), weight, stride=2, groups=grad.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        found: Tensor = _Upsample.apply(grad)
        return found


def upsample(x: Tensor) -> Tensor:
    """Doubles height and width bilinearly.

    On CPUs its gradient is recorded as a convolution by channel, which takes a third of the time of PyTorch's.
    """
    if x.requires_grad and torch.is_grad_enabled() and x.device.type == "cpu":
        found: Tensor = _Upsample.apply(x)
        return found
    return _doubled(x)


def downsample(x: Tensor) -> Tensor:
    """Halves height and width by averaging."""
    return F.avg_pool2d(x, 2)


class ModulatedBlock(nn.Module):
    """Scale and shift by a style, then a pre-activated residual branch of two 3x3 convolutions.

    Args:
        channels: channels in and out.
        style: length of the style vector.
    """

    def __init__(self, channels: int, style: int) -> None:
        super().__init__()
        self.affine = Dense(style, 2 * channels, gain=0.5)
        self.first = Conv(channels, channels, gain=math.sqrt(2))
        self.second = Conv(channels, channels, gain=0.0)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        # x: (B, C, H, W); style: (B, S)
        scale, shift = self.affine(style)[:, :, None, None].chunk(2, dim=1)
        # One pass over x; the plain sum with a vector per image is slow in bf16 on CPUs.
        x = torch.addcmul(shift, x, 1 + scale)
        return branch(self.first, self.second, x).add_(x)


class ResidualBlock(nn.Module):
    """A pre-activated residual branch of two 3x3 convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = PenalisedConv(inputs, outputs, gain=math.sqrt(2))
        self.second = PenalisedConv(outputs, outputs, gain=0.25)
        self.skip = PenalisedConv(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return branch(self.first, self.second, x).add_(self.skip(x))
