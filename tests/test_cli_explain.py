"""`expressivegan explain` on a tiny run over phantoms, and what it says to mistakes."""

import json
import shutil
import zipfile
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from PIL import Image

from command_line import Refused, call
from expressivegan import explain as package
from expressivegan.checkpoint import save_model
from expressivegan.data import load_images
from expressivegan.data.phantom import draw
from expressivegan.errors import InputError
from expressivegan.explain import explain_images, opening, peers
from expressivegan.images import save_png
from expressivegan.models.dcgan import DCGANDiscriminator
from expressivegan.synthesis.provenance import png_text
from tiny import pictures, tiny_discriminator, tiny_generator, tiny_teacher

NO_PEERS = ["--methods"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "run"
    folder.mkdir()
    save_model(tiny_generator(), folder / "generator", "card")
    save_model(tiny_discriminator(), folder / "discriminator", "card")
    save_model(tiny_teacher(), folder / "teacher", "card")
    settings = {"config": {"method": "expressive", "fit": "pad"}, "teacher": None}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "data.json").write_text(json.dumps({"source": "phantom:240"}))
    return folder


@pytest.fixture
def chest(tmp_path: Path) -> Path:
    save_png(tmp_path / "chest.png", draw(1, "BACTERIA", 64).image)
    return tmp_path / "chest.png"


