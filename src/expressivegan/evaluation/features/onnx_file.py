"""Features by an ONNX file, run by onnxruntime (an optional extra). A graph holds operators, not code."""

import hashlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expressivegan.errors import CheckpointError, InputError
from expressivegan.evaluation.features.frame import Frame
from expressivegan.evaluation.features.own import OwnFeatures
from expressivegan.evaluation.features.space import identity_of
from expressivegan.images import UInt8Array

_BATCH = 32


def open_onnx(path: Path) -> OwnFeatures:
    """Opens an ONNX graph of one input, float32 (N, 1, H, W) or (N, 3, H, W) in [-1, 1], and one output (N, d).

    A graph that fixes H and W gets images resized to them (they must be equal); with free H and W images stay as they
    are. N is best left free; a graph that fixes it is fed so many images at a time. Of several outputs the first
    counts.

    Args:
        path: the file; weights that it keeps in files beside it are found there.

    Raises:
        InputError: the optional package onnxruntime is missing, or the graph has another input or output.
        CheckpointError: no such file, or not an ONNX file.
    """
    source = path.expanduser()
    if not source.is_file():
        raise CheckpointError(f"onnx file (={str(source)!r}) does not exist; give the path of an .onnx file: onnx:PATH")
    try:
        runtime: Any = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise InputError(
            f"features (='onnx:{source}') need the package onnxruntime; install it: pip install expressivegan[onnx]"
        ) from error
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = runtime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's many errors
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"onnx file (={str(source)!r}) cannot be opened by onnxruntime ({type(error).__name__}: {reason}); "
            "export it again, for example with torch.onnx.export"
        ) from error
    fixed, frame = _input(session, source)
    name = f"onnx:{source.name}"
    given = session.get_inputs()[0].name
    wanted = [session.get_outputs()[0].name]

    def run(images: UInt8Array) -> Any:
        x = frame.prepare(images).contiguous().numpy()
        if fixed is None:
            return session.run(wanted, {given: x})[0]
        rows = np.concatenate([x, np.repeat(x[-1:], fixed - len(x), 0)])  # the last call is filled up
        return session.run(wanted, {given: rows})[0][: len(images)]

    digest = _digest(source)
    identity = None if digest is None else identity_of("onnx", file=digest, frame=frame)
    return OwnFeatures(name, run, identity, batch=fixed or _BATCH)


def _input(session: Any, source: Path) -> tuple[int | None, Frame]:
    """(fixed batch or None, frame) of the graph's one input."""
    inputs = session.get_inputs()
    described = "; ".join(f"{i.name} {i.type} {list(i.shape)}" for i in inputs)
    shape = list(inputs[0].shape) if inputs else []
    sides = [n if isinstance(n, int) and n > 0 else None for n in shape[2:]]
    channels = shape[1] if len(shape) == 4 and isinstance(shape[1], int) else 1
    fits = len(inputs) == 1 and inputs[0].type == "tensor(float)" and len(shape) == 4 and channels in (1, 3)
    if not fits or sides[0] != sides[1]:
        raise InputError(
            f"onnx file (={str(source)!r}) must have one input, float32 (N, 1, H, W) or (N, 3, H, W), H = W or free, "
            f"not {described or 'none'}; export it so"
        )
    fixed = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None
    return fixed, Frame(sides[0], channels=channels)


def _digest(source: Path) -> str | None:
    """Of the file and of the files of weights that it names; None where these cannot be told."""
    data = source.read_bytes()
    digest = hashlib.sha256(data)
    if b"location" not in data:  # the key under which a graph names a file of weights
        return digest.hexdigest()
    beside = [p for p in sorted(source.parent.iterdir()) if p.is_file() and p != source and p.name.encode() in data]
    for file in beside:
        digest.update(file.name.encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest() if beside else None
