"""A download from a real HTTP server: what it leaves, what it says, and what it does not touch."""

import io
import re
import sys
from dataclasses import replace

import pytest
from misbehaving_server import BODY, Get, home_of

from expressivegan.data.download import HOMES, download, talk
from expressivegan.errors import DataError, InputError


def test_a_plain_download(get: Get, capsys: pytest.CaptureFixture[str]) -> None:
    path = get()
    assert path == get.out / "set.npz"
    assert path.read_bytes() == BODY
    assert get.names() == {"set.npz", "LICENSE.txt"}
    assert get.script.encodings == {"identity"}  # a range of compressed bytes could not be continued
    licence = (get.out / "LICENSE.txt").read_text("utf-8")
    said = capsys.readouterr().err
    for text in ("CC BY 4.0", "Somebody (2018)", "3.0 MB", "https://page"):
        assert text in licence
        assert text in said
    assert "complete and verified" in said


def test_what_is_there_and_right_is_not_downloaded_again(get: Get, capsys: pytest.CaptureFixture[str]) -> None:
    get()
    before = (get.out / "LICENSE.txt").read_text("utf-8")
    get()
    assert len(get.script.ranges) == 1
    assert "nothing to download" in capsys.readouterr().err
    assert (get.out / "LICENSE.txt").read_text("utf-8") == before


def test_what_is_there_and_wrong_is_neither_taken_nor_overwritten(get: Get) -> None:
    get.out.mkdir(parents=True)
    (get.out / "set.npz").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"set\.npz is there already, but has the MD5 .* move it away"):
        get()
    assert (get.out / "set.npz").read_bytes() == b"mine"
    assert get.script.ranges == []


def test_two_sets_and_a_foreign_licence_share_a_folder(get: Get) -> None:
    get()
    get(home_of(get.url, file="other.npz"))
    both = (get.out / "LICENSE.txt").read_text("utf-8")
    assert both.count("Licence: CC BY 4.0") == 2
    (get.out / "LICENSE.txt").write_text("MIT License", "utf-8")
    (get.out / "other.npz").unlink()
    get(home_of(get.url, file="other.npz"))
    assert (get.out / "LICENSE.txt").read_text("utf-8") == "MIT License"
    assert "CC BY 4.0" in (get.out / "other.npz.LICENSE.txt").read_text("utf-8")


def test_an_unknown_name(get: Get) -> None:
    with pytest.raises(InputError, match=r"name \(='nih'\) must be one of kermany, pneumoniamnist"):
        download("nih", get.out)


def test_a_terminal_sees_a_bar_with_speed_and_time(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    screen = io.StringIO()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(talk, "console", Console(file=screen, force_terminal=True, width=120))
    get()
    assert "3.0/3.0 MB" in screen.getvalue()
    assert re.search(r"[kMG]B/s", screen.getvalue())


def test_the_homes_agree_with_medmnist() -> None:
    info = pytest.importorskip("medmnist.info", reason="medmnist is not installed").INFO["pneumoniamnist"]
    for name, suffix in [("", ""), ("-64", "_64"), ("-128", "_128"), ("-224", "_224")]:
        home = HOMES[f"pneumoniamnist{name}"]
        assert home.url == info[f"url{suffix}"]
        assert home.md5 == info[f"MD5{suffix}"]
        assert home.licence.startswith(info["license"])
    assert len({home.file for home in HOMES.values()}) == len(HOMES)
    assert replace(HOMES["kermany"], md5=None) == HOMES["kermany"]  # nobody publishes one; do not invent it
