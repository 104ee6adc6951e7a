"""Downloads over HTTP: received bytes are kept, only missing bytes are requested, versions are never mixed."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from full_disk import full_disk
from listeners import serving
from scripted import ScriptedSite, answer, chunked, reset

from pipeline.errors import SourceError, StoreError, redact
from pipeline.sample import SampleSite
from pipeline.source import retries
from pipeline.source.parts import Part, Version
from pipeline.source.retries import RetryPolicy
from pipeline.source.transfer import Answer, Download, Progress, head_url

GREEN = "/trip-data/green_tripdata_2024-01.parquet"
POLICY = RetryPolicy(timeout_s=10, retries=3, first_wait_s=0)
ONCE = RetryPolicy(timeout_s=10, retries=0, first_wait_s=0)
BODY = random.Random(1).randbytes(300_000)
TAG, DATE = 'ETag: "one"', "Last-Modified: Wed, 01 May 2024 10:00:00 GMT"
LATER = "Last-Modified: Thu, 02 May 2024 10:00:00 GMT"


def served(site: SampleSite, edition: int = 0) -> bytes:
    item = site.shelf.find(GREEN, edition)
    assert item is not None
    return item.path.read_bytes()


def fetch(
    url: str,
    path: Path,
    policy: RetryPolicy = POLICY,
    *,
    check: Callable[[Answer], None] = lambda answer: None,
    progress: Progress | None = None,
    decode: bool = True,
) -> Answer:
    got = Download(url, path, policy, "green 2024-01", check=check, decode=decode, progress=progress).run()
    assert got is not None
    assert got.bytes == path.stat().st_size
    assert got.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    return got


def give_up(url: str, path: Path, policy: RetryPolicy = ONCE, **options: Callable[[Answer], None]) -> str:
    """The message of the SourceError that the download raises."""
    with pytest.raises(SourceError) as caught:
        Download(url, path, policy, "green 2024-01", check=options.get("check", lambda answer: None)).run()
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"green 2024-01: {redact(url)}: ")
    return message


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def ranges(site: SampleSite) -> list[str | None]:
    return [seen.headers.get("Range") for seen in site.requests]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the part; its folder is empty."""
    return tmp_path / "part"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits in seconds, without waiting."""
    found: list[float] = []
    monkeypatch.setattr(retries, "sleep", found.append)
    return found


# --- whole files and resumed parts


def test_a_download_has_the_served_bytes_and_their_headers(site: SampleSite, path: Path) -> None:
    reports: list[tuple[int, int | None, float]] = []
    got = fetch(site.url + GREEN, path, progress=lambda *report: reports.append(report))
    item = site.shelf.find(GREEN)
    assert item is not None
    assert path.read_bytes() == served(site)
    assert (got.etag, got.whole) == (item.etag, True)
    assert got.last_modified is not None
    assert got.last_modified.endswith(" GMT")
    assert reports[-1][:2] == (item.size, item.size)
    assert all(rate > 0 for _, _, rate in reports)
    assert site.requests[0].headers["Accept-Encoding"] == "identity"
    assert site.requests[0].headers["User-Agent"].startswith("taxi-pipeline/")


def test_after_a_cut_exactly_the_missing_bytes_are_requested(site: SampleSite, path: Path) -> None:
    whole = served(site)
    site.faults.add("*", "cut", 5000)
    fetch(site.url + GREEN, path)
    assert path.read_bytes() == whole
    assert ranges(site) == [None, "bytes=5000-"]
    assert site.requests[1].headers["If-Range"] == site.shelf.find(GREEN).etag  # type: ignore[union-attr]
    assert [(seen.status, seen.sent) for seen in site.requests] == [(200, 5000), (206, len(whole) - 5000)]


def test_received_bytes_are_kept_after_the_last_retry(site: SampleSite, path: Path) -> None:
    whole = served(site)
    site.faults.add("*", "cut", 5000)
    message = give_up(site.url + GREEN, path)
    assert "IncompleteRead" in message
    assert message.endswith("gave up after 1 attempt, come back later")
    assert names(path.parent) == ["part", "part.json"]
    assert path.read_bytes() == whole[:5000]
    fetch(site.url + GREEN, path)
    assert path.read_bytes() == whole
    assert ranges(site) == [None, "bytes=5000-"]
    assert site.requests[1].sent == len(whole) - 5000


_CHILD = """
import sys
from pathlib import Path
from pipeline.source.retries import RetryPolicy
from pipeline.source.transfer import Download
Download(sys.argv[1], Path(sys.argv[2]), RetryPolicy(30, 0, 0), "green", check=lambda answer: None).run()
"""


def test_after_a_kill_the_next_process_requests_exactly_the_missing_bytes(site: SampleSite, path: Path) -> None:
    whole = served(site)
    site.faults.add("*", "slow", 20_000)
    with subprocess.Popen([sys.executable, "-c", _CHILD, site.url + GREEN, str(path)]) as child:
        end = time.monotonic() + 30
        while Part(path).size < 2000 and time.monotonic() < end:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    size = Part(path).size
    assert 2000 <= size < len(whole)
    fetch(site.url + GREEN, path)
    assert path.read_bytes() == whole
    assert ranges(site)[1:] == [f"bytes={size}-"]
    assert site.requests[1].sent == len(whole) - size


def test_a_whole_part_of_a_killed_process_is_not_sent_again(site: SampleSite, path: Path) -> None:
    first = fetch(site.url + GREEN, path)
    assert names(path.parent) == ["part", "part.json"]
    assert fetch(site.url + GREEN, path) == first
    assert [(seen.status, seen.sent > 1000) for seen in site.requests] == [(200, True), (416, False)]


def test_a_republished_file_is_never_mixed_with_bytes_of_the_old_one(site: SampleSite, path: Path) -> None:
    served(site)
    site.faults.add("*", "republished", skip=1)
    site.faults.add("*", "cut", 5000)
    got = fetch(site.url + GREEN, path)
    assert path.read_bytes() == served(site, edition=1) != served(site)
    assert got.etag == site.shelf.find(GREEN, 1).etag  # type: ignore[union-attr]
    assert ranges(site) == [None, "bytes=5000-"]
    assert [seen.status for seen in site.requests] == [200, 200]


def test_a_whole_part_is_fetched_again_when_the_file_was_republished(site: SampleSite, path: Path) -> None:
    fetch(site.url + GREEN, path)
    site.faults.add("*", "republished")
    fetch(site.url + GREEN, path)
    assert path.read_bytes() == served(site, edition=1)


def test_without_validators_a_download_starts_over(site: SampleSite, path: Path) -> None:
    site.faults.add("*", "bare")
    site.faults.add("*", "cut", 5000)
    got = fetch(site.url + GREEN, path)
    assert path.read_bytes() == served(site)
    assert (got.etag, got.last_modified) == (None, None)
    assert ranges(site) == [None, None]


def test_a_site_that_ignores_ranges_sends_the_whole_file(site: SampleSite, path: Path) -> None:
    site.faults.add("*", "cut", 5000)
    site.faults.add("*", "ignore_range")
    fetch(site.url + GREEN, path)
    assert path.read_bytes() == served(site)
    assert [(seen.status, seen.headers.get("Range")) for seen in site.requests] == [(200, None), (200, "bytes=5000-")]


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        # A response to If-Range need not repeat the date, nor the length of the file.
        ([TAG, DATE], [TAG, "Content-Range: bytes 1000-299999/300000"], "continued"),
        ([DATE], ["Content-Range: bytes 1000-299999/300000"], "continued"),
        ([TAG], [TAG, "Content-Range: bytes 1000-299999/*"], "continued"),
        # Sites that support Range but not If-Range send a part of the current file.
        ([TAG], ['ETag: "two"', "Content-Range: bytes 1000-299999/300000"], "refused"),
        ([TAG], ["Content-Range: bytes 1000-299999/300000"], "refused"),
        (
            [DATE],
            ["Last-Modified: Thu, 02 May 2024 10:00:00 GMT", "Content-Range: bytes 1000-299999/300000"],
            "refused",
        ),
        ([TAG], [TAG, "Content-Range: bytes 1000-299999/300001"], "refused"),
        ([TAG], [TAG, "Content-Range: bytes 999-299999/300000"], "refused"),
        ([TAG], [TAG], "refused"),
        ([TAG], [TAG, "Content-Range: bytes 1000-299999/300000", "Content-Encoding: gzip"], "refused"),
    ],
)
def test_a_partial_response_is_used_only_when_it_matches_the_part(
    path: Path, first: list[str], second: list[str], status: str
) -> None:
    cut = answer(BODY[:1000], "200 OK", *first, length=len(BODY))
    rest = answer(BODY[1000:], "206 Partial Content", *second)
    with ScriptedSite(cut, rest, answer(BODY, "200 OK", TAG)) as site:
        fetch(site.url + "/a.parquet", path)
        assert path.read_bytes() == BODY
        assert site.header(1, "Range") == "bytes=1000-"
        assert site.header(1, "If-Range") == first[0].partition(": ")[2]
        assert len(site.requests) == {"continued": 2, "refused": 3}[status]
        assert status == "continued" or site.header(2, "Range") is None


def test_a_weak_tag_is_not_used_to_resume(path: Path) -> None:
    weak = 'ETag: W/"one"'
    cut = answer(BODY[:1000], "200 OK", weak, length=len(BODY))
    with ScriptedSite(cut, answer(BODY, "200 OK", weak)) as site:
        fetch(site.url + "/a", path)
        assert site.header(1, "Range") is None
    assert path.read_bytes() == BODY


def test_a_site_may_send_the_rest_in_pieces(path: Path) -> None:
    def piece(start: int, stop: int) -> bytes:
        place = f"Content-Range: bytes {start}-{stop - 1}/{len(BODY)}"
        return answer(BODY[start:stop], "206 Partial Content", TAG, place)

    cut = answer(BODY[:1000], "200 OK", TAG, length=len(BODY))
    places = [*range(1000, len(BODY), 50_000), len(BODY)]
    pieces = [piece(*ends) for ends in pairwise(places)]
    assert len(pieces) > POLICY.retries
    with ScriptedSite(cut, *pieces) as site:
        fetch(site.url + "/a", path)
    assert path.read_bytes() == BODY


@pytest.mark.parametrize("came", [1000, len(BODY)])
@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["Content-Range: bytes */x"],
        ["Content-Range: bytes */1000"],
        ["Content-Range: bytes */300001"],
        ['ETag: "two"', "Content-Range: bytes */300000"],
    ],
)
def test_a_416_without_the_length_of_the_part_starts_over(path: Path, came: int, headers: list[str]) -> None:
    first = answer(BODY[:came], "200 OK", TAG, length=len(BODY))
    nothing = answer(b"", "416 Range Not Satisfiable", *headers)
    with ScriptedSite(first, nothing, answer(BODY, "200 OK", TAG)) as site:
        with suppress(SourceError):
            fetch(site.url + "/a", path, ONCE)
        fetch(site.url + "/a", path)
        assert [site.header(number, "Range") for number in range(3)] == [None, f"bytes={came}-", None]
    assert path.read_bytes() == BODY


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"5",
        b"{}",
        b'{"url": 1, "etag": 2, "last_modified": 3, "bytes": 4}',
        b'{"url": "URL", "etag": 2, "last_modified": "x", "bytes": 4}',
        b'{"url": "URL", "etag": "x", "last_modified": "x", "bytes": "4"}',
        b'{"url": "http://other/file", "etag": "\\"one\\"", "last_modified": null, "bytes": 300000}',
    ],
)
def test_bytes_without_a_matching_note_are_discarded(path: Path, note: bytes) -> None:
    path.write_bytes(b"x" * 5000)
    with ScriptedSite(answer(BODY, "200 OK", TAG)) as site:
        Part(path).note.write_bytes(note.replace(b"URL", f"{site.url}/a".encode()))
        fetch(site.url + "/a", path)
        assert site.header(0, "Range") is None
    assert path.read_bytes() == BODY


def test_a_kill_between_two_versions_leaves_no_old_bytes_noted_as_new(tmp_path: Path) -> None:
    part = Part(tmp_path / "part")
    old, new = (Version("http://host/file", tag, None, 10) for tag in ('"old"', '"new"'))
    with part.opened(old, restart=True) as file:
        file.write(b"of the old")
    part.note.unlink()
    part.note.mkdir()  # The note cannot be written, as if the process had ended before.
    with pytest.raises(StoreError), part.opened(new, restart=True):
        raise AssertionError("no bytes are written without a note")
    assert part.size == 0


def test_the_note_has_no_secret_of_the_url(path: Path) -> None:
    with ScriptedSite(answer(BODY[:1000], "200 OK", TAG, length=len(BODY))) as site:
        url = site.url.replace("://", "://user:hush@") + "/a.parquet?sig=hush"
        message = give_up(url, path)
        assert "hush" not in message
        assert "hush" not in Part(path).note.read_text()
        assert "Authorization: Basic" in site.requests[0]
        assert site.requests[0].startswith("GET /a.parquet?sig=hush ")


def test_a_part_is_resumed_after_the_signature_in_the_url_changed(path: Path) -> None:
    rest = answer(BODY[1000:], "206 Partial Content", TAG, f"Content-Range: bytes 1000-299999/{len(BODY)}")
    with ScriptedSite(answer(BODY[:1000], "200 OK", TAG, length=len(BODY)), rest) as site:
        give_up(site.url + "/a?sig=1", path)
        fetch(site.url + "/a?sig=2", path)
    assert path.read_bytes() == BODY


# --- retries


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_temporary_status_is_retried(site: SampleSite, path: Path, status: int) -> None:
    site.faults.add("*", status, times=POLICY.retries)
    fetch(site.url + GREEN, path)
    assert [seen.status for seen in site.requests] == [status] * POLICY.retries + [200]


def test_a_temporary_status_is_an_error_after_all_retries(site: SampleSite, path: Path) -> None:
    site.faults.add("*", 503, times=math.inf)
    message = give_up(site.url + GREEN, path, POLICY)
    assert message.endswith("HTTP 503 Service Unavailable; gave up after 4 attempts, come back later")
    assert len(site.requests) == 4
    assert names(path.parent) == []


@pytest.mark.parametrize("status", [400, 401, 405, 410, 451])
def test_another_refused_status_is_an_error_without_retries(site: SampleSite, path: Path, status: int) -> None:
    site.faults.add("*", status)
    message = give_up(site.url + GREEN, path, POLICY)
    assert f"HTTP {status} " in message
    assert "; look at [pipeline] source" in message
    assert len(site.requests) == 1


def test_the_part_is_kept_after_a_refusal_or_an_error(site: SampleSite, path: Path) -> None:
    whole = served(site)
    site.faults.add("*", "cut", 5000)
    give_up(site.url + GREEN, path)
    for status in (403, 404):
        site.faults.add("*", status)
        assert Download(site.url + GREEN, path, ONCE, "green", check=lambda answer: None).run() is None
    for status in (401, 503):
        site.faults.add("*", status)
        give_up(site.url + GREEN, path)
    fetch(site.url + GREEN, path)
    assert path.read_bytes() == whole
    assert site.requests[-1].sent == len(whole) - 5000


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/xml"])
def test_the_part_is_kept_after_a_page_in_place_of_the_rest(path: Path, kind: str) -> None:
    cut = answer(BODY[:1000], "200 OK", TAG, length=len(BODY))
    page = answer(b"<p>Log in!</p>", "200 OK", f"Content-Type: {kind}")
    rest = answer(BODY[1000:], "206 Partial Content", TAG, f"Content-Range: bytes 1000-299999/{len(BODY)}")
    with ScriptedSite(cut, page, rest) as site:
        fetch(site.url + "/a", path)
        assert site.header(2, "Range") == "bytes=1000-"
    assert path.read_bytes() == BODY


def test_dropped_connections_are_retried(site: SampleSite, path: Path) -> None:
    site.faults.add("*", "drop", times=POLICY.retries)
    fetch(site.url + GREEN, path)
    site.faults.add("*", "drop", times=math.inf)
    path.unlink()
    assert "RemoteDisconnected: Remote end closed" in give_up(site.url + GREEN, path)


def test_a_timeout_is_retried(site: SampleSite, path: Path) -> None:
    served(site)
    site.faults.add("*", "delay", 60)
    fetch(site.url + GREEN, path, RetryPolicy(timeout_s=0.2, retries=1, first_wait_s=0))
    assert len(site.requests) == 2
    site.faults.add("*", "delay", 60)
    path.unlink()
    assert "TimeoutError: timed out" in give_up(site.url + GREEN, path, RetryPolicy(0.2, 0, 0))


def _then(began: bytes, wait: Callable[[], object], end: Callable[[socket.socket], None]) -> Callable[..., None]:
    def send(connection: socket.socket) -> None:
        connection.sendall(began)
        wait()
        end(connection)

    return send


@pytest.mark.parametrize("how", ["reset", "stall"])
def test_a_reset_or_a_stall_loses_no_received_bytes(path: Path, how: str) -> None:
    arrived = threading.Event()
    began = answer(BODY[:1000], "200 OK", TAG, length=len(BODY))
    rest = answer(BODY[1000:], "206 Partial Content", TAG, f"Content-Range: bytes 1000-299999/{len(BODY)}")
    scripts = {
        "reset": _then(began, lambda: arrived.wait(10), reset),
        "stall": _then(began, lambda: arrived.wait(10), lambda connection: connection.recv(1)),
    }
    with ScriptedSite(scripts[how], rest) as site:
        fetch(
            site.url + "/a",
            path,
            RetryPolicy(timeout_s=0.5, retries=1, first_wait_s=0),
            progress=lambda got, total, rate: arrived.set(),
        )
        assert site.header(1, "Range") == "bytes=1000-"
    assert path.read_bytes() == BODY


def test_a_reset_is_named_in_the_error(path: Path) -> None:
    with ScriptedSite(reset) as site:
        assert "ConnectionResetError: [Errno" in give_up(site.url + "/a", path)


def test_progress_resets_the_count_of_failures(site: SampleSite, path: Path) -> None:
    whole = served(site)
    site.faults.add("*", "cut", 1000, times=15)
    fetch(site.url + GREEN, path, RetryPolicy(timeout_s=10, retries=1, first_wait_s=0))
    assert path.read_bytes() == whole
    assert ranges(site) == [None, *(f"bytes={count * 1000}-" for count in range(1, 16))]


def test_retries_end_when_a_site_makes_no_progress(site: SampleSite, path: Path) -> None:
    site.faults.add("*", "bare")
    for length in (5000, 1000, 5000, 1000, 5000, 1000):
        site.faults.add("*", "cut", length)
    assert "gave up after 4 attempts" in give_up(site.url + GREEN, path, POLICY)
    assert len(site.requests) == 4


def test_retries_end_when_cuts_and_damage_alternate(site: SampleSite, path: Path) -> None:
    def refuse(answer: Answer) -> None:
        raise SourceError("is damaged")

    for length in range(1000, 6000, 1000):
        site.faults.add("*", "cut", length)
        site.faults.add("*", "delay", 0)
    assert "is damaged; gave up after 4 attempts" in give_up(site.url + GREEN, path, POLICY, check=refuse)
    assert ranges(site) == [None, "bytes=1000-", None, "bytes=2000-"]
    assert names(path.parent) == []


# --- waits


def test_waits_double_with_jitter_up_to_a_maximum(site: SampleSite, path: Path, waits: list[float]) -> None:
    site.faults.add("*", 500, times=math.inf)
    give_up(site.url + GREEN, path, RetryPolicy(timeout_s=10, retries=40, first_wait_s=1))
    assert len(waits) == 40
    for count, wait in enumerate(waits):
        assert min(600, 0.5 * 2**count) <= wait <= min(600, 1.5 * 2**count)
    assert len({wait / 2**count for count, wait in enumerate(waits[:6])}) == 6


def test_progress_resets_the_waits(site: SampleSite, path: Path, waits: list[float]) -> None:
    site.faults.add("*", 500, times=3)
    site.faults.add("*", "cut", 1000)
    site.faults.add("*", 500)
    fetch(site.url + GREEN, path, RetryPolicy(timeout_s=10, retries=5, first_wait_s=1))
    bounds = [(0.5, 1.5), (1, 3), (2, 6), (0.5, 1.5), (1, 3)]
    assert all(low <= wait <= high for wait, (low, high) in zip(waits, bounds, strict=True))


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_is_honoured(site: SampleSite, path: Path, waits: list[float], status: int) -> None:
    site.faults.add("*", status, 17)
    fetch(site.url + GREEN, path, RetryPolicy(timeout_s=10, retries=1, first_wait_s=0.01))
    assert waits == [17]


def test_retry_after_as_a_date_counts_by_the_clock_of_the_site(path: Path, waits: list[float]) -> None:
    dates = ("Date: Wed, 01 May 2024 10:00:00 GMT", "Retry-After: Wed, 01 May 2024 10:00:42 GMT")
    with ScriptedSite(_busy(*dates), answer(BODY)) as site:
        fetch(site.url + "/a", path)
    assert waits == [42]


def test_retry_after_does_not_shorten_the_wait(site: SampleSite, path: Path, waits: list[float]) -> None:
    site.faults.add("*", 429, 1)
    fetch(site.url + GREEN, path, RetryPolicy(timeout_s=10, retries=1, first_wait_s=100))
    assert 50 <= waits[0] <= 150


def _busy(*headers: str) -> bytes:
    return answer(b"", "429 Too Many Requests", *headers)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "-5",
        "1.5",
        "\xb2",
        "Wed, 01 May 2024",
        "Wed, 99 May 2024 10:00 GMT",
    ],
)
def test_an_invalid_retry_after_is_ignored(path: Path, waits: list[float], text: str) -> None:
    with ScriptedSite(_busy(f"Retry-After: {text}"), answer(BODY)) as site:
        fetch(site.url + "/a", path)
    assert waits == [0]


@pytest.mark.parametrize("text", ["601", "999999999999999"])
def test_a_long_retry_after_is_an_error(path: Path, waits: list[float], text: str) -> None:
    with ScriptedSite(_busy(f"Retry-After: {text}")) as site:
        message = give_up(site.url + "/a", path, POLICY)
        assert len(site.requests) == 1
    assert "HTTP 429 Too Many Requests; asks to wait " in message
    assert message.endswith(" s, come back later")
    assert waits == []


# --- invalid bytes


def test_bytes_that_fail_their_check_are_fetched_again_and_then_not_kept(site: SampleSite, path: Path) -> None:
    checked: list[bytes] = []

    def check(answer: Answer) -> None:
        checked.append(path.read_bytes())
        if len(checked) < 3:
            raise SourceError("not what it should be")

    fetch(site.url + GREEN, path, check=check)
    assert ranges(site) == [None, None, None]
    assert checked == [served(site)] * 3
    checked.clear()
    Part(path).discard()
    assert "not what it should be; gave up after 1 attempt" in give_up(site.url + GREEN, path, check=check)
    assert names(path.parent) == []


@pytest.mark.parametrize("lie", [1000, -1000])
def test_a_wrong_length_is_not_accepted(site: SampleSite, path: Path, lie: int) -> None:
    whole = served(site)

    def check(answer: Answer) -> None:
        if path.read_bytes() != whole:
            raise SourceError("not whole")

    site.faults.add("*", "length", lie)
    fetch(site.url + GREEN, path, check=check)
    Part(path).discard()
    site.faults.add("*", "length", lie, times=math.inf)
    message = give_up(site.url + GREEN, path, POLICY, check=check)
    assert "not whole" in message if lie < 0 else "IncompleteRead" in message or "HTTP 416" in message


def test_a_chunked_response_is_whole_only_with_its_last_chunk(path: Path) -> None:
    head = answer(b"", "200 OK", TAG, "Transfer-Encoding: chunked", length=-1)
    cut = head + chunked(BODY[:70_000])
    rest = answer(BODY[70_000:], "206 Partial Content", TAG, f"Content-Range: bytes 70000-299999/{len(BODY)}")
    with ScriptedSite(cut, rest) as site:
        assert fetch(site.url + "/a", path).whole
    assert path.read_bytes() == BODY
    with ScriptedSite(head + chunked(BODY[:70_000], BODY[70_000:], b"")) as site:
        Part(path).discard()
        assert fetch(site.url + "/a", path).whole
    assert path.read_bytes() == BODY


def test_a_response_of_unknown_length_is_marked(path: Path) -> None:
    with ScriptedSite(answer(BODY, length=-1)) as site:
        assert not fetch(site.url + "/a", path).whole
    assert path.read_bytes() == BODY


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_the_compression_of_a_proxy_is_undone(path: Path, framing: str) -> None:
    packed = gzip.compress(BODY)
    headers = [TAG, DATE, "Content-Encoding: gzip"]
    sent = answer(packed, "200 OK", *headers)
    if framing == "chunks":
        sent = answer(b"", "200 OK", *headers, "Transfer-Encoding: chunked", length=-1)
        sent += chunked(packed[:5000], packed[5000:], b"")
    with ScriptedSite(sent) as site:
        got = fetch(site.url + "/a.csv", path)
    assert path.read_bytes() == BODY
    assert (got.etag, got.last_modified) == (None, DATE.partition(": ")[2])


def test_a_cut_compressed_response_starts_over_or_continues_uncompressed(path: Path) -> None:
    packed = gzip.compress(BODY)
    cut = answer(packed[:100_000], "200 OK", DATE, "Content-Encoding: gzip", length=len(packed))
    with ScriptedSite(cut, answer(BODY, "200 OK", DATE)) as site:
        fetch(site.url + "/a.csv", path)
        assert path.read_bytes() == BODY
        came = int((site.header(1, "Range") or "").removeprefix("bytes=").removesuffix("-"))
    Part(path).discard()
    place = f"Content-Range: bytes {came}-{len(BODY) - 1}/{len(BODY)}"
    with ScriptedSite(cut, answer(BODY[came:], "206 Partial Content", DATE, place)) as site:
        fetch(site.url + "/a.csv", path)
    assert path.read_bytes() == BODY


def test_invalid_compressed_bytes_are_fetched_again(path: Path) -> None:
    with ScriptedSite(answer(b"no gzip", "200 OK", "Content-Encoding: gzip"), answer(BODY)) as site:
        fetch(site.url + "/a.csv", path)
    assert path.read_bytes() == BODY


def test_a_gzip_file_is_not_decompressed(path: Path) -> None:
    packed = gzip.compress(BODY)
    with ScriptedSite(answer(packed, "200 OK", TAG, "Content-Encoding: gzip")) as site:
        got = fetch(site.url + "/a.csv.gz", path, decode=False)
    assert path.read_bytes() == packed
    assert got.etag == '"one"'


# --- limits

LIMITED = RetryPolicy(timeout_s=10, retries=3, first_wait_s=0, limit_bytes=100_000)


def _endless(head: bytes, piece: bytes = b"x" * 10_000, pause_s: float = 0) -> Callable[[socket.socket], None]:
    """Send the piece again and again, until the other side closes the connection."""

    def send(connection: socket.socket) -> None:
        connection.sendall(head)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            connection.sendall(piece)
            time.sleep(pause_s)

    return send


def test_a_part_that_is_longer_than_announced_is_not_kept(path: Path) -> None:
    sizes: list[int] = []

    def wrong(connection: socket.socket) -> None:
        sizes.append(Part(path).size)
        connection.sendall(answer(BODY, "206 Partial Content", TAG, "Content-Range: bytes 1000-299999/300000"))

    cut = answer(BODY[:1000], "200 OK", TAG, length=len(BODY))
    with ScriptedSite(*[cut, wrong] * 10) as site:
        message = give_up(site.url + "/a", path, POLICY)
        assert len(site.requests) <= 2 * (1 + POLICY.retries)
    assert "sent more than the 300,000 bytes that it announced; gave up after" in message
    assert max(sizes) == 1000
    assert names(path.parent) == []


def test_after_a_wrong_partial_response_the_whole_file_is_requested(path: Path) -> None:
    cut = answer(BODY[:1000], "200 OK", TAG, length=len(BODY))
    wrong = answer(BODY, "206 Partial Content", TAG, "Content-Range: bytes 1000-299999/300000")
    with ScriptedSite(cut, wrong, answer(BODY, "200 OK", TAG)) as site:
        fetch(site.url + "/a", path)
        assert site.header(2, "Range") is None
    assert path.read_bytes() == BODY


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Length: 5000", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked"],
        ["Content-Length: many"],
        [],
    ],
)
@pytest.mark.parametrize("status", ["200 OK", "206 Partial Content"])
def test_an_endless_body_ends_at_the_announced_length_or_at_the_limit(
    path: Path, headers: list[str], status: str
) -> None:
    most: list[int] = []
    if status.startswith("206"):
        headers = [*headers, "Content-Range: bytes 1000-99999/*"]
    piece = chunked(b"x" * 10_000) if "Transfer-Encoding: chunked" in headers else b"x" * 10_000
    cut = answer(b"", "200 OK", TAG, "Transfer-Encoding: chunked", length=-1) + chunked(b"x" * 1000)
    endless = _endless(answer(b"", status, TAG, *headers, length=-1), piece)
    with ScriptedSite(cut, endless) as site, pytest.raises(SourceError) as caught:
        Download(
            site.url + "/a",
            path,
            LIMITED,
            "green",
            check=lambda answer: None,
            progress=lambda got, total, rate: most.append(got),
        ).run()
    assert max(most, default=0) <= LIMITED.limit_bytes
    ends = ("sent more than the 5,000 bytes", "does not match the request", "download_limit_gb = 0.0001")
    assert any(end in str(caught.value) for end in ends)
    assert names(path.parent) == []


def test_a_compressed_response_ends_at_the_limit(path: Path) -> None:
    packed = answer(gzip.compress(bytes(50_000_000)), "200 OK", "Content-Encoding: gzip")
    with ScriptedSite(packed) as site:
        message = give_up(site.url + "/a.csv", path, LIMITED)
        assert len(site.requests) == 1
    assert "does not announce its length and sends more; allowed is download_limit_gb = 0.0001" in message
    assert names(path.parent) == []


def test_a_length_above_the_limit_is_refused_until_the_limit_is_raised(path: Path) -> None:
    with ScriptedSite(answer(BODY, "200 OK", TAG)) as site:
        message = give_up(site.url + "/a", path, LIMITED)
        assert message.endswith(
            "announces 300,000 bytes; allowed is download_limit_gb = 0.0001: "
            "look at [pipeline] source, or raise the limit"
        )
        assert len(site.requests) == 1
        assert names(path.parent) == []
        fetch(site.url + "/a", path, POLICY)
    assert path.read_bytes() == BODY


def test_retries_end_when_progress_is_too_small(path: Path) -> None:
    came = [0]

    def little(connection: socket.socket) -> None:
        start, came[0] = came[0], came[0] + 10
        place = f"Content-Range: bytes {start}-{len(BODY) - 1}/{len(BODY)}"
        status = ("206 Partial Content", TAG, place) if start else ("200 OK", TAG)
        connection.sendall(answer(BODY[start : came[0]], *status, length=len(BODY) - start))

    with ScriptedSite(little) as site:
        assert "gave up after 4 attempts" in give_up(site.url + "/a", path, POLICY)
        assert len(site.requests) == 4
        assert path.read_bytes() == BODY[:40]


def test_a_slow_response_is_given_up(path: Path) -> None:
    head = answer(b"", "200 OK", TAG, length=len(BODY))
    with ScriptedSite(_endless(head, b"x", 0.02)) as site:
        message = give_up(site.url + "/a", path, RetryPolicy(timeout_s=0.3, retries=1, first_wait_s=0))
        assert len(site.requests) == 2
    assert re.search(r"sent \d+ bytes in \d+\.\d s, below 1,000 a second; gave up after 2 attempts", message)


@pytest.mark.parametrize("length", ["", "many", "0x493e0", "+300000", "300_000", "300000, 300000", "3e5", "300000.0"])
def test_an_invalid_length_is_ignored(path: Path, length: str) -> None:
    with ScriptedSite(answer(BODY, "200 OK", f"Content-Length: {length}", length=-1)) as site:
        assert not fetch(site.url + "/a", path).whole


@pytest.mark.parametrize("encoding", ["identity", "gzip", "x"])
def test_a_body_without_a_length_is_whole_only_with_chunks(path: Path, encoding: str) -> None:
    with ScriptedSite(answer(BODY, "200 OK", f"Transfer-Encoding: {encoding}", length=-1)) as site:
        assert not fetch(site.url + "/a", path).whole


def test_the_length_of_a_part_is_not_the_length_of_the_file(path: Path) -> None:
    cut = answer(b"", "200 OK", TAG, "Transfer-Encoding: chunked", length=-1) + chunked(BODY[:1000])
    rest = answer(BODY[1000:2000], "206 Partial Content", TAG, "Content-Range: bytes 1000-1999/*")
    with ScriptedSite(cut, rest) as site:
        assert not fetch(site.url + "/a", path).whole


# --- final errors


def _certificate(folder: Path, days: int = 2, name: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """A self-signed certificate and its key."""
    certificate, key = folder / "site.pem", folder / "site.key"
    request, names = folder / "site.csr", folder / "names"
    names.write_text(f"subjectAltName={name}")
    make = ["req", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=site"]
    sign = ["x509", "-req", "-in", request, "-signkey", key, "-days", str(days), "-extfile", names, "-out", certificate]
    for command in ([*make, "-keyout", key, "-out", request], sign):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    return certificate, key


@contextmanager
def _tls_site(certificate: Path, key: Path) -> Iterator[tuple[str, list[str]]]:
    """A TLS site that serves the body under any name; its URL, and an entry for each connection."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)

        def log_message(self, *args: object) -> None:
            """No log."""

    class Server(ThreadingHTTPServer):
        def get_request(self) -> tuple[Any, Any]:
            connections.append("")
            return super().get_request()

        def handle_error(self, *args: object) -> None:
            """No log of a client that rejected the certificate."""

    connections: list[str] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server) as port:
        yield f"https://127.0.0.1:{port}", connections


