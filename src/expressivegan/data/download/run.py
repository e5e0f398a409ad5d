"""The whole of a download: fetch, check, keep."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from expressivegan.console import say
from expressivegan.data.download.check import fault, introduction, keep_licence, writing
from expressivegan.data.download.fetch import Fetch
from expressivegan.data.download.homes import HOMES, Home
from expressivegan.data.download.talk import silent
from expressivegan.errors import DataError, ExpressiveGANError, InputError


def download(
    name: str,
    out: Path | str,
    *,
    progress: bool = True,
    homes: Mapping[str, Home] = HOMES,
    attempts: int = 5,
    timeout: float = 30.0,
    wait: Callable[[float], None] = time.sleep,
) -> Path:
    """Downloads a data set from its official home; goes on where an earlier download stopped.

    Licence, citation and size are shown first, and stored as LICENSE.txt. Until it is complete and verified the file is
    called FILE.part. Verified means: the published MD5; where none is published, the ZIP's own checksums the first
    time, and from then on the SHA-256 that was recorded in FILE.sha256. A ZIP is not unpacked: it is read as it is.

    Args:
        name: a key of `homes`.
        out: folder to write to; made if it is missing.
        progress: say what happens on standard error, with a bar if that is a terminal.
        homes: where the data sets live.
        attempts: connections in a row that may bring nothing new before it gives up.
        timeout: seconds without a byte after which a connection counts as broken.
        wait: called with the seconds to wait before the next attempt.

    Returns:
        The file.

    Raises:
        InputError: no such data set, or `out` is not a folder.
        DataError: too little space, a folder that cannot be written, or a file that does not verify.
        OfflineError: the home cannot be reached, or no longer has the file.
    """
    if name not in homes:
        raise InputError(f"name (={name!r}) must be one of {', '.join(homes)}")
    home, out = homes[name], Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"out (={str(out)!r}) is a file; give a folder")
    tell = say if progress else silent
    path = out / home.file
    if path.exists():
        wrong = fault(path, path, home)
        if wrong:
            raise DataError(f"{path} is there already, but {wrong}; move it away and download again")
        keep_licence(home, out)
        tell(f"{path} is there already, and complete: nothing to download")
        return path
    for line in introduction(home):
        tell(line)
    fetch = Fetch(home, out, progress, attempts, timeout, wait, tell)
    for second in (False, True):
        try:
            fetch.prepare()
            fetch.run()
        except ExpressiveGANError:
            if not fetch.have():
                fetch.forget()
            raise
        tell("Checking what came")
        wrong = fault(fetch.part, path, home)
        if not wrong:
            break
        fetch.forget()
        if second:
            raise DataError(
                f"{home.url} was downloaded twice and {wrong}; the part is deleted: look at {home.page} whether the "
                "file was replaced, or try again through another network"
            )
        tell(f"What came is not the file: it {wrong}. The part is deleted; starting again from the first byte")
    with writing(out):
        keep_licence(home, out)
        fetch.part.replace(path)
        fetch.state.unlink(missing_ok=True)
    tell(f"{path} is complete and verified")
    return path
