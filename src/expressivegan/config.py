"""Settings of a training run, and the named presets. Field docstrings are the help text of the command line."""

from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from typing import Any, Literal

from expressivegan.errors import InputError
from expressivegan.images import check_resolution

Merge = Literal["max", "mean", "weighted", "topk"]
"""How the maps of several classes become one (docs/teacher.md)."""


@dataclass(frozen=True)
class TeachConfig:
    """How a teacher is fitted."""

    backbone: str = "compact-fine"
    """Architecture: compact-fine (64 px, CPUs; maps of 16x16 or 28x28), compact (8x8 or 14x14) or densenet121."""
    init: str | None = None
    """Start from torchxrayvision's named weights, e.g. xrv:densenet121-res224-all; only with densenet121."""
    epochs: int = 24
    """Passes over the training patients' images."""
    batch: int = 32
    """Images in a step."""
    rate: float = 2e-3
    """Largest learning rate of AdamW; it warms up for one epoch and falls to 0 along a cosine."""
    weight_decay: float = 0.05
    """Of AdamW, decoupled."""
    smoothing: float = 0.05
    """Label smoothing."""
    seed: int = 0
    """Root of all random streams."""
    meth: Merge = "topk"
    """How the maps of the classes are merged."""
    shift: float = 0.06
    """Largest shift of a training image, as a share of the side."""
    zoom: float = 0.12
    """Largest relative change of its size."""
    stretch: float = 0.1
    """Largest change of its proportions: wider and lower, or narrower and taller, by a factor within e^(±stretch)."""
    rotation: float = 8.0
    """Largest rotation in degrees."""
    exposure: float = 0.7
    """How far contrast, brightness and gamma are drawn anew; 0 turns it off."""
    border: float = 1.0
    """Share of training images whose frame is replaced by another image's, their mean or noise; 0 turns it off."""
    border_width: float = 0.1
    """Widest frame that is replaced, as a share of the side; each of the four sides is drawn from half of it on."""
    marks: float = 0.2
    """Share of training images in which a patch beside the chest is another image's: hides markers; 0 turns it off."""
    focus_weight: float = 0.2
    """Weight of the share of |CAM| outside a soft thorax window, a cost; 0 turns it off."""
    enough: float = 0.25
    """Cross-entropy in nats below which a batch teaches no more: maps leave their lesions then; 0 turns it off."""

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch", 2)):
            if getattr(self, name) < least:
                raise InputError(f"{name} (={getattr(self, name)}) must be at least {least}")
        if not 0 < self.rate < float("inf"):
            raise InputError(f"rate (={self.rate}) must be positive")
        if not 0 <= self.weight_decay < float("inf"):
            raise InputError(f"weight_decay (={self.weight_decay}) must be 0 or more")
        if not 0 <= self.smoothing < 1:
            raise InputError(f"smoothing (={self.smoothing}) must be from 0 to below 1")
        limits = {"shift": 0.5, "zoom": 1, "stretch": 1, "rotation": 180, "exposure": 2,
                  "border": 1, "border_width": 0.4, "marks": 1, "focus_weight": 100, "enough": 10}  # fmt: skip
        for name, most in limits.items():
            if not 0 <= getattr(self, name) <= most:
                raise InputError(f"{name} (={getattr(self, name)}) must be from 0 to {most}")


UNPROTECTED = TeachConfig(
    backbone="compact", stretch=0.0, exposure=0.5, border=0.0, marks=0.0, focus_weight=0.0, enough=0.0
)
"""A plain classifier that takes every shortcut it finds: what to measure shortcuts with."""


_NOT_OF_DCGAN = (
    "gamma", "class_weight", "logit_weight", "flip_weight", "diversity_weight", "detail_weight", "area_weight",
    "delta_weight", "steer_weight", "steer_share", "free_share", "guided_after",
)  # fmt: skip

