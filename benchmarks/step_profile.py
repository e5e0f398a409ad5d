"""What does a training step spend its time on? Run: python benchmarks/step_profile.py [--data DIR] [--check]

Of preset cpu-64 in the second half of a run: the step's time by kind of operation, with and without penalties; what the
step's convolutions take when they run alone, one after the other, at the same shapes, layouts and types; and what
guidance (the teacher's pass over made images, its terms and their gradients) costs, against the same run without it.

Runs alternate, and medians count; of the parts the first quartile, since what interrupts a process makes them longer.
One thread is timed in processor time, several by the clock. --check exits with 1 unless convolutions alone are at least
half of the step, and guidance at most 15% of it.
"""

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from ending import leave
from speed import make_arm
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from expressivegan import load_images
from expressivegan.config import preset
from expressivegan.training.run import Run

LEAST_CONVOLUTION = 0.5
MOST_GUIDANCE = 0.15

PARTS = {
    "convolutions, forward": ("mkldnn_convolution", "thnn_conv2d", "cudnn_convolution"),
    "convolutions, gradients": ("convolution_backward",),
    "activations": ("leaky_relu", "relu", "threshold", "clamp_min"),
    "upsampling": ("upsample",),
    "pooling": ("avg_pool", "adaptive", "max_pool", "pixel_shuffle", "pixel_unshuffle"),
    "linear layers": ("addmm", "mm", "bmm"),
    "conversions and copies": ("copy_", "to_copy", "to", "contiguous", "clone", "empty", "resize", "fill_", "zero"),
    "optimisers and averages": ("fused_adam", "foreach", "Optimizer", "lerp"),
    "warps": ("grid_sampler", "affine_grid"),
    "sums": ("sum", "mean", "norm", "linalg_vector_norm"),
    "other elementwise": ("mul", "add", "sub", "div", "tanh", "sigmoid", "where", "sqrt", "rsub", "pow", "neg", "cat"),
}  # fmt: skip


class Convolutions(TorchDispatchMode):
    """Notes every convolution's arguments: shapes, strides and types of tensors, everything else as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[tuple[Any, ...], int] = defaultdict(int)

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default):
            described = tuple(
                ("tensor", tuple(a.shape), a.stride(), a.dtype, str(a.device)) if isinstance(a, Tensor) else _frozen(a)
                for a in args
            )
            self.calls[(func, *described)] += 1
        return func(*args, **(kwargs or {}))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _alive(value: Any) -> Any:
    if isinstance(value, tuple) and value[:1] == ("tensor",):
        _, shape, stride, dtype, device = value
        room = 1 + sum((n - 1) * by for n, by in zip(shape, stride, strict=True))
        return torch.randn(room, device=device).to(dtype).as_strided(shape, stride)
    return list(value) if isinstance(value, tuple) else value


def clock() -> float:
    """Seconds; on one thread of the processor, so that other jobs beside it do not count."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def seconds(action: Callable[[], object], device: torch.device) -> float:
    """Of one call."""
    start = clock()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def advance(run: Run) -> None:
    run.step(lambda terms: None)


def alone(calls: dict[tuple[Any, ...], int], device: torch.device, repeats: int) -> float:
    """Seconds that these convolutions take by themselves."""
    total = 0.0
    for (func, *described), count in calls.items():
        arguments = [_alive(d) for d in described]

        def several(func: Any = func, arguments: list[Any] = arguments) -> None:
            for _ in range(5):
                func(*arguments)

        several()
        total += count * statistics.median(seconds(several, device) for _ in range(repeats)) / 5
    return total


