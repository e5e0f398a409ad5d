"""Versioned, atomic, weights-only state: checkpoints of runs, and model directories.

A checkpoint is one safetensors file: tensors under dotted names, everything else as JSON in the header, and a digest of
both. Nothing in it can run code. It is written under a temporary name, flushed and renamed, so that a file under its
final name is whole; the newest valid one is found by reading it.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from expressivegan.atomic import replacing, replacing_directory
from expressivegan.errors import CheckpointError, InputError

FORMAT = "expressivegan-checkpoint"
VERSION = 1

M = TypeVar("M", bound=nn.Module)

_OF_A_MODEL = {"config.json", "model.safetensors", "README.md", "expressivegan.json", "report.json", "confusion.png",
               "cams.png", "explain.ckpt"}  # fmt: skip
"""What stands in a model directory of ours, and goes with the model that it is of."""


def make_directory(path: Path, argument: str = "--out") -> Path:
    """Makes a folder that can be written to.

    Raises:
        InputError: it cannot be made, is a file, or cannot be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"{argument} (={path}) cannot be written to ({error.strerror}); choose another folder"
        ) from error
    return path


@contextmanager
def new_directory(path: Path, argument: str = "--out") -> Iterator[Path]:
    """Makes a folder that can be written to, and takes it away again if a failure leaves it empty.

    Raises:
        InputError: as `make_directory`.
    """
    missing = [p for p in (path, *path.parents) if not p.exists()]
    try:
        yield make_directory(path, argument)
    except BaseException:
        with contextlib.suppress(OSError):  # the first that is not empty ends it
            for made in missing:
                made.rmdir()
        raise


def check_model_directory(folder: Path, argument: str = "--out") -> None:
    """Raises unless a model may be written there: the place is free, or holds a model and nothing that is not files.

    Raises:
        InputError: something else stands there.
    """
    if folder.is_dir():
        found = [p for p in folder.iterdir() if not p.name.startswith(".")]  # notebooks and file managers leave these
        model = all((folder / name).is_file() for name in ("config.json", "model.safetensors"))
        if not found or (model and all(p.is_file() for p in found)):
            return
    elif not folder.exists():
        return
    raise InputError(f"{argument} (={folder}) holds something else than a model; choose another folder")


def _flatten(state: Any, prefix: str, tensors: dict[str, Tensor]) -> Any:
    """Moves tensors out of a nested state and leaves their names behind."""
    if isinstance(state, Tensor):
        while prefix in tensors:  # a key with a dot may read like two keys
            prefix += "'"
        # a copy: safetensors refuses shared memory, and the caller may go on training
        tensors[prefix] = state.detach().cpu().clone().contiguous()
        return {"$tensor": prefix}
    if isinstance(state, Mapping):
        # JSON has string keys only; the parameter numbers of an optimiser are integers
        return {"$dict": [[k, _flatten(v, f"{prefix}.{k}", tensors)] for k, v in state.items()]}
    if isinstance(state, (list, tuple)):
        return [_flatten(v, f"{prefix}.{i}", tensors) for i, v in enumerate(state)]
    if state is None or isinstance(state, (bool, int, float, str)):
        return state
    raise TypeError(f"{prefix} (a {type(state).__name__}) cannot be stored in a checkpoint")


def _unflatten(state: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(state, dict):
        if "$tensor" in state:
            return tensors[state["$tensor"]]
        return {k: _unflatten(v, tensors) for k, v in state["$dict"]}
    return [_unflatten(v, tensors) for v in state] if isinstance(state, list) else state


def _digest(header: str, tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        found.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        found.update(tensor.view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return found.hexdigest()


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes nested dicts and lists of tensors, numbers, strings, booleans and None, atomically.

    Raises:
        CheckpointError: the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    header = json.dumps(_flatten(state, "state", tensors))
    metadata = {"format": FORMAT, "version": str(VERSION), "state": header, "digest": _digest(header, tensors)}
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as its own error
        raise CheckpointError(
            f"checkpoint {path} cannot be written ({error}); free some space and try again"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote, and checks its digest.

    Raises:
        CheckpointError: missing, damaged, or of another format or version.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {path} does not exist") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged ({error})") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no checkpoint of this package")
    if metadata.get("version") != str(VERSION):
        raise CheckpointError(f"checkpoint {path} has version {metadata.get('version')}, this package reads {VERSION}")
    header = metadata.get("state", "")
    if _digest(header, tensors) != metadata.get("digest"):
        raise CheckpointError(f"checkpoint {path} is damaged (its digest does not match)")
    state: dict[str, Any] = _unflatten(json.loads(header), tensors)
    return state


def list_checkpoints(folder: Path) -> list[Path]:
    """The periodic checkpoints of a folder, oldest first: files named by a count of images. Others are left alone."""
    return sorted((path for path in folder.glob("*.ckpt") if path.stem.isdecimal()), key=lambda path: int(path.stem))


def newest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint of a folder that can be read, by its name's count of images, or None where there is none.

    Raises:
        CheckpointError: there are checkpoints, and none can be read.
    """
    problems = []
    for path in reversed(list_checkpoints(folder)):
        try:
            return path, load_checkpoint(path)
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError(f"no checkpoint in {folder} can be read: {'; '.join(problems)}")
    return None


def save_model(model: nn.Module, folder: Path, card: str, extra: Mapping[str, Any] | None = None) -> None:
    """Writes a model directory: config.json, model.safetensors and README.md (the card). It replaces the one that stood
    there; files that are not a model's own stay.

    Args:
        model: one of our networks; a `PyTorchModelHubMixin`.
        folder: the directory.
        card: text of README.md.
        extra: what else is worth keeping, written as `expressivegan.json`.

    Raises:
        InputError: something else than a model stands there.
    """
    assert isinstance(model, PyTorchModelHubMixin)
    check_model_directory(folder)
    try:
        with replacing_directory(folder) as temporary:
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.name not in _OF_A_MODEL:
                    (shutil.copytree if path.is_dir() else shutil.copy2)(path, temporary / path.name)
            model.save_pretrained(temporary)
            (temporary / "README.md").write_text(card, encoding="utf-8")
            if extra is not None:
                (temporary / "expressivegan.json").write_text(json.dumps(extra, indent=2) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"model {folder} cannot be written ({error})") from error


def open_model(kind: type[M], folder: Path, **older: Any) -> M:
    """Opens a model directory, strictly.

    Args:
        kind: the class that it must hold.
        folder: directory with config.json and model.safetensors.
        older: arguments of the class that older directories do not name, and what they were then.

    Raises:
        CheckpointError: it is missing, damaged, or holds something else.
    """
    assert issubclass(kind, PyTorchModelHubMixin)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} is no model directory: it has no {name}")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model = kind(**(older | config))
        with safe_open(str(folder / "model.safetensors"), framework="pt") as file:
            model.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    except (ValueError, TypeError, SafetensorError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0][:160]
        raise CheckpointError(f"{folder} does not hold a {kind.__name__}, or is damaged ({reason})") from error
    return model


def state_hash(model: nn.Module) -> str:
    """SHA-256 of a network's parameters and buffers: what provenance calls the model's hash."""
    return _digest("", {k: v.detach().cpu() for k, v in model.state_dict().items()})


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object, or an empty one where there is none that can be read."""
    with contextlib.suppress(OSError, json.JSONDecodeError, UnicodeDecodeError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}
