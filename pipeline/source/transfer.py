"""One file over HTTP, whole: what `pipeline.source.site` relies on.

The bytes go to a part file (`pipeline.source.parts`). A later attempt, in this process or the next, asks for the rest
of just the version it holds (Range with If-Range); any other answer starts over. Everything has an end: no more bytes
than announced, or than `limit_bytes`; no slower than 1,000 bytes a second; no attempts without progress that counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from socket import SHUT_RDWR
from threading import Event, Timer
from time import monotonic
from typing import Any

import requests
import urllib3

from pipeline.errors import SourceError, StoreError, redact
from pipeline.source.parts import Part, Version, hash_of, write_all
from pipeline.source.retries import (
    RetryableError,
    RetryPolicy,
    ca_bundle,
    number,
    reason,
    translate_request_errors,
    validate_response,
    wait,
)
from pipeline.version import __version__

_HEADERS = {"Accept-Encoding": "identity", "User-Agent": f"taxi-pipeline/{__version__}"}
_CHUNK_BYTES = 1 << 18
#: How much of a file tells what it is.
_HEAD_BYTES = 1024
#: Bytes a second that an answer must bring, on average over each `timeout_s`.
_LOWEST_RATE = 1000
#: Progress that counts: so much, or a hundredth of the file.
_STEP_BYTES = 1 << 20
_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15}|\*)")
_ABSENT = (403, 404)
_PAGES = ("text/html", "text/xml", "application/xml")

#: Called with bytes so far, bytes in all (None when unknown) and bytes per second.
Progress = Callable[[int, "int | None", float], None]


@dataclass(frozen=True)
class Answer:
    """What is known of the bytes that arrived; `whole` is false when the site did not say how many there would be."""

    etag: str | None
    last_modified: str | None
    bytes: int
    sha256: str
    whole: bool = True


def fetch_url(
    url: str,
    path: Path,
    policy: RetryPolicy,
    subject: str,
    *,
    check: Callable[[Answer], None],
    look: Callable[[bytes], None] | None = None,
    decode: bool = True,
    progress: Progress | None = None,
) -> Answer | None:
    """Bring the file at `url` to the part file at `path`; None when the site has none (403, 404).

    `check` raises a SourceError when the bytes are not what they should be, `look` when the first of them are not; they
    are then fetched anew. `decode` undoes what the site or a proxy on the way did to the bytes although asked not to
    (Content-Encoding).

    Raises:
        SourceError: the site misbehaved through all retries in a row without progress, refused for good, or sends more
            than `limit_bytes`.
        StoreError: the part file cannot be written.
    """
    part, failures = Part(path), 0
    download = _Download(url, part, policy, f"{subject}: {redact(url)}", decode, look, progress)
    # Progress is what goes beyond all that was ever there; else a site that sends now more, now less has no end. Nor
    # would one that sends a few bytes at a time, were each of them progress.
    most = part.size
    with _Session() as session:
        while True:
            try:
                answer = download.attempt(session)
                if answer is not None:
                    most = max(most, answer.bytes)
                    _check(partial(check, answer), part)
                return answer
            except RetryableError as again:
                if part.size - most >= download.step_bytes:
                    failures, most = 0, part.size
                failures += 1
                wait(again, failures, policy, download.where)


def head_url(url: str, policy: RetryPolicy, subject: str, *, decode: bool = True) -> Version | None:
    """The version of the file that the site has now; None when it has none (403, 404). `decode` is as for `fetch_url`.

    Not under a condition such as If-None-Match: an answer to HEAD has no body that could be saved.

    Raises:
        SourceError: it answers neither yes nor no, through all retries.
    """
    failures, where = 0, f"{subject}: {redact(url)}"
    while True:
        try:
            with translate_request_errors(where), _Session() as session:
                response = session.head(
                    url, headers=_HEADERS, timeout=policy.timeout_s, allow_redirects=True, verify=ca_bundle()
                )
            if response.status_code in _ABSENT:
                return None
            validate_response(response, where)
            return _version(url, response, encoded=decode and _is_encoded(response))
        except RetryableError as again:
            failures += 1
            wait(again, failures, policy, where)


@cache
def _hasty(kind: type[Any]) -> type[Any]:
    """A connection whose answer has all of its headers within the time-out; a socket's begins anew with each byte."""

    class Hasty(kind):
        def getresponse(self) -> Any:
            late, sock = Event(), self.sock

            def end() -> None:
                late.set()
                with suppress(OSError):
                    sock.shutdown(SHUT_RDWR)

            timer = Timer(self.timeout, end)
            timer.daemon = True
            timer.start()
            response = None
            try:
                response = super().getresponse()
            except Exception:
                if not late.is_set():
                    raise
            finally:
                timer.cancel()
            if response is None or late.is_set():
                if response is not None:
                    response.close()
                raise TimeoutError("timed out")  # Without the cause, which is only that the connection was shut down.
            return response

    return Hasty


