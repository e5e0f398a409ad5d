"""Convolutions whose gradient can be differentiated cheaply: what R1 and R2 spend their time on.

PyTorch derives the second derivative of a convolution through generic code that swaps batch and channels and is several
times slower than the convolution itself on CPUs. A gradient penalty needs only one part of it: the input gradient is
itself a (transposed) convolution of the output gradient with the weight, so it is recorded as one, after the idea of
conv2d_gradfix (Karras et al., *Training generative adversarial networks with limited data*, NeurIPS 2020, code).
Inside `input_gradients_only()` the weight gradient is left out, since a penalty never asks for it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight

# A plain global: on CUDA and MPS autograd runs backward in its own thread, which sees no context variable of ours.
_input_only = False


@contextmanager
def input_gradients_only() -> Iterator[None]:
    """Within it, `torch.autograd.grad(..., inputs=images)` spends no time on gradients of weights."""
    global _input_only
    before, _input_only = _input_only, True
    try:
        yield
    finally:
        _input_only = before


def _backward(grad: Tensor, x: Tensor, weight: Tensor, pad: int, mask: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    bias_sizes = [weight.shape[0]] if mask[2] else None
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        grad, x, weight, bias_sizes, [1, 1], [pad, pad], [1, 1], False, [0, 0], 1, mask
    )
    return found


class _InputGradient(Function):
    """(output gradient, weight) → input gradient, differentiable once in both."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, pad: int) -> Tensor:
        ctx.save_for_backward(grad, weight)
        ctx.pad = pad
        # x gives its shape and memory format alone, so the result does not depend on its values
        return _backward(grad, x, weight, pad, [True, False, False])[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None, None]:
        output_gradient, weight = ctx.saved_tensors
        to_output = torch.conv2d(grad, weight, padding=ctx.pad) if ctx.needs_input_grad[0] else None
        to_weight = None
        if ctx.needs_input_grad[2]:
            to_weight = _backward(output_gradient, grad, weight, ctx.pad, [False, True, False])[1]
        return to_output, None, to_weight, None


class _PenalisedConvolution(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, pad: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.pad = pad
        return torch.conv2d(x, weight, bias, padding=pad)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        to_x = _InputGradient.apply(grad, x.detach(), weight, ctx.pad) if ctx.needs_input_grad[0] else None
        to_weight = to_bias = None
        if not _input_only:
            if torch.is_grad_enabled():  # somebody else's second derivative: plain, slower, differentiable
                to_weight = conv2d_weight(x, weight.shape, grad, padding=ctx.pad)  # type: ignore[no-untyped-call]
                to_bias = grad.sum(dim=(0, 2, 3)) if ctx.needs_input_grad[2] else None
            elif ctx.needs_input_grad[1]:
                mask = [False, True, bool(ctx.needs_input_grad[2])]
                _, to_weight, to_bias = _backward(grad, x, weight, ctx.pad, mask)
        return to_x, to_weight, to_bias, None


def penalised_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """`torch.conv2d` at stride 1, with a cheap second derivative; follows autocast.

    Args:
        x: (B, C, H, W).
        weight: (O, C, k, k).
        bias: (O,) or None.
        padding: zeros on each side.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    out: Tensor = _PenalisedConvolution.apply(x, weight, bias, padding)
    return out
