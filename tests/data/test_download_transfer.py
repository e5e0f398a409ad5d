"""Against a real HTTP server that breaks off, answers wrongly or not at all."""

import pytest
import requests
from misbehaving_server import (
    BODY,
    Fault,
    Get,
    Handler,
    code,
    cut,
    endless,
    home_of,
    length,
    silent,
    whole_whatever_is_asked,
)

from expressivegan.data.download.fetch import Fetch
from expressivegan.errors import OfflineError


def test_cut_connections_are_continued(get: Get) -> None:
    get.script.faults = [cut(1_100_000), cut(700_000), cut(0), cut(100_000)]
    assert get().read_bytes() == BODY
    assert get.script.ranges[0] is None
    starts = [int(r.removeprefix("bytes=").removesuffix("-")) for r in get.script.ranges[1:] if r]
    assert len(starts) == 4
    assert starts == sorted(starts)
    assert starts[0] > 1_000_000  # nearly all of the first connection was kept
    assert starts[1] > 1_650_000


def test_it_gives_up_after_so_many_failures_without_progress(get: Get) -> None:
    get.script.faults = [cut(2_000_000), *[cut(0)] * 20]
    with pytest.raises(OfflineError, match=r"5 times in a row.*MB are kept.*fetch it by hand and put it at .*set\.npz"):
        get()
    assert get.waits == sorted(get.waits)  # each pause is at least as long as the one before
    assert get.waits[-1] >= 8
    kept = get.part.read_bytes()
    assert kept
    assert BODY.startswith(kept)
    get.script.faults = []
    assert get().read_bytes() == BODY


def test_a_server_that_never_gets_beyond_a_byte_is_not_asked_for_ever(get: Get) -> None:
    def upto(byte: int) -> Fault:
        def fault(handler: Handler) -> bool:
            handler.answer(200, {"Content-Length": str(len(BODY))}, BODY[:byte])
            return True

        return fault

    get.script.faults = [upto(2_000_000), upto(1_000_000)] * 20
    with pytest.raises(OfflineError, match="in a row"):
        get()
    assert len(get.script.ranges) <= 10


def test_a_server_that_ignores_ranges_starts_again(get: Get, capsys: pytest.CaptureFixture[str]) -> None:
    get.script.faults = [cut(1_500_000), whole_whatever_is_asked]
    assert get().read_bytes() == BODY
    assert "starts from the first byte" in capsys.readouterr().err


def test_a_file_that_changed_meanwhile_is_not_mixed(get: Get) -> None:
    get.script.faults = [cut(1_500_000)]
    with pytest.raises(OfflineError):
        get(attempts=1)
    get.script.body, get.script.etag = bytes(reversed(BODY)), '"two"'
    assert get().read_bytes() == bytes(reversed(BODY))


def test_a_changed_date_is_enough_where_there_is_no_etag(get: Get) -> None:
    get.script.etag, get.script.modified = None, "Mon, 01 Jan 2018 00:00:00 GMT"
    get.script.faults = [cut(1_500_000)]
    with pytest.raises(OfflineError):
        get(attempts=1)
    get.script.body, get.script.modified = bytes(reversed(BODY)), "Tue, 02 Jan 2018 00:00:00 GMT"
    assert get().read_bytes() == bytes(reversed(BODY))
    assert len(get.script.ranges) == 2  # the server saw it, so nothing had to be thrown away after a wrong checksum


def test_a_changed_file_is_noticed_though_the_server_ignores_if_range(
    get: Get, capsys: pytest.CaptureFixture[str]
) -> None:
    def part_of_another(handler: Handler) -> bool:
        del handler.headers["If-Range"]
        handler.right()
        return True

    get.script.faults = [cut(1_500_000)]
    with pytest.raises(OfflineError):
        get(attempts=1)
    get.script.body, get.script.etag = bytes(reversed(BODY)), '"two"'
    get.script.faults = [part_of_another]
    assert get().read_bytes() == bytes(reversed(BODY))
    said = capsys.readouterr().err
    assert "another file than was asked for" in said
    assert "What came is not the file" not in said


@pytest.mark.parametrize("number", [403, 404, 410])
def test_a_refusal_fails_at_once(get: Get, number: int) -> None:
    get.script.faults = [code(number)] * 5
    with pytest.raises(OfflineError, match=rf"the server answers {number} .*https://page, or fetch it by hand"):
        get()
    assert get.names() == set()
    assert get.waits == []


def test_server_errors_and_please_wait_are_tried_again(get: Get) -> None:
    get.script.faults = [code(503), code(500), code(429, Retry_After="7"), code(503, Retry_After="86400")]
    assert get().read_bytes() == BODY
    assert get.waits == [1, 2, 7, 60]


def test_a_server_that_says_nothing_is_tried_again(get: Get, capsys: pytest.CaptureFixture[str]) -> None:
    get.script.faults = [silent(1.0)]
    assert get(timeout=0.3).read_bytes() == BODY
    assert "No answer for 0.3 s" in capsys.readouterr().err


def test_redirects_are_followed_and_continued(get: Get) -> None:
    get.script.faults = [cut(1_500_000)]
    home = home_of(get.url.replace("/file", "/moved"))
    assert get(home).read_bytes() == BODY
    assert [r is None for r in get.script.ranges] == [True, False]


def test_a_length_that_promises_too_much(get: Get) -> None:
    get.script.faults = [length(len(BODY) + 1000)]
    assert get().read_bytes() == BODY
    assert len(get.waits) <= 2


def test_a_length_that_promises_too_little(get: Get, capsys: pytest.CaptureFixture[str]) -> None:
    get.script.faults = [length(len(BODY) - 1000)]
    assert get().read_bytes() == BODY
    assert "2,999,000 bytes are announced, not the 3,000,000" in capsys.readouterr().err


def test_a_server_that_sends_without_end_is_stopped(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    real = Fetch.forget

    def forget(self: Fetch) -> None:
        nonlocal largest
        largest = max(largest, self.have())
        real(self)

    monkeypatch.setattr(Fetch, "forget", forget)
    get.script.faults = [endless]
    with pytest.raises(
        OfflineError, match=r"sends more than the file's 3,000,000 bytes\); look at https://page.*by hand"
    ):
        get()
    assert 0 < largest <= len(BODY)
    assert get.names() == set()
    assert get.waits == []


def test_a_redirect_may_not_drop_encryption(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    real = requests.get
    monkeypatch.setattr(requests, "get", lambda url, **k: real(url.replace("https:", "http:"), **k))
    home = home_of(get.url.replace("http:", "https:").replace("/file", "/moved"))
    with pytest.raises(OfflineError, match=r"leads on to http://.*, without encryption\); look at https://page"):
        get(home)
    assert get.names() == set()


def test_no_server(get: Get) -> None:
    home = home_of("http://127.0.0.1:9/file")
    with pytest.raises(OfflineError, match=r"http://127\.0\.0\.1:9/file.*refused.*by hand and put it at .*set\.npz"):
        get(home, attempts=2)
    assert get.waits == [1]
