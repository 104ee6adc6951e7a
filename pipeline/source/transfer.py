"""Download one file over HTTP into a part file (`pipeline.source.parts`).

A later attempt, in this process or the next, asks for the rest of exactly this version (Range with If-Range); any other
response starts over. Every download ends: by limits for its bytes, its speed, and its retries without progress.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import requests
import urllib3

from pipeline.errors import SourceError, redact
from pipeline.source.parts import Part, Version
from pipeline.source.retries import Retries, RetryableError, RetryPolicy, reason, request, to_int, validate_response

_CHUNK_BYTES = 1 << 18
#: How much of a file shows its format.
_HEAD_BYTES = 1024
#: Bytes a second that a response must bring, on average over each `timeout_s`.
_LOWEST_RATE = 1000
#: Progress that resets the retries: this much, or a hundredth of the file.
_STEP_BYTES = 1 << 20
_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15}|\*)")
_ABSENT = (403, 404)
_PAGES = ("text/html", "text/xml", "application/xml")

#: Called with bytes so far, bytes in all (None when unknown) and bytes per second.
Progress = Callable[[int, "int | None", float], None]


@dataclass(frozen=True)
class Answer:
    """A received file; `whole` is false when the site did not announce its length."""

    etag: str | None
    last_modified: str | None
    bytes: int
    sha256: str
    whole: bool = True


@dataclass
class Download:
    """The download of the file at `url` to the part file at `path`; `subject` begins its errors.

    `check` raises a SourceError when the bytes are not the expected file, `check_head` when the first of them are not;
    the download then starts over. `decode` undoes a Content-Encoding that the site or a proxy applied unasked.
    """

    url: str
    path: Path
    policy: RetryPolicy
    subject: str
    check: Callable[[Answer], None]
    check_head: Callable[[bytes], None] = lambda head: None
    decode: bool = True
    progress: Progress | None = None

    def __post_init__(self) -> None:
        self.part = Part(self.path)
        self._where = f"{self.subject}: {redact(self.url)}"
        self._retries = Retries(self.policy, self._where)
        # The least progress that counts, beyond the most bytes that were ever received: else a site that sends
        # sometimes more, sometimes less would be retried for ever.
        self._step_bytes: float = _STEP_BYTES
        self._most_bytes = self.part.size

    def run(self) -> Answer | None:
        """Download until the file is whole; None when the site has no such file (403, 404).

        Raises:
            SourceError: all retries without progress failed, a failure was final, or the file is over `limit_bytes`.
            StoreError: the part file cannot be written.
        """
        return self._retries.run(self._attempt)

    def _attempt(self) -> Answer | None:
        try:
            answer = self._ask()
            if answer is not None:
                self._most_bytes = max(self._most_bytes, answer.bytes)
                self._validate(self.check, answer)
            return answer
        except RetryableError:
            if (size := self.part.size) - self._most_bytes >= self._step_bytes:
                self._retries.failures, self._most_bytes = 0, size
            raise

    def _ask(self) -> Answer | None:
        held, headers = self.part.version(redact(self.url)), {}
        if held is not None:
            headers = {"Range": f"bytes={self.part.size}-", "If-Range": held.validator or ""}
        with request("GET", self.url, self.policy.timeout_s, self._where, **headers) as response:
            if response.status_code in _ABSENT:
                return None
            if response.status_code == 416:
                return self._already_whole(response, held)
            validate_response(response, self._where)
            return self._receive(response, held)

    def _already_whole(self, response: requests.Response, held: Version | None) -> Answer:
        """A 416 says that no bytes are left: the process died between the last byte and the publication."""
        total = to_int(response.headers.get("Content-Range", "").rpartition("/")[2])
        same = held is not None and response.headers.get("ETag", held.etag) == held.etag
        if held is None or not same or not held.bytes == total == self.part.size:
            raise self._restart("HTTP 416 for the rest of a file")
        return Answer(held.etag, held.last_modified, self.part.size, self.part.sha256())

    def _receive(self, response: requests.Response, held: Version | None) -> Answer:
        """Append the body to the part, or write it from the start."""
        start, stop, version, encoded = self._announced(response, held)
        if version.bytes is not None:
            self._step_bytes = min(_STEP_BYTES, max(1, version.bytes / 100))
            if version.bytes > self.policy.limit_bytes:
                raise self._too_long(f"announces {version.bytes:,} bytes")
        began, size, head_is_checked = monotonic(), start, False
        with self.part.opened(version, restart=not start) as file:
            for chunk in _body(response, self.policy.timeout_s, decode=encoded):
                size += len(chunk)
                if stop is not None and size > stop:
                    raise self._restart(f"sent more than the {stop:,} bytes that it announced")
                if size > self.policy.limit_bytes:
                    self.part.discard()
                    raise self._too_long("does not announce its length and sends more")
                file.write(chunk)
                file.flush()  # A killed process loses no received bytes.
                if not head_is_checked and size >= _HEAD_BYTES:
                    self._validate(self.check_head, os.pread(file.fileno(), _HEAD_BYTES, 0))
                    head_is_checked = True
                if self.progress is not None:
                    self.progress(size, version.bytes, (size - start) / max(monotonic() - began, 1e-6))
        expected = stop if version.bytes is None else version.bytes
        if expected is not None and size != expected:
            raise RetryableError(f"sent {size:,} of {expected:,} bytes")
        # Chunks have an end, too; the length of a partial response says nothing about the file.
        length, chunked = response.headers.get("Content-Length", ""), response.headers.get("Transfer-Encoding", "")
        framed = to_int(length) is not None or chunked.lower() == "chunked"
        whole = version.bytes is not None or (framed and response.status_code != 206)
        return Answer(version.etag, version.last_modified, size, self.part.sha256(), whole=whole)

    def _announced(self, response: requests.Response, held: Version | None) -> tuple[int, int | None, Version, bool]:
        """Where in the file the body starts and stops, its version, and whether it must be decoded."""
        headers = response.headers
        etag, modified = headers.get("ETag"), headers.get("Last-Modified")
        encoded = self.decode and _is_encoded(response)
        if response.status_code == 206:
            match = _RANGE.fullmatch(headers.get("Content-Range", ""))
            start, last, size = (to_int(text) for text in match.groups()) if match else (None, None, None)
            fits = start is not None and last is not None and self.part.size == start <= last < (size or last + 1)
            if encoded or held is None or last is None or not fits or not held.matches(etag, modified, size):
                raise self._restart("answered with a part that does not match the request")
            return self.part.size, last + 1, replace(held, bytes=held.bytes or size), False
        if held is not None and not (etag or modified) and headers.get("Content-Type", "").startswith(_PAGES):
            # The login page of a network, for instance: the part is kept.
            raise RetryableError("answered with a page instead of the rest")
        version = _version(self.url, response, encoded=encoded)
        return 0, version.bytes, version, encoded

    def _restart(self, problem: str) -> RetryableError:
        self.part.discard()
        return RetryableError(problem)

    def _too_long(self, problem: str) -> SourceError:
        limit = f"download_limit_gb = {self.policy.limit_bytes / 10**9:g}"
        remedy = "look at [pipeline] source, or raise the limit"
        return SourceError(f"{self._where}: {problem}; allowed is {limit}: {remedy}")

    def _validate(self, check: Callable[[Any], None], value: object) -> None:
        try:
            check(value)
        except SourceError as error:
            raise self._restart(str(error)) from error


def head_url(url: str, policy: RetryPolicy, subject: str, *, decode: bool = True) -> Version | None:
    """The version of the file that the site has now; None when it has none (403, 404). Raises as `Download`."""
    where = f"{subject}: {redact(url)}"

    def attempt() -> Version | None:
        with request("HEAD", url, policy.timeout_s, where) as response:
            if response.status_code in _ABSENT:
                return None
            validate_response(response, where)
            return _version(url, response, encoded=decode and _is_encoded(response))

    return Retries(policy, where).run(attempt)


def _is_encoded(response: requests.Response) -> bool:
    return response.headers.get("Content-Encoding", "identity").lower() != "identity"


def _version(url: str, response: requests.Response, *, encoded: bool) -> Version:
    """The version in the headers; tag and length of an encoded body are not those of the file."""
    headers = response.headers
    etag, size = headers.get("ETag"), to_int(headers.get("Content-Length", ""))
    return Version(redact(url), None if encoded else etag, headers.get("Last-Modified"), None if encoded else size)


def _body(response: requests.Response, window_s: float, *, decode: bool) -> Iterator[bytes]:
    """The body in pieces as they arrive: a read of a full buffer would lose received bytes when the connection breaks.

    Raises RetryableError when it breaks, and when it is too slow.
    """
    try:
        began, size = monotonic(), 0
        while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=decode):
            yield chunk
            size += len(chunk)
            if (passed_s := monotonic() - began) >= window_s:
                if size < _LOWEST_RATE * passed_s:
                    raise RetryableError(f"sent {size:,} bytes in {passed_s:.1f} s, below {_LOWEST_RATE:,} a second")
                began, size = monotonic(), 0
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise RetryableError(reason(error)) from error
