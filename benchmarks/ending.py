"""How a benchmark ends: a mistake is one sentence and exit code 2, Ctrl-C is 130; never a traceback."""

import sys
from collections.abc import Callable
from pathlib import Path

from expressivegan.errors import ExpressiveGANError


def leave(main: Callable[[], int | None]) -> None:
    """Leaves the process with the exit code of `main`."""
    name = Path(sys.argv[0]).stem
    try:
        sys.exit(main())
    except ExpressiveGANError as error:
        print(f"{name}: {error}", file=sys.stderr)
    except OSError as error:
        print(f"{name}: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command goes on where it can", file=sys.stderr)
        sys.exit(130)
    sys.exit(2)
