"""Trains the methods of compare.py, each by the command line in a process of its own, and goes on where one stopped."""

import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expressivegan.atomic import write_text
from expressivegan.checkpoint import list_checkpoints, read_json
from expressivegan.config import TrainConfig, preset
from expressivegan.errors import ExpressiveGANError, InputError
from expressivegan.teacher.backbone import XRV_PREFIX
from expressivegan.training import RunDirectory
from expressivegan.weights import lasting_name

METHODS = {"ours": "cpu-64", "unguided": "unguided", "dcgan": "dcgan"}
"""Name → preset."""
TAUGHT = ("ours", "dcgan")
_CALL = [sys.executable, "-c", "import sys; from expressivegan.cli import main; sys.exit(main())"]


@dataclass(frozen=True)
class Budget:
    """What every method may spend: one of the two."""

    minutes: float | None
    kimg: float | None

    def options(self) -> list[str]:
        """As `expressivegan train` takes it."""
        return ["--kimg", str(self.kimg)] if self.minutes is None else ["--minutes", str(self.minutes)]


def ensure_run(name: str, data: str, data_hash: str, out: Path, budget: Budget, teacher: str, seed: int) -> Path:
    """The run of a method within the budget: trained, resumed, or found complete.

    Args:
        name: of `METHODS`.
        data: as `expressivegan train` takes it.
        data_hash: of the data.
        out: folder of the benchmark; runs are `out/runs/NAME`.
        budget: in minutes or in images.
        teacher: of those methods that have one: a model directory, `fit` (fitted once, into `out/teacher`) or `none`.
        seed: of everything.

    Raises:
        InputError: the folder holds a run of another budget, method or teacher, or of other data; or the teacher that
            was fitted there has seen other data.
        ExpressiveGANError: training failed or was interrupted.
    """
    run, fitted = out / "runs" / name, out / "teacher"
    asked = teacher
    if name not in TAUGHT:
        teacher = "none"
    elif teacher == "fit":
        teacher = str(fitted)
    if (run / "settings.json").exists():
        settings = RunDirectory(run).settings()
        config = TrainConfig.from_json(settings["config"])
        _check_run(run, settings, name, data_hash, budget, teacher, seed)
        seen = max((int(path.stem) for path in list_checkpoints(RunDirectory(run).checkpoints)), default=0)
        if seen:
            if seen < max(1, round(1000 * config.kimg / config.batch)) * config.batch:
                _call(out, name, "train", "--resume", "--out", str(run))
            return run
    if name in TAUGHT and asked == "fit":
        if not (fitted / "model.safetensors").exists():
            _call(out, "teacher", "teach", "--data", data, "--out", teacher, "--seed", str(seed))
        elif read_json(fitted / "expressivegan.json").get("data_hash") != data_hash:
            raise InputError(f"{fitted} was fitted on other data than {data}; choose another --out")
    call = ["train", "--preset", METHODS[name], "--data", data, "--out", str(run), "--teacher", teacher]
    _call(out, name, *call, "--seed", str(seed), *budget.options())
    return run


def _check_run(
    run: Path, settings: dict[str, Any], name: str, data_hash: str, budget: Budget, teacher: str, seed: int
) -> None:
    """Raises InputError unless the run is what would be trained now."""
    config = TrainConfig.from_json(settings["config"])
    spent = Budget(settings["minutes"], config.kimg if settings["minutes"] is None else None)
    is_file = teacher != "none" and not teacher.startswith(XRV_PREFIX)
    found = {
        "budget": (" ".join(spent.options()), " ".join(budget.options())),
        "--seed": (config.seed, seed),
        "data hash": (settings["data_hash"], data_hash),
        "--teacher": (settings["teacher"], lasting_name(teacher) if is_file else teacher),
    }
    wanted = preset(METHODS[name]).config.to_json()
    free = {"kimg", "seed", "precision"}  # the budget, the seed, and what the device decides
    found |= {f"--{k.replace('_', '-')}": (v, wanted[k]) for k, v in config.to_json().items() if k not in free}
    differs = {k: pair for k, pair in found.items() if pair[0] != pair[1]}
    if differs:
        was = ", ".join(f"{k} {old}, not {new}" for k, (old, new) in differs.items())
        raise InputError(f"{run} was trained with {was}; choose another --out or hand it over with --run")


def cpu_minutes(out: Path) -> dict[str, float]:
    """Name → minutes of processor time spent on training it so far, start-up and restarts included."""
    return {name: float(minutes) for name, minutes in read_json(out / "cpu_minutes.json").items()}


def _call(out: Path, name: str, *words: str) -> None:
    """One command of expressivegan; its processor time is added to the account of `name`, however it ends."""
    out.mkdir(parents=True, exist_ok=True)
    print("expressivegan", *words, file=sys.stderr, flush=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        code = subprocess.run([*_CALL, *words], check=False).returncode
    finally:
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60
        account = cpu_minutes(out)
        account[name] = round(account.get(name, 0.0) + spent, 3)
        write_text(out / "cpu_minutes.json", json.dumps(account) + "\n")
    if code:
        raise ExpressiveGANError(f"{name}: expressivegan {words[0]} ended with code {code}; the same command goes on")
