"""One file over HTTP, whole: what `pipeline.source` relies on.

The bytes go to a part file (`pipeline.parts`). A later attempt, in this process or the next, asks for the rest of just
the version it holds (Range with If-Range); any other answer starts over.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import requests
import urllib3

from pipeline.errors import SourceError
from pipeline.parts import Part, Version, hash_of, write_all
from pipeline.version import __version__

_CHUNK_BYTES = 1 << 18
_LONGEST_WAIT_S = 600.0
_ABSENT = (403, 404)
_BAD_URL = (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema)

#: Called with bytes so far, bytes in all (None when unknown) and bytes per second.
Progress = Callable[[int, "int | None", float], None]


@dataclass(frozen=True)
class Politeness:
    """How patient to be with a site: attempts in a row without progress, and the waits around them."""

    timeout_s: float
    retries: int
    first_wait_s: float


@dataclass(frozen=True)
class Answer:
    """What is known of the bytes that arrived."""

    etag: str | None
    last_modified: str | None
    bytes: int
    sha256: str


class _Again(Exception):
    """An attempt failed in a way that may pass."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


def fetch_url(
    url: str,
    path: Path,
    politeness: Politeness,
    subject: str,
    *,
    check: Callable[[Path], None],
    progress: Progress | None = None,
) -> Answer | None:
    """Bring the file at `url` to the part file at `path`; None when the site has none (403, 404).

    `check` raises a SourceError when the bytes are not what they should be; they are then fetched anew.

    Raises:
        SourceError: the site misbehaved through all retries in a row without progress, or refused for good.
        StoreError: the part file cannot be written.
    """
    part, failures = Part(path), 0
    with requests.Session() as session:
        while True:
            held = part.size
            try:
                answer = _attempt(session, url, part, politeness, progress)
                if answer is not None:
                    _check(check, part)
                return answer
            except _Again as again:
                failures = 1 if part.size > held else failures + 1
                _wait(again, failures, politeness, f"{subject}: {redact(url)}")


def head_url(url: str, politeness: Politeness, subject: str) -> bool:
    """Whether the site has the file.

    Raises:
        SourceError: it answers neither yes nor no, through all retries.
    """
    failures = 0
    while True:
        try:
            with _network():
                response = requests.head(url, headers=_HEADERS, timeout=politeness.timeout_s, allow_redirects=True)
            if response.status_code in _ABSENT:
                return False
            _refuse_unless_ok(response, url)
            return True
        except _Again as again:
            failures += 1
            _wait(again, failures, politeness, f"{subject}: {redact(url)}")


def redact(url: str) -> str:
    """The URL without what may be secret in it: user, password, query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")) if parts.netloc else url


_HEADERS = {"Accept-Encoding": "identity", "User-Agent": f"taxi-pipeline/{__version__}"}


def _attempt(
    session: requests.Session, url: str, part: Part, politeness: Politeness, progress: Progress | None
) -> Answer | None:
    held = part.version(url)
    headers = dict(_HEADERS)
    if held is not None:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": held.validator or ""}
    with _network(), session.get(url, headers=headers, stream=True, timeout=politeness.timeout_s) as response:
        if response.status_code in _ABSENT:
            part.discard()
            return None
        if response.status_code == 416:
            return _whole_already(response, held, part)
        _refuse_unless_ok(response, url)
        start, version = _start_and_version(response, url, held, part)
        digest = _receive(response, part, start, version, progress)
    if version.bytes is not None and part.size != version.bytes:
        raise _Again(f"sent {part.size:,} of {version.bytes:,} bytes")
    return Answer(version.etag, version.last_modified, part.size, digest)


def _start_and_version(response: requests.Response, url: str, held: Version | None, part: Part) -> tuple[int, Version]:
    """Where in the file the body starts, and of which version it is."""
    etag, modified = response.headers.get("ETag"), response.headers.get("Last-Modified")
    if response.status_code != 206:
        length = response.headers.get("Content-Length", "")
        return 0, Version(url, etag, modified, int(length) if length.isdigit() else None)
    unit_and_range, _, total = response.headers.get("Content-Range", "").partition("/")
    start = unit_and_range.removeprefix("bytes ").partition("-")[0]
    version = Version(url, etag, modified, int(total) if total.isdigit() else None)
    if held is None or start != str(part.size) or version != held:
        part.discard()
        raise _Again("answered with a part that does not fit what was asked for")
    return int(start), version


def _receive(response: requests.Response, part: Part, start: int, version: Version, progress: Progress | None) -> str:
    """Write the body from `start` on; returns the sha256 of the whole part as hexadecimal digits."""
    began, got = time.monotonic(), 0
    with part.continued(start, version) as file:
        digest = hash_of(file)
        for chunk in response.raw.stream(_CHUNK_BYTES, decode_content=False):
            digest.update(chunk)
            write_all(file, chunk)
            got += len(chunk)
            if progress is not None:
                progress(start + got, version.bytes, got / max(time.monotonic() - began, 1e-6))
    return digest.hexdigest()


@contextmanager
def _network() -> Iterator[None]:
    """Turn what the network raises into `_Again`."""
    try:
        yield
    except (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        requests.exceptions.MissingSchema,
    ) as error:
        raise SourceError(f"{error}; look at [pipeline] source") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError, TimeoutError) as error:
        raise _Again(_reason(error)) from error


def _reason(error: BaseException) -> str:
    """The innermost cause in a line; the outer layers only repeat it."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _refuse_unless_ok(response: requests.Response, url: str) -> None:
    status = response.status_code
    if status == 429 or status >= 500:
        raise _Again(f"HTTP {status} {response.reason}", _retry_after(response))
    if status not in (200, 206):
        raise SourceError(f"{redact(url)}: HTTP {status} {response.reason}; look at [pipeline] source")


def _retry_after(response: requests.Response) -> float | None:
    """Seconds from a Retry-After header, which holds a number or a date."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    try:
        return (parsedate_to_datetime(text) - datetime.now(timezone.utc)).total_seconds() if text else None
    except (ValueError, TypeError):
        return None


def _whole_already(response: requests.Response, held: Version | None, part: Part) -> Answer:
    """A 416 says that nothing is left to send: the process died between the last byte and its publication."""
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    same = held is not None and response.headers.get("ETag", held.etag) == held.etag
    if held is None or not same or not str(held.bytes) == total == str(part.size):
        part.discard()
        raise _Again("HTTP 416 for the rest of a file")
    return Answer(held.etag, held.last_modified, part.size, part.sha256())


def _check(check: Callable[[Path], None], part: Part) -> None:
    try:
        check(part.path)
    except SourceError as error:
        part.discard()
        raise _Again(str(error)) from error


def _wait(again: _Again, failures: int, politeness: Politeness, subject: str) -> None:
    if failures > politeness.retries:
        raise SourceError(f"{subject}: {again}; gave up after {failures} attempts, come back later") from again
    # Half as long to half as long again, so that many workers do not come back all at once.
    backoff = politeness.first_wait_s * 2 ** (failures - 1) * random.uniform(0.5, 1.5)  # noqa: S311
    time.sleep(min(max(again.wait_s or 0.0, backoff), _LONGEST_WAIT_S))
