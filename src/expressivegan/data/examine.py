"""Every file of a layout opened once, in parallel: its facts, its pixels if wanted, or why it cannot be used."""

import os
import sys
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from expressivegan.data import decode, people
from expressivegan.data.layout import Found, Layout
from expressivegan.data.manifest import Record, Rejected
from expressivegan.data.onepass import OnePass, Status, current
from expressivegan.data.store import Store

T = TypeVar("T")
R = TypeVar("R")
UInt8Array = npt.NDArray[np.uint8]
_FILES, _BYTES = (
    64,
    1 << 22,
)  # of a chunk: so many that handing it to a thread costs nothing, so few that it is soon done
_NO_STATUS: Status = (-1, -1)


def workers() -> int:
    """Threads for decoding. Threads suffice: the decoders give the interpreter free while they work."""
    available = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(32, available)


class _Rate(TextColumn):
    """Images per second."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} images/s")


def parallel(
    function: Callable[[T], R], items: Sequence[T], what: str, progress: bool, count: Callable[[T], int] = lambda _: 1
) -> Iterator[R]:
    """Maps in threads, in order, with a bar and a bounded number of results in memory; `count` of images per item."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    console = Console(stderr=True)
    shown = Progress(*columns, console=console, disable=not (progress and console.is_terminal), transient=True)
    window = 2 * workers() + 2
    with shown as bar, ThreadPoolExecutor(workers()) as pool, decode.strict_decoding():
        task = bar.add_task(what, total=sum(map(count, items)))
        pending = deque((pool.submit(function, item), item) for item in items[:window])
        rest = iter(items[window:])
        try:
            while pending:
                future, item = pending.popleft()
                yield future.result()
                bar.advance(task, count(item))
                pending.extend((pool.submit(function, item), item) for item in islice(rest, 1))
        finally:
            for future, _ in pending:
                future.cancel()


def chunks(items: Sequence[T], image_bytes: int) -> list[Sequence[T]]:
    """Slices to hand to `parallel`, small enough for their pixels to be held several times."""
    size = max(1, min(_FILES, _BYTES // max(1, image_bytes)))
    return [items[i : i + size] for i in range(0, len(items), size)]


def examine(store: Store, plan: Layout, progress: bool) -> tuple[list[Record], list[Rejected]]:
    """Opens every file that the layout found; all records are in the group "train" until they are dealt.

    Within `onepass.read_once` a file that was examined before is not opened, and the pixels go to the cache.
    """
    found = sorted(plan.found, key=lambda f: f.path)
    work = current()
    statuses = _statuses(found, plan, work)
    outcomes: list[Record | Rejected | None] = [None] * len(found)
    rows = np.full(len(found), -1, np.int64)

    def settle(index: int, said: decode.Facts | str, row: int) -> None:
        item = found[index]
        outcomes[index] = Rejected(item.path, said) if isinstance(said, str) else _record(item, said)
        rows[index] = row

    if work is not None:
        _recollect(work, found, statuses, settle)
    targets = work.targets if work else ()

    def one(chunk: Sequence[int]) -> tuple[list[decode.Facts | str], list[UInt8Array]]:
        facts: list[decode.Facts | str] = []
        pixels = [np.empty((len(chunk), side, side), np.uint8) for side, _ in targets]
        usable = 0
        for index in chunk:
            try:
                said, fitted = decode.inspect_and_fit(store.read(found[index].path), targets)
            except decode.UnusableError as error:
                facts.append(str(error))
                continue
            facts.append(said)
            for all_rows, row in zip(pixels, fitted, strict=True):
                all_rows[usable] = row
            usable += 1
        return facts, [all_rows[:usable] for all_rows in pixels]

    todo = array("q", (index for index, outcome in enumerate(outcomes) if outcome is None))
    if work is not None:
        work.check_space(len(todo))
    what = "Examining images" if not targets else "Decoding to " + ", ".join(f"{side} px" for side, _ in targets)
    pieces = chunks(todo, sum(side * side for side, _ in targets))
    for chunk, (facts, pixels) in zip(pieces, parallel(one, pieces, what, progress, len), strict=True):
        given = [-1] * len(chunk)
        if work is not None:
            given = work.commit([(found[i].path, statuses[i]) for i in chunk], facts, pixels)
        for index, said, row in zip(chunk, facts, given, strict=True):
            settle(index, said, row)
    if work is not None:
        for item, row in zip(found, rows.tolist(), strict=True):
            if row >= 0:
                work.keep(item.path, row)
    return [o for o in outcomes if isinstance(o, Record)], [o for o in outcomes if isinstance(o, Rejected)]


def _statuses(found: Sequence[Found], plan: Layout, work: OnePass | None) -> Sequence[Status]:
    if work is None:
        return [_NO_STATUS] * len(found)
    prefix = f"{plan.base}/" if plan.base else ""
    files = work.listing.files
    return [files.get(prefix + item.path, _NO_STATUS) for item in found]


def _recollect(
    work: OnePass,
    found: Sequence[Found],
    statuses: Sequence[Status],
    settle: Callable[[int, decode.Facts | str, int], None],
) -> None:
    """Settles all files that were examined before and have not changed since."""
    at = 0  # entries come in the order of the files, except where a folder has changed
    for entry in work.entries():
        if at >= len(found) or found[at].path != entry.path:
            at = bisect_left(found, entry.path, key=lambda f: f.path)
        if at < len(found) and found[at].path == entry.path:
            if statuses[at] == entry.status != _NO_STATUS:
                settle(at, entry.facts, entry.row)
            at += 1


def _record(item: Found, facts: decode.Facts) -> Record:
    # Whether the headers' patients count shows only when all files are read; see `people.settled`.
    of = (item.path, item.label, people.both(item.patient, facts.patient), item.split)
    return Record(
        *of,
        "train",
        facts.width,
        facts.height,
        facts.mode,
        facts.sha256,
        bytes=facts.bytes,
        quality=facts.quality,
        official=item.official,
        sex=item.sex or facts.sex,
        age=facts.age if item.age is None else item.age,
    )
