"""Which terms of the objective a step has, and what it is given."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from expressivegan.config import UNGUIDED
from expressivegan.data import ImageSet
from expressivegan.devices import make_fabric
from expressivegan.errors import InputError
from expressivegan.training import Guide
from expressivegan.training.guidance import Told, look_at_real
from expressivegan.training.run import Run
from runs import go
from tiny import tiny_config, tiny_teacher


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


def test_guidance_begins_late(phantoms: ImageSet, guide: Guide, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(kimg=1.0, logit_kimg=0.0, guided_after=0.5, free_after=0.0)
    run = Run(phantoms, config, guide, make_fabric("cpu", "32-true"))
    run.look_at_real(None)
    of_guidance = set().union(*(WEIGHTS[name] for name in UNGUIDED if name in WEIGHTS))
    with monkeypatch.context() as patch:
        patch.setattr(Guide, "__call__", lambda *_: pytest.fail("the teacher was asked"))
        run.seen = 500 - config.batch
        early = run.step(lambda terms: None)
    assert not set(early) & (of_guidance | {"c_adversarial"})  # free pairs wait for it, too
    late = run.step(lambda terms: None)
    assert of_guidance - {"g_steer"} <= set(late)
    assert "c_adversarial" in late


def test_bases_of_the_reference_class_are_neither_shown_nor_charged(
    phantoms: ImageSet, guide: Guide, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(flip_weight=0.5, logit_weight=0.5, logit_kimg=0.0, batch=16)
    run = Run(phantoms, config, guide, make_fabric("cpu", "32-true"))
    run.look_at_real(None)
    labels = torch.arange(16) % 3
    batch = replace(run.draw(0), labels=labels, styles=labels)
    ask, asked = Guide.__call__, []

    def note(self: Guide, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        found = ask(self, images)
        asked.append((len(images), found[1]))
        return found

    monkeypatch.setattr(run, "draw", lambda step: batch)
    monkeypatch.setattr(Guide, "__call__", note)
    terms = run.step(lambda terms: None)
    ((count, logits),) = asked
    assert count == 8 + 5  # of the eight that are shown three are NORMAL
    hinges = (1 + logits[8:, 1:].amax(1) - logits[8:, 0]).clamp_min(0)
    assert terms["g_flip"].item() == pytest.approx(0.5 * hinges.sum().item() / 8)


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
