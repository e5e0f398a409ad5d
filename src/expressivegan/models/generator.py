"""The generator: `image = tanh(base + M ⊙ δ)`, with two routes for the class.

The *base* stream draws the child and the acquisition from (z, style label). The *lesion* stream reads the base's
features and draws, from (z, label), the maps and the change δ. The base never reads the lesion stream, so where M is 0
the image is the base, bit for bit, and one z under two labels is one child with and without the disease.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from expressivegan.errors import InputError
from expressivegan.images import check_maps, check_resolution
from expressivegan.models.classes import ClassSet
from expressivegan.models.layers import Conv, Dense, ModulatedBlock, activate, upsample

GRAINLESS = 2  # coarsest levels without noise: what they draw is anatomy
DELTA_BOUND = 2.0  # in pre-tanh units: enough to turn air into tissue, too little to shout through a tiny M


class Composition(NamedTuple):
    """What an image is made of.

    Attributes:
        image: (B, 1, H, W) in [-1, 1], `tanh(base + mask * delta)`.
        base: (B, 1, H, W), the child without the lesion, before tanh.
        mask: (B, 1, H, W) in [0, 1], M; exactly 0 for the reference class.
        delta: (B, 1, H, W), δ, bounded by ±DELTA_BOUND.
        attention: maps of the levels, coarse to fine, each (B, 1, h, w) in [0, 1]; the last one is `mask`.
    """

    image: Tensor
    base: Tensor
    mask: Tensor
    delta: Tensor
    attention: list[Tensor]

    @property
    def base_image(self) -> Tensor:
        """(B, 1, H, W) in [-1, 1]: the image that M = 0 gives."""
        return torch.tanh(self.base)


def _narrow(inputs: int, outputs: int) -> nn.Module:
    """A 1x1 convolution where the number of channels changes."""
    return nn.Identity() if inputs == outputs else Conv(inputs, outputs, 1, bias=False)


def _bound(steer: Tensor, gate: Tensor) -> Tensor:
    """The upper bound on a level's map: the largest value that `steer` has within each of its cells."""
    return F.adaptive_max_pool2d(steer, (gate.shape[-2], gate.shape[-1]))


class Grain(nn.Module):
    """White noise of one level that is a function of the latent, and how much of it each channel gets.

    It spares a small network to fold grain out of smooth features (docs/recipe.md). StyleGAN draws its noise anew
    (Karras et al., CVPR 2019, section 3.2); here the same latent still gives the same image. The noise is √2·cos of a
    phase that is the product of two random linear maps of the latent, one by row and one by column: far beyond a turn,
    so that pixels and images are uncorrelated. How much each channel gets depends on the style, since some X-rays are
    much grainier than others.

    Args:
        z_dim: length of the latent.
        side: height and width of the level.
        channels: of the level.
        style: length of the style vector, or None where all images get as much.
    """

    rows: Tensor
    columns: Tensor
    turn: Tensor

    def __init__(self, z_dim: int, side: int, channels: int, style: int | None) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(side)  # saved with the weights, all the same
        for name in ("rows", "columns"):
            self.register_buffer(name, 1.6 * torch.randn(8 * side, z_dim, generator=g))
        self.register_buffer("turn", 2 * math.pi * torch.rand(side, side, generator=g))
        self.gain = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.modulate = None if style is None else Dense(style, channels, bias=False, gain=0.0)

    def noise(self, z: Tensor) -> Tensor:
        """(B, z_dim) → (B, 1, side, side) of mean 0 and variance 1; the length of z does not matter."""
        with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
            unit = F.normalize(z.to(self.turn.dtype), dim=1)
            rows, columns = ((unit @ w.T).view(len(z), -1, 8) for w in (self.rows, self.columns))
            return (math.sqrt(2) * torch.cos(rows @ columns.mT + self.turn)).unsqueeze(1)

    def forward(self, x: Tensor, noise: Tensor, style: Tensor) -> Tensor:
        gain = self.gain if self.modulate is None else self.gain + self.modulate(style)[:, :, None, None]
        noise = noise.to(x.dtype)
        if x.dtype == torch.bfloat16:  # there, PyTorch is six times slower on CPUs where it has to repeat the noise
            noise = noise.expand_as(x).contiguous(memory_format=torch.channels_last)
        return torch.addcmul(x, noise, gain.to(x.dtype))