def parts(run: Run, period: int, steps: int) -> dict[bool, dict[str, float]]:
    """Milliseconds of a step's kinds of operation, without and with penalty; calls of the same shapes count alike."""
    found: dict[bool, dict[tuple[str, str], list[float]]] = {False: defaultdict(list), True: defaultdict(list)}
    done = {False: 0, True: 0}
    for _ in range(steps * period):
        penalised = _penalised(run)
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
            advance(run)
        done[penalised] += 1
        for event in profiler.events() or ():
            name = event.name.removeprefix("aten::")
            found[penalised][name, str(event.input_shapes)].append(event.self_cpu_time_total / 1000)
    result: dict[bool, dict[str, float]] = {}
    for penalised, events in found.items():
        table = dict.fromkeys([*PARTS, "everything else"], 0.0)
        for (name, _), times in events.items():
            part = next((p for p, names in PARTS.items() if name.lstrip("_").startswith(names)), "everything else")
            table[part] += sorted(times)[len(times) // 4] * len(times) / max(done[penalised], 1)
        result[penalised] = table
    return result


def _penalised(run: Run) -> bool:
    config = run.config
    return config.gamma > 0 and (run.seen // config.batch) % config.penalty_every == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="phantom:1000", help="folder of X-rays, manifest, or phantom[:COUNT]")
    parser.add_argument("--rounds", type=int, default=5, help="of as many steps as lie between penalties")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--check", action="store_true", help="fail on too little convolution or too much guidance")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)

    config = preset("cpu-64").config
    images = load_images(options.data, config.resolution, progress=False)
    blind = replace(config, cam_weight_g=0.0, logit_weight=0.0, flip_weight=0.0)
    runs = {n: make_arm(images, c, options.device).run for n, c in (("ours", config), ("blind", blind))}
    run, device, period = runs["ours"], runs["ours"].fabric.device, config.penalty_every
    times: dict[str, dict[bool, list[float]]] = {name: {False: [], True: []} for name in runs}
    for each in runs.values():
        each.seen = round(990 * config.kimg * config.free_from) // (period * config.batch) * period * config.batch
        for _ in range(period):
            advance(each)
    for _ in range(options.rounds * period):
        for name, each in runs.items():
            kind = _penalised(each)
            times[name][kind].append(seconds(lambda each=each: advance(each), device))

    def mean(by_kind: dict[bool, float]) -> float:
        return ((period - 1) * by_kind[False] + by_kind[True]) / period

    step = {name: {kind: statistics.median(t) for kind, t in by_kind.items()} for name, by_kind in times.items()}
    calls: dict[bool, dict[tuple[Any, ...], int]] = {}
    for _ in range(period):
        kind = _penalised(run)
        with Convolutions() as noted:
            advance(run)
        calls[kind] = noted.calls
    convolution = {kind: alone(found, device, options.rounds) for kind, found in calls.items()}
    table = parts(run, period, max(2, options.rounds // 2))

    whole = mean(step["ours"])
    share = mean(convolution) / whole
    guidance = 1 - mean(step["blind"]) / whole
    print(f"{'ms':>34} {'plain':>8} {'penalty':>8} {'mean':>8}")
    for part in table[False]:
        by_kind = {kind: table[kind][part] for kind in table}
        print(f"{part:>34} {by_kind[False]:8.1f} {by_kind[True]:8.1f} {mean(by_kind):8.1f}")
    totals = {"a step": step["ours"], "its convolutions alone": convolution, "a step without guidance": step["blind"]}
    for what, in_seconds in totals.items():
        print(f"{what:>34} {1e3 * in_seconds[False]:8.1f} {1e3 * in_seconds[True]:8.1f} {1e3 * mean(in_seconds):8.1f}")
    print(
        json.dumps(
            {
                "device": str(device),
                "threads": torch.get_num_threads(),
                "precision": str(run.fabric._precision.precision),
                "images_per_second": round(config.batch / whole, 1),
                "share_of_convolutions": round(share, 3),
                "share_of_guidance": round(guidance, 3),
                "ratio_of_penalty_steps": round(step["ours"][True] / step["ours"][False], 2),
            },
            indent=2,
        )
    )
    if options.check and (share < LEAST_CONVOLUTION or guidance > MOST_GUIDANCE):
        print(
            f"step_profile: convolutions must be at least {LEAST_CONVOLUTION:.0%} of the step and guidance at most "
            f"{MOST_GUIDANCE:.0%}",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    leave(main)
