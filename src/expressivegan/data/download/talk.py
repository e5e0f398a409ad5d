"""What a download says while it runs: lines, and a bar with speed and remaining time."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from expressivegan.console import LINE_EVERY, console, say

MB = 1_000_000


def silent(line: str) -> None:
    """Says nothing."""


@contextmanager
def transfer_bar(title: str, start: int, total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the bytes that are there: a bar on a terminal, else a line now and then."""
    if not shown:
        yield lambda done: None
        return
    if sys.stderr.isatty():
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, refresh_per_second=4) as bar:
            task = bar.add_task(title, total=total, completed=start)
            yield lambda done: bar.update(task, completed=done)
        return
    began = spoke = time.monotonic()

    def line(done: int) -> None:
        nonlocal spoke
        now = time.monotonic()
        if now - spoke < LINE_EVERY:
            return
        spoke = now
        rate = max(done - start, 1) / max(now - began, 1e-6)
        left = int(max(total - done, 0) / rate)
        speed = f"{rate / MB:.1f} MB/s, ETA {left // 60}:{left % 60:02d}"
        say(f"{title}: {done / MB:,.1f} of {total / MB:,.1f} MB, {speed}")

    yield line
