"""The baseline: the original's loop, through the same training, generation and resume."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from expressivegan.checkpoint import state_hash
from expressivegan.config import TrainConfig, preset
from expressivegan.data import ImageSet
from expressivegan.devices import make_fabric
from expressivegan.errors import InputError
from expressivegan.models.dcgan import DCGANDiscriminator, DCGANGenerator
from expressivegan.synthesis import open_generator, write_images
from expressivegan.training import Guide, train
from expressivegan.training.run import Run
from tiny import noise, pictures, tiny_teacher


def baseline(**changes: object) -> TrainConfig:
    small = {"resolution": 32, "width": 8, "min_width": 4, "z_dim": 8, "batch": 4, "kimg": 0.012,
             "sample_every": 1000.0, "checkpoint_every": 1000.0}  # fmt: skip
    return replace(preset("dcgan").config, **(small | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("resolution", [32, 64, 224])
@torch.no_grad()
def test_shapes(resolution: int) -> None:
    G = DCGANGenerator(8, resolution, width=8, min_width=4).eval()
    D = DCGANDiscriminator(resolution, width=8, min_width=4).eval()
    image, attention = G(noise(2, 8), torch.tensor([0, 2]))
    assert image.shape == attention[-1].shape == (2, 1, resolution, resolution)
    assert image.abs().max() <= 1
    score, heat = D(image, torch.tensor([0, 2]))
    assert score.shape == (2, 1)
    assert heat.shape == image.shape
    assert (heat.min() >= 0) & (heat.max() <= 1)


def test_the_label_reaches_both_networks() -> None:
    G, D = DCGANGenerator(8, 32, width=8).eval(), DCGANDiscriminator(32, width=8).eval()
    z = noise(1, 8)
    with torch.no_grad():
        assert not torch.equal(G(z, torch.tensor([0]))[0], G(z, torch.tensor([1]))[0])
        assert not torch.equal(D(pictures(1), torch.tensor([0]))[0], D(pictures(1), torch.tensor([1]))[0])


def test_it_cannot_be_steered() -> None:
    with pytest.raises(InputError, match="dcgan baseline, whose maps do not act"):
        DCGANGenerator(8, 32, width=8)(noise(1, 8), None, torch.zeros(1, 1, 32, 32))


def test_a_step_has_the_originals_terms(phantoms: ImageSet) -> None:
    guide = Guide(tiny_teacher(), phantoms.classes, phantoms.reference)
    run = Run(phantoms, baseline(), guide, make_fabric("cpu", "32-true"))
    before = {k: v.clone() for k, v in guide.teacher.state_dict().items()}
    terms = run.step(lambda terms: None)
    assert set(terms) == {"d_adversarial", "d_cam", "g_adversarial", "g_cam"}
    assert all(torch.equal(v, before[k]) for k, v in guide.teacher.state_dict().items())
    alone = Run(phantoms, baseline(cam_weight_d=0.0, cam_weight_g=0.0), guide, make_fabric("cpu", "32-true"))
    assert set(alone.step(lambda terms: None)) == {"d_adversarial", "g_adversarial"}


def test_augmentation_reaches_both_steps(phantoms: ImageSet) -> None:
    def states(augment: float) -> tuple[str, str]:
        run = Run(phantoms, baseline(augment=augment), None, make_fabric("cpu", "32-true"))
        run.seen = 8  # from halfway on all of the share is augmented
        run.step(lambda terms: None)
        return state_hash(run.nets.D), state_hash(run.nets.G)

    plain, augmented = states(0.0), states(1.0)
    assert plain == states(0.0)
    assert plain[0] != augmented[0]
    assert plain[1] != augmented[1]


def test_it_trains_resumes_and_generates(phantoms: ImageSet, tmp_path: Path) -> None:
    guide = Guide(tiny_teacher(), phantoms.classes, phantoms.reference)
    whole = train(phantoms, baseline(kimg=0.024), tmp_path / "whole", guide, device="cpu")
    train(phantoms, baseline(), tmp_path / "parts", guide, device="cpu")
    parts = train(phantoms, baseline(kimg=0.024), tmp_path / "parts", guide, device="cpu", resume=True)
    one, other = open_generator(whole.model), open_generator(parts.model)
    assert isinstance(one, DCGANGenerator)
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    table = write_images(tmp_path / "whole", tmp_path / "images", 3)
    assert len(table.read_text().splitlines()) == 4
