"""A run learns, logs, stops, is killed, goes on, and reaches the same weights."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from expressivegan.checkpoint import load_checkpoint, newest_checkpoint, open_model, save_checkpoint, state_hash
from expressivegan.config import TrainConfig
from expressivegan.data import ImageSet
from expressivegan.devices import make_fabric
from expressivegan.errors import CheckpointError, DataError, InputError, TrainingError
from expressivegan.models import DiscriminatorWithExplain, GeneratorWithCAMGuidance
from expressivegan.synthesis import open_generator, write_images
from expressivegan.training import Guide, RunDirectory, train
from expressivegan.training.curves import draw_curves
from expressivegan.training.guidance import Told, look_at_real
from expressivegan.training.run import Run
from tiny import enlarged, phantom_set, tiny_config, tiny_teacher

EVERY_STEP = 0.004  # thousand images: one batch


class Killed(BaseException):
    """What a power cut looks like from within."""


@pytest.fixture
def guide(phantoms: ImageSet) -> Guide:
    return Guide(tiny_teacher(), phantoms.classes, phantoms.reference)


@pytest.fixture
def kill_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """kill_after(n): the process dies in the middle of the step that would follow n images; None lets it live."""
    step = Run.step

    def arm(images: int | None) -> None:
        def dying(self: Run, check: Any) -> Any:
            if images is not None and self.seen >= images:
                self.draw(0)  # the streams have moved on, half a step is done
                raise Killed
            return step(self, check)

        monkeypatch.setattr(Run, "step", dying)

    return arm  # type: ignore[return-value]


def go(images: ImageSet, config: TrainConfig, out: Path, guide: Guide | None, **options: Any) -> Any:
    return train(images, config, out, guide, device="cpu", **options)


def last_state(out: Path) -> dict[str, Any]:
    found = newest_checkpoint(out / "checkpoints")
    assert found is not None
    return found[1]


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [path]
    if isinstance(a, dict):
        assert list(a) == list(b), path
        return [x for k in a for x in differences(a[k], b[k], f"{path}.{k}")]
    if isinstance(a, list):
        return [x for i, (u, v) in enumerate(zip(a, b, strict=True)) for x in differences(u, v, f"{path}.{i}")]
    return [] if a == b else [path]


def metrics(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


# --- what a run leaves ------------------------------------------------------------------------------------------------


def test_a_run_explains_itself(phantoms: ImageSet, guide: Guide, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run"
    result = go(phantoms, tiny_config(), out, guide, teacher_name="some/teacher")
    assert (result.images, result.total, result.stopped, result.warnings) == (12, 12, False, [])
    assert result.model == out / "generator"
    settings = json.loads((out / "settings.json").read_text())
    assert TrainConfig.from_json(settings["config"]) == tiny_config()
    assert settings["data_hash"] == phantoms.data_hash
    assert settings["classes"] == ["NORMAL", "BACTERIA", "VIRUS"]
    assert settings["teacher"] == "some/teacher"
    assert settings["environment"]["packages"]["torch"]
    rows = metrics(out)
    assert rows[-1]["images"] == 12
    named = {k for row in rows for k in row}
    assert named >= {"d_adversarial", "g_adversarial", "d_r1", "d_r2", "d_class", "d_cam", "g_cam", "images_per_second"}
    assert all(np.isfinite(v) for row in rows for v in row.values())
    for kind in ("images", "maps"):
        with Image.open(next((out / "samples").glob(f"*-{kind}.png"))) as picture:
            assert picture.size == (8 * 34 - 2, 3 * 34 - 2)  # a row a class, a column a latent
    assert list((out / "tensorboard").iterdir())
    assert (out / "README.md").exists()
    card = (out / "generator" / "README.md").read_text()
    assert "Not for diagnosis" in card
    assert phantoms.data_hash in card
    assert "went on from" not in card
    assert "32x32 discriminator" in (out / "discriminator" / "README.md").read_text()
    model = open_model(GeneratorWithCAMGuidance, out / "generator")
    assert model.classes == phantoms.classes
    state = load_checkpoint(out / "checkpoints" / "0000000012.ckpt")
    assert state_hash(model) == state_hash(open_generator(out))
    assert not differences(dict(model.state_dict()), state["ema"])
    critic = open_model(DiscriminatorWithExplain, out / "discriminator")
    assert not differences(dict(critic.state_dict()), state["D"])
    assert draw_curves(out) == out / "curves.png"
    (out / "metrics.jsonl").write_text("")
    assert draw_curves(out) is None


def test_both_networks_learn_and_the_teacher_does_not(phantoms: ImageSet, guide: Guide) -> None:
    teacher = state_hash(guide.teacher)
    run = Run(phantoms, tiny_config(), guide, make_fabric("cpu", "32-true"))
    run.look_at_real(None)
    before = {k: v.clone() for k, v in run.state_dict()["G"].items()}, state_hash(run.nets.D), state_hash(run.ema.model)
    for _ in range(3):
        run.step(lambda terms: None)
    assert state_hash(run.nets.D) != before[1]
    assert state_hash(run.ema.model) != before[2]
    still = {k for k, v in run.nets.G.state_dict().items() if torch.equal(v, before[0][k])}
    assert still == {name for name, _ in run.nets.G.named_buffers()}  # where M may be is no matter of learning
    assert state_hash(guide.teacher) == teacher
    assert not guide.teacher.training
    assert all(p.grad is None and not p.requires_grad for p in guide.teacher.parameters())


def test_the_same_seed_gives_the_same_weights(phantoms: ImageSet, guide: Guide, tmp_path: Path) -> None:
    torch.manual_seed(1)
    one = go(phantoms, tiny_config(), tmp_path / "one", guide)
    torch.manual_seed(2)
    other = go(phantoms, tiny_config(), tmp_path / "other", guide)
    third = go(phantoms, tiny_config(seed=1), tmp_path / "third", guide)
    hashes = [state_hash(open_generator(r.model)) for r in (one, other, third)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert not differences(last_state(tmp_path / "one"), last_state(tmp_path / "other"))


def test_only_training_patients_are_learnt_from(phantoms: ImageSet, guide: Guide, tmp_path: Path) -> None:
    blank = np.asarray(phantoms.images).copy()
    blank[phantoms.groups != "train"] = 0
    one = go(phantoms, tiny_config(), tmp_path / "one", guide)
    other = go(replace(phantoms, images=blank), tiny_config(), tmp_path / "other", guide)
    assert state_hash(open_generator(one.model)) == state_hash(open_generator(other.model))


@pytest.mark.parametrize("classes", ["natural", "uniform"])
def test_classes_are_drawn_as_asked(phantoms: ImageSet, classes: Any) -> None:
    train_set = phantoms.indices("train")
    labels = phantoms.labels.copy()
    labels[train_set[12:]] = 0
    labels[train_set[:12]] = np.arange(12) % 3
    run = Run(replace(phantoms, labels=labels), tiny_config(classes=classes, batch=300), None, make_fabric("cpu"))
    batch = run.draw(0)
    shares = torch.bincount(batch.labels, minlength=3) / 300
    expected = np.bincount(labels[train_set], minlength=3) / len(train_set)
    wanted = torch.full((3,), 1 / 3) if classes == "uniform" else torch.tensor(expected)
    assert (shares - wanted).abs().max() < 0.09
    pixels = {row.tobytes() for row in phantoms.images[train_set]}
    drawn = ((batch.real[:, 0] + 1) * 127.5).round().to(torch.uint8).numpy()
    assert {row.tobytes() for row in drawn} <= pixels


WEIGHTS = {
    "class_weight": {"d_class"},
    "cam_weight_d": {"d_cam"},
    "cam_weight_g": {"g_cam"},
    "logit_weight": {"g_logits"},
    "flip_weight": {"g_flip"},
    "area_weight": {"g_area"},
    "delta_weight": {"g_delta"},
    "steer_weight": {"g_steer"},
    "diversity_weight": {"g_diversity"},
    "detail_weight": {"g_detail"},
    "gamma": {"d_r1", "d_r2"},
}


def terms_of(images: ImageSet, guide: Guide | None, **changes: float) -> set[str]:
    everything = dict.fromkeys(WEIGHTS, 0.5)
    run = Run(
        images,
        tiny_config(**(everything | {"steer_share": 0.5, "logit_kimg": 0.0, "detail_kimg": 0.0} | changes)),
        guide,
        make_fabric("cpu", "32-true"),
    )
    run.look_at_real(None)
    return set(run.step(lambda terms: None))


def test_every_weight_of_the_settings_is_listed_here() -> None:
    assert {n for n in tiny_config().to_json() if "_weight" in n or n == "gamma"} == set(WEIGHTS)


@pytest.mark.parametrize("name", list(WEIGHTS))
def test_every_term_can_be_turned_off(phantoms: ImageSet, guide: Guide, name: str) -> None:
    everything = {"d_adversarial", "g_adversarial"}.union(*WEIGHTS.values())
    assert terms_of(phantoms, guide) == everything
    assert terms_of(phantoms, guide, **{name: 0.0}) == everything - WEIGHTS[name]


def test_a_margin_gives_way_to_the_distribution_of_logits(phantoms: ImageSet, guide: Guide) -> None:
    run = Run(phantoms, tiny_config(kimg=1.0, logit_kimg=0.5), guide, make_fabric("cpu", "32-true"))
    run.look_at_real(None)
    early = run.step(lambda terms: None)
    run.seen = 500
    late = run.step(lambda terms: None)
    assert "g_logits" not in early
    assert "g_logits" in late


def test_no_steering_no_cost_of_it(phantoms: ImageSet, guide: Guide) -> None:
    assert "g_steer" not in terms_of(phantoms, guide, steer_share=0.0)


def test_all_terms_off(phantoms: ImageSet, guide: Guide) -> None:
    assert terms_of(phantoms, guide, **dict.fromkeys(WEIGHTS, 0.0)) == {"d_adversarial", "g_adversarial"}


def test_without_a_teacher(phantoms: ImageSet, tmp_path: Path) -> None:
    guided = {"d_cam", "g_cam", "g_logits", "g_flip"}
    assert not terms_of(phantoms, None) & guided
    assert go(phantoms, tiny_config(), tmp_path / "run", None).images == 12


@pytest.mark.filterwarnings("ignore:.*EVERY IMAGE COUNTS AS A PATIENT")
def test_a_set_without_a_reference(phantoms: ImageSet) -> None:
    phantoms = replace(phantoms, manifest=replace(phantoms.manifest, reference_class=None))
    assert phantoms.reference is None
    teacher = tiny_teacher(reference=None)
    run = Run(phantoms, tiny_config(logit_kimg=0.0), Guide(teacher, phantoms.classes, None), make_fabric("cpu"))
    run.look_at_real(None)
    terms = run.step(lambda terms: None)
    assert {"g_cam", "g_logits"} <= set(terms)
    assert "g_flip" not in terms


def test_a_teacher_of_other_classes(phantoms: ImageSet) -> None:
    with pytest.raises(InputError, match=r"\['a', 'b'\]\) are not the data's \['NORMAL'.*expressivegan teach"):
        Guide(tiny_teacher(classes=("a", "b"), reference="a"), phantoms.classes, 0)
    findings = tiny_teacher(classes=("Edema", "Mass"), reference=None, multi_label=True)
    merged = Guide(findings, phantoms.classes, 0)
    run = Run(phantoms, tiny_config(flip_weight=0.1), merged, make_fabric("cpu", "32-true"))
    run.look_at_real(None)
    assert run.cams is not None
    assert not run.cams[:, 0].any()
    assert np.array_equal(run.cams[:, 1], run.cams[:, 2])
    terms = run.step(lambda terms: None)
    assert "g_cam" in terms
    assert not {"g_logits", "g_flip"} & set(terms)


def test_what_the_teacher_says_of_real_images_is_asked_once(
    phantoms: ImageSet, guide: Guide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def same(one: Told, other: Told) -> bool:
        return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))

    first = look_at_real(guide, phantoms, tmp_path)
    assert first.cams.shape[:2] == first.logits.shape == (120, 3)
    x, _ = phantoms.batch([5])
    maps, logits = guide(x)
    assert np.allclose(first.cams[5], maps.detach()[0].numpy(), atol=5e-3)
    assert logits is not None
    assert np.allclose(first.logits[5], logits.detach()[0].numpy(), atol=1e-5)
    paths = sorted(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(Guide, "__call__", lambda *_: pytest.fail("asked again"))
        assert same(look_at_real(guide, phantoms, tmp_path), first)
    assert not same(look_at_real(Guide(tiny_teacher(1), phantoms.classes, 0), phantoms, tmp_path), first)
    for path in paths:  # a damaged cache is made anew
        path.write_bytes(path.read_bytes()[:300])
        assert same(look_at_real(guide, phantoms, tmp_path), first)
    assert len(list(tmp_path.iterdir())) == 4


# --- every resolution -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resolution", [32, 64, 128, 224, 256, 512])
def test_every_resolution_trains_resumes_and_generates(
    phantoms: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resolution: int
) -> None:
    sample = Run.sample
    monkeypatch.setattr(Run, "sample", lambda self, per_class, **how: sample(self, 1, **how))  # the rest is the same
    images = enlarged(phantoms, resolution, 8)
    guide = Guide(tiny_teacher(), images.classes, images.reference)
    config = tiny_config(resolution=resolution, batch=2, kimg=0.004)
    assert go(images, config, tmp_path / "run", guide).images == 4
    result = go(images, replace(config, kimg=0.006), tmp_path / "run", guide, resume=True)
    assert result.images == 6
    write_images(tmp_path / "run", tmp_path / "images", 2)
    with Image.open(next((tmp_path / "images" / "images").iterdir())) as picture:
        assert picture.size == (resolution, resolution)


# --- killed and resumed -----------------------------------------------------------------------------------------------


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
    assert go(phantoms, tiny_config(kimg=0.02), tmp_path / "run", guide, resume=True).images == 20


def test_only_the_newest_checkpoints_are_kept(phantoms: ImageSet, tmp_path: Path) -> None:
    go(phantoms, tiny_config(kimg=0.024, checkpoint_every=EVERY_STEP, keep=2), tmp_path / "run", None)
    names = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["0000000020.ckpt", "0000000024.ckpt"]


# --- what stops a run -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("network", "term"), [("D", "d_adversarial"), ("G", "d_adversarial")])
def test_a_loss_that_is_not_finite_stops_the_run(
    phantoms: ImageSet, guide: Guide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str, term: str
) -> None:
    step = Run.step

    def poisoned(self: Run, check: Any) -> Any:
        if self.seen == 16:
            with torch.no_grad():
                next(getattr(self.nets, network).parameters()).fill_(float("nan"))
        return step(self, check)

    monkeypatch.setattr(Run, "step", poisoned)
    config = tiny_config(kimg=0.032, checkpoint_every=0.012)
    with pytest.raises(TrainingError, match=rf"^{term} became nan in step 4 \(16 images\); .*0000000012\.ckpt; try"):
        go(phantoms, config, tmp_path / "run", guide)
    assert last_state(tmp_path / "run")["seen"] == 12


def test_a_resumed_run_knows_its_last_good_checkpoint(
    phantoms: ImageSet, guide: Guide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(phantoms, tiny_config(), tmp_path / "run", guide)
    step = Run.step

    def poisoned(self: Run, check: Any) -> Any:
        with torch.no_grad():
            next(self.nets.D.parameters()).fill_(float("nan"))
        return step(self, check)

    monkeypatch.setattr(Run, "step", poisoned)
    with pytest.raises(TrainingError, match=r"last good checkpoint: .*0000000012\.ckpt"):
        go(phantoms, tiny_config(kimg=0.1), tmp_path / "run", guide, resume=True)


def test_data_that_cannot_be_trained_with(phantoms: ImageSet, tmp_path: Path) -> None:
    groups = phantoms.groups.copy()
    groups[phantoms.labels == 2] = "judge"
    with pytest.raises(DataError, match="class VIRUS has no image among the training patients"):
        go(replace(phantoms, groups=groups), tiny_config(), tmp_path / "run", None)
    with pytest.raises(InputError, match=r"images are of 32 px and resolution \(=64\) is not"):
        go(phantoms, tiny_config(resolution=64), tmp_path / "run", None)
    groups[:] = "judge"
    with pytest.raises(DataError, match="at least two images of training patients, and there are 0"):
        go(replace(phantoms, groups=groups), tiny_config(), tmp_path / "run", None)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 100}, r"resolution \(=100\).*try 112 or 128"),
        ({"gamma": -1.0}, r"gamma \(=-1.0\)"),
        ({"gamma_end": 0.0}, r"gamma_end \(=0.0\) must be positive, as gamma \(=3.0\) is, or both 0"),
        ({"cam_weight_g": -0.1}, r"cam_weight_g \(=-0.1\) must be 0 \(off\) or positive"),
        ({"class_weight": float("nan")}, r"class_weight \(=nan\)"),
        ({"augment": 1.5}, r"augment \(=1.5\) must be from 0 to 1"),
        ({"batch": 1}, r"batch \(=1\)"),
        ({"kimg": 0.0}, r"kimg \(=0.0\) must be positive"),
        ({"rate": -1e-3}, r"rate \(=-0.001\)"),
    ],
)
def test_bad_settings_raise_with_their_value(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_config(**changes)


def test_settings_of_another_version_are_named() -> None:
    assert TrainConfig.from_json(tiny_config(seed=3).to_json()) == tiny_config(seed=3)
    with pytest.raises(InputError, match="colour, which this version does not know"):
        TrainConfig.from_json({"colour": 1})
    shares = {"kimg": 240.0, "logit_after": 0.25, "detail_after": 0.5}
    assert TrainConfig.from_json(shares) == TrainConfig(kimg=240.0, logit_kimg=60.0, detail_kimg=120.0)
    later = ("gamma_end", "detail_weight", "detail_kimg")
    older = {name: value for name, value in tiny_config(gamma=2.0).to_json().items() if name not in later}
    assert TrainConfig.from_json(older) == tiny_config(gamma=2.0, gamma_end=2.0, detail_weight=0.0, detail_kimg=120.0)


def test_gamma_falls_geometrically(phantoms: ImageSet) -> None:
    def at(share: float, **changes: float) -> float:
        run = Run(phantoms, tiny_config(kimg=1.0, **changes), None, make_fabric("cpu", "32-true"))
        run.seen = round(1000 * share)
        return run.gamma()

    assert [at(share, gamma=4.0, gamma_end=1.0) for share in (0, 0.5, 1, 1.5)] == pytest.approx([4, 2, 1, 1])
    assert at(0.5, gamma=0.0) == 0


def test_detail_is_charged_late(phantoms: ImageSet) -> None:
    run = Run(phantoms, tiny_config(kimg=1.0, detail_kimg=0.5), None, make_fabric("cpu", "32-true"))
    assert run.draw(0).detail == 0
    run.seen = 500
    assert run.draw(0).detail == run.config.detail_weight > 0


# --- time, progress, evaluation ---------------------------------------------------------------------------------------


def test_minutes_become_kimg_once(
    phantoms: ImageSet, guide: Guide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from expressivegan.training import loop

    monkeypatch.setattr(loop, "calibrate", lambda *_, **__: 2.0)  # images per second
    go(phantoms, tiny_config(kimg=9.0), tmp_path / "run", guide, minutes=0.1)
    settings = RunDirectory(tmp_path / "run").settings()
    assert settings["minutes"] == 0.1
    assert settings["config"]["kimg"] == pytest.approx(0.012)  # 6 s at 2 images/s, in whole batches of 4
    monkeypatch.setattr(loop, "calibrate", lambda *_, **__: pytest.fail("measured again"))
    saved = TrainConfig.from_json(settings["config"])
    assert go(phantoms, saved, tmp_path / "run", guide, resume=True).total == 12


def test_calibration_measures_and_leaves_no_trace(phantoms: ImageSet, guide: Guide, tmp_path: Path) -> None:
    from expressivegan.training.loop import calibrate

    assert 1 < calibrate(phantoms, tiny_config(), guide, make_fabric("cpu", "32-true"), steps=2) < 1e6
    go(phantoms, tiny_config(), tmp_path / "plain", guide)
    kimg = tiny_config().kimg
    with pytest.MonkeyPatch.context() as patch:
        from expressivegan.training import loop

        def measured(*a: Any, **k: Any) -> float:
            calibrate(*a, **k)
            return 2.0

        patch.setattr(loop, "calibrate", measured)
        go(phantoms, tiny_config(kimg=5 * kimg), tmp_path / "timed", guide, minutes=0.1)
    assert differences(last_state(tmp_path / "plain")["G"], last_state(tmp_path / "timed")["G"]) == []


def test_progress_and_the_evaluate_callback(phantoms: ImageSet, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    shown: list[tuple[Any, ...]] = []

    def evaluate(made: np.ndarray, labels: np.ndarray) -> tuple[dict[str, float], str | None]:
        shown.append((made.shape, made.dtype, np.bincount(labels).tolist()))
        return {"score": 0.25}, "it repeats itself" if len(shown) == 2 else None

    result = go(phantoms, tiny_config(kimg=0.064, sample_every=0.032), tmp_path / "run", None, evaluate=evaluate,
                progress=lambda seen, total, figures: told.append((seen, total)))  # fmt: skip
    assert shown == [((192, 32, 32), np.uint8, [64, 64, 64])] * 2
    assert result.warnings == ["64 images: it repeats itself"]
    assert [row["images"] for row in metrics(tmp_path / "run") if row.get("score") == 0.25] == [32, 64]
    assert told
    assert told == sorted(told)
    assert told[-1] == (64, 64)


# --- several processes ------------------------------------------------------------------------------------------------

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