def result(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "explanations.json").read_text("utf-8"))
    schema = json.loads(resources.files(package).joinpath("explain.schema.json").read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(found)
    return found


def test_the_whole_path(run: Path, chest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = tmp_path / "more"
    more.mkdir()
    made = png_text({"label": "VIRUS", "seed": 3})
    save_png(more / "made $x_$.png", draw(2, "VIRUS", 32).image, made)
    (more / "notes.txt").write_text("no picture")
    Image.effect_noise((300, 120), 90).convert("RGB").save(more / "wide.jpg")
    out = tmp_path / "out"
    assert call("explain", "--model", run, chest, more, tmp_path / "absent.png", "--out", out,
                "--methods", "occlusion") == 0  # fmt: skip
    said = capsys.readouterr().err
    assert "notes.txt: not an image" in said.replace("\n", " ")
    assert "absent.png" in said
    found = result(out)
    assert [Path(i["name"]).name for i in found["images"]] == ["chest.png", "made $x_$.png", "wide.jpg"]
    assert {Path(r["name"]).name for r in found["rejected"]} == {"notes.txt", "absent.png"}
    assert found["fit"] == "pad"
    first, second, third = found["images"]
    assert second["synthetic"]["label"] == "VIRUS"
    assert first["synthetic"] is None
    assert third["familiarity"]["strange"]
    assert any("unlike the X-rays" in w for w in third["warnings"])
    assert any("far from square" in w for w in third["warnings"])
    assert sum(first["teacher"]["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert first["discriminator"]["referenced"] == pytest.approx(first["maps"]["evidence"]["mean"], abs=1e-4)
    wanted = {f"merged-{m}" for m in ("max", "mean", "weighted", "topk")} | {"class-BACTERIA", "class-VIRUS"}
    wanted |= {"evidence", "discriminator-class"}
    assert wanted | {"occlusion"} == set(first["maps"])
    with np.load(out / first["folder"] / "maps.npz") as arrays:
        assert set(arrays) == set(first["maps"])
        for name, entry in first["maps"].items():
            assert list(arrays[name].shape) == entry["grid"]
            assert float(arrays[name].max()) == pytest.approx(entry["most"], rel=2e-3, abs=1e-4)
            with Image.open(out / entry["file"]) as overlay:
                assert overlay.mode == "RGB"
    with Image.open(out / first["folder"] / "montage.png") as montage:
        assert min(montage.size) > 600


def test_a_label_other_than_the_likeliest(run: Path, chest: Path) -> None:
    likeliest = explain_images(run, [chest], methods=()).images[0]
    other = next(name for name in ("BACTERIA", "VIRUS") if name != likeliest.likeliest)
    asked = explain_images(run, [chest], label=other.lower(), methods=()).images[0]
    assert (asked.label, asked.focus, asked.likeliest) == (other, other, likeliest.likeliest)
    assert asked.judged is not None
    assert asked.judged.label == other
    assert asked.maps["evidence"].unit.endswith(f"of {other}")
    normal = explain_images(run, [chest], label="NORMAL", methods=()).images[0]
    assert normal.label == "NORMAL"
    assert normal.focus in ("BACTERIA", "VIRUS")


def test_tensors_archives_and_batches_agree(run: Path, tmp_path: Path) -> None:
    x = (pictures(20) * 127.5 + 127.5).round() / 127.5 - 1
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for i, image in enumerate(x):
            save_png(tmp_path / "one.png", (image[0] * 127.5 + 127.5).round().to(torch.uint8).numpy())
            archive.write(tmp_path / "one.png", f"{i:02d}.png")
    from_tensor = explain_images(run, x, methods=()).images
    from_zip = explain_images(run, [tmp_path / "set.zip"], methods=()).images
    assert len(from_tensor) == len(from_zip) == 20
    for a, b in zip(from_tensor, from_zip, strict=True):
        assert a.logits == pytest.approx(b.logits, abs=1e-5)
        assert np.allclose(a.maps["evidence"].values, b.maps["evidence"].values, atol=1e-4)
    with pytest.raises(InputError, match=r"images must be \(B, 1, 32, 32\)"):
        explain_images(run, pictures(1, 64), methods=())
    with pytest.raises(InputError, match="images is empty"):
        explain_images(run, [])


def test_without_the_data(run: Path, chest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(run, alone)
    (alone / "data.json").write_text(json.dumps({"source": str(tmp_path / "gone")}))
    monkeypatch.setenv("EXPRESSIVEGAN_CACHE", str(tmp_path / "cache"))
    bare = explain_images(alone, [chest], methods=())
    assert bare.images[0].verdict is None
    assert "unreferenced" in bare.images[0].maps["evidence"].unit
    assert any("could not be judged" in note for note in bare.notes)
    # stored with the model, they are there without data and cache
    assert call("explain", "--model", alone, chest, "--data", "phantom:240", "--store", "--out", tmp_path / "o",
                *NO_PEERS) == 0  # fmt: skip
    monkeypatch.setenv("EXPRESSIVEGAN_CACHE", str(tmp_path / "another"))
    stored = explain_images(alone, [chest], methods=())
    assert stored.images[0].verdict is not None
    assert stored.images[0].judged is not None
    assert stored.images[0].judged.referenced is not None
    assert stored.notes == ()
    (alone / "explain.ckpt").write_bytes(b"damaged")
    assert explain_images(alone, [chest], methods=()).images[0].verdict is None


def test_only_what_the_trainings_images_say_is_stored(
    run: Path,
    chest: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    refused: Refused,
) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(run, alone)
    known = load_images("phantom:240", 32, fit="pad", progress=False).data_hash
    (alone / "settings.json").write_text(json.dumps({"config": {"fit": "pad"}, "data_hash": known}))
    (alone / "data.json").unlink()
    monkeypatch.setenv("EXPRESSIVEGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
    opening.open_explainer(alone, data="phantom:240", methods=(), store=True)
    stored = (alone / "explain.ckpt").read_bytes()
    other = ("explain", "--model", alone, chest, "--data", "phantom:300", *NO_PEERS)
    assert "data (=phantom:300) are others" in refused(*other, "--store", "--out", "refused")
    assert (alone / "explain.ckpt").read_bytes() == stored
    assert call(*other, "--out", tmp_path / "others") == 0  # without --store they may be others
    monkeypatch.setenv("EXPRESSIVEGAN_CACHE", str(tmp_path_factory.mktemp("another")))
    assert explain_images(alone, [chest], methods=()).images[0].verdict is not None


def test_what_real_images_say_is_learnt_once(run: Path, chest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explain_images(run, [chest], methods=())
    monkeypatch.setattr(opening, "make_baseline", lambda *_: pytest.fail("learnt again"))
    assert explain_images(run, [chest], methods=()).images[0].verdict is not None
    assert explain_images(run, [chest], data="phantom:240", methods=()).images[0].verdict is not None


def test_a_teacher_alone_and_the_baseline(run: Path, chest: Path, tmp_path: Path) -> None:
    lone = explain_images(run / "teacher", [chest], methods=())
    assert lone.images[0].judged is None
    assert any("a teacher's folder holds none" in note for note in lone.notes)
    dcgan = tmp_path / "dcgan"
    shutil.copytree(run, dcgan)
    shutil.rmtree(dcgan / "discriminator")
    save_model(DCGANDiscriminator(resolution=32, width=8, min_width=4), dcgan / "discriminator", "card")
    (dcgan / "settings.json").write_text(json.dumps({"config": {"method": "dcgan"}, "teacher": None}))
    found = explain_images(dcgan, [chest], methods=())
    assert any("dcgan baseline" in note for note in found.notes)
    assert "merged-topk" in found.images[0].maps


def test_a_colour_photograph_is_warned_about(run: Path, tmp_path: Path) -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:32, :, 0], pixels[32:, :, 2] = 200, 90
    Image.fromarray(pixels).save(tmp_path / "sea.png")
    Image.fromarray(np.repeat(draw(5, "NORMAL", 64).image[..., None], 3, 2)).save(tmp_path / "grey.png")
    sea, grey = explain_images(run, [tmp_path / "sea.png", tmp_path / "grey.png"], methods=()).images
    assert any("colour picture" in w for w in sea.warnings)
    assert not any("colour" in w for w in grey.warnings)


def test_mistakes(refused: Refused, run: Path, chest: Path, tmp_path: Path) -> None:
    explain_images(run, [chest], methods=())  # what real images say is known by now, and said without a word
    assert "IMAGE is missing" in refused("explain", "--model", run)
    assert "no/model" in refused("explain", "--model", "no/model", chest)
    (tmp_path / "text.png").write_text("no picture")
    assert "text.png: not an image" in refused("explain", "--model", run, "text.png", *NO_PEERS, "--out", "new/out")
    assert "absent.png" in refused("explain", "--model", run, "absent.png", *NO_PEERS)
    assert "label (='TB') must be one of NORMAL" in refused("explain", "--model", run, chest, "--label", "TB")
    assert "run that holds it" in refused("explain", "--model", run / "generator", chest)
    (tmp_path / "empty").mkdir()
    assert "no run and no teacher" in refused("explain", "--model", "empty", chest)
    assert "holds no file" in refused("explain", "--model", run, "empty", *NO_PEERS)
    assert "not empty" in refused("explain", "--model", run, chest, "--out", tmp_path)
    assert "phantom:x" in refused("explain", "--model", run, chest, "--data", "phantom:x", *NO_PEERS)


def test_a_run_without_a_teacher(refused: Refused, run: Path, chest: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text(json.dumps({"config": {}, "teacher": "none"}))
    assert "trained without a teacher" in refused("explain", "--model", "run", chest)
    (tmp_path / "run" / "settings.json").write_text(json.dumps({"config": {}, "teacher": str(tmp_path / "gone")}))
    assert "not there any more" in refused("explain", "--model", "run", chest)


def test_methods_whose_library_is_missing(
    refused: Refused, run: Path, chest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "missing_library", lambda: "captum")
    monkeypatch.setattr(opening, "missing_library", lambda: "captum")
    said = refused("explain", "--model", run, chest, "--methods", "occlusion")
    assert "pip install 'expressivegan[explain]'" in said
    found = explain_images(run, [chest])
    assert "occlusion" not in found.images[0].maps
    assert any("captum is missing" in note for note in found.notes)
