"""Device, precision and processes, by Lightning Fabric."""

import ctypes
import logging
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from expressivegan.errors import InputError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "32-true", "bf16-mixed", "64-true"]

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # of malloc.h


def fast_bf16(device: str) -> bool:
    """Whether bfloat16 arithmetic is done in hardware, where it is several times faster than float32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "cpu":
        asked = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # private names: an older torch lacks them
        return any(getattr(torch.cpu, name, lambda: False)() for name in asked)
    return False


def bf16_where_fast(device: str) -> torch.autocast:
    """A context of bfloat16 arithmetic where the hardware has it; elsewhere, where it would crawl, of none."""
    return torch.autocast(device, torch.bfloat16, enabled=fast_bf16(device))


def resolve_device(device: Device) -> str:
    """`auto` becomes cuda, mps or cpu, whichever is there.

    Raises:
        InputError: a device that this machine lacks.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if device not in there:
        raise InputError(f"device (={device!r}) must be one of auto, {', '.join(there)}")
    if not there[device]:
        raise InputError(
            f"device (={device!r}) is not on this machine; there is {', '.join(k for k in there if there[k])}"
        )
    return device


def resolve_precision(precision: Precision, device: str) -> Precision:
    """`auto` becomes bf16-mixed where the hardware has it, else 32-true."""
    return ("bf16-mixed" if fast_bf16(device) else "32-true") if precision == "auto" else precision


def keep_freed_memory() -> None:
    """Has glibc keep freed memory, up to half a GiB, for the next tensors; does nothing with another C library.

    By default it gives the top of its heap back to the system after every batch, and gets it again for the next, page
    by page: a sixth to a third of the time of a generator on CPUs (docs/benchmarks.md). The whole process is changed,
    so programs decide, not libraries: `expressivegan` calls this first.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # its largest; setting the other one alone would freeze it at 128 KiB
        mallopt(_M_TRIM_THRESHOLD, 512 * 2**20)
        mallopt(_M_TOP_PAD, 64 * 2**20)


def peak_gib() -> float | None:
    """The largest resident memory of this process so far, or None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def make_fabric(device: Device = "auto", precision: Precision = "auto") -> "Fabric":
    """A launched Fabric. Under `torchrun` it joins the group of processes; alone it is one process on one device.

    Raises:
        InputError: a device that this machine lacks.
    """
    name = resolve_device(device)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    nodes = max(1, processes // int(os.environ.get("LOCAL_WORLD_SIZE", str(processes))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports warn about packages that this one does not use
        from lightning_fabric import Fabric

        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces every precision
        fabric = Fabric(
            accelerator=name,
            devices=processes // nodes,
            num_nodes=nodes,
            strategy="ddp" if processes > 1 else "auto",
            precision=cast(Any, resolve_precision(precision, name)),
        )
        fabric.launch()
    return fabric
