"""A run that is stopped, killed or damaged goes on, and reaches the same weights."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import call
from expressivegan.checkpoint import newest_checkpoint, save_checkpoint, save_model, state_hash
from expressivegan.data import ImageSet, load_images
from expressivegan.errors import CheckpointError, InputError
from expressivegan.synthesis import open_generator
from expressivegan.teacher import open_teacher
from expressivegan.training import Guide, RunDirectory
from expressivegan.training.run import Run
from runs import EVERY_STEP, Killed, differences, go, last_state, metrics
from tiny import enlarged, phantom_set, tiny_config, tiny_teacher


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_killed_run_reaches_the_same_weights(
    phantoms: ImageSet, guide: Guide, tmp_path: Path, kill_after: Callable[[int | None], None], precision: Any
) -> None:
    config = tiny_config(kimg=0.032, checkpoint_every=0.012, sample_every=0.016, precision=precision)
    go(phantoms, config, tmp_path / "whole", guide)
    kill_after(20)
    with pytest.raises(Killed):
        go(phantoms, config, tmp_path / "killed", guide)
    assert last_state(tmp_path / "killed")["seen"] == 12
    kill_after(None)
    assert go(phantoms, config, tmp_path / "killed", guide, resume=True).images == 32
    assert differences(last_state(tmp_path / "whole"), last_state(tmp_path / "killed")) == []
    assert state_hash(open_generator(tmp_path / "whole")) == state_hash(open_generator(tmp_path / "killed"))
    for one, other in zip(metrics(tmp_path / "whole"), metrics(tmp_path / "killed"), strict=False):
        assert one["images"] == other["images"]
    seen = [row["images"] for row in metrics(tmp_path / "killed")]
    assert seen == sorted(seen)


def test_a_damaged_newest_checkpoint_costs_time_not_the_run(phantoms: ImageSet, guide: Guide, tmp_path: Path) -> None:
    config = tiny_config(kimg=0.024, checkpoint_every=0.008, keep=3)
    go(phantoms, config, tmp_path / "run", guide)
    whole = last_state(tmp_path / "run")
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-10])
    assert go(phantoms, config, tmp_path / "run", guide, resume=True).images == 24
    assert differences(whole, last_state(tmp_path / "run")) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_and_saves(
    phantoms: ImageSet, guide: Guide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    config = tiny_config(kimg=0.024)
    go(phantoms, config, tmp_path / "whole", guide)
    step, before = Run.step, signal.getsignal(number)

    def interrupted(self: Run, check: Any) -> Any:
        if self.seen == 8:
            os.kill(os.getpid(), number)
        return step(self, check)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "step", interrupted)
        result = go(phantoms, config, tmp_path / "run", guide)
    assert (result.stopped, result.images, result.total) == (True, 12, 24)
    assert signal.getsignal(number) is before
    assert open_generator(tmp_path / "run").resolution == 32
    assert not go(phantoms, config, tmp_path / "run", guide, resume=True).stopped
    assert differences(last_state(tmp_path / "whole"), last_state(tmp_path / "run")) == []


def test_resuming_a_finished_run_changes_nothing(phantoms: ImageSet, guide: Guide, tmp_path: Path) -> None:
    go(phantoms, tiny_config(), tmp_path / "run", guide)
    before = state_hash(open_generator(tmp_path / "run"))
    result = go(phantoms, tiny_config(), tmp_path / "run", guide, resume=True)
    assert (result.images, result.stopped) == (12, False)
    assert state_hash(open_generator(tmp_path / "run")) == before


def test_what_cannot_be_resumed(phantoms: ImageSet, guide: Guide, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no checkpoint yet"):
        go(phantoms, tiny_config(), tmp_path / "none", guide, resume=True)
    go(phantoms, tiny_config(), tmp_path / "run", guide)
    with pytest.raises(InputError, match=r"already holds a run; go on with --resume"):
        go(phantoms, tiny_config(), tmp_path / "run", guide)
    with pytest.raises(CheckpointError, match="other data"):
        go(phantom_set(30), tiny_config(), tmp_path / "run", guide, resume=True)
    larger = enlarged(phantoms, 64, 120)
    with pytest.raises(CheckpointError, match=r"resolution 32\) does not fit .*resolution 64"):
        go(larger, tiny_config(resolution=64), tmp_path / "run", guide, resume=True)
    with pytest.raises(CheckpointError, match="does not fit these networks"):
        go(phantoms, tiny_config(width=16), tmp_path / "run", guide, resume=True)
    newest, state = newest_checkpoint(tmp_path / "run" / "checkpoints") or (Path(), {})
    del state["streams"]["styles"]
    save_checkpoint(newest, state)
    with pytest.raises(CheckpointError, match="version of this package whose training differs"):
        go(phantoms, tiny_config(), tmp_path / "run", guide, resume=True)
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be read"):
        go(phantoms, tiny_config(), tmp_path / "run", guide, resume=True)


def test_a_run_without_checkpoints_is_not_overwritten(phantoms: ImageSet, guide: Guide, tmp_path: Path) -> None:
    run = tmp_path / "run"
    go(phantoms, tiny_config(), run, guide)
    shutil.rmtree(run / "checkpoints")
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    for resume in (False, True):
        with pytest.raises(InputError, match=r"already holds a run, whose checkpoints are gone.*--init"):
            go(phantoms, tiny_config(), run, guide, resume=resume)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_a_set_of_one_healthy_class_logs_numbers(phantoms: ImageSet, tmp_path: Path) -> None:
    healthy = np.flatnonzero(phantoms.labels == 0)
    only = replace(
        phantoms,
        images=np.asarray(phantoms.images)[healthy],
        labels=phantoms.labels[healthy],
        groups=phantoms.groups[healthy],
        patients=phantoms.patients[healthy],
        masks=None,
        manifest=replace(phantoms.manifest, classes=("NORMAL",)),
    )
    go(only, tiny_config(sample_every=EVERY_STEP), tmp_path / "run", None)

    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is no JSON")

    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_what_was_warned_of_after_the_checkpoint_is_told_once(
    phantoms: ImageSet, tmp_path: Path, kill_after: Callable[[int | None], None]
) -> None:
    config = tiny_config(kimg=0.024, sample_every=EVERY_STEP, checkpoint_every=0.008)
    kill_after(12)
    with pytest.raises(Killed):
        go(phantoms, config, tmp_path / "run", None, evaluate=lambda *_: ({}, "bad"))
    kill_after(None)
    result = go(phantoms, config, tmp_path / "run", None, evaluate=lambda *_: ({}, "bad"), resume=True)
    assert result.warnings == [f"{seen} images: bad" for seen in range(4, 25, 4)]


def test_files_that_are_no_count_of_images_are_left_alone(phantoms: ImageSet, guide: Guide, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    go(phantoms, tiny_config(kimg=0.016, checkpoint_every=EVERY_STEP), tmp_path / "run", guide)
    (folder / "best.ckpt").write_bytes((folder / "0000000012.ckpt").read_bytes())
    assert last_state(tmp_path / "run")["seen"] == 16
    go(phantoms, tiny_config(kimg=0.024, checkpoint_every=EVERY_STEP, keep=1), tmp_path / "run", guide, resume=True)
    assert sorted(p.name for p in folder.iterdir()) == ["0000000024.ckpt", "best.ckpt"]


def test_a_run_keeps_its_teacher(phantoms: ImageSet, guide: Guide, tmp_path: Path) -> None:
    go(phantoms, tiny_config(), tmp_path / "run", guide, teacher_name="first")
    other = Guide(tiny_teacher(seed=1), phantoms.classes, phantoms.reference)
    for name, second in (("second", other), ("none", None)):
        with pytest.raises(InputError, match=rf"teacher \(={name}\) is not the one .*\(first\)"):
            go(phantoms, tiny_config(kimg=0.02), tmp_path / "run", second, teacher_name=name, resume=True)
    assert (
        go(phantoms, tiny_config(kimg=0.02), tmp_path / "run", guide, teacher_name="elsewhere", resume=True).images
        == 20
    )
    with pytest.warns(UserWarning, match=r"weights of the teacher \(first\) are not those"):
        go(phantoms, tiny_config(kimg=0.02), tmp_path / "run", other, teacher_name="first", resume=True)


def test_a_run_made_in_python_keeps_its_teacher_and_goes_on_by_the_command_line(tmp_path: Path) -> None:
    images = load_images("phantom:60", 32)
    config = tiny_config(kimg=0.016)
    teacher = tiny_teacher()
    go(images, config, tmp_path / "run", Guide(teacher, images.classes, images.reference))
    assert state_hash(open_teacher(str(tmp_path / "run" / "teacher"))) == state_hash(teacher)
    longer = ("train", "--resume", "--data", "phantom:60", "--device", "cpu", "--out", tmp_path / "run")
    assert call(*longer, "--kimg", "0.024") == 0
    assert last_state(tmp_path / "run")["seen"] == 24
    shutil.rmtree(tmp_path / "run" / "teacher")
    assert call(*longer, "--kimg", "0.032") == 2  # no other one is fitted
    save_model(teacher, tmp_path / "elsewhere", "card")
    assert call(*longer, "--kimg", "0.032", "--teacher", tmp_path / "elsewhere") == 0

    go(images, config, tmp_path / "unguided", None)
    assert RunDirectory(tmp_path / "unguided").settings()["teacher"] == "none"


def test_a_new_run_has_nothing_of_one_that_reached_no_checkpoint(
    phantoms: ImageSet, tmp_path: Path, kill_after: Callable[[int | None], None]
) -> None:
    run = tmp_path / "run"
    kill_after(16)
    with pytest.raises(Killed):
        go(phantoms, tiny_config(kimg=0.024, sample_every=EVERY_STEP, checkpoint_every=1), run, None)
    (run / "samples" / "mine.txt").write_text("not of a run")
    kill_after(None)
    go(phantoms, tiny_config(kimg=0.012, sample_every=EVERY_STEP), run, None)
    names = {path.name for path in (run / "samples").iterdir()}
    assert "000000012-images.png" in names
    assert not any(name.startswith("000000016") for name in names)
    assert "mine.txt" in names
    assert len(list((run / "tensorboard").iterdir())) == 1


@pytest.mark.parametrize("text", ["{}", "[]", '{"config": 3}'])
def test_settings_of_something_else_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.json").write_text(text)
    assert call("train", "--resume", "--out", tmp_path) == 2


def test_only_the_newest_checkpoints_are_kept(phantoms: ImageSet, tmp_path: Path) -> None:
    go(phantoms, tiny_config(kimg=0.024, checkpoint_every=EVERY_STEP, keep=2), tmp_path / "run", None)
    names = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["0000000020.ckpt", "0000000024.ckpt"]
