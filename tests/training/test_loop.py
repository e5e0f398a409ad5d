"""A run learns, logs, and stops where it must."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from expressivegan.checkpoint import load_checkpoint, open_model, state_hash
from expressivegan.config import TrainConfig
from expressivegan.data import ImageSet
from expressivegan.devices import make_fabric
from expressivegan.errors import DataError, InputError, TrainingError
from expressivegan.models import DiscriminatorWithExplain, GeneratorWithCAMGuidance
from expressivegan.synthesis import open_generator, write_images
from expressivegan.training import Guide, RunDirectory
from expressivegan.training.curves import draw_curves
from expressivegan.training.run import Run
from runs import differences, go, last_state, metrics
from tiny import enlarged, tiny_config, tiny_teacher

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
        ({"guided_after": 1.0}, r"guided_after \(=1\) must be below 1: --preset unguided"),
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
    later = ("gamma_end", "detail_weight", "detail_kimg", "guided_after")
    older = {name: value for name, value in tiny_config(gamma=2.0).to_json().items() if name not in later}
    assert TrainConfig.from_json(older) == tiny_config(gamma=2.0, gamma_end=2.0, detail_weight=0.0, detail_kimg=40.0)


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
