"""Checkpoints come back as they were, or not at all."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from expressivegan import checkpoint
from expressivegan.atomic import write_text
from expressivegan.checkpoint import (
    load_checkpoint,
    make_directory,
    new_directory,
    newest_checkpoint,
    open_model,
    read_json,
    save_checkpoint,
    save_model,
    state_hash,
)
from expressivegan.errors import CheckpointError, InputError
from expressivegan.models import DiscriminatorWithExplain, GeneratorWithCAMGuidance
from expressivegan.streams import Streams
from expressivegan.teacher import CXR_CAM_Teacher
from tiny import noise, pictures, tiny_discriminator, tiny_generator, tiny_teacher


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, types included."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b)


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def write(folder: Path, seen: int) -> Path:
    path = folder / f"{seen:010d}.ckpt"
    save_checkpoint(path, {"seen": seen, "weights": noise(64)})
    return path


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(bytes(data))


def test_a_nested_state_comes_back(tmp_path: Path) -> None:
    state = {
        "seen": 12, "rate": 0.1, "name": "Ünïcode/…", "flag": True, "none": None, "empty": {}, "list": [1, [2.5, "x"]],
        "tensors": {"float": noise(3, 4), "half": noise(5).bfloat16(), "int": torch.tensor(7), "none": torch.zeros(0),
                    "view": noise(4, 4).t(), "byte": torch.arange(4, dtype=torch.uint8), "double": noise(2).double()},
        "streams": Streams(0, ("a", "b")).state_dict(),
        "with.dot": {"x": noise(1)}, "with": {"dot": {"x": noise(1, seed=1)}},
    }  # fmt: skip
    save_checkpoint(tmp_path / "x.ckpt", state)
    assert same(load_checkpoint(tmp_path / "x.ckpt"), state)
    assert files(tmp_path) == ["x.ckpt"]


def test_an_optimiser_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    def step(network: torch.nn.Module, optimiser: torch.optim.Optimizer, seed: int) -> None:
        optimiser.zero_grad()
        network(noise(4, 3, seed=seed)).square().sum().backward()
        optimiser.step()

    torch.manual_seed(0)
    one, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    first, second = torch.optim.Adam(one.parameters()), torch.optim.Adam(other.parameters())
    step(one, first, 0)
    save_checkpoint(tmp_path / "x.ckpt", {"network": one.state_dict(), "optimiser": first.state_dict()})
    state = load_checkpoint(tmp_path / "x.ckpt")
    assert set(state["optimiser"]["state"]) == {0, 1}  # integers, which JSON does not have
    other.load_state_dict(state["network"])
    second.load_state_dict(state["optimiser"])
    step(one, first, 1)
    step(other, second, 1)
    assert same(dict(one.state_dict()), dict(other.state_dict()))


def test_what_a_checkpoint_cannot_hold_is_refused_before_writing(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state\.a\.1 \(a set\)"):
        save_checkpoint(tmp_path / "x.ckpt", {"a": [0, {1}]})
    assert files(tmp_path) == []


def test_training_on_does_not_change_what_was_saved(tmp_path: Path) -> None:
    shared = noise(8)
    save_checkpoint(tmp_path / "x.ckpt", {"a": shared, "b": shared, "c": shared[2:]})
    state = load_checkpoint(tmp_path / "x.ckpt")
    assert same(state, {"a": shared, "b": shared, "c": shared[2:]})


@pytest.mark.parametrize("keep", [0, 0.002, 0.01, 0.2, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: float) -> None:
    path = write(tmp_path, 1)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("at", [-1, -100, -256, 0, 20])
def test_a_flipped_byte_is_noticed(tmp_path: Path, at: int) -> None:
    path = write(tmp_path, 1)
    flip(path, at)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)


def test_every_byte_of_the_header_counts(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    for at in range(8, 8 + length, 3):
        changed = bytearray(data)
        changed[at] ^= 0x01
        path.write_bytes(bytes(changed))
        try:
            found = load_checkpoint(path)
        except CheckpointError:
            continue
        assert same(found, {"seen": 1, "weights": noise(64)}), f"byte {at} changed the state, and nobody noticed"


def test_another_version_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "VERSION", 99)
        path = write(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"version 99.*reads 1"):
        load_checkpoint(path)


def test_another_format_is_named(tmp_path: Path) -> None:
    save_file({"x": noise(2)}, tmp_path / "plain.ckpt")
    with pytest.raises(CheckpointError, match="no checkpoint of this package"):
        load_checkpoint(tmp_path / "plain.ckpt")
    torch.save({"x": 1}, tmp_path / "pickle.ckpt")
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path / "pickle.ckpt")
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "none.ckpt")
    (tmp_path / "folder.ckpt").mkdir()
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path / "folder.ckpt")


def test_the_newest_valid_checkpoint_is_found_by_reading(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    paths = [write(tmp_path, seen) for seen in (4, 8, 12)]
    os.utime(paths[0])  # the newest by date, which says nothing
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found[0], found[1]["seen"]) == (paths[2], 12)
    flip(paths[2], -1)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found[1]["seen"] == 8
    paths[1].write_bytes(b"")
    flip(paths[0], -1)
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*0004\.ckpt"):
        newest_checkpoint(tmp_path)


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be written .*free some space"):
        save_checkpoint(tmp_path / "none" / "x.ckpt", {"a": noise(2)})
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=rf"--out \(={path}\) cannot be written to"):
            make_directory(path)
    made = make_directory(tmp_path / "a" / "b")
    assert made.is_dir()
    assert files(made) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(InputError, match="Permission denied"):
        make_directory(folder)
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(folder / "x.ckpt", {"a": noise(2)})


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, 1)
    before = path.read_bytes()

    def full(tensors: object, file: Path, **_: object) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_checkpoint(path, {"seen": 2})
    assert path.read_bytes() == before
    assert files(tmp_path) == [path.name]


def test_text_is_written_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "x.txt", "one")
    write_text(tmp_path / "x.txt", "zwei ü")
    assert (tmp_path / "x.txt").read_text(encoding="utf-8") == "zwei ü"
    assert files(tmp_path) == ["x.txt"]
    assert read_json(tmp_path / "x.txt") == {}
    assert read_json(tmp_path / "none.json") == {}


# --- model directories ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"classes": ("a/b", "ü"), "reference": None}, {"classes": (), "reference": None, "z_dim": 5}]
)
def test_a_generator_rebuilds_itself(tmp_path: Path, options: dict[str, Any]) -> None:
    model = tiny_generator(**options)
    save_model(model, tmp_path / "g", "# card", {"seen": 3})
    assert files(tmp_path) == ["g"]
    assert {"config.json", "model.safetensors", "README.md", "expressivegan.json"} <= set(files(tmp_path / "g"))
    assert (tmp_path / "g" / "README.md").read_text() == "# card"
    assert read_json(tmp_path / "g" / "expressivegan.json") == {"seen": 3}
    found = open_model(GeneratorWithCAMGuidance, tmp_path / "g").eval()
    assert found.classes == model.classes
    assert found.class_set.reference == model.class_set.reference
    assert state_hash(found) == state_hash(model)
    z = noise(3, model.z_dim)
    assert torch.equal(found(z)[0], model(z)[0])


def test_the_other_networks_rebuild_themselves(tmp_path: Path) -> None:
    D, T = tiny_discriminator(), tiny_teacher(meth="max", scale=2.5)
    save_model(D, tmp_path / "d", "card")
    save_model(T, tmp_path / "t", "card")
    x = pictures(2)
    assert torch.equal(open_model(DiscriminatorWithExplain, tmp_path / "d").eval()(x)[1], D(x)[1])
    found = open_model(CXR_CAM_Teacher, tmp_path / "t").eval()
    assert (found.meth, float(found.scale), found.reference) == ("max", 2.5, 0)
    assert torch.equal(found(x).cams, T(x).cams)


def test_hugging_face_opens_what_it_saved(tmp_path: Path) -> None:
    G, D = tiny_generator(), tiny_discriminator()
    G.save_pretrained(tmp_path / "g")
    D.save_pretrained(tmp_path / "d")
    config = json.loads((tmp_path / "g" / "config.json").read_text())
    assert (config["resolution"], config["z_dim"], config["classes"]) == (32, 8, ["NORMAL", "BACTERIA", "VIRUS"])
    found = GeneratorWithCAMGuidance.from_pretrained(tmp_path / "g")
    z = noise(2, 8)
    assert torch.equal(found(z)[0], G(z)[0])
    assert torch.equal(DiscriminatorWithExplain.from_pretrained(tmp_path / "d")(pictures(1))[0], D(pictures(1))[0])
    assert (tmp_path / "g" / "README.md").is_file()


def test_saving_again_replaces(tmp_path: Path) -> None:
    one, other = tiny_generator(0), tiny_generator(1)
    save_model(one, tmp_path / "g", "one", {"x": 1})
    save_model(other, tmp_path / "g", "other")
    assert state_hash(open_model(GeneratorWithCAMGuidance, tmp_path / "g")) == state_hash(other)
    assert "expressivegan.json" not in files(tmp_path / "g")
    assert files(tmp_path) == ["g"]


@pytest.mark.parametrize("kind", ["file", "folder", "model and more"])
def test_saving_never_takes_something_else_away(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    if kind == "model and more":
        save_model(tiny_generator(), place, "card")
    if kind == "file":
        place.write_text("mine")
    else:
        (place / "deep").mkdir(parents=True)
        (place / "deep" / "file").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"--out \(=.*place\) holds something else than a model"):
        save_model(tiny_generator(), place, "card")
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    save_model(tiny_generator(), tmp_path / "empty", "card")
    assert (tmp_path / "empty" / "config.json").is_file()


def test_what_is_not_a_models_own_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "place"
    save_model(tiny_generator(), place, "card")
    (place / "thesis.tex").write_text("mine")
    (place / ".git").mkdir()
    (place / ".git" / "HEAD").write_text("main")
    (tmp_path / "link").symlink_to(place)
    save_model(tiny_generator(1), tmp_path / "link", "card")
    assert (tmp_path / "link").is_symlink()
    assert (place / "thesis.tex").read_text() == "mine"
    assert (place / ".git" / "HEAD").read_text() == "main"
    assert state_hash(open_model(GeneratorWithCAMGuidance, place)) == state_hash(tiny_generator(1))
    assert files(tmp_path) == ["link", "place"]
    monkeypatch.chdir(place)
    save_model(tiny_generator(2), Path(), "card")
    assert state_hash(open_model(GeneratorWithCAMGuidance, place)) == state_hash(tiny_generator(2))


def test_a_new_directory_goes_again_if_nothing_came_into_it(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for path in (tmp_path / "a" / "b", tmp_path / "old"):
        with pytest.raises(KeyError), new_directory(path):
            raise KeyError
    assert files(tmp_path) == ["old"]

    def interrupted() -> None:
        with new_directory(tmp_path / "a" / "b") as made:
            (made / "x").touch()
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert files(tmp_path / "a" / "b") == ["x"]


def test_the_hash_knows_every_number() -> None:
    model = tiny_generator()
    before = state_hash(model)
    assert state_hash(tiny_generator()) == before
    with torch.no_grad():
        model.map_bias += 1e-6
    assert state_hash(model) != before


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_model_directory_with_a_file_missing(tmp_path: Path, missing: str) -> None:
    save_model(tiny_generator(), tmp_path / "g", "card")
    (tmp_path / "g" / missing).unlink()
    with pytest.raises(CheckpointError, match=f"no {missing}"):
        open_model(GeneratorWithCAMGuidance, tmp_path / "g")
    with pytest.raises(CheckpointError, match="no model directory"):
        open_model(GeneratorWithCAMGuidance, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.json", b"{"), ("config.json", b"\xff\xfe"), ("config.json", b'{"colour": 3}'), ("config.json", b"[]"),
     ("config.json", b'{"resolution": 100}'), ("model.safetensors", b""), ("model.safetensors", b"\x80\x04nonsense")],
)  # fmt: skip
def test_a_damaged_model_directory(tmp_path: Path, name: str, content: bytes) -> None:
    save_model(tiny_generator(), tmp_path / "g", "card")
    (tmp_path / "g" / name).write_bytes(content)
    with pytest.raises(CheckpointError):
        open_model(GeneratorWithCAMGuidance, tmp_path / "g")


def test_a_model_of_another_kind(tmp_path: Path) -> None:
    save_model(tiny_discriminator(), tmp_path / "d", "card")
    with pytest.raises(CheckpointError, match="does not hold a GeneratorWithCAMGuidance"):
        open_model(GeneratorWithCAMGuidance, tmp_path / "d")
    save_model(tiny_generator(), tmp_path / "g", "card")
    weights = (tmp_path / "g" / "model.safetensors").read_bytes()
    save_model(tiny_generator(width=16), tmp_path / "g", "card")
    (tmp_path / "g" / "model.safetensors").write_bytes(weights)
    with pytest.raises(CheckpointError, match="GeneratorWithCAMGuidance, or is damaged"):
        open_model(GeneratorWithCAMGuidance, tmp_path / "g")
