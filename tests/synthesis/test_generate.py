"""Image i is image i: whatever the batch, the order, and how often one was interrupted."""

import csv
import json
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chi2_contingency

from expressivegan import devices
from expressivegan.checkpoint import save_model, state_hash
from expressivegan.errors import CheckpointError, InputError
from expressivegan.images import to_uint8
from expressivegan.models import GeneratorWithCAMGuidance
from expressivegan.models.dcgan import DCGANGenerator
from expressivegan.models.generator import Grain
from expressivegan.synthesis import generate, open_generator, read_provenance, steering_map, write_images
from expressivegan.synthesis.generate import Made, fitting_batch, free_style, known_precision, label_number, latent
from tiny import noise, tiny_config, tiny_discriminator, tiny_generator


@pytest.fixture(scope="module")
def model() -> GeneratorWithCAMGuidance:
    return tiny_generator()


@pytest.fixture
def folder(model: GeneratorWithCAMGuidance, tmp_path: Path) -> Path:
    save_model(model, tmp_path / "model", "card")
    return tmp_path / "model"


def made(model: Any, indices: list[int], **options: Any) -> list[Made]:
    return list(generate(model, indices, **options))


def stack(found: list[Made]) -> torch.Tensor:
    return torch.cat([m.image for m in found])


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- generate ---------------------------------------------------------------------------------------------------------


def test_one_made_per_index_in_order(model: GeneratorWithCAMGuidance) -> None:
    found = made(model, [4, 0, 7], batch=2)
    assert [(m.index, m.label) for m in found] == [(4, 1), (0, 0), (7, 1)]  # round the classes
    assert all(m.image.shape == (1, 1, 32, 32) for m in found)
    assert [m.shape[-1] for m in found[0].attention] == sorted({m.shape[-1] for m in found[0].attention})
    assert found[1].attention[-1].max() == 0
    assert found[0].attention[-1].max() > 0
    assert {m.label for m in made(model, [0, 1, 2], label=2)} == {2}
    assert made(model, []) == []


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_the_batch_changes_no_grey_level_by_more_than_one(model: GeneratorWithCAMGuidance, batch: int) -> None:
    one = to_uint8(stack(made(model, list(range(20))))).int()
    other = to_uint8(stack(made(model, list(range(20)), batch=batch))).int()
    assert (one - other).abs().max() <= 1


def test_deterministic_images_are_equal_to_the_bit(model: GeneratorWithCAMGuidance) -> None:
    whole = made(model, list(range(37)), deterministic=True)
    for indices in ([5], [36, 5, 0], list(range(30, 37))):
        found = made(model, indices, deterministic=True, batch=3)
        for m in found:
            assert torch.equal(m.image, whole[m.index].image)
            assert torch.equal(m.attention[-1], whole[m.index].attention[-1])


def test_bfloat16_is_asked_for_and_keeps_what_generation_promises(model: GeneratorWithCAMGuidance) -> None:
    exact = stack(made(model, list(range(12))))
    quick = made(model, list(range(12)), precision="bf16-mixed")
    assert {m.image.dtype for m in quick} == {t.dtype for m in quick for t in m.attention} == {torch.float32}
    assert not torch.equal(stack(quick), exact)
    assert (stack(quick) - exact).abs().mean() < 0.02
    other = stack(made(model, list(range(12)), precision="bf16-mixed", batch=5))
    assert (to_uint8(stack(quick)).int() - to_uint8(other).int()).abs().max() <= 1
    child = {k: stack(made(model, [1, 2], label=k, style_label=0, precision="bf16-mixed")) for k in (0, 1)}
    outside = made(model, [1, 2], label=1, precision="bf16-mixed")[0].attention[-1] == 0
    assert outside.any()  # the frame
    assert torch.equal(child[0][:1][outside], child[1][:1][outside])
    assert not torch.equal(child[0], child[1])


@pytest.mark.parametrize("hardware", [True, False])
def test_auto_takes_bfloat16_where_the_hardware_has_it(
    model: GeneratorWithCAMGuidance, monkeypatch: pytest.MonkeyPatch, hardware: bool
) -> None:
    monkeypatch.setattr(devices, "fast_bf16", lambda device: hardware)
    meant: Any = "bf16-mixed" if hardware else "32-true"
    assert torch.equal(stack(made(model, [0, 1], precision="auto")), stack(made(model, [0, 1], precision=meant)))
    assert known_precision("auto", "cpu") == meant


