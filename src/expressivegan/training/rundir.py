"""The run directory: what a run was, is, and has made. It explains itself to somebody who finds it later."""

import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard.writer import SummaryWriter

from expressivegan.atomic import write_text
from expressivegan.checkpoint import list_checkpoints, make_directory, save_model, state_hash
from expressivegan.errors import CheckpointError, InputError
from expressivegan.images import grid, overlay, save_png
from expressivegan.teacher import CXR_CAM_Teacher, open_teacher

SETTINGS = "settings.json"


def environment() -> dict[str, Any]:
    """Versions, machine and threads: what a result depends on besides the settings."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "packages": {name: version(name) for name in ("torch", "lightning-fabric", "numpy")},
    }


@dataclass
class RunDirectory:
    """Paths and logs of one run.

    Attributes:
        path: the directory.
    """

    path: Path
    _board: SummaryWriter | None = None

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints, named by images seen."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """Model directory of the averaged generator."""
        return self.path / "generator"

    @property
    def discriminator(self) -> Path:
        """Model directory of the discriminator."""
        return self.path / "discriminator"

    @property
    def teacher(self) -> Path:
        """Model directory of the run's own teacher, which stands nowhere else."""
        return self.path / "teacher"

    def keep_teacher(self, teacher: CXR_CAM_Teacher) -> None:
        """Writes the run's own teacher, where it does not stand already."""
        if self.teacher.is_dir() and state_hash(open_teacher(str(self.teacher))) == state_hash(teacher):
            return
        save_model(teacher, self.teacher, "# CAM teacher\n\nIt guided the run in whose folder it stands.\n")

    def check_new(self) -> None:
        """Raises InputError where a run stands here that has reached a checkpoint or made a model."""
        if list_checkpoints(self.checkpoints):
            raise InputError(f"--out (={self.path}) already holds a run; go on with --resume, or choose another folder")
        if self.model.exists():
            raise InputError(
                f"--out (={self.path}) already holds a run, whose checkpoints are gone; choose another folder, and "
                f"--init {self.path} to start from its networks"
            )

    def create(self, settings: Mapping[str, Any]) -> None:
        """Makes the folders and writes the settings.

        Raises:
            InputError: the folder cannot be written to.
        """
        make_directory(self.path)
        for folder in (self.checkpoints, self.path / "samples"):
            folder.mkdir(exist_ok=True)
        # of a run that never reached a checkpoint
        (self.path / "metrics.jsonl").unlink(missing_ok=True)
        for left in ("samples/*-images.png", "samples/*-maps.png", "tensorboard/events.out.tfevents.*"):
            for path in self.path.glob(left):
                path.unlink()
        write_text(self.path / SETTINGS, json.dumps(settings, indent=2) + "\n")
        if not (self.path / "README.md").exists():
            write_text(self.path / "README.md", _README)

    def update(self, settings: Mapping[str, Any]) -> None:
        """Changes some of the settings."""
        write_text(self.path / SETTINGS, json.dumps(self.settings() | dict(settings), indent=2) + "\n")

    def settings(self) -> dict[str, Any]:
        """What `create` wrote.

        Raises:
            CheckpointError: there is no run here, or its settings are damaged.
        """
        try:
            found: dict[str, Any] = json.loads((self.path / SETTINGS).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{self.path} holds no run (it has no {SETTINGS}); start one without --resume"
            ) from error
        except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
            raise CheckpointError(f"{self.path / SETTINGS} is damaged ({error})") from error
        if not isinstance(found, dict) or not isinstance(found.get("config"), dict):
            raise CheckpointError(f"{self.path / SETTINGS} is not that of a run; choose the folder of one")
        return found

    def log(self, images: int, figures: Mapping[str, float]) -> None:
        """Appends a line to metrics.jsonl, and to TensorBoard."""
        row = {"images": images, "time": round(time.time(), 1)} | {k: round(float(v), 6) for k, v in figures.items()}
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._board is None:
            self._board = SummaryWriter(str(self.path / "tensorboard"))
        for name, value in figures.items():
            self._board.add_scalar(name, value, images)

    def forget_after(self, images: int) -> None:
        """Drops lines of metrics.jsonl past the checkpoint a run resumes from, and sets damaged checkpoints aside."""
        for late in list_checkpoints(self.checkpoints):
            if int(late.stem) > images:  # newer than the newest that can be read
                late.rename(late.with_suffix(".damaged"))
        path = self.path / "metrics.jsonl"
        if path.exists():
            kept = []
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["images"] <= images:
                        kept.append(line)
                except (json.JSONDecodeError, KeyError, TypeError):
                    continue  # a line cut off by a kill
            write_text(path, "".join(f"{line}\n" for line in kept))

    def samples(self, images: int, made: Tensor, maps: Tensor, columns: int) -> None:
        """Writes a grid of images and one of their maps: (N, 1, H, W) in [-1, 1] and in [0, 1]."""
        folder = self.path / "samples"
        folder.mkdir(exist_ok=True)
        save_png(folder / f"{images:09d}-images.png", grid(made, columns))
        save_png(folder / f"{images:09d}-maps.png", grid(overlay(made, maps), columns))

    def prune(self, keep: int) -> None:
        """Deletes all but the newest checkpoints."""
        for path in list_checkpoints(self.checkpoints)[:-keep]:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Flushes TensorBoard."""
        if self._board is not None:
            self._board.close()
            self._board = None


_README = """# A training run of expressivegan

- `settings.json`: every setting, the data's hash, the teacher, the environment, the seed
- `metrics.jsonl`: losses, diversity and speed over images seen; `tensorboard/` shows the same: `tensorboard --logdir .`
- `samples/`: the same latents at fixed intervals, as images and with their maps
- `checkpoints/`: all that resuming needs; go on with `expressivegan train --resume --out` and this folder
- `generator/`: the averaged generator as a model directory: `expressivegan generate --model` and this folder
- `discriminator/`: the discriminator that explains
"""
