"""The command line, called as a user would."""

import warnings
from collections.abc import Callable
from pathlib import Path

from expressivegan import cli

Refused = Callable[..., str]


def call(*argv: object) -> int:
    """The exit code of a command line."""
    with warnings.catch_warnings():
        try:
            return cli.main([str(a) for a in argv])
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else 1


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}
