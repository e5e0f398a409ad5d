"""What the program asks of the machine it runs on."""

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from expressivegan.devices import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def work():
    x = torch.zeros(2**20)
    for _ in range(20):
        x = torch.cat([x * 1.5, x])[: 2**20].clone()
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    wasteful = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}  # as glibc begins
    run = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True, env=wasteful)
    return int(run.stdout)


@pytest.mark.skipif("not sys.platform.startswith('linux') or __import__('platform').libc_ver()[0] != 'glibc'")
def test_freed_memory_is_kept_for_the_next_tensors() -> None:
    assert faults("keep") < 0.2 * faults("leave")
