"""What came is held against the published checksum, or against what a ZIP file and an earlier download say."""

import hashlib
import io
import zipfile

import pytest
from misbehaving_server import BODY, Get, cut, home_of, other_bytes

from expressivegan.errors import DataError


def test_a_wrong_checksum_is_tried_once_more_from_the_first_byte(get: Get, capsys: pytest.CaptureFixture[str]) -> None:
    get.script.faults = [other_bytes]
    assert get().read_bytes() == BODY
    assert "The part is deleted" in capsys.readouterr().err
    assert get.script.ranges == [None, None]


def test_a_checksum_that_stays_wrong_is_an_error_and_leaves_nothing(get: Get) -> None:
    get.script.faults = [other_bytes] * 5
    with pytest.raises(DataError, match=r"downloaded twice and has the MD5 .* not the published"):
        get()
    assert get.names() == set()
    assert len(get.script.ranges) == 2


def zipped(damaged: bool = False, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("chest_xray/test/NORMAL/a.jpeg", bytes(b & 63 for b in BODY[:50_000]))
    whole = bytearray(buffer.getvalue())
    if damaged:
        whole[25_000] ^= 255
    return bytes(whole)


def test_without_a_published_checksum_what_came_is_recorded(get: Get) -> None:
    get.script.body = zipped()
    home = home_of(get.url, get.script.body, "set.zip", md5=False)
    path = get(home)
    record = (get.out / "set.zip.sha256").read_text("utf-8")
    assert record == f"{hashlib.sha256(get.script.body).hexdigest()}  set.zip\n"  # as sha256sum -c reads it
    get(home)
    assert len(get.script.ranges) == 1
    path.write_bytes(zipped(damaged=True))
    with pytest.raises(DataError, match=r"has the SHA-256 .* as before \(recorded in .*set\.zip\.sha256"):
        get(home)
    path.unlink()
    get.script.faults = [cut(100)]
    assert get(home).read_bytes() == get.script.body


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (zipped(damaged=True), "damaged member"),
        (zipped(True, zipfile.ZIP_DEFLATED), "ZIP file"),
        (b"<html>", "no sound"),
    ],
)
def test_a_zip_that_came_damaged_is_refused(get: Get, body: bytes, why: str) -> None:
    get.script.body = body
    with pytest.raises(DataError, match=f"downloaded twice and .*{why}"):
        get(home_of(get.url, body, "set.zip", md5=False))
    assert get.names() == set()