def test_the_noise_in_bfloat16_is_that_of_the_formula() -> None:
    grain, style = Grain(8, 16, 12, 4), noise(3, 4, seed=2)
    torch.nn.init.normal_(grain.gain, generator=torch.Generator().manual_seed(0))
    x, z = noise(3, 12, 16, 16).contiguous(memory_format=torch.channels_last), noise(3, 8, seed=1)
    for dtype in (torch.float32, torch.bfloat16):
        drawn = grain.noise(z)
        plain = torch.addcmul(x.to(dtype), drawn.to(dtype), grain.gain.to(dtype))
        assert torch.equal(grain(x.to(dtype), drawn, style), plain)


def test_what_is_made_at_a_time_fits_the_caches(model: GeneratorWithCAMGuidance) -> None:
    assert [fitting_batch(side, "cpu", "32-true") for side in (32, 64, 128, 224, 512)] == [128, 32, 8, 2, 1]
    assert fitting_batch(64, "cpu", "bf16-mixed") == 64
    assert fitting_batch(224, "cuda:1", "32-true") == fitting_batch(64, "cuda", "bf16-mixed") == 64
    sizes: list[int] = []
    handle = model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    try:
        assert len(made(model, list(range(130)))) == 130
    finally:
        handle.remove()
    assert sizes == [128, 2]


def test_an_image_depends_on_seed_and_index(model: GeneratorWithCAMGuidance) -> None:
    assert torch.equal(latent(0, 3, 8), latent(0, 3, 8))
    assert not torch.equal(latent(0, 3, 8), latent(0, 4, 8))
    assert not torch.equal(latent(0, 3, 8), latent(1, 3, 8))
    torch.manual_seed(0)
    one = stack(made(model, [0, 1]))
    torch.manual_seed(1)
    assert torch.equal(one, stack(made(model, [0, 1])))
    assert not torch.equal(one, stack(made(model, [0, 1], seed=1)))


def test_truncation_makes_images_more_alike(model: GeneratorWithCAMGuidance) -> None:
    spread = [stack(made(model, list(range(12)), label=1, truncation=t)).std(0).mean() for t in (0.0, 0.5, 1.0)]
    assert spread[0] < 1e-6 < spread[1] < spread[2]


