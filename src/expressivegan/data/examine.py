"""Every file of a layout opened once, in parallel: its facts, or why it cannot be used."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from expressivegan.data import decode
from expressivegan.data.layout import Found, Layout
from expressivegan.data.manifest import Record, Rejected
from expressivegan.data.store import Store

T = TypeVar("T")
R = TypeVar("R")
_WINDOW = 256  # images in flight: bounds the memory, and lets an interruption through


def workers() -> int:
    """Threads for decoding. Threads suffice: Pillow gives the interpreter free while it decodes and resizes."""
    available = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(32, available)


def parallel(function: Callable[[T], R], items: Sequence[T], what: str, progress: bool) -> Iterator[R]:
    """Maps in threads, in order, with a bar and a bounded number of results in memory."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    shown = Progress(*columns, console=console, disable=not (progress and console.is_terminal), transient=True)
    with shown as bar, ThreadPoolExecutor(workers()) as pool, decode.strict_decoding():
        task = bar.add_task(what, total=len(items))
        pending = deque(pool.submit(function, item) for item in items[:_WINDOW])
        rest = iter(items[_WINDOW:])
        try:
            while pending:
                yield pending.popleft().result()
                bar.advance(task)
                pending.extend(pool.submit(function, item) for item in islice(rest, 1))
        finally:
            for future in pending:
                future.cancel()


def examine(store: Store, plan: Layout, progress: bool) -> tuple[list[Record], list[Rejected]]:
    """Opens every file that the layout found; all records are in the group "train" until they are dealt."""
    found = sorted(plan.found, key=lambda f: f.path)

    def one(item: Found) -> decode.Facts | str:
        try:
            return decode.inspect(store.read(item.path))
        except decode.UnusableError as error:
            return str(error)

    records, rejected = [], []
    for item, facts in zip(found, parallel(one, found, "Examining images", progress), strict=True):
        if isinstance(facts, str):
            rejected.append(Rejected(item.path, facts))
            continue
        of = (item.path, item.label, item.patient, item.split)
        records.append(
            Record(
                *of,
                "train",
                facts.width,
                facts.height,
                facts.mode,
                facts.sha256,
                bytes=facts.bytes,
                quality=facts.quality,
                official=item.official,
            )
        )
    return records, rejected
