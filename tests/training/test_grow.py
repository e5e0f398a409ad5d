"""Networks that grow keep what they learnt; a run starts from another's networks, and refuses what does not fit."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from command_line import call
from expressivegan.checkpoint import open_model, save_model, state_hash
from expressivegan.config import TrainConfig, preset
from expressivegan.data import ImageSet
from expressivegan.errors import CheckpointError, InputError
from expressivegan.models import GeneratorWithCAMGuidance
from expressivegan.models.dcgan import DCGANGenerator
from expressivegan.training import grow, train
from expressivegan.training.build import make_networks
from expressivegan.training.run import Run
from expressivegan.training.start import Start, begin_from, check_start, open_start, take_over
from tiny import CLASSES, noise, phantom_set, tiny_config, tiny_discriminator, tiny_generator

LABELS = torch.arange(24) % 3
OFF = {name: value for name, value in preset("dcgan").config.to_json().items() if value == 0}


@pytest.fixture(scope="module")
def large() -> ImageSet:
    return phantom_set(60, 64)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """What a 32 px run leaves behind."""
    folder = tmp_path_factory.mktemp("start")
    save_model(tiny_generator(style_dim=128), folder / "generator", "", {"data_hash": "somebody else's"})
    save_model(tiny_discriminator(), folder / "discriminator", "")
    return open_start(folder)


def correlation(a: Tensor, b: Tensor) -> float:
    return float(np.corrcoef(a.flatten().numpy(), b.flatten().numpy())[0, 1])


def grown(start: Start, images: ImageSet, steps: int = 40, **changes: Any) -> tuple[Any, Any]:
    config = tiny_config(resolution=images.resolution, **changes)
    G, D = make_networks(config, images.classes, images.reference)
    begin_from(start, G, D, images, config, steps)
    return G.eval().requires_grad_(False), D.eval().requires_grad_(False)


def coarsest(network: GeneratorWithCAMGuidance, style: Tensor) -> Tensor:
    found: Tensor = network.base_blocks[0](network.stem(style).unflatten(1, (-1, network.start, network.start)), style)
    return found


def test_a_model_of_the_package_is_a_start_with_its_discriminator() -> None:
    assert open_start("kermany-64").D is not None


def test_the_path_goes_over_the_doubling_to_the_larger_start() -> None:
    assert [grow.path(64, side) for side in (64, 112, 128, 224)] == [[], [112], [128], [128, 224]]


def test_a_doubled_generator_draws_the_image_it_drew_and_its_map(start: Start) -> None:
    z = noise(24, 8)
    torch.manual_seed(0)
    new = tiny_generator(resolution=64, style_dim=128)
    before = new.compose(z, LABELS)
    grow.double_generator(start.G, new, seed=0)
    with torch.no_grad():
        was, now = start.G.compose(z, LABELS), new.compose(z, LABELS)
    near = (grow.shrink(now.image, 32) - was.image).abs().mean()
    assert near * 127.5 < 4
    assert (grow.shrink(before.image, 32) - was.image).abs().mean() > 5 * near  # a fresh one is far away
    assert torch.allclose(grow.shrink(now.mask, 32), was.mask, atol=0.25)
    assert correlation(grow.shrink(now.mask, 32), was.mask) > 0.98
    assert (now.mask[LABELS == 0] == 0).all()
    assert torch.equal(new.window, tiny_generator(resolution=64).window)  # of the new resolution


def test_a_grown_discriminator_scores_as_it_did(start: Start, large: ImageSet) -> None:
    G, D = grown(start, large)
    assert start.D is not None
    real, labels = large.batch(np.arange(24))
    with torch.no_grad():
        made = G(noise(24, 8), LABELS)[0]
        x, y = torch.cat([real, made]), torch.cat([labels, LABELS])
        was, now = start.D.explain(grow.shrink(x, 32), y), D.explain(x, y)
    assert correlation(was.score, now.score) > 0.9
    assert correlation(was.evidence, now.evidence) > 0.9
    assert correlation(was.class_logits, now.class_logits) > 0.9


def test_a_larger_start_keeps_the_image(start: Start) -> None:
    z, old, new = noise(24, 8), copy.deepcopy(start.G), tiny_generator(resolution=56, style_dim=128)
    with torch.no_grad():
        for name, gain in old.named_parameters():
            if name.startswith("grain."):  # noise is another one at every size
                gain.zero_()
        was, fresh = old(z, LABELS)[0], new(z, LABELS)[0]
        grow.restart_generator(old, new, seed=0, steps=0)
        blown_up = new(z, LABELS)[0]
        style = old.base_style(z, LABELS)
        wanted = torch.nn.functional.interpolate(coarsest(old, style), 7, mode="bilinear")
        interpolated = (coarsest(new, style) - wanted).square().mean()
    assert (grow.shrink(blown_up, 32) - was).abs().mean() < 0.5 * (grow.shrink(fresh, 32) - was).abs().mean()
    grow.restart_generator(old, new, seed=0, steps=240)
    with torch.no_grad():
        assert (coarsest(new, style) - wanted).square().mean() < 0.9 * interpolated


def test_one_run_can_double_and_widen_the_start(start: Start) -> None:
    images = phantom_set(30, 112)
    G, D = grown(replace(start, D=None), images, steps=2)
    assert G(noise(2, 8), LABELS[:2])[0].shape == (2, 1, 112, 112)
    assert torch.equal(G.style.state_dict()["0.weight"], start.G.style.state_dict()["0.weight"])
    assert D(images.batch(np.arange(2))[0], LABELS[:2])[0].shape == (2, 1)  # fresh, for want of an old one


def test_fine_tuning_copies_everything_but_the_window(start: Start) -> None:
    G, D = grown(start, phantom_set(60), steps=0)
    assert start.D is not None
    assert state_hash(G) == state_hash(start.G)
    assert state_hash(D) == state_hash(start.D)


def test_classes_are_taken_over_by_name_and_new_ones_start_between_those_alike(start: Start) -> None:
    classes = ("COVID", "VIRUS", "HEALTHY")
    new = tiny_generator(seed=1, style_dim=128, classes=classes, reference="HEALTHY")
    take_over(start.G, new)
    old = dict(zip(CLASSES, start.G.lesion_embedding.weight, strict=True))
    found = dict(zip(classes, new.lesion_embedding.weight, strict=True))
    assert torch.equal(found["VIRUS"], old["VIRUS"])
    assert torch.allclose(found["COVID"], (old["BACTERIA"] + old["VIRUS"]) / 2)
    assert torch.equal(found["HEALTHY"], old["NORMAL"])
    D, D_old = tiny_discriminator(seed=1, classes=classes, reference="HEALTHY"), start.D
    assert D_old is not None
    assert D.class_head.bias is not None
    assert D_old.class_head.bias is not None
    take_over(D_old, D)
    assert torch.equal(D.class_head.bias[[1, 2]], D_old.class_head.bias[[2, 0]])
    assert torch.equal(D.class_head.weight[1], D_old.class_head.weight[2])
    says = start.describe(classes, 32)
    assert "taken over: VIRUS; COVID, HEALTHY from the mean" in says
    without = tiny_generator(seed=1, style_dim=128, classes=("A", "B"), reference=None)
    take_over(start.G, without)
    assert torch.allclose(without.style_embedding.weight[0], start.G.style_embedding.weight[1:].mean(0))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"z_dim": 9}, r"z_dim \(=9\) .* --z-dim 8"),
        ({"width": 16}, r"\(=16, 4\) .* --width 8 --min-width 4"),
        ({"resolution": 64, "min_width": 8}, r"--width 8 --min-width 4"),
        ({"resolution": 128}, r"resolution \(=128\) .* take 32 or 56 or 64 or 112"),
        ({"resolution": 28}, r"resolution \(=28\) cannot be reached"),
        (
            {k: v for k, v in preset("dcgan").config.to_json().items() if v == 0} | {"method": "dcgan"},
            r"method \(=dcgan\)",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_a_sentence(start: Start, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        check_start(start, tiny_config(**changes))


def test_a_finest_level_that_would_narrow_is_refused_with_the_width_that_fits(tmp_path: Path) -> None:
    save_model(tiny_generator(style_dim=128, width=16), tmp_path / "generator", "")  # its levels: 16, 16, 8, 4
    narrow = open_start(tmp_path)
    check_start(narrow, tiny_config(resolution=64, width=16))
    save_model(tiny_generator(style_dim=128, width=32), tmp_path / "generator", "")  # 32, 32, 16, 8: then 4
    with pytest.raises(InputError, match="--width 32 --min-width 8"):
        check_start(open_start(tmp_path), tiny_config(resolution=64, width=32))
    check_start(open_start(tmp_path), tiny_config(resolution=64, width=32, min_width=8))


def test_a_generator_whose_grain_is_alike_is_a_start(tmp_path: Path) -> None:
    save_model(tiny_generator(style_dim=128, grain_by_style=False), tmp_path / "generator", "")
    G, _ = grown(open_start(tmp_path), phantom_set(30, 32), steps=2)
    assert not any(p.any() for name, p in G.named_parameters() if "modulate" in name)


def test_a_baseline_or_nothing_is_no_start(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        open_start(tmp_path / "nothing")
    save_model(DCGANGenerator(z_dim=8, resolution=32, width=8), tmp_path / "m", "", {"config": {"method": "dcgan"}})
    with pytest.raises(InputError, match="is a dcgan"):
        open_start(tmp_path / "m")


def test_a_run_says_where_it_started_and_resumes_exactly_without_it(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, config = phantom_set(60), tiny_config(kimg=0.016, checkpoint_every=0.008)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(images, config, whole, None, init=start, device="cpu")
    step = Run.step

    def dying(self: Run, check: Any) -> Any:
        if self.seen >= 12:
            raise KeyboardInterrupt
        return step(self, check)

    monkeypatch.setattr(Run, "step", dying)
    with pytest.raises(KeyboardInterrupt):
        train(images, config, killed, None, init=start, device="cpu")
    monkeypatch.undo()
    train(images, config, killed, None, resume=True, device="cpu")
    ends = [state_hash(open_model(GeneratorWithCAMGuidance, out / "generator")) for out in (whole, killed)]
    assert ends[0] == ends[1]
    assert ends[0] != state_hash(start.G)  # it has learnt
    assert start.D is not None
    settings = json.loads((killed / "settings.json").read_text())
    assert settings["init"]["G"] == state_hash(start.G)
    assert settings["init"]["D"] == state_hash(start.D)
    assert (killed / "samples" / "000000000-images.png").exists()
    for network in ("generator", "discriminator"):
        assert f"went on from the networks of {start.path.name} (" in (killed / network / "README.md").read_text()


def test_the_command_refuses_before_it_writes(start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    for options, says in (
        (("--init", start.path, "--z-dim", 9), "--z-dim 8"),
        (("--init", tmp_path / "nothing"), "init (="),
        (("--init", start.path, "--resume"), "--init starts a new run"),
    ):
        assert call("train", "--data", "phantom:60", "--out", out, "--resolution", 32, *options) == 2
        assert says in " ".join(capsys.readouterr().err.split())
        assert not out.exists()


def test_networks_are_as_wide_as_those_that_they_start_from_whatever_the_preset_says(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("train", "--data", "phantom:60", "--init", start.path, "--teacher", "none", "--resolution", 64, "--batch",
              4, "--kimg", 0.004, "--device", "cpu", "--precision", "32-true")  # fmt: skip
    assert call(*common, "--out", tmp_path / "run") == 0
    config = json.loads((tmp_path / "run" / "settings.json").read_text())["config"]
    assert (config["z_dim"], config["width"], config["min_width"]) == (8, 8, 4)
    capsys.readouterr()
    assert call(*common, "--out", tmp_path / "other", "--width", 16) == 2
    assert "give --width 8" in " ".join(capsys.readouterr().err.split())


def test_the_growing_presets_carry_the_weights_of_the_small_one() -> None:
    small = preset("cpu-64").config
    for name, before in (("grow-128", 64), ("grow-224", 128)):
        config: TrainConfig = preset(name).config
        G, D = make_networks(replace(small, resolution=before), CLASSES, 0)
        check_start(Start(Path("x"), G, D, {}, None), config)  # type: ignore[arg-type]
