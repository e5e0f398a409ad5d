"""How fast does training go? Run: python benchmarks/speed.py [--data DIR] [--check]

Seven arms, interleaved, medians of rounds; images per second of whole training steps, penalties included:

- ours: preset cpu-64, CAM guidance on; the teacher's maps of real images are computed once and read
- original: preset dcgan, the loop that this project grew from, at equal parameters: fp32, teacher run in every step
- densenet: the same with the original's own teacher, a DenseNet-121 at 224 px
- uncached: our networks in fp32, and the teacher run on every step's real images
- free: ours in the last fifth of a run, with styles drawn apart from labels, the lesion critic, and drawn ellipses
- unguided: preset unguided, the same networks without a teacher
- before: ours as it was before, width 128 with penalties every 4 steps

It also prints the share of our step that goes into drawing the inputs (data and CAM reading), and the peak of memory.
The teacher's weights are fresh, since its cost does not depend on them. --check exits with 1 unless the share is
below 3% and the memory below 4 GiB.
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from ending import leave

from expressivegan import CXR_CAM_Teacher, ImageSet, load_images
from expressivegan.config import TrainConfig, preset
from expressivegan.devices import make_fabric, peak_gib
from expressivegan.training import Guide
from expressivegan.training.build import make_networks
from expressivegan.training.run import Run
from expressivegan.training.steps import Batch

MOST_DRAWING = 0.03
MOST_GIB = 4.0


class TimedRun(Run):
    """A run that says how long drawing took."""

    drawing = 0.0
    uncached = False

    def draw(self, step: int) -> Batch:
        start = time.perf_counter()
        batch = super().draw(step)
        self.drawing += time.perf_counter() - start
        if self.uncached:  # counts as part of the step, not of drawing
            assert self.nets.guide is not None
            with torch.no_grad():
                batch = replace(batch, cams=self.nets.guide(batch.real)[0])
        return batch


@dataclass
class Arm:
    """A run and what was measured on it."""

    run: TimedRun
    parameters: int
    rates: list[float] = field(default_factory=list)
    drawn: list[float] = field(default_factory=list)

    def advance(self, steps: int) -> None:
        self.run.drawing = 0.0
        start = time.perf_counter()
        for _ in range(steps):
            self.run.step(lambda terms: None)
        if self.run.fabric.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        self.rates.append(steps * self.run.config.batch / seconds)
        self.drawn.append(self.run.drawing / seconds)


def parameters(config: TrainConfig, images: ImageSet) -> int:
    """Of G and D together."""
    with torch.device("meta"):
        networks = make_networks(config, images.classes, images.reference)
    return sum(p.numel() for network in networks for p in network.parameters())


def equal_width(config: TrainConfig, images: ImageSet, wanted: int) -> TrainConfig:
    """The settings with the width that comes closest to a number of parameters."""
    widths = range(16, 257, 2)
    best = min(widths, key=lambda w: abs(parameters(replace(config, width=w), images) - wanted))
    return replace(config, width=best)


def make_arm(
    images: ImageSet,
    config: TrainConfig,
    device: Any,
    *,
    uncached: bool = False,
    backbone: str = "compact-fine",
) -> Arm:
    reference = None if images.reference is None else images.classes[images.reference]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        teacher = CXR_CAM_Teacher(
            weights=None,
            backbone=backbone,
            classes=images.classes,
            reference=reference,
            resolution=images.resolution if backbone.startswith("compact") else 224,
        ).eval()
    guide = Guide(teacher, images.classes, images.reference)
    run = TimedRun(images, config, guide, make_fabric(device, config.precision))
    run.uncached = uncached
    run.look_at_real(None)
    return Arm(run, sum(p.numel() for n in (run.nets.G, run.nets.D) for p in n.parameters()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="phantom", help="folder of X-rays, manifest, or phantom[:COUNT]")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8, help="per arm and round, rounded up to a penalty's period")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--check", action="store_true", help="fail on too much drawing or memory")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)

    ours = preset("cpu-64").config
    images = load_images(options.data, ours.resolution, progress=False)
    original = equal_width(preset("dcgan").config, images, parameters(ours, images))
    arms = {"ours": make_arm(images, ours, options.device)}
    period = ours.penalty_every
    steps = -(-options.steps // period) * period
    # Guided, and without free pairs; augmentation as in the second half of a run, the dearer one
    arms["ours"].run.seen = round(1000 * ours.kimg * max(0.5, 0.99 * ours.free_from))
    arms["ours"].advance(2 * steps)
    alone = peak_gib()
    arms["original"] = make_arm(images, original, options.device)
    arms["densenet"] = make_arm(images, original, options.device, backbone="densenet121")
    arms["uncached"] = make_arm(images, replace(ours, precision="32-true"), options.device, uncached=True)
    arms["free"] = make_arm(images, ours, options.device)
    arms["unguided"] = make_arm(images, preset("unguided").config, options.device)
    arms["before"] = make_arm(images, replace(ours, width=128, penalty_every=4), options.device)
    for name in ("uncached", "free", "unguided", "before"):
        arms[name].run.seen = arms["ours"].run.seen
    arms["free"].run.seen = 900 * int(ours.kimg)
    lengths = {name: 1 if name == "densenet" else steps for name in arms}  # its steps take seconds
    for name, arm in arms.items():
        arm.advance(min(period, lengths[name]))
        arm.rates.clear()
        arm.drawn.clear()
    for _ in range(options.rounds):
        for name, arm in arms.items():
            arm.advance(lengths[name])

    def ratio(name: str) -> float:
        pairs = zip(arms["ours"].rates, arms[name].rates, strict=True)
        return round(statistics.median(a / b for a, b in pairs), 2)

    share = statistics.median(arms["ours"].drawn)
    result = {
        "device": str(arms["ours"].run.fabric.device),
        "threads": torch.get_num_threads(),
        "precision": {name: str(arm.run.fabric._precision.precision) for name, arm in arms.items()},
        "batch": ours.batch,
        "steps": steps * options.rounds,
        "parameters": {name: arm.parameters for name, arm in arms.items()},
        "images_per_second": {name: round(statistics.median(arm.rates), 1) for name, arm in arms.items()},
        "ratio_to_original": ratio("original"),
        "ratio_to_original_with_densenet": ratio("densenet"),
        "ratio_to_uncached_fp32": ratio("uncached"),
        "ratio_to_free": ratio("free"),
        "ratio_to_unguided": ratio("unguided"),
        "ratio_to_before": ratio("before"),
        "share_of_drawing": round(share, 4),
        "peak_gib_ours_alone": None if alone is None else round(alone, 2),
        "peak_gib_all_arms": None if alone is None else round(peak_gib() or alone, 2),
    }
    print(json.dumps(result, indent=2))
    if options.check and (share >= MOST_DRAWING or (alone or 0.0) >= MOST_GIB):
        print(f"speed: drawing must stay below {MOST_DRAWING:.0%} and memory below {MOST_GIB:g} GiB", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    leave(main)
