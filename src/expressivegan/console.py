"""Progress bars with ETA on a terminal; a line now and then where there is none."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY = 20.0  # seconds, where there is no terminal

# Under torchrun one process talks for all
console = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")


def say(text: str, style: str | None = None) -> None:
    """A line on standard error with names and paths of the user's in it: never wrapped, never read as markup."""
    console.print(text, highlight=False, markup=False, soft_wrap=True, style=style)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yields a function to call with (done, total, a few words)."""
    if sys.stderr.isatty():
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[words]}"),
        )
        with Progress(*columns, console=console, refresh_per_second=4) as bar:
            task = bar.add_task(title, total=None, words="")
            yield lambda done, total, words: bar.update(task, completed=done, total=total, words=words)
        return
    start = time.monotonic()
    state = {"next": start + 5, "first": -1.0, "since": start}

    def line(done: int, total: int, words: str) -> None:
        now = time.monotonic()
        if state["first"] < 0:
            state["first"], state["since"] = float(done), now
        if now < state["next"] and done < total:
            return
        state["next"] = now + LINE_EVERY
        rate = (done - state["first"]) / max(now - state["since"], 1e-6)
        left = (total - done) / rate if rate > 0 else float("nan")
        eta = "" if done >= total or left != left else f", ETA {int(left // 60)}:{int(left % 60):02d}"
        print(f"{title}: {done}/{total}{eta} {words}".rstrip(), file=sys.stderr, flush=True)

    yield line


def figures_line(figures: Mapping[str, float]) -> str:
    """The figures worth a glance, in one line."""
    shown = {"d_adversarial": "D", "g_adversarial": "G", "g_cam": "cam", "g_flip": "flip"}
    return " ".join(f"{short} {figures[name]:.3f}" for name, short in shown.items() if name in figures)
