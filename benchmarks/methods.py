"""Trains the methods of compare.py, each by the command line in a process of its own, and goes on where one stopped."""

import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from expressivegan.atomic import write_text
from expressivegan.checkpoint import read_json
from expressivegan.config import TrainConfig
from expressivegan.errors import ExpressiveGANError, InputError
from expressivegan.training import RunDirectory

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


def ensure_run(name: str, data: str, out: Path, budget: Budget, teacher: str, seed: int) -> Path:
    """The run of a method within the budget: trained, resumed, or found complete.

    Args:
        name: of `METHODS`.
        data: as `expressivegan train` takes it.
        out: folder of the benchmark; runs are `out/runs/NAME`.
        budget: in minutes or in images.
        teacher: of those methods that have one: a model directory, `fit` (fitted once, into `out/teacher`) or `none`.
        seed: of everything.

    Raises:
        InputError: the folder holds a run of another budget or method.
        ExpressiveGANError: training failed or was interrupted.
    """
    run = out / "runs" / name
    settings = RunDirectory(run).settings() if (run / "settings.json").exists() else None
    if settings is not None:
        config = TrainConfig.from_json(settings["config"])
        spent = Budget(settings["minutes"], config.kimg if settings["minutes"] is None else None)
        if (spent, config.seed) != (budget, seed):
            raise InputError(
                f"{run} was trained with {' '.join(spent.options())} --seed {config.seed}, not "
                f"{' '.join(budget.options())} --seed {seed}; choose another --out or hand it over with --run"
            )
        seen = max((int(path.stem) for path in RunDirectory(run).checkpoints.glob("*.ckpt")), default=0)
        if seen:
            if seen < max(1, round(1000 * config.kimg / config.batch)) * config.batch:
                _call(out, name, "train", "--resume", "--out", str(run))
            return run
    if name not in TAUGHT:
        teacher = "none"
    elif teacher == "fit":
        teacher = str(out / "teacher")
        if not (out / "teacher" / "model.safetensors").exists():
            _call(out, "teacher", "teach", "--data", data, "--out", teacher, "--seed", str(seed))
    call = ["train", "--preset", METHODS[name], "--data", data, "--out", str(run), "--teacher", teacher]
    _call(out, name, *call, "--seed", str(seed), *budget.options())
    return run


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
