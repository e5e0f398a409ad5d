"""Several processes train as one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from expressivegan.data import ImageSet
from expressivegan.errors import InputError
from expressivegan.training import Guide
from expressivegan.training.run import Run
from runs import differences, go, last_state
from tiny import tiny_config

# One process imports and forks, as importing takes longer than all the rest.
_PROCESSES = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from tiny import phantom_set, tiny_config, tiny_teacher
from expressivegan.training import Guide, train
other = os.fork()
os.environ["RANK"] = os.environ["LOCAL_RANK"] = "0" if other else "1"
try:
    images = phantom_set(120)
    settings = {{"batch": 16, "kimg": 0.096, "augment": 1.0, "checkpoint_every": 0.048}}
    config = tiny_config(precision="64-true", **settings)
    guide = Guide(tiny_teacher(), images.classes, images.reference)
    train(images, config, Path({out!r}), guide, device="cpu")
except BaseException:
    if other:
        os.kill(other, signal.SIGKILL)
    raise
if other:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
"""


def test_two_processes_train_as_one(phantoms: ImageSet, guide: Guide, tmp_path: Path) -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = _PROCESSES.format(tests=str(Path(__file__).resolve().parents[1]), out=str(tmp_path / "two"))
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | shared | {"OMP_NUM_THREADS": "1"},
                          capture_output=True, text=True, timeout=200, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    settings = {"batch": 16, "kimg": 0.096, "augment": 1.0, "checkpoint_every": 0.048}
    config = tiny_config(precision="64-true", **settings)
    go(phantoms, config, tmp_path / "one", guide)
    one, two = last_state(tmp_path / "one"), last_state(tmp_path / "two")
    assert one["seen"] == two["seen"] == 96
    for network in ("G", "D", "ema", "lesion_critic"):
        for key, value in one[network].items():
            assert value.dtype == torch.float64
            assert (value - two[network][key]).abs().max() < 1e-9, f"{network}.{key}"
    assert one["streams"].keys() == two["streams"].keys()
    assert differences(one["streams"], two["streams"]) == []
    assert json.loads((tmp_path / "two" / "settings.json").read_text())["processes"] == 2


def test_a_batch_that_cannot_be_shared(phantoms: ImageSet) -> None:
    class Three:
        world_size = 3

    with pytest.raises(InputError, match=r"batch \(=4\) must be divisible by the number of processes \(=3\)"):
        Run(phantoms, tiny_config(), None, Three())  # type: ignore[arg-type]