@pytest.fixture
def _no_bundles(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_no_bundles")
@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_an_unknown_certificate_is_final_and_its_remedy_works(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    certificate, key = _certificate(tmp_path)
    with _tls_site(certificate, key) as (url, connections):
        message = give_up(url + "/a", path, POLICY)
        assert "CERTIFICATE_VERIFY_FAILED" in message
        assert "; set REQUESTS_CA_BUNDLE (or SSL_CERT_FILE) to a file with the certificate of the authority" in message
        assert len(connections) == 1
        with pytest.raises(SourceError, match="set REQUESTS_CA_BUNDLE"):
            head_url(url + "/a", POLICY, "green")
        monkeypatch.setenv(variable, str(certificate))
        fetch(url + "/a", path)
    assert path.read_bytes() == BODY


@pytest.mark.usefixtures("_no_bundles")
@pytest.mark.parametrize(
    ("days", "name", "remedy"),
    [(-1, "IP:127.0.0.1", "look at the clock"), (2, "DNS:other.test", "look at the host in [pipeline] source")],
)
def test_an_expired_or_foreign_certificate_is_final_with_its_own_remedy(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int, name: str, remedy: str
) -> None:
    certificate, key = _certificate(tmp_path, days, name)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with _tls_site(certificate, key) as (url, connections):
        assert remedy in give_up(url + "/a", path, POLICY)
        assert len(connections) == 1


@pytest.mark.usefixtures("_no_bundles")
@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
@pytest.mark.parametrize("content", [None, "nothing\n", "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"])
def test_an_invalid_bundle_of_certificates_is_final_and_named(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, content: str | None
) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_text(content)
    monkeypatch.setenv(variable, str(bundle))
    with ScriptedSite(answer(BODY)) as site:
        message = give_up(site.url.replace("http", "https") + "/a", path, POLICY)
        assert len(site.requests) <= 1
    assert f"{variable} = {bundle}" in message
    assert "; correct or unset it" in message or "is not a file; correct" in message


@pytest.mark.usefixtures("_no_bundles")
def test_a_site_without_tls_is_final(site: SampleSite, path: Path, waits: list[float]) -> None:
    message = give_up(site.url.replace("http", "https") + GREEN, path, POLICY)
    assert waits == []
    assert "; look at http:// or https://, and the port, in [pipeline] source" in message


@pytest.mark.parametrize(("status", "final"), [(403, True), (407, True), (429, False), (502, False), (503, False)])
def test_the_refusal_of_a_proxy_is_final_and_its_failure_is_retried(
    path: Path, monkeypatch: pytest.MonkeyPatch, status: int, final: bool
) -> None:
    with ScriptedSite(answer(b"", f"{status} No")) as site:
        monkeypatch.setenv("https_proxy", site.url)
        message = give_up("https://no-such-host.invalid/a", path, POLICY)
        assert len(site.requests) == (1 if final else 1 + POLICY.retries)
    assert ("look at the proxy, its user and its password" in message) == final
    assert message.endswith("come back later") != final


@pytest.mark.parametrize("status", [407, 511])
def test_a_permanent_status_is_final(path: Path, status: int) -> None:
    with ScriptedSite(answer(b"", f"{status} No")) as site:
        assert f"HTTP {status} No; look at " in give_up(site.url + "/a", path, POLICY)
        assert len(site.requests) == 1


# --- URLs


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect"])
def test_a_redirect_is_followed_with_the_range(site: SampleSite, path: Path, status: str) -> None:
    whole = served(site)
    site.faults.add("*", "cut", 5000)
    with ScriptedSite(answer(b"over there", status, f"Location: {site.url}{GREEN}?sig=hush")) as first:
        fetch(first.url + "/a", path)
        assert head_url(first.url + "/a", POLICY, "green")
    assert path.read_bytes() == whole
    assert ranges(site)[:2] == [None, "bytes=5000-"]


def test_the_body_of_a_redirect_is_not_read(site: SampleSite, path: Path) -> None:
    moved = answer(b"", "302 Found", f"Location: {site.url}{GREEN}", length=-1)
    with ScriptedSite(_endless(moved, b"x", 0.01)) as first:
        began = time.monotonic()
        fetch(first.url + "/a", path)
    assert time.monotonic() - began < 10
    assert path.read_bytes() == served(site)


@pytest.mark.parametrize(
    ("location", "kind"),
    [("URL/a", "TooManyRedirects"), ("ftp://host/a?sig=hush", "InvalidSchema"), ("http://[::1?hush", "InvalidURL")],
)
def test_an_invalid_redirect_is_an_error_without_retries(path: Path, location: str, kind: str) -> None:
    with ScriptedSite(b"") as site:
        moved = answer(b"", "302 Found", f"Location: {location.replace('URL', site.url)}")
        site._scripts = (moved,)
        message = give_up(site.url + "/a", path, POLICY)
    assert kind in message or "ValueError" in message
    assert "hush" not in message


@pytest.mark.parametrize(
    ("url", "found"),
    [
        (
            "http://user:hush@127.0.0.1:99999/a?sig=hush",
            "the address cannot be requested (InvalidURL); look at [pipeline] source, its redirects",
        ),
        ("http:///a", "the address cannot be requested (InvalidURL)"),
        ("http://a..b/a", "the address cannot be requested (LocationParseError)"),
        ("http://127.0.0.1:1/a?sig=hush", "ConnectionRefusedError: [Errno"),
        ("http://user:hush@no-such-host.invalid/a", "name not known;"),
    ],
)
def test_an_unreachable_url_is_one_clear_error(path: Path, url: str, found: str) -> None:
    message = give_up(url, path, POLICY)
    assert found in message
    assert "hush" not in message
    with pytest.raises(SourceError, match="^green 2024-01: "):
        head_url(url, ONCE, "green 2024-01")
    assert names(path.parent) == []


def test_an_unreachable_proxy_is_named_as_the_cause(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://user:hush@127.0.0.1:1")
    message = give_up("http://no-such-host.invalid/a", path)
    assert "through a proxy: ConnectionRefusedError: " in message
    assert "hush" not in message


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/a/b", "https://host/a/b"),
        ("https://host:80/a?sig=hush#hush", "https://host:80/a"),
        ("https://user:hush@host/a", "https://host/a"),
        ("https://user:hu@sh@[::1]:80/a", "https://[::1]:80/a"),
        ("https://host/@scope/a", "https://host/@scope/a"),
        ("https://user:hu/sh@host/a", "https://…"),
        ("https://user:hu?sh@host/a", "https://…"),
        ("https://user:hu#sh@host/a", "https://…"),
        ("http://[::1", "http://[::1"),
        ("duckdb:///data/a?b#c", "duckdb:///data/a?b#c"),
        ("/a/folder@home?", "/a/folder@home?"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert redact(url) == shown


# --- HEAD requests


def test_a_head_request_returns_the_version_or_none_or_raises(site: SampleSite) -> None:
    assert head_url(site.url + GREEN, POLICY, "green")
    assert not head_url(site.url + "/trip-data/green_tripdata_2034-01.parquet", POLICY, "green")
    site.faults.add("*", 404)
    assert not head_url(site.url + GREEN, POLICY, "green")
    site.faults.add("*", 503, times=2)
    site.faults.add("*", "drop")
    assert head_url(site.url + GREEN, POLICY, "green")
    assert {seen.method for seen in site.requests} == {"HEAD"}
    site.faults.add("*", 401)
    with pytest.raises(SourceError, match=r"^green: http://.*: HTTP 401 Unauthorized; look at"):
        head_url(site.url + GREEN, POLICY, "green")
    site.faults.add("*", 500, times=math.inf)
    with pytest.raises(SourceError, match=r"^green: .*: HTTP 500 .*; gave up after 4 attempts"):
        head_url(site.url + GREEN, POLICY, "green")


# --- the disk


@pytest.mark.parametrize("limit_bytes", [0, 100, 5000])
def test_a_full_disk_is_a_store_error_and_the_written_bytes_are_resumed(
    site: SampleSite, path: Path, limit_bytes: int
) -> None:
    whole = served(site)
    with full_disk(limit_bytes), pytest.raises(StoreError, match=r"part.*: cannot be written: .*; make room, or set "):
        Download(site.url + GREEN, path, POLICY, "green", check=lambda answer: None).run()
    assert len(site.requests) == 1
    assert Part(path).size <= limit_bytes
    assert path.read_bytes() == whole[: Part(path).size]
    fetch(site.url + GREEN, path)
    assert path.read_bytes() == whole
    if limit_bytes == 5000:
        assert ranges(site) == [None, "bytes=5000-"]


def test_a_part_without_its_folder_is_a_store_error(site: SampleSite, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="part: cannot be written: No such file or directory; correct that, or set"):
        Download(site.url + GREEN, tmp_path / "nowhere" / "part", POLICY, "green", check=lambda answer: None).run()


def test_an_interrupt_keeps_the_received_bytes(site: SampleSite, path: Path) -> None:
    def interrupt(got: int, total: int | None, rate: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Download(site.url + GREEN, path, POLICY, "green", check=lambda answer: None, progress=interrupt).run()
    assert Part(path).size > 0
    assert json.loads(Part(path).note.read_text())["bytes"] == len(served(site))
    fetch(site.url + GREEN, path)
    assert path.read_bytes() == served(site)
