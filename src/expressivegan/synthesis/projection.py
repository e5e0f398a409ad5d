"""A real image → style vectors and lesion of the generator: what a counterfactual of a real child starts from.

In two stages, as is usual. First the latent: many are drawn, the best few are fitted by gradient (as in the projector
of StyleGAN2, Karras et al., CVPR 2020, section 5), kept typical by a penalty on their length. Then each level of the
base gets a style vector of its own (the space W+ of Abdal et al., *Image2StyleGAN*, ICCV 2019) and moves away from the
latent's, at a price: styles that lie far off fit anything, and can no longer be edited (Tov et al., SIGGRAPH 2021).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from expressivegan.errors import InputError
from expressivegan.images import check_images
from expressivegan.models import GeneratorWithCAMGuidance
from expressivegan.models.generator import Composition
from expressivegan.streams import generator

POOR = 0.4
"""A fit that leaves more than this share of the image's variance is refused; see docs/counterfactuals.md."""
_PERCEPTUAL, _PRIOR, _AWAY, _MAP = 0.5, 2e-4, 0.02, 0.05

Features = Callable[[Tensor], Tensor]
Count = Callable[[int, int], None]


@dataclass(frozen=True)
class Projection:
    """A real image as the generator can draw it.

    Attributes:
        real: (1, 1, H, W) in [-1, 1].
        label: what the image was taken to show; the reference class means M = 0.
        z: (1, z_dim).
        styles: `model.style_count` times (1, style_dim).
        lesion_style: (1, style_dim).
        image: (1, 1, H, W) in [-1, 1], the fit.
        mask: (1, 1, H, W) in [0, 1], its M.
        residual: root mean square of real less fit, in units of [-1, 1].
        unexplained: share of the image's variance that the fit leaves, 0 (perfect) and up.
        latent_unexplained: the same before styles left the latent's: how typical the image is.
    """

    real: Tensor
    label: int
    z: Tensor
    styles: list[Tensor]
    lesion_style: Tensor
    image: Tensor
    mask: Tensor
    residual: float
    unexplained: float
    latent_unexplained: float

    def check(self) -> None:
        """Raises InputError where the fit is poor."""
        if self.latent_unexplained > POOR:
            raise InputError(
                f"image cannot be drawn by this model: the fit leaves {self.latent_unexplained:.0%} of its variance, "
                f"at most {POOR:.0%} is allowed; is it an upright frontal chest X-ray of the kind that the model was "
                "trained on?"
            )


def project(
    model: GeneratorWithCAMGuidance,
    real: Tensor,
    label: int,
    *,
    seed: int = 0,
    draws: int = 256,
    starts: int = 2,
    steps: tuple[int, int] = (80, 80),
    features: Features | None = None,
    maps: Tensor | None = None,
    progress: Count | None = None,
) -> Projection:
    """Fits latent, styles and maps to a real image; the same seed gives the same fit. Whether it is good: `check`.

    Args:
        model: a CAM-guided generator in evaluation mode, on the CPU.
        real: (1, 1, H, W) in [-1, 1], of the model's resolution.
        label: what the image shows; with the reference class M is 0.
        seed: of the latents drawn.
        draws: latents to choose the starts from.
        starts: latents to fit.
        steps: of each stage.
        features: images (B, 1, H, W) → (B, C, h, w), for a perceptual distance; None compares pixels alone.
        maps: (1, 1, H, W) in [0, 1], where a classifier sees the disease; M is drawn towards it.
        progress: called with (steps done, of).

    Raises:
        InputError: a wrong shape or range.
    """
    check_images(real, "image")
    if real.shape != (1, 1, model.resolution, model.resolution):
        raise InputError(f"image must be {(1, 1, model.resolution, model.resolution)}, not {tuple(real.shape)}")
    fit = _Fit(model, real, label, features, maps)
    total = sum(steps)

    # Stage 1: the latent, with the acquisition of whatever class fits best.
    draw = generator(seed, "projection")
    z = torch.randn(draws, model.z_dim, generator=draw)
    kinds = torch.randint(model.class_set.count, (draws,), generator=draw)
    with torch.no_grad():
        parts = [fit.of_latent(z[i : i + 64], kinds[i : i + 64]) for i in range(0, draws, 64)]
        first = torch.cat([fit.distance(p) for p in parts])
    best = first.topk(min(starts, draws), largest=False).indices
    z, kinds = z[best].clone().requires_grad_(True), kinds[best]

    def latent_loss() -> Tensor:
        return (fit.distance(fit.of_latent(z, kinds)) + _PRIOR * z.square().sum(1)).sum()

    _minimise([z], latent_loss, steps[0], 0.08, lambda done: progress and progress(done, total))
    with torch.no_grad():
        distances = fit.distance(fit.of_latent(z, kinds))
        one = int(distances.argmin())
        z, kinds = z[one : one + 1].detach(), kinds[one : one + 1]
        fit.noise = model.noise(z)
        start = model.base_style(z, kinds)
        lesion_start = model.disease_style(z, fit.labels(1))
        typical = fit.unexplained(fit.of_latent(z, kinds).image)

    # Stage 2: a style for each level.
    scale = start.square().mean().sqrt()
    styles = [start.clone().requires_grad_(True) for _ in range(model.style_count)]
    lesion = lesion_start.clone().requires_grad_(True)

    def style_loss() -> Tensor:
        away = torch.stack([(s - start).square().mean() for s in [*styles, lesion - lesion_start + start]]).mean()
        return fit.distance(fit.of_styles(styles, lesion)).sum() + _AWAY * away / scale.square()

    _minimise([*styles, lesion], style_loss, steps[1], 0.02, lambda done: progress and progress(steps[0] + done, total))
    styles, lesion = [s.detach() for s in styles], lesion.detach()
    with torch.no_grad():
        done = fit.of_styles(styles, lesion)
    residual = float((done.image - real).square().mean().sqrt())
    left = float(fit.unexplained(done.image))
    return Projection(real, label, z, styles, lesion, done.image, done.mask, residual, left, float(typical))