_LONG_KIMG = 80.0
"""Thousands of images from which on guidance from the start costs more than it gives (docs/recipe.md)."""

UNGUIDED: dict[str, float] = dict.fromkeys(
    ("cam_weight_d", "cam_weight_g", "logit_weight", "flip_weight", "area_weight", "delta_weight", "steer_weight",
     "steer_share", "steer_drawn", "free_share"), 0.0,
)  # fmt: skip
"""Settings without which no teacher is asked, and nothing asks or costs M."""


@dataclass(frozen=True)
class TrainConfig:
    """How a generator is trained. Progress is counted in images that the discriminator has seen of real data."""

    method: Literal["expressive", "dcgan"] = "expressive"
    """expressive: the CAM-guided networks and objective; dcgan: the baseline, the original's architecture and loop."""
    resolution: int = 64
    """Side of the images: 7·2^k or 4·2^k."""
    fit: Literal["stretch", "pad", "crop"] = "stretch"
    """How a picture becomes square: stretch (as published), pad with black, or crop the centre."""
    z_dim: int = 100
    """Length of the latent vector."""
    width: int = 96
    """Channels at the coarsest levels of both networks."""
    min_width: int = 16
    """Fewest channels, at the finest levels."""
    batch: int = 16
    """Images in a step, over all processes. 16 learn more from as many images than 32 or 8 do (docs/recipe.md)."""
    kimg: float = 360.0
    """Length of training in thousands of images."""
    rate: float = 4e-4
    """Adam's learning rate at the start. With half of it, guidance costs more fidelity (docs/recipe.md)."""
    rate_end: float = 1e-4
    """Learning rate at the end; it falls along a cosine over the images seen."""
    beta1: float = 0.0
    """Adam's first decay."""
    beta2: float = 0.99
    """Adam's second decay."""
    gamma: float = 3.0
    """Weight of the gradient penalties R1 + R2 at the start; 0 turns them off."""
    gamma_end: float = 0.2
    """Their weight at the end; it falls geometrically over the images seen."""
    penalty_every: int = 8
    """Steps between penalties; their weight is scaled up by as much."""
    ema_kimg: float = 20.0
    """Longest half-life of the averaged generator, in thousands of images. With 5, snapshots 20 thousand images apart
    disagree about the classes by up to 7 points (docs/recipe.md)."""
    ema_share: float = 0.05
    """Half-life as a share of the images seen, where that is shorter."""
    classes: Literal["natural", "uniform"] = "natural"
    """Classes as they come, or each as often as the others."""
    class_weight: float = 0.1
    """Cross-entropy of the discriminator's class head, on real images only."""
    cam_weight_d: float = 0.3
    """The discriminator's class maps match the teacher's, on real images only."""
    cam_weight_g: float = 0.3
    """The teacher's map of a made image matches the generator's M, and the other way round."""
    logit_weight: float = 0.03
    """The teacher's logits of made images are distributed as those of real ones of their class (an energy distance)."""
    logit_kimg: float = 20.0
    """Thousands of images after which `logit_weight` begins: before, it costs fidelity (docs/recipe.md)."""
    flip_weight: float = 0.05
    """The teacher sees no disease in the base of a diseased image, and, as long as its logits are not matched
    (`logit_weight`, `logit_kimg`), the label in each image: a hinge on the logits."""
    diversity_weight: float = 1.0
    """Made images of a class differ from each other as much as real ones do (a hinge): keeps it from collapsing."""
    detail_weight: float = 0.3
    """Made images have, in distribution, the power of real ones of their class at each spatial frequency (an energy
    distance)."""
    detail_kimg: float = 40.0
    """Thousands of images after which `detail_weight` begins: before, it is pleased with noise (docs/recipe.md)."""
    area_weight: float = 2.0
    """Keeps the area of M below `area_limit` in each image."""
    area_limit: float = 0.22
    """Largest mean of M that costs nothing."""
    delta_weight: float = 0.02
    """Cost of change where M does not let it through."""
    steer_weight: float = 0.3
    """A steered M fills the map that it was given."""
    steer_share: float = 0.5
    """Share of the free pairs whose M is bounded by a given map. Not of natural pairs: a region shows less disease than
    real images do, and unsteered ones would make up for it (docs/recipe.md)."""
    steer_drawn: float = 0.15
    """Share of the given maps that are ellipses in the lungs; the others are the teacher's maps of real images."""
    free_share: float = 0.25
    """Share of images whose style is drawn apart from the label; a critic of its own judges their lungs alone. It makes
    the maps act, and costs some fidelity (docs/training.md)."""
    free_after: float = 0.7
    """Share of the run after which that begins, and steering with it: before, it costs anatomies."""
    guided_after: float = 0.6
    """Share of the run after which the teacher's terms begin, and those that make M act: images that are good already
    learn them fast, and become good sooner without. In runs below 80 thousand images 0 is better (docs/recipe.md)."""
    augment: float = 0.15
    """Share of images that are augmented before the discriminator, reached halfway; 0 turns it off."""
    sample_every: float = 10.0
    """Thousands of images between sample grids and checks for collapse."""
    checkpoint_every: float = 20.0
    """Thousands of images between checkpoints."""
    keep: int = 2
    """How many periodic checkpoints are kept."""
    seed: int = 0
    """Root of all random streams."""
    precision: Literal["auto", "32-true", "bf16-mixed", "64-true"] = "auto"
    """auto: bf16-mixed where the hardware has it, else 32-true."""

    def __post_init__(self) -> None:
        check_resolution(self.resolution)
        positive = ("z_dim", "batch", "kimg", "rate", "penalty_every", "sample_every", "checkpoint_every", "keep")
        for name in positive:
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name} (={getattr(self, name)}) must be positive and finite")
        for name in ("width", "min_width"):
            if getattr(self, name) < 4:
                raise InputError(f"{name} (={getattr(self, name)}) must be at least 4")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} (={getattr(self, name)}) must be from 0 to below 1")
        for name in ("rate_end", "ema_kimg", "ema_share", "logit_kimg", "detail_kimg"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} (={getattr(self, name)}) must be 0 or more")
        for field in fields(self):
            weighs = "_weight" in field.name or field.name.startswith("gamma")
            if weighs and not getattr(self, field.name) >= 0:
                raise InputError(f"{field.name} (={getattr(self, field.name)}) must be 0 (off) or positive")
        if self.gamma > 0 and self.gamma_end == 0:
            raise InputError(f"gamma_end (={self.gamma_end}) must be positive, as gamma (={self.gamma}) is, or both 0")
        shares = ("steer_share", "steer_drawn", "free_share", "augment", "area_limit")
        for name in (*shares, "free_after", "guided_after"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} (={getattr(self, name)}) must be from 0 to 1")
        if self.guided_after == 1:
            raise InputError("guided_after (=1) must be below 1: --preset unguided trains without guidance")
        if self.batch < 2:
            raise InputError(f"batch (={self.batch}) must be at least 2")
        if self.method == "dcgan":
            for name in _NOT_OF_DCGAN:
                if getattr(self, name) > 0:
                    raise InputError(
                        f"{name} (={getattr(self, name)}) must be 0 with method dcgan, which has no such term: take "
                        "--preset dcgan"
                    )
            if self.precision == "bf16-mixed":
                raise InputError(f"precision (={self.precision}) must be 32-true with method dcgan, as the original is")

    @property
    def guided(self) -> bool:
        """Whether the teacher is asked about made images at all."""
        return self.cam_weight_g > 0 or self.flip_weight > 0 or self.logit_weight > 0

    @property
    def asks_teacher(self) -> bool:
        """Whether training has any use for a teacher."""
        return self.guided or self.cam_weight_d > 0 or (self.free_share > 0 and self.steer_share > 0)

    @property
    def free_from(self) -> float:
        """Share of the run after which free pairs are drawn: not before guidance, which they are a part of."""
        return max(self.free_after, self.guided_after)

    def phases(self) -> list[tuple[float, float]]:
        """The parts of a run whose steps cost different times: (a place near its end, its share), as shares of the run.

        >>> [share for _, share in TrainConfig(guided_after=0.5, free_after=0.75).phases()]
        [0.5, 0.25, 0.25]
        """
        free = self.free_from if self.free_share > 0 else 1.0
        bounds = sorted({0.0, self.guided_after, free, 1.0})
        return [(max(a, 0.99 * b), b - a) for a, b in pairwise(bounds)]

    def notes(self) -> list[str]:
        """Sentences on what a run as short as this one does not have: terms that are weighed and never begin, and the
        help of guidance where it is needed most."""
        found = [
            f"{name}_weight (={getattr(self, f'{name}_weight')}) does nothing in this run: it begins after "
            f"{getattr(self, f'{name}_kimg'):g} thousand images ({name}_kimg), and there are {self.kimg:g}"
            for name in ("logit", "detail")
            if getattr(self, f"{name}_weight") > 0 and getattr(self, f"{name}_kimg") >= self.kimg
        ]
        if self.asks_teacher and self.guided_after > 0 and self.kimg < _LONG_KIMG:
            found.append(
                f"guided_after (={self.guided_after:g}) is for runs of {_LONG_KIMG:g} thousand images and more, and "
                f"there are {self.kimg:g}: --guided-after 0 makes better images in so few"
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """The settings as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "TrainConfig":
        """Settings that `to_json` wrote.

        Raises:
            InputError: a name that no setting has.
        """
        for name in ("logit", "detail"):  # a share of the run, in an earlier version
            if f"{name}_after" in found:
                found = {f"{name}_kimg": found[f"{name}_after"] * found["kimg"]} | found
                del found[f"{name}_after"]
        unknown = sorted(set(found) - {f.name for f in fields(cls)})
        if unknown:
            raise InputError(f"settings name {', '.join(unknown)}, which this version does not know")
        # Runs of earlier versions had penalties that did not fall, no say about detail, and were guided from the start
        off = {"detail_weight": 0.0, "logit_weight": 0.0, "guided_after": 0.0}
        earlier = {"gamma_end": found["gamma"]} | off if "gamma" in found else {}
        if found.get("method") == "dcgan":
            earlier |= dict.fromkeys(_NOT_OF_DCGAN, 0.0)
        return cls(**(earlier | found))


@dataclass(frozen=True)
class Preset:
    """Named settings, with what they cost and what to expect."""

    config: TrainConfig
    about: str


_CPU_64 = TrainConfig()
# Not tried with cpu-64's width, rate, penalties and weight, nor with late guidance
_SLOWER = replace(_CPU_64, width=128, rate=2e-4, penalty_every=4, logit_weight=0.1, guided_after=0.0)

PRESETS: dict[str, Preset] = {
    "cpu-64": Preset(_CPU_64, "64 px, 25 to 40 minutes on two CPU cores with bfloat16, longer without"),
    "demo": Preset(
        replace(_CPU_64, kimg=24.0, sample_every=4.0, checkpoint_every=12.0, logit_kimg=24.0, guided_after=0.0),
        "64 px, a few minutes on two CPU cores: shows the whole path, not the best images",
    ),
    # Going on, with --init: trained networks need neither a wait for the late terms nor a penalty that smooths D again.
    "finetune-64": Preset(
        replace(_SLOWER, kimg=50.0, gamma=0.6, ema_kimg=5.0, ema_share=0.2, free_after=0.5, logit_kimg=0.0,
                detail_kimg=0.0, sample_every=5.0, checkpoint_every=10.0),
        "64 px, with --init from a 64 px run or kermany-64, on other data",
    ),
    # Growing, with --init, whose widths they take. The squared gradient of the same score
    # in four times the pixels is a quarter, so gamma ends at four times the parent's, and begins not far above; maps
    # act already, so free pairs begin earlier; an average over more than a few steps, since the start is worth keeping
    # (docs/growing.md).
    "grow-128": Preset(
        replace(_CPU_64, resolution=128, rate=2e-4, kimg=120.0, gamma=3.0, gamma_end=0.8, penalty_every=4,
                ema_kimg=5.0, ema_share=0.2, free_after=0.5, guided_after=0.0, logit_kimg=0.0, detail_kimg=0.0,
                sample_every=5.0, checkpoint_every=10.0),
        "128 px, 35 to 70 minutes of one CPU core with bfloat16, with --init from a 64 px run",
    ),
    "grow-224": Preset(
        replace(_CPU_64, resolution=224, rate=2e-4, kimg=100.0, gamma=10.0, gamma_end=2.5, penalty_every=4,
                ema_kimg=5.0, ema_share=0.2, free_after=0.5, guided_after=0.0, logit_kimg=0.0, detail_kimg=0.0,
                sample_every=5.0, checkpoint_every=5.0),
        "224 px, 80 minutes of one CPU core with bfloat16, with --init from a 128 px run",
    ),
    "gpu-128": Preset(
        replace(_SLOWER, resolution=128, width=256, batch=64, kimg=2500.0, gamma=6.0, gamma_end=0.6, penalty_every=1,
                augment=0.3, logit_kimg=100.0, detail_kimg=800.0, rate_end=5e-5, sample_every=50.0,
                checkpoint_every=100.0),
        "128 px on one GPU; a starting point, not yet measured",
    ),
    "gpu-224": Preset(
        replace(_SLOWER, resolution=224, width=384, batch=64, kimg=4000.0, gamma=15.0, gamma_end=1.5, penalty_every=2,
                augment=0.3, logit_kimg=100.0, detail_kimg=1300.0, rate_end=5e-5, sample_every=50.0,
                checkpoint_every=100.0),
        "224 px on one or more GPUs (torchrun); a starting point, not yet measured",
    ),
    # What is left of cpu-64 without a teacher's say is an R3GAN-like network: residual blocks without normalisation,
    # relativistic pairing, R1 + R2. Its networks are cpu-64's own, to the parameter, so nothing but guidance differs.
    # The lesion stream, 7% of the parameters, is plain capacity then: nothing costs or asks for M; it is 0 for the
    # reference class and in the frame, as in every generator of ours.
    "unguided": Preset(
        replace(_CPU_64, **UNGUIDED, free_after=0.0, guided_after=0.0),  # type: ignore[arg-type]
        "cpu-64 without teacher and guidance, for comparison; its maps mean nothing",
    ),
    "dcgan": Preset(
        replace(_SLOWER, method="dcgan", batch=32, beta1=0.5, beta2=0.999, rate_end=2e-4, gamma=0.0, augment=0.0,
                cam_weight_d=1.0, cam_weight_g=1.0, class_weight=0.0, logit_weight=0.0, flip_weight=0.0,
                diversity_weight=0.0, detail_weight=0.0, area_weight=0.0, delta_weight=0.0, steer_weight=0.0,
                steer_share=0.0, steer_drawn=0.0, free_share=0.0, free_after=0.0, precision="32-true"),
        "the baseline of every comparison: DCGAN, BCE, batch norm, teacher run in every step, fp32",
    ),
}  # fmt: skip

STARTED = ("finetune-64", "grow-128", "grow-224")
"""Presets that go on from trained networks: their schedules would waste a run that starts from nothing."""


def preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        InputError: no such preset.
    """
    if name not in PRESETS:
        raise InputError(f"preset (={name!r}) must be one of {', '.join(PRESETS)}")
    return PRESETS[name]