def interior(size: int, frame: float) -> Tensor:
    """(1, 1, size, size): 0 in a frame as wide as this share of the side, then rising to 1 over half that width."""
    centres = (torch.arange(size) + 0.5) / size
    depth = torch.minimum(centres, 1 - centres)
    inside = torch.minimum(depth[:, None], depth[None, :])
    return ((inside - frame) / max(frame / 2, 1e-6)).clamp(0, 1)[None, None]


class GeneratorWithCAMGuidance(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="expressivegan",
    tags=["chest-x-ray", "gan", "synthetic-data"],
):
    """Makes labelled images with the attention maps that say where the disease was put.

    Args:
        z_dim: length of the latent vector.
        resolution: height and width of the image, 7·2^k or 4·2^k.
        classes: class names in their fixed order; an empty sequence makes an unconditional generator.
        reference: the class without a lesion (its M is 0, hard), or None where there is none.
        width: channels at the coarsest levels; halved with every doubling past 8x8 (7·2).
        min_width: floor of the channels at the finest levels.
        style_dim: length of the style vectors.
        frame: width of the frame, as a share of the side, where M is 0, hard: letters, collimation and cropping tell
            the label, and no disease stands there.
        grain_by_style: whether some images are grainier than others.

    Raises:
        InputError: an unsupported resolution, size or class.

    >>> generator = GeneratorWithCAMGuidance(z_dim=100, resolution=32, width=16)
    >>> image, attention = generator(torch.randn(2, 100), labels=torch.tensor([0, 1]))
    >>> image.shape, [tuple(m.shape[2:]) for m in attention]
    (torch.Size([2, 1, 32, 32]), [(8, 8), (16, 16), (32, 32)])
    >>> attention[-1][0].max().item()
    0.0
    """

    window: Tensor

    def __init__(
        self,
        z_dim: int = 100,
        resolution: int = 224,
        classes: Sequence[str] = ("NORMAL", "BACTERIA", "VIRUS"),
        reference: str | None = "NORMAL",
        width: int = 128,
        min_width: int = 16,
        style_dim: int = 128,
        frame: float = 0.1,
        grain_by_style: bool = True,
    ) -> None:
        super().__init__()
        if not 0 <= frame < 0.5:
            raise InputError(f"frame (={frame}) must be from 0 to below 0.5: the share of the side where M is 0")
        if z_dim < 1:
            raise InputError(f"z_dim (={z_dim}) must be at least 1")
        if min(width, min_width, style_dim) < 4:
            raise InputError(f"width, min_width and style_dim (={width}, {min_width}, {style_dim}) must be at least 4")
        self.z_dim = z_dim
        self.resolution = resolution
        self.class_set = ClassSet(classes, reference)
        start, doublings = check_resolution(resolution)
        self.start = start
        widths = [max(min_width, min(width, width * 2 // 2**level)) for level in range(doublings + 1)]
        lesion_widths = [max(12, w // 3) for w in widths]

        K = len(self.class_set.names)
        self.style_embedding = nn.Embedding(max(K, 1), style_dim)
        self.lesion_embedding = nn.Embedding(max(K, 1), style_dim)
        self.style = nn.Sequential(Dense(z_dim + style_dim, style_dim, gain=math.sqrt(2)), nn.LeakyReLU(0.2))
        self.lesion_style = nn.Sequential(Dense(z_dim + style_dim, style_dim, gain=math.sqrt(2)), nn.LeakyReLU(0.2))

        self.stem = Dense(style_dim, widths[0] * start * start)
        # Channels shrink before they are spread over four times the cells, where each costs four times as much.
        self.base_ups = nn.ModuleList(_narrow(widths[n - 1], widths[n]) for n in range(1, doublings + 1))
        self.base_blocks = nn.ModuleList(ModulatedBlock(w, style_dim) for w in widths)
        self.base_out = Conv(widths[-1], 1, gain=0.5)
        told = style_dim if grain_by_style else None
        self.grain = nn.ModuleList(Grain(z_dim, start * 2**n, widths[n], told) for n in range(GRAINLESS, doublings + 1))

        # The lesion stream starts one doubling above the stem, since a 4x4 map says nothing about where, and ends one
        # below the image: its maps are smooth at the scale of two pixels, and the finest level is the dearest.
        levels = range(1, doublings)
        self.lesion_reads = nn.ModuleList(Conv(widths[n], lesion_widths[n], 1) for n in levels)
        self.lesion_ups = nn.ModuleList(_narrow(lesion_widths[n - 1], lesion_widths[n]) for n in levels[1:])
        self.lesion_blocks = nn.ModuleList(ModulatedBlock(lesion_widths[n], style_dim) for n in levels)
        self.map_outs = nn.ModuleList(Conv(lesion_widths[n], 1, gain=0.5) for n in levels)
        self.asks = nn.ModuleList(Conv(1, lesion_widths[n], 1, bias=False, gain=0.0) for n in levels)
        self.delta_read = Conv(widths[-1], 8, 1)
        self.delta_up = Conv(lesion_widths[doublings - 1], 8, 1, bias=False)
        self.delta_out = Conv(8, 1, gain=0.5)
        self.map_bias = nn.Parameter(torch.tensor(-1.5))
        self.register_buffer("window", interior(resolution, frame))  # in the state, so that the model's hash covers it

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As of any module; what states of older versions lack stays as it is: it changes nothing there."""
        later = {k: v for k, v in self.state_dict().items() if k == "window" or k.startswith(("asks.", "grain."))}
        return super().load_state_dict(later | dict(state_dict), strict, assign)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return self.class_set.names

    def _labels(self, z: Tensor, labels: Tensor | None) -> Tensor:
        if labels is not None:
            return self.class_set.check(labels, len(z))
        # Without labels each image still gets one class, spread evenly and fixed by z: the quantile of its first number
        quantile = 0.5 * (1 + torch.erf(z[:, 0].float() / math.sqrt(2)))
        return (quantile * self.class_set.count).long().clamp(0, self.class_set.count - 1)

    def labels_for(self, z: Tensor) -> Tensor:
        """The labels (B,) that `forward` gives to latents when it is called without any."""
        return self._labels(z, None)

    def compose(
        self,
        z: Tensor,
        labels: Tensor | None = None,
        *,
        style_labels: Tensor | None = None,
        steer: Tensor | None = None,
        strength: float | Tensor = 1.0,
    ) -> Composition:
        """Makes images and returns what they are made of.

        Args:
            z: (B, z_dim), standard normal.
            labels: (B,) integers, the disease; None derives them from z (see `labels_for`).
            style_labels: (B,) integers, the acquisition; the default follows `labels`.
            steer: (B, 1, H, W) in [0, 1], an upper bound on M: where the disease may be.
            strength: 0..1, scales M; a number, or (B, 1, 1, 1), whose values are not checked.

        Raises:
            InputError: wrong shapes, unknown labels, or a map out of range.
        """
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise InputError(f"z must have shape (B, {self.z_dim}), not {tuple(z.shape)}")
        if not isinstance(strength, Tensor) and not 0 <= strength <= 1:
            raise InputError(f"strength (={strength}) must be from 0 to 1")
        labels = self._labels(z, labels)
        style_labels = labels if style_labels is None else self.class_set.check(style_labels, len(z))
        if steer is not None:
            check_maps(steer, "steer")
            if steer.shape != (len(z), 1, self.resolution, self.resolution):
                raise InputError(
                    f"steer must be {(len(z), 1, self.resolution, self.resolution)}, not {tuple(steer.shape)}"
                )
        steer = self.window.to(z.dtype) if steer is None else steer * self.window
        active = self.class_set.has_lesion(labels).to(z.dtype)[:, None, None, None] * strength  # (B, 1, 1, 1)

        style = self.base_style(z, style_labels)
        lesion_style = self.disease_style(z, labels)
        return self.compose_styles([style] * self.style_count, lesion_style, active, steer, self.noise(z))

    @property
    def style_count(self) -> int:
        """How many style vectors the base stream reads: one for its stem and one for each level."""
        return len(self.base_blocks) + 1

    def base_style(self, z: Tensor, style_labels: Tensor) -> Tensor:
        """(B, z_dim), (B,) → (B, style_dim): what the base stream reads."""
        style: Tensor = self.style(torch.cat([z, self.style_embedding(style_labels)], dim=1))
        return style

    def disease_style(self, z: Tensor, labels: Tensor) -> Tensor:
        """(B, z_dim), (B,) → (B, style_dim): what the lesion stream reads."""
        style: Tensor = self.lesion_style(torch.cat([z, self.lesion_embedding(labels)], dim=1))
        return style

    def noise(self, z: Tensor) -> list[Tensor]:
        """(B, z_dim) → the noise of each level that has some, (B, 1, h, w), coarse to fine."""
        return [grain.noise(z) for grain in self.grain]  # type: ignore[operator]

    def compose_styles(
        self, styles: Sequence[Tensor], lesion_style: Tensor, active: Tensor, steer: Tensor, noise: Sequence[Tensor]
    ) -> Composition:
        """What `compose` does, from style vectors instead of latents and labels; nothing is checked.

        Args:
            styles: `style_count` times (B, style_dim), for the stem and each level of the base stream.
            lesion_style: (B, style_dim).
            active: (B, 1, 1, 1), scales M; 0 for the reference class.
            steer: an upper bound on M that broadcasts to (B, 1, H, W); `window` is the widest.
            noise: as `noise` gives it.
        """
        # base: styles → features of every level
        x = self.stem(styles[0]).unflatten(1, (-1, self.start, self.start)).contiguous(
            memory_format=torch.channels_last
        )  # fmt: skip
        features = []
        for level, block in enumerate(self.base_blocks):
            x = upsample(self.base_ups[level - 1](x)) if level else x
            if level >= GRAINLESS:
                x = self.grain[level - GRAINLESS](x, noise[level - GRAINLESS], styles[level + 1])
            x = block(x, styles[level + 1])
            features.append(x)
        finest = activate(x)
        base = self.base_out(finest).to(active.dtype)

        # lesion: (base features, lesion style) → maps and change
        logit = self.map_bias
        attention: list[Tensor] = []
        h: Tensor | None = None
        for level, (read, ask, block, map_out) in enumerate(
            zip(self.lesion_reads, self.asks, self.lesion_blocks, self.map_outs, strict=True)
        ):
            seen = read(activate(features[level + 1]))
            asked = _bound(steer, seen)
            seen = seen + ask((asked - 1).to(seen.dtype))  # 0 where there is no bound
            h = block(seen if h is None else seen + upsample(self.lesion_ups[level - 1](h)), lesion_style)
            logit = (upsample(logit) if level else logit) + map_out(activate(h)).to(base.dtype)
            gate = torch.sigmoid(logit)
            attention.append(gate * asked * active)
            # By the gate alone: features cut off at the edge of a region made rings around every steered lesion.
            h = h * gate.to(h.dtype)
        gate = upsample(gate)
        attention.append(gate * _bound(steer, gate) * active)
        detail = self.delta_read(finest) + upsample(self.delta_up(h))
        delta = DELTA_BOUND * torch.tanh(self.delta_out(activate(detail)).to(base.dtype))
        mask = attention[-1]
        return Composition(torch.tanh(base + mask * delta), base, mask, delta, attention)

    def forward(
        self,
        z: Tensor,
        labels: Tensor | None = None,
        steer: Tensor | None = None,
        *,
        style_labels: Tensor | None = None,
        strength: float | Tensor = 1.0,
    ) -> tuple[Tensor, list[Tensor]]:
        """Images (B, 1, H, W) in [-1, 1] and maps, coarse to fine, each (B, 1, h, w) in [0, 1]; see `compose`."""
        parts = self.compose(z, labels, style_labels=style_labels, steer=steer, strength=strength)
        return parts.image, parts.attention

    def generate_model_card(self, *args: Any, **kwargs: Any) -> Any:
        """The card written beside the weights when nothing better is known; training writes a fuller one."""
        kwargs.setdefault("model_summary", f"{self.resolution}x{self.resolution}, classes {', '.join(self.classes)}")
        return super().generate_model_card(*args, **kwargs)