def _minimise(
    variables: list[Tensor], loss: Callable[[], Tensor], steps: int, rate: float, progress: Callable[[int], object]
) -> None:
    """Adam with a cosine to a tenth."""
    optimiser = torch.optim.Adam(variables, lr=rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps), rate / 10)
    for step in range(steps):
        optimiser.zero_grad(set_to_none=True)
        loss().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        progress(step + 1)


class _Fit:
    """Distance between a real image and compositions."""

    def __init__(
        self,
        model: GeneratorWithCAMGuidance,
        real: Tensor,
        label: int,
        features: Features | None,
        maps: Tensor | None,
    ) -> None:
        self.model, self.real, self.label, self.features, self.maps = model, real, label, features, maps
        with torch.no_grad():
            self.seen = torch.zeros(()) if features is None else _unit(features(real))
        self.noise: list[Tensor] = []

    def labels(self, count: int) -> Tensor:
        return torch.full((count,), self.label)

    def of_latent(self, z: Tensor, kinds: Tensor) -> Composition:
        return self.model.compose(z, self.labels(len(z)), style_labels=kinds)

    def of_styles(self, styles: list[Tensor], lesion: Tensor) -> Composition:
        active = self.model.class_set.has_lesion(self.labels(1)).to(lesion)[:, None, None, None]
        return self.model.compose_styles(styles, lesion, active, self.model.window, self.noise)

    def distance(self, parts: Composition) -> Tensor:
        """(B,) squared differences at three scales, of features, and of M and the map that it shall follow."""
        # Under M the base's picture gets no gradient: else it would learn the disease, which then could not be taken
        # away. Its styles still move there, through M and δ, which read the base's features.
        base = parts.base * (1 - parts.mask.detach()) + (parts.base * parts.mask).detach()
        image = torch.tanh(base + parts.mask * parts.delta)
        total = torch.zeros(len(image))
        for cell in (1, 2, 4):
            apart = F.avg_pool2d(image, cell) - F.avg_pool2d(self.real, cell)
            total = total + apart.square().mean(dim=(1, 2, 3))
        if self.features is not None:
            total = total + _PERCEPTUAL * (_unit(self.features(image)) - self.seen).square().sum(1).mean(dim=(1, 2))
        if self.maps is not None:
            total = total + _MAP * (parts.mask - self.maps).square().mean(dim=(1, 2, 3))
        return total

    def unexplained(self, image: Tensor) -> Tensor:
        spread = (self.real - self.real.mean()).square().mean().clamp_min(1e-6)
        return (image - self.real).square().mean() / spread


def _unit(features: Tensor) -> Tensor:
    """(B, C, h, w), each cell's features to length 1."""
    return F.normalize(features, dim=1)
