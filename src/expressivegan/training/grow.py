"""Networks grow to a larger resolution and keep what they learnt.

One more doubling: coarse levels keep their weights, and the new finest level passes on what comes from below. A 3x3
convolution on a grid twice as fine does not see what it saw, so the last ones are solved anew by least squares, and the
discriminator's first ones are fitted to give the features that it had. A start of 7x7 instead of 4x4: everything
becomes 1.75 times larger, the stem is interpolated, and the coarse levels are fitted to that scale.

Growing in steps is Karras et al., *Progressive growing of GANs* (ICLR 2018); here each size is a run of its own, and
nothing is faded in, since the larger network starts as the smaller one.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expressivegan.images import check_resolution
from expressivegan.models import DiscriminatorWithExplain, GeneratorWithCAMGuidance
from expressivegan.models.layers import Conv, ModulatedBlock, upsample
from expressivegan.streams import generator

G: TypeAlias = GeneratorWithCAMGuidance
D: TypeAlias = DiscriminatorWithExplain
Photos = Callable[[int, torch.Generator], Tensor]
"""(count, random numbers) → real images (count, 1, H, W) in [-1, 1], of the size that the networks grow to."""

FIT_STEPS = 120  # many more hardly come nearer (docs/growing.md)
_BATCH = 16
_RATE_FRESH, _RATE_KEPT = 5e-3, 2e-3


def shrink(images: Tensor, side: int) -> Tensor:
    """(B, 1, H, H) → (B, 1, side, side) without aliasing: means of pixels where they divide evenly."""
    if images.shape[-1] % side == 0:
        return F.adaptive_avg_pool2d(images, side)
    return F.interpolate(images, side, mode="bilinear", antialias=True).clamp(-1, 1)


def _stretch(x: Tensor, like: Tensor) -> Tensor:
    return x if x.shape == like.shape else F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


def double_generator(old: G, new: G, seed: int) -> None:
    """Fills `new`, which has one more doubling than `old` and the same widths below, so that it draws old's images.

    Args:
        old: the trained network.
        new: fresh; changed in place.
        seed: of the latents of the images that the last convolutions are solved on.
    """
    _copy(old, new, {})
    with torch.no_grad():
        for block in (new.base_blocks[-1], new.lesion_blocks[-1]):  # they pass x on; their branch is zero already
            assert isinstance(block, ModulatedBlock)
            nn.init.zeros_(block.affine.weight)
        for layer in (new.lesion_reads[-1], new.map_outs[-1]):
            assert isinstance(layer, Conv)
            nn.init.zeros_(layer.weight)
        known = old.state_dict()
        for name, gain in new.named_parameters():
            if name.startswith("grain.") and name not in known:  # the noise of the new level starts silent
                nn.init.zeros_(gain)
        narrow = new.lesion_ups[-1]
        if isinstance(narrow, Conv):  # what the lesion's last reader made of it needs no more channels than it has
            nn.init.zeros_(narrow.weight)
            narrow.weight[: len(old.delta_up.weight)] = old.delta_up.weight

        def sharp(x: Tensor) -> Tensor:  # the mean over 2x2 pixels of bicubic is nearer to x than that of bilinear
            return F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)

        def solve(layer: Conv, outputs: Callable[[dict[str, Any], dict[str, Any]], tuple[Tensor, Tensor]]) -> None:
            watched = [old.base_out, old.delta_up, old.delta_out, layer]
            g = generator(seed, "grow", "latents")
            rows = []
            for _ in range(6):
                z, labels = _latents(old, 4, g)
                with _watch(watched) as seen:
                    was, now = old.compose(z, labels), new.compose(z, labels)
                target, weight = outputs({"parts": was, "seen": seen}, {"parts": now})
                rows.append((seen[layer][0], target, weight))
            _least_squares(layer, rows)

        # Weighted by how far the image depends on the value: by the slope of tanh, and within M
        solve(new.base_out, lambda was, _: (
            sharp(was["parts"].base), (1 - sharp(was["parts"].base_image).square()).clamp_min(0.02).square()
        ))  # fmt: skip
        solve(new.delta_up, lambda was, now: (
            upsample(was["seen"][old.delta_up][1]), F.avg_pool2d(now["parts"].mask, 2) + 1e-4
        ))  # fmt: skip
        solve(new.delta_out, lambda was, now: (
            sharp(was["seen"][old.delta_out][1]), now["parts"].mask.square() + 1e-5
        ))  # fmt: skip


def restart_generator(old: G, new: G, seed: int, steps: int = FIT_STEPS) -> None:
    """Fills `new`, which starts from 7x7 where `old` starts from 4x4, with the same number of doublings."""
    _copy(old, new, {})
    C = len(old.stem.bias) // old.start**2
    with torch.no_grad():
        new.stem.weight.copy_(_cells(old.stem.weight.view(C, old.start, old.start, -1), new.start).flatten(0, 2))
        new.stem.bias.copy_(_cells(old.stem.bias.view(C, old.start, old.start, 1), new.start).flatten())
    levels = range(min(3, len(old.base_blocks)))  # the fine ones draw edges, as sharp at any size
    of = [(old.base_blocks[n], new.base_blocks[n]) for n in levels]
    of += [(old.lesion_blocks[n - 1], new.lesion_blocks[n - 1]) for n in levels[1:-1]]
    learnt = [new.stem, *(new.base_ups[n - 1] for n in levels[1:]), *(b for _, b in of)]
    learnt += [m[n - 1] for n in levels[1:-1] for m in (new.lesion_reads, new.map_outs)]
    of += [(old.map_outs[n - 1], new.map_outs[n - 1]) for n in levels[1:-1]]
    g = generator(seed, "grow", "latents")

    def draw() -> None:
        z, labels = _latents(old, _BATCH // 2, g)
        with torch.no_grad():
            old.compose(z, labels)
        new.compose(z, labels)

    _fit(of, learnt, draw, steps // 2, _RATE_KEPT)


def grow_discriminator(old: D, new: D, made: Tensor, photos: Photos, seed: int, steps: int = FIT_STEPS) -> None:
    """Fills `new`, with one more doubling than `old` or a larger start, so that it sees in large images what old sees.

    Args:
        old: the trained network.
        new: fresh; changed in place.
        made: (N, 1, H, H) made images of new's resolution, on the networks' device.
        photos: real images.
        seed: of the choice of images.
        steps: of Adam, on half real and half made images.
    """
    doubled = len(new.blocks) - len(old.blocks)
    _copy(old, new, {f"blocks.{n}.": f"blocks.{n + doubled}." for n in range(len(old.blocks))})
    with torch.no_grad():
        new.place.copy_(_stretch(old.place, new.place))
    if doubled:
        of: list[tuple[nn.Module, nn.Module]] = [(old.blocks[0], new.blocks[1])]
        learnt = [new.stem, new.blocks[0], new.blocks[1]]
    else:
        of = [*zip(old.blocks, new.blocks, strict=True), (old.join, new.join)]
        learnt = [new.stem, *new.blocks, new.join]
    g = generator(seed, "grow", "images")

    def look() -> None:
        half = _BATCH // 2
        x = torch.cat([photos(half, g).to(made), made[torch.randint(len(made), (half,), generator=g).to(made.device)]])
        with torch.no_grad():
            old.features(shrink(x, old.resolution))
        new.features(x)

    _fit(of, learnt, look, steps, _RATE_FRESH if doubled else _RATE_KEPT)


@torch.no_grad()
def pictures(network: G, count: int, seed: int) -> Tensor:
    """(count, 1, H, W) in [-1, 1]: what a generator makes of all its classes."""
    g = generator(seed, "grow", "pictures")
    return torch.cat([network(*_latents(network, min(_BATCH, count - n), g))[0] for n in range(0, count, _BATCH)])


def path(old: int, new: int) -> list[int]:
    """The resolutions that networks pass on the way: first the doubling, then the larger start.

    >>> path(64, 224), path(64, 112), path(64, 64)
    ([128, 224], [112], [])
    """
    (start, doublings), (wide, more) = check_resolution(old), check_resolution(new)
    stops = [start * 2**more] if more > doublings else []
    return stops + ([new] if wide > start else [])


def _latents(network: G, count: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    device = network.map_bias.device
    z = torch.randn(count, network.z_dim, generator=g)
    return z.to(device), torch.randint(network.class_set.count, (count,), generator=g).to(device)


def _copy(old: nn.Module, new: nn.Module, names: dict[str, str]) -> None:
    """Copies what has the same meaning and shape; a name that begins as a key of `names` begins as its value there."""
    state = new.state_dict()
    for name, value in old.state_dict().items():
        begins = next((key for key in names if name.startswith(key)), "")
        there = names.get(begins, "") + name.removeprefix(begins)
        if name != "window" and there in state and state[there].shape == value.shape:
            state[there].copy_(value)


def _cells(weight: Tensor, side: int) -> Tensor:
    """(C, h, h, S) → (C, side, side, S), bilinearly."""
    found = F.interpolate(weight.permute(0, 3, 1, 2), (side, side), mode="bilinear", align_corners=False)
    return found.permute(0, 2, 3, 1)


@contextmanager
def _watch(modules: Sequence[nn.Module]) -> Iterator[dict[nn.Module, tuple[Tensor, Tensor]]]:
    """Within it, the last input and output of each module."""
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def keep(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        seen[module] = (given[0], out)

    handles = [m.register_forward_hook(keep) for m in modules]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _least_squares(layer: Conv, rows: Sequence[tuple[Tensor, Tensor, Tensor]]) -> None:
    """Solves a convolution for (input, wanted output, weight); barely seen directions stay as they are."""
    was = layer.weight.flatten(1)
    if layer.bias is not None:
        was = torch.cat([was, layer.bias[:, None]], 1)
    was = was.cpu().double()  # Apple's GPUs have no float64
    left, right = was.new_zeros(was.shape[1], was.shape[1]), was.new_zeros(was.shape[1], len(was))
    for x, target, weight in rows:
        cells = F.unfold(x, layer.kernel_size, padding=int(layer.padding[0]))  # (B, C·k·k, H·W)
        if layer.bias is not None:
            cells = torch.cat([cells, torch.ones_like(cells[:, :1])], 1)
        weighted = cells * weight.flatten(2)
        left += torch.einsum("nil,njl->ij", weighted, cells).cpu().double()
        right += torch.einsum("nil,njl->ij", weighted, target.flatten(2)).cpu().double()
    ridge = 1e-5 * left.diagonal().mean().clamp_min(1e-12)
    left.diagonal().add_(ridge)
    found = torch.linalg.solve(left, right + ridge * was.T).T.to(layer.weight)
    if layer.bias is not None:
        layer.bias.copy_(found[:, -1])
        found = found[:, :-1]
    layer.weight.copy_(found.reshape(layer.weight.shape))


def _fit(
    of: Sequence[tuple[nn.Module, nn.Module]],
    learnt: Sequence[nn.Module],
    forward: Callable[[], None],
    steps: int,
    rate: float,
) -> None:
    """Fits `learnt` until the second of each pair of modules puts out what the first does, stretched to its grid."""
    parameters = list(dict.fromkeys(p for module in learnt for p in module.parameters()))
    optimiser = torch.optim.Adam(parameters, lr=rate, betas=(0.9, 0.99))
    with _watch([m for pair in of for m in pair]) as seen:
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            forward()
            costs = []
            for old, new in of:
                found = seen[new][1]
                wanted = _stretch(seen[old][1], found)
                spread = wanted.var(dim=(0, 2, 3), keepdim=True)
                spread = spread + 0.1 * spread.mean() + 1e-6  # channels count alike, but those that hardly vary
                costs.append(((found - wanted).square() / spread).mean())
            optimiser.zero_grad()
            torch.stack(costs).mean().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
