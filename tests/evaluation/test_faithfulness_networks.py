"""Evidence, lungs and the section on a run: with networks that do, and do not, deserve to pass."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from typing import Any

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator

from expressivegan.data import ImageSet
from expressivegan.errors import DataError, InputError
from expressivegan.evaluation.faithfulness import (
    CONTROLS,
    Networks,
    class_cam_maps,
    evidence_maps,
    evidence_report,
    faithfulness_section,
    generator_maps,
    lung_masks,
    teacher_class_maps,
    teacher_maps,
)
from expressivegan.evaluation.faithfulness.evidence import occluded
from expressivegan.evaluation.faithfulness.parts import disease_score
from expressivegan.evaluation.faithfulness.words import warnings_of
from expressivegan.images import UInt8Array, to_uint8
from expressivegan.report.faithfulness import draw_faithfulness, tables
from expressivegan.synthesis import generate
from expressivegan.teacher import CXR_CAM_Teacher
from tiny import tiny_discriminator, tiny_generator, tiny_teacher

# --- networks to maps


def test_the_teachers_map_is_its_merged_map_before_scaling(phantoms: ImageSet) -> None:
    teacher = tiny_teacher()
    images = np.asarray(phantoms.images[:6])
    maps, logits = teacher_class_maps(teacher, images)
    assert maps.shape == (6, 3, 8, 8)
    assert (maps[:, 0] == 0).all()  # the reference
    merged = teacher.merge(teacher.raw_cams(phantoms.batch(np.arange(6))[0])[0], torch.from_numpy(logits).float())
    np.testing.assert_allclose(
        (teacher_maps(teacher, images) / float(teacher.scale)).clip(0, 1), merged[:, 0].detach().numpy(), atol=1e-5
    )


def test_evidence_is_the_score_and_is_centred_in_each_class(phantoms: ImageSet) -> None:
    model = tiny_discriminator()
    images, labels = np.asarray(phantoms.images[:12]), phantoms.labels[:12]
    maps, error = evidence_maps(model, images, labels)
    assert error < 1e-5
    for k in range(3):
        np.testing.assert_allclose(maps[labels == k].mean(0), 0, atol=1e-9)
    assert class_cam_maps(model, images).shape == maps.shape == (12, 8, 8)


def test_an_image_that_does_not_move_the_score_has_no_ratio_to_boast_of(phantoms: ImageSet) -> None:
    model = tiny_discriminator()
    images, labels, who = np.asarray(phantoms.images[:12]), phantoms.labels[:12], [str(i) for i in range(12)]
    found = evidence_report(model, images, labels, who, draws=2, rounds=40)
    assert found["cells"] == [6, 64]
    assert found["ratio"].value == pytest.approx(found["top"].value / found["random"].value)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    blind = evidence_report(model, images, labels, who, draws=2, rounds=40)
    assert (blind["top"].value, blind["ratio"].value) == (0, 0)
    with pytest.raises(InputError, match=r"share \(=0.001\) of 64 cells"):
        evidence_report(model, images, labels, who, share=0.001)


def test_occlusion_changes_nothing_outside_the_cells() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32), np.uint8)
    cells = np.zeros((2, 8, 8), bool)
    cells[:, 2, 3] = True
    changed = occluded(images, cells) != images
    assert changed[:, 8:12, 12:16].mean() > 0.9
    changed[:, 8:12, 12:16] = False
    assert not changed.any()


def test_where_m_is_zero_nothing_has_changed() -> None:
    model = tiny_generator()
    made = generator_maps(model, 1, 5)
    assert made.maps.shape == made.change.shape == (5, 32, 32)
    assert not made.change[made.maps == 0].any()
    assert made.changed.any()
    assert (made.changed == (made.change >= 3)).all()
    listed = [to_uint8(m.image)[0, 0].numpy() for m in generate(model, range(1, 15, 3))]  # the same as a run makes
    assert np.abs(made.images.astype(int) - np.stack(listed)).max() <= 1
    with pytest.raises(InputError, match="has no lesion"):
        generator_maps(model, 0, 5)


def test_lungs_lie_where_the_phantoms_are_dark() -> None:
    from expressivegan.data import phantom
    from expressivegan.data.phantom.chest import Child, anatomy, pose
    from expressivegan.data.phantom.curves import Numbers

    images = phantom.draw_batch(range(16), ["NORMAL"] * 16, 64)[0]
    masks, found = lung_masks(images)
    assert found.mean() > 0.8
    x = pose(Numbers([(s, "shot", 0) for s in range(16)]), 64)
    child = Child(Numbers([(s, "child") for s in range(16)]))
    air = anatomy(child, x[0], x[1], 64).air > 0.5
    overlap = (masks & air).sum((1, 2)) / (masks | air).sum((1, 2))
    assert np.median(overlap[found]) > 0.75


# --- a run


class Bright:
    """A judge who takes bright lungs for disease."""

    def predict(self, images: UInt8Array) -> np.ndarray:
        ill = images[:, 8:24, 6:26].mean((1, 2)) / 255
        return np.stack([1 - ill, ill / 2, ill / 2], 1).astype(np.float32)


@pytest.fixture(scope="module")
def networks() -> Networks:
    return Networks(tiny_teacher(), tiny_discriminator(), tiny_generator(), [tiny_teacher(1)])


@pytest.fixture(scope="module")
def found(networks: Networks, phantoms: ImageSet) -> dict[str, Any]:
    told: list[tuple[int, int, str]] = []
    result = faithfulness_section(
        networks, phantoms, Bright(), group="train", count=14, focal=["BACTERIA", "VIRUS"], rounds=40,
        progress=lambda *said: told.append(said),
    )  # fmt: skip
    assert [done for done, *_ in told] == sorted(done for done, *_ in told)
    assert any("control: edges" in words for *_, words in told)
    return result


def test_a_run_is_reported_whole_and_as_json(found: dict[str, Any]) -> None:
    json.dumps(found, allow_nan=False)
    assert found["left_out"] == {}
    assert set(found["truth"]["maps"]) == {"teacher", "discriminator, class CAM", "discriminator, |evidence|"}
    assert found["truth"]["n"] == 14
    assert set(found["removal"]["maps"]["teacher"]["figures"]["road_combined"]["controls"]) == set(CONTROLS)
    assert 0 < found["in_lungs"]["lung_area"] < 0.6
    assert set(found["sanity"]["teacher"]) == {"parameter_randomisation", "random_logit", "repeatability"}
    assert set(found["sanity"]["discriminator"]) == {"class_cam", "evidence"}
    assert found["evidence"]["decomposition_error"] < 1e-5
    assert set(found["generator"]) == {"BACTERIA", "VIRUS"}
    for row in found["generator"].values():
        change = row["energy"]["maps"]["change"]["figures"]
        assert change["relevance_mass"]["map"]["value"] == pytest.approx(0.8, abs=0.01)  # the ceiling
        assert change["change_captured"]["map"]["value"] == change["correlation"]["map"]["value"] == pytest.approx(1)
        assert 0 < row["energy"]["area"] < 1
        assert 0 < row["region"]["area"] < 1


def test_the_section_follows_the_schema(found: dict[str, Any]) -> None:
    text = resources.files("expressivegan.evaluation").joinpath("results.schema.json").read_text("utf-8")
    whole = Draft202012Validator({"$defs": json.loads(text)["$defs"], "$ref": "#/$defs/faithfulness"})
    whole.validate(found)
    changes: list[Callable[[dict[str, Any]], object]] = [
        lambda f: f.update(beauty={}),
        lambda f: f.pop("warnings"),
        lambda f: f["removal"]["maps"]["teacher"]["figures"].update(beauty={}),
        lambda f: f["removal"]["maps"]["teacher"]["figures"]["deletion"]["controls"].pop("edges"),
        lambda f: f["sanity"]["teacher"]["parameter_randomisation"].pop("passes"),
        lambda f: f["evidence"].update(ratio=3.0),
        lambda f: f["generator"]["VIRUS"]["energy"].update(share=0.8),
    ]
    for change in changes:
        broken = copy.deepcopy(found)
        change(broken)
        assert not whole.is_valid(broken)


def test_what_is_wrong_is_said_and_what_is_right_is_not(found: dict[str, Any]) -> None:
    """Untrained networks deserve warnings; with figures that pass, each of them goes."""
    said = warnings_of(found)
    assert said == found["warnings"]
    assert any(words.startswith("The map of teacher is not better than") for words in said)
    assert any("times as far" in words for words in said)
    good = copy.deepcopy(found)
    for part, figure in (("truth", "pointing_game"), ("removal", "road_combined")):
        for row in good[part]["maps"].values():
            row["figures"][figure]["difference"]["low"] = 0.1
    for network in good["sanity"].values():
        for check in network.values():
            check["passes"] = True
    good["evidence"]["ratio"]["value"] = 4.0
    for row in good["generator"].values():
        row["region"]["maps"]["M"]["figures"]["relevance_mass"]["map"]["value"] = 0.9
        row["energy"]["maps"]["M"]["figures"]["change_captured"]["difference"]["low"] = 0.1
    assert warnings_of(good) == []
    check = good["sanity"]["teacher"]["parameter_randomisation"]
    check["passes"] = False
    check["random_pairs"]["ssim"]["value"] = check["stages"][-1]["ssim"]["low"] + 0.01
    assert warnings_of(good) == []  # not beyond chance
    check["random_pairs"]["ssim"]["value"] = check["stages"][-1]["ssim"]["low"] - 0.01
    (words,) = warnings_of(good)
    assert words.startswith("With all of the teacher's weights drawn anew, its map is as like the true one (SSIM ")
    good["evidence"]["decomposition_error"] = 0.01
    assert "not its score: they differ by up to 1.0e-02" in warnings_of(good)[1]
    good["generator"] = {"VIRUS": {"left_out": "3 of 14 images change in a part of the picture"}}
    assert "Of VIRUS the change could not be measured: 3 of 14" in warnings_of(good)[2]


def test_figure_and_tables_show_what_was_found(found: dict[str, Any]) -> None:
    figure = draw_faithfulness(found)
    names = [label.get_text() for axis in figure.axes for label in axis.get_yticklabels()]
    assert {"ROAD, combined, teacher", "known lesion: pointing game, discriminator, class CAM"} <= set(names)
    assert len([name for name in names if name.startswith("VIRUS: ")]) == 4
    assert len(figure.axes[1].get_lines()) == 6  # three networks' maps, each with its random pairs
    made = tables(found)
    assert len(made) == 3 * 3 + 2 * 2 * 2 + 2 + 1
    part = {"images": found["images"], "left_out": {}, "warnings": []}
    assert len(draw_faithfulness(part).axes) == 4
    assert tables(part) == []


def test_what_a_run_lacks_is_left_out_by_name(networks: Networks, phantoms: ImageSet) -> None:
    offline = Networks(generator=tiny_generator(), why={"teacher": "xrv:all could not be downloaded"})
    alone = faithfulness_section(offline, phantoms, Bright(), group="train", count=12, rounds=40)
    assert alone["left_out"] == {
        "teacher": "xrv:all could not be downloaded",
        "discriminator": "the run has no discriminator",
    }
    assert "removal" not in alone
    dcgan = Networks(tiny_teacher(), generator=torch.nn.Identity())
    found = faithfulness_section(dcgan, replace(phantoms, masks=None), None, group="train", count=12, rounds=40)
    assert found["left_out"] == {
        "discriminator": "the run has no discriminator",
        "generator": "the generator has no maps",
        "removal": "no independent classifier was given",
        "repeatability": "no teacher of another seed was given",
        "truth": "the true regions are known of phantoms only",
    }
    with pytest.raises(InputError, match="networks are empty"):
        faithfulness_section(Networks(), phantoms, Bright(), group="train")


def test_networks_of_other_classes_are_left_out_and_the_others_are_judged(
    networks: Networks, phantoms: ImageSet
) -> None:
    other = tiny_teacher(classes=("Infiltration", "Edema"), reference=None, multi_label=True)  # as torchxrayvision's
    some: dict[str, Any] = {"group": "train", "count": 12, "rounds": 20}
    data = replace(phantoms, masks=None)
    guided = faithfulness_section(replace(networks, teacher=other), data, None, **some)
    assert guided["left_out"]["teacher"] == (
        "the teacher knows Infiltration, Edema, and the data hold NORMAL, BACTERIA, VIRUS"
    )
    assert set(guided["sanity"]) == {"discriminator"}
    assert {"evidence", "generator", "in_lungs"} <= set(guided)
    alone = faithfulness_section(replace(networks, other_teachers=[other], generator=None), data, None, **some)
    assert "repeatability" not in alone["sanity"]["teacher"]
    assert "that knows the classes of the data" in alone["left_out"]["repeatability"]


def test_with_one_disease_there_is_no_other_map(phantoms: ImageSet) -> None:
    rows = phantoms.labels != 2
    manifest = replace(phantoms.manifest, classes=("NORMAL", "BACTERIA"))
    two = replace(
        phantoms, images=np.asarray(phantoms.images)[rows], labels=phantoms.labels[rows], masks=None,
        patients=phantoms.patients[rows], groups=phantoms.groups[rows], manifest=manifest,
    )  # fmt: skip
    teacher = Networks(tiny_teacher(classes=two.classes))
    found = faithfulness_section(teacher, two, None, group="train", count=12, rounds=20)
    assert set(found["sanity"]["teacher"]) == {"parameter_randomisation"}
    assert "only one class has a map" in found["left_out"]["random_logit"]


def test_networks_of_other_classes_alone_and_small_groups_are_refused(networks: Networks, phantoms: ImageSet) -> None:
    other = CXR_CAM_Teacher(weights=None, classes=("NORMAL", "TB"), resolution=32)
    with pytest.raises(InputError, match="the teacher knows NORMAL, TB"):
        faithfulness_section(Networks(other), phantoms, Bright(), group="train", count=12, rounds=40)
    with pytest.raises(DataError, match=r"has \d+ images with a disease; 12 are needed"):
        faithfulness_section(networks, phantoms, Bright(), group="judge", count=12, rounds=40)


def test_the_same_images_are_judged_once() -> None:
    class Counted(Bright):
        asked = 0

        def predict(self, images: UInt8Array) -> np.ndarray:
            self.asked += 1
            return super().predict(images)

    judge = Counted()
    score = disease_score(judge, 0)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32), np.uint8)
    first = score(images)
    np.testing.assert_array_equal(score(images.copy()), first)
    assert judge.asked == 1
    assert (score(255 - images) != first).any()


def test_the_hash_is_of_every_network(networks: Networks) -> None:
    hashes = [n.hash for n in (networks, replace(networks, teacher=tiny_teacher(2)), replace(networks, generator=None),
                               replace(networks, other_teachers=()))]  # fmt: skip
    assert len(set(hashes)) == 4
    assert Networks(tiny_teacher()).hash == Networks(tiny_teacher()).hash