def test_steering_and_style(model: GeneratorWithCAMGuidance) -> None:
    steer = torch.zeros(1, 1, 32, 32)
    steer[..., 16:] = 1
    found = made(model, [0, 1, 2], label=1, steer=steer, style_label=0)
    for m in found:
        assert (m.attention[-1][..., :16] == 0).all()
    healthy = stack(made(model, [0, 1, 2], label=0))
    assert torch.equal(stack(found)[..., :16], healthy[..., :16])  # the same child, to the bit


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncation": 1.5}, r"truncation \(=1.5\)"),
        ({"truncation": float("nan")}, r"truncation \(=nan\)"),
        ({"batch": 0}, r"batch \(=0\)"),
        ({"precision": "64-true"}, r"precision \(='64-true'\) must be one of auto, 32-true, bf16-mixed"),
        ({"label": 3}, r"label \(=3\) must be 0 to 2"),
        ({"style_label": -1}, r"style_label \(=-1\) must be 0 to 2"),
        ({"label": 1, "steer": torch.full((1, 1, 32, 32), 2.0)}, r"steer must lie in \[0, 1\]"),
        ({"label": 1, "steer": torch.zeros(1, 1, 16, 16)}, "steer must be"),
        ({"label": 1, "steer": torch.zeros(1, 1, 32, 32)}, "0 everywhere"),
        ({"label": 0, "steer": torch.ones(1, 1, 32, 32)}, r"\(='NORMAL'\) has none in NORMAL; choose .*BACTERIA or"),
        ({"steer": torch.ones(1, 1, 32, 32)}, "goes round the classes"),
        ({"style_label": 1, "shortcut_free": True}, "shortcut_free draws the style label"),
    ],
)
def test_bad_arguments_raise(model: GeneratorWithCAMGuidance, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        made(model, [0], **options)


def test_the_baseline_generates_but_does_not_steer() -> None:
    baseline = DCGANGenerator(8, 32, width=8).eval()
    assert stack(made(baseline, [0, 1, 2])).shape == (3, 1, 32, 32)
    for options in ({"style_label": 1}, {"shortcut_free": True}, {"steer": torch.ones(1, 1, 32, 32)}):
        with pytest.raises(InputError, match=f"{next(iter(options))} needs a CAM-guided"):
            made(baseline, [0], label=1, **options)


def test_a_shortcut_free_style_knows_seed_and_index_alone(model: GeneratorWithCAMGuidance) -> None:
    mixed = made(model, list(range(30)), shortcut_free=True)
    for label in (0, 2):
        assert [m.style_label for m in made(model, list(range(30)), label=label, shortcut_free=True)] == [
            m.style_label for m in mixed
        ]
    assert [m.style_label for m in made(model, [7, 3], shortcut_free=True)] == [mixed[i].style_label for i in (7, 3)]
    assert [m.style_label for m in mixed] != [
        m.style_label for m in made(model, list(range(30)), seed=1, shortcut_free=True)
    ]
    table = np.zeros((3, 3), int)
    for i in range(900):
        table[i % 3, free_style(5, i, 3)] += 1
    assert chi2_contingency(table).pvalue > 0.001
    assert (np.abs(table - 100) < 35).all()
    natural = made(model, list(range(30)))
    assert [m.style_label for m in natural] == [m.label for m in natural]
    for m, n in zip(mixed, natural, strict=True):
        assert torch.equal(m.image, n.image) == (m.style_label == m.label)


def test_labels_by_name(model: GeneratorWithCAMGuidance) -> None:
    assert [label_number(model, n) for n in ("NORMAL", "virus", "Bacteria")] == [0, 2, 1]
    with pytest.raises(InputError, match=r"label \(='COVID'\) must be one of NORMAL, BACTERIA, VIRUS"):
        label_number(model, "COVID")


# --- write_images -----------------------------------------------------------------------------------------------------


def test_what_is_written(model: GeneratorWithCAMGuidance, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    told: list[tuple[int, int]] = []
    table = write_images(folder, out, 5, seed=3, progress=lambda done, count: told.append((done, count)))
    assert told == [(i, 5) for i in range(1, 6)]
    found = rows(table)
    assert list(found[0]) == ["file", "label", "index", "seed", "style_label"]
    assert [(r["label"], r["index"], r["seed"]) for r in found] == [
        (name, str(i), "3") for i, name in enumerate(["NORMAL", "BACTERIA", "VIRUS", "NORMAL", "BACTERIA"])
    ]
    expected = made(model, list(range(5)), seed=3)
    assert len(list((out / "images").iterdir())) == len(list((out / "overlays").iterdir())) == 5
    for row, one in zip(found, expected, strict=True):
        with Image.open(out / row["file"]) as picture:
            assert picture.mode == "L"
            assert np.array_equal(np.asarray(picture), to_uint8(one.image)[0, 0].numpy())
        with np.load(out / "maps" / f"{one.index:06d}.npz") as maps:
            assert set(maps.files) == {"mask", *(f"level_{n}" for n in range(len(one.attention)))}
            assert np.allclose(maps["mask"], one.attention[-1][0, 0].numpy(), atol=1e-3)
            assert np.array_equal(maps["mask"], maps[f"level_{len(one.attention) - 1}"])
    assert json.loads((out / "generation.json").read_text())["count"] == 5
    assert not [p for p in out.rglob("*") if p.name.startswith(".")]


def test_every_png_says_that_it_is_synthetic(model: GeneratorWithCAMGuidance, folder: Path, tmp_path: Path) -> None:
    write_images(folder, tmp_path / "out", 2, seed=7, label="virus", truncation=0.5)
    for kind in ("images", "overlays"):
        path = tmp_path / "out" / kind / "000001-VIRUS.png"
        assert read_provenance(path) == {
            "model": state_hash(model), "seed": 7, "index": 1, "label": "VIRUS", "truncation": 0.5,
            "style_label": "VIRUS", "steer": None, "precision": "32-true", "deterministic": False,
        }  # fmt: skip
        with Image.open(path) as picture:
            text = picture.text  # type: ignore[attr-defined]
        assert text["Synthetic"] == "yes"
        assert "Not for diagnosis" in text["Description"]


def test_the_precision_is_written_down(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "fast_bf16", lambda device: True)
    write_images(folder, tmp_path / "out", 1, precision="auto")
    assert (read_provenance(tmp_path / "out" / "images" / "000000-NORMAL.png") or {})["precision"] == "bf16-mixed"
    assert json.loads((tmp_path / "out" / "generation.json").read_text())["precision"] == "bf16-mixed"


def test_foreign_files_have_no_provenance(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("no picture")
    assert [read_provenance(tmp_path / n) for n in ("plain.png", "text.png", "none.png")] == [None] * 3


@pytest.mark.parametrize("damage", ["missing", "truncated", "no map", "no overlay"])
def test_an_interrupted_generation_is_completed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    write_images(folder, whole, 5, deterministic=True)
    with pytest.raises(InputError, match="differ in deterministic"):
        write_images(folder, whole, 6)
    assert "index" not in json.loads((whole / "generation.json").read_text())

    def stop(done: int, count: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_images(folder, out, 5, deterministic=True, progress=stop)
    assert not (out / "labels.csv").exists()  # written last
    second = out / "images" / "000001-BACTERIA.png"
    if damage == "missing":
        second.unlink()
    elif damage == "truncated":
        second.write_bytes(second.read_bytes()[:-200])
    elif damage == "no map":
        (out / "maps" / "000001.npz").unlink()
    else:
        (out / "overlays" / second.name).unlink()
    untouched = out / "images" / "000000-NORMAL.png"
    before = untouched.stat().st_mtime_ns
    write_images(folder, out, 5, deterministic=True)
    assert untouched.stat().st_mtime_ns == before
    one, other = (
        {p.relative_to(r): p.read_bytes() for p in r.rglob("*.*") if p.suffix != ".npz"} for r in (whole, out)
    )
    assert one == other
    assert sorted(p.name for p in (out / "maps").iterdir()) == [f"{i:06d}.npz" for i in range(5)]


def test_a_longer_run_goes_on(folder: Path, tmp_path: Path) -> None:
    write_images(folder, tmp_path / "out", 2)
    table = write_images(folder, tmp_path / "out", 4)
    assert [r["index"] for r in rows(table)] == ["0", "1", "2", "3"]


def test_steering_and_style_are_written_down(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    table = write_images(folder, out, 3, seed=1, label="VIRUS", steer=["right lower"], shortcut_free=True)
    found = rows(table)
    names = ("NORMAL", "BACTERIA", "VIRUS")
    assert [r["style_label"] for r in found] == [names[free_style(1, i, 3)] for i in range(3)]
    region = steering_map("right lower", 32)
    for i, row in enumerate(found):
        facts = read_provenance(out / row["file"])
        assert facts is not None
        assert facts["style_label"] == row["style_label"]
        assert len(facts["steer"]) == 16
        with np.load(out / "maps" / f"{i:06d}.npz") as maps:
            assert (maps["mask"][region[0, 0].numpy() == 0] == 0).all()
            assert maps["mask"].max() > 0
    assert json.loads((out / "generation.json").read_text())["steer"]["regions"] == ["right lower"]
    before = {p: p.read_bytes() for p in out.rglob("*.*")}
    for other, named in (
        ({"steer": ["left lower"]}, "steer"),
        ({"steer": []}, "steer"),
        ({"shortcut_free": False}, "style_label"),
        ({"style_label": "NORMAL"}, "style_label"),
        ({"truncation": 0.5}, "truncation"),
    ):
        options: dict[str, Any] = {"steer": ["right lower"], "shortcut_free": "style_label" not in other} | other
        with pytest.raises(InputError, match=rf"differ in {named} \(.*choose another folder"):
            write_images(folder, out, 3, seed=1, label="VIRUS", **options)
    write_images(folder, out, 3, seed=1, label="VIRUS", steer=["right lower"], shortcut_free=True)
    assert {p: p.read_bytes() for p in out.rglob("*.*")} == before


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"label": "VIRUS"}, {"truncation": 0.5}, {"count": 2}, {"precision": "bf16-mixed"}]
)
def test_another_run_into_the_same_folder_is_refused(folder: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    out = tmp_path / "out"
    write_images(folder, out, 3)
    before = {p: p.read_bytes() for p in out.rglob("*.*")}
    with pytest.raises(InputError, match=r"--out \(=.*out\) holds .*choose another folder"):
        write_images(folder, out, **({"count": 3} | change))
    assert {p: p.read_bytes() for p in out.rglob("*.*")} == before


def test_a_picture_of_somebody_else_is_kept(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "images").mkdir(parents=True)
    for name in ("000001-BACTERIA.png", "mine.png"):
        path = tmp_path / "out" / "images" / name
        Image.new("L", (4, 4)).save(path)
        before = path.read_bytes()
        with pytest.raises(InputError, match="choose another folder"):
            write_images(folder, tmp_path / "out", 3)
        assert path.read_bytes() == before
        path.unlink()


def test_another_model_into_the_same_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    write_images(folder, tmp_path / "out", 3)
    save_model(tiny_generator(1), tmp_path / "other", "card")
    with pytest.raises(InputError, match="differ in model"):
        write_images(tmp_path / "other", tmp_path / "out", 3)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/b", "Ärger", "肺炎", "with space", "", ".", "nul\x00", "x" * 300]
)
def test_label_names_are_the_users(tmp_path: Path, name: str) -> None:
    names = ("other", name)
    save_model(tiny_generator(classes=names, reference=None), tmp_path / "model", "card")
    table = write_images(tmp_path / "model", tmp_path / "out" / "deep", 2)
    found = rows(table)
    assert [r["label"] for r in found] == list(names)
    file = tmp_path / "out" / "deep" / found[1]["file"]
    assert file.is_file()
    assert file.parent == tmp_path / "out" / "deep" / "images"
    provenance = read_provenance(file)
    assert provenance is not None
    assert provenance["label"] == name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "out"]
    assert unicodedata.normalize("NFC", name) == name


def test_labels_that_look_alike_as_files_stay_apart(tmp_path: Path) -> None:
    save_model(tiny_generator(classes=("a/b", "a:b", "a_b"), reference=None), tmp_path / "model", "card")
    files = [r["file"].split("-", 1)[1] for r in rows(write_images(tmp_path / "model", tmp_path / "out", 3))]
    assert len(set(files)) == 3


def test_unconditional_images(tmp_path: Path) -> None:
    save_model(tiny_generator(classes=(), reference=None), tmp_path / "model", "card")
    found = rows(write_images(tmp_path / "model", tmp_path / "out", 2))
    assert [r["label"] for r in found] == ["IMAGE", "IMAGE"]
    with pytest.raises(InputError, match="no classes"):
        write_images(tmp_path / "model", tmp_path / "new", 2, label="NORMAL")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "COVID"}, r"label \(='COVID'\) must be one of NORMAL"),
        ({"count": 0}, r"num \(=0\)"),
        ({"truncation": -1.0}, r"truncation \(=-1.0\)"),
        ({"batch": 0}, r"batch \(=0\)"),
        ({"precision": "fp8"}, r"precision \(='fp8'\)"),
        ({"steer": ["right lower"]}, "goes round the classes"),
        ({"steer": ["right lower"], "label": "NORMAL"}, "has none in NORMAL"),
        ({"steer": ["right"], "label": "VIRUS"}, "known region"),
        ({"style_label": "COVID"}, r"style_label \(='COVID'\)"),
    ],
)
def test_a_refused_call_writes_nothing(folder: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_images(folder, tmp_path / "out", **({"count": 2} | options))
    assert not (tmp_path / "out").exists()


def test_models_that_cannot_be_opened(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model \(=.*nowhere\) does not exist"):
        open_generator(tmp_path / "nowhere")
    save_model(tiny_discriminator(), tmp_path / "d", "card")
    with pytest.raises(CheckpointError, match="does not hold a GeneratorWithCAMGuidance"):
        open_generator(tmp_path / "d")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text(json.dumps({"config": replace(tiny_config()).to_json()}))
    with pytest.raises(CheckpointError, match="has not written a generator yet"):
        open_generator(tmp_path / "run")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match="damaged"):
        open_generator(folder)