class _Adapter(requests.adapters.HTTPAdapter):
    def get_connection_with_tls_context(self, *arguments: Any, **named: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*arguments, **named)
        pool.ConnectionCls = _hasty(type(pool).ConnectionCls)
        return pool


class _Session(requests.Session):
    """A session that has no endless headers, and does not read the body of a redirect, which may have no end."""

    def __init__(self) -> None:
        super().__init__()
        self.mount("http://", _Adapter())
        self.mount("https://", _Adapter())

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target: str | None = super().get_redirect_target(resp)
        if target:
            resp.close()
        return target


@dataclass
class _Download:
    """One file on its way to its part; `where` is what errors begin with, `step_bytes` the least progress."""

    url: str
    part: Part
    policy: RetryPolicy
    where: str
    decode: bool
    look: Callable[[bytes], None] | None
    progress: Progress | None
    step_bytes: float = _STEP_BYTES

    def attempt(self, session: requests.Session) -> Answer | None:
        """Ask once, for the rest of what is there or for all of it; None when the site has no such file."""
        held = self.part.version(redact(self.url))
        headers = dict(_HEADERS)
        if held is not None:
            headers |= {"Range": f"bytes={self.part.size}-", "If-Range": held.validator or ""}
        with translate_request_errors(self.where):
            timeout_s, verify = self.policy.timeout_s, ca_bundle()
            response = session.get(self.url, headers=headers, stream=True, timeout=timeout_s, verify=verify)
        with response:
            if response.status_code in _ABSENT:
                return None
            if response.status_code == 416:
                return _whole_already(response, held, self.part)
            validate_response(response, self.where)
            return self._receive(response, held)

    def _receive(self, response: requests.Response, held: Version | None) -> Answer:
        """Write the body to its place in the part."""
        start, stop, version, encoded = self._announced(response, held)
        if version.bytes is not None:
            self.step_bytes = min(_STEP_BYTES, max(1, version.bytes / 100))
            if version.bytes > self.policy.limit_bytes:
                raise self._too_long(f"announces {version.bytes:,} bytes")
        began, got, looked = monotonic(), 0, self.look is None
        with self.part.opened(version, anew=not start) as file:
            digest = hash_of(file)
            for chunk in _body(response, self.policy.timeout_s, decode=encoded):
                self._refuse_more(start + got + len(chunk), stop)
                digest.update(chunk)
                write_all(file, chunk)
                got += len(chunk)
                if not looked and start + got >= _HEAD_BYTES and self.look is not None:
                    _check(partial(self.look, os.pread(file.fileno(), _HEAD_BYTES, 0)), self.part)
                    looked = True
                if self.progress is not None:
                    self.progress(start + got, version.bytes, got / max(monotonic() - began, 1e-6))
        due = stop if version.bytes is None else version.bytes
        if due is not None and start + got != due:
            raise RetryableError(f"sent {start + got:,} of {due:,} bytes")
        # A length that is no number announces nothing, and that of a piece says nothing of the file.
        framed = number(response.headers.get("Content-Length", "")) is not None or (
            response.headers.get("Transfer-Encoding", "").lower() == "chunked"
        )
        whole = version.bytes is not None or (framed and response.status_code != 206)
        return Answer(version.etag, version.last_modified, start + got, digest.hexdigest(), whole=whole)

    def _refuse_more(self, bytes_: int, stop: int | None) -> None:
        """Keep no more than was announced, or than is allowed; whatever the site sends is worth nothing then."""
        if stop is not None and bytes_ > stop:
            self.part.discard()
            raise RetryableError(f"sent more than the {stop:,} bytes that it announced")
        if bytes_ > self.policy.limit_bytes:
            self.part.discard()
            raise self._too_long("does not announce its length and sends more")

    def _too_long(self, found: str) -> SourceError:
        limit = f"download_limit_gb = {self.policy.limit_bytes / 10**9:g}"
        return SourceError(f"{self.where}: {found}; allowed is {limit}: look at [pipeline] source, or raise the limit")

    def _announced(self, response: requests.Response, held: Version | None) -> tuple[int, int | None, Version, bool]:
        """Where in the file the body starts and stops, of which version it is, and whether it must be decoded."""
        headers = response.headers
        etag, modified = headers.get("ETag"), headers.get("Last-Modified")
        encoded = self.decode and _is_encoded(response)
        if response.status_code == 206:
            found = _RANGE.fullmatch(headers.get("Content-Range", ""))
            start, last, size = (number(text) for text in found.groups()) if found else (None, None, None)
            fits = start is not None and last is not None and self.part.size == start <= last < (size or last + 1)
            if encoded or held is None or last is None or not fits or not held.covers(etag, modified, size):
                self.part.discard()
                raise RetryableError("answered with a part that does not fit what was asked for")
            return self.part.size, last + 1, replace(held, bytes=held.bytes or size), False
        if held is not None and not (etag or modified) and headers.get("Content-Type", "").startswith(_PAGES):
            # The page of a hotel's network, say: no reason to give up what is there.
            raise RetryableError("answered with a page in place of the rest")
        version = _version(self.url, response, encoded=encoded)
        return 0, version.bytes, version, encoded


