"""Maps keep their identities on the way to a reader: CAMs add up to logits, evidence to the score."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from expressivegan.data import ImageSet
from expressivegan.explain.baseline import Baseline, find_baseline, keep_baseline, make_baseline
from expressivegan.explain.maps import Reference, discriminator_says, teacher_maps
from expressivegan.models import DiscriminatorWithExplain
from expressivegan.teacher import CXR_CAM_Teacher
from tiny import pictures, tiny_discriminator, tiny_teacher


@pytest.fixture
def critic() -> DiscriminatorWithExplain:
    return tiny_discriminator()


def test_a_class_map_adds_up_to_the_margin(teacher: CXR_CAM_Teacher) -> None:
    cams, logits = (part.detach() for part in teacher.raw_cams(pictures(3)))
    found = teacher_maps(teacher, cams, logits, [1, 2, 1])
    bias = teacher.backbone.classifier.bias.detach()
    for i, maps in enumerate(found):
        for k, name in ((1, "BACTERIA"), (2, "VIRUS")):
            margin = float(logits[i, k] - logits[i, 0] - bias[k] + bias[0])
            assert maps[f"class-{name}"].values.mean() == pytest.approx(margin, abs=1e-6)
        assert "class-NORMAL" not in maps  # against itself it is 0


def test_merges_are_the_teachers_own(teacher: CXR_CAM_Teacher) -> None:
    x = pictures(2)
    cams, logits = teacher.raw_cams(x)
    found = teacher_maps(teacher, cams, logits, [1, 1])
    assert teacher.meth == "topk"
    for meth in ("max", "mean", "weighted", "topk"):
        other = tiny_teacher(meth=meth)
        for i, merged in enumerate(other.merge(*other.raw_cams(x))):
            assert np.allclose(found[i][f"merged-{meth}"].values, merged[0].detach().numpy())
    assert (found[0]["merged-max"].values >= found[0]["merged-mean"].values).all()


def test_without_a_reference_the_mean_says_nothing() -> None:
    teacher = tiny_teacher(reference=None)
    maps = teacher_maps(teacher, *teacher.raw_cams(pictures(1)), [0])[0]
    assert "merged-mean" not in maps
    assert {"class-NORMAL", "class-BACTERIA", "class-VIRUS", "merged-max"} <= set(maps)
    total = sum(m.values for name, m in maps.items() if name.startswith("class-"))
    assert np.abs(total).max() < 1e-5


def test_of_many_findings_the_likeliest_and_the_one_asked_for_are_shown() -> None:
    names = [f"finding {k}" for k in range(10)]
    teacher = tiny_teacher(classes=names, reference=None, multi_label=True)
    cams, logits = teacher.raw_cams(pictures(1))
    least = int(logits[0].argmin())
    shown = [n for n in teacher_maps(teacher, cams, logits, [least])[0] if n.startswith("class-")]
    assert len(shown) == 6
    assert f"class-{names[least]}" in shown
    assert f"class-{names[int(logits[0].argmax())]}" in shown


def test_unreferenced_evidence_says_so_and_adds_up(critic: DiscriminatorWithExplain) -> None:
    x = pictures(2)
    critic.requires_grad_(False)
    for judged in discriminator_says(critic, x, ["VIRUS", None], None):
        evidence = judged.maps["evidence"]
        assert evidence.values.mean() == pytest.approx(judged.score, rel=1e-5)
        assert "unreferenced" in evidence.unit
        assert evidence.own_range
        assert judged.referenced is judged.real_range is None
    said = discriminator_says(critic, x, ["VIRUS", None], None)
    assert said[0].label == "VIRUS"
    assert said[1].label == max(said[1].probabilities, key=lambda name: said[1].probabilities[name])
    assert said[0].score == pytest.approx(float(critic.score(x, torch.tensor([2, 2]))[0]), rel=1e-5)


def test_the_zero_of_evidence_is_that_of_held_out_real_images(
    phantoms: ImageSet, teacher: CXR_CAM_Teacher, critic: DiscriminatorWithExplain
) -> None:
    everyone = replace(phantoms, groups=np.full(len(phantoms), "judge"))  # 18 held-out phantoms are too few
    reference = make_baseline(everyone, teacher, critic).reference
    assert reference is not None
    held = everyone.indices("judge")
    for k, name in enumerate(phantoms.classes):
        chosen = held[phantoms.labels[held] == k]
        found = discriminator_says(critic, phantoms.batch(chosen)[0], [name] * len(chosen), reference)
        assert np.mean([j.maps["evidence"].values for j in found], axis=0) == pytest.approx(0, abs=1e-4)
        for judged in found:
            assert judged.maps["evidence"].values.mean() == pytest.approx(judged.referenced, abs=1e-4)
            assert judged.maps["evidence"].high == pytest.approx(reference.spread)
        within = [j.real_range[0] <= (j.referenced or 0) <= j.real_range[1] for j in found if j.real_range]
        assert 0.9 * len(found) <= sum(within) < len(found)
    assert make_baseline(phantoms, teacher, critic).reference is None


def test_the_reference_survives_storing() -> None:
    before = Reference(torch.ones(3, 8, 8), torch.tensor([9, 9, 0]), 2.0, torch.zeros(3, 2))
    after = Reference.from_state(before.to_state())
    assert torch.equal(after.evidence, before.evidence)
    assert after.spread == 2.0


def test_a_reference_class_shows_the_likeliest_disease(critic: DiscriminatorWithExplain) -> None:
    x = pictures(1)
    title = discriminator_says(critic, x, ["NORMAL"], None)[0].maps["discriminator-class"].title
    logits = critic.explain(x).class_logits[0]
    assert title.endswith("BACTERIA" if logits[1] > logits[2] else "VIRUS")


def test_a_baseline_of_other_data_is_not_taken_for_the_models_own(tmp_path: Path) -> None:
    for name in ("own", "other"):
        keep_baseline(Baseline(name, None, None), tmp_path, "k" * 64)
    for name in ("own", "other"):
        found = find_baseline(tmp_path, "k" * 64, name)
        assert found is not None
        assert found.data_hash == name
    assert find_baseline(tmp_path, "k" * 64, "third") is None
    assert find_baseline(tmp_path, "l" * 64, "own") is None
