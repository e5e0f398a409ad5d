"""benchmarks/ship.py: what is packed, what is refused, and that a refusal leaves what stood there."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmark_module import benchmark
from command_line import tree
from expressivegan.checkpoint import save_model, state_hash
from expressivegan.data import ImageSet
from expressivegan.errors import InputError
from expressivegan.explain.opening import networks_of_run
from expressivegan.synthesis import open_generator
from tiny import tiny_config, tiny_discriminator, tiny_generator, tiny_teacher

ship = benchmark("ship")
DATA = "phantom:120"


@pytest.fixture
def run(phantoms: ImageSet, tmp_path: Path) -> Path:
    """A finished run of the phantoms, with a teacher elsewhere on this machine."""
    folder = tmp_path / "run"
    known = {"data_hash": phantoms.data_hash, "images_seen": 12, "config": tiny_config().to_json()}
    save_model(tiny_generator(), folder / "generator", "card", known)
    save_model(tiny_discriminator(), folder / "discriminator", "card", known)
    of_teacher = {"data_hash": phantoms.data_hash, "config": {"epochs": 7, "init": str(tmp_path / "older")}}
    save_model(tiny_teacher(), tmp_path / "teacher", "# CAM teacher", of_teacher)
    settings = {"config": known["config"], "data_hash": phantoms.data_hash, "device": "cpu"}
    (folder / "settings.json").write_text(json.dumps(settings | {"teacher": str(tmp_path / "teacher")}))
    return folder


def results(run: Path, images: ImageSet, **changes: str) -> Path:
    """The least that results.json holds, of that run."""
    found: dict[str, Any] = {
        "data": {"hash": images.data_hash, "held_against": "reference",
                 "groups": {"reference": {"images": 9, "patients": 8}}},
        "generated": {"model_hash": state_hash(open_generator(run)), "images": 40},
        "sections": {"shortcuts": {"figures": {"frame": {
            "fake": {"value": 0.91234, "low": 0.9, "high": 0.92}, "real": {"value": None, "low": None, "high": None},
            "difference": {"value": 0.1, "low": None, "high": None},
        }}}},
        "left_out": {"fidelity": "too few"}, "summary": ["The frame tells the label."],
    }  # fmt: skip
    found["data"]["hash"] = changes.get("data", found["data"]["hash"])
    found["generated"]["model_hash"] = changes.get("model", found["generated"]["model_hash"])
    path = run / "results.json"
    path.write_text(json.dumps(found))
    return path


def test_what_a_run_went_on_from_is_in_the_command(run: Path, tmp_path: Path) -> None:
    settings = json.loads((run / "settings.json").read_text())
    init = {"path": str(tmp_path / "small"), "resolution": 16, "classes": [], "G": "0", "D": None}
    (run / "settings.json").write_text(json.dumps(settings | {"init": init}))
    folder = ship.pack(run, "tiny-32", DATA, None, tmp_path / "weights")
    card = (folder / "README.md").read_text()
    assert " --init small " in card
    assert "after those of small" in card
    assert json.loads((folder / "settings.json").read_text())["init"]["path"] == "small"


def test_a_pack_is_a_run_directory_without_paths(run: Path, phantoms: ImageSet, tmp_path: Path) -> None:
    root = tmp_path / "weights"
    folder = ship.pack(run, "tiny-32", DATA, None, root)
    assert folder == root / "tiny-32"
    assert [path.name for path in root.iterdir()] == ["tiny-32"]
    assert state_hash(open_generator(folder)) == state_hash(open_generator(run))
    assert [state_hash(n) for n in networks_of_run(folder, [])[:2] if n] == [
        state_hash(n) for n in networks_of_run(run, [])[:2] if n
    ]
    assert all(str(tmp_path).encode() not in content for content in tree(folder).values())
    card = (folder / "README.md").read_text()
    assert "Not evaluated" in card
    assert "--epochs 7 --init older" in card
    assert "--width 8" in card
    train = phantoms.indices("train")
    assert f"learnt from {len(train)} images of {len(set(phantoms.patients[train]))} patients" in card


def test_figures_are_those_of_the_results(run: Path, phantoms: ImageSet, tmp_path: Path) -> None:
    folder = ship.pack(run, "tiny", DATA, results(run, phantoms), tmp_path)
    card = (folder / "README.md").read_text()
    for words in (
        "0.912 [0.9, 0.92] | undefined | 0.1 |",
        "Not measured: fidelity: too few",
        "The frame tells",
        "9 real",
    ):
        assert words in card
    assert "Not evaluated" not in card
    assert "Memorisation\n" not in card  # not measured, so not said


@pytest.mark.parametrize("cheat", ["model", "data", "name", "path", "size", "teacher"])
def test_what_is_refused_leaves_what_stood_there(
    run: Path, phantoms: ImageSet, tmp_path: Path, cheat: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "weights"
    ship.pack(run, "tiny", DATA, None, root)
    before = tree(root)
    found, name, words = None, "tiny", ""
    if cheat in ("model", "data"):
        found, words = results(run, phantoms, **{cheat: "f" * 64}), f"another {cheat}" if cheat == "model" else "other"
    elif cheat == "name":
        name, words = "../tiny", "NAME"
    elif cheat == "path":
        (tmp_path / "teacher" / "README.md").write_text("see /home/somebody/notes")
        words = "teacher/README.md would hold a local path"
    elif cheat == "size":
        monkeypatch.setattr(ship, "LIMIT", 1000)
        words = "MB"
    else:
        (tmp_path / "teacher" / "expressivegan.json").write_text('{"data_hash": "0"}')
        words = "other data"
    with pytest.raises(InputError, match=words):
        ship.pack(run, name, DATA, found, root)
    assert tree(root) == before


def test_packing_again_replaces(run: Path, tmp_path: Path) -> None:
    folder = ship.pack(run, "tiny", DATA, None, tmp_path / "weights")
    (folder / "stray.txt").write_text("of an older version")
    ship.pack(run, "tiny", DATA, None, tmp_path / "weights")
    assert not (folder / "stray.txt").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_the_rights_of_a_packed_teacher_are_said_once(run: Path, tmp_path: Path) -> None:
    first = ship.pack(run, "tiny", DATA, None, tmp_path / "weights")
    settings = json.loads((run / "settings.json").read_text())
    (run / "settings.json").write_text(json.dumps(settings | {"teacher": str(first / "teacher")}))
    again = ship.pack(run, "again", DATA, None, tmp_path / "weights")
    assert (again / "teacher/README.md").read_text() == (first / "teacher/README.md").read_text()
