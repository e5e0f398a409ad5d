"""How fast are images made? Run: python benchmarks/generate_speed.py [--model kermany-64] [--threads 2]

Images per second of `generate`, with their maps and in the batches that it chooses, and the milliseconds of one image,
in fp32 and, where the processor has it, in bfloat16. Each is taken in a process of its own, in turns, medians of
rounds: once as `expressivegan generate` runs, which keeps freed memory for the next batch, once as any other program
does (docs/generation.md).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict

from ending import leave

from expressivegan.checkpoint import open_model
from expressivegan.devices import Precision, fast_bf16, keep_freed_memory
from expressivegan.models import GeneratorWithCAMGuidance
from expressivegan.synthesis import generate
from expressivegan.weights import find_model

IMAGES = 1024
SINGLES = 40


def measure(model: str, precision: Precision, keep: bool) -> dict[str, float]:
    """In this process."""
    if keep:
        keep_freed_memory()
    network = open_model(GeneratorWithCAMGuidance, find_model(model) / "generator").eval()

    def seconds(count: int) -> float:
        start = time.perf_counter()
        for _ in generate(network, range(count), precision=precision):
            pass
        return time.perf_counter() - start

    seconds(128)  # the first of a shape prepares its kernels
    many = seconds(IMAGES)
    seconds(1)
    return {
        "images_per_second": IMAGES / many,
        "ms_of_one": 1e3 * statistics.median(seconds(1) for _ in range(SINGLES)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="kermany-64", help="a run, a model directory or a model of the package")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", nargs=2, metavar=("PRECISION", "HOW"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        precision, how = options.measure
        print(json.dumps(measure(options.model, precision, how == "kept")))
        return 0
    precisions = ("32-true", "bf16-mixed") if fast_bf16("cpu") else ("32-true",)
    arms = [(precision, how) for precision in precisions for how in ("kept", "given-back")]
    found: dict[tuple[str, str], dict[str, list[float]]] = {arm: defaultdict(list) for arm in arms}
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    for _ in range(options.rounds):
        for arm in arms:
            command = [sys.executable, __file__, "--model", options.model, "--measure", *arm]
            run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
            if run.returncode:
                return run.returncode  # it has said why
            for name, value in json.loads(run.stdout).items():
                found[arm][name].append(value)
    middle = {arm: {name: statistics.median(v) for name, v in values.items()} for arm, values in found.items()}
    result: dict[str, object] = {"model": options.model, "threads": options.threads}
    for precision in precisions:
        kept, back = middle[precision, "kept"], middle[precision, "given-back"]
        result[precision] = {
            "freed memory kept": {name: round(value, 2) for name, value in kept.items()},
            "given back": {name: round(value, 2) for name, value in back.items()},
            "images_per_second, kept over given back": round(kept["images_per_second"] / back["images_per_second"], 2),
        }
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    leave(main)