def _is_encoded(response: requests.Response) -> bool:
    return response.headers.get("Content-Encoding", "identity").lower() != "identity"


def _version(url: str, response: requests.Response, *, encoded: bool) -> Version:
    """The version that the headers tell of; the tag and the length of what is encoded are not those of the file."""
    headers = response.headers
    etag, size = headers.get("ETag"), number(headers.get("Content-Length", ""))
    return Version(redact(url), None if encoded else etag, headers.get("Last-Modified"), None if encoded else size)


def _body(response: requests.Response, window_s: float, *, decode: bool) -> Iterator[bytes]:
    """The body in pieces as they come: a full read would lose what had come of it when the connection breaks.

    Raises RetryableError for one that breaks, and for a trickle.
    """
    try:
        began, got = monotonic(), 0
        while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=decode):
            yield chunk
            got += len(chunk)
            if (passed_s := monotonic() - began) >= window_s:
                if got < _LOWEST_RATE * passed_s:
                    raise RetryableError(
                        f"sent {got:,} bytes in {passed_s:.1f} s; less than {_LOWEST_RATE:,} a second is none"
                    )
                began, got = monotonic(), 0
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise RetryableError(reason(error)) from error


def _whole_already(response: requests.Response, held: Version | None, part: Part) -> Answer:
    """A 416 says that nothing is left to send: the process died between the last byte and its publication."""
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    same = held is not None and response.headers.get("ETag", held.etag) == held.etag
    if held is None or not same or not held.bytes == number(total) == part.size:
        part.discard()
        raise RetryableError("HTTP 416 for the rest of a file")
    return Answer(held.etag, held.last_modified, part.size, part.sha256())


def _check(check: Callable[[], None], part: Part) -> None:
    try:
        check()
    except SourceError as error:
        part.discard()
        raise RetryableError(str(error)) from error
    except OSError as error:
        raise StoreError(f"{part.path}: cannot be read: {error.strerror}; mend that and run again") from error
